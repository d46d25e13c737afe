//! Every encoding of every vector instruction, with operands of all kinds, by both engines: they agree to the last bit.

use super::both::{CODE, Case, DATA, Mode, Random, machine, outcome};
use crate::flags::LateFlags;
use iced_x86::{Code, Decoder, DecoderOptions};
use std::collections::BTreeMap;

/// Encodings: legacy and VEX, all maps, opcodes and prefixes.
fn encodings(random: &mut Random, mode: Mode) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for map in 1..=3u8 {
        for opcode in 0..=255u8 {
            for form in 0..32u8 {
                let (pp, wide, long, memory) = (form & 3, form & 4 != 0, form & 8 != 0, form & 16 != 0);
                for vex in [false, true] {
                    let rex = if mode == Mode::Long64 { random.next() as u8 & 5 } else { 0 };
                    let modrm = random.next() as u8;
                    let modrm = if memory { modrm & 0x38 | 6 } else { modrm | 0xc0 };
                    let rex = if memory { rex & 4 } else { rex };
                    let mut bytes = Vec::new();
                    if vex {
                        let v = if random.below(2) == 0 { 0 } else { random.next() as u8 & 15 };
                        let first = (!rex & 4) << 5 | 0x40 | (!rex & 1) << 5 | map;
                        bytes.extend([0xc4, first, u8::from(wide) << 7 | (!v & 15) << 3 | u8::from(long) << 2 | pp]);
                    } else if long {
                        continue;
                    } else {
                        bytes.extend([None, Some(0x66), Some(0xf3), Some(0xf2)][pp as usize]);
                        if mode == Mode::Long64 {
                            bytes.push(0x40 | u8::from(wide) << 3 | rex);
                        }
                        bytes.push(0x0f);
                        bytes.extend([None, None, Some(0x38), Some(0x3a)][map as usize]);
                    }
                    bytes.extend([opcode, modrm, random.next() as u8]);
                    all.push(bytes);
                }
            }
        }
    }
    all
}

fn decode(bytes: &[u8], mode: Mode) -> Option<(Code, usize)> {
    let instruction = Decoder::with_ip(mode.bits(), bytes, CODE, DecoderOptions::NONE).decode();
    let vector = (0..instruction.op_count()).any(|operand| {
        let register = instruction.op_register(operand);
        register.is_xmm() || register.is_ymm()
    });
    let vector = vector || super::vector::without_operands(instruction.mnemonic());
    (!instruction.is_invalid() && vector).then_some((instruction.code(), instruction.len()))
}

fn compare(mode: Mode, rounds: usize, seed: u64) {
    if !super::supported() {
        return;
    }
    let mut random = Random(seed);
    let (mut plain, mut translating) = (machine(mode, false), machine(mode, true));
    let start = plain.cpu.save();
    let (mut emitted, mut left): (BTreeMap<String, u32>, BTreeMap<String, u32>) = Default::default();
    let mut different = BTreeMap::new();
    for round in 0..rounds {
        for mut bytes in encodings(&mut random, mode) {
            let Some((code, length)) = decode(&bytes, mode) else { continue };
            bytes.truncate(length);
            let wide = random.below(2) == 0;
            plain.cpu.restore(&start);
            let cpu = &mut plain.cpu;
            cpu.rip = CODE;
            for register in &mut cpu.regs[..16] {
                *register = random.operand(wide);
            }
            cpu.regs[4] = 0x7000;
            // Aligned, not aligned, or across pages.
            let place = [0x100, 0x100, 0x100, 0x100 + random.below(64), 0xff0 + random.below(16)];
            cpu.regs[6] = DATA + place[random.below(5) as usize];
            for register in &mut cpu.ymm {
                *register = core::array::from_fn(|_| random.operand(wide));
            }
            if random.below(4) == 0 {
                cpu.ymm[1] = cpu.ymm[2];
            }
            cpu.mxcsr = 0x1f80 | (random.next() as u32 & 0xe07f);
            if random.below(2) == 0 {
                cpu.mxcsr = 0x1f80;
            }
            cpu.flags = LateFlags::from_bits(random.next() & 0x8d5);
            let state = plain.cpu.save();
            let before = (plain.cpu.mxcsr, plain.cpu.ymm);
            let data = (0..0x1200 / 8).flat_map(|_| random.operand(wide).to_le_bytes()).collect();
            let case = Case { bytes, state, data };
            let ops = translating.code.translator.as_ref().map_or(0, |translator| translator.interpreted());
            let wanted = outcome(&mut plain, &case);
            let got = outcome(&mut translating, &case);
            let after = translating.code.translator.as_ref().map_or(0, |translator| translator.interpreted());
            *if after == ops { &mut emitted } else { &mut left }.entry(format!("{code:?}")).or_default() += 1;
            if wanted != got {
                let mut text = String::new();
                for i in 0..16 {
                    let (a, b) = (plain.cpu.ymm[i], translating.cpu.ymm[i]);
                    if a != b {
                        text += &format!("  ymm{i} {a:x?}, translated {b:x?}\n");
                    }
                }
                text += &format!(
                    "  mxcsr {:x} {:x} from {:x}; rip {:x} {:x}; flags {:x} {:x}; operands {:x?}\n",
                    plain.cpu.mxcsr,
                    translating.cpu.mxcsr,
                    before.0,
                    plain.cpu.rip,
                    translating.cpu.rip,
                    plain.cpu.flags.bits(),
                    translating.cpu.flags.bits(),
                    before.1
                );
                let entry = different.entry(format!("{code:?}")).or_insert((0, String::new()));
                entry.0 += 1;
                entry.1 = format!("round {round} {:02x?}\n{text}", case.bytes);
            }
        }
    }
    eprintln!("emitted {} codes; left to the interpreter: {:?}", emitted.len(), left.keys());
    for (code, (count, text)) in &different {
        eprintln!("DIFFERENT {code} {count}: {text}");
    }
    assert!(different.is_empty());
    assert!(emitted.len() > 500);
}

#[test]
fn vector_instructions_are_the_same_translated() {
    // More with, say, ROUNDS=100.
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    compare(Mode::Long64, rounds, 0x1234_5678_9abc_def1);
    compare(Mode::Protected, rounds, 0x1234_5678_9abc_def1);
}

/// The upper halves are loaded where one of them is not zero, and zero where none is, whatever the host's were.
#[test]
fn upper_halves_come_and_are_kept() {
    if !super::supported() {
        return;
    }
    let (mut plain, mut translating) = (machine(Mode::Long64, false), machine(Mode::Long64, true));
    let only = |register: usize, quadword: usize| {
        let mut ymm = [[0; 4]; 16];
        ymm[register][quadword] = 1 << (quadword * 20);
        ymm
    };
    let each = (0..16).flat_map(|register| [2, 3].map(|quadword| only(register, quadword)));
    for ymm in [[[7; 4]; 16]].into_iter().chain(each).chain([[[7; 4]; 16], [[0; 4]; 16]]) {
        // addpd xmm0, xmm1; vaddpd ymm2, ymm3, ymm4
        for bytes in [&[0x66, 0x0f, 0x58, 0xc1][..], &[0xc5, 0xe5, 0x58, 0xd4]] {
            (plain.cpu.rip, plain.cpu.ymm) = (CODE, ymm);
            let case = Case { bytes: bytes.to_vec(), state: plain.cpu.save(), data: Vec::new() };
            let wanted = outcome(&mut plain, &case);
            assert!(wanted == outcome(&mut translating, &case), "{ymm:x?}");
            assert!(plain.cpu.ymm[5..] == ymm[5..]);
        }
    }
}
