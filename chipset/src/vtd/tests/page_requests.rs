//! Page requests and the answers to them.

use super::*;
use devices::pci::ats::{Attributes, PageRequest, ResponseCode};
use spec::vtd::invalidation::DescriptorType as D;
use spec::vtd::page_requests::{request as descriptor, response};
use spec::vtd::registers::{page_queue, queue};

/// The page request queue, of one page.
const PAGES: u64 = 0xa000;
/// Requests that it holds.
const ROOM: u64 = 0x1000 / descriptor::SIZE - 1;

fn bench() -> Bench {
    let mut bench = Bench::with_device_tlb(pasid::TYPE_FIRST_STAGE);
    bench.write(register::PAGE_QUEUE_ADDRESS, PAGES);
    bench.write32(register::PAGE_EVENT_CONTROL + 4, 0x51);
    bench.write32(register::PAGE_EVENT_CONTROL + 8, 0xfee0_2000);
    bench.write32(register::PAGE_EVENT_CONTROL, 0);
    bench
}

fn request(bench: &mut Bench, last: bool) {
    let attributes = Attributes { pasid: Some(1), privileged: true, ..Attributes::default() };
    let request = PageRequest { attributes, address: 0x5000, read: false, write: true, last, group: 0x155 };
    bench.unit.page_request(SOURCE, &request);
}

#[test]
fn a_request_comes_into_the_queue_with_an_event() {
    let mut bench = bench();
    request(&mut bench, true);
    let first = descriptor::TYPE
        | descriptor::PASID_PRESENT
        | u64::from(SOURCE) << descriptor::SOURCE_SHIFT
        | 1 << descriptor::PASID_SHIFT
        | descriptor::PRIVILEGED;
    assert_eq!(bench.get(PAGES), first);
    let second = 0x5000 | descriptor::WRITE | descriptor::LAST | 0x155 << descriptor::GROUP_SHIFT;
    assert_eq!(bench.get(PAGES + 8), second);
    assert_eq!((bench.get(PAGES + 16), bench.get(PAGES + 24)), (0, 0));
    assert_eq!(bench.read(register::PAGE_QUEUE_TAIL), descriptor::SIZE);
    assert_eq!(bench.read32(register::PAGE_REQUEST_STATUS), page_queue::PENDING);
    assert_eq!(bench.events.take(), [(0xfee0_2000, 0x51)]);
    assert_eq!(bench.messages.take(), [], "software answers");
    // The next event comes when software has cleared the status.
    request(&mut bench, true);
    assert_eq!(bench.events.take(), []);
    bench.write32(register::PAGE_REQUEST_STATUS, page_queue::PENDING);
    request(&mut bench, true);
    assert_eq!(bench.events.take().len(), 1);
}

#[test]
fn a_full_queue_is_told_and_the_function_tries_again() {
    let mut bench = bench();
    for _ in 0..ROOM {
        request(&mut bench, true);
    }
    assert_eq!(bench.read32(register::PAGE_REQUEST_STATUS), page_queue::PENDING);
    assert_eq!(bench.messages.take(), []);
    request(&mut bench, false);
    assert_eq!(bench.read32(register::PAGE_REQUEST_STATUS), page_queue::PENDING | page_queue::OVERFLOW);
    assert_eq!(bench.messages.take(), [], "groups are answered, not requests");
    // Room alone does not help: the overflow is to be cleared.
    let tail = bench.read(register::PAGE_QUEUE_TAIL);
    bench.write(register::PAGE_QUEUE_HEAD, tail);
    request(&mut bench, true);
    let answer = Message::Response { pasid: Some(1), group: 0x155, code: ResponseCode::Success };
    assert_eq!(bench.messages.take(), [(SOURCE, answer)]);
    bench.write32(register::PAGE_REQUEST_STATUS, page_queue::PENDING | page_queue::OVERFLOW);
    request(&mut bench, true);
    assert_eq!(bench.messages.take(), []);
    assert_eq!(bench.read(register::PAGE_QUEUE_TAIL), 0, "and wraps");
}

#[test]
fn responses_go_to_the_function() {
    for (code, expected) in [
        (response::SUCCESS, ResponseCode::Success),
        (response::INVALID, ResponseCode::Invalid),
        (response::FAILURE, ResponseCode::Failure),
    ] {
        let mut bench = bench();
        let first = D::PageGroupResponse as u64
            | response::PASID_PRESENT
            | u64::from(SOURCE) << 16
            | 1 << 32
            | u64::from(code) << response::CODE_SHIFT;
        bench.submit(first, 0x155 << response::GROUP_SHIFT);
        let answer = Message::Response { pasid: Some(1), group: 0x155, code: expected };
        assert_eq!(bench.messages.take(), [(SOURCE, answer)]);
    }
}

#[test]
fn a_page_that_was_asked_for_is_not_kept_as_it_was() {
    let mut bench = bench();
    let at = bench.map_first(0x5000, 0x30_0000 | PRESENT, 1);
    let upper = bench.entry_at(FIRST, 0x5000, 2);
    bench.put(upper, &[bench.get(upper) & !FirstStageEntry::WRITE]);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x30_0000));
    assert_eq!(bench.translate(0x5000, Access::WRITE), Err(Some(FaultReason::ScalableWriteNotPermitted)));
    // The permission that the paging-structure cache keeps is the old one, until the page is asked for.
    bench.put(upper, &[bench.get(upper) | FirstStageEntry::WRITE]);
    assert_eq!(bench.translate(0x5000, Access::WRITE), Err(Some(FaultReason::ScalableWriteNotPermitted)));
    request(&mut bench, true);
    assert_eq!(bench.translate(0x5000, Access::WRITE), Ok(0x30_0000));
    assert_ne!(bench.get(at) & FirstStageEntry::DIRTY, 0);
}

#[test]
fn a_request_without_permission_is_answered_at_once_if_it_is_the_last() {
    let mut bench = bench();
    bench.write32(register::GLOBAL_COMMAND, GlobalCommand::QUEUED_INVALIDATION);
    request(&mut bench, false);
    assert_eq!(bench.messages.take(), []);
    request(&mut bench, true);
    let answer = Message::Response { pasid: Some(1), group: 0x155, code: ResponseCode::Failure };
    assert_eq!(bench.messages.take(), [(SOURCE, answer)]);
}

#[test]
fn the_registers_are_there_where_page_requests_are() {
    let mut bench = Bench::legacy();
    bench.write(register::PAGE_QUEUE_ADDRESS, PAGES);
    assert_eq!(bench.read(register::PAGE_QUEUE_ADDRESS), 0);
    let mut bench = self::bench();
    bench.write(register::PAGE_QUEUE_ADDRESS, PAGES | 0xff8 | queue::SIZE);
    assert_eq!(bench.read(register::PAGE_QUEUE_ADDRESS), PAGES | queue::SIZE);
}
