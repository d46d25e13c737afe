//! The way into translated code and out of it: the guest's registers move between [`Cpu`] and the host's.
//!
//! While translated code runs, the host's RSP points to the state block, whose memory goes on below it as a stack. Calls of Rust are made on the
//! host's own stack.
#![allow(unsafe_code)]

use super::state::State;
use crate::cpu::Cpu;

/// Why translated code was left, in [`State::reason`].
pub(super) mod reason {
    /// The budget is shorter than the block whose offset in the page is in [`super::State::value`], or the block is gone.
    pub const BUDGET: u64 = 0;
    /// A jump within the page, to the offset in `value`, is not linked: its end is in `argument`.
    pub const LINK: u64 = 1;
    /// The instruction described by the site in `argument` is to be done by the interpreter.
    pub const INTERPRET: u64 = 2;
    /// A jump to the address in `value`, whose translation is not known.
    pub const LOOKUP: u64 = 3;
    /// The interpreter's operation described by the site in `argument` trapped.
    pub const TRAPPED: u64 = 4;
    /// RIP is in the processor; go on there.
    pub const GO: u64 = 5;
}

/// Where to go on after a call from translated code.
#[repr(C)]
pub(super) struct Go {
    /// The address; 0: to the caller of [`enter`].
    address: u64,
    /// The state block to use from there on.
    state: *mut State,
}

impl Go {
    /// At `address`.
    pub(super) fn to(address: u64, state: *mut State) -> Self {
        Self { address, state }
    }

