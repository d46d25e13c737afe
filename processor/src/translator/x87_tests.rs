//! Every x87 instruction, with registers of all kinds, by both engines: they agree to the last bit.

use super::both::{CODE, Case, DATA, Mode, Random, machine, outcome};
use crate::flags::LateFlags;
use crate::x87::X87;
use iced_x86::{Decoder, DecoderOptions};
use softfloat::F80;
use std::collections::BTreeMap;

fn number(random: &mut Random) -> F80 {
    const EXPONENTS: [u16; 10] = [0, 0x7fff, 0x3fff, 0x4000, 0x3ffe, 1, 0x7ffe, 0x403d, 0x401e, 0x3bff];
    const SIGNIFICANDS: [u64; 8] =
        [0, 1 << 63, 3 << 62, 0xc000_0000_0000_0001, u64::MAX, 1, 0x8000_0000_0000_0001, 0xffff_ffff_0000_0000];
    let exponent = match random.below(3) {
        0 => EXPONENTS[random.below(10) as usize],
        1 => 0x3fff - 40 + random.below(80) as u16,
        _ => random.below(0x8000) as u16,
    };
    let significand = match random.below(3) {
        0 => SIGNIFICANDS[random.below(8) as usize],
        1 => random.next() | 1 << 63,
        _ => random.next() & 0xffff_0000_0000_0000 | 1 << 63,
    };
    F80 { significand, sign_exponent: exponent | (random.next() as u16 & 0x8000) }
}

fn state(random: &mut Random) -> X87 {
    let mut x87 = X87::initial();
    x87.regs = core::array::from_fn(|_| number(random));
    x87.valid = if random.below(3) == 0 { random.next() as u8 } else { 0xff };
    x87.set_control(if random.below(2) == 0 { 0x37f } else { random.next() as u16 & 0xf00 | 0x3f });
    x87.set_status(random.next() as u16 & 0x7f7f);
    (x87.fop, x87.fip, x87.fdp) = (0x123, 0x4567, 0x89ab);
    x87
}

#[test]
fn x87_instructions_are_the_same_translated() {
    compare(Mode::Long64);
    compare(Mode::Protected);
}

fn compare(mode: Mode) {
    if !super::supported() {
        return;
    }
    // More with, say, ROUNDS=100.
    let rounds = std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let (mut plain, mut translating) = (machine(mode, false), machine(mode, true));
    let start = plain.cpu.save();
    let (mut emitted, mut different) = (BTreeMap::new(), BTreeMap::new());
    for round in 0..rounds {
        for number in 0..8 * 256 + 1 {
            // Memory operands are at [rsi].
            let modrm = number as u8;
            let modrm = if modrm < 0xc0 { modrm & 0x38 | 6 } else { modrm };
            let bytes = if number == 8 * 256 { vec![0x9b] } else { vec![0xd8 | (number >> 8) as u8, modrm] };
            let instruction = Decoder::with_ip(mode.bits(), &bytes, CODE, DecoderOptions::NONE).decode();
            if instruction.is_invalid() || instruction.mnemonic() == iced_x86::Mnemonic::Wait && bytes.len() > 1 {
                continue;
            }
            plain.cpu.restore(&start);
            let cpu = &mut plain.cpu;
            cpu.rip = CODE;
            cpu.regs[6] = DATA + [0x100, 0x101, 0xff0 + random.below(16)][random.below(3) as usize];
            cpu.flags = LateFlags::from_bits(random.next() & 0x8d5);
            cpu.x87 = state(&mut random);
            let before = cpu.x87.clone();
            let state = cpu.save();
            let wide = random.below(2) == 0;
            let data = (0..0x1200 / 8).flat_map(|_| random.operand(wide).to_le_bytes()).collect();
            let case = Case { bytes, state, data };
            let interpreted =
                |machine: &crate::testing::Machine| machine.code.translator.as_ref().unwrap().interpreted();
            let ops = interpreted(&translating);
            let (wanted, got) = (outcome(&mut plain, &case), outcome(&mut translating, &case));
            if interpreted(&translating) == ops {
                *emitted.entry(format!("{:?}", instruction.code())).or_insert(0) += 1;
            }
            if wanted != got {
                let entry = different.entry(format!("{:?}", instruction.code())).or_insert((0, String::new()));
                entry.0 += 1;
                let (a, b) = (&plain.cpu, &translating.cpu);
                entry.1 = format!(
                    "round {round} {:02x?}\n  before {before:x?}\n  {:x?} {:x}\n  {:x?} {:x}\n",
                    case.bytes,
                    a.x87,
                    a.flags.bits(),
                    b.x87,
                    b.flags.bits()
                );
            }
        }
    }
    eprintln!("emitted {} codes", emitted.len());
    for (code, (count, text)) in &different {
        eprintln!("DIFFERENT {code} {count}: {text}");
    }
    assert!(different.is_empty());
    assert!(emitted.len() > 80);
}
