//! The extended page-table mechanism: from guest-physical to physical addresses (SDM Vol. 3C, 29.3).

use spec::vmx::ept::{EptEntry, Eptp};
use spec::vmx::qualification::EptViolation;

/// What the walk needs of physical memory.
pub trait PhysicalMemory {
    /// Loads 8 bytes at an aligned physical address.
    fn load(&mut self, address: u64) -> u64;
    /// Stores 8 bytes at an aligned physical address: accessed and dirty flags.
    fn store(&mut self, address: u64, value: u64);
}

/// What an access to a guest-physical address does there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Reads.
    pub read: bool,
    /// Writes.
    pub write: bool,
    /// Fetches an instruction.
    pub execute: bool,
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the byte.
    pub physical: u64,
    /// Accesses allowed without another walk: those that EPT permits, writes only when the dirty flag is set already or not in use.
    pub allowed: Access,
    /// The memory type, bits 5:3 of the entry.
    pub memory_type: u8,
    /// Bit 6 of the entry.
    pub ignore_pat: bool,
    /// Size of the page in bytes.
    pub page_size: u64,
}

/// Why a guest-physical address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An EPT violation; bits 5:0 of its exit qualification: the access and what the entries permit.
    Violation(u64),
    /// An EPT misconfiguration (29.3.3.1).
    Misconfiguration,
}

/// What the processor's EPT can do beyond the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Execute-only translations.
    pub execute_only: bool,
    /// 2 MiB pages.
    pub pages_2m: bool,
    /// 1 GiB pages.
    pub pages_1g: bool,
    /// Width of physical addresses.
    pub physical_bits: u8,
}

const fn misconfigured(entry: u64, level: u32, features: Features) -> bool {
    let permissions = entry & EptEntry::PERMISSIONS;
    // Write without read, or execute alone where that is not supported.
    if permissions & (EptEntry::READ | EptEntry::WRITE) == EptEntry::WRITE
        || permissions == EptEntry::EXECUTE && !features.execute_only
    {
        return true;
    }
    let beyond = EptEntry::ADDRESS & !((1 << features.physical_bits) - 1);
    let page = level == 1 || level < 4 && entry & EptEntry::PAGE != 0;
    let reserved = if !page {
        beyond | EptEntry::TABLE_RESERVED | if level == 4 { EptEntry::PAGE } else { 0 }
    } else {
        beyond | ((1 << (12 + 9 * (level - 1))) - 1) & !0xfff
    };
    let size_exists = match level {
        2 => features.pages_2m,
        3 => features.pages_1g,
        _ => true,
    };
    if entry & reserved != 0 || page && !size_exists {
        return true;
    }
    page && matches!(entry >> EptEntry::MEMORY_TYPE_SHIFT & 7, 2 | 3 | 7)
}

