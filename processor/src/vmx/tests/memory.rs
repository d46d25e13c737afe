//! Guest memory: page-modification log, virtualization exceptions, sub-pages, HLAT, guest-paging verification.

use super::*;
use crate::testing::PAGE_TABLES;
use spec::vmx::TertiaryControls as Tertiary;
use spec::vmx::ept::{Eptp, ve_information as ve};
use spec::vmx::qualification::SppEvent;

/// mov [0x30008], eax
const STORE: [u8; 7] = [0x89, 0x04, 0x25, 0x08, 0x00, 0x03, 0x00];
/// mov [0x30084], eax: in the second sub-page
const STORE_SECOND: [u8; 7] = [0x89, 0x04, 0x25, 0x84, 0x00, 0x03, 0x00];
/// mov [0x3007e], eax: across both
const STORE_ACROSS: [u8; 7] = [0x89, 0x04, 0x25, 0x7e, 0x00, 0x03, 0x00];
/// mov esi, [0x30008]
const LOAD: [u8; 7] = [0x8b, 0x34, 0x25, 0x08, 0x00, 0x03, 0x00];
const RSI: usize = 6;

fn full() -> Host {
    Host::of_model("full")
}

impl Host {
    fn tertiary(&mut self, bits: u64) {
        self.add(F::PRIMARY_CONTROLS, Primary::ACTIVATE_TERTIARY_CONTROLS);
        self.set(F::TERTIARY_CONTROLS, bits);
    }

    /// Runs `code`, then CPUID.
    fn enter_then_cpuid(&mut self, code: &[u8]) -> Option<ExitReason> {
        self.enter(&[code, CPUID].concat(), 20)
    }
}

#[test]
fn five_level_ept() {
    let mut host = full();
    host.machine.store(0x5_0000, 8, EPT_TABLES | 7);
    host.set(F::EPT_POINTER, 0x5_0000 | 6 | 4 << 3);
    assert_eq!(host.enter(CPUID, 1), Some(ExitReason::Cpuid));
}

/// With accessed and dirty flags and a log at 50000H.
fn logging(index: u64) -> Host {
    let mut host = full();
    host.add(F::SECONDARY_CONTROLS, Secondary::ENABLE_PML);
    host.set(F::EPT_POINTER, host.get(F::EPT_POINTER) | Eptp::ACCESSED_DIRTY);
    host.set(F::PML_ADDRESS, 0x5_0000);
    host.set(F::PML_INDEX, index);
    host
}

#[test]
fn pages_that_become_dirty_are_logged_downwards() {
    let mut host = logging(511);
    let code = [STORE, STORE, STORE_SECOND].concat();
    assert_eq!(host.enter_then_cpuid(&code), Some(ExitReason::Cpuid));
    let count = 511 - host.get(F::PML_INDEX);
    let logged: Vec<u64> = (0..count).map(|n| host.machine.load(0x5_0000 + 8 * (511 - n), 8)).collect();
    assert_eq!(logged.iter().filter(|page| **page == 0x3_0000).count(), 1);
    assert!(logged.contains(&PAGE_TABLES), "guest paging structures count as written");
}

#[test]
fn a_full_log_exits_before_the_access() {
    let mut host = logging(0xffff);
    host.machine.store(0x3_0008, 4, 5);
    for page in 0..512 {
        let dirty = if page == 0x30 { 0 } else { EptEntry::DIRTY | EptEntry::ACCESSED };
        host.ept_entry(page << 12, page << 12 | 0x37 | dirty);
    }
    assert_eq!(host.enter(&STORE, 2), Some(ExitReason::PmlFull));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP);
    assert_eq!(host.machine.load(0x3_0008, 4), 5);
    assert_eq!(host.machine.load(EPT_TABLES + 0x3000 + 8 * 0x30, 8) & EptEntry::DIRTY, 0);
    host.set(F::PML_INDEX, 0);
    assert_eq!(host.enter_then_cpuid(&STORE), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::PML_INDEX), host.machine.load(0x5_0000, 8)), (0xffff, 0x3_0000), "the index wraps");
}

