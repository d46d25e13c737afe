//! How an instruction does not complete. A handler returns `Err(Trapped)`, a zero-sized token, having said why in
//! [`Cpu::trap`]: so the hot path's `Result` stays in registers.

use crate::cpu::Cpu;

/// Proof that [`Cpu::trap`] was set. Made by the methods here and by `Cpu::raise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Trapped(());

impl Trapped {
    /// What the fast form of a body returns when it would have to take a slow path: the slow form is run instead, from the start.
    pub(crate) const MISS: Self = Self(());
}

/// The result of an instruction's body.
pub type Exec<T = ()> = Result<T, Trapped>;

/// Why the instruction did not complete. No register or memory that the architecture keeps was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// An exception of this vector with its error code; RIP is the instruction's.
    Exception {
        /// Vector 0..32.
        vector: u8,
        /// The error code pushed, for vectors that have one.
        error: Option<u32>,
    },
    /// The instruction needs the exact instruction count (MMIO, time): it is run again on its own, and from then on always.
    RetryExact,
    /// The same, this once: it does what it seldom does (a store to code, which ends the block, or across pages).
    RetryOnce,
    /// A VM exit is due; its reason and qualification are in `Cpu::vmx`.
    VmExit,
    /// The instruction completed by other means (an interrupt was delivered, RIP is already set): go on there.
    Continue,
    /// Triple fault.
    Shutdown,
}

impl Trap {
    /// The instruction is to be run again, on its own.
    pub(crate) fn is_retry(self) -> bool {
        matches!(self, Self::RetryExact | Self::RetryOnce)
    }
}

impl Cpu {
    /// Records `trap`.
    #[cold]
    #[inline(never)]
    pub fn trapped(&mut self, trap: Trap) -> Trapped {
        self.trap = trap;
        Trapped(())
    }

    /// Raises an exception, with an error code where the vector has one.
    #[cold]
    pub fn raise(&mut self, vector: u8, error: Option<u32>) -> Trapped {
        self.non_canonical = false;
        self.trapped(Trap::Exception { vector, error })
    }

    /// #UD.
    #[cold]
    pub fn undefined_opcode(&mut self) -> Trapped {
        self.raise(6, None)
    }

    /// #NM.
    #[cold]
    pub fn device_not_available(&mut self) -> Trapped {
        self.raise(7, None)
    }

    /// #GP(`error`).
    #[cold]
    pub fn general_protection(&mut self, error: u32) -> Trapped {
        self.raise(13, Some(error))
    }

    /// #SS(`error`).
    #[cold]
    pub fn stack_fault(&mut self, error: u32) -> Trapped {
        self.raise(12, Some(error))
    }

    /// #DE.
    #[cold]
    pub fn divide_error(&mut self) -> Trapped {
        self.raise(0, None)
    }

    /// For instructions that read time or touch the board: fails with [`Trap::RetryExact`] unless the instruction runs on its own.
    #[inline(always)]
    pub fn require_exact(&mut self) -> Exec {
        if self.exact { Ok(()) } else { Err(self.trapped(Trap::RetryExact)) }
    }

    /// For what an instruction seldom does: fails with [`Trap::RetryOnce`] unless the instruction runs on its own.
    pub(crate) fn require_exact_once(&mut self) -> Exec {
        if self.exact { Ok(()) } else { Err(self.trapped(Trap::RetryOnce)) }
    }
}
