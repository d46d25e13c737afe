//! Status flags that the manual leaves undefined. The interpreter chooses a value for each, and a translation has to give the same one wherever
//! somebody may read it: a later instruction, an exception that pushes RFLAGS, the comparison of two engines.
//!
//! One rule, whatever the host: an instruction is emitted as it is if the flags that it leaves undefined are overwritten before anything can read
//! them, or if [`super::probe`] has seen the host agree with the interpreter. Else shifts and rotates are emitted as two, the second by one,
//! for which OF is defined, products and bit scans get their flags computed, and what counts or cuts bits has them cleared; all others go to the
//! interpreter.
//!
//! AF is clear after a shift, but AMD's processors set it. Only what shows all flags can tell: so the translation remembers that AF is clear, whatever
//! the host's is ([`Builder::clear_af`]), says so where it leaves within the block ([`super::block::Site::clear_af`]), and clears it at the end.

use super::block::Builder;
use super::emit::{Opcode, R14, R15, RAX, RCX, Reg, Rm};
use super::generic::{integer, operand_size};
use super::host::Features;
use super::raw::Raw;
use super::state::State;
use crate::decode::cache::may_keep_flags;
use core::mem::offset_of;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, RflagsBits};

/// The six status flags, in iced's bits.
pub(super) const STATUS: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// How to emit an instruction that may leave flags undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undefined {
    /// As it is.
    Nothing,
    /// As two shifts, by one less than this number and by one.
    ByNumber(u8),
    /// By the number in CL, if that is not zero.
    ByCount {
        /// As two shifts.
        twice: bool,
        /// AF is to be cleared.
        clear_af: bool,
    },
    /// The flags of the product of so many bytes are to be computed.
    Product(usize),
    /// Those that it leaves undefined are to be cleared: others than these, in iced's bits.
    Cleared(u32),
    /// The same, but for ZF, and PF is to be the result's.
    Scan,
    /// Not at all.
    Interpreter,
}

/// Whether BT and kin, which keep the flags that they leave undefined, here and on every processor.
pub(super) fn keeps(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
}

fn is_shift(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Sal, Sar, Shl, Shr};
    matches!(mnemonic, Shl | Sal | Shr | Sar)
}

/// How far a shift by a number, or by one, goes.
fn immediate_count(i: &Instruction) -> u8 {
    i.immediate8() & if operand_size(i) == 8 { 63 } else { 31 }
}

/// Nothing but the flags that it reads depends on the flags before it, whoever executes it.
fn hides_flags(instruction: &Instruction, known: bool) -> bool {
    // Memory, control, debug and segment registers can bring an exception, which shows all flags.
    let plain = (0..instruction.op_count()).all(|operand| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_gpr(),
        OpKind::Immediate8
        | OpKind::Immediate16
        | OpKind::Immediate32
        | OpKind::Immediate64
        | OpKind::Immediate8to16
        | OpKind::Immediate8to32
        | OpKind::Immediate8to64
        | OpKind::Immediate32to64 => true,
        _ => false,
    });
    match instruction.mnemonic() {
        Mnemonic::Lea => known,
        mnemonic => known && plain && integer(mnemonic),
    }
}

/// Whether the flags after it, or those that it reads, must be the guest's to the last: it may end the block, or reads AF.
pub(super) fn shows_flags(i: &Instruction) -> bool {
    i.flow_control() != FlowControl::Next || matches!(i.mnemonic(), Mnemonic::Lahf | Mnemonic::Pushfq)
}

/// For each instruction of a block, which status flags may be read after it. `known`: the model has the instruction.
pub(super) fn live(instructions: &[Instruction], known: impl Fn(usize) -> bool, host: &Features) -> Vec<u32> {
    let mut live = STATUS;
    let mut after = vec![STATUS; instructions.len()];
    for (index, instruction) in instructions.iter().enumerate().rev() {
        after[index] = live;
        if !hides_flags(instruction, known(index)) {
            live = STATUS;
            continue;
        }
        let modified = instruction.rflags_modified();
        let overwritten = if may_keep_flags(instruction) {
            0
        } else if host.alike(instruction.mnemonic()) && !keeps(instruction.mnemonic()) {
            modified
        } else {
            modified & !instruction.rflags_undefined()
        };
        live = live & !overwritten | instruction.rflags_read() & STATUS;
    }
    after
}

