//! Guest programs and images for tests and benchmarks: C sources beside this crate, built by the host's `cc` when they are needed, and
//! initramfs images made of them and of Debian's packages; bare-metal programs of the workspace.
#![forbid(unsafe_code)]

pub mod bare;
pub mod elf;
pub mod images;
pub mod iso;
pub mod programs;
pub mod xen;
