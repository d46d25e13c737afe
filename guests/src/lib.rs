//! Guest programs and images for tests and benchmarks: C sources beside this crate, built by the host's `cc` when they are needed, and
//! initramfs images made of them and of Debian's packages.
#![forbid(unsafe_code)]

pub mod elf;
pub mod images;
pub mod iso;
pub mod programs;
