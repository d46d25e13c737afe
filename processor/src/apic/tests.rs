use super::*;
use spec::apic::local_apic::offset;

const SVR: u16 = offset::SVR;

fn at(nanoseconds: u64) -> Moment {
    Moment { nanoseconds, tsc: nanoseconds * 2 }
}

fn write(apic: &mut LocalApic, register: u16, value: u32) -> Option<Effect> {
    apic.write(u32::from(register), 4, u64::from(value), at(0))
}

fn enabled(id: u32) -> LocalApic {
    let mut apic = LocalApic::new(id, id == 0);
    write(&mut apic, SVR, 0x1ff);
    apic
}

fn x2apic(id: u32) -> LocalApic {
    let mut apic = enabled(id);
    apic.set_base(apic.base() | 1 << 10, 46, true).unwrap();
    apic
}

fn fixed(vector: u8) -> InterruptMessage {
    InterruptMessage {
        destination: 0,
        logical: false,
        delivery: DeliveryMode::Fixed,
        vector,
        level_triggered: false,
        shorthand: Shorthand::None,
    }
}

#[test]
fn higher_class_interrupts_lower_and_eoi_returns() {
    let mut apic = enabled(0);
    apic.accept(&fixed(0x31));
    assert_eq!(apic.acknowledge(), 0x31);
    apic.accept(&fixed(0x3f));
    assert_eq!(apic.pending(), None, "same class waits");
    apic.accept(&fixed(0x41));
    assert_eq!(apic.acknowledge(), 0x41);
    assert_eq!(apic.processor_priority(), 0x40);
    assert_eq!(write(&mut apic, offset::EOI, 0), None);
    assert_eq!(apic.pending(), None);
    write(&mut apic, offset::EOI, 0);
    assert_eq!(apic.pending(), Some(Pending::Vector(0x3f)));
}

#[test]
fn task_priority_holds_back_its_class_and_below() {
    let mut apic = enabled(0);
    apic.set_task_priority(0x50);
    apic.accept(&fixed(0x5f));
    assert_eq!(apic.pending(), None);
    assert_eq!(apic.acknowledge(), 0xff, "the spurious vector");
    apic.set_task_priority(0x40);
    assert_eq!(apic.pending(), Some(Pending::Vector(0x5f)));
}

#[test]
fn level_triggered_eoi_is_broadcast_unless_suppressed() {
    let mut apic = enabled(0);
    let level = InterruptMessage { level_triggered: true, ..fixed(0x60) };
    apic.accept(&level);
    apic.acknowledge();
    assert_eq!(write(&mut apic, offset::EOI, 0), Some(Effect::BroadcastEoi(0x60)));
    write(&mut apic, SVR, 0x11ff);
    apic.accept(&level);
    apic.acknowledge();
    assert_eq!(write(&mut apic, offset::EOI, 0), None);
}

#[test]
fn software_disable_masks_the_lvt_and_refuses_fixed_but_not_nmi() {
    let mut apic = enabled(0);
    write(&mut apic, offset::LVT_LINT0, 0x700);
    write(&mut apic, SVR, 0xff);
    assert_eq!(apic.read(u32::from(offset::LVT_LINT0), 4, at(0)), 0x10700);
    write(&mut apic, offset::LVT_LINT0, 0x700);
    assert_eq!(apic.read(u32::from(offset::LVT_LINT0), 4, at(0)), 0x10700, "mask cannot be cleared");
    assert_eq!(apic.accept(&fixed(0x40)), Acceptance::Ignored);
    assert_eq!(apic.accept(&InterruptMessage { delivery: DeliveryMode::Nmi, ..fixed(0) }), Acceptance::Nmi);
}

#[test]
fn lint0_passes_the_8259_through_as_ext_int() {
    let mut apic = LocalApic::new(0, true);
    apic.set_lint0(true);
    assert_eq!(apic.pending(), None, "masked after reset");
    apic.set_virtual_wire();
    assert_eq!(apic.pending(), Some(Pending::External));
    apic.set_lint0(false);
    assert_eq!(apic.pending(), None);
    apic.set_base(0xfee0_0000, 46, true).unwrap();
    apic.set_lint0(true);
    assert_eq!(apic.pending(), Some(Pending::External), "globally disabled: the pin is INTR");
}

