use super::*;
use crate::vtd::RequestKind;
use spec::vtd::tables::INTERRUPT_RANGE;

fn with_pasid(address: u64, access: Access, pasid: u32) -> Request {
    Request { pasid: Some(pasid), ..Request::new(SOURCE, address, access) }
}

#[test]
fn addresses_pass_unchanged_while_translation_is_off() {
    let mut bench = Bench::new(UnitConfig::default());
    assert_eq!(bench.translate(0x1234_5678, Access::WRITE), Ok(0x1234_5678));
}

#[test]
fn pages_of_three_sizes_are_translated() {
    let mut bench = Bench::legacy();
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    bench.map(0x40_0000, 0x20_0000 | READ_WRITE, 2);
    bench.map(0x8000_0000, 0xc000_0000 | READ_WRITE, 3);
    assert_eq!(bench.translate(0x5123, Access::READ), Ok(0x30_0123));
    assert_eq!(bench.translate(0x45_6789, Access::WRITE), Ok(0x25_6789));
    assert_eq!(bench.translate(0xb234_5678, Access::READ), Ok(0xf234_5678));
    assert_eq!(bench.take_faults(), []);
}

#[test]
fn the_address_width_of_the_context_entry_chooses_three_four_or_five_levels() {
    let config = UnitConfig { address_width: 57, ..UnitConfig::default() };
    for (width, levels) in [(1, 3), (2, 4), (3, 5)] {
        let mut bench = Bench::legacy_with(config);
        bench.put_context(SECOND | 1, u64::from(DOMAIN) << context::DOMAIN_SHIFT | width);
        let mut table = SECOND;
        for _ in 1..levels {
            bench.put(table, &[(table + 0x1000) | READ_WRITE]);
            table += 0x1000;
        }
        bench.put(table, &[0x30_0000 | READ_WRITE]);
        assert_eq!(bench.translate(0x123, Access::WRITE), Ok(0x30_0123), "{levels} levels");
        let beyond = 1 << (12 + 9 * levels);
        assert_eq!(bench.translate(beyond, Access::READ), Err(Some(FaultReason::AddressBeyondWidth)));
    }
}

#[test]
fn a_permission_must_be_given_at_every_level() {
    let mut bench = Bench::legacy();
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    let upper = bench.entry_at(SECOND, 0x5000, 2);
    bench.put(upper, &[bench.get(upper) & !SecondStageEntry::WRITE]);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x30_0000));
    assert_eq!(bench.translate(0x5000, Access::WRITE), Err(Some(FaultReason::WriteNotPermitted)));
}

#[test]
fn a_permission_that_was_added_needs_no_invalidation() {
    let mut bench = Bench::legacy();
    let at = bench.map(0x5000, 0x30_0000 | SecondStageEntry::READ, 1);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x30_0000));
    bench.put(at, &[0x30_0000 | READ_WRITE]);
    assert_eq!(bench.translate(0x5000, Access::WRITE), Ok(0x30_0000));
}

#[test]
fn a_read_of_no_bytes_is_allowed_where_writes_are() {
    let mut bench = Bench::legacy();
    bench.map(0x5000, 0x30_0000 | SecondStageEntry::WRITE, 1);
    assert_eq!(bench.translate(0x5000, Access::READ), Err(Some(FaultReason::ReadNotPermitted)));
    assert_eq!(bench.translate(0x5000, Access { zero_length: true, ..Access::READ }), Ok(0x30_0000));
}

#[test]
fn pass_through_leaves_addresses_as_they_are() {
    let mut bench = Bench::legacy();
    bench.put_context(context::TYPE_PASS_THROUGH << context::TYPE_SHIFT | 1, 2);
    assert_eq!(bench.translate(0x7654_3210, Access::WRITE), Ok(0x7654_3210));
    assert_eq!(bench.translate(1 << 46, Access::READ), Err(Some(FaultReason::AddressBeyondWidth)));
}

