//! A hostile guest: executes random instructions at privilege level 0, with random ports, MSRs and addresses of devices, until it has
//! destroyed itself; then it starts again with other random numbers. The number of the round is in the RTC's memory, which a reset keeps.
//! Its command line is the number of rounds, and from which one on the random numbers are taken (0 without it): a round may end the guest by chance.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![allow(unsafe_code, reason = "random code is executed")]
#![cfg_attr(not(panic = "abort"), allow(dead_code, unused_imports, reason = "there is nothing to run"))]

use bare::{cpu, exceptions, memory, multiboot, println};
use core::sync::atomic::{AtomicU64, Ordering};

bare::program!(run, "`vanderpool run` runs it");

/// Bytes of RTC memory with the round.
const ROUND: u8 = 0x50;
const PAGES: usize = 4;

/// Instructions that a hypervisor has something to do with; random bytes follow, which are operands, or instructions of their own.
const INSTRUCTIONS: &[&[u8]] = &[
    &[0x0f, 0xa2],             // CPUID
    &[0x0f, 0x32],             // RDMSR
    &[0x0f, 0x30],             // WRMSR
    &[0xec],                   // IN AL, DX
    &[0xed],                   // IN EAX, DX
    &[0xee],                   // OUT DX, AL
    &[0xef],                   // OUT DX, EAX
    &[0xf3, 0x6c],             // REP INSB
    &[0xf3, 0x6f],             // REP OUTSD
    &[0x6d],                   // INSD
    &[0xf4],                   // HLT
    &[0xfb],                   // STI
    &[0xcd],                   // INT n
    &[0xcf],                   // IRET
    &[0x0f, 0x01, 0xd1],       // XSETBV
    &[0x0f, 0x01, 0xc1],       // VMCALL
    &[0x0f, 0x01, 0xc2],       // VMLAUNCH
    &[0xf3, 0x0f, 0xc7, 0x37], // VMXON [RDI]
    &[0x0f, 0x78],             // VMREAD
    &[0x0f, 0x79],             // VMWRITE
    &[0x66, 0x0f, 0x38, 0x80], // INVEPT
    &[0x66, 0x0f, 0x38, 0x82], // INVPCID
    &[0x0f, 0x22, 0xc0],       // MOV CR0, RAX
    &[0x0f, 0x22, 0xd8],       // MOV CR3, RAX
    &[0x0f, 0x22, 0xe0],       // MOV CR4, RAX
    &[0x44, 0x0f, 0x22, 0xc0], // MOV CR8, RAX
    &[0x0f, 0x23, 0xf8],       // MOV DR7, RAX
    &[0x0f, 0x01, 0xf0],       // LMSW AX
    &[0x0f, 0x06],             // CLTS
    &[0x0f, 0x01, 0x17],       // LGDT [RDI]
    &[0x0f, 0x01, 0x1f],       // LIDT [RDI]
    &[0x0f, 0x00, 0xdf],       // LTR DI
    &[0x0f, 0x09],             // WBINVD
    &[0x0f, 0x01, 0xc8],       // MONITOR
    &[0x0f, 0x01, 0xc9],       // MWAIT
    &[0x0f, 0x33],             // RDPMC
    &[0x0f, 0x01, 0x3f],       // INVLPG [RDI]
    &[0x89, 0x07],             // MOV [RDI], EAX
    &[0x8b, 0x07],             // MOV EAX, [RDI]
    &[0x88, 0x07],             // MOV [RDI], AL
    &[0x66, 0x89, 0x07],       // MOV [RDI], AX
    &[0x48, 0x89, 0x07],       // MOV [RDI], RAX
    &[0xf0, 0x0f, 0xb1, 0x07], // LOCK CMPXCHG [RDI], EAX
    &[0x0f, 0x29, 0x07],       // MOVAPS [RDI], XMM0
    &[0xf3, 0xaa],             // REP STOSB
    &[0xff, 0xe7],             // JMP RDI
    &[0x0f, 0xae, 0x2f],       // XRSTOR [RDI]
    &[0x9d],                   // POPF
];

