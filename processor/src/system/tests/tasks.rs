use crate::cpu::Mode;
use crate::flags;
use crate::segment::{DS, SS, Segment};
use crate::testing::{CODE32, DATA, DPL3, GDT, Machine};

const OLD: u64 = 0x3000;
const NEW: u64 = 0x3100;

/// Two 32-bit tasks: the running one (busy, selector 0x28) and another (available, selector 0x30) that starts at 8:0xa000 with its stack at 0x6000.
fn machine() -> Machine {
    let mut machine = Machine::protected();
    let tss = |base, kind| Machine::tss_descriptor(base, 0x67, kind);
    let task_gate = 0x0000_8500_0030_0000;
    machine.gdt(&[0, CODE32, DATA, CODE32 | DPL3, DATA | DPL3, tss(OLD, 0x8b), tss(NEW, 0x89), task_gate]);
    machine.cpu.tr = Segment { selector: 0x28, base: OLD, limit: 0x67, access: 0x8b };
    machine.store(NEW + 0x20, 4, 0xa000);
    machine.store(NEW + 0x24, 4, 2);
    machine.store(NEW + 0x28, 4, 0x1111_1111);
    machine.store(NEW + 0x38, 4, 0x6000);
    for (slot, selector) in (0u64..).zip([0x10, 8, 0x10, 0x10, 0, 0]) {
        machine.store(NEW + 0x48 + 4 * slot, 4, selector);
    }
    for vector in [10, 11, 13] {
        machine.idt(vector, 8, 0x9000 + 16 * u64::from(vector), 0x8e);
    }
    machine
}

fn is_busy(machine: &Machine, selector: u64) -> bool {
    machine.load(GDT + selector + 5, 1) & 2 != 0
}

#[test]
fn jump_to_a_tss_switches_and_moves_the_busy_bit() {
    let mut machine = machine();
    machine.cpu.regs[3] = 0x3333;
    machine.execute(&[0xea, 0, 0, 0, 0, 0x30, 0], 1);
    assert_eq!((machine.at(), machine.cpu.regs[0], machine.cpu.regs[4]), ((8, 0xa000), 0x1111_1111, 0x6000));
    assert_eq!((machine.cpu.tr.selector, machine.cpu.segs[DS].selector), (0x30, 0x10));
    assert!(!is_busy(&machine, 0x28) && is_busy(&machine, 0x30));
    assert_ne!(machine.cpu.cr0 & 8, 0, "TS");
    assert_eq!((machine.load(OLD + 0x20, 4), machine.load(OLD + 0x34, 4)), (0x8007, 0x3333));
    assert_eq!(machine.load(OLD + 0x50, 4), 0x10, "SS");
    assert_eq!(machine.cpu.rflags & flags::NT, 0);
}

#[test]
fn call_nests_and_iret_returns() {
    for selector in [0x30, 0x38] {
        let mut machine = machine();
        machine.execute(&[0x9a, 0, 0, 0, 0, selector, 0], 1);
        assert_eq!((machine.at(), machine.cpu.tr.selector), ((8, 0xa000), 0x30));
        assert_ne!(machine.cpu.rflags & flags::NT, 0);
        assert_eq!(machine.load(NEW, 2), 0x28);
        assert!(is_busy(&machine, 0x28) && is_busy(&machine, 0x30));
        machine.execute(&[0xcf], 1);
        assert_eq!((machine.at(), machine.cpu.tr.selector), ((8, 0x8007), 0x28));
        assert!(is_busy(&machine, 0x28) && !is_busy(&machine, 0x30));
        assert_eq!(machine.load(NEW + 0x24, 4) & flags::NT, 0);
        assert_eq!(machine.cpu.rflags & flags::NT, 0);
    }
}

