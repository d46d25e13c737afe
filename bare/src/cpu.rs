//! Single instructions, and the end of the run.
#![allow(unsafe_code, reason = "instructions that Rust has no word for")]

use crate::exceptions::{self, Fault};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Where a guarded instruction that faults goes on; 0 when none is being executed.
#[unsafe(no_mangle)]
static BARE_GUARD: AtomicU64 = AtomicU64::new(0);
static FAULT: AtomicU64 = AtomicU64::new(0);
const CAUGHT: u64 = 1 << 63;

/// Executes one instruction, the last template but for the operands; an exception of it is caught and told by [`take_fault`].
macro_rules! guarded {
    ($instruction:literal $(, $($operand:tt)*)?) => {
        ::core::arch::asm!(
            "lea rax, [rip + 2f]", "mov [rip + BARE_GUARD], rax",
            $instruction,
            "2:", "mov qword ptr [rip + BARE_GUARD], 0",
            $($($operand)*,)?
            clobber_abi("sysv64"),
        )
    };
}
pub(crate) use guarded;

/// What an exception leaves on the stack, below the registers that the stub saved.
#[repr(C)]
pub(crate) struct Frame {
    registers: [u64; 15],
    stub: u64,
    pub error: u64,
    pub rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

impl Frame {
    /// The vector, from the stub's return address.
    pub fn vector(&self) -> u8 {
        ((self.stub - crate::boot::handler(0)) / 8) as u8
    }

