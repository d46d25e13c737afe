//! The extended page-table mechanism: from guest-physical to physical addresses (SDM Vol. 3C, 29.3).

use crate::memory::tlb::Rights;
use spec::vmx::ept::{EptEntry, Eptp, sub_page};
use spec::vmx::qualification::{EptViolation, SppEvent};

/// What the walk needs of physical memory.
pub trait PhysicalMemory {
    /// Loads 8 bytes at an aligned physical address.
    fn load(&mut self, address: u64) -> u64;
    /// Stores the 8 bytes `new` at an aligned physical address, if `old` is there: accessed and dirty flags. False: something else is there by now.
    fn replace(&mut self, address: u64, old: u64, new: u64) -> bool;
    /// Page-modification logging: whether accessed and dirty flags may be set. False: the log is full.
    fn may_set_flags(&mut self) -> bool;
    /// A page becomes dirty by an access to guest-physical `address`, which goes into the log if there is one.
    fn log(&mut self, address: u64);
}

/// An access to a guest-physical address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Reads.
    pub read: bool,
    /// Writes.
    pub write: bool,
    /// Fetches an instruction.
    pub execute: bool,
    /// It is to a guest paging-structure entry.
    pub paging: bool,
    /// The linear address is a user-mode one, which matters to mode-based execute control.
    pub user: bool,
    /// It is a shadow-stack access.
    pub shadow_stack: bool,
    /// With guest-paging verification: a guest paging structure used to translate the linear address was not one with paging-write access.
    pub unverified: bool,
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the byte.
    pub physical: u64,
    /// Accesses of the same linear address allowed without another walk: those that EPT permits, writes only when the dirty flag is set
    /// already or not in use, and to the whole page.
    pub allowed: Rights,
    /// The entry that maps the page.
    pub entry: u64,
    /// Size of the page in bytes.
    pub page_size: u64,
}

/// Why an access to a guest-physical address fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An EPT violation.
    Violation {
        /// The bits of its exit qualification that the walk knows: the access, and what the entries permit.
        qualification: u64,
        /// It may become a virtualization exception: the entry that decides does not suppress that.
        convertible: bool,
    },
    /// An EPT misconfiguration (29.3.3.1).
    Misconfiguration,
    /// The page-modification log is full (29.3.6).
    LogFull,
    /// The sub-page permissions of the page are missing or wrong (29.3.4); the exit qualification.
    SubPage(u64),
}

/// What the processor's EPT can do beyond the base, and what controls change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Execute-only translations.
    pub execute_only: bool,
    /// 2 MiB pages.
    pub pages_2m: bool,
    /// 1 GiB pages.
    pub pages_1g: bool,
    /// Width of physical addresses.
    pub physical_bits: u8,
    /// "Mode-based execute control for EPT".
    pub mode_based_execute: bool,
    /// "EPT paging-write control".
    pub paging_write: bool,
    /// The sub-page-permission-table pointer, with "sub-page write permissions for EPT".
    pub sub_pages: Option<u64>,
}

impl Rules {
    const fn permissions(self) -> u64 {
        EptEntry::PERMISSIONS | if self.mode_based_execute { EptEntry::EXECUTE_USER } else { 0 }
    }

    const fn misconfigured(self, entry: u64, level: u32) -> bool {
        let permissions = entry & self.permissions();
        let executes = permissions & (EptEntry::EXECUTE | EptEntry::EXECUTE_USER) != 0;
        let page = level == 1 || level < 4 && entry & EptEntry::PAGE != 0;
        if permissions & EptEntry::READ == 0 {
            // Write without read, execute alone where that is not supported, paging-write without read.
            let paging_write = page && self.paging_write && entry & EptEntry::PAGING_WRITE != 0;
            if permissions & EptEntry::WRITE != 0 || executes && !self.execute_only || paging_write {
                return true;
            }
        }
        let beyond = EptEntry::ADDRESS & !((1 << self.physical_bits) - 1);
        let reserved = if !page {
            beyond | EptEntry::TABLE_RESERVED | if level >= 4 { EptEntry::PAGE } else { 0 }
        } else {
            beyond | ((1 << (12 + 9 * (level - 1))) - 1) & !0xfff
        };
        let size_exists = match level {
            2 => self.pages_2m,
            3 => self.pages_1g,
            _ => true,
        };
        if entry & reserved != 0 || page && !size_exists {
            return true;
        }
        page && matches!(entry >> EptEntry::MEMORY_TYPE_SHIFT & 7, 2 | 3 | 7)
    }
}

