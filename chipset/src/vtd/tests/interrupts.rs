use super::*;
use crate::vtd::{Interrupt, RemappedInterrupt, Source};
use spec::apic::local_apic::DeliveryMode;
use spec::vmx::posted_interrupts as descriptor;
use spec::vtd::interrupts::RemappingEntry;

const HANDLE: u64 = 0xfee0_0010;
/// A posted-interrupt descriptor.
const POSTED: u64 = 0x10_0000;

fn send(bench: &mut Bench, address: u64, data: u32) -> Interrupt {
    bench.unit.interrupt(Source::Verified(SOURCE), address, data)
}

fn remapped(interrupt: Interrupt) -> RemappedInterrupt {
    match interrupt {
        Interrupt::Remapped(interrupt) => interrupt,
        other => panic!("{other:?}"),
    }
}

fn entry(vector: u64, destination: u64) -> u64 {
    destination << 32 | vector << RemappingEntry::VECTOR_SHIFT | RemappingEntry::PRESENT
}

#[test]
fn messages_pass_unchanged_while_remapping_is_off() {
    let mut bench = Bench::new(UnitConfig::default());
    assert_eq!(send(&mut bench, 0xfee0_1000, 0x31), Interrupt::Unchanged);
}

#[test]
fn compatibility_format_passes_only_where_it_is_enabled_and_not_in_extended_mode() {
    let mut bench = Bench::legacy();
    bench.command(GlobalCommand::COMPATIBILITY_FORMAT);
    assert_eq!(send(&mut bench, 0xfee0_1000, 0x31), Interrupt::Blocked(FaultReason::CompatibilityFormatBlocked));
    bench.write(register::INTERRUPT_TABLE_ADDRESS, INTERRUPTS | 7);
    bench.command(GlobalCommand::SET_INTERRUPT_TABLE | GlobalCommand::COMPATIBILITY_FORMAT);
    assert_eq!(send(&mut bench, 0xfee0_1000, 0x31), Interrupt::Unchanged);
}

#[test]
fn all_fields_of_an_entry_reach_the_message() {
    let mut bench = Bench::legacy();
    let flags = RemappingEntry::LOGICAL | RemappingEntry::LEVEL | RemappingEntry::REDIRECTION_HINT;
    bench.put(INTERRUPTS + 3 * 16, &[entry(0x42, 0x1_0002) | flags | 1 << RemappingEntry::DELIVERY_SHIFT, 0]);
    let expected = RemappedInterrupt {
        destination: 0x1_0002,
        extended: true,
        logical: true,
        redirection_hint: true,
        delivery: DeliveryMode::LowestPriority,
        vector: 0x42,
        level: true,
    };
    assert_eq!(send(&mut bench, HANDLE | 3 << 5, 0), Interrupt::Remapped(expected));
}

#[test]
fn without_extended_mode_the_destination_is_in_bits_15_to_8() {
    let config = UnitConfig { extended_interrupt_mode: false, ..UnitConfig::default() };
    let mut bench = Bench::legacy_with(config);
    bench.put(INTERRUPTS, &[entry(0x42, 0x300), 0, entry(0x42, 3), 0]);
    let interrupt = remapped(send(&mut bench, HANDLE, 0));
    assert_eq!((interrupt.destination, interrupt.extended), (3, false));
    assert_eq!(send(&mut bench, HANDLE | 1 << 5, 0), Interrupt::Blocked(FaultReason::InterruptEntryReserved));
}

#[test]
fn the_subhandle_counts_only_where_it_is_valid() {
    let mut bench = Bench::legacy();
    bench.put(INTERRUPTS + 4 * 16, &[entry(0x44, 0), 0, entry(0x45, 0), 0]);
    assert_eq!(remapped(send(&mut bench, HANDLE | 4 << 5, 0xffff_0001)).vector, 0x44);
    assert_eq!(remapped(send(&mut bench, HANDLE | 4 << 5 | 8, 1)).vector, 0x45);
}

#[test]
fn bit_2_of_the_address_is_bit_15_of_the_handle() {
    let mut bench = Bench::legacy();
    bench.write(register::INTERRUPT_TABLE_ADDRESS, 0x20_0000 | 15);
    bench.command(GlobalCommand::SET_INTERRUPT_TABLE);
    bench.put(0x20_0000 + 0x8001 * 16, &[entry(0x46, 0), 0]);
    assert_eq!(remapped(send(&mut bench, HANDLE | 1 << 5 | 4, 0)).vector, 0x46);
}

