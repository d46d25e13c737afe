//! Translations for device TLBs; invalidations that take their time.

use super::*;
use crate::vtd::RequestKind;
use crate::vtd::device_tlb::TIMEOUT;
use devices::pci::ats::{Attributes, TranslationCompletion, TranslationError, TranslationRequest};
use spec::vtd::invalidation::{DescriptorType as D, wait};
use spec::vtd::registers::{FaultStatus, queue};

const PAGE: u64 = 0x30_0000;
/// Where wait descriptors write.
const STATUS: u64 = 0x9000;

/// First stage, with a page at 0x5000.
fn first(entry: u64) -> Bench {
    let mut bench = Bench::with_device_tlb(pasid::TYPE_FIRST_STAGE);
    bench.map_first(0x5000, entry, 1);
    bench
}

fn ask(bench: &mut Bench, no_write: bool) -> Result<TranslationCompletion, TranslationError> {
    let attributes = Attributes { pasid: Some(1), ..Attributes::default() };
    bench.unit.translation_request(SOURCE, &TranslationRequest { attributes, address: 0x5000, no_write })
}

fn completion(read: bool, write: bool) -> TranslationCompletion {
    TranslationCompletion { address: PAGE, shift: 12, read, write, execute: false }
}

#[test]
fn a_translation_tells_what_the_page_allows() {
    assert_eq!(ask(&mut first(PAGE | PRESENT), false), Ok(completion(true, true)));
    assert_eq!(ask(&mut first(PAGE | PRESENT & !FirstStageEntry::WRITE), false), Ok(completion(true, false)));
    let mut bench = first(0);
    assert_eq!(ask(&mut bench, false), Ok(TranslationCompletion { address: 0x5000, ..completion(false, false) }));
    assert_eq!(bench.take_faults(), [], "a recoverable fault is not recorded");
}

#[test]
fn the_no_write_flag_leaves_the_dirty_flag_alone() {
    let mut bench = first(PAGE | PRESENT);
    let at = bench.entry_at(FIRST, 0x5000, 1);
    assert_eq!(ask(&mut bench, true), Ok(completion(true, false)));
    assert_eq!(bench.get(at) & FirstStageEntry::DIRTY, 0);
    assert_eq!(ask(&mut bench, false), Ok(completion(true, true)));
    assert_ne!(bench.get(at) & FirstStageEntry::DIRTY, 0);
}

#[test]
fn a_large_page_is_told_as_such() {
    let mut bench = Bench::with_device_tlb(pasid::TYPE_SECOND_STAGE);
    bench.map(0x40_0000, 0x20_0000 | READ_WRITE, 2);
    let request = TranslationRequest { attributes: Attributes::default(), address: 0x45_6000, no_write: false };
    let found = bench.unit.translation_request(SOURCE, &request).unwrap();
    assert_eq!((found.address, found.shift, found.write), (0x20_0000, 21, true));
}

#[test]
fn execute_permission_is_told_where_it_was_asked_for() {
    let mut bench = first(PAGE | PRESENT);
    bench.put(Bench::pasid_at(1) + 16, &[FIRST | pasid::EXECUTE_REQUESTS]);
    let attributes = Attributes { pasid: Some(1), execute: true, ..Attributes::default() };
    let request = TranslationRequest { attributes, address: 0x5000, no_write: true };
    let found = bench.unit.translation_request(SOURCE, &request).unwrap();
    assert!(found.read && found.execute && !found.write);
}

#[test]
fn what_software_set_up_wrongly_is_recorded_and_gives_no_completion() {
    let mut bench = first(PAGE | PRESENT);
    bench.put(Bench::pasid_at(1), &[0]);
    assert_eq!(ask(&mut bench, false), Err(TranslationError::Unsupported));
    assert_eq!(bench.take_faults(), [(FaultReason::PasidEntryNotPresent, SOURCE, 0x5000)]);
    bench.put(DIRECTORY, &[NOWHERE | 1]);
    assert_eq!(ask(&mut bench, false), Err(TranslationError::Aborted));
    assert_eq!(bench.take_faults(), [(FaultReason::PasidEntryAccess, SOURCE, 0x5000)]);
}

#[test]
fn nothing_is_translated_or_believed_while_translation_is_off() {
    let mut bench = first(PAGE | PRESENT);
    bench.write32(register::GLOBAL_COMMAND, GlobalCommand::QUEUED_INVALIDATION);
    assert_eq!(ask(&mut bench, false), Err(TranslationError::Unsupported));
    let translated = Request { kind: RequestKind::Translated, ..Request::new(SOURCE, PAGE, Access::WRITE) };
    assert_eq!(bench.request(&translated), Err(None));
    assert_eq!(bench.take_faults(), []);
}

#[test]
fn translated_requests_pass_where_the_context_entry_has_a_device_tlb() {
    let translated = Request { kind: RequestKind::Translated, ..Request::new(SOURCE, 0x1_2345, Access::WRITE) };
    let mut bench = first(0);
    // The tables behind the context entry are not looked at.
    bench.put(DIRECTORY, &[0]);
    assert_eq!(bench.request(&translated), Ok(0x1_2345));
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    assert_eq!(bench.request(&translated), Err(Some(FaultReason::DeviceTlbNotEnabled)));
    let mut bench = Bench::legacy_with(UnitConfig { device_tlb: true, ..UnitConfig::default() });
    assert_eq!(bench.request(&translated), Err(Some(FaultReason::RequestTypeBlocked)));
    let mut bench = Bench::legacy_with(UnitConfig { device_tlb: true, ..UnitConfig::default() });
    let kind = context::TYPE_DEVICE_TLB << context::TYPE_SHIFT;
    bench.put_context(SECOND | kind | 1, u64::from(DOMAIN) << context::DOMAIN_SHIFT | 2);
    assert_eq!(bench.request(&translated), Ok(0x1_2345));
}

