use super::delivery::set_tss64;
use crate::flags;
use crate::segment::{DS, ES, SS, Segment, UNUSABLE};
use crate::testing::{CODE32, CODE64, DATA, DPL3, GDT, Machine};

/// A protected-mode machine with handlers for #NP, #SS, #GP and #TS at 0x9000 plus 16 times the vector.
fn with_handlers() -> Machine {
    let mut machine = Machine::protected();
    for vector in [6, 10, 11, 12, 13] {
        machine.idt(vector, 8, 0x9000 + 16 * u64::from(vector), 0x8e);
    }
    machine
}

/// The vector and error code of the fault just taken.
fn fault(machine: &Machine) -> (u64, u64) {
    ((machine.cpu.rip - 0x9000) / 16, machine.load(machine.cpu.regs[4], 4))
}

/// MOV of a selector to a segment register: `8e /r` with the selector in AX.
fn load(machine: &mut Machine, register: usize, selector: u16) {
    machine.cpu.regs[0] = u64::from(selector);
    machine.execute(&[0x8e, 0xc0 | (register as u8) << 3], 1);
}

#[test]
fn data_segment_loads_are_checked() {
    let execute_only = CODE32 & !(1 << 41);
    let absent = DATA & !(1 << 47);
    for (descriptor, selector, expected) in [
        (DATA, 0x28, None),
        (DATA, 0x2b, Some((13, 0x28))),
        (execute_only, 0x28, Some((13, 0x28))),
        (absent, 0x28, Some((11, 0x28))),
        (CODE32, 0x28, None),
        (CODE32 | 1 << 42, 0x2b, None), // conforming: no privilege check
        (0x0000_8900_0000_0067, 0x28, Some((13, 0x28))),
        (DATA, 0x34, Some((13, 0x34))), // LDT is null
        (DATA, 0x03, None),             // null
    ] {
        let mut machine = with_handlers();
        machine.gdt(&[0, CODE32, DATA, CODE32 | DPL3, DATA | DPL3, descriptor]);
        load(&mut machine, DS, selector);
        match expected {
            None => assert_eq!((machine.cpu.rip, machine.cpu.segs[DS].selector), (0x8002, selector)),
            Some(expected) => assert_eq!(fault(&machine), expected, "{descriptor:#x} {selector:#x}"),
        }
    }
}

#[test]
fn load_sets_the_accessed_bit_in_memory() {
    let mut machine = with_handlers();
    machine.gdt(&[0, CODE32, DATA & !(1 << 40)]);
    load(&mut machine, ES, 0x10);
    assert_eq!(machine.load(GDT + 0x10, 8), DATA);
}

#[test]
fn stack_segment_loads_are_checked() {
    for (descriptor, selector, expected) in [
        (DATA, 0x28, None),
        (DATA, 0x00, Some((13, 0))),
        (DATA, 0x29, Some((13, 0x28))),
        (DATA | DPL3, 0x28, Some((13, 0x28))),
        (DATA & !(1 << 41), 0x28, Some((13, 0x28))),
        (DATA & !(1 << 47), 0x28, Some((12, 0x28))),
    ] {
        let mut machine = with_handlers();
        machine.gdt(&[0, CODE32, DATA, CODE32 | DPL3, DATA | DPL3, descriptor]);
        load(&mut machine, SS, selector);
        match expected {
            None => assert_eq!(machine.cpu.segs[SS].selector, selector),
            Some(expected) => assert_eq!(fault(&machine), expected, "{descriptor:#x} {selector:#x}"),
        }
    }
}

#[test]
fn null_data_segment_faults_when_used() {
    let mut machine = with_handlers();
    load(&mut machine, DS, 0);
    assert_ne!(machine.cpu.segs[DS].access & UNUSABLE, 0);
    machine.execute(&[0xa1, 0, 0, 0, 0], 1); // mov eax, [0]
    assert_eq!(fault(&machine), (13, 0));
}

#[test]
fn expand_down_segment_allows_above_its_limit() {
    let mut machine = with_handlers();
    // Expand-down data, limit 0x0fff, 16-bit: offsets 0x1000 to 0xffff.
    machine.gdt(&[0, CODE32, DATA, 0, 0, 0x0000_9700_0000_0fff]);
    load(&mut machine, DS, 0x28);
    machine.execute(&[0xa1, 0, 0x10, 0, 0], 1);
    assert_eq!(machine.cpu.rip, 0x8007);
    machine.execute(&[0xa1, 0xff, 0x0f, 0, 0], 1);
    assert_eq!(fault(&machine), (13, 0));
}

#[test]
fn far_call_and_return_at_the_same_level() {
    let mut machine = with_handlers();
    machine.execute(&[0x9a, 0x00, 0xa0, 0, 0, 0x08, 0], 1); // call 8:0xa000
    assert_eq!((machine.at(), machine.cpu.regs[4]), ((8, 0xa000), 0x7000 - 8));
    machine.execute(&[0xcb], 1); // retf
    assert_eq!((machine.at(), machine.cpu.regs[4]), ((8, 0x8007), 0x7000));
}