/// Random numbers (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A number of any magnitude, often one that means something to a device or the processor.
    fn value(&mut self) -> u64 {
        const NOTABLE: [u64; 24] = [
            0xfee0_0000,
            0xfee0_0300,
            0xfee0_00b0,
            0xfee0_0380,
            0xfec0_0000,
            0xfec0_0010,
            0xe000_0000,
            0xe001_0000,
            0xe001_3000,
            // Functions of the machine's, if the guest has some, and their configuration space.
            0xe800_0000,
            0xe810_0000,
            0x8000_0800,
            0x8000_1000,
            0xcf8,
            0xcfc,
            0x3f8,
            0x20,
            0x40,
            0x70,
            0xc000_0080,
            0x1b,
            0x277,
            0x480,
            0x6e0,
        ];
        match self.below(4) {
            0 => NOTABLE[self.below(NOTABLE.len())] + (self.next() & 0xff),
            1 => self.next() & 0xffff,
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }
}

/// Where the code is.
static CODE: AtomicU64 = AtomicU64::new(0);
/// Exceptions of this round.
static EXCEPTIONS: AtomicU64 = AtomicU64::new(0);
const MOST_EXCEPTIONS: u64 = 1500;

/// After an exception: on with what follows, or somewhere else in the code.
fn next(rip: u64) -> Option<u64> {
    let count = EXCEPTIONS.fetch_add(1, Ordering::Relaxed);
    let (code, size) = (CODE.load(Ordering::Relaxed), PAGES as u64 * memory::PAGE);
    let on = rip.wrapping_sub(code) < size - 64;
    (count < MOST_EXCEPTIONS)
        .then(|| if on { (rip | 7) + 1 } else { code + count.wrapping_mul(0x9e37_79b9) % (size - 64) })
}

fn clock_memory(index: u8) -> u8 {
    cpu::output8(0x70, index);
    cpu::input8(0x71)
}

fn run() -> ! {
    let round = u32::from_le_bytes([0, 1, 2, 3].map(|n| clock_memory(ROUND + n)));
    for (n, byte) in (round + 1).to_le_bytes().into_iter().enumerate() {
        cpu::output8(0x70, ROUND + n as u8);
        cpu::output8(0x71, byte);
    }
    let mut numbers = multiboot::numbers();
    let (rounds, first) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if u64::from(round) >= rounds {
        println!("{round} rounds");
        cpu::end(0);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ first.wrapping_add(round.into()) << 20);
    (0..8).for_each(|_| _ = random.next());
    let code = memory::take_pages(PAGES);
    let mut at = code;
    while at + 32 < code + PAGES as u64 * memory::PAGE {
        if random.below(8) != 0 {
            for byte in INSTRUCTIONS[random.below(INSTRUCTIONS.len())] {
                memory::write32(at, (*byte).into());
                at += 1;
            }
        }
        // Between two instructions: nothing, a load of a register with a value, or random bytes.
        match random.below(3) {
            0 => {
                // MOV RAX, RCX, RDX, RSI or RDI, imm64
                let register = [0xb8, 0xb9, 0xba, 0xbe, 0xbf][random.below(5)];
                memory::write32(at, 0x48 | register << 8);
                memory::write(at + 2, random.value());
                at += 10;
            }
            1 => {
                memory::write(at, random.next());
                at += random.below(6) as u64;
            }
            _ => {}
        }
    }
    CODE.store(code, Ordering::Relaxed);
    exceptions::go_on(next);
    let registers: [u64; 16] = core::array::from_fn(|_| random.value());
    execute(code, &registers)
}

/// Jumps to `code` with these values in registers.
fn execute(code: u64, registers: &[u64; 16]) -> ! {
    // SAFETY: there is none: whatever happens happens to this guest.
    unsafe {
        core::arch::asm!(
            "push r8",
            "mov rax, [r9]", "mov rcx, [r9 + 8]", "mov rdx, [r9 + 16]", "mov rbp, [r9 + 24]", "mov rsi, [r9 + 32]", "mov rdi, [r9 + 40]",
            "ret",
            in("r8") code, in("r9") registers,
            options(noreturn),
        )
    }
}