fn submit_invalidation(bench: &mut Bench) -> u8 {
    bench.submit(D::PasidDeviceTlb as u64 | u64::from(SOURCE) << 16 | 1 << 32, 0x5000);
    match bench.messages.take()[..] {
        [(SOURCE, Message::Invalidate { tag, pasid: Some(1), global: false, first: 0x5000, last: 0x5fff })] => tag,
        ref other => panic!("{other:?}"),
    }
}

fn submit_wait(bench: &mut Bench) {
    bench.submit(D::Wait as u64 | wait::STATUS_WRITE | 0x77 << wait::DATA_SHIFT, STATUS);
}

#[test]
fn descriptors_become_messages_with_their_range() {
    let mut bench = first(0);
    bench.submit(D::DeviceTlb as u64 | u64::from(SOURCE) << 32, 0x7000 | 1);
    bench.submit(D::PasidDeviceTlb as u64 | u64::from(SOURCE) << 16 | 9 << 32, 0x8000 | 1 << 11 | 1);
    let messages = bench.messages.take();
    let expected = Message::Invalidate { tag: 0, pasid: None, global: false, first: 0, last: 0xffff };
    assert_eq!(messages[0], (SOURCE, expected));
    let expected = Message::Invalidate { tag: 1, pasid: Some(9), global: true, first: 0x8000, last: 0x9fff };
    assert_eq!(messages[1], (SOURCE, expected));
}

#[test]
fn a_wait_descriptor_waits_for_the_functions() {
    let mut bench = first(0);
    let (one, two) = (submit_invalidation(&mut bench), submit_invalidation(&mut bench));
    assert_ne!(one, two);
    submit_wait(&mut bench);
    assert_eq!(bench.get(STATUS), 0);
    let mut picture = String::new();
    bench.unit.write_picture(&mut picture).unwrap();
    assert_eq!(picture.matches("00:03.0 has not completed an invalidation").count(), 2, "{picture}");
    assert!(picture.contains("page request queue 0x0, head 0x0, tail 0x0, status 0x0"), "{picture}");
    bench.unit.invalidated(SOURCE, two);
    assert_eq!(bench.get(STATUS), 0);
    let state = bench.unit.save();
    bench.unit.restore(&state);
    bench.unit.invalidated(SOURCE, one);
    assert_eq!(bench.get(STATUS), 0x77);
    assert_eq!(bench.read(register::QUEUE_HEAD), bench.read(register::QUEUE_TAIL));
    assert_eq!(bench.clock.deadline(), None);
}

#[test]
fn a_function_that_does_not_answer_is_named_and_the_wait_is_aborted() {
    let mut bench = first(0);
    submit_invalidation(&mut bench);
    submit_wait(&mut bench);
    // What follows is not looked at until the error is cleared.
    bench.submit(D::Wait as u64 | wait::STATUS_WRITE | 0x78 << wait::DATA_SHIFT, STATUS + 8);
    bench.clock.run(&mut bench.unit, TIMEOUT - 1, 8);
    assert_eq!(bench.read32(register::FAULT_STATUS), 0);
    bench.clock.run(&mut bench.unit, TIMEOUT, 8);
    assert_eq!(bench.read32(register::FAULT_STATUS), FaultStatus::TIMEOUT_ERROR);
    assert_eq!(bench.read(register::QUEUE_ERROR) >> queue::TIMEOUT_SOURCE_SHIFT & 0xffff, SOURCE.into());
    assert_eq!(bench.events.take().len(), 1);
    assert_eq!((bench.get(STATUS), bench.get(STATUS + 8)), (0, 0));
    bench.write32(register::FAULT_STATUS, FaultStatus::TIMEOUT_ERROR);
    assert_eq!((bench.get(STATUS), bench.get(STATUS + 8)), (0, 0x78));
}

#[test]
fn a_completion_that_nobody_waits_for_is_an_error() {
    let mut bench = first(0);
    let tag = submit_invalidation(&mut bench);
    bench.unit.invalidated(SOURCE + 1, tag);
    assert_eq!(bench.read32(register::FAULT_STATUS), FaultStatus::COMPLETION_ERROR);
    assert_eq!(bench.read(register::QUEUE_ERROR) >> queue::COMPLETION_SOURCE_SHIFT, u64::from(SOURCE + 1));
    submit_wait(&mut bench);
    assert_eq!(bench.get(STATUS), 0, "the right one has yet to come");
    bench.unit.invalidated(SOURCE, tag);
    assert_eq!(bench.get(STATUS), 0x77);
}

#[test]
fn more_invalidations_than_tags_wait_for_one_to_be_free() {
    let mut bench = first(0);
    for _ in 0..32 {
        submit_invalidation(&mut bench);
    }
    bench.submit(D::DeviceTlb as u64 | u64::from(SOURCE) << 32, 0x5000);
    assert_eq!(bench.messages.take(), []);
    bench.unit.invalidated(SOURCE, 17);
    assert!(matches!(bench.messages.take()[..], [(SOURCE, Message::Invalidate { tag: 17, .. })]));
}