#[test]
fn protected_memory_is_blocked_without_a_fault() {
    let mut bench = Bench::new(UnitConfig::default());
    bench.write32(register::PROTECTED_LOW_BASE, 0x20_0000);
    bench.write32(register::PROTECTED_LOW_LIMIT, 0x20_0000);
    bench.write(register::PROTECTED_HIGH_BASE, 0x1_4000_0000);
    bench.write(register::PROTECTED_HIGH_LIMIT, 0x1_5000_0000);
    assert_eq!(bench.translate(0x20_0000, Access::WRITE), Ok(0x20_0000));
    bench.write32(register::PROTECTED_MEMORY_ENABLE, register::PROTECTED_ENABLE);
    assert_eq!(bench.read32(register::PROTECTED_MEMORY_ENABLE) & register::PROTECTED_STATUS, 1);
    for (address, passes) in [
        (0x1f_ffff, true),
        (0x20_0000, false),
        (0x3f_ffff, false),
        (0x40_0000, true),
        (0x1_4000_0000, false),
        (0x1_501f_ffff, false),
        (0x1_5020_0000, true),
    ] {
        assert_eq!(bench.translate(address, Access::READ).is_ok(), passes, "{address:#x}");
    }
    assert_eq!(bench.translate(0x20_0000, Access::READ), Err(None));
    assert_eq!(bench.take_faults(), []);
}

#[test]
fn two_domains_have_their_own_translations() {
    let mut bench = Bench::legacy();
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    let other = SOURCE + 8;
    let second = bench.next_table;
    bench.next_table += 0x1000;
    let context = bench.context_at(other);
    bench.put(context, &[second | 1, 9 << context::DOMAIN_SHIFT | 2]);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x30_0000));
    let request = Request::new(other, 0x5000, Access::READ);
    assert_eq!(bench.request(&request), Err(Some(FaultReason::ReadNotPermitted)));
    assert_eq!(bench.take_faults(), [(FaultReason::ReadNotPermitted, other, 0x5000)]);
}

#[test]
fn scalable_mode_translates_by_the_second_stage() {
    let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    assert_eq!(bench.translate(0x5008, Access::WRITE), Ok(0x30_0008));
    assert_eq!(bench.request(&with_pasid(0x5008, Access::READ, 1)), Ok(0x30_0008));
}

#[test]
fn the_upper_half_of_a_root_entry_has_the_devices_from_16_on() {
    let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    let table = bench.next_table;
    bench.put(ROOT, &[CONTEXTS | 1, table | 1]);
    bench.put(table + 3 * scalable_context::SIZE, &[DIRECTORY | 1, 1, 0, 0]);
    let request = Request::new(16 << 3 | 3, 0x5000, Access::READ);
    assert_eq!(bench.request(&request), Ok(0x30_0000));
}

#[test]
fn second_stage_flags_are_set_where_they_are_enabled() {
    let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
    let entry = Bench::pasid_at(1);
    bench.put(entry, &[bench.get(entry) | pasid::SECOND_STAGE_ACCESSED_DIRTY]);
    let at = bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    let upper = bench.entry_at(SECOND, 0x5000, 4);
    bench.translate(0x5000, Access::READ).unwrap();
    let flags = SecondStageEntry::ACCESSED | SecondStageEntry::DIRTY;
    assert_eq!(
        (bench.get(at) & flags, bench.get(upper) & flags),
        (SecondStageEntry::ACCESSED, SecondStageEntry::ACCESSED)
    );
    // What a read kept does not let a write pass without its flag.
    bench.translate(0x5000, Access::WRITE).unwrap();
    assert_eq!(bench.get(at) & flags, flags);
}

#[test]
fn the_first_stage_translates_and_sets_its_flags() {
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    let at = bench.map_first(0xffff_8000_0000_5000, 0x30_0000 | PRESENT, 1);
    bench.map_first(0x40_0000, 0x20_0000 | PRESENT, 2);
    bench.map_first(0x8000_0000, 0x4000_0000 | PRESENT, 3);
    assert_eq!(bench.translate(0xffff_8000_0000_5123, Access::READ), Ok(0x30_0123));
    let flags = FirstStageEntry::ACCESSED | FirstStageEntry::DIRTY;
    assert_eq!(bench.get(at) & flags, FirstStageEntry::ACCESSED);
    bench.translate(0xffff_8000_0000_5123, Access::WRITE).unwrap();
    assert_eq!(bench.get(at) & flags, flags);
    assert_eq!(bench.translate(0x45_6789, Access::READ), Ok(0x25_6789));
    assert_eq!(bench.translate(0xb234_5678, Access::READ), Ok(0x7234_5678));
}

