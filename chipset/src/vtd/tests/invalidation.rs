//! Each descriptor and register: what it makes the caches forget, and what it leaves. A translation that is kept shows as stale.

use super::*;
use crate::vtd::Source;
use crate::vtd::caches::Caches;
use spec::vtd::interrupts::RemappingEntry;
use spec::vtd::invalidation::{
    DOMAIN_SHIFT, DescriptorType as D, FUNCTION_MASK_SHIFT, LEAF_ONLY, QueueError, SOURCE_SHIFT, interrupt_entry, wait,
};
use spec::vtd::registers::{FaultStatus, context_command, iotlb, queue};

const OLD: u64 = 0x30_0000;
const NEW: u64 = 0x31_0000;

fn did(domain: u16) -> u64 {
    u64::from(domain) << DOMAIN_SHIFT
}

/// A bench that has translated 0x5000 to [`OLD`], with a table that now says [`NEW`].
fn stale() -> Bench {
    let mut bench = Bench::legacy();
    let at = bench.map(0x5000, OLD | READ_WRITE, 1);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
    bench.put(at, &[NEW | READ_WRITE]);
    bench
}

/// The same for the first stage, PASID 1.
fn stale_first() -> Bench {
    let mut bench = Bench::scalable(pasid::TYPE_FIRST_STAGE);
    let at = bench.map_first(0x5000, OLD | PRESENT, 1);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
    bench.put(at, &[NEW | PRESENT]);
    bench
}

fn kept(bench: &mut Bench) -> bool {
    match bench.translate(0x5000, Access::READ) {
        Ok(OLD) => true,
        Ok(NEW) => false,
        other => panic!("{other:?}"),
    }
}

/// Whether the IOTLB keeps its translation through a descriptor.
fn iotlb_keeps(first: u64, second: u64) -> bool {
    let mut bench = stale();
    bench.submit(D::Iotlb as u64 | first, second);
    kept(&mut bench)
}

#[test]
fn the_iotlb_is_stale_until_it_is_invalidated() {
    assert!(kept(&mut stale()), "nothing was invalidated");
    assert!(!iotlb_keeps(1 << 4, 0), "global");
    assert!(!iotlb_keeps(2 << 4 | did(DOMAIN), 0), "domain");
    assert!(iotlb_keeps(2 << 4 | did(DOMAIN + 1), 0), "another domain");
    assert!(!iotlb_keeps(3 << 4 | did(DOMAIN), 0x5000), "page");
    assert!(!iotlb_keeps(3 << 4 | did(DOMAIN), 0x5000 | LEAF_ONLY), "page, leaf only");
    assert!(iotlb_keeps(3 << 4 | did(DOMAIN), 0x6000), "another page");
    assert!(!iotlb_keeps(3 << 4 | did(DOMAIN), 0x4001), "a range of two pages");
    assert!(iotlb_keeps(3 << 4 | did(DOMAIN + 1), 0x5000), "the page of another domain");
}

#[test]
fn a_large_page_is_forgotten_when_any_part_of_it_is_named() {
    let mut bench = Bench::legacy();
    let at = bench.map(0x40_0000, 0x20_0000 | READ_WRITE, 2);
    bench.translate(0x40_0000, Access::READ).unwrap();
    bench.put(at, &[0]);
    bench.submit(D::Iotlb as u64 | 3 << 4 | did(DOMAIN), 0x5f_f000);
    assert!(bench.translate(0x40_0000, Access::READ).is_err());
}

#[test]
fn paging_structures_are_stale_until_more_than_leaves_are_invalidated() {
    for (second, is_kept) in [(0x5000 | LEAF_ONLY, true), (0x5000, false)] {
        let mut bench = Bench::legacy();
        bench.map(0x5000, OLD | READ_WRITE, 1);
        assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
        // Another table of the last level.
        let upper = bench.entry_at(SECOND, 0x5000, 2);
        let table = bench.next_table;
        bench.put(upper, &[table | READ_WRITE]);
        bench.put(table + 5 * 8, &[NEW | READ_WRITE]);
        bench.submit(D::Iotlb as u64 | 3 << 4 | did(DOMAIN), second);
        assert_eq!(kept(&mut bench), is_kept);
    }
}

