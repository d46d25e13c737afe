//! UMONITOR, UMWAIT and TPAUSE.

use super::delivery::interrupt;
use crate::flags;
use crate::models::Model;
use crate::run::Activity;
use crate::testing::Machine;
use spec::x86::msr;

/// RDTSC; ADD EAX, 4000; TPAUSE ECX; HLT.
const PAUSE_2_US: &[u8] = &[0x0f, 0x31, 0x05, 0xa0, 0x0f, 0, 0, 0x66, 0x0f, 0xae, 0xf1, 0xf4];

fn machine() -> Machine {
    let mut machine = Machine::long_with(Model::named("full").unwrap());
    machine.cpu.rip = 0x8000;
    machine.idt(13, 8, 0x9000, 0x8e);
    machine.idt(6, 8, 0x9100, 0x8e);
    machine.idt(0x61, 8, 0x9200, 0x8e);
    machine
}

/// Runs until the processor sleeps or has executed HLT, as the board does: idle time is skipped.
fn run(machine: &mut Machine, limit: u64) {
    let end = machine.cpu.now() + limit;
    while machine.cpu.now() < end && (machine.cpu.activity == Activity::Active || machine.cpu.monitor.waiting) {
        let until = (machine.cpu.now() + 50).min(end);
        machine.cpu.run(&mut machine.code, until);
        if machine.cpu.activity == Activity::Halted {
            machine.cpu.idle_time += until.saturating_sub(machine.cpu.now());
        }
    }
}

#[test]
fn tpause_waits_until_its_deadline() {
    let mut machine = machine();
    machine.write(0x8000, PAUSE_2_US);
    let before = machine.cpu.now();
    run(&mut machine, 10_000);
    assert_eq!((machine.cpu.rip, machine.cpu.rflags() & flags::CF), (0x800c, 0));
    assert!((2000..2100).contains(&(machine.cpu.now() - before)), "{}", machine.cpu.now() - before);
}

#[test]
fn init_forgets_what_was_waited_for() {
    let mut machine = machine();
    machine.write(0x8000, PAUSE_2_US);
    machine.steps(3);
    assert!(machine.cpu.monitor.waiting && machine.cpu.wait_deadline() < u64::MAX);
    machine.cpu.init();
    assert_eq!((machine.cpu.activity, machine.cpu.monitor.waiting), (Activity::Active, false));
    assert_eq!(machine.cpu.wait_deadline(), u64::MAX, "else it is reached again and again");
    machine.cpu.idle_time += 10_000;
    let until = machine.cpu.now() + 50;
    machine.cpu.run(&mut machine.code, until);
}

#[test]
fn the_systems_limit_ends_a_wait_with_cf() {
    let mut machine = machine();
    assert!(!machine.cpu.write_msr(msr::UMWAIT_CONTROL, 2), "reserved");
    assert!(machine.cpu.write_msr(msr::UMWAIT_CONTROL, 1000 | 1));
    machine.write(0x8000, PAUSE_2_US);
    let before = machine.cpu.now();
    run(&mut machine, 10_000);
    assert_eq!((machine.cpu.rip, machine.cpu.rflags() & flags::CF), (0x800c, flags::CF));
    assert!((500..=650).contains(&(machine.cpu.now() - before)), "{}", machine.cpu.now() - before);
}

#[test]
fn an_interrupt_ends_a_wait_whatever_if_is() {
    for (enabled, rip) in [(0, 0x800c), (flags::IF, 0x9201)] {
        let mut machine = machine();
        machine.write(0x8000, PAUSE_2_US);
        machine.write(0x9200, &[0xf4]);
        machine.cpu.set_rflags(enabled | 2);
        machine.steps(3);
        assert!(machine.cpu.monitor.waiting);
        interrupt(&mut machine, 0x61);
        if enabled == 0 {
            machine.cpu.set_rflags(2);
        }
        let before = machine.cpu.now();
        run(&mut machine, 1000);
        assert_eq!(machine.cpu.rip, rip);
        assert!(machine.cpu.now() - before < 100);
    }
}

#[test]
fn a_store_to_the_monitored_line_ends_umwait() {
    let mut machine = machine();
    (machine.cpu.regs[7], machine.cpu.regs[2], machine.cpu.regs[0]) = (0x6010, 1, 0);
    // umonitor rdi; umwait ecx; hlt
    machine.execute(&[0xf3, 0x0f, 0xae, 0xf7, 0xf2, 0x0f, 0xae, 0xf1, 0xf4], 3);
    assert!(machine.cpu.monitor.waiting);
    machine.store(0x6000, 8, 1);
    machine.steps(2);
    assert_eq!((machine.cpu.rip, machine.cpu.rflags() & flags::CF), (0x8009, 0));
    // Without UMONITOR before it, it does not wait.
    machine.cpu.activity_resumes();
    machine.execute(&[0xf2, 0x0f, 0xae, 0xf1, 0xf4], 2);
    assert_eq!(machine.cpu.rip, 0x800e);
}

#[test]
fn user_wait_needs_valid_operands_and_the_time_stamp_counter() {
    let mut machine = machine();
    machine.cpu.regs[1] = 2;
    machine.execute(&[0x66, 0x0f, 0xae, 0xf1], 1);
    assert_eq!(machine.cpu.rip, 0x9000, "#GP: a reserved bit");
    let mut machine = self::machine();
    super::delivery::set_tss64(&mut machine);
    machine.flat(3);
    machine.cpu.cr4 |= 4;
    machine.execute(&[0x66, 0x0f, 0xae, 0xf1], 1);
    assert_eq!(machine.cpu.rip, 0x9000, "#GP: CR4.TSD");
    let mut machine = Machine::long();
    machine.cpu.rip = 0x8000;
    machine.idt(6, 8, 0x9100, 0x8e);
    machine.execute(&[0x66, 0x0f, 0xae, 0xf1], 1);
    assert_eq!(machine.cpu.rip, 0x9100, "#UD where it is not announced");
}
