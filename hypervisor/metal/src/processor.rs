//! The processor outside VMX operation: its local APIC, the time, the console, and the registers that guests use and the hypervisor does not.
#![allow(unsafe_code, reason = "instructions that Rust has no word for")]

use alloc::string::String;
use bare::console::Console;
use bare::vmx::instructions::invept;
use bare::{cpu, device, memory};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::host::{Host, Nanoseconds, ProcessorId, vector};
use spec::apic::local_apic::{Lvt, offset};
use spec::vmx::ept::invept_type;
use spec::x86::cpuid::leaf;
use spec::x86::msr;
use spin::Mutex;

/// The processors.
pub struct Processor;

/// The processors.
pub static PROCESSOR: Processor = Processor;

static CONSOLE: Mutex<()> = Mutex::new(());
static START: AtomicU64 = AtomicU64::new(0);
static TICKS_PER_MILLISECOND: AtomicU64 = AtomicU64::new(1);
/// Nanoseconds of a time-stamp count, times 2 to the power of 32.
static SCALE: AtomicU64 = AtomicU64::new(0);
/// Counts of the local APIC's timer in a millisecond.
static APIC_PER_MILLISECOND: AtomicU64 = AtomicU64::new(1);

/// Prints a line of the hypervisor's own.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::processor::PROCESSOR.write(alloc::format!("{}\r\n", format_args!($($argument)*)).as_bytes())
    };
}
#[allow(unused_imports, reason = "the macro's method")]
use Host as _;
pub(crate) use say;

/// Measures the clocks; once.
pub fn set_up() {
    set_up_local();
    TICKS_PER_MILLISECOND.store(measure_tsc(), Ordering::Relaxed);
    SCALE.store((1_000_000 << 32) / ticks_per_millisecond(), Ordering::Relaxed);
    START.store(cpu::timestamp(), Ordering::Relaxed);
    memory::write_apic(offset::TIMER_DIVIDE.into(), 0xb);
    memory::write_apic(offset::LVT_TIMER.into(), Lvt::MASKED);
    memory::write_apic(offset::TIMER_INITIAL.into(), u32::MAX);
    let start = cpu::timestamp();
    while cpu::timestamp() - start < ticks_per_millisecond() {}
    let left = memory::read_apic(offset::TIMER_CURRENT.into());
    memory::write_apic(offset::TIMER_INITIAL.into(), 0);
    APIC_PER_MILLISECOND.store(u64::from(u32::MAX - left).max(1), Ordering::Relaxed);
}

/// Enables this processor's local APIC.
pub fn set_up_local() {
    memory::write_apic(offset::SVR.into(), 0x1ff);
    if has_xsave() {
        cpu::write_cr4(cpu::read_cr4() | spec::x86::Cr4::OSXSAVE);
    }
}

/// Time-stamp counts in a millisecond: as CPUID says, else by the PIT.
fn measure_tsc() -> u64 {
    if cpu::cpuid(0, 0)[0] >= leaf::TSC {
        let [denominator, numerator, crystal, _] = cpu::cpuid(leaf::TSC, 0);
        if denominator != 0 && numerator != 0 && crystal != 0 {
            return u64::from(crystal) * u64::from(numerator) / u64::from(denominator) / 1000;
        }
    }
    // Channel 2, whose gate and output are at port 61H, counts 10 ms down once.
    const COUNT: u16 = 11932;
    cpu::output8(0x61, cpu::input8(0x61) & !2 | 1);
    cpu::output8(0x43, 0xb0);
    cpu::output8(0x42, COUNT as u8);
    cpu::output8(0x42, (COUNT >> 8) as u8);
    let start = cpu::timestamp();
    while cpu::input8(0x61) & 0x20 == 0 {}
    ((cpu::timestamp() - start) / 10).max(1)
}

/// Time-stamp counts in a millisecond.
pub fn ticks_per_millisecond() -> u64 {
    TICKS_PER_MILLISECOND.load(Ordering::Relaxed)
}

/// The time-stamp counts of so many nanoseconds.
pub fn ticks(time: Nanoseconds) -> u64 {
    time.saturating_mul(ticks_per_millisecond()) / 1_000_000
}

/// Asks for an interrupt of this processor in `time`; `None`: for none.
pub fn set_timer(time: Option<Nanoseconds>) {
    let count = time.map_or(0, |time| {
        let count = time.saturating_mul(APIC_PER_MILLISECOND.load(Ordering::Relaxed)) / 1_000_000;
        count.clamp(1, u32::MAX.into()) as u32
    });
    memory::write_apic(offset::LVT_TIMER.into(), vector::TIMER.into());
    memory::write_apic(offset::TIMER_INITIAL.into(), count);
}

/// Tells the local APIC that the interrupt that a VM exit has acknowledged is over.
pub fn end_of_interrupt() {
    memory::write_apic(offset::EOI.into(), 0);
}

fn send(processor: ProcessorId, vector: u8) {
    memory::write_apic(offset::ICR_HIGH.into(), processor << 24);
    memory::write_apic(offset::ICR_LOW.into(), 0x4000 | u32::from(vector));
}

