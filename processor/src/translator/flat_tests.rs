//! 32-bit code with flat segments, and what is next to it.

use super::both::{CODE, DATA, Mode, machine};
use crate::segment::{BIG, DS, GS, SS};
use crate::testing::Machine;

const STACK: u64 = 0x7000;

/// Runs `code` until it halts, with both engines, from what `set` makes of the machine. Gives the translating one, and how many operations its
/// translations handed to the interpreter.
fn run(code: &[u8], set: impl Fn(&mut Machine)) -> (Machine, usize) {
    let run = |translator: bool| {
        let mut machine = machine(Mode::Protected, translator);
        machine.write(CODE, code);
        machine.cpu.rip = CODE;
        machine.cpu.regs[4] = STACK;
        machine.cpu.regs[6] = DATA;
        set(&mut machine);
        machine.run_to_halt(1000);
        machine
    };
    let (plain, translating) = (run(false), run(true));
    assert_eq!(plain.cpu.save(), translating.cpu.save());
    let memory = |machine: &Machine| {
        let mut bytes = vec![0; 0x1_0000];
        machine.cpu.ram.read(0, &mut bytes);
        bytes
    };
    assert!(memory(&plain) == memory(&translating), "memory differs");
    let interpreted = translating.code.translator.as_ref().map_or(0, |translator| translator.interpreted());
    (translating, interpreted)
}

#[test]
fn what_compilers_make_is_emitted() {
    if !super::supported() {
        return;
    }
    #[rustfmt::skip]
    let code = [
        0x6a, 5,                               // push 5
        0xe8, 1, 0, 0, 0,                      // call f
        0xf4,                                  // hlt
        0x55, 0x89, 0xe5,                      // f: push ebp; mov ebp, esp
        0x8b, 0x4d, 8,                         // mov ecx, [ebp + 8]
        0x31, 0xc0,                            // xor eax, eax
        0x01, 0x04, 0x8e,                      // again: add [esi + ecx * 4], eax
        0x40, 0x49,                            // inc eax; dec ecx
        0x75, 0xf9,                            // jnz again
        0xa3, 0x40, 0x90, 0, 0,                // mov [0x9040], eax
        0x65, 0x8b, 0x15, 0xfc, 0xff, 0xff, 0xff, // mov edx, gs:[-4]
        0x8d, 0x5c, 0x46, 0xf8,                // lea ebx, [esi + eax * 2 - 8]
        0xff, 0x75, 8, 0x5f,                   // push [ebp + 8]; pop edi
        0xc9, 0xc2, 4, 0,                      // leave; ret 4
    ];
    let (machine, interpreted) = run(&code, |machine| {
        machine.cpu.segs[GS].base = DATA + 0x44;
    });
    assert_eq!(machine.load(DATA + 0x40, 4), 5);
    assert_eq!(machine.cpu.regs[2], 5, "of the thread's own");
    assert_eq!((machine.cpu.regs[3], machine.cpu.regs[7], machine.cpu.regs[4]), (DATA + 2, 5, STACK));
    assert_eq!(interpreted, 1, "HLT alone");
}

#[test]
fn addresses_wrap_at_4_gib() {
    if !super::supported() {
        return;
    }
    // mov eax, [ebx + ecx * 4 + 0x10]; mov [ebx - 4], eax; hlt
    let (machine, interpreted) = run(&[0x8b, 0x44, 0x8b, 0x10, 0x89, 0x43, 0xfc, 0xf4], |machine| {
        machine.store(DATA, 4, 0x1234_5678);
        (machine.cpu.regs[3], machine.cpu.regs[1]) = (DATA + 0x40, 0x3fff_ffec);
        // Of 64-bit code that ran before.
        machine.cpu.regs[3] |= 0xffff_8000_0000_0000;
    });
    assert_eq!(machine.load(DATA + 0x3c, 4), 0x1234_5678);
    assert_eq!(interpreted, 1);
}

#[test]
fn limits_are_kept() {
    if !super::supported() {
        return;
    }
    // mov eax, gs:[ebx]; hlt: the last byte at the segment's end, or beyond.
    for (offset, vector) in [(0xffff_fffc, None), (0xffff_fffd, Some(13u8)), (0x1000, None)] {
        let (machine, _) = run(&[0x65, 0x8b, 0x03, 0xf4], |machine| {
            machine.cpu.regs[3] = offset;
            machine.cpu.segs[GS].base = DATA + 0x800;
            machine.write(0xb000, &[0xf4]);
        });
        assert_eq!(machine.cpu.rip, vector.map_or(CODE + 4, |_| 0xb001), "{offset:x}");
    }
    // The same with a limit, with a null selector; DS and SS that are not flat; a stack of 16 bits.
    let odd: [fn(&mut Machine); 5] = [
        |machine| machine.cpu.segs[GS].limit = 0x1002,
        |machine| machine.cpu.segs[GS].access |= crate::segment::UNUSABLE,
        |machine| machine.cpu.segs[DS].base = 0x10,
        |machine| machine.cpu.segs[SS].limit = 0x6ffe,
        |machine| machine.cpu.segs[SS].access &= !BIG,
    ];
    for set in odd {
        // push eax; mov eax, gs:[ebx]; mov [esi], eax; hlt
        run(&[0x50, 0x65, 0x8b, 0x03, 0x89, 0x06, 0xf4], |machine| {
            (machine.cpu.regs[3], machine.cpu.regs[4]) = (0x1000, 0x0001_7000);
            machine.cpu.segs[GS].base = DATA - 0x1000;
            machine.write(0xb000, &[0xf4]);
            set(machine);
            machine.cpu.mode_changed();
        });
    }
}

#[test]
fn a_branch_of_16_bits_leaves_its_block() {
    if !super::supported() {
        return;
    }
    // inc eax; jnz short, cut to 16 bits, over hlt; inc eax; hlt
    let (machine, _) = run(&[0x40, 0x66, 0x75, 1, 0xf4, 0x40, 0xf4], |_| {});
    assert_eq!(machine.cpu.regs[0], 2);
}