    /// Translated code is left.
    pub(super) fn leave(state: *mut State) -> Self {
        Self { address: 0, state }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod native {
    use super::{Cpu, State};
    use core::mem::offset_of;

    const YMM: usize = offset_of!(Cpu, ymm);
    const REGS: usize = offset_of!(Cpu, regs);
    const MXCSR: usize = offset_of!(Cpu, mxcsr);

    /// `op ymmN, [rcx + …]` for all sixteen, or the other way round; and the upper halves in memory, ORed to XMM0's.
    macro_rules! vectors {
        (load ymm) => { vectors!(@ "vmovdqu ymm", ", [rcx + {ymm} + 32 * ", "]") };
        (load xmm) => { vectors!(@ "vmovdqu xmm", ", [rcx + {ymm} + 32 * ", "]") };
        (or) => { vectors!(@ "vpor xmm0, xmm0, [rcx + {ymm} + 16 * ", " + 16 * ", " + 16]") };
        (store) => { vectors!(@ "vmovdqu [rcx + {ymm} + 32 * ", "], ymm", "") };
        (@ $a:literal, $b:literal, $c:literal) => {
            concat!(
                $a, "0", $b, "0", $c, "\n", $a, "1", $b, "1", $c, "\n", $a, "2", $b, "2", $c, "\n", $a, "3", $b, "3", $c, "\n",
                $a, "4", $b, "4", $c, "\n", $a, "5", $b, "5", $c, "\n", $a, "6", $b, "6", $c, "\n", $a, "7", $b, "7", $c, "\n",
                $a, "8", $b, "8", $c, "\n", $a, "9", $b, "9", $c, "\n", $a, "10", $b, "10", $c, "\n", $a, "11", $b, "11", $c, "\n",
                $a, "12", $b, "12", $c, "\n", $a, "13", $b, "13", $c, "\n", $a, "14", $b, "14", $c, "\n", $a, "15", $b, "15", $c, "\n"
            )
        };
    }

    /// The vector registers from the processor, which RCX points to, and MXCSR. R14 is used, no flag is touched.
    ///
    /// Where a register's upper half was loaded, the host's SSE instructions wait for what they leave of their destination, until VZEROUPPER says that
    /// there is nothing: independent divisions then come one after the other. So what is zero is not loaded.
    macro_rules! bring_vectors {
        () => {
            concat!(
                "ldmxcsr [rcx + {mxcsr}]\n",
                "mov r14, rcx\n",
                "vpxor xmm0, xmm0, xmm0\n",
                vectors!(or),
                "vpsrldq xmm1, xmm0, 8\n",
                "vpor xmm0, xmm0, xmm1\n",
                "vmovq rcx, xmm0\n",
                "jrcxz 8f\n",
                "mov rcx, r14\n",
                "jmp 28f\n",
                "8: mov rcx, r14\n",
                "vzeroupper\n",
                vectors!(load xmm),
                "jmp 29f\n",
                "28:\n",
                vectors!(load ymm),
                "29:\n",
            )
        };
    }

    /// Guest registers to the processor, the vector registers and MXCSR if they are here, x87 state to the state block. RSP is the state block before and after; RCX, R14 and R15 are free.
    macro_rules! save {
        () => {
            concat!(
                "mov rcx, [rsp + {cpu}]\n",
                "mov [rcx + {regs}], rax\n",
                "mov [rcx + {regs} + 8], r13\n",
                "mov [rcx + {regs} + 16], rdx\n",
                "mov [rcx + {regs} + 24], rbx\n",
                "mov [rcx + {regs} + 32], r12\n",
                "mov [rcx + {regs} + 40], rbp\n",
                "mov [rcx + {regs} + 48], rsi\n",
                "mov [rcx + {regs} + 56], rdi\n",
                "mov [rcx + {regs} + 64], r8\n",
                "mov [rcx + {regs} + 72], r9\n",
                "mov [rcx + {regs} + 80], r10\n",
                "mov [rcx + {regs} + 88], r11\n",
                "lahf\n",
                "seto al\n",
                "mov [rsp + {flags}], rax\n",
                "mov rax, [rsp + {high}]\n",
                "mov [rcx + {regs} + 96], rax\n",
                "mov rax, [rsp + {high} + 8]\n",
                "mov [rcx + {regs} + 104], rax\n",
                "mov rax, [rsp + {high} + 16]\n",
                "mov [rcx + {regs} + 112], rax\n",
                "mov rax, [rsp + {high} + 24]\n",
                "mov [rcx + {regs} + 120], rax\n",
                "cmp qword ptr [rsp + {live}], 0\n",
                "je 3f\n",
                vectors!(store),
                "stmxcsr [rcx + {mxcsr}]\n",
                "vzeroupper\n",
                "ldmxcsr [rsp + {host_mxcsr}]\n",
                "3:\n",
                "cmp qword ptr [rsp + {x87_live}], 0\n",
                "je 6f\n",
                "mov eax, 1\n",
                "xor edx, edx\n",
                "xsave64 [rsp + {x87_area}]\n",
                "fninit\n",
                "6:\n",
            )
        };
    }

    /// Guest registers from the processor, the other way round; RCX holds the budget afterwards.
    macro_rules! load {
        () => {
            concat!(
                "mov rcx, [rsp + {cpu}]\n",
                "cmp qword ptr [rsp + {live}], 0\n",
                "je 4f\n",
                bring_vectors!(),
                "4:\n",
                "cmp qword ptr [rsp + {x87_live}], 0\n",
                "je 7f\n",
                "mov eax, 1\n",
                "xor edx, edx\n",
                "xrstor64 [rsp + {x87_area}]\n",
                "7:\n",
                "mov rax, [rcx + {regs} + 96]\n",
                "mov [rsp + {high}], rax\n",
                "mov rax, [rcx + {regs} + 104]\n",
                "mov [rsp + {high} + 8], rax\n",
                "mov rax, [rcx + {regs} + 112]\n",
                "mov [rsp + {high} + 16], rax\n",
                "mov rax, [rcx + {regs} + 120]\n",
                "mov [rsp + {high} + 24], rax\n",
                "mov rax, [rsp + {flags}]\n",
                "add al, 0x7f\n",
                "sahf\n",
                "mov rax, [rcx + {regs}]\n",
                "mov r13, [rcx + {regs} + 8]\n",
                "mov rdx, [rcx + {regs} + 16]\n",
                "mov rbx, [rcx + {regs} + 24]\n",
                "mov r12, [rcx + {regs} + 32]\n",
                "mov rbp, [rcx + {regs} + 40]\n",
                "mov rsi, [rcx + {regs} + 48]\n",
                "mov rdi, [rcx + {regs} + 56]\n",
                "mov r8, [rcx + {regs} + 64]\n",
                "mov r9, [rcx + {regs} + 72]\n",
                "mov r10, [rcx + {regs} + 80]\n",
                "mov r11, [rcx + {regs} + 88]\n",
                "mov rcx, [rsp + {budget}]\n",
            )
        };
    }

    macro_rules! stub {
        ($($line:expr,)* ; $($more:tt)*) => {
            core::arch::naked_asm!(
                $($line,)*
                cpu = const offset_of!(State, cpu),
                flags = const offset_of!(State, flags),
                high = const offset_of!(State, high),
                host_rsp = const offset_of!(State, host_rsp),
                live = const offset_of!(State, live),
                x87_live = const offset_of!(State, x87_live),
                x87_area = const offset_of!(State, x87_area),
                regs = const REGS,
                ymm = const YMM,
                mxcsr = const MXCSR,
                $($more)*
            )
        };
    }

    /// Runs translated code at `code` until it is left. Gives the state block that was in use then.
    ///
    /// # Safety
    /// `state` is a state block made ready, whose processor is not otherwise used meanwhile; `code` is the entry of a translation that holds.
    #[unsafe(naked)]
    pub(in super::super) unsafe extern "C" fn enter(state: *mut State, code: u64) -> *mut State {
        stub!(
            "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15", "sub rsp, 8",
            "mov [rdi + {host_rsp}], rsp",
            "mov rsp, rdi",
            "mov [rsp + {resume}], rsi",
            load!(),
            "jmp [rsp + {resume}]",
            ;
            budget = const offset_of!(State, budget),
            resume = const offset_of!(State, resume),
        )
    }

    /// Jumped to by translated code that is left: back to the caller of [`enter`].
    #[unsafe(naked)]
    pub(in super::super) unsafe extern "C" fn leave() {
        stub!(
            "mov [rsp + {argument}], rcx",
            "mov [rsp + {value}], r14",
            save!(),
            "mov rax, rsp",
            "mov rsp, [rsp + {host_rsp}]",
            "add rsp, 8", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
            "ret",
            ;
            argument = const offset_of!(State, argument),
            value = const offset_of!(State, value),
            host_mxcsr = const offset_of!(State, host_mxcsr),
        )
    }

    /// A call of a Rust function from translated code: it gets the state block, and tells where to go on ([`super::Go`]).
    macro_rules! call_stub {
        ($(#[$doc:meta])* $name:ident, $function:path) => {
            $(#[$doc])*
            #[unsafe(naked)]
            pub(in super::super) unsafe extern "C" fn $name() {
                stub!(
                    "pop qword ptr [rsp + {resume}]",
                    "mov [rsp + {argument}], rcx",
                    "mov [rsp + {value}], r14",
                    save!(),
                    "mov rdi, rsp",
                    "mov rsp, [rsp + {host_rsp}]",
                    "call {function}",
                    "test rax, rax",
                    "jz 2f",
                    "mov rsp, rdx",
                    "mov [rsp + {resume}], rax",
                    load!(),
                    "mov r14, [rsp + {value}]",
                    "jmp [rsp + {resume}]",
                    "2: mov rax, rdx",
                    "add rsp, 8", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
                    "ret",
                    ;
                    argument = const offset_of!(State, argument),
                    value = const offset_of!(State, value),
                    budget = const offset_of!(State, budget),
                    resume = const offset_of!(State, resume),
                    function = sym $function,
                    host_mxcsr = const offset_of!(State, host_mxcsr),
                )
            }
        };
    }

    /// The vector registers and MXCSR come into the host's, if they may be used; else the instruction of the site in RCX is the interpreter's.
    macro_rules! vector_stub {
        ($(#[$doc:meta])* $name:ident, $refused:ident) => {
            $(#[$doc])*
            #[unsafe(naked)]
            pub(in super::super) unsafe extern "C" fn $name() {
                core::arch::naked_asm!(
                    "pop qword ptr [rsp + {resume}]",
                    "mov r14, rcx",
                    "mov rcx, [rsp + {refused}]",
                    "jrcxz 5f",
                    "mov rcx, r14",
                    "mov qword ptr [rsp + {reason}], {interpret}",
                    "jmp {leave}",
                    "5: mov rcx, [rsp + {cpu}]",
                    bring_vectors!(),
                    "mov qword ptr [rsp + {live}], 1",
                    "mov rcx, [rsp + {sse_refused}]",
                    "mov [rsp + {sse_blocked}], rcx",
                    "mov rcx, [rsp + {avx_refused}]",
                    "mov [rsp + {avx_blocked}], rcx",
                    "jmp [rsp + {resume}]",
                    resume = const offset_of!(State, resume),
                    refused = const offset_of!(State, $refused),
                    reason = const offset_of!(State, reason),
                    interpret = const super::reason::INTERPRET,
                    leave = sym leave,
                    cpu = const offset_of!(State, cpu),
                    mxcsr = const MXCSR,
                    ymm = const YMM,
                    live = const offset_of!(State, live),
                    sse_refused = const offset_of!(State, sse_refused),
                    sse_blocked = const offset_of!(State, sse_blocked),
                    avx_refused = const offset_of!(State, avx_refused),
                    avx_blocked = const offset_of!(State, avx_blocked),
                )
            }
        };
    }

    vector_stub!(
        /// Called before an SSE instruction; R14 is used.
        call_sse, sse_refused);
    vector_stub!(
        /// Called before an instruction with VEX; R14 is used.
        call_avx, avx_refused);
    call_stub!(
        /// Called before an x87 instruction, whose state is not here: RCX is the site.
        call_x87, crate::translator::run::bring_x87);
    call_stub!(
        /// Called where the form of a block without pins is not made: RCX is the site, and in its upper half the form's number.
        call_unpinned, crate::translator::unpinned::form);
    call_stub!(
        /// Called where the table of jump targets has nothing for the address in R14.
        call_lookup, crate::translator::run::look_up);
    call_stub!(
        /// Called where a page is not in the table: R14 is the address, RCX the site.
        call_fill, crate::translator::run::fill);
    call_stub!(
        /// Called for a wrong hint that is to be looked at: R14 is the address, RCX the site and the slot.
        call_sample, crate::translator::run::sample);
    call_stub!(
        /// Called for an operation of the interpreter: R14 is its address, RCX the site.
        call_interpret, crate::translator::run::interpret);
    call_stub!(
        /// The same of SYSCALL and SYSRET.
        call_level, crate::translator::run::change_level);
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod native {
    use super::State;

    pub(in super::super) unsafe extern "C" fn enter(state: *mut State, _code: u64) -> *mut State {
        state
    }
    pub(in super::super) unsafe extern "C" fn leave() {}
    pub(in super::super) unsafe extern "C" fn call_fill() {}
    pub(in super::super) unsafe extern "C" fn call_interpret() {}
    pub(in super::super) unsafe extern "C" fn call_level() {}
    pub(in super::super) unsafe extern "C" fn call_lookup() {}
    pub(in super::super) unsafe extern "C" fn call_sample() {}
    pub(in super::super) unsafe extern "C" fn call_unpinned() {}
    pub(in super::super) unsafe extern "C" fn call_x87() {}
    pub(in super::super) unsafe extern "C" fn call_sse() {}
    pub(in super::super) unsafe extern "C" fn call_avx() {}
}

pub(super) use native::enter;
use native::{
    call_avx, call_fill, call_interpret, call_level, call_lookup, call_sample, call_sse, call_unpinned, call_x87, leave,
};

/// Where [`leave`] lies.
pub(super) fn leave_address() -> u64 {
    leave as *const () as u64
}

/// Where the stubs lie, for the jumps to them.
pub(super) struct Addresses {
    pub leave: u64,
    pub fill: u64,
    pub interpret: u64,
    pub level: u64,
    pub lookup: u64,
    pub sample: u64,
    pub x87: u64,
    pub unpinned: u64,
    /// Before SSE, and before VEX.
    pub vectors: [u64; 2],
}

/// Where they lie in this process.
pub(super) fn addresses() -> Addresses {
    Addresses {
        leave: leave_address(),
        fill: call_fill as *const () as u64,
        interpret: call_interpret as *const () as u64,
        level: call_level as *const () as u64,
        lookup: call_lookup as *const () as u64,
        sample: call_sample as *const () as u64,
        x87: call_x87 as *const () as u64,
        unpinned: call_unpinned as *const () as u64,
        vectors: [call_sse as *const () as u64, call_avx as *const () as u64],
    }
}
