//! VT-x (SDM Vol. 3C, chapters 24 to 33, and appendices A to C).
pub mod capability;
pub mod checks;
pub mod controls;
pub mod decode;
pub mod ept;
pub mod events;
pub mod exit_reason;
pub mod fields;
pub mod guest_state;
pub mod instruction_error;
pub mod posted_interrupts;
pub mod qualification;

pub use checks::{CheckGroup, EntryCheck};
pub use controls::{
    EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls,
};
pub use events::{InterruptionInfo, InterruptionType};
pub use exit_reason::ExitReason;
pub use fields::{AccessType, FieldType, VmcsField, Width};
pub use guest_state::{ActivityState, Interruptibility, PendingDebug};
pub use instruction_error::VmInstructionError;