/// A bench whose context entry now leads to a table in which 0x5000 is [`NEW`].
fn stale_context() -> Bench {
    let mut bench = Bench::legacy();
    bench.map(0x5000, OLD | READ_WRITE, 1);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
    let (top, old_top) = (bench.next_table, SECOND);
    bench.next_table += 0x1000;
    for index in 0..512 {
        bench.put(top + 8 * index, &[bench.get(old_top + 8 * index)]);
    }
    let mut table = top;
    for level in (2..=4u32).rev() {
        let at = table + (0x5000 >> (12 + 9 * (level - 1)) & 0x1ff) * 8;
        bench.put(at, &[bench.next_table | READ_WRITE]);
        table = bench.next_table;
        bench.next_table += 0x1000;
    }
    bench.put(table + 5 * 8, &[NEW | READ_WRITE]);
    bench.put_context(top | 1, u64::from(DOMAIN) << context::DOMAIN_SHIFT | 2);
    bench
}

#[test]
fn the_context_cache_is_stale_until_it_is_invalidated() {
    let source = u64::from(SOURCE) << SOURCE_SHIFT;
    for (what, descriptor, is_kept) in [
        ("nothing", None, true),
        ("global", Some(1 << 4), false),
        ("domain", Some(2 << 4 | did(DOMAIN)), false),
        ("another domain", Some(2 << 4 | did(DOMAIN + 1)), true),
        ("device", Some(3 << 4 | did(DOMAIN) | source), false),
        ("another device", Some(3 << 4 | did(DOMAIN) | source | 1 << SOURCE_SHIFT), true),
        (
            "its functions 0 to 7",
            Some(3 << 4 | did(DOMAIN) | source | 1 << SOURCE_SHIFT | 3 << FUNCTION_MASK_SHIFT),
            false,
        ),
    ] {
        let mut bench = stale_context();
        if let Some(descriptor) = descriptor {
            bench.submit(D::ContextCache as u64 | descriptor, 0);
        }
        bench.submit(D::Iotlb as u64 | 1 << 4, 0);
        assert_eq!(kept(&mut bench), is_kept, "{what}");
    }
}

#[test]
fn registers_invalidate_while_the_queue_is_off_and_say_what_they_did() {
    let mut bench = stale();
    let status = bench.read32(register::GLOBAL_STATUS);
    bench.write32(register::GLOBAL_COMMAND, status & !GlobalCommand::QUEUED_INVALIDATION & !(1 << 30 | 1 << 24));
    let command = crate::vtd::registers::IOTLB + iotlb::COMMAND;
    let domain = u64::from(DOMAIN) << iotlb::DOMAIN_SHIFT;
    bench.write(command, iotlb::INVALIDATE | 2 << iotlb::GRANULARITY_SHIFT | domain);
    let result = bench.read(command);
    assert_eq!((result & iotlb::INVALIDATE, result >> iotlb::PERFORMED_SHIFT & 3), (0, 2));
    assert!(!kept(&mut bench));
    let mut bench = stale_context();
    let status = bench.read32(register::GLOBAL_STATUS);
    bench.write32(register::GLOBAL_COMMAND, status & !GlobalCommand::QUEUED_INVALIDATION & !(1 << 30 | 1 << 24));
    let source = u64::from(SOURCE) << context_command::SOURCE_SHIFT | u64::from(DOMAIN);
    bench.write(
        register::CONTEXT_COMMAND,
        context_command::INVALIDATE | 3 << context_command::GRANULARITY_SHIFT | source,
    );
    let result = bench.read(register::CONTEXT_COMMAND);
    assert_eq!((result & context_command::INVALIDATE, result >> context_command::PERFORMED_SHIFT & 3), (0, 3));
    bench.write(crate::vtd::registers::IOTLB, 0x5000);
    bench.write(command, iotlb::INVALIDATE | 3 << iotlb::GRANULARITY_SHIFT | domain);
    assert!(!kept(&mut bench));
}