/// EPT violations become virtualization exceptions; their handler is CPUID at 9800H.
fn with_exceptions() -> Host {
    let mut host = full();
    host.add(F::SECONDARY_CONTROLS, Secondary::EPT_VIOLATION_VE);
    host.set(F::VE_INFORMATION_ADDRESS, 0x5_0000);
    host.set(F::EPTP_INDEX, 7);
    host.machine.idt(20, 8, 0x9800, 0x8e);
    host.machine.write(0x9800, CPUID);
    host
}

#[test]
fn a_convertible_violation_is_an_exception_of_the_guest() {
    let mut host = with_exceptions();
    host.ept_entry(0x3_0000, 0x3_0031);
    assert_eq!(host.enter(&STORE, 5), Some(ExitReason::Cpuid));
    assert_eq!(host.get(F::GUEST_RIP), 0x9800);
    let area = |offset, size| host.machine.load(0x5_0000 + offset, size);
    assert_eq!((area(ve::REASON, 4), area(ve::BUSY, 4), area(ve::EPTP_INDEX, 2)), (48, 0xffff_ffff, 7));
    assert_eq!((area(ve::LINEAR, 8), area(ve::PHYSICAL, 8)), (0x3_0008, 0x3_0008));
    let write = EptViolation::WRITE | EptViolation::READABLE;
    assert_eq!(area(ve::QUALIFICATION, 8) & 0x3f, write);
    let pushed = host.machine.load(host.get(F::GUEST_RSP), 8);
    assert_eq!(pushed, GUEST_RIP, "a fault without an error code");
}

#[test]
fn a_violation_exits_where_no_exception_can_be() {
    let mut busy = with_exceptions();
    busy.machine.store(0x5_0004, 4, 1);
    busy.ept_entry(0x3_0000, 0x3_0031);
    assert_eq!(busy.enter(&STORE, 5), Some(ExitReason::EptViolation), "the area is in use");
    let mut suppressed = with_exceptions();
    suppressed.ept_entry(0x3_0000, 0x3_0031 | EptEntry::SUPPRESS_VE);
    assert_eq!(suppressed.enter(&STORE, 5), Some(ExitReason::EptViolation));
    let mut delivering = with_exceptions();
    delivering.machine.idt(0x20, 8, 0x9800, 0x8e);
    delivering.ept_entry(0x6000, 0);
    // int 20h, whose delivery pushes onto a page that is not there
    assert_eq!(delivering.enter(&[0xcd, 0x20], 5), Some(ExitReason::EptViolation));
}

#[test]
fn the_exception_bitmap_covers_virtualization_exceptions() {
    let mut host = with_exceptions();
    host.set(F::EXCEPTION_BITMAP, 1 << 20);
    host.ept_entry(0x3_0000, 0x3_0031);
    assert_eq!(host.enter(&STORE, 5), Some(ExitReason::ExceptionOrNmi));
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO) & 0xfff, 20 | 3 << 8);
    assert_eq!(host.machine.load(0x5_0000 + ve::BUSY, 4), 0xffff_ffff);
}

#[test]
fn eptp_switching_sets_the_eptp_index_and_keeps_the_number_of_levels() {
    let mut host = with_exceptions();
    host.add(F::SECONDARY_CONTROLS, Secondary::ENABLE_VM_FUNCTIONS);
    host.set(F::VM_FUNCTION_CONTROLS, 1);
    host.set(F::EPTP_LIST_ADDRESS, 0x5_1000);
    host.machine.store(0x5_1000 + 8 * 3, 8, host.get(F::EPT_POINTER));
    host.machine.store(0x5_1000 + 8 * 4, 8, host.get(F::EPT_POINTER) | 4 << 3);
    // xor eax, eax; mov ecx, 3; vmfunc; mov ecx, 4; vmfunc
    let code = [0x31, 0xc0, 0xb9, 3, 0, 0, 0, 0x0f, 0x01, 0xd4, 0xb9, 4, 0, 0, 0, 0x0f, 0x01, 0xd4];
    assert_eq!(host.enter(&code, 10), Some(ExitReason::Vmfunc));
    assert_eq!((host.get(F::EPTP_INDEX), host.get(F::GUEST_RIP)), (3, GUEST_RIP + 15));
}

