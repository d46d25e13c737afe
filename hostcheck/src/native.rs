//! Runs one instruction on the host's processor, all registers being the test's.
//!
//! The instruction stands in an executable page, followed by a jump to where the registers are saved. Signal handlers turn the host's
//! exceptions into outcomes. Everything is in one static block, so that no register is needed to find it: one thread at a time.
// Assembly, signal handlers and mapped code cannot be had without `unsafe`; this is the only module here that has it.
#![allow(unsafe_code)]

use crate::makers::Maker;
use crate::state::{CODE, Fault, Outcome, SCRATCH, SCRATCH_SIZE, START, State, TAKEN, XSAVE_SIZE};
use core::arch::x86_64::__cpuid;
use core::cell::UnsafeCell;
use std::sync::{Mutex, MutexGuard};

/// What the assembly works on.
#[repr(C, align(64))]
struct Block {
    state: State,
    host_rsp: u64,
    /// 0: fell through, 1: branched, 2: a signal came.
    how: u64,
    fault: [u64; 3],
}

struct Shared(UnsafeCell<Block>);
// SAFETY: only the holder of `Host`'s lock, and the signal handlers of its own thread, touch the block.
unsafe impl Sync for Shared {}

#[unsafe(no_mangle)]
static HOSTCHECK_BLOCK: Shared = Shared(UnsafeCell::new(Block {
    state: State { xsave: [0; 1024], gpr: [0; 16], rflags: 0, rip: 0 },
    host_rsp: 0,
    how: 0,
    fault: [0; 3],
}));

static LOCK: Mutex<()> = Mutex::new(());

core::arch::global_asm!(
    ".global hostcheck_run",
    "hostcheck_run:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "lea rbx, [rip + {block}]",
    "mov [rbx + {rsp}], rsp",
    "mov eax, 7",
    "xor edx, edx",
    "xrstor64 [rbx]",
    "push qword ptr [rbx + {flags}]",
    "popfq",
    "mov rax, [rbx + {gpr} + 0]",
    "mov rcx, [rbx + {gpr} + 8]",
    "mov rdx, [rbx + {gpr} + 16]",
    "mov rsp, [rbx + {gpr} + 32]",
    "mov rbp, [rbx + {gpr} + 40]",
    "mov rsi, [rbx + {gpr} + 48]",
    "mov rdi, [rbx + {gpr} + 56]",
    "mov r8, [rbx + {gpr} + 64]",
    "mov r9, [rbx + {gpr} + 72]",
    "mov r10, [rbx + {gpr} + 80]",
    "mov r11, [rbx + {gpr} + 88]",
    "mov r12, [rbx + {gpr} + 96]",
    "mov r13, [rbx + {gpr} + 104]",
    "mov r14, [rbx + {gpr} + 112]",
    "mov r15, [rbx + {gpr} + 120]",
    "mov rbx, [rbx + {gpr} + 24]",
    "jmp [rip + 2f]",
    "2: .quad {start}",
    ".global hostcheck_taken",
    "hostcheck_taken:",
    "mov qword ptr [rip + {block} + {how}], 1",
    ".global hostcheck_done",
    "hostcheck_done:",
    "mov [rip + {block} + {gpr} + 0], rax",
    "mov [rip + {block} + {gpr} + 8], rcx",
    "mov [rip + {block} + {gpr} + 16], rdx",
    "mov [rip + {block} + {gpr} + 24], rbx",
    "mov [rip + {block} + {gpr} + 32], rsp",
    "mov [rip + {block} + {gpr} + 40], rbp",
    "mov [rip + {block} + {gpr} + 48], rsi",
    "mov [rip + {block} + {gpr} + 56], rdi",
    "mov [rip + {block} + {gpr} + 64], r8",
    "mov [rip + {block} + {gpr} + 72], r9",
    "mov [rip + {block} + {gpr} + 80], r10",
    "mov [rip + {block} + {gpr} + 88], r11",
    "mov [rip + {block} + {gpr} + 96], r12",
    "mov [rip + {block} + {gpr} + 104], r13",
    "mov [rip + {block} + {gpr} + 112], r14",
    "mov [rip + {block} + {gpr} + 120], r15",
    "mov rsp, [rip + {block} + {rsp}]",
    "pushfq",
    "pop [rip + {block} + {flags}]",
    "mov eax, 7",
    "xor edx, edx",
    "xsave64 [rip + {block}]",
    ".global hostcheck_recover",
    "hostcheck_recover:",
    "push 0x202",
    "popfq",
    "fninit",
    "vzeroupper",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "pop rax",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    block = sym HOSTCHECK_BLOCK,
    gpr = const core::mem::offset_of!(State, gpr),
    flags = const core::mem::offset_of!(State, rflags),
    rsp = const core::mem::offset_of!(Block, host_rsp),
    how = const core::mem::offset_of!(Block, how),
    start = const START,
);

unsafe extern "C" {
    fn hostcheck_run();
    fn hostcheck_taken();
    fn hostcheck_done();
    fn hostcheck_recover();
}