#[test]
fn registers_do_nothing_while_the_queue_is_on() {
    let mut bench = stale();
    let command = crate::vtd::registers::IOTLB + iotlb::COMMAND;
    bench.write(command, iotlb::INVALIDATE | 1 << iotlb::GRANULARITY_SHIFT);
    let result = bench.read(command);
    assert_eq!((result & iotlb::INVALIDATE, result >> iotlb::PERFORMED_SHIFT & 3), (0, 0));
    assert!(kept(&mut bench));
}

#[test]
fn the_interrupt_entry_cache_is_stale_until_it_is_invalidated() {
    let selective = |index: u64, mask: u64| {
        interrupt_entry::SELECTIVE | index << interrupt_entry::INDEX_SHIFT | mask << interrupt_entry::MASK_SHIFT
    };
    for (descriptor, is_kept) in [
        (None, true),
        (Some(0), false),
        (Some(selective(5, 0)), false),
        (Some(selective(6, 0)), true),
        (Some(selective(6, 2)), false),
    ] {
        let mut bench = Bench::legacy();
        let entry = |vector: u64| vector << RemappingEntry::VECTOR_SHIFT | RemappingEntry::PRESENT;
        bench.put(INTERRUPTS + 5 * 16, &[entry(0x31), 0]);
        let vector = |bench: &mut Bench| match bench.unit.interrupt(Source::Verified(SOURCE), 0xfee0_0010 | 5 << 5, 0) {
            crate::vtd::Interrupt::Remapped(interrupt) => interrupt.vector,
            other => panic!("{other:?}"),
        };
        assert_eq!(vector(&mut bench), 0x31);
        bench.put(INTERRUPTS + 5 * 16, &[entry(0x32), 0]);
        if let Some(descriptor) = descriptor {
            bench.submit(D::InterruptEntryCache as u64 | descriptor, 0);
        }
        assert_eq!(vector(&mut bench) == 0x31, is_kept, "{descriptor:?}");
    }
}

#[test]
fn first_stage_translations_are_stale_until_their_pasid_is_invalidated() {
    let pasid = |number: u64| number << 32 | did(DOMAIN);
    for (what, first, second, is_kept) in [
        ("PASID", 2 << 4 | pasid(1), 0, false),
        ("another PASID", 2 << 4 | pasid(2), 0, true),
        ("another domain", 2 << 4 | 1 << 32 | did(DOMAIN + 1), 0, true),
        ("page", 3 << 4 | pasid(1), 0x5000, false),
        ("another page", 3 << 4 | pasid(1), 0x6000, true),
    ] {
        let mut bench = stale_first();
        bench.submit(D::PasidIotlb as u64 | first, second);
        assert_eq!(kept(&mut bench), is_kept, "{what}");
    }
}

#[test]
fn the_pasid_cache_is_stale_until_it_is_invalidated() {
    for (what, descriptor, is_kept) in [
        ("nothing", None, true),
        ("all PASIDs of the domain", Some(did(DOMAIN)), false),
        ("all PASIDs of another domain", Some(did(DOMAIN + 1)), true),
        ("the PASID", Some(1 << 4 | 1 << 32 | did(DOMAIN)), false),
        ("another PASID", Some(1 << 4 | 2 << 32 | did(DOMAIN)), true),
        ("global", Some(3 << 4), false),
    ] {
        let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
        bench.map(0x5000, OLD | READ_WRITE, 1);
        assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
        bench.put(Bench::pasid_at(1), &[pasid::TYPE_PASS_THROUGH << pasid::TYPE_SHIFT | 1]);
        if let Some(descriptor) = descriptor {
            bench.submit(D::PasidCache as u64 | descriptor, 0);
        }
        bench.submit(D::Iotlb as u64 | 1 << 4, 0);
        assert_eq!(bench.translate(0x5000, Access::READ) == Ok(OLD), is_kept, "{what}");
    }
}