#[test]
fn lint1_nmi_is_edge_triggered() {
    let mut apic = enabled(0);
    write(&mut apic, offset::LVT_LINT1, 0x400);
    assert_eq!(apic.set_lint1(true), Acceptance::Nmi);
    assert_eq!(apic.set_lint1(true), Acceptance::Recorded);
    apic.set_lint1(false);
    assert_eq!(apic.set_lint1(true), Acceptance::Nmi);
}

#[test]
fn level_lint_pin_is_requested_again_after_eoi_while_high() {
    let mut apic = enabled(0);
    write(&mut apic, offset::LVT_LINT0, 0x8045);
    apic.set_lint0(true);
    assert_eq!(apic.acknowledge(), 0x45);
    assert_eq!(apic.read(u32::from(offset::LVT_LINT0), 4, at(0)), 0xc045, "remote IRR");
    write(&mut apic, offset::EOI, 0);
    assert_eq!(apic.acknowledge(), 0x45);
    apic.set_lint0(false);
    write(&mut apic, offset::EOI, 0);
    assert_eq!(apic.pending(), None);
}

#[test]
fn error_status_shows_errors_after_a_write() {
    let mut apic = enabled(0);
    write(&mut apic, offset::LVT_ERROR, 0x33);
    assert_eq!(write(&mut apic, offset::ICR_LOW, 0x4005), None, "vector 5 is illegal");
    assert_eq!(apic.read(u32::from(offset::ESR), 4, at(0)), 0);
    write(&mut apic, offset::ESR, 0);
    assert_eq!(apic.read(u32::from(offset::ESR), 4, at(0)), 0x20);
    assert_eq!(apic.pending(), Some(Pending::Vector(0x33)));
    write(&mut apic, offset::ESR, 0);
    assert_eq!(apic.read(u32::from(offset::ESR), 4, at(0)), 0);
    apic.read(0x3d0, 4, at(0));
    write(&mut apic, offset::ESR, 0);
    assert_eq!(apic.read(u32::from(offset::ESR), 4, at(0)), 0x80);
}

#[test]
fn command_register_makes_a_message() {
    let mut apic = enabled(0);
    write(&mut apic, offset::ICR_HIGH, 0x0300_0000);
    let Some(Effect::Send(message)) = write(&mut apic, offset::ICR_LOW, 0x4608) else { panic!("no message") };
    assert_eq!((message.destination, message.delivery, message.vector), (3, DeliveryMode::StartUp, 8));
    write(&mut apic, offset::ICR_HIGH, 0xff00_0000);
    let Some(Effect::Send(message)) = write(&mut apic, offset::ICR_LOW, 0x4540) else { panic!("no message") };
    assert_eq!((message.destination, message.delivery), (BROADCAST, DeliveryMode::Init));
    assert_eq!(write(&mut apic, offset::ICR_LOW, 0x8500), None, "INIT level de-assert");
    assert_eq!(write(&mut apic, offset::ICR_LOW, 0x4_0051), None, "to itself");
    assert_eq!(apic.pending(), Some(Pending::Vector(0x51)));
}

#[test]
fn flat_and_cluster_destinations() {
    let mut apic = enabled(2);
    assert!(apic.matches(2, false) && !apic.matches(0x102, false) && apic.matches(BROADCAST, false));
    write(&mut apic, offset::LDR, 0x0400_0000);
    assert!(apic.matches(0x06, true) && !apic.matches(0x03, true) && apic.matches(BROADCAST, true));
    write(&mut apic, offset::DFR, 0);
    write(&mut apic, offset::LDR, 0x2400_0000);
    assert!(apic.matches(0x24, true) && !apic.matches(0x14, true) && apic.matches(0xf4, true));
}

#[test]
fn x2apic_destinations() {
    let apic = x2apic(0x25);
    assert!(apic.matches(0x25, false) && apic.matches(BROADCAST, false) && !apic.matches(0xff, false));
    assert!(apic.matches(0x0002_0020, true) && !apic.matches(0x0001_0020, true));
}

