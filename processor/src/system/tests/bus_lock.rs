//! #DB for bus locks (SDM Vol. 3B, 18.3.1.6).

use super::delivery::set_tss64;
use crate::models::Model;
use crate::testing::Machine;
use spec::x86::debug::{DebugCtl, Dr6};
use spec::x86::msr;

/// LOCK INC dword [RDI]; NOP; NOP.
const LOCKED: &[u8] = &[0xf0, 0xff, 0x07, 0x90, 0x90];
/// Where a locked access of four bytes crosses a line.
const SPLIT: u64 = 0x7200 - 2;
const HANDLER: u64 = 0x9000;

/// Code of privilege level `cpl` on a processor that detects bus locks, with a handler for #DB.
fn machine(cpl: u8) -> Machine {
    let mut machine = Machine::long_with(Model::named("full").unwrap());
    set_tss64(&mut machine);
    machine.idt(1, 8, HANDLER, 0x8e);
    machine.write(HANDLER, &[0x90, 0x90]);
    machine.cpu.regs[7] = SPLIT;
    assert!(machine.cpu.write_msr(msr::DEBUGCTL, DebugCtl::BLD));
    machine.flat(cpl);
    machine
}

#[test]
fn a_bus_lock_of_user_code_traps_after_it() {
    let mut machine = machine(3);
    let start = machine.cpu.rip;
    machine.execute(LOCKED, 2);
    assert_eq!(machine.cpu.rip, HANDLER + 1, "one instruction of the handler");
    assert_eq!((machine.load(SPLIT, 4), machine.load(machine.cpu.regs[4], 8)), (1, start + 3), "after it");
    assert_eq!(machine.cpu.dr[6], Dr6::RESET & !Dr6::BLD);
    assert_eq!(machine.cpu.msrs.debugctl, DebugCtl::BLD, "it stays on");
}

#[test]
fn others_do_not() {
    for (cpl, at, control) in [(0, SPLIT, DebugCtl::BLD), (3, 0x7200 - 4, DebugCtl::BLD), (3, SPLIT, 0)] {
        let mut machine = machine(cpl);
        machine.cpu.regs[7] = at;
        assert!(machine.cpu.write_msr(msr::DEBUGCTL, control));
        let start = machine.cpu.rip;
        machine.execute(LOCKED, 3);
        assert_eq!((machine.cpu.rip, machine.cpu.dr[6]), (start + 5, Dr6::RESET), "{cpl} {at:#x} {control}");
        assert_eq!(machine.load(at, 4), 1);
    }
}

#[test]
fn many_in_one_run_are_told_one_by_one() {
    let mut machine = machine(3);
    // The handler: inc ebx; iretq. The code: twice nop, lock inc dword [rdi], nop; then cli, which faults.
    machine.write(HANDLER, &[0xff, 0xc3, 0x48, 0xcf]);
    machine.idt(13, 8, HANDLER + 0x100, 0x8e);
    machine.write(HANDLER + 0x100, &[0xf4]);
    let start = machine.cpu.rip;
    machine.write(start, &[0x90, 0xf0, 0xff, 0x07, 0x90, 0x90, 0xf0, 0xff, 0x07, 0x90, 0xfa]);
    machine.cpu.regs[3] = 0;
    machine.run_to_halt(100);
    assert_eq!((machine.cpu.regs[3], machine.load(SPLIT, 4)), (2, 2));
}

#[test]
fn other_debug_exceptions_leave_its_bit_alone() {
    let mut machine = machine(3);
    machine.cpu.set_debug_register(6, 0);
    assert_eq!(machine.cpu.dr[6], Dr6::RESET & !Dr6::BLD);
    machine.cpu.set_rflags(0x102);
    machine.execute(&[0x90], 2);
    assert_eq!(machine.cpu.dr[6], Dr6::RESET & !Dr6::BLD | Dr6::BS);
}

#[test]
fn without_it_the_bits_are_fixed() {
    let mut machine = Machine::long_with(Model::named("full,-bus_lock_detect").unwrap());
    machine.cpu.set_debug_register(6, 0);
    assert_eq!(machine.cpu.dr[6], Dr6::RESET);
    assert!(!machine.cpu.write_msr(msr::DEBUGCTL, DebugCtl::BLD));
}