/// Makes a cache stale and gives a bench that knows it, what forgets it, and whether what is kept still shows.
type Case = (Bench, (u64, u64), fn(&mut Bench) -> bool);

/// The case of a cache, by its name in [`Caches`].
fn stale_case(cache: &str) -> Case {
    match cache {
        "contexts" => {
            let mut bench = stale_context();
            bench.submit(D::Iotlb as u64 | 1 << 4, 0);
            (bench, (D::ContextCache as u64 | 1 << 4, 0), |bench| {
                bench.submit(D::Iotlb as u64 | 1 << 4, 0);
                kept(bench)
            })
        }
        "pasids" => {
            let mut bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
            bench.map(0x5000, OLD | READ_WRITE, 1);
            assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
            bench.put(Bench::pasid_at(1), &[pasid::TYPE_PASS_THROUGH << pasid::TYPE_SHIFT | 1]);
            (bench, (D::PasidCache as u64 | 3 << 4, 0), |bench| bench.translate(0x5000, Access::READ) == Ok(OLD))
        }
        "iotlb" => (stale(), (D::Iotlb as u64 | 1 << 4, 0), kept),
        "structures" => {
            let mut bench = stale_first();
            // The leaf is of another page of the same table, which no translation is kept of.
            let upper = bench.entry_at(FIRST, 0x5000, 2);
            let table = bench.next_table;
            bench.put(upper, &[table | PRESENT]);
            bench.put(table + 6 * 8, &[NEW | PRESENT]);
            (bench, (D::PasidIotlb as u64 | 2 << 4 | 1 << 32 | did(DOMAIN), 0), |bench| {
                bench.translate(0x6000, Access::READ) != Ok(NEW)
            })
        }
        "interrupts" => {
            let mut bench = Bench::legacy();
            bench.put(INTERRUPTS + 5 * 16, &[RemappingEntry::PRESENT, 0]);
            let blocked = |bench: &mut Bench| {
                let interrupt = bench.unit.interrupt(Source::Verified(SOURCE), 0xfee0_0010 | 5 << 5, 0);
                matches!(interrupt, crate::vtd::Interrupt::Blocked(_))
            };
            assert!(!blocked(&mut bench));
            bench.put(INTERRUPTS + 5 * 16, &[0, 0]);
            (bench, (D::InterruptEntryCache as u64, 0), |bench| {
                let interrupt = bench.unit.interrupt(Source::Verified(SOURCE), 0xfee0_0010 | 5 << 5, 0);
                !matches!(interrupt, crate::vtd::Interrupt::Blocked(_))
            })
        }
        other => panic!("no case makes {other} stale"),
    }
}

#[test]
fn each_cache_is_stale_until_it_is_invalidated() {
    // A cache that is added does not compile here until it has a case.
    let Caches { contexts: _, pasids: _, iotlb: _, structures: _, interrupts: _ } = Caches::new();
    for cache in ["contexts", "pasids", "iotlb", "structures", "interrupts"] {
        let (mut bench, _, is_stale) = stale_case(cache);
        assert!(is_stale(&mut bench), "{cache} keeps nothing");
        let (mut bench, (first, second), is_stale) = stale_case(cache);
        bench.submit(first, second);
        assert!(!is_stale(&mut bench), "{cache} is not invalidated");
    }
}

