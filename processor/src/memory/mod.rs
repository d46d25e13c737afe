//! Memory as the processor sees it: guest RAM, the physical map, paging, the software TLB, accesses.

pub mod access;
mod exchange;
mod fetches;
pub mod hooks;
mod huge_pages;
pub mod inspect;
mod large_pages;
pub(crate) mod locked;
pub mod map;
mod pages;
pub mod paging;
pub mod ram;
pub mod tlb;