#[test]
fn mode_based_execute_control_goes_by_the_mode_of_the_address() {
    let mut host = full();
    host.add(F::SECONDARY_CONTROLS, Secondary::MODE_BASED_EXECUTE);
    for table in 0..3 {
        let at = EPT_TABLES + 0x1000 * table;
        host.machine.store(at, 8, host.machine.load(at, 8) | EptEntry::EXECUTE_USER);
    }
    // All of the guest's addresses are user-mode ones.
    let page = GUEST_RIP & !0xfff;
    host.ept_entry(page, page | 0x37);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::EptViolation));
    let expected = EptViolation::FETCH | EptViolation::READABLE | EptViolation::WRITABLE | EptViolation::EXECUTABLE;
    assert_eq!(host.get(F::EXIT_QUALIFICATION) & 0x7f, expected);
    host.ept_entry(page, page | 0x33 | EptEntry::EXECUTE_USER);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
}

/// The page at 30000H is read-only with sub-pages, of which those in `writable` can be written.
fn sub_pages(writable: u64) -> Host {
    let mut host = full();
    host.add(F::SECONDARY_CONTROLS, Secondary::SUB_PAGE_WRITE);
    host.set(F::SPP_TABLE_POINTER, 0x5_0000);
    for table in 0..3u64 {
        host.machine.store(0x5_0000 + 0x1000 * table, 8, (0x5_1000 + 0x1000 * table) | 1);
    }
    host.machine.store(0x5_3000 + 8 * 0x30, 8, writable);
    host.ept_entry(0x3_0000, 0x3_0031 | EptEntry::SUB_PAGE_WRITE);
    host
}

#[test]
fn sub_pages_are_writable_one_by_one() {
    let second = 1 << 2;
    assert_eq!(sub_pages(second).enter_then_cpuid(&STORE_SECOND), Some(ExitReason::Cpuid));
    let mut host = sub_pages(second);
    let code = [LOAD, STORE_SECOND, STORE].concat();
    assert_eq!(host.enter_then_cpuid(&code), Some(ExitReason::EptViolation));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 14, "the store to the first");
    assert_eq!(sub_pages(second).enter_then_cpuid(&STORE_ACROSS), Some(ExitReason::EptViolation));
    assert_eq!(sub_pages(1).enter_then_cpuid(&STORE_ACROSS), Some(ExitReason::EptViolation));
    assert_eq!(sub_pages(5).enter_then_cpuid(&STORE_ACROSS), Some(ExitReason::Cpuid));
}

#[test]
fn missing_and_wrong_sub_page_permissions_exit() {
    let mut host = sub_pages(1);
    host.machine.store(0x5_2000, 8, 0);
    assert_eq!(host.enter_then_cpuid(&STORE), Some(ExitReason::SppEvent));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_PHYSICAL_ADDRESS)), (SppEvent::MISS, 0x3_0008));
    assert_eq!(host.get(F::GUEST_LINEAR_ADDRESS), 0x3_0008);
    let mut host = sub_pages(3);
    assert_eq!(host.enter_then_cpuid(&STORE), Some(ExitReason::SppEvent));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0);
}

/// HLAT tables at 60000H that map the low 2 MiB by 4 KiB pages one to one, but 30000H to 31000H.
fn hlat(prefix: u64) -> Host {
    let mut host = full();
    host.tertiary(Tertiary::ENABLE_HLAT);
    host.set(F::HLAT_POINTER, 0x6_0000);
    host.set(F::HLAT_PREFIX_SIZE, prefix);
    for table in 0..3u64 {
        host.machine.store(0x6_0000 + 0x1000 * table, 8, (0x6_1000 + 0x1000 * table) | 7);
    }
    for page in 0..512u64 {
        let physical = if page == 0x30 { 0x31 } else { page };
        host.machine.store(0x6_3000 + 8 * page, 8, physical << 12 | 7);
    }
    host.machine.store(0x3_0008, 4, 30);
    host.machine.store(0x3_1008, 4, 31);
    host
}

#[test]
fn hlat_paging_translates_in_place_of_cr3() {
    let mut host = hlat(0);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.regs[RSI], 31);
    let mut host = hlat(1);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.regs[RSI], 30, "with a prefix only addresses with bit 63 set");
    let mut host = hlat(0);
    host.set(F::TERTIARY_CONTROLS, 0);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.regs[RSI], 30);
}