#[test]
fn nested_translations_are_stale_until_either_stage_is_invalidated() {
    let pasid = |number: u64| number << 32 | did(DOMAIN);
    for (what, first, second, is_kept) in [
        ("nothing", D::Wait as u64, 0, true),
        ("the first stage", D::PasidIotlb as u64 | 2 << 4 | pasid(1), 0, false),
        ("another PASID", D::PasidIotlb as u64 | 2 << 4 | pasid(2), 0, true),
        ("any page of the second stage", D::Iotlb as u64 | 3 << 4 | did(DOMAIN), 0x40_0000, false),
        ("another domain", D::Iotlb as u64 | 2 << 4 | did(DOMAIN + 1), 0, true),
    ] {
        let mut bench = Bench::scalable(pasid::TYPE_NESTED);
        bench.map(0, READ_WRITE, 2);
        bench.map(0x20_0000, 0x20_0000 | READ_WRITE, 2);
        let at = bench.map_first(0x5000, OLD | PRESENT, 1);
        assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
        bench.put(at, &[NEW | PRESENT]);
        bench.submit(first, second);
        assert_eq!(kept(&mut bench), is_kept, "{what}");
    }
}

#[test]
fn what_is_not_present_is_kept_in_caching_mode_only() {
    for caching_mode in [false, true] {
        let mut bench = Bench::legacy_with(UnitConfig { caching_mode, ..UnitConfig::default() });
        bench.map(0x5000, OLD | READ_WRITE, 1);
        bench.put_context(0, 0);
        assert_eq!(bench.translate(0x5000, Access::READ), Err(Some(FaultReason::ContextEntryNotPresent)));
        bench.put_context(SECOND | 1, u64::from(DOMAIN) << context::DOMAIN_SHIFT | 2);
        assert_eq!(bench.translate(0x5000, Access::READ).is_err(), caching_mode);
        // What is not present is of domain 0.
        bench.submit(D::ContextCache as u64 | 2 << 4, 0);
        assert_eq!(bench.translate(0x5000, Access::READ), Ok(OLD));
    }
}

#[test]
fn a_wait_descriptor_writes_its_status_and_interrupts_once_until_cleared() {
    let mut bench = Bench::legacy();
    bench.write32(register::INVALIDATION_EVENT_CONTROL + 4, 0x41);
    bench.write32(register::INVALIDATION_EVENT_CONTROL + 8, 0xfee0_1000);
    bench.write32(register::INVALIDATION_EVENT_CONTROL, 0);
    let both = D::Wait as u64 | wait::STATUS_WRITE | wait::INTERRUPT | 0x1234_5678 << wait::DATA_SHIFT;
    bench.submit(both, 0x9000);
    assert_eq!(bench.get(0x9000), 0x1234_5678);
    assert_eq!(bench.events.take(), [(0xfee0_1000, 0x41)]);
    assert_eq!(bench.read32(register::COMPLETION_STATUS), queue::COMPLETE);
    bench.submit(both, 0x9000);
    assert_eq!(bench.events.take(), []);
    bench.write32(register::COMPLETION_STATUS, queue::COMPLETE);
    bench.submit(both, 0x9000);
    assert_eq!(bench.events.take().len(), 1);
    assert_eq!(bench.read(register::QUEUE_HEAD), bench.read(register::QUEUE_TAIL));
}

/// A descriptor of a type, as right as can be.
fn valid(kind: D) -> (u64, u64) {
    match kind {
        D::ContextCache | D::Iotlb => (kind as u64 | 1 << 4, 0),
        D::PasidIotlb => (kind as u64 | 2 << 4, 0),
        _ => (kind as u64, 0),
    }
}

#[test]
fn each_type_is_carried_out_or_stops_the_queue_as_announced() {
    let all = UnitConfig { scalable_mode: true, device_tlb: true, page_requests: true, ..UnitConfig::default() };
    for unit in ["legacy", "scalable", "device TLB", "device TLB, in legacy mode"] {
        for kind in D::ALL.iter().copied() {
            let mut bench = match unit {
                "legacy" => Bench::legacy(),
                "scalable" => Bench::scalable(pasid::TYPE_SECOND_STAGE),
                "device TLB" => Bench::with_device_tlb(pasid::TYPE_SECOND_STAGE),
                _ => Bench::legacy_with(all),
            };
            let (first, second) = valid(kind);
            bench.submit(first, second);
            let stopped = bench.read32(register::FAULT_STATUS) & FaultStatus::QUEUE_ERROR != 0;
            let expected = match kind {
                D::ContextCache | D::Iotlb | D::InterruptEntryCache | D::Wait => false,
                D::PasidIotlb | D::PasidCache => unit.contains("legacy"),
                D::DeviceTlb => !unit.contains("TLB"),
                D::PasidDeviceTlb | D::PageGroupResponse => unit != "device TLB",
            };
            assert_eq!(stopped, expected, "{unit}: {kind:?}");
        }
    }
}

