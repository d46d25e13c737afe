//! VM exits (SDM Vol. 3C, chapter 28).

pub mod instruction_info;

use crate::cpu::Cpu;
use crate::decode::Op;
use crate::trap::{Trap, Trapped};
use spec::vmx::{ExitReason, InterruptionInfo};

/// What a VM exit records (SDM Vol. 3C, 25.9 and 28.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The basic exit reason.
    pub reason: ExitReason,
    /// The exit qualification.
    pub qualification: u64,
    /// The instruction's length, for exits due to instructions.
    pub length: u32,
    /// VM-exit instruction information.
    pub info: u32,
    /// Guest-linear address.
    pub linear: u64,
    /// Guest-physical address.
    pub physical: u64,
    /// VM-exit interruption information.
    pub interruption: InterruptionInfo,
    /// VM-exit interruption error code.
    pub error_code: u32,
}

impl Default for Exit {
    fn default() -> Self {
        Self::new(ExitReason::ExceptionOrNmi, 0)
    }
}

impl Exit {
    /// An exit with nothing but a reason and a qualification.
    #[must_use]
    pub const fn new(reason: ExitReason, qualification: u64) -> Self {
        Self {
            reason,
            qualification,
            length: 0,
            info: 0,
            linear: 0,
            physical: 0,
            interruption: InterruptionInfo(0),
            error_code: 0,
        }
    }

    /// An exit due to the instruction `op`.
    #[must_use]
    pub const fn of_instruction(reason: ExitReason, op: &Op) -> Self {
        let mut exit = Self::new(reason, 0);
        exit.length = op.length as u32;
        exit
    }
}

impl Cpu {
    /// Traps with the VM exit `exit`.
    #[cold]
    pub(crate) fn vm_exit(&mut self, exit: Exit) -> Trapped {
        self.vmx.pending = exit;
        self.trapped(Trap::VmExit)
    }
}