#[test]
fn busy_or_short_tss_is_refused() {
    let mut machine = machine();
    machine.execute(&[0xea, 0, 0, 0, 0, 0x28, 0], 1);
    assert_eq!((machine.cpu.rip, machine.load(machine.cpu.regs[4], 4)), (0x90d0, 0x28));
    let mut machine = self::machine();
    machine.store(GDT + 0x30, 8, Machine::tss_descriptor(NEW, 0x66, 0x89));
    machine.execute(&[0xea, 0, 0, 0, 0, 0x30, 0], 1);
    assert_eq!((machine.cpu.rip, machine.load(machine.cpu.regs[4], 4)), (0x90a0, 0x30));
    assert_eq!(machine.cpu.tr.selector, 0x28);
}

#[test]
fn bad_segment_of_the_new_task_faults_in_its_context() {
    let mut machine = machine();
    machine.store(NEW + 0x54, 4, 0x48); // DS beyond the GDT
    machine.execute(&[0xea, 0, 0, 0, 0, 0x30, 0], 1);
    assert_eq!(machine.cpu.tr.selector, 0x30);
    assert_eq!(machine.cpu.rip, 0x90a0);
    let esp = machine.cpu.regs[4];
    assert_eq!((machine.load(esp, 4), machine.load(esp + 4, 4)), (0x48, 0xa000));
}

#[test]
fn exception_through_a_task_gate_pushes_its_error_code_there() {
    let mut machine = machine();
    machine.idt(13, 0x30, 0, 0x85);
    machine.cpu.regs[0] = 0x50;
    machine.execute(&[0x8e, 0xd8], 1); // mov ds, ax
    assert_eq!((machine.at(), machine.cpu.tr.selector), ((8, 0xa000), 0x30));
    assert_eq!((machine.cpu.regs[4], machine.load(0x5ffc, 4)), (0x5ffc, 0x50));
    assert_eq!(machine.load(OLD + 0x20, 4), 0x8000);
    assert_ne!(machine.cpu.rflags & flags::NT, 0);
}

#[test]
fn task_in_virtual_8086_mode() {
    let mut machine = machine();
    machine.store(NEW + 0x24, 4, flags::VM | 2);
    machine.store(NEW + 0x4c, 4, 0x0a00);
    machine.store(NEW + 0x20, 4, 0x10);
    machine.execute(&[0xea, 0, 0, 0, 0, 0x30, 0], 1);
    assert_eq!((machine.mode(), machine.at(), machine.cpu.cpl), (Mode::Virtual8086, (0xa00, 0x10), 3));
    assert_eq!(machine.cpu.code_linear(), 0xa010);
    assert_eq!(machine.cpu.segs[SS].base, 0x100);
}

#[test]
fn task_switch_with_the_trap_bit_raises_a_debug_trap() {
    let mut machine = machine();
    machine.idt(1, 8, 0x9010, 0x8e);
    machine.store(NEW + 0x64, 4, 1);
    machine.write(0x9010, &[0xf4]);
    machine.write(0x8000, &[0xea, 0, 0, 0, 0, 0x30, 0]);
    machine.run_to_halt(10);
    assert_eq!(machine.cpu.dr[6] & 1 << 15, 1 << 15);
    assert_eq!(machine.load(machine.cpu.regs[4], 4), 0xa000);
}

#[test]
fn sixteen_bit_task() {
    let mut machine = machine();
    machine.store(GDT + 0x30, 8, Machine::tss_descriptor(NEW, 0x2b, 0x81));
    machine.store(NEW + 0x0e, 2, 0xa000);
    machine.store(NEW + 0x10, 2, 2);
    machine.store(NEW + 0x12, 2, 0x4444);
    for (slot, selector) in (0u64..).zip([0x10, 8, 0x10, 0x10, 0]) {
        machine.store(NEW + 0x22 + 2 * slot, 2, selector);
    }
    machine.execute(&[0xea, 0, 0, 0, 0, 0x30, 0], 1);
    assert_eq!((machine.at(), machine.cpu.regs[0], machine.cpu.tr.selector), ((8, 0xa000), 0x4444, 0x30));
}
