//! What is delivered through the interrupt table, and what waits to be.

use serde::{Deserialize, Serialize};

/// The kind of an event, numbered as VT-x's interruption types (SDM vol. 3C, 25.8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum EventKind {
    /// A maskable hardware interrupt.
    External = 0,
    /// NMI.
    Nmi = 2,
    /// An exception that the processor found.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3 and INTO.
    SoftwareException = 6,
}

/// An interrupt or exception to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Vector.
    pub vector: u8,
    /// Kind.
    pub kind: EventKind,
    /// Error code pushed.
    pub error: Option<u32>,
    /// Length of the instruction (INT n, INT3, INTO, INT1): the RIP pushed is `Cpu::rip` plus this. Zero for others.
    pub length: u8,
}

impl Event {
    /// An exception that the processor found.
    #[must_use]
    pub const fn exception(vector: u8, error: Option<u32>) -> Self {
        Self { vector, kind: EventKind::HardwareException, error, length: 0 }
    }

    /// A maskable hardware interrupt.
    #[must_use]
    pub const fn external(vector: u8) -> Self {
        Self { vector, kind: EventKind::External, error: None, length: 0 }
    }

    /// A non-maskable interrupt.
    #[must_use]
    pub const fn nmi() -> Self {
        Self { vector: 2, kind: EventKind::Nmi, error: None, length: 0 }
    }

    /// Whether an instruction of the program asked for it, so that gate privilege is checked and the EXT bit is clear.
    #[must_use]
    pub const fn is_software(&self) -> bool {
        matches!(self.kind, EventKind::SoftwareInterrupt | EventKind::SoftwareException)
    }
}

/// Why interrupts are held back for one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shadow {
    /// They are not.
    #[default]
    None,
    /// STI.
    Sti,
    /// MOV or POP to SS: debug traps and NMI too.
    MovSs,
}

/// Events that wait, and what holds them back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingEvents {
    /// An NMI waits.
    pub nmi: bool,
    /// NMIs are blocked until IRET.
    pub nmi_blocked: bool,
    /// An INIT waits.
    pub init: bool,
    /// A start-up message for a processor that waits for one: its vector.
    pub startup: Option<u8>,
    /// What holds interrupts back during the instruction that runs now.
    pub shadow: Shadow,
    /// What the instruction just run asks to hold back during the next.
    pub next_shadow: Shadow,
    /// DR6 bits (B0 to B3, BS, BT) of a debug trap that waits for the instruction boundary.
    pub debug_trap: u64,
    /// DR6 bits of the debug exception being raised.
    pub debug_bits: u64,
    /// The instruction's single-step trap goes by TF as it is after it (SYSCALL, SYSRET).
    pub trace_late: bool,
    /// Length of the instruction that ran on its own last.
    pub step_length: u32,
    /// The instruction loaded RFLAGS.RF for the next one.
    pub loaded_rf: bool,
    /// An event was delivered, or a VM exit made, since this was last cleared: the running instruction did not complete, or its
    /// debug trap is lost.
    pub interrupted: bool,
    /// Where a repeated string instruction was left with iterations to do.
    pub iterations_left: Option<IterationsLeft>,
    /// An interrupt ends MWAIT even if RFLAGS.IF is clear.
    pub wake_if_masked: bool,
    /// The event being delivered, while it is.
    pub delivering: Option<Event>,
    /// The event of an instruction (INT n and the like) whose delivery has just raised an exception.
    pub failed: Option<Event>,
    /// An event whose delivery goes on raising exceptions, with the event whose delivery raised it.
    pub retried: Option<(Event, Option<Event>)>,
    /// Events in a row between which no instruction completed.
    pub barren: Barren,
}

/// A repeated string instruction between two of its iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IterationsLeft {
    /// Its RIP.
    pub rip: u64,
    /// RCX after the last iteration done.
    pub count: u64,
    /// Instructions that had completed then, it among them.
    pub instructions: u64,
}

/// Events that follow each other without an instruction between: a guest may make their number infinite (a stack that raises #AC for #AC, a
/// data breakpoint on the stack of the handler of #DB), as on processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barren {
    /// How many.
    pub count: u32,
    /// Instructions that had completed at the first one.
    pub instructions: u64,
    /// Virtual time of the first one, in nanoseconds.
    pub since: u64,
}

impl Barren {
    /// How many events may follow each other for free: nested interrupts and chains of faults are shorter.
    pub const FREE: u32 = 32;

    /// Whether they have become so many that time has to pass over them.
    #[must_use]
    pub const fn takes_time(&self) -> bool {
        self.count > Self::FREE
    }
}