/// Levels of the longest walk.
const LEVELS: usize = 5;

/// Translates guest-physical `address` by the tables of `eptp` (4 or 5 levels) for `access`, setting accessed and dirty flags if `eptp`
/// enables them.
///
/// # Errors
/// An EPT violation or misconfiguration, a full page-modification log, an SPP-related event.
pub fn translate(
    memory: &mut impl PhysicalMemory,
    eptp: Eptp,
    address: u64,
    access: Access,
    rules: Rules,
) -> Result<Translation, Failure> {
    let levels = u32::from(eptp.walk_length()).clamp(4, LEVELS as u32);
    let mut table = eptp.table();
    let mut permissions = rules.permissions();
    let mut above;
    let mut path = [(0u64, 0u64); LEVELS];
    let mut level = levels;
    let supervises = eptp.supervisor_shadow_stack();
    // `leaf` is the entry that maps the page, if the walk has come to it.
    let violation = |permissions: u64, entry: u64, leaf: u64| {
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        Failure::Violation {
            qualification: flag(access.read, EptViolation::READ)
                | flag(access.write, EptViolation::WRITE)
                | flag(access.execute, EptViolation::FETCH)
                | flag(permissions & EptEntry::READ != 0, EptViolation::READABLE)
                | flag(permissions & EptEntry::WRITE != 0, EptViolation::WRITABLE)
                | flag(permissions & EptEntry::EXECUTE != 0, EptViolation::EXECUTABLE)
                | flag(permissions & EptEntry::EXECUTE_USER != 0, EptViolation::USER_EXECUTABLE)
                | flag(access.shadow_stack, EptViolation::SHADOW_STACK)
                | flag(
                    supervises && leaf & EptEntry::SUPERVISOR_SHADOW_STACK != 0,
                    EptViolation::SUPERVISOR_SHADOW_STACK,
                ),
            convertible: entry & EptEntry::SUPPRESS_VE == 0,
        }
    };
    // The levels translate 48 or 57 bits; what lies above has no entry.
    if address >> (12 + 9 * levels) != 0 {
        return Err(violation(0, EptEntry::SUPPRESS_VE, 0));
    }
    let (entry, shift) = loop {
        let shift = 12 + 9 * (level - 1);
        let at = table + (address >> shift & 0x1ff) * 8;
        let entry = memory.load(at);
        if entry & rules.permissions() == 0 {
            return Err(violation(0, entry, 0));
        }
        if rules.misconfigured(entry, level) {
            return Err(Failure::Misconfiguration);
        }
        above = permissions;
        permissions &= entry;
        path[(levels - level) as usize] = (at, entry);
        if level == 1 || level < 4 && entry & EptEntry::PAGE != 0 {
            break (entry, shift);
        }
        table = entry & EptEntry::ADDRESS;
        level -= 1;
    };
    let has = |bit: u64| permissions & bit != 0;
    let executable =
        has(if rules.mode_based_execute && access.user { EptEntry::EXECUTE_USER } else { EptEntry::EXECUTE });
    if access.read && !has(EptEntry::READ) || access.execute && !executable {
        return Err(violation(permissions, entry, entry));
    }
    // Supervisor shadow stacks are writable as such where the entries above the page's let it be, whatever its own says of writes.
    let supervised = supervises && access.shadow_stack && !access.user;
    let shadow_stack =
        has(EptEntry::READ) && above & EptEntry::WRITE != 0 && entry & EptEntry::SUPERVISOR_SHADOW_STACK != 0;
    if supervised && !shadow_stack {
        return Err(violation(permissions, entry, entry));
    }
    let mut part_writable = false;
    if access.write && !has(EptEntry::WRITE) && !supervised {
        let paging_write = access.paging && rules.paging_write && entry & EptEntry::PAGING_WRITE != 0;
        if let Some(sub_pages) = rules.sub_pages
            && !access.paging
            && level == 1
            && entry & EptEntry::SUB_PAGE_WRITE != 0
            && has(EptEntry::READ)
        {
            part_writable = sub_page_writable(memory, sub_pages, address, rules).map_err(Failure::SubPage)?;
        }
        if !paging_write && !part_writable {
            return Err(violation(permissions, entry, entry));
        }
    }
    if access.unverified && entry & EptEntry::VERIFY_GUEST_PAGING != 0 {
        let mut failure = violation(permissions, entry, entry);
        if let Failure::Violation { qualification, .. } = &mut failure {
            *qualification |= EptViolation::GUEST_PAGING_VERIFICATION;
        }
        return Err(failure);
    }
    let mut dirty = true;
    if eptp.accessed_dirty() {
        let leaf = (levels - level) as usize;
        let wanted = |depth| EptEntry::ACCESSED | if depth == leaf && access.write { EptEntry::DIRTY } else { 0 };
        let lacks = |(depth, (_, entry)): (usize, &(u64, u64))| entry & wanted(depth) != wanted(depth);
        // Any flag to be set has a look at the log first, an accessed flag too (29.3.6).
        if path[..=leaf].iter().enumerate().any(lacks) && !memory.may_set_flags() {
            return Err(Failure::LogFull);
        }
        for (depth, &(at, entry)) in path[..=leaf].iter().enumerate() {
            let wanted = wanted(depth);
            if entry & wanted != wanted {
                if !memory.replace(at, entry, entry | wanted) {
                    return translate(memory, eptp, address, access, rules);
                }
                if wanted & !entry & EptEntry::DIRTY != 0 {
                    memory.log(address);
                }
            }
            dirty = (entry | wanted) & EptEntry::DIRTY != 0;
        }
    }
    let offset = (1u64 << shift) - 1;
    Ok(Translation {
        physical: entry & EptEntry::ADDRESS & !offset | address & offset,
        allowed: Rights {
            read: has(EptEntry::READ),
            write: (has(EptEntry::WRITE) || supervised) && dirty,
            execute: executable,
        },
        entry,
        page_size: offset + 1,
    })
}