#[test]
fn an_entry_of_hlat_paging_restarts_with_ordinary_paging() {
    let mut host = hlat(0);
    host.machine.store(0x6_3000 + 8 * 0x30, 8, 0x3_1000 | 1 << 11 | 7);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.regs[RSI], 30);
}

#[test]
fn a_page_fault_tells_that_hlat_paging_has_no_translation() {
    let mut host = hlat(0);
    host.set(F::EXCEPTION_BITMAP, 1 << 14);
    host.machine.store(0x6_3000 + 8 * 0x30, 8, 0);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::ExceptionOrNmi));
    assert_eq!(host.get(F::EXIT_INTERRUPTION_ERROR_CODE), 0x80);
    let mut host = hlat(0);
    host.set(F::EXCEPTION_BITMAP, 1 << 14);
    host.set(F::GUEST_CR0, host.get(F::GUEST_CR0) | 1 << 16);
    host.machine.store(0x6_3000 + 8 * 0x30, 8, 0x3_1005);
    assert_eq!(host.enter_then_cpuid(&STORE), Some(ExitReason::ExceptionOrNmi));
    assert_eq!(host.get(F::EXIT_INTERRUPTION_ERROR_CODE), 3, "access rights: without the flag");
}

#[test]
fn paging_write_access_lets_flags_of_read_only_tables_be_set() {
    let tables = |host: &mut Host, extra: u64| {
        host.set(F::EPT_POINTER, host.get(F::EPT_POINTER) | Eptp::ACCESSED_DIRTY);
        for page in 0..3 {
            let at = PAGE_TABLES + 0x1000 * page;
            host.ept_entry(at, at | 0x31 | extra);
        }
    };
    let mut host = full();
    tables(&mut host, 0);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::EptViolation), "accesses to tables count as writes");
    let mut host = full();
    host.tertiary(Tertiary::EPT_PAGING_WRITE);
    tables(&mut host, EptEntry::PAGING_WRITE);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
}

#[test]
fn guest_paging_verification_wants_paging_write_access_of_the_tables() {
    let mut host = full();
    host.ept_entry(0x3_0000, 0x3_0037 | EptEntry::VERIFY_GUEST_PAGING);
    host.tertiary(Tertiary::GUEST_PAGING_VERIFICATION);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::Cpuid), "one control alone does nothing");
    let mut host = full();
    host.ept_entry(0x3_0000, 0x3_0037 | EptEntry::VERIFY_GUEST_PAGING);
    host.tertiary(Tertiary::EPT_PAGING_WRITE | Tertiary::GUEST_PAGING_VERIFICATION);
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::EptViolation));
    let bit = EptViolation::GUEST_PAGING_VERIFICATION;
    assert_eq!(host.get(F::EXIT_QUALIFICATION) & bit, bit);
    for page in 0..3 {
        let at = PAGE_TABLES + 0x1000 * page;
        host.ept_entry(at, at | 0x37 | EptEntry::PAGING_WRITE);
    }
    assert_eq!(host.enter_then_cpuid(&LOAD), Some(ExitReason::Cpuid));
}

#[test]
fn loading_pdptes_reports_no_linear_address() {
    let mut host = full();
    // A PAE guest outside IA-32e mode: mov cr3, eax with a table that EPT does not map.
    host.set(F::ENTRY_CONTROLS, host.get(F::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E_MODE_GUEST));
    host.set(F::GUEST_CS_ACCESS_RIGHTS, 0xc09b);
    host.machine.store(PAGE_TABLES, 8, (PAGE_TABLES + 0x2000) | 1);
    host.set(F::GUEST_CR3, PAGE_TABLES);
    host.set(F::GUEST_PDPTE0, (PAGE_TABLES + 0x2000) | 1);
    host.machine.cpu.regs[RAX] = 0x4_0000;
    host.ept_entry(0x4_0000, 0);
    let primary = host.get(F::PRIMARY_CONTROLS);
    host.set(F::PRIMARY_CONTROLS, primary & !u64::from(Primary::CR3_LOAD_EXITING));
    assert_eq!(host.enter(&[0x0f, 0x22, 0xd8], 3), Some(ExitReason::EptViolation));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), EptViolation::READ);
    assert_eq!(host.get(F::GUEST_PHYSICAL_ADDRESS), 0x4_0000);
}