    /// Lets a guarded instruction go on after itself. False: there is none.
    pub fn recover(&mut self, fault: Fault) -> bool {
        let at = BARE_GUARD.swap(0, Ordering::Relaxed);
        if at == 0 {
            return false;
        }
        FAULT.store(CAUGHT | u64::from(fault.vector) << 32 | u64::from(fault.error), Ordering::Relaxed);
        self.rip = at;
        true
    }
}

/// The exception of the last guarded instruction, if it raised one.
pub(crate) fn take_fault() -> Option<Fault> {
    let fault = FAULT.swap(0, Ordering::Relaxed);
    (fault & CAUGHT != 0).then_some(Fault { vector: (fault >> 32) as u8, error: fault as u32 })
}

/// What the function that [`exceptions::go_on`] was given says about `rip`.
pub(crate) fn chosen(function: usize, rip: u64) -> Option<u64> {
    if function == 0 {
        return None;
    }
    // SAFETY: `go_on` stores functions of this type only.
    let choose = unsafe { core::mem::transmute::<usize, fn(u64) -> Option<u64>>(function) };
    choose(rip)
}

#[unsafe(no_mangle)]
extern "C" fn bare_exception(frame: &mut Frame) {
    exceptions::handle(frame);
}

/// Reads a byte from a port.
#[must_use]
pub fn input8(port: u16) -> u8 {
    let value;
    // SAFETY: no device here writes to memory because of a port access.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// Writes a byte to a port.
pub fn output8(port: u16, value: u8) {
    // SAFETY: as in `input8`.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Reads 4 bytes from a port.
#[must_use]
pub fn input32(port: u16) -> u32 {
    let value;
    // SAFETY: as in `input8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack)) };
    value
}

/// Writes 4 bytes to a port.
pub fn output32(port: u16, value: u32) {
    // SAFETY: as in `input8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack)) };
}

/// Ends the run with `status`: isa-debug-exit, else Bochs' shutdown port, else HLT.
pub fn end(status: u8) -> ! {
    crate::console::Console::finish();
    // SAFETY: as in `input8`.
    unsafe { asm!("out dx, eax", in("dx") 0xf4, in("eax") u32::from(status), options(nomem, nostack)) };
    b"Shutdown".iter().for_each(|byte| output8(0x8900, *byte));
    loop {
        // SAFETY: interrupts are off: this is the end.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Tells who runs this machine a number through isa-debug-exit, and goes on.
pub fn signal(value: u16) {
    // SAFETY: as in `input8`.
    unsafe { asm!("out dx, eax", in("dx") 0xf4, in("eax") u32::from(value), options(nomem, nostack)) };
}

/// RDMSR.
///
/// # Errors
/// The fault, if the processor has no such MSR.
pub fn read_msr(number: u32) -> Result<u64, Fault> {
    let (mut low, mut high): (u64, u64);
    // SAFETY: reading an MSR changes nothing.
    unsafe { guarded!("rdmsr", in("ecx") number, lateout("rax") low, lateout("rdx") high) };
    if take_fault().is_some() {
        (low, high) = (0, 0);
        return Err(Fault { vector: 13, error: low as u32 | high as u32 });
    }
    Ok(low & 0xffff_ffff | high << 32)
}

/// WRMSR.
///
/// # Errors
/// The fault, if the MSR does not take the value.
pub fn write_msr(number: u32, value: u64) -> Result<(), Fault> {
    // RAX is used by the guard: the value's low half comes by RSI.
    // SAFETY: the MSRs that this program writes do not concern Rust's memory.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]", "mov [rip + BARE_GUARD], rax",
            "mov eax, esi", "wrmsr",
            "2:", "mov qword ptr [rip + BARE_GUARD], 0",
            in("ecx") number, in("rsi") value, in("rdx") value >> 32,
            clobber_abi("sysv64"),
        );
    }
    take_fault().map_or(Ok(()), Err)
}

/// CPUID: EAX, EBX, ECX, EDX.
#[must_use]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

macro_rules! control_register {
    ($name:literal, $read:ident, $write:ident) => {
        #[doc = concat!("Reads ", $name, ".")]
        #[must_use]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading changes nothing.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }

        #[doc = concat!("Writes ", $name, ". The caller keeps the mode that Rust runs in.")]
        pub fn $write(value: u64) {
            // SAFETY: memory stays mapped one to one; a value that the processor refuses ends the program.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

control_register!("cr0", read_cr0, write_cr0);
control_register!("cr3", read_cr3, write_cr3);
control_register!("cr4", read_cr4, write_cr4);
control_register!("dr7", read_dr7, write_dr7);
control_register!("cr8", read_cr8, write_cr8);

/// RDTSC.
#[must_use]
pub fn timestamp() -> u64 {
    // SAFETY: RDTSC exists on every 64-bit processor.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// LIDT.
pub fn load_idt(base: u64, limit: u16) {
    let mut operand = [0u8; 10];
    operand[..2].copy_from_slice(&limit.to_le_bytes());
    operand[2..].copy_from_slice(&base.to_le_bytes());
    // SAFETY: the table's gates lead to the stubs in `boot`.
    unsafe { asm!("lidt [{}]", in(reg) &raw const operand, options(nostack)) };
}

/// Lets interrupts come for a moment.
pub fn admit_interrupts() {
    // SAFETY: the handlers in `exceptions` keep all but the registers that the C ABI gives away.
    unsafe { asm!("sti", "nop", "nop", "cli", clobber_abi("sysv64")) };
}

/// Waits for an interrupt, which the handlers in `exceptions` take.
pub fn wait_for_interrupt() {
    // SAFETY: as in `admit_interrupts`; STI takes effect after HLT has begun.
    unsafe { asm!("sti", "hlt", "cli", clobber_abi("sysv64")) };
}

/// Whether the processor has Intel's VT-x: CPUID.1:ECX bit 5.
#[must_use]
pub fn has_vmx() -> bool {
    cpuid(1, 0)[2] & 1 << 5 != 0
}

/// MAXPHYADDR.
#[must_use]
pub fn physical_bits() -> u32 {
    cpuid(0x8000_0008, 0)[0] & 0xff
}

/// Ends the blocking of NMIs, as an IRET does.
pub fn unblock_nmis() {
    // SAFETY: returns to the next instruction with everything as it is; an NMI that comes has a stack of its own.
    unsafe {
        asm!(
            "mov rax, ss",
            "mov rcx, rsp",
            "push rax",
            "push rcx",
            "pushfq",
            "mov rax, cs",
            "push rax",
            "lea rax, [rip + 2f]",
            "push rax",
            "iretq",
            "2:",
            clobber_abi("sysv64"),
        );
    }
}
