//! The differential test of user-mode instructions: every instruction that the CPU models announce, with random encodings, operands and
//! flags, on the host's own processor and on ours; every register, flag and byte of memory is compared.
//!
//! [`native`] runs an instruction on the host (x86-64 Linux only), [`ours`] on our processor, [`generate`] makes instructions and states,
//! [`compare`] knows what the architecture leaves undefined, [`makers`] where processors differ, [`campaign`] puts it together.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

pub mod campaign;
pub mod compare;
pub mod generate;
pub mod makers;
pub mod native;
pub mod ours;
pub mod random;
pub mod selection;
pub mod sequence;
pub mod state;