#[test]
fn the_source_is_verified_as_the_entry_says() {
    // Validation type, qualifier and source id; which sources pass.
    for (high, passing, failing) in [
        (0, vec![0x0018, 0xff00], vec![]),
        (1 << 18 | 0x18, vec![0x0018], vec![0x0019, 0x0118]),
        (1 << 18 | 1 << 16 | 0x18, vec![0x0018, 0x001c], vec![0x0019]),
        (1 << 18 | 2 << 16 | 0x18, vec![0x0018, 0x001a, 0x001c, 0x001e], vec![0x0019]),
        (1 << 18 | 3 << 16 | 0x18, vec![0x0018, 0x0019, 0x001f], vec![0x0020]),
        (2 << 18 | 0x0204, vec![0x0200, 0x04ff], vec![0x0100, 0x0500]),
    ] {
        let mut bench = Bench::legacy();
        bench.put(INTERRUPTS, &[entry(0x42, 0), high]);
        for source in passing {
            let interrupt = bench.unit.interrupt(Source::Verified(source), HANDLE, 0);
            assert!(matches!(interrupt, Interrupt::Remapped(_)), "{high:#x} {source:#x}");
        }
        for source in failing {
            let interrupt = bench.unit.interrupt(Source::Verified(source), HANDLE, 0);
            assert_eq!(interrupt, Interrupt::Blocked(FaultReason::InterruptSourceInvalid), "{high:#x} {source:#x}");
            let interrupt = bench.unit.interrupt(Source::Unverified(source), HANDLE, 0);
            assert!(matches!(interrupt, Interrupt::Remapped(_)));
        }
    }
}

#[test]
fn a_blocked_interrupt_is_recorded_with_its_index() {
    let mut bench = Bench::legacy();
    send(&mut bench, HANDLE | 9 << 5, 0);
    assert_eq!(bench.take_faults(), [(FaultReason::InterruptEntryNotPresent, SOURCE, 9 << 48)]);
}

/// A bench whose entry 0 posts `vector` to a descriptor with this control quadword.
fn posting(vector: u64, urgent: bool, control: u64) -> Bench {
    let bench = Bench::legacy();
    let urgent = if urgent { RemappingEntry::URGENT } else { 0 };
    bench.put(INTERRUPTS, &[entry(vector, POSTED) | RemappingEntry::POSTED | urgent, 0]);
    bench.put(POSTED + descriptor::CONTROL, &[control]);
    bench
}

/// Notification vector 0xf2 for the processor with id 5.
const CONTROL: u64 = 5 << descriptor::DESTINATION_SHIFT | 0xf2 << descriptor::NOTIFICATION_VECTOR_SHIFT;

#[test]
fn a_posted_interrupt_sets_its_request_and_notifies_once() {
    let mut bench = posting(0x61, false, CONTROL);
    let notification = remapped(send(&mut bench, HANDLE, 0));
    assert_eq!((notification.vector, notification.destination, notification.logical), (0xf2, 5, false));
    assert_eq!(bench.get(POSTED + 8), 1 << 0x21);
    assert_eq!(bench.get(POSTED + descriptor::CONTROL), CONTROL | descriptor::OUTSTANDING);
    assert_eq!(send(&mut bench, HANDLE, 0), Interrupt::Noted);
}

#[test]
fn suppressed_notifications_are_made_for_urgent_interrupts_only() {
    let suppressed = CONTROL | descriptor::SUPPRESS;
    let mut bench = posting(0x61, false, suppressed);
    assert_eq!(send(&mut bench, HANDLE, 0), Interrupt::Noted);
    assert_eq!((bench.get(POSTED + 8), bench.get(POSTED + descriptor::CONTROL)), (1 << 0x21, suppressed));
    let mut bench = posting(0x61, true, suppressed);
    assert_eq!(remapped(send(&mut bench, HANDLE, 0)).vector, 0xf2);
}

#[test]
fn posting_is_reserved_where_it_is_not_announced() {
    let config = UnitConfig { posted_interrupts: false, ..UnitConfig::default() };
    let mut bench = Bench::legacy_with(config);
    bench.put(INTERRUPTS, &[entry(0x61, POSTED) | RemappingEntry::POSTED, 0]);
    assert_eq!(send(&mut bench, HANDLE, 0), Interrupt::Blocked(FaultReason::InterruptEntryReserved));
}
