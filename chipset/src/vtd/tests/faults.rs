//! A case for each fault reason: what makes it, and that it is recorded with that code.

use super::*;
use crate::vtd::{RequestKind, Source};
use FaultReason as F;
use devices::pci::ats::{Attributes, PageRequest, ResponseCode};
use spec::vtd::interrupts::RemappingEntry;

/// What a case does.
enum Case {
    /// Makes a request that is blocked.
    Blocked(Result<u64, Option<FaultReason>>, Bench),
    /// Sends an interrupt or a page request that is blocked.
    Interrupt(Bench),
    /// Nothing can make it: why.
    Never(&'static str),
}

fn request(mut bench: Bench, request: Request) -> Case {
    let result = bench.request(&request);
    Case::Blocked(result, bench)
}

fn read(bench: Bench, address: u64) -> Case {
    request(bench, Request::new(SOURCE, address, Access::READ))
}

fn write(bench: Bench, address: u64) -> Case {
    request(bench, Request::new(SOURCE, address, Access::WRITE))
}

fn interrupt(mut bench: Bench, address: u64, data: u32) -> Case {
    bench.unit.interrupt(Source::Verified(SOURCE), address, data);
    Case::Interrupt(bench)
}

/// A remappable request for index `index`.
const fn handle(index: u64) -> u64 {
    0xfee0_0010 | index << 5
}

/// An entry with index 1.
fn with_entry(low: u64, high: u64) -> Bench {
    let bench = Bench::legacy();
    bench.put(INTERRUPTS + 16, &[low, high]);
    bench
}

fn page_request(mut bench: Bench) -> Case {
    let attributes = Attributes { pasid: Some(1), ..Attributes::default() };
    let request = PageRequest { attributes, address: 0x5000, read: true, write: false, last: true, group: 3 };
    bench.unit.page_request(SOURCE, &request);
    let answers = bench.messages.take();
    assert!(matches!(answers[..], [(SOURCE, Message::Response { group: 3, code: ResponseCode::Invalid, .. })]));
    Case::Interrupt(bench)
}

fn legacy_context(low: u64, high: u64) -> Bench {
    let bench = Bench::legacy();
    bench.put_context(low, high);
    bench
}

fn root(bench: Bench, low: u64) -> Bench {
    bench.put(ROOT, &[low, 0]);
    bench
}

/// Scalable mode with the second stage and these quadwords in the context entry.
fn scalable_context(entry: [u64; 2]) -> Bench {
    let bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
    bench.put(bench.context_at(SOURCE), &entry);
    bench
}

fn directory(entry: u64) -> Bench {
    let bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
    bench.put(DIRECTORY, &[entry]);
    bench
}

fn pasid_entry(kind: u64, quadword: u64, value: u64) -> Bench {
    let bench = Bench::scalable(kind);
    bench.put(Bench::pasid_at(1) + 8 * quadword, &[value]);
    bench
}

fn with_pasid(pasid: u32) -> Request {
    Request { pasid: Some(pasid), ..Request::new(SOURCE, 0x5000, Access::READ) }
}

/// First stage with a page at 0x5000.
fn first(entry: u64) -> Bench {
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    bench.map_first(0x5000, entry, 1);
    bench
}

/// Nested, with a second stage that maps the first 2 MiB with `flags`.
fn nested(flags: u64) -> Bench {
    let mut bench = Bench::scalable(pasid::TYPE_NESTED);
    bench.map(0, flags, 2);
    bench
}

fn case(reason: FaultReason) -> Case {
    let second = |entry| {
        let mut bench = Bench::legacy();
        bench.map(0x5000, entry, 1);
        bench
    };
    let scalable_second = |entry| {
        let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
        bench.map(0x5000, entry, 1);
        bench
    };
    let execute = Access { execute: true, ..Access::READ };
    match reason {
        F::RootEntryNotPresent => read(root(Bench::legacy(), 0), 0),
        F::ContextEntryNotPresent => read(legacy_context(0, 0), 0),
        F::InvalidContextEntry => read(legacy_context(SECOND | 1, 7), 0),
        F::AddressBeyondWidth => read(Bench::legacy(), 1 << 48),
        F::WriteNotPermitted => write(second(SecondStageEntry::READ), 0x5000),
        F::ReadNotPermitted => read(second(SecondStageEntry::WRITE), 0x5000),
        F::PagingEntryAccess => read(legacy_context(NOWHERE | 1, 2), 0),
        F::RootEntryAccess => {
            let mut bench = Bench::legacy();
            bench.write(register::ROOT_TABLE_ADDRESS, NOWHERE);
            bench.command(GlobalCommand::SET_ROOT_TABLE);
            read(bench, 0)
        }
        F::ContextEntryAccess => read(root(Bench::legacy(), NOWHERE | 1), 0),
        F::RootEntryReserved => read(root(Bench::legacy(), CONTEXTS | 3), 0),
        F::ContextEntryReserved => read(legacy_context(SECOND | 0x11, 2), 0),
        F::PagingEntryReserved => read(second(1 << 50 | READ_WRITE), 0x5000),
        F::RequestTypeBlocked => request(
            Bench::legacy(),
            Request { kind: RequestKind::Translation, ..Request::new(SOURCE, 0, Access::READ) },
        ),
        F::ToInterruptRange => write(second(0xfee0_0000 | READ_WRITE), 0x5000),
        F::InterruptRequestReserved => interrupt(Bench::legacy(), handle(1) | 8, 0x1_0000),
        F::InterruptIndexBeyondTable => interrupt(Bench::legacy(), handle(256), 0),
        F::InterruptEntryNotPresent => interrupt(with_entry(0, 0), handle(1), 0),
        F::InterruptEntryAccess => {
            let mut bench = Bench::legacy();
            bench.write(register::INTERRUPT_TABLE_ADDRESS, NOWHERE | 7);
            bench.command(GlobalCommand::SET_INTERRUPT_TABLE);
            interrupt(bench, handle(1), 0)
        }
        F::InterruptEntryReserved => interrupt(with_entry(0x1001, 0), handle(1), 0),
        F::CompatibilityFormatBlocked => interrupt(Bench::legacy(), 0xfee0_0000, 0x31),
        F::InterruptSourceInvalid => interrupt(with_entry(0x31_0001, 1 << 18 | 0x99), handle(1), 0),
        F::PostedDescriptorAccess => interrupt(with_entry(NOWHERE << 32 | RemappingEntry::POSTED | 1, 0), handle(1), 0),
        F::PostedDescriptorReserved => {
            let bench = with_entry(0x10_0000 << 32 | RemappingEntry::POSTED | 1, 0);
            bench.put(0x10_0020, &[4]);
            interrupt(bench, handle(1), 0)
        }
        F::InvalidInterruptRequest => read(Bench::legacy(), 0xfee0_0000),
        F::InvalidRootTableMode => {
            let mut bench = Bench::legacy();
            bench.write(register::ROOT_TABLE_ADDRESS, ROOT | root_table::SCALABLE << root_table::MODE_SHIFT);
            bench.command(GlobalCommand::SET_ROOT_TABLE);
            read(bench, 0)
        }
        F::PasidInLegacyMode => request(Bench::legacy(), with_pasid(1)),
        F::PageRequestInLegacyMode => {
            let mut bench = Bench::with_device_tlb(pasid::TYPE_FIRST_STAGE);
            bench.write(register::ROOT_TABLE_ADDRESS, ROOT);
            bench.command(GlobalCommand::SET_ROOT_TABLE);
            page_request(bench)
        }
        F::PageRequestNotEnabled => {
            let bench = Bench::with_device_tlb(pasid::TYPE_FIRST_STAGE);
            let flags = scalable_context::DEVICE_TLB | scalable_context::PASID_ENABLE | 1;
            bench.put(bench.context_at(SOURCE), &[DIRECTORY | flags]);
            page_request(bench)
        }
        F::ScalableRootEntryAccess => {
            let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
            bench.write(register::ROOT_TABLE_ADDRESS, NOWHERE | root_table::SCALABLE << root_table::MODE_SHIFT);
            bench.command(GlobalCommand::SET_ROOT_TABLE);
            read(bench, 0)
        }
        F::ScalableRootEntryNotPresent => read(root(Bench::scalable(pasid::TYPE_SECOND_STAGE), 0), 0),
        F::ScalableRootEntryReserved => read(root(Bench::scalable(pasid::TYPE_SECOND_STAGE), CONTEXTS | 3), 0),
        F::ScalableContextEntryAccess => read(root(Bench::scalable(pasid::TYPE_SECOND_STAGE), NOWHERE | 1), 0),
        F::ScalableContextEntryNotPresent => read(scalable_context([0, 0]), 0),
        F::ScalableContextEntryReserved => read(scalable_context([DIRECTORY | 0x21, 1]), 0),
        F::InvalidScalableContextEntry => {
            read(scalable_context([DIRECTORY | spec::vtd::tables::scalable_context::PAGE_REQUEST_ENABLE | 1, 1]), 0)
        }
        F::DeviceTlbNotEnabled => {
            let translation = Request { kind: RequestKind::Translation, ..Request::new(SOURCE, 0, Access::READ) };
            request(Bench::scalable(pasid::TYPE_SECOND_STAGE), translation)
        }
        F::PasidNotEnabled => request(scalable_context([DIRECTORY | 1, 1]), with_pasid(1)),
        F::PasidBeyondDirectory => request(Bench::scalable(pasid::TYPE_SECOND_STAGE), with_pasid(1 << 13)),
        F::RidPasidInvalid => read(scalable_context([DIRECTORY | 1, 1 << 13]), 0),
        F::PasidDirectoryAccess => read(scalable_context([NOWHERE | 1, 1]), 0),
        F::PasidDirectoryNotPresent => read(directory(0), 0),
        F::PasidDirectoryReserved => read(directory(PASIDS | 5), 0),
        F::PasidEntryAccess => read(directory(NOWHERE | 1), 0),
        F::PasidEntryNotPresent => read(pasid_entry(pasid::TYPE_SECOND_STAGE, 0, 0), 0),
        F::PasidEntryReserved => read(pasid_entry(pasid::TYPE_SECOND_STAGE, 7, 1), 0),
        F::InvalidPasidEntry => read(pasid_entry(pasid::TYPE_SECOND_STAGE, 0, 5 << pasid::TYPE_SHIFT | 1), 0),
        F::ExecuteRequestNotEnabled => request(first(PRESENT), Request { access: execute, ..with_pasid(1) }),
        F::SupervisorRequestNotEnabled => request(first(PRESENT), Request { privileged: true, ..with_pasid(1) }),
        F::FirstStageAccess => {
            let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
            let at = bench.entry_at(FIRST, 0, 4);
            bench.put(at, &[NOWHERE | PRESENT]);
            read(bench, 0)
        }
        F::FirstStageNotPresent => read(first(0), 0x5000),
        F::FirstStageReserved => read(first(1 << 50 | PRESENT), 0x5000),
        F::FirstStageRootAccess => read(pasid_entry(pasid::TYPE_FIRST_STAGE, 2, NOWHERE), 0),
        F::FirstStageTableBeyondWidth => {
            let bench = nested(READ_WRITE);
            bench.put(Bench::pasid_at(1) + 16, &[1 << 50]);
            read(bench, 0)
        }
        F::FirstStageRootNotReadable => read(nested(SecondStageEntry::WRITE), 0),
        F::FirstStageTableNotReadable => {
            let mut bench = nested(READ_WRITE);
            bench.map(0x4000_0000, SecondStageEntry::WRITE, 2);
            let at = bench.entry_at(FIRST, 0, 4);
            bench.put(at, &[0x4000_0000 | PRESENT]);
            read(bench, 0)
        }
        F::FirstStageTableNotWritable => {
            let mut bench = nested(SecondStageEntry::READ);
            bench.map_first(0x5000, PRESENT, 1);
            read(bench, 0x5000)
        }
        F::SecondStageAccess => {
            let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
            let at = bench.entry_at(SECOND, 0, 4);
            bench.put(at, &[NOWHERE | READ_WRITE]);
            read(bench, 0)
        }
        F::SecondStageNotPresent => read(scalable_second(0), 0x5000),
        F::SecondStageReserved => read(scalable_second(1 << 50 | READ_WRITE), 0x5000),
        F::SecondStageRootAccess => {
            let entry = NOWHERE | 2 << pasid::WIDTH_SHIFT | pasid::TYPE_SECOND_STAGE << pasid::TYPE_SHIFT | 1;
            read(pasid_entry(pasid::TYPE_SECOND_STAGE, 0, entry), 0)
        }
        F::SecondStageFlagsNoSnoop | F::FirstStageFlagsNoSnoop => Case::Never("all page walks are coherent"),
        F::SecondStageFlagsFailed => {
            let mut bench = scalable_second(READ_WRITE);
            let entry = Bench::pasid_at(1);
            bench.put(entry, &[bench.get(entry) | pasid::SECOND_STAGE_ACCESSED_DIRTY]);
            bench.refuse_writes();
            read(bench, 0x5000)
        }
        F::FirstStageFlagsFailed => {
            let mut bench = first(PRESENT);
            bench.refuse_writes();
            read(bench, 0x5000)
        }
        F::NotCanonical => read(first(PRESENT), 1 << 47),
        F::UserRequestToSupervisorPage => read(first(FirstStageEntry::PRESENT), 0x5000),
        F::ExecuteNotPermitted => {
            let bench = first(PRESENT | FirstStageEntry::NO_EXECUTE);
            let attributes = FIRST | pasid::EXECUTE_REQUESTS | pasid::NO_EXECUTE;
            bench.put(Bench::pasid_at(1) + 16, &[attributes]);
            request(bench, Request { access: execute, ..with_pasid(1) })
        }
        F::ScalableAddressBeyondHost => read(Bench::scalable(pasid::TYPE_PASS_THROUGH), 1 << 46),
        F::ScalableAddressBeyondWidth => read(Bench::scalable(pasid::TYPE_SECOND_STAGE), 1 << 48),
        F::ScalableWriteNotPermitted => write(scalable_second(SecondStageEntry::READ), 0x5000),
        F::ScalableReadNotPermitted => read(scalable_second(SecondStageEntry::WRITE), 0x5000),
        F::ScalableToInterruptRange => write(scalable_second(0xfee0_0000 | READ_WRITE), 0x5000),
    }
}

#[test]
fn each_reason_is_made_and_recorded() {
    let mut never = Vec::new();
    for reason in FaultReason::ALL {
        let (result, mut bench) = match case(*reason) {
            Case::Blocked(result, bench) => (Some(result), bench),
            Case::Interrupt(bench) => (None, bench),
            Case::Never(why) => {
                assert!(!why.is_empty());
                never.push(*reason);
                continue;
            }
        };
        if let Some(result) = result {
            assert_eq!(result, Err(Some(*reason)));
        }
        let faults = bench.take_faults();
        assert_eq!(faults.len(), 1, "{reason}");
        assert_eq!((faults[0].0, faults[0].1), (*reason, SOURCE));
    }
    assert_eq!(never.len(), 2, "{never:?}");
}

#[test]
fn entries_that_disable_fault_processing_keep_qualified_faults_from_being_recorded() {
    let disabled = 2;
    let cases = [
        legacy_context(disabled, 0),
        legacy_context(SECOND | disabled | 1, 2),
        legacy_context(SECOND | disabled | 1, 7),
        scalable_context([disabled, 0]),
        directory(disabled),
        directory(PASIDS | disabled | 1),
        pasid_entry(pasid::TYPE_SECOND_STAGE, 0, disabled),
    ];
    for (index, mut bench) in cases.into_iter().enumerate() {
        assert!(bench.translate(0x5000, Access::READ).is_err(), "{index}");
        assert_eq!(bench.take_faults(), [], "{index}");
        assert_eq!(bench.events.take(), [], "{index}");
    }
    let mut bench = with_entry(disabled, 0);
    bench.unit.interrupt(Source::Verified(SOURCE), handle(1), 0);
    assert_eq!(bench.take_faults(), []);
    // The root entry's own faults are not qualified.
    let mut bench = root(Bench::legacy(), disabled);
    assert!(bench.translate(0, Access::READ).is_err());
    assert_eq!(bench.take_faults().len(), 1);
}

#[test]
fn a_report_names_the_entries_on_the_way() {
    let mut bench = Bench::legacy();
    bench.unit.set_reporting(true);
    let at = bench.map(0x5000, SecondStageEntry::READ, 1);
    assert!(bench.translate(0x5000, Access::WRITE).is_err());
    let reports = bench.unit.take_reports();
    let report = &reports[0];
    assert_eq!((report.reason, report.address, report.write), (F::WriteNotPermitted, 0x5000, true));
    let names: Vec<&str> = report.steps.iter().map(|step| step.what).collect();
    assert_eq!(names[..2], ["root entry", "context entry"]);
    let last = report.steps.last().unwrap();
    assert_eq!((last.what, last.at, last.value[0]), ("second-stage PTE", Some(at), SecondStageEntry::READ));
}