#[test]
fn the_first_stage_has_five_levels_where_the_pasid_entry_says_so() {
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    bench.map_first(0x5000, 0x30_0000 | PRESENT, 1);
    let top = bench.next_table;
    let address = 0x00aa_0000_0000_5000;
    bench.put(top + (address >> 48 & 0x1ff) * 8, &[FIRST | PRESENT]);
    bench.put(Bench::pasid_at(1) + 16, &[top | 1 << pasid::PAGING_MODE_SHIFT]);
    assert_eq!(bench.translate(address, Access::READ), Ok(0x30_0000));
}

#[test]
fn supervisor_requests_reach_supervisor_pages_and_obey_write_protection_only_where_enabled() {
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    bench.map_first(0x5000, 0x30_0000 | FirstStageEntry::PRESENT, 1);
    let privileged = |access| Request { privileged: true, ..with_pasid(0x5000, access, 1) };
    let attributes = Bench::pasid_at(1) + 16;
    bench.put(attributes, &[FIRST | pasid::SUPERVISOR_REQUESTS]);
    assert_eq!(bench.request(&privileged(Access::READ)), Ok(0x30_0000));
    assert_eq!(bench.request(&privileged(Access::WRITE)), Ok(0x30_0000));
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    bench.map_first(0x5000, 0x30_0000 | FirstStageEntry::PRESENT, 1);
    bench.put(attributes, &[FIRST | pasid::SUPERVISOR_REQUESTS | pasid::WRITE_PROTECT]);
    assert_eq!(bench.request(&privileged(Access::WRITE)), Err(Some(FaultReason::ScalableWriteNotPermitted)));
}

/// A nested unit whose second stage maps the first 2 MiB (tables of the first stage among them) one to one, and 2 MiB from 1 GiB on to 0x200000.
fn nested() -> Bench {
    let mut bench = Bench::scalable(pasid::TYPE_NESTED);
    bench.map(0, READ_WRITE, 2);
    bench.map(0x4000_0000, 0x20_0000 | READ_WRITE, 2);
    bench
}

#[test]
fn nested_translation_passes_tables_and_pages_through_the_second_stage() {
    let mut bench = nested();
    bench.map_first(0x5000, 0x4000_3000 | PRESENT, 1);
    assert_eq!(bench.translate(0x5123, Access::WRITE), Ok(0x20_3123));
    // A large page of the first stage over small ones of the second is kept in small ones.
    bench.map(0x4020_0000, 0x30_0000 | READ_WRITE, 1);
    bench.map_first(0x60_0000, 0x4020_0000 | PRESENT, 2);
    assert_eq!(bench.translate(0x60_0010, Access::READ), Ok(0x30_0010));
    assert_eq!(bench.translate(0x60_1000, Access::READ), Err(Some(FaultReason::SecondStageNotPresent)));
}

#[test]
fn a_nested_page_allows_what_both_stages_allow() {
    let mut bench = nested();
    bench.map(0x4020_0000, 0x30_0000 | SecondStageEntry::READ, 1);
    bench.map_first(0x5000, 0x4020_0000 | PRESENT, 1);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x30_0000));
    assert_eq!(bench.translate(0x5000, Access::WRITE), Err(Some(FaultReason::ScalableWriteNotPermitted)));
}

#[test]
fn pass_through_in_scalable_mode_ends_at_the_host_address_width() {
    let mut bench = Bench::scalable(pasid::TYPE_PASS_THROUGH);
    assert_eq!(bench.translate(0x7654_3210, Access::WRITE), Ok(0x7654_3210));
    assert_eq!(bench.translate(1 << 46, Access::READ), Err(Some(FaultReason::ScalableAddressBeyondHost)));
}

#[test]
fn with_a_pasid_the_interrupt_range_is_an_address_like_others() {
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    let address = *INTERRUPT_RANGE.start();
    bench.map_first(address, 0x30_0000 | PRESENT, 1);
    assert_eq!(bench.request(&with_pasid(address, Access::WRITE, 1)), Ok(0x30_0000));
    assert_eq!(bench.translate(address, Access::READ), Err(Some(FaultReason::InvalidInterruptRequest)));
}

#[test]
fn a_translated_request_is_blocked_where_there_is_no_device_tlb() {
    let mut bench = Bench::legacy();
    let request = Request { kind: RequestKind::Translated, ..Request::new(SOURCE, 0x5000, Access::READ) };
    assert_eq!(bench.request(&request), Err(Some(FaultReason::RequestTypeBlocked)));
}
