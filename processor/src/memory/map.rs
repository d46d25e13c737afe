//! Which physical addresses are RAM or ROM, and where in [`GuestRam`](super::ram::GuestRam) they lie. Everything else is the bus's.

/// A run of physical pages backed by guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First physical address, page-aligned.
    pub base: u64,
    /// Length in bytes, a multiple of the page size.
    pub length: u64,
    /// Offset in guest RAM of the first byte.
    pub offset: u64,
    /// Stores reach RAM; otherwise they go to the bus (ROM: ignored there).
    pub writable: bool,
}

/// The physical address map of memory. Regions do not overlap; the likeliest stand first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    /// The regions.
    pub regions: Vec<MemoryRegion>,
}

impl MemoryMap {
    /// Where the physical `address` lies in guest RAM, and whether stores reach it.
    #[inline]
    pub fn lookup(&self, address: u64) -> Option<(u64, bool)> {
        self.regions
            .iter()
            .find(|region| address.wrapping_sub(region.base) < region.length)
            .map(|region| (address - region.base + region.offset, region.writable))
    }
}