impl Host for Processor {
    fn now(&self) -> Nanoseconds {
        let ticks = cpu::timestamp() - START.load(Ordering::Relaxed);
        ((u128::from(ticks) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
    }

    fn processor(&self) -> ProcessorId {
        memory::read_apic(offset::ID.into()) >> 24
    }

    fn kick(&self, processor: ProcessorId) {
        send(processor, vector::KICK);
    }

    fn notify(&self, processor: ProcessorId) {
        send(processor, vector::NOTIFY);
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        cpu::cpuid(leaf, subleaf)
    }

    fn set_xcr0(&self, value: u64) {
        set_xcr0(value);
    }

    fn forget_ept(&self) {
        let _ = invept(invept_type::ALL_CONTEXT, [0, 0]);
    }

    fn pause(&self, time: Nanoseconds) {
        let end = self.now() + time;
        while self.now() < end {
            core::hint::spin_loop();
        }
    }

    fn write(&self, bytes: &[u8]) {
        let _lock = CONSOLE.lock();
        bytes.iter().for_each(|byte| Console::byte(*byte));
    }

    fn transfer(&self, console: usize, bytes: &[u8]) {
        let _lock = CONSOLE.lock();
        for part in bytes.chunks(255) {
            let header = [TRANSFER, console as u8, part.len() as u8];
            header.iter().chain(part).for_each(|byte| cpu::output8(REPORTS, *byte));
        }
    }
}

/// The port where firmware tells whoever runs the machine things: here lines of text, and between them parts of what guests write to
/// files: [`TRANSFER`], the console's number, the length, the bytes.
const REPORTS: u16 = 0x402;
const TRANSFER: u8 = 0;

/// Has the serial port interrupt the first processor when something is typed: by this interrupt-remapping entry, where there is one.
pub fn enable_terminal(entry: Option<u16>) {
    const IO_APIC: u64 = 0xfec0_0000;
    const IRQ: u32 = 4;
    // Remappable format, and the handle (VT-d, 5.1.5.1): bits 48, 63:49 and 11.
    let (high, low) = entry.map_or((0, 0), |entry| (1 << 16 | u32::from(entry) << 17, u32::from(entry >> 15) << 11));
    for (register, value) in [(0x11 + 2 * IRQ, high), (0x10 + 2 * IRQ, low | u32::from(vector::TERMINAL))] {
        device::write32(IO_APIC, register);
        device::write32(IO_APIC + 0x10, value);
    }
    Console::interrupt_on_input();
}

/// Tells whoever runs this machine, on the port where firmware says such things, whose the VMCS at `region` is.
pub fn label(guest: usize, vcpu: usize, region: u64) {
    let _lock = CONSOLE.lock();
    for byte in alloc::format!("vcpu {guest} {vcpu} {region:#x}\n").bytes() {
        cpu::output8(REPORTS, byte);
    }
}

/// The processor's name.
pub fn brand() -> String {
    let mut name = String::new();
    if cpu::cpuid(leaf::EXTENDED_MAX, 0)[0] >= leaf::BRAND + 2 {
        for word in (0..3).flat_map(|n| cpu::cpuid(leaf::BRAND + n, 0)) {
            name.extend(word.to_le_bytes().into_iter().filter(|byte| *byte != 0).map(char::from));
        }
    }
    name.trim().into()
}

/// Whether there is XSAVE.
pub fn has_xsave() -> bool {
    cpu::cpuid(leaf::VERSION, 0)[2] & 1 << spec::x86::Feature::XSAVE.place().bit != 0
}

/// Whether there is this one of the MSRs that are switched with vCPUs.
pub fn has_msr(number: u32) -> bool {
    const SPECULATION_CONTROL: u32 = 1 << 26 | 1 << 27 | 1 << 31;
    match number {
        msr::TSC_AUX => cpu::cpuid(leaf::EXTENDED_FLAGS, 0)[3] & 1 << spec::x86::Feature::RDTSCP.place().bit != 0,
        msr::SPEC_CTRL => cpu::cpuid(leaf::EXTENDED_FEATURES, 0)[3] & SPECULATION_CONTROL != 0,
        _ => true,
    }
}

/// XSETBV, where there is one.
pub fn set_xcr0(value: u64) {
    if has_xsave() {
        // SAFETY: the value was checked; the hypervisor's own code uses no more than SSE.
        unsafe {
            asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
        };
    }
}

/// Reads an MSR that exists.
pub fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading changes nothing.
    unsafe { asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR that exists, with a value that it has had.
pub fn write_msr(number: u32, value: u64) {
    // SAFETY: these are MSRs that the hypervisor itself does not use.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack));
    }
}

/// CR2 and DR0 to DR3 and DR6, which are the guest's also while the hypervisor runs.
pub fn read_debug() -> [u64; 6] {
    let mut r = [0; 6];
    let [cr2, d0, d1, d2, d3, d6] = &mut r;
    // SAFETY: reading changes nothing.
    unsafe {
        asm!(
            "mov {}, cr2",
            "mov {}, dr0",
            "mov {}, dr1",
            "mov {}, dr2",
            "mov {}, dr3",
            "mov {}, dr6",
            out(reg) * cr2,
            out(reg) * d0,
            out(reg) * d1,
            out(reg) * d2,
            out(reg) * d3,
            out(reg) * d6,
            options(nomem, nostack)
        );
    }
    r
}

/// Writes what [`read_debug`] reads.
pub fn write_debug(registers: &[u64; 6]) {
    let [cr2, d0, d1, d2, d3, d6] = *registers;
    // SAFETY: VM exits load DR7 with no breakpoint enabled; nothing here reads CR2.
    unsafe {
        asm!("mov cr2, {}", "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", "mov dr6, {}",
            in(reg) cr2, in(reg) d0, in(reg) d1, in(reg) d2, in(reg) d3, in(reg) d6, options(nomem, nostack));
    }
}
