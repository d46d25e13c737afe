use crate::cpu::Mode;
use crate::flags;
use crate::segment::{DS, Segment, UNUSABLE};
use crate::testing::Machine;

const TSS: u64 = 0x3000;

/// A program in virtual-8086 mode at 0xa00:0 (linear 0xa000), stack 0x700:0x100, with this IOPL. Handlers at 0x9000 plus 16 times the vector.
fn machine(iopl: u64) -> Machine {
    let mut machine = Machine::protected();
    for vector in [1, 13, 0x20, 0x21] {
        machine.idt(vector, 8, 0x9000 + 16 * u64::from(vector), 0xee);
    }
    machine.store(TSS + 4, 4, 0x6000);
    machine.store(TSS + 8, 4, 0x10);
    machine.store(TSS + 0x66, 2, 0x88); // I/O bitmap; the redirection bitmap lies before it
    machine.cpu.tr = Segment { selector: 0x30, base: TSS, limit: 0x2088, access: 0x8b };
    let frame = [0, 0xa00, flags::VM | flags::IF | iopl << 12 | 2, 0x100, 0x700, 1, 2, 3, 4];
    let esp = 0x7000 - 4 * frame.len() as u64;
    for (slot, value) in (0u64..).zip(frame) {
        machine.store(esp + 4 * slot, 4, value);
    }
    machine.cpu.regs[4] = esp;
    machine.execute(&[0xcf], 1); // iret
    assert_eq!((machine.mode(), machine.at(), machine.cpu.regs[4]), (Mode::Virtual8086, (0xa00, 0), 0x100));
    assert_eq!(machine.cpu.segs[DS].selector, 2);
    machine
}

fn frame(machine: &Machine) -> Vec<u64> {
    (0..9).map(|slot| machine.load(machine.cpu.regs[4] + 4 * slot, 4)).collect()
}

#[test]
fn interrupt_leaves_virtual_8086_mode_with_nine_words() {
    let mut machine = machine(3);
    machine.execute(&[0xcd, 0x20], 1);
    assert_eq!((machine.at(), machine.mode(), machine.cpu.cpl), ((8, 0x9200), Mode::Protected, 0));
    assert_eq!(frame(&machine), [2, 0xa00, flags::VM | flags::IF | 0x3002, 0x100, 0x700, 1, 2, 3, 4]);
    assert_ne!(machine.cpu.segs[DS].access & UNUSABLE, 0);
    machine.execute(&[0xcf], 1);
    assert_eq!((machine.at(), machine.mode()), ((0xa00, 2), Mode::Virtual8086));
}

#[test]
fn sensitive_instructions_fault_below_iopl_3() {
    for code in [&[0xcd, 0x20][..], &[0xfa], &[0xfb], &[0x9c], &[0x9d], &[0xcf]] {
        let mut machine = machine(0);
        machine.execute(code, 1);
        assert_eq!(machine.at(), (8, 0x90d0), "{code:x?}");
        assert_eq!(machine.load(machine.cpu.regs[4], 8), 0, "error code and IP: {code:x?}");
        let mut machine = self::machine(3);
        machine.execute(code, 1);
        assert_ne!(machine.at(), (8, 0x90d0), "{code:x?}");
    }
}

#[test]
fn vme_redirects_int_n_to_the_programs_table() {
    let mut machine = machine(0);
    machine.cpu.cr4 |= 1;
    machine.store(TSS + 0x88 - 32, 8, 0);
    machine.store(4 * 0x20, 4, 0x0b00_0044);
    machine.cpu.rflags |= flags::VIF;
    machine.execute(&[0xcd, 0x20], 1);
    assert_eq!((machine.at(), machine.mode()), ((0xb00, 0x44), Mode::Virtual8086));
    let stack: Vec<u64> = (0..3).map(|slot| machine.load(0x7000 + machine.cpu.regs[4] + 2 * slot, 2)).collect();
    assert_eq!(stack, [2, 0xa00, 0x3202], "IF shows VIF, IOPL shows 3");
    assert_eq!(machine.cpu.rflags & flags::VIF, 0);
    assert_ne!(machine.cpu.rflags & flags::IF, 0);
}

#[test]
fn vme_with_the_redirection_bit_set_needs_iopl_3() {
    let mut machine = machine(0);
    machine.cpu.cr4 |= 1;
    machine.store(TSS + 0x88 - 32 + 4, 1, 1 << 1); // vector 0x21
    machine.execute(&[0xcd, 0x21], 1);
    assert_eq!(machine.at(), (8, 0x90d0));
}

#[test]
fn vme_cli_and_sti_act_on_vif() {
    let mut machine = machine(0);
    machine.cpu.cr4 |= 1;
    machine.execute(&[0xfb], 1);
    assert_ne!(machine.cpu.rflags & flags::VIF, 0);
    machine.execute(&[0xfa], 1);
    assert_eq!(machine.cpu.rflags & (flags::VIF | flags::IF), flags::IF);
    machine.cpu.rflags |= flags::VIP;
    machine.execute(&[0xfb], 1);
    assert_eq!(machine.at(), (8, 0x90d0), "VIP is pending");
}

#[test]
fn io_always_asks_the_bitmap() {
    let mut machine = machine(3);
    machine.store(TSS + 0x88 + 2, 2, 2); // port 0x11 refused
    machine.execute(&[0xe6, 0x10], 1);
    assert_eq!(machine.bus.log().port_writes, [(0x10, 1, 0)]);
    machine.execute(&[0xe6, 0x11], 1);
    assert_eq!(machine.at(), (8, 0x90d0));
}