/// Whether the 128 bytes around guest-physical `address` can be written, by the sub-page-permission table at `table` (29.3.4).
///
/// # Errors
/// The exit qualification of an SPP-related event.
fn sub_page_writable(memory: &mut impl PhysicalMemory, table: u64, address: u64, rules: Rules) -> Result<bool, u64> {
    let reserved = !sub_page::ADDRESS | EptEntry::ADDRESS & !((1 << rules.physical_bits) - 1);
    let mut table = table;
    for level in (1..4).rev() {
        let entry = memory.load(table + (address >> (12 + 9 * level) & 0x1ff) * 8);
        if entry & sub_page::VALID == 0 {
            return Err(SppEvent::MISS);
        }
        if entry & reserved & !sub_page::VALID != 0 {
            return Err(0);
        }
        table = entry & sub_page::ADDRESS;
    }
    let vector = memory.load(table + (address >> 12 & 0x1ff) * 8);
    if vector & !sub_page::WRITABLE != 0 {
        return Err(0);
    }
    Ok(vector >> (2 * (address >> 7 & 31)) & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Quadwords, and the page-modification log with room for two.
    #[derive(Default)]
    struct Memory(BTreeMap<u64, u64>, Vec<u64>);

    impl Memory {
        fn store(&mut self, address: u64, value: u64) {
            self.0.insert(address, value);
        }
    }

    impl PhysicalMemory for Memory {
        fn load(&mut self, address: u64) -> u64 {
            self.0.get(&address).copied().unwrap_or(0)
        }
        fn replace(&mut self, address: u64, old: u64, new: u64) -> bool {
            let is_there = self.load(address) == old;
            if is_there {
                self.store(address, new);
            }
            is_there
        }
        fn may_set_flags(&mut self) -> bool {
            self.1.len() < 2
        }
        fn log(&mut self, address: u64) {
            self.1.push(address);
        }
    }

    const EPTP: Eptp = Eptp(0x1000 | 6 | 3 << 3);
    const RULES: Rules = Rules {
        execute_only: true,
        pages_2m: true,
        pages_1g: true,
        physical_bits: 46,
        mode_based_execute: false,
        paging_write: false,
        sub_pages: None,
    };
    const NOTHING: Access = Access {
        read: false,
        write: false,
        execute: false,
        paging: false,
        user: false,
        shadow_stack: false,
        unverified: false,
    };
    const READ: Access = Access { read: true, ..NOTHING };
    const WRITE: Access = Access { write: true, ..NOTHING };
    const FETCH: Access = Access { execute: true, ..NOTHING };

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
        translate(&mut memory(level, leaf), EPTP, 0x123, access, RULES)
    }

    fn violates(walk: Result<Translation, Failure>) -> Option<u64> {
        match walk {
            Err(Failure::Violation { qualification, .. }) => Some(qualification),
            _ => None,
        }
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
        assert_eq!(translate(&mut table, EPTP, 0, READ, RULES), Err(Failure::Misconfiguration), "bit 7 of a PML4E");
        let no_execute_only = Rules { execute_only: false, ..RULES };
        let walk = translate(&mut memory(1, 0x9000 | 0x34), EPTP, 0, FETCH, no_execute_only);
        assert_eq!(walk, Err(Failure::Misconfiguration));
        let no_large_pages = Rules { pages_1g: false, ..RULES };
        let walk = translate(&mut memory(3, 0x4000_0000 | 0xb7), EPTP, 0, READ, no_large_pages);
        assert_eq!(walk, Err(Failure::Misconfiguration));
    }

    #[test]
    fn execute_only_pages_can_be_fetched_and_not_read() {
        assert!(walk(1, 0x9000 | 0x34, FETCH).is_ok());
        let expected = EptViolation::READ | EptViolation::EXECUTABLE;
        assert_eq!(violates(walk(1, 0x9000 | 0x34, READ)), Some(expected));
    }

    #[test]
    fn violations_report_the_access_and_the_permissions_of_the_whole_walk() {
        assert_eq!(violates(walk(1, 0, WRITE)), Some(EptViolation::WRITE));
        let expected = EptViolation::WRITE | EptViolation::READABLE | EptViolation::EXECUTABLE;
        assert_eq!(violates(walk(1, 0x9000 | 0x35, WRITE)), Some(expected));
        let mut table = memory(1, 0x9037);
        table.store(0x2000, 0x3000 | 1);
        let walk = translate(&mut table, EPTP, 0, FETCH, RULES);
        assert_eq!(violates(walk), Some(EptViolation::FETCH | EptViolation::READABLE));
    }

    #[test]
    fn accessed_and_dirty_flags_are_set_when_enabled() {
        let eptp = Eptp(EPTP.0 | Eptp::ACCESSED_DIRTY);
        let mut table = memory(1, 0x9037);
        let read = translate(&mut table, eptp, 0, READ, RULES).unwrap();
        assert!(!read.allowed.write, "a write must set the dirty flag first");
        assert_eq!((table.load(0x1000), table.load(0x4000)), (0x2107, 0x9137));
        let write = translate(&mut table, eptp, 0, WRITE, RULES).unwrap();
        assert!(write.allowed.write);
        assert_eq!((table.load(0x3000), table.load(0x4000)), (0x4107, 0x9337));
        let mut untouched = memory(1, 0x9037);
        assert!(translate(&mut untouched, EPTP, 0, WRITE, RULES).unwrap().allowed.write);
        assert_eq!(untouched.load(0x4000), 0x9037);
    }

    #[test]
    fn addresses_beyond_48_bits_violate_with_four_levels_and_not_with_five() {
        let walk = translate(&mut memory(1, 0x9037), EPTP, 1 << 48, READ, RULES);
        assert_eq!(violates(walk), Some(EptViolation::READ));
        let mut table = memory(1, 0x9037);
        table.store(0x8000 + 8, 0x1000 | 7);
        let five = Eptp(0x8000 | 6 | 4 << 3);
        assert_eq!(translate(&mut table, five, 1 << 48, READ, RULES).unwrap().physical, 0x9000);
        assert_eq!(violates(translate(&mut table, five, 0, READ, RULES)), Some(EptViolation::READ));
        assert_eq!(violates(translate(&mut table, five, 1 << 57, READ, RULES)), Some(EptViolation::READ));
        table.store(0x8000, 0x1000 | 7 | 0x80);
        assert_eq!(translate(&mut table, five, 0, READ, RULES), Err(Failure::Misconfiguration), "bit 7 of a PML5E");
    }

    #[test]
    fn mode_based_execute_tells_user_from_supervisor_addresses() {
        let rules = Rules { mode_based_execute: true, ..RULES };
        let user = Access { user: true, ..FETCH };
        let tables = |leaf| {
            let mut memory = memory(1, leaf);
            for table in [0x1000, 0x2000, 0x3000] {
                let entry = memory.load(table);
                memory.store(table, entry | EptEntry::EXECUTE_USER);
            }
            memory
        };
        let walk = |leaf, access| translate(&mut tables(leaf), EPTP, 0, access, rules);
        assert!(walk(0x9431, user).is_ok() && walk(0x9034, FETCH).is_ok(), "each mode has its bit");
        let refused = EptViolation::FETCH | EptViolation::READABLE;
        assert_eq!(violates(walk(0x9431, FETCH)), Some(refused | EptViolation::USER_EXECUTABLE));
        assert_eq!(violates(walk(0x9035, user)), Some(refused | EptViolation::EXECUTABLE));
        assert!(walk(0x9430, user).is_ok(), "bit 10 alone is present");
        let rules = Rules { execute_only: false, ..rules };
        assert_eq!(translate(&mut tables(0x9430), EPTP, 0, user, rules), Err(Failure::Misconfiguration));
        assert_eq!(violates(super::translate(&mut memory(1, 0x9430), EPTP, 0, user, RULES)), Some(EptViolation::FETCH));
    }

    #[test]
    fn a_page_that_becomes_dirty_is_logged_once() {
        let eptp = Eptp(EPTP.0 | Eptp::ACCESSED_DIRTY);
        let mut table = memory(1, 0x9037);
        assert!(translate(&mut table, eptp, 0x123, READ, RULES).is_ok() && table.1.is_empty());
        assert!(translate(&mut table, eptp, 0x123, WRITE, RULES).is_ok());
        assert!(translate(&mut table, eptp, 0x456, WRITE, RULES).is_ok());
        assert_eq!(table.1, [0x123]);
    }

    #[test]
    fn a_full_log_changes_nothing() {
        let eptp = Eptp(EPTP.0 | Eptp::ACCESSED_DIRTY);
        let mut table = memory(1, 0x9037);
        table.1 = vec![0, 0];
        assert_eq!(translate(&mut table, eptp, 0, WRITE, RULES), Err(Failure::LogFull));
        assert_eq!(translate(&mut table, eptp, 0, READ, RULES), Err(Failure::LogFull), "an accessed flag is to be set");
        assert_eq!((table.load(0x1000), table.load(0x4000)), (0x2007, 0x9037));
        table.1.clear();
        assert!(translate(&mut table, eptp, 0, READ, RULES).is_ok());
        table.1 = vec![0, 0];
        assert!(translate(&mut table, eptp, 0, READ, RULES).is_ok(), "all flags are set");
    }

    #[test]
    fn the_entry_that_decides_suppresses_virtualization_exceptions() {
        let convertible = |level, leaf, access| match walk(level, leaf, access) {
            Err(Failure::Violation { convertible, .. }) => convertible,
            other => panic!("{other:?}"),
        };
        assert!(convertible(1, 0, READ) && convertible(1, 0x9031, WRITE));
        assert!(!convertible(1, EptEntry::SUPPRESS_VE, READ) && !convertible(2, EptEntry::SUPPRESS_VE, READ));
        assert!(!convertible(1, 0x9031 | EptEntry::SUPPRESS_VE, WRITE));
    }

    #[test]
    fn sub_pages_of_128_bytes_can_be_writable() {
        let rules = Rules { sub_pages: Some(0x1_0000), ..RULES };
        let page = 0x9031 | EptEntry::SUB_PAGE_WRITE;
        let with = |leaf, l2: u64, vector| {
            let mut table = memory(1, leaf);
            table.store(0x1_0000, 0x1_1001);
            table.store(0x1_1000, 0x1_2001);
            table.store(0x1_2000, l2);
            table.store(0x1_3000, vector);
            table
        };
        let write = |leaf, l2, vector, at| translate(&mut with(leaf, l2, vector), EPTP, at, WRITE, rules);
        let second = 1 << 2;
        let written = write(page, 0x1_3001, second, 0x80).unwrap();
        assert!(!written.allowed.write, "the rest of the page is not writable");
        let refused = EptViolation::WRITE | EptViolation::READABLE;
        assert_eq!(violates(write(page, 0x1_3001, second, 0x7f)), Some(refused));
        assert_eq!(violates(write(page, 0x1_3001, second, 0x100)), Some(refused));
        assert_eq!(violates(write(0x9031, 0x1_3001, second, 0x80)), Some(refused), "bit 61 is needed");
        assert_eq!(write(page, 0, second, 0x80), Err(Failure::SubPage(SppEvent::MISS)));
        assert_eq!(write(page, 0x1_3003, second, 0x80), Err(Failure::SubPage(0)), "a reserved bit of a table entry");
        assert_eq!(write(page, 0x1_3001, second | 2, 0x80), Err(Failure::SubPage(0)), "an odd bit of the vector");
        let paging = Access { paging: true, ..WRITE };
        let walk = translate(&mut with(page, 0x1_3001, second), EPTP, 0x80, paging, rules);
        assert_eq!(violates(walk), Some(refused), "not for guest paging structures");
    }

    #[test]
    fn paging_write_access_is_for_guest_paging_structures() {
        let rules = Rules { paging_write: true, ..RULES };
        let paging = Access { paging: true, ..WRITE };
        let write = |leaf, access, rules| translate(&mut memory(1, leaf), EPTP, 0, access, rules);
        let page = 0x9031 | EptEntry::PAGING_WRITE;
        assert!(write(page, paging, rules).is_ok());
        assert!(violates(write(page, WRITE, rules)).is_some());
        assert!(violates(write(page, paging, RULES)).is_some());
        assert!(violates(write(0x9031, paging, rules)).is_some());
        assert_eq!(write(0x9034 | EptEntry::PAGING_WRITE, paging, rules), Err(Failure::Misconfiguration));
    }

    #[test]
    fn supervisor_shadow_stacks_are_where_the_leaf_says() {
        const SSS: u64 = EptEntry::SUPERVISOR_SHADOW_STACK;
        let eptp = Eptp(EPTP.0 | Eptp::SUPERVISOR_SHADOW_STACK);
        let push = Access { shadow_stack: true, ..WRITE };
        let user = Access { user: true, ..push };
        let go = |eptp, leaf, access| translate(&mut memory(1, leaf), eptp, 0, access, RULES);
        // Read-only for others, and a supervisor shadow stack.
        assert!(go(eptp, 0x9031 | SSS, push).is_ok_and(|translation| translation.allowed.write));
        let bits = violates(go(eptp, 0x9031 | SSS, WRITE)).unwrap();
        assert_eq!(bits & EptViolation::SUPERVISOR_SHADOW_STACK, EptViolation::SUPERVISOR_SHADOW_STACK);
        let bits = violates(go(eptp, 0x9033, push)).unwrap();
        assert_eq!(bits & EptViolation::SUPERVISOR_SHADOW_STACK, 0, "writable, but no such stack");
        assert_eq!(bits & EptViolation::SHADOW_STACK, EptViolation::SHADOW_STACK);
        // Shadow stacks of user mode, and all without the control, go by write access.
        assert!(violates(go(eptp, 0x9031 | SSS, user)).is_some());
        assert!(go(eptp, 0x9033, user).is_ok() && go(EPTP, 0x9033, push).is_ok());
        assert!(violates(go(EPTP, 0x9031 | SSS, push)).is_some());
    }

    #[test]
    fn guest_paging_is_verified_where_the_page_asks_for_it() {
        let page = 0x9037 | EptEntry::VERIFY_GUEST_PAGING;
        let unverified = Access { unverified: true, ..READ };
        assert!(walk(1, page, READ).is_ok() && walk(1, 0x9037, unverified).is_ok());
        let bits = violates(walk(1, page, unverified)).unwrap();
        assert_eq!(bits & EptViolation::GUEST_PAGING_VERIFICATION, EptViolation::GUEST_PAGING_VERIFICATION);
    }
}
