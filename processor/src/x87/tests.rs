//! What the differential test cannot reach: other modes, CR0's bits, delivery of #MF.

use super::state::{ES, X87};
use crate::testing::Machine;

/// FNINIT; FLDZ; FLD1.
const LOAD_TWO: [u8; 6] = [0xdb, 0xe3, 0xd9, 0xee, 0xd9, 0xe8];

#[test]
fn environment_of_real_mode_has_linear_pointers_and_the_opcode() {
    let mut m = Machine::real();
    m.execute(&LOAD_TWO, 3);
    m.cpu.x87.fip = 0x1_2345;
    m.cpu.x87.fdp = 0x2_abcd;
    m.cpu.x87.fop = 0x5a5;
    // FNSTENV [0x600], 14 bytes.
    m.execute(&[0xd9, 0x36, 0x00, 0x06], 1);
    let words: Vec<u64> = (0..7).map(|i| m.load(0x600 + 2 * i, 2)).collect();
    // R7 is zero (tag 1), R6 one (tag 0), the rest empty.
    assert_eq!(words, [0x37f, 0x3000, 0x4fff, 0x2345, 0x15a5, 0xabcd, 0x2000]);
    let saved = m.cpu.x87.clone();
    m.cpu.x87 = X87 { regs: saved.regs, ..X87::power_on() };
    // FLDENV [0x600].
    m.execute(&[0xd9, 0x26, 0x00, 0x06], 1);
    assert_eq!(m.cpu.x87, saved);
    // The same with 32-bit operand size.
    m.execute(&[0x66, 0xd9, 0x36, 0x00, 0x06], 1);
    assert_eq!(m.load(0x610, 4), 0x1 << 12 | 0x5a5);
    m.cpu.x87 = X87 { regs: saved.regs, ..X87::power_on() };
    m.execute(&[0x66, 0xd9, 0x26, 0x00, 0x06], 1);
    assert_eq!(m.cpu.x87, saved);
}

#[test]
fn save_and_restore_in_protected_mode_of_16_and_32_bits() {
    for prefix in [&[][..], &[0x66][..]] {
        let mut m = Machine::protected();
        m.execute(&LOAD_TWO, 3);
        m.cpu.x87.fip = 0x1234;
        m.cpu.x87.fdp = 0x5678;
        let before = m.cpu.x87.clone();
        // FNSAVE [0x600] leaves what FNINIT leaves.
        m.execute(&[prefix, &[0xdd, 0x35, 0x00, 0x06, 0x00, 0x00]].concat(), 1);
        assert_eq!(m.cpu.x87, X87 { regs: before.regs, ..X87::initial() });
        m.cpu.x87.regs = X87::initial().regs;
        m.execute(&[prefix, &[0xdd, 0x25, 0x00, 0x06, 0x00, 0x00]].concat(), 1);
        assert_eq!(m.cpu.x87, before);
    }
}

#[test]
fn an_unmasked_exception_is_delivered_by_the_next_waiting_instruction() {
    let mut m = Machine::protected();
    m.idt(16, 8, 0x9000, 0x8e);
    m.cpu.cr0 |= 1 << 5;
    m.execute(&LOAD_TWO, 3);
    m.cpu.x87.set_control(0x37b);
    // FDIV ST0, ST1: one by zero.
    m.execute(&[0xd8, 0xf1], 1);
    assert_ne!(m.cpu.x87.fsw & ES, 0);
    assert_eq!(m.cpu.x87.fop, 0xf1);
    // FNSTSW AX does not wait.
    m.execute(&[0xdf, 0xe0], 1);
    assert_eq!(m.cpu.regs[0] as u16 & 0x8084, 0x8084);
    m.execute(&[0x9b], 1);
    assert_eq!(m.at().1, 0x9000);
}

#[test]
fn without_ne_the_boards_line_is_raised_instead() {
    let mut m = Machine::protected();
    m.idt(16, 8, 0x9000, 0x8e);
    m.cpu.cr0 &= !(1 << 5);
    m.execute(&LOAD_TWO, 3);
    m.cpu.x87.set_control(0x37b);
    m.execute(&[0xd8, 0xf1], 1);
    m.execute(&[0x9b], 1);
    assert_ne!(m.at().1, 0x9000);
}

#[test]
fn task_switched_and_emulation_raise_device_not_available() {
    // FWAIT needs MP and TS; EM does not concern it.
    for (bits, fld_faults, wait_faults) in
        [(0x8, true, false), (0xa, true, true), (0x4, true, false), (0x2, false, false)]
    {
        for (code, faults) in [(&[0xd9, 0xe8][..], fld_faults), (&[0x9b][..], wait_faults)] {
            let mut m = Machine::protected();
            m.idt(7, 8, 0x9000, 0x8e);
            m.cpu.cr0 = m.cpu.cr0 & !0xe | bits;
            m.cpu.mode_changed();
            m.execute(code, 1);
            assert_eq!(m.at().1 == 0x9000, faults, "CR0 bits {bits:#x}, {code:x?}");
        }
    }
}