#[test]
fn reserved_bits_stop_the_queue_in_every_type() {
    for kind in D::ALL.iter().copied() {
        let mut bench = Bench::with_device_tlb(pasid::TYPE_SECOND_STAGE);
        let (first, second) = valid(kind);
        let (low, high) = kind.reserved();
        bench.submit(first | low & low.wrapping_neg(), second | high & high.wrapping_neg());
        assert_eq!(bench.read(register::QUEUE_ERROR) & 0xf, QueueError::ReservedField as u64, "{kind:?}");
    }
}

/// What makes each error of the queue.
fn stop(error: QueueError) -> Bench {
    let mut bench = Bench::legacy();
    match error {
        QueueError::InvalidTail => bench.write(register::QUEUE_TAIL, 0x1000),
        QueueError::Fetch => {
            bench.write(register::QUEUE_ADDRESS, NOWHERE);
            bench.write(register::QUEUE_TAIL, 0x10);
        }
        QueueError::InvalidType => bench.submit(0xf, 0),
        QueueError::ReservedField => bench.submit(D::Iotlb as u64, 0),
        QueueError::InvalidWidth => {
            bench.write(register::QUEUE_ADDRESS, QUEUE | queue::WIDE);
            bench.write(register::QUEUE_TAIL, 0x20);
        }
        QueueError::TailAlignment => {
            bench = Bench::scalable(pasid::TYPE_SECOND_STAGE);
            bench.write(register::QUEUE_TAIL, 0x10);
        }
        QueueError::InvalidMode => {
            bench = Bench::new(UnitConfig { scalable_mode: true, ..UnitConfig::default() });
            bench.start(root_table::LEGACY);
            bench.submit(D::PasidCache as u64, 0);
        }
    }
    bench
}

#[test]
fn each_error_stops_the_queue_with_its_code_and_an_event() {
    for error in QueueError::ALL.iter().copied() {
        let mut bench = stop(error);
        assert_ne!(bench.read32(register::FAULT_STATUS) & FaultStatus::QUEUE_ERROR, 0, "{error:?}");
        assert_eq!(bench.read(register::QUEUE_ERROR) & 0xf, error as u64);
        assert_eq!(bench.events.take().len(), 1, "{error:?}");
        assert_eq!(bench.read(register::QUEUE_HEAD), 0);
    }
}

#[test]
fn a_stopped_queue_goes_on_when_the_error_is_cleared() {
    let mut bench = stale();
    bench.submit(0xf, 0);
    bench.put(QUEUE, &[D::Iotlb as u64 | 1 << 4, 0]);
    bench.write(register::QUEUE_TAIL, 0x10);
    assert!(kept(&mut bench), "still stopped");
    bench.write32(register::FAULT_STATUS, FaultStatus::QUEUE_ERROR);
    assert!(!kept(&mut bench));
    assert_eq!(bench.read(register::QUEUE_HEAD), 0x10);
}

#[test]
fn the_queue_wraps_at_its_end() {
    let mut bench = stale();
    for _ in 0..255 {
        bench.submit(D::Wait as u64, 0);
    }
    assert!(kept(&mut bench));
    bench.submit(D::Iotlb as u64 | 1 << 4, 0);
    assert_eq!(bench.read(register::QUEUE_HEAD), 0);
    assert!(!kept(&mut bench));
}
