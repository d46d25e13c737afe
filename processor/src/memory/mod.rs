//! Memory as the processor sees it: guest RAM, the physical map, paging, the software TLB, accesses.

pub mod access;
pub mod hooks;
pub mod inspect;
pub mod map;
pub mod paging;
pub mod ram;
pub mod tlb;