#[test]
fn routing_follows_shorthand_and_priority() {
    let mut apics = [enabled(0), enabled(1), enabled(2)];
    let all = InterruptMessage { shorthand: Shorthand::AllIncludingSelf, ..fixed(0x40) };
    assert_eq!(targets(apics.iter().map(LocalApic::address), Some(1), &all), [0, 1, 2]);
    let others = InterruptMessage { shorthand: Shorthand::AllExcludingSelf, ..all };
    assert_eq!(targets(apics.iter().map(LocalApic::address), Some(1), &others), [0, 2]);
    let lowest = InterruptMessage { delivery: DeliveryMode::LowestPriority, destination: BROADCAST, ..fixed(0x40) };
    assert_eq!(targets(apics.iter().map(LocalApic::address), None, &lowest), [0]);
    apics[0].set_task_priority(0x20);
    apics[1].set_task_priority(0x10);
    assert_eq!(targets(apics.iter().map(LocalApic::address), None, &lowest), [2]);
    write(&mut apics[2], SVR, 0xff);
    assert_eq!(targets(apics.iter().map(LocalApic::address), None, &lowest), [1]);
}

#[test]
fn base_transitions_that_the_manual_forbids_are_rejected() {
    let mut apic = LocalApic::new(0, true);
    assert_eq!(apic.set_base(0xfee0_0d00, 46, false), Err(Rejected), "no x2APIC");
    assert_eq!(apic.set_base(0xfee0_0900 | 1 << 46, 46, true), Err(Rejected), "beyond MAXPHYADDR");
    assert_eq!(apic.set_base(0xfee0_0901, 46, true), Err(Rejected), "reserved bit");
    assert_eq!(apic.set_base(0xfee0_0500, 46, true), Err(Rejected), "EXTD without EN");
    apic.set_base(0xfee0_0d00, 46, true).unwrap();
    assert_eq!(apic.set_base(0xfee0_0900, 46, true), Err(Rejected), "x2APIC to xAPIC");
    apic.set_base(0xfee0_0100, 46, true).unwrap();
    assert_eq!(apic.set_base(0xfee0_0d00, 46, true), Err(Rejected), "disabled to x2APIC");
    assert_eq!(apic.page(), None);
    apic.set_base(0x1_0000_0900, 46, true).unwrap();
    assert_eq!(apic.page(), Some(0x1_0000_0000));
}

#[test]
fn x2apic_registers_reject_what_is_reserved() {
    let mut apic = x2apic(5);
    assert_eq!(apic.read_msr(0x802, at(0)), Ok(5));
    assert_eq!(apic.read_msr(0x80d, at(0)), Ok(1 << 5));
    for msr in [0x80b, 0x80e, 0x809, 0x80c, 0x831, 0x83f, 0x8ff, 0x900] {
        assert_eq!(apic.read_msr(msr, at(0)), Err(Rejected), "{msr:#x}");
    }
    for (msr, value) in
        [(0x808, 0x100), (0x80b, 1), (0x828, 1), (0x802, 0), (0x80f, 0x2ff), (0x830, 0x2031), (0x832, 1 << 32)]
    {
        assert_eq!(apic.write_msr(msr, value, at(0)), Err(Rejected), "{msr:#x}");
    }
    assert_eq!(apic.write_msr(0x83f, 0x77, at(0)), Ok(None));
    assert_eq!(apic.acknowledge(), 0x77);
    assert_eq!(apic.write_msr(0x80b, 0, at(0)), Ok(None));
    // The delivery status is ignored.
    let Ok(Some(Effect::Send(message))) = apic.write_msr(0x830, 0x0001_0000_0000_1831, at(0)) else {
        panic!("no message")
    };
    assert_eq!(apic.read_msr(0x830, at(0)), Ok(0x0001_0000_0000_0831));
    assert!(message.logical);
    assert_eq!(message.destination, 0x0001_0000);
    let mut xapic = enabled(0);
    assert_eq!(xapic.read_msr(0x802, at(0)), Err(Rejected));
}

