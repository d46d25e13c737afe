//! Why a VM entry failed, an access faulted, a guest died: in words, with the values.

pub mod walks;