/// What is to be done about the flags of `i`, of which `live` may be read.
pub(super) fn undefined(i: &Instruction, live: u32, host: &Features) -> Undefined {
    use Mnemonic::{Andn, Bextr, Blsi, Blsmsk, Blsr, Bsf, Bsr, Bzhi, Imul, Lzcnt, Mul, Rcl, Rcr, Rol, Ror, Tzcnt};
    let mnemonic = i.mnemonic();
    let shift = is_shift(mnemonic);
    let rotate = matches!(mnemonic, Rol | Ror | Rcl | Rcr);
    let undefined = i.rflags_undefined() | if rotate { RflagsBits::OF } else { 0 };
    if matches!(mnemonic, Mnemonic::Shld | Mnemonic::Shrd) && operand_size(i) == 2 {
        // By more than 16 the result is undefined too.
        if i.op2_kind() != OpKind::Immediate8 || i.immediate8() & 31 > 16 {
            return Undefined::Interpreter;
        }
    }
    if undefined & live & STATUS == 0 {
        return Undefined::Nothing;
    }
    if shift || rotate {
        let twice = live & RflagsBits::OF != 0 && !host.shifts_alike(mnemonic);
        if i.op1_kind() != OpKind::Immediate8 {
            // AF is left undefined by a shift by one too.
            let clear_af = shift && live & RflagsBits::AF != 0 && !host.alike(mnemonic);
            return match mnemonic {
                _ if !twice && !clear_af => Undefined::Nothing,
                // By 0 modulo 9 or 17 they keep OF.
                Rcl | Rcr => Undefined::Interpreter,
                _ => Undefined::ByCount { twice, clear_af },
            };
        }
        return match immediate_count(i) {
            0 | 1 => Undefined::Nothing,
            _ if !twice => Undefined::Nothing,
            _ if matches!(mnemonic, Rcl | Rcr) => Undefined::Interpreter,
            number => Undefined::ByNumber(number),
        };
    }
    if host.alike(mnemonic) {
        return Undefined::Nothing;
    }
    match mnemonic {
        Mul | Imul => Undefined::Product(operand_size(i)),
        Tzcnt | Lzcnt | Andn | Blsr | Blsmsk | Blsi | Bextr | Bzhi => Undefined::Cleared(STATUS & !undefined),
        Bsf | Bsr => Undefined::Scan,
        _ => Undefined::Interpreter,
    }
}

/// The opcodes of a shift's or rotate's forms: by a number, by CL, by one.
fn forms(raw: &Raw<'_>) -> (&'static [u8], &'static [u8], &'static [u8]) {
    let odd = raw.opcode.last().copied().unwrap_or(1) & 1;
    if odd == 0 { (&[0xc0], &[0xd2], &[0xd0]) } else { (&[0xc1], &[0xd3], &[0xd1]) }
}