#[test]
fn one_shot_timer_fires_once() {
    let mut apic = enabled(0);
    apic.write(u32::from(offset::LVT_TIMER), 4, 0x40, at(0));
    apic.write(u32::from(offset::TIMER_DIVIDE), 4, 0xb, at(0)); // by 1: 10 ns a step
    apic.write(u32::from(offset::TIMER_INITIAL), 4, 100, at(50));
    assert_eq!(apic.next_deadline(at(50)), Some(1050));
    assert_eq!(apic.read(u32::from(offset::TIMER_CURRENT), 4, at(550)), 50);
    apic.advance(at(1049));
    assert_eq!(apic.pending(), None);
    apic.advance(at(1050));
    assert_eq!(apic.acknowledge(), 0x40);
    assert_eq!(apic.next_deadline(at(1050)), None);
    assert_eq!(apic.read(u32::from(offset::TIMER_CURRENT), 4, at(1060)), 0);
    apic.write(u32::from(offset::LVT_TIMER), 4, 0x2_0040, at(1070));
    assert_eq!(apic.read(u32::from(offset::TIMER_CURRENT), 4, at(1080)), 0, "a new mode does not restart it");
}

#[test]
fn periodic_timer_keeps_its_phase() {
    let mut apic = enabled(0);
    apic.write(u32::from(offset::LVT_TIMER), 4, 0x2_0040, at(0));
    apic.write(u32::from(offset::TIMER_INITIAL), 4, 10, at(0)); // by 2: 20 ns a step
    assert_eq!(apic.next_deadline(at(0)), Some(200));
    apic.advance(at(730));
    assert_eq!(apic.next_deadline(at(730)), Some(800));
    assert_eq!(apic.read(u32::from(offset::TIMER_CURRENT), 4, at(730)), 10 - 6);
}

#[test]
fn tsc_deadline_fires_at_the_tsc_and_disarms() {
    let mut apic = enabled(0);
    apic.set_tsc_deadline(1000, at(0));
    assert_eq!(apic.tsc_deadline(at(0)), 0, "ignored in other modes");
    apic.write(u32::from(offset::LVT_TIMER), 4, 0x4_0040, at(0));
    apic.set_tsc_deadline(1001, at(0));
    assert_eq!(apic.next_deadline(at(0)), Some(501));
    assert_eq!(apic.next_deadline(Moment { nanoseconds: 10, tsc: 900 }), Some(10 + 51), "follows the TSC");
    apic.advance(at(501));
    assert_eq!(apic.acknowledge(), 0x40);
    assert_eq!(apic.tsc_deadline(at(501)), 0);
    apic.set_tsc_deadline(5, at(600));
    assert!(apic.is_requested(0x40), "a deadline in the past fires at once");
}

#[test]
fn init_keeps_mode_and_id() {
    let mut apic = x2apic(3);
    apic.accept(&fixed(0x99));
    apic.init();
    assert_eq!(apic.mode(), Mode::X2Apic);
    assert_eq!(apic.x2apic_id(), 3);
    assert!(!apic.is_requested(0x99) && !apic.is_software_enabled());
}

#[test]
fn saved_state_restores_to_the_same_state() {
    let mut apic = x2apic(3);
    apic.write_msr(0x832, 0x4_0040, at(0)).unwrap();
    apic.set_tsc_deadline(77777, at(0));
    apic.accept(&fixed(0x99));
    let state = apic.save();
    assert_eq!(LocalApic::restore(&state).save(), state);
}

#[test]
fn any_register_access_is_survived() {
    let mut apic = enabled(0);
    let mut seed = 1u64;
    for step in 0..20_000u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (address, size) = ((seed >> 33) as u32 & 0xfff, 1 << (seed >> 60 & 3));
        apic.write(address, size, seed, Moment { nanoseconds: seed >> 20, tsc: seed });
        apic.read(address, size, at(step));
        apic.advance(Moment { nanoseconds: u64::MAX - step, tsc: seed });
        let _ = apic.next_deadline(at(step));
        apic.acknowledge();
    }
}