#[test]
fn far_jump_to_a_wrong_target_faults() {
    for (selector, expected) in [(0u16, (13, 0)), (0x10, (13, 0x10)), (0x1b, (13, 0x18)), (0x48, (13, 0x48))] {
        let mut machine = with_handlers();
        let [low, high] = selector.to_le_bytes();
        machine.execute(&[0xea, 0x00, 0xa0, 0, 0, low, high], 1);
        assert_eq!(fault(&machine), expected, "{selector:#x}");
    }
}

/// A 32-bit TSS at 0x3000 with the stack of level 0 at 0x10:0x6000.
fn set_tss32(machine: &mut Machine) {
    machine.store(0x3004, 4, 0x6000);
    machine.store(0x3008, 4, 0x10);
    machine.cpu.tr = Segment { selector: 0x30, base: 0x3000, limit: 0x67, access: 0x8b };
}

#[test]
fn call_gate_switches_stack_and_copies_parameters() {
    let mut machine = with_handlers();
    // Call gate at 0x28: to 8:0xa000, 2 parameters, DPL 3.
    machine.gdt(&[0, CODE32, DATA, CODE32 | DPL3, DATA | DPL3, 0x0000_ec02_0008_a000]);
    set_tss32(&mut machine);
    machine.flat(3);
    machine.store(0x7000, 8, 0x2222_2222_1111_1111);
    machine.execute(&[0x9a, 0, 0, 0, 0, 0x2b, 0], 1);
    assert_eq!((machine.at(), machine.cpu.cpl, machine.cpu.segs[SS].selector), ((8, 0xa000), 0, 0x10));
    let pushed: Vec<u64> = (0..6).map(|i| machine.load(machine.cpu.regs[4] + 4 * i, 4)).collect();
    assert_eq!(pushed, [0x8007, 0x1b, 0x1111_1111, 0x2222_2222, 0x7000, 0x23]);
    machine.cpu.segs[DS] = machine.cpu.segs[SS];
    machine.execute(&[0xca, 8, 0], 1); // retf 8
    assert_eq!((machine.at(), machine.cpu.cpl), ((0x1b, 0x8007), 3));
    assert_eq!((machine.cpu.segs[SS].selector, machine.cpu.regs[4]), (0x23, 0x7008));
    assert_ne!(machine.cpu.segs[DS].access & UNUSABLE, 0, "a segment of level 0 is dropped");
}

#[test]
fn interrupt_with_a_bad_inner_stack_is_ts() {
    let mut machine = with_handlers();
    set_tss32(&mut machine);
    machine.store(0x3008, 4, 0x23);
    machine.idt(0x80, 8, 0xa000, 0xee);
    // The handler of #TS must not need the bad stack: a task-free way is the same level, so use a conforming handler.
    machine.gdt(&[0, CODE32, DATA, CODE32 | DPL3, DATA | DPL3, CODE32 | 1 << 42]);
    machine.idt(10, 0x28, 0x90a0, 0x8e);
    machine.flat(3);
    machine.execute(&[0xcd, 0x80], 1);
    assert_eq!((machine.at(), fault(&machine)), ((0x2b, 0x90a0), (10, 0x20)));
}

#[test]
fn syscall_and_sysret() {
    let mut machine = Machine::long();
    machine.cpu.write_msr(0xc000_0081, 0x0013_0008 << 32);
    machine.cpu.write_msr(0xc000_0082, 0xa000);
    machine.cpu.write_msr(0xc000_0084, flags::IF);
    machine.flat(3);
    machine.cpu.rip = 0x8000;
    machine.cpu.set_rflags(flags::IF | 2);
    machine.execute(&[0x0f, 0x05], 1);
    assert_eq!((machine.at(), machine.cpu.cpl, machine.cpu.rflags), ((8, 0xa000), 0, 2));
    assert_eq!((machine.cpu.regs[1], machine.cpu.regs[11]), (0x8002, 0x202));
    assert_eq!(machine.cpu.segs[SS].selector, 0x10);
    machine.execute(&[0x48, 0x0f, 0x07], 1);
    assert_eq!((machine.at(), machine.cpu.cpl, machine.cpu.rflags), ((0x23, 0x8002), 3, 0x202));
    assert_eq!(machine.cpu.segs[SS].selector, 0x1b);
}

#[test]
fn sysret_to_a_noncanonical_address_faults_at_level_0() {
    let mut machine = Machine::long();
    machine.idt(13, 8, 0x9000, 0x8e);
    machine.cpu.rip = 0x8000;
    machine.cpu.regs[1] = 1 << 63;
    machine.execute(&[0x48, 0x0f, 0x07], 1);
    assert_eq!((machine.at(), machine.cpu.cpl), ((8, 0x9000), 0));
}

