use super::*;
use crate::vtd::registers::{FAULT_RECORD_COUNT, FAULT_RECORDS, IOTLB};
use spec::vtd::capability::{Capability, ExtendedCapability};
use spec::vtd::registers::FaultStatus;

#[test]
fn capabilities_tell_where_the_registers_lie_and_what_there_is() {
    let mut bench = Bench::new(UnitConfig::default());
    let cap = bench.read(register::CAPABILITY);
    assert_eq!((cap >> Capability::FAULT_RECORDS_SHIFT & 0x3ff) * 16, FAULT_RECORDS);
    assert_eq!((cap >> Capability::FAULT_RECORD_COUNT_SHIFT & 0xff) as usize + 1, FAULT_RECORD_COUNT);
    assert_eq!(cap >> Capability::WIDTHS_SHIFT & 0x1f, 0b110);
    assert_eq!(cap >> Capability::MAXIMUM_WIDTH_SHIFT & 0x3f, 47);
    assert!(Capability(cap).has(Capability::POSTED_INTERRUPTS));
    let ecap = bench.read(register::EXTENDED_CAPABILITY);
    assert_eq!((ecap >> ExtendedCapability::IOTLB_REGISTERS_SHIFT & 0x3ff) * 16, IOTLB);
    assert!(ExtendedCapability(ecap).has(ExtendedCapability::EXTENDED_INTERRUPT_MODE));
    assert!(!ExtendedCapability(ecap).has(ExtendedCapability::SCALABLE_MODE));
}

#[test]
fn what_is_not_configured_is_not_announced() {
    let config = UnitConfig { interrupt_remapping: false, address_width: 39, ..UnitConfig::default() };
    let mut bench = Bench::new(config);
    assert_eq!(bench.read(register::CAPABILITY) >> Capability::WIDTHS_SHIFT & 0x1f, 0b10);
    assert_eq!(bench.read(register::CAPABILITY) & Capability::POSTED_INTERRUPTS, 0);
    assert_eq!(bench.read(register::EXTENDED_CAPABILITY) & ExtendedCapability::INTERRUPT_REMAPPING, 0);
    bench.write32(register::GLOBAL_COMMAND, GlobalCommand::INTERRUPT_REMAPPING | GlobalCommand::SET_INTERRUPT_TABLE);
    assert_eq!(bench.read32(register::GLOBAL_STATUS), 0);
}

#[test]
fn the_root_table_is_in_force_only_once_it_is_set() {
    let mut bench = Bench::legacy();
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    bench.write(register::ROOT_TABLE_ADDRESS, NOWHERE);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x30_0000));
    bench.command(GlobalCommand::SET_ROOT_TABLE);
    let request = Request::new(SOURCE + 1, 0x5000, Access::READ);
    assert_eq!(bench.request(&request), Err(Some(FaultReason::RootEntryAccess)));
}

#[test]
fn quadwords_can_be_written_in_halves() {
    let mut bench = Bench::new(UnitConfig::default());
    bench.write32(register::ROOT_TABLE_ADDRESS + 4, 1);
    bench.write32(register::ROOT_TABLE_ADDRESS, 0x5000);
    assert_eq!(bench.read(register::ROOT_TABLE_ADDRESS), 0x1_0000_5000);
    assert_eq!(bench.read32(register::ROOT_TABLE_ADDRESS + 4), 1);
}

#[test]
fn the_first_fault_makes_an_event_and_the_next_ones_wait_until_all_is_cleared() {
    let mut bench = Bench::legacy();
    let _ = bench.translate(0x5000, Access::READ);
    assert_eq!(bench.events.take(), [(0xfee0_0000, 0x31)]);
    let _ = bench.translate(0x6000, Access::WRITE);
    assert_eq!(bench.events.take(), []);
    assert_eq!(bench.take_faults().len(), 2);
    assert_eq!(bench.read32(register::FAULT_STATUS) & 0xff, 0);
    let _ = bench.translate(0x7000, Access::READ);
    assert_eq!(bench.events.take().len(), 1);
}

#[test]
fn a_masked_event_waits_for_its_unmasking_unless_the_cause_is_gone() {
    let mut bench = Bench::legacy();
    bench.mask_fault_events(true);
    let _ = bench.translate(0x5000, Access::READ);
    let pending = EventControl::MASK | EventControl::PENDING;
    assert_eq!(bench.read32(register::FAULT_EVENT_CONTROL), pending);
    bench.mask_fault_events(false);
    assert_eq!(bench.events.take().len(), 1);
    bench.take_faults();
    bench.mask_fault_events(true);
    let _ = bench.translate(0x5000, Access::READ);
    bench.take_faults();
    bench.mask_fault_events(false);
    assert_eq!(bench.events.take(), []);
}

#[test]
fn more_faults_than_records_overflow() {
    let mut bench = Bench::legacy();
    for page in 0..FAULT_RECORD_COUNT as u64 {
        let _ = bench.translate(page << 12, Access::READ);
    }
    assert_eq!(bench.read32(register::FAULT_STATUS) & FaultStatus::OVERFLOW, 0);
    let _ = bench.translate(0x9_9000, Access::READ);
    assert_ne!(bench.read32(register::FAULT_STATUS) & FaultStatus::OVERFLOW, 0);
    let faults = bench.take_faults();
    assert_eq!(faults.len(), FAULT_RECORD_COUNT);
    assert!(faults.iter().all(|(_, _, address)| *address != 0x9_9000));
    assert_eq!(bench.read32(register::FAULT_STATUS) & 0xff, 0);
}

#[test]
fn a_fault_record_tells_type_source_and_page() {
    let mut bench = Bench::legacy();
    let _ = bench.translate(0x1234_5678, Access::READ);
    let high = bench.read(FAULT_RECORDS + 8);
    assert_eq!(bench.read(FAULT_RECORDS), 0x1234_5000);
    assert_eq!(high & fault_record::READ, fault_record::READ);
    assert_eq!(high as u16, SOURCE);
    let _ = bench.translate(0x1234_5678, Access::WRITE);
    assert_eq!(bench.read(FAULT_RECORDS + 24) & fault_record::READ, 0);
    // Records are used in turn; the status tells the first that is pending.
    bench.take_faults();
    let _ = bench.translate(0, Access::READ);
    assert_eq!(bench.read32(register::FAULT_STATUS) >> 8 & 0xff, 2);
}

#[test]
fn state_goes_through_save_and_restore_caches_included() {
    let mut bench = Bench::legacy();
    let at = bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    bench.translate(0x5000, Access::READ).unwrap();
    let _ = bench.translate(0x6000, Access::READ);
    bench.put(at, &[0]);
    let state = bench.unit.save();
    let mut other = Bench::new(UnitConfig::default());
    other.unit.restore(&state);
    assert_eq!(other.unit.save(), state);
    // From the cache: the other bench's memory holds no tables.
    assert_eq!(other.translate(0x5000, Access::READ), Ok(0x30_0000));
    assert_eq!(other.take_faults().len(), 1);
}

#[test]
fn reset_turns_everything_off_and_forgets() {
    let mut bench = Bench::legacy();
    bench.map(0x5000, 0x30_0000 | READ_WRITE, 1);
    bench.translate(0x5000, Access::READ).unwrap();
    bench.unit.reset();
    assert_eq!(bench.read32(register::GLOBAL_STATUS), 0);
    assert_eq!(bench.translate(0x5000, Access::READ), Ok(0x5000));
    assert_eq!(bench.unit.caches.iotlb.iter().count(), 0);
}