/// Order of the general registers in the kernel's signal context, by number.
const CONTEXT_ORDER: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context; the block belongs to this thread while it runs a test.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let block = &mut *HOSTCHECK_BLOCK.0.get();
        let rip = registers[libc::REG_RIP as usize] as u64;
        if !(CODE..CODE + 0x1000).contains(&rip) {
            // Not the test's doing: let it be fatal.
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        for (value, index) in block.state.gpr.iter_mut().zip(CONTEXT_ORDER) {
            *value = registers[index as usize] as u64;
        }
        block.state.rip = rip;
        block.state.rflags = registers[libc::REG_EFL as usize] as u64;
        block.how = 2;
        block.fault = [
            registers[libc::REG_TRAPNO as usize] as u64,
            registers[libc::REG_ERR as usize] as u64,
            registers[libc::REG_CR2 as usize] as u64,
        ];
        let saved = context.uc_mcontext.fpregs.cast::<u8>();
        saved.copy_to_nonoverlapping(block.state.xsave.as_mut_ptr(), XSAVE_SIZE);
        registers[libc::REG_RIP as usize] = hostcheck_recover as *const () as i64;
        registers[libc::REG_RSP as usize] = block.host_rsp as i64;
        registers[libc::REG_EFL as usize] = 0x202;
    }
}

/// The host's processor, for one test at a time.
#[derive(Debug)]
pub struct Host {
    _lock: MutexGuard<'static, ()>,
}

impl Host {
    /// Who made the host's processor.
    pub fn maker(&self) -> Maker {
        // "GenuineIntel": its first four letters are enough.
        if __cpuid(0).ebx == u32::from_le_bytes(*b"Genu") { Maker::Intel } else { Maker::Amd }
    }

    /// Maps code and memory and installs the signal handlers. Signals the host's debugger or sanitizers want are taken away.
    ///
    /// # Errors
    /// In words, if the addresses that the test needs cannot be mapped.
    pub fn new() -> Result<Self, String> {
        if !is_x86_feature_detected!("avx2") {
            return Err("the check needs a host with AVX2".into());
        }
        let lock = LOCK.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: MAP_FIXED_NOREPLACE takes nobody's memory; handlers run on a stack of their own.
        unsafe {
            for (address, size, protection) in [
                (CODE, 0x1000, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC),
                (SCRATCH, SCRATCH_SIZE, libc::PROT_READ | libc::PROT_WRITE),
            ] {
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
                let got = libc::mmap(address as *mut libc::c_void, size, protection, flags, -1, 0);
                let again = *libc::__errno_location() == libc::EEXIST;
                if got as u64 != address && !again {
                    return Err(format!("the host does not give the memory at {address:#x} that the check needs"));
                }
            }
            let stack = libc::stack_t {
                ss_sp: Box::leak(vec![0u8; 64 << 10].into_boxed_slice()).as_mut_ptr().cast(),
                ss_flags: 0,
                ss_size: 64 << 10,
            };
            libc::sigaltstack(&stack, core::ptr::null_mut());
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
                libc::sigaction(signal, &action, core::ptr::null_mut());
            }
        }
        let mut host = Self { _lock: lock };
        host.place_exit(TAKEN[0], hostcheck_taken as *const () as u64);
        host.place_exit(TAKEN[1], hostcheck_taken as *const () as u64);
        Ok(host)
    }

    fn place_exit(&mut self, at: u64, target: u64) {
        let mut bytes = vec![0xff, 0x25, 0, 0, 0, 0];
        bytes.extend(target.to_le_bytes());
        self.write(at, &bytes);
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        // SAFETY: within the pages that `new` mapped, which nothing else uses.
        unsafe { (at as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Places the instruction.
    pub fn set_code(&mut self, bytes: &[u8]) {
        self.write(START, bytes);
        self.place_exit(START + bytes.len() as u64, hostcheck_done as *const () as u64);
    }

    /// Fills the scratch memory.
    pub fn set_memory(&mut self, bytes: &[u8; SCRATCH_SIZE]) {
        self.write(SCRATCH, bytes);
    }

    /// The scratch memory.
    pub fn memory(&self, bytes: &mut [u8; SCRATCH_SIZE]) {
        // SAFETY: mapped by `new`.
        unsafe { (SCRATCH as *const u8).copy_to_nonoverlapping(bytes.as_mut_ptr(), SCRATCH_SIZE) }
    }

    /// Runs the instruction, of `length` bytes.
    pub fn run(&mut self, state: &State, length: usize) -> Outcome {
        let block = HOSTCHECK_BLOCK.0.get();
        // SAFETY: the lock is held; the assembly saves and restores what the ABI wants kept, and the test's instructions were chosen
        // to touch no memory but their own (others fault, as nothing else is mapped near).
        unsafe {
            (*block).state = state.clone();
            (*block).how = 0;
            hostcheck_run();
            let mut outcome = Outcome { state: (*block).state.clone(), fault: None };
            match (*block).how {
                0 => outcome.state.rip = START + length as u64,
                1 => outcome.state.rip = TAKEN[0],
                _ => {
                    let [vector, error, address] = (*block).fault;
                    fill_initial(&mut outcome.state);
                    // Linux hides which of its own pages are present: it says that all are.
                    let error = if vector == 14 && address >> 63 != 0 { error & !1 } else { error };
                    outcome.fault = Some(Fault {
                        vector: vector as u8,
                        error: error as u32,
                        address: if vector == 14 { address } else { 0 },
                    });
                }
            }
            outcome
        }
    }
}

/// The kernel leaves out what is in its initial state.
fn fill_initial(state: &mut State) {
    let present = state.xsave[512];
    if present & 1 == 0 {
        let mxcsr = state.mxcsr();
        state.xsave[..160].fill(0);
        state.set_u16(0, 0x37f);
        state.set_u32(24, mxcsr);
    }
    if present & 2 == 0 {
        state.xsave[160..416].fill(0);
    }
    if present & 4 == 0 {
        state.xsave[576..832].fill(0);
    }
}