#[test]
fn sysenter_and_sysexit() {
    let mut machine = Machine::protected();
    machine.cpu.write_msr(0x174, 8);
    machine.cpu.write_msr(0x175, 0x6000);
    machine.cpu.write_msr(0x176, 0xa000);
    machine.flat(3);
    machine.execute(&[0x0f, 0x34], 1);
    assert_eq!((machine.at(), machine.cpu.cpl, machine.cpu.regs[4]), ((8, 0xa000), 0, 0x6000));
    (machine.cpu.regs[2], machine.cpu.regs[1]) = (0x8002, 0x7000);
    machine.execute(&[0x0f, 0x35], 1);
    assert_eq!((machine.at(), machine.cpu.cpl, machine.cpu.regs[4]), ((0x1b, 0x8002), 3, 0x7000));
}

#[test]
fn privileged_instructions_fault_in_user_mode() {
    for code in [
        &[0xf4][..],         // hlt
        &[0x0f, 0x30],       // wrmsr
        &[0x0f, 0x22, 0xd8], // mov cr3
        &[0x0f, 0x01, 0x3b], // invlpg
        &[0x0f, 0x06],       // clts
        &[0x0f, 0x01, 0xf8], // swapgs
        &[0x0f, 0x00, 0xd8], // ltr ax
        &[0x0f, 0x01, 0x13], // lgdt
        &[0xfa],             // cli
        &[0xe4, 0x10],       // in al, 0x10
        &[0x0f, 0x08],       // invd
        &[0x0f, 0x21, 0xc0], // mov dr
        &[0x0f, 0x01, 0xf0], // lmsw ax
    ] {
        let mut machine = Machine::long();
        set_tss64(&mut machine);
        machine.idt(13, 8, 0x9000, 0x8e);
        machine.flat(3);
        machine.cpu.rip = 0x8000;
        machine.execute(code, 1);
        assert_eq!(machine.at(), (8, 0x9000), "{code:x?}");
        assert_eq!(machine.load(machine.cpu.regs[4] + 8, 8), 0x8000, "{code:x?}");
    }
}

#[test]
fn umip_keeps_descriptor_tables_from_users() {
    for (umip, expected) in [(0, (0x1b, 0x8003)), (1 << 11, (8, 0x9000))] {
        let mut machine = Machine::long();
        set_tss64(&mut machine);
        machine.idt(13, 8, 0x9000, 0x8e);
        machine.cpu.cr4 |= umip;
        machine.flat(3);
        machine.cpu.rip = 0x8000;
        machine.cpu.regs[3] = 0xa000;
        machine.execute(&[0x0f, 0x01, 0x03], 1); // sgdt [rbx]
        assert_eq!(machine.at(), expected);
    }
}

#[test]
fn io_bitmap_allows_ports_to_users() {
    for (port, allowed) in [(0x10u8, true), (0x11, false), (0xff, false)] {
        let mut machine = Machine::long();
        set_tss64(&mut machine);
        machine.store(0x3066, 2, 0x68);
        machine.store(0x3068, 8, 0xffff_ffff_fffe_ffff);
        machine.cpu.tr.limit = 0x6f;
        machine.idt(13, 8, 0x9000, 0x8e);
        machine.flat(3);
        machine.cpu.rip = 0x8000;
        machine.execute(&[0xe6, port], 1); // out port, al
        assert_eq!(machine.cpu.cpl == 3, allowed, "{port:#x}");
        assert_eq!(machine.bus.log().port_writes.len(), usize::from(allowed));
    }
}

#[test]
fn far_jump_enters_compatibility_and_64_bit_mode() {
    let mut machine = Machine::long();
    machine.gdt(&[0, CODE64, DATA, CODE32]);
    machine.cpu.rip = 0x8000;
    machine.write(0xa000, &[0x00, 0xb0, 0, 0, 0x18, 0]);
    machine.execute(&[0xff, 0x2c, 0x25, 0x00, 0xa0, 0, 0], 1); // jmp far [0xa000]
    assert_eq!((machine.at(), machine.mode()), ((0x18, 0xb000), crate::cpu::Mode::Compatibility));
    machine.execute(&[0xea, 0, 0xc0, 0, 0, 8, 0], 1);
    assert_eq!((machine.at(), machine.mode()), ((8, 0xc000), crate::cpu::Mode::Long64));
}

#[test]
fn lar_lsl_verr_verw() {
    let mut machine = with_handlers();
    machine.cpu.regs[1] = 0x10;
    machine.execute(&[0x0f, 0x02, 0xc1, 0x0f, 0x03, 0xd1, 0x0f, 0x00, 0xe9], 3); // lar eax, cx; lsl edx, cx; verw cx
    assert_eq!((machine.cpu.regs[0], machine.cpu.regs[2]), (0x00c0_9300, 0xffff_ffff));
    assert!(machine.cpu.flags.zf());
    machine.cpu.regs[1] = 8;
    machine.execute(&[0x0f, 0x00, 0xe9], 1); // verw of code
    assert!(!machine.cpu.flags.zf());
    machine.execute(&[0x0f, 0x00, 0xe1], 1); // verr of code
    assert!(machine.cpu.flags.zf());
    machine.cpu.regs[1] = 0x80;
    machine.execute(&[0x0f, 0x02, 0xc1], 1);
    assert!(!machine.cpu.flags.zf());
}
