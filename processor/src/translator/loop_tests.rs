//! Loops, by both engines.

use super::both::{CODE, Case, DATA, Mode, Random, machine, outcome_after};
use super::state::BLOCKS;
use crate::testing::Machine;

/// RSI and RDI: where the first page of data ends after so many quadwords, and 1000 bytes beyond.
const FIRST: u64 = DATA + 0x1000 - 64 * 8;

/// How many state blocks were in a loop.
fn looped(machine: &mut Machine) -> usize {
    let blocks = machine.cpu.tlb.native.as_mut().unwrap();
    (0..BLOCKS).filter(|&index| blocks.get(index).loop_end != 0).count()
}

/// `code` for so many instructions each, from random states, by both engines: they agree, and the loop was used, which it cannot be in a first run
/// without jumps to the block. Gives the interpreting one.
fn compare(mode: Mode, code: &[u8], lengths: impl Iterator<Item = u64>) -> Machine {
    let (mut plain, mut translating) = (machine(mode, false), machine(mode, true));
    let mut random = Random(0x1234_5678_9abc_def1);
    let start = plain.cpu.save();
    let mut used = false;
    for length in lengths {
        plain.cpu.restore(&start);
        let cpu = &mut plain.cpu;
        cpu.rip = CODE;
        (cpu.regs[0], cpu.regs[1], cpu.regs[4], cpu.regs[6], cpu.regs[7]) = (200, 0, 0x7000, FIRST, FIRST + 1000);
        for register in &mut cpu.ymm {
            *register = core::array::from_fn(|_| random.operand(true));
        }
        cpu.ymm[1][0] = 0;
        let state = plain.cpu.save();
        let mut data: Vec<u8> = (0..0x2000 / 8).flat_map(|_| random.operand(true).to_le_bytes()).collect();
        data[..4].copy_from_slice(&0x1d80_u32.to_le_bytes());
        let case = Case { bytes: code.to_vec(), state, data };
        let wanted = outcome_after(&mut plain, &case, length);
        assert!(wanted == outcome_after(&mut translating, &case, length), "after {length}");
        used |= looped(&mut translating) != 0;
    }
    assert!(used, "no loop was entered");
    plain
}

#[test]
fn rounds_end_with_the_page_the_budget_or_the_loop() {
    if !super::supported() {
        return;
    }
    #[rustfmt::skip]
    let wide = [
        0xf2, 0x0f, 0x10, 0x44, 0xce, 8,       // movsd xmm0, [rsi + rcx * 8 + 8]
        0xf2, 0x0f, 0x58, 0x04, 0xce,          // addsd xmm0, [rsi + rcx * 8]
        0xf2, 0x0f, 0x11, 0x44, 0xcf, 0xf0,    // movsd [rdi + rcx * 8 - 16], xmm0
        0x48, 0x83, 0xc1, 1,                   // add rcx, 1
        0x4c, 0x03, 0x24, 0x24,                // add r12, [rsp]
        0x48, 0x81, 0xf9, 0xc8, 0, 0, 0,       // cmp rcx, 200
        0x75, 0xde,                            // jne movsd
    ];
    compare(Mode::Long64, &wide, (1..1500).step_by(7));
    #[rustfmt::skip]
    let narrow = [
        0x8b, 0x54, 0xce, 8,                   // mov edx, [esi + ecx * 8 + 8]
        0x03, 0x17,                            // add edx, [edi]
        0x66, 0x0f, 0x6f, 0x06,                // movdqa xmm0, [esi]
        0x89, 0x57, 0xfe,                      // mov [edi - 2], edx
        0x83, 0xc7, 0xfc,                      // add edi, -4
        0x83, 0xc1, 3,                         // add ecx, 3
        0x48,                                  // dec eax
        0x75, 0xea,                            // jnz mov
    ];
    compare(Mode::Protected, &narrow, (1..1500).step_by(7));
}

#[test]
fn what_is_not_known_in_advance_leaves_the_round() {
    if !super::supported() {
        return;
    }
    #[rustfmt::skip]
    let code = [
        0x48, 0x0f, 0xb6, 0x16,                // movzx rdx, byte [rsi]
        0xf2, 0x0f, 0x58, 0x04, 0xd7,          // addsd xmm0, [rdi + rdx * 8]
        0x49, 0xd3, 0xe0,                      // shl r8, cl
        0x48, 0xff, 0xc6,                      // inc rsi
        0x48, 0x83, 0xef, 16,                  // sub rdi, 16
        0x48, 0xff, 0xc8,                      // dec rax
        0x75, 0xe8,                            // jnz movzx
    ];
    compare(Mode::Long64, &code, (1..1400).step_by(11));
}

#[test]
fn what_changes_behind_the_loop_is_seen_by_the_next() {
    if !super::supported() {
        return;
    }
    #[rustfmt::skip]
    let alignment = [
        0x0f, 0x28, 0x06,                      // movaps xmm0, [rsi]
        0x48, 0x83, 0xc6, 0x10,                // add rsi, 16
        0xff, 0xc8,                            // dec eax
        0x75, 0xf5,                            // jnz movaps
        0x48, 0x81, 0xee, 0x44, 2, 0, 0,       // sub rsi, 0x244
        0xb0, 20,                              // mov al, 20
        0xeb, 0xea,                            // jmp movaps
    ];
    let machine = compare(Mode::Long64, &alignment, [300, 900].into_iter());
    assert_eq!(machine.load(machine.cpu.regs[4], 8), 0, "the error code of #GP");
    #[rustfmt::skip]
    let code = [
        0x48, 0x83, 0xc2, 1,                   // add rdx, 1
        0xff, 0xc8,                            // dec eax
        0x75, 0xf8,                            // jnz add
        0xbf, 3, 0x80, 0, 0,                   // mov edi, CODE + 3
        0xb0, 2, 0xaa,                         // mov al, 2; stosb
        0xb0, 20,                              // mov al, 20
        0xeb, 0xec,                            // jmp add
    ];
    compare(Mode::Long64, &code, [300, 900].into_iter());
    #[rustfmt::skip]
    let exceptions = [
        0xf2, 0x0f, 0x5e, 0xc1,                // divsd xmm0, xmm1
        0xff, 0xc8,                            // dec eax
        0x75, 0xf8,                            // jnz divsd
        0x0f, 0xae, 0x14, 0x25, 0, 0x90, 0, 0, // ldmxcsr [DATA]
        0xb0, 20,                              // mov al, 20
        0xeb, 0xec,                            // jmp divsd
    ];
    compare(Mode::Long64, &exceptions, [300, 700].into_iter());
}