/// Translates guest-physical `address` by the tables of `eptp` (4 levels) for `access`, setting accessed and dirty flags if `eptp`
/// enables them.
///
/// # Errors
/// An EPT violation or misconfiguration.
pub fn translate(
    memory: &mut impl PhysicalMemory,
    eptp: Eptp,
    address: u64,
    access: Access,
    features: Features,
) -> Result<Translation, Failure> {
    let mut table = eptp.table();
    let mut permissions = EptEntry::PERMISSIONS;
    let mut path = [(0u64, 0u64); 4];
    let mut level = 4;
    let violation = |permissions: u64| {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        Failure::Violation(
            flag(access.read, EptViolation::READ)
                | flag(access.write, EptViolation::WRITE)
                | flag(access.execute, EptViolation::FETCH)
                | flag(permissions & EptEntry::READ != 0, EptViolation::READABLE)
                | flag(permissions & EptEntry::WRITE != 0, EptViolation::WRITABLE)
                | flag(permissions & EptEntry::EXECUTE != 0, EptViolation::EXECUTABLE),
        )
    };
    // Four levels translate 48 bits; what lies above has no entry.
    if address >> 48 != 0 {
        return Err(violation(0));
    }
    let (entry, shift) = loop {
        let shift = 12 + 9 * (level - 1);
        let at = table + (address >> shift & 0x1ff) * 8;
        let entry = memory.load(at);
        if entry & EptEntry::PERMISSIONS == 0 {
            return Err(violation(0));
        }
        if misconfigured(entry, level, features) {
            return Err(Failure::Misconfiguration);
        }
        permissions &= entry;
        path[(4 - level) as usize] = (at, entry);
        if level == 1 || level < 4 && entry & EptEntry::PAGE != 0 {
            break (entry, shift);
        }
        table = entry & EptEntry::ADDRESS;
        level -= 1;
    };
    let denied = access.read && permissions & EptEntry::READ == 0
        || access.write && permissions & EptEntry::WRITE == 0
        || access.execute && permissions & EptEntry::EXECUTE == 0;
    if denied {
        return Err(violation(permissions));
    }
    let mut dirty = true;
    if eptp.accessed_dirty() {
        let leaf = (4 - level) as usize;
        for (depth, &(at, entry)) in path[..=leaf].iter().enumerate() {
            let dirties = depth == leaf && access.write;
            let wanted = EptEntry::ACCESSED | if dirties { EptEntry::DIRTY } else { 0 };
            if entry & wanted != wanted {
                memory.store(at, entry | wanted);
            }
            dirty = (entry | wanted) & EptEntry::DIRTY != 0;
        }
    }
    let offset = (1u64 << shift) - 1;
    Ok(Translation {
        physical: entry & EptEntry::ADDRESS & !offset | address & offset,
        allowed: Access {
            read: permissions & EptEntry::READ != 0,
            write: permissions & EptEntry::WRITE != 0 && dirty,
            execute: permissions & EptEntry::EXECUTE != 0,
        },
        memory_type: (entry >> EptEntry::MEMORY_TYPE_SHIFT & 7) as u8,
        ignore_pat: entry & EptEntry::IGNORE_PAT != 0,
        page_size: offset + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Memory(BTreeMap<u64, u64>);

    impl PhysicalMemory for Memory {
        fn load(&mut self, address: u64) -> u64 {
            self.0.get(&address).copied().unwrap_or(0)
        }
        fn store(&mut self, address: u64, value: u64) {
            self.0.insert(address, value);
        }
    }

    const EPTP: Eptp = Eptp(0x1000 | 6 | 3 << 3);
    const FEATURES: Features = Features { execute_only: true, pages_2m: true, pages_1g: true, physical_bits: 46 };
    const READ: Access = Access { read: true, write: false, execute: false };
    const WRITE: Access = Access { read: false, write: true, execute: false };
    const FETCH: Access = Access { read: false, write: false, execute: true };

    /// Tables at 1000H, 2000H, 3000H, 4000H that map guest-physical 0 by `leaf` at `level`.
    fn memory(level: u32, leaf: u64) -> Memory {
        let mut memory = Memory::default();
        for n in 0..4 - level {
            let table = 0x1000 * (u64::from(n) + 1);
            memory.store(table, (table + 0x1000) | 7);
        }
        memory.store(0x1000 * u64::from(5 - level), leaf);
        memory
    }

    fn walk(level: u32, leaf: u64, access: Access) -> Result<Translation, Failure> {
        translate(&mut memory(level, leaf), EPTP, 0x123, access, FEATURES)
    }

    #[test]
    fn pages_of_three_sizes() {
        let at = |level, leaf| walk(level, leaf, READ).map(|t| (t.physical, t.page_size));
        assert_eq!(at(1, 0x9000 | 0x37), Ok((0x9123, 1 << 12)));
        assert_eq!(at(2, 0x20_0000 | 0xb7), Ok((0x20_0123, 1 << 21)));
        assert_eq!(at(3, 0x4000_0000 | 0xb7), Ok((0x4000_0123, 1 << 30)));
    }

    #[test]
    fn misconfigurations() {
        let bad = |level, leaf| walk(level, leaf, READ) == Err(Failure::Misconfiguration);
        assert!(bad(1, 0x9000 | 0x32), "write without read");
        assert!(bad(1, 0x9000 | 0x36), "write and execute without read");
        assert!(bad(1, 0x9000 | 0x17), "memory type 2");
        assert!(bad(1, 0x9000 | 0x1f), "memory type 3");
        assert!(bad(1, 0x9000 | 0x3f), "memory type 7");
        assert!(bad(2, 0x20_1000 | 0xb7), "address bit of a 2 MiB page");
        assert!(bad(1, 1 << 46 | 0x37), "beyond the physical-address width");
        let mut table = memory(1, 0x9037);
        table.store(0x1000, 0x2000 | 7 | 0x80);
        assert_eq!(translate(&mut table, EPTP, 0, READ, FEATURES), Err(Failure::Misconfiguration), "bit 7 of a PML4E");
        let no_execute_only = Features { execute_only: false, ..FEATURES };
        let walk = translate(&mut memory(1, 0x9000 | 0x34), EPTP, 0, FETCH, no_execute_only);
        assert_eq!(walk, Err(Failure::Misconfiguration));
        let no_large_pages = Features { pages_1g: false, ..FEATURES };
        let walk = translate(&mut memory(3, 0x4000_0000 | 0xb7), EPTP, 0, READ, no_large_pages);
        assert_eq!(walk, Err(Failure::Misconfiguration));
    }

    #[test]
    fn execute_only_pages_can_be_fetched_and_not_read() {
        assert!(walk(1, 0x9000 | 0x34, FETCH).is_ok());
        let expected = EptViolation::READ | EptViolation::EXECUTABLE;
        assert_eq!(walk(1, 0x9000 | 0x34, READ), Err(Failure::Violation(expected)));
    }

    #[test]
    fn violations_report_the_access_and_the_permissions_of_the_whole_walk() {
        assert_eq!(walk(1, 0, WRITE), Err(Failure::Violation(EptViolation::WRITE)));
        let expected = EptViolation::WRITE | EptViolation::READABLE | EptViolation::EXECUTABLE;
        assert_eq!(walk(1, 0x9000 | 0x35, WRITE), Err(Failure::Violation(expected)));
        let mut table = memory(1, 0x9037);
        table.store(0x2000, 0x3000 | 1);
        let walk = translate(&mut table, EPTP, 0, FETCH, FEATURES);
        assert_eq!(walk, Err(Failure::Violation(EptViolation::FETCH | EptViolation::READABLE)));
    }

    #[test]
    fn accessed_and_dirty_flags_are_set_when_enabled() {
        let eptp = Eptp(EPTP.0 | Eptp::ACCESSED_DIRTY);
        let mut table = memory(1, 0x9037);
        let read = translate(&mut table, eptp, 0, READ, FEATURES).unwrap();
        assert!(!read.allowed.write, "a write must set the dirty flag first");
        assert_eq!((table.load(0x1000), table.load(0x4000)), (0x2107, 0x9137));
        let write = translate(&mut table, eptp, 0, WRITE, FEATURES).unwrap();
        assert!(write.allowed.write);
        assert_eq!((table.load(0x3000), table.load(0x4000)), (0x4107, 0x9337));
        let mut untouched = memory(1, 0x9037);
        assert!(translate(&mut untouched, EPTP, 0, WRITE, FEATURES).unwrap().allowed.write);
        assert_eq!(untouched.load(0x4000), 0x9037);
    }

    #[test]
    fn addresses_beyond_48_bits_violate() {
        let walk = translate(&mut memory(1, 0x9037), EPTP, 1 << 48, READ, FEATURES);
        assert_eq!(walk, Err(Failure::Violation(EptViolation::READ)));
    }
}