impl Builder<'_> {
    /// What is known of AF after `i`, which was emitted.
    pub(super) fn note_af(&mut self, i: &Instruction) {
        use Mnemonic::{Div, Idiv, Mov};
        if is_shift(i.mnemonic()) {
            if i.op1_kind() == OpKind::Immediate8 {
                self.clear_af |= immediate_count(i) != 0 && !self.host.alike(i.mnemonic());
            }
        } else if i.rflags_modified() & RflagsBits::AF != 0
            && !keeps(i.mnemonic())
            // Of MOV, those of control registers, after which the manual has all flags undefined.
            && !matches!(i.mnemonic(), Div | Idiv | Mov)
        {
            self.clear_af = false;
        }
    }

    /// The host's AF becomes the guest's.
    pub(super) fn settle_af(&mut self) {
        if std::mem::take(&mut self.clear_af) {
            self.make_af_clear();
        }
    }

    /// Clears AF and keeps the other status flags.
    fn make_af_clear(&mut self) {
        let home = offset_of!(State, spill) as i32;
        self.code.keep_flags(home);
        self.code.raw(&[0x80, 0xe4, 0xef]); // and ah, !AF
        self.code.give_flags_back(home);
    }

    /// Emits a shift or rotate by `number` as two, each by `emit`.
    pub(super) fn shift_twice(&mut self, number: u8, raw: &Raw<'_>, mut emit: impl FnMut(&mut Self, &Raw<'_>)) {
        let (by_number, _, by_one) = forms(raw);
        emit(self, &raw.with(by_number, &[number - 1]));
        emit(self, &raw.with(by_one, &[]));
    }

    /// Emits a shift or rotate by the number in RCX, which is masked, if that is not zero.
    pub(super) fn shift_by_count(
        &mut self,
        twice: bool,
        clear_af: bool,
        raw: &Raw<'_>,
        mut emit: impl FnMut(&mut Self, &Raw<'_>),
    ) {
        let (_, by_count, by_one) = forms(raw);
        // No flag changes if it is zero.
        let skip = self.code.skip_if_rcx_zero();
        if twice {
            self.code.lea(RCX, Rm::Base(RCX, -1));
        }
        emit(self, &raw.with(by_count, &[]));
        if twice {
            emit(self, &raw.with(by_one, &[]));
        }
        // Where it is known to be clear before, it is so in any case.
        if clear_af && !self.clear_af {
            self.make_af_clear();
        }
        self.code.fix_skip(skip);
    }

    /// Clears the status flags but for `kept`, in iced's bits.
    pub(super) fn clear_flags(&mut self, kept: u32) {
        const PLACES: [(u32, u8); 5] = [
            (RflagsBits::SF, 0x80),
            (RflagsBits::ZF, 0x40),
            (RflagsBits::AF, 0x10),
            (RflagsBits::PF, 4),
            (RflagsBits::CF, 1),
        ];
        let mask: u8 = PLACES.iter().filter(|(flag, _)| kept & flag != 0).map(|(_, bit)| bit).sum();
        let home = offset_of!(State, spill) as i32;
        self.code.keep_flags(home);
        self.code.raw(&[0x80, 0xe4, mask]); // and ah, mask
        if kept & RflagsBits::OF == 0 {
            self.code.raw(&[0xb0, 0]); // mov al, 0
        }
        self.code.give_flags_back(home);
    }

    /// Computes the flags of a bit scan from ZF and its result in `result`: of a source that is zero PF is set, else it is the result's. All others
    /// are clear.
    pub(super) fn scan_flags(&mut self, result: Reg) {
        let code = &mut self.code;
        code.store(Rm::Reg(R15), result);
        code.raw(&[0x0f, 0x94, 0xc1]); // sete cl
        code.store(Rm::Reg(R14), RAX);
        code.raw(&[0x45, 0x84, 0xff]); // test r15b, r15b
        code.raw(&[0x9f]); // lahf
        code.raw(&[0x80, 0xe4, 4]); // and ah, PF
        code.raw(&[0xf6, 0xd9]); // neg cl
        code.raw(&[0x80, 0xe1, 0x44]); // and cl, ZF | PF
        code.raw(&[0x08, 0xcc]); // or ah, cl
        code.raw(&[0xb0, 0]); // mov al, 0
        code.raw(&[0x04, 0x7f, 0x9e]); // add al, 0x7f; sahf
        code.store(Rm::Reg(RAX), R14);
    }

    /// Computes the flags of a product from CF and its low half in `low`: SF and PF are those of the low half, ZF and AF are clear.
    pub(super) fn product_flags(&mut self, low: Reg, size: usize) {
        let code = &mut self.code;
        code.store(Rm::Reg(R15), low);
        code.raw(&[0x0f, 0x92, 0xc1]); // setc cl
        code.store(Rm::Reg(R14), RAX);
        let prefixes: &[u8] = if size == 2 { &[0x66] } else { &[] };
        let bytes: &[u8] = if size == 1 { &[0x84] } else { &[0x85] };
        code.op(Opcode { prefixes, wide: size == 8, rex: false, bytes }, R15, Rm::Reg(R15)); // test r15, r15
        code.raw(&[0x9f]); // lahf
        code.raw(&[0x80, 0xe4, 0x84]); // and ah, SF | PF
        code.raw(&[0x08, 0xcc]); // or ah, cl
        code.raw(&[0x88, 0xc8]); // mov al, cl
        code.raw(&[0x04, 0x7f, 0x9e]); // add al, 0x7f; sahf
        code.store(Rm::Reg(RAX), R14);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::LateFlags;
    use iced_x86::{Decoder, DecoderOptions};

    /// What may be read after the first of two instructions.
    fn live_after_first(code: &[u8]) -> u32 {
        let instructions: Vec<_> = Decoder::new(64, code, DecoderOptions::NONE).into_iter().collect();
        assert_eq!(instructions.len(), 2);
        live(&instructions, |_| true, &Features::of_host().unlike())[0]
    }

    #[test]
    fn an_exception_may_show_the_flags_before_what_overwrites_them() {
        assert_eq!(live_after_first(&[0xd3, 0xd8, 0x0d, 1, 0, 0, 0]), RflagsBits::AF, "rcr eax, cl; or eax, 1");
        assert_eq!(live_after_first(&[0xd3, 0xd8, 0x0b, 0x03]), STATUS, "rcr eax, cl; or eax, [rbx]");
        // mov and or with CR0, DR4, DS: then whatever comes next.
        for other in [&[0x0f, 0x20, 0xc0][..], &[0x0f, 0x21, 0xe4], &[0x8e, 0xd8]] {
            assert_eq!(live_after_first(&[&[0xd3, 0xd8][..], other].concat()), STATUS, "{other:x?}");
        }
    }

    /// All flags after shifts of all forms and what scans, counts and cuts bits, where they are seen: by an exception, by the interpreter, by LAHF,
    /// by whoever comes after the block.
    #[test]
    fn undefined_flags_are_the_interpreters() {
        use super::super::both::{CODE, Case, Mode, Random, machine, outcome_after};
        if !super::super::supported() {
            return;
        }
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        // MOV RAX, [R8], not canonical; CPUID; LAHF; JMP; ADC AL, AL and the first again; MOV DX, [R8]; MOV RAX, CR3.
        let seen: [&[u8]; 7] = [
            &[0x49, 0x8b, 0x00],
            &[0x0f, 0xa2],
            &[0x9f],
            &[0xeb, 0],
            &[0x10, 0xc0, 0x49, 0x8b, 0x00],
            &[0x66, 0x41, 0x8b, 0x10],
            &[0x0f, 0x20, 0xd8],
        ];
        let (mut plain, mut translating) = (machine(Mode::Long64, false), machine(Mode::Long64, true));
        let start = plain.cpu.save();
        for _ in 0..8000 {
            let mut one = |bytes: &mut Vec<u8>| {
                let modrm = 0xc0 | (random.next() as u8 & 0x3f);
                let kind = random.below(5);
                if kind == 4 {
                    // BLSR, BLSMSK, BLSI, ANDN, BEXTR, BZHI.
                    let (opcode, reg) =
                        [(0xf3, 1), (0xf3, 2), (0xf3, 3), (0xf2, 0), (0xf7, 0), (0xf5, 0)][random.below(6) as usize];
                    let modrm = if opcode == 0xf3 { modrm & !0x38 | reg << 3 } else { modrm };
                    let (high, third) = (random.next() as u8 & 0xa0 | 0x42, random.next() as u8 & 0xf8);
                    return bytes.extend([0xc4, high, third, opcode, modrm]);
                }
                if kind == 3 && random.below(2) == 0 {
                    bytes.push(0xf3);
                }
                bytes.extend([&[][..], &[0x66], &[0x48], &[0x4d]][random.below(4) as usize]);
                match kind {
                    3 => bytes.extend([0x0f, 0xbc | (random.next() as u8 & 1), modrm]),
                    0 => bytes.extend([0xc0 | (random.next() as u8 & 1), modrm, random.next() as u8]),
                    1 => bytes.extend([0xd0 | (random.next() as u8 & 1), modrm]),
                    _ => bytes.extend([0xd2 | (random.next() as u8 & 1), modrm]),
                }
            };
            let mut bytes = Vec::new();
            one(&mut bytes);
            one(&mut bytes);
            bytes.extend(seen[random.below(7) as usize]);
            plain.cpu.restore(&start);
            let cpu = &mut plain.cpu;
            cpu.rip = CODE;
            cpu.regs[..16].iter_mut().for_each(|register| *register = random.operand(true));
            (cpu.regs[1], cpu.regs[4], cpu.regs[8]) = (random.below(70), 0x7000, 1 << 63);
            cpu.flags = LateFlags::from_bits(random.next() & 0x8d5);
            let case = Case { bytes, state: plain.cpu.save(), data: Vec::new() };
            let (ours, theirs) = (outcome_after(&mut plain, &case, 8), outcome_after(&mut translating, &case, 8));
            assert!(
                ours == theirs,
                "{:02x?}: flags {:x}, translated {:x}",
                case.bytes,
                plain.cpu.flags.bits(),
                translating.cpu.flags.bits()
            );
        }
    }
}
