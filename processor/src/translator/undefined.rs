//! Status flags that the manual leaves undefined. The interpreter chooses a value for each, and a translation has to give the same one wherever
//! somebody may read it: a later instruction, an exception that pushes RFLAGS, the comparison of two engines.
//!
//! One rule, whatever the host: an instruction is emitted as it is if the flags that it leaves undefined are overwritten before anything can read
//! them, or if [`super::probe`] has seen the host agree with the interpreter. Else shifts and rotates are emitted as two, the second by one,
//! for which OF is defined, AF is cleared after shifts (AMD's processors set it), and products get their flags computed; all others go to the
//! interpreter.

use super::block::Builder;
use super::emit::{Opcode, R14, R15, RAX, RCX, Reg, Rm};
use super::generic::{integer, operand_size};
use super::host::Features;
use super::raw::Raw;
use super::state::State;
use crate::decode::cache::may_keep_flags;
use core::mem::offset_of;
use iced_x86::{Instruction, Mnemonic, OpKind, RflagsBits};

/// The six status flags, in iced's bits.
pub(super) const STATUS: u32 =
    RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;

/// How to emit an instruction that may leave flags undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undefined {
    /// As it is.
    Nothing,
    /// As it is, a shift by one, and then AF cleared.
    ByOne,
    /// As two shifts, by one less than this number and by one.
    ByNumber {
        /// How far.
        number: u8,
        /// AF is to be cleared.
        clear_af: bool,
    },
    /// The same, by the number in CL.
    ByCount {
        /// The same.
        clear_af: bool,
    },
    /// The flags of the product of so many bytes are to be computed.
    Product(usize),
    /// Not at all.
    Interpreter,
}

/// Whether BT and kin, which keep the flags that they leave undefined, here and on every processor.
pub(super) fn keeps(mnemonic: Mnemonic) -> bool {
    matches!(mnemonic, Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
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
    use Mnemonic::{Imul, Mul, Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shr};
    let mnemonic = i.mnemonic();
    let shift = matches!(mnemonic, Shl | Sal | Shr | Sar);
    let rotate = matches!(mnemonic, Rol | Ror | Rcl | Rcr);
    let undefined = i.rflags_undefined() | if rotate { RflagsBits::OF } else { 0 };
    if undefined & live & STATUS == 0 {
        return Undefined::Nothing;
    }
    if shift || rotate {
        // AF is left undefined by a shift by one too.
        let clear_af = shift && live & RflagsBits::AF != 0 && !host.alike(mnemonic);
        if i.op1_kind() != OpKind::Immediate8 {
            // RCL and RCR by 0 modulo 9 or 17 keep OF.
            return if matches!(mnemonic, Rcl | Rcr) {
                Undefined::Interpreter
            } else {
                Undefined::ByCount { clear_af }
            };
        }
        return match i.immediate8() & if operand_size(i) == 8 { 63 } else { 31 } {
            1 if clear_af => Undefined::ByOne,
            0 | 1 => Undefined::Nothing,
            _ if matches!(mnemonic, Rcl | Rcr) => Undefined::Interpreter,
            number => Undefined::ByNumber { number, clear_af },
        };
    }
    if host.alike(mnemonic) {
        return Undefined::Nothing;
    }
    match mnemonic {
        Mul | Imul => Undefined::Product(operand_size(i)),
        _ => Undefined::Interpreter,
    }
}

impl Builder<'_> {
    /// Emits a shift or rotate as two, each by `emit`, by a number or by that in RCX, which is masked; for the latter AF is cleared, if `clear_af`.
    pub(super) fn shift_twice(
        &mut self,
        number: Option<u8>,
        clear_af: bool,
        raw: &Raw<'_>,
        mut emit: impl FnMut(&mut Self, &Raw<'_>),
    ) {
        let odd = raw.opcode.last().copied().unwrap_or(1) & 1;
        let (by_number, by_count, by_one): (&[u8], &[u8], &[u8]) =
            if odd == 0 { (&[0xc0], &[0xd2], &[0xd0]) } else { (&[0xc1], &[0xd3], &[0xd1]) };
        let last = raw.with(by_one, &[]);
        if let Some(number) = number {
            emit(self, &raw.with(by_number, &[number - 1]));
            return emit(self, &last);
        }
        // No flag changes if it is zero.
        let skip = self.code.skip_if_rcx_zero();
        self.code.lea(RCX, Rm::Base(RCX, -1));
        emit(self, &raw.with(by_count, &[]));
        emit(self, &last);
        if clear_af {
            // R14 may have the result.
            self.clear_af(Rm::state(offset_of!(State, spill)));
        }
        self.code.fix_skip(skip);
    }

    /// Clears AF and keeps the other status flags. RAX is meanwhile in `scratch`.
    pub(super) fn clear_af(&mut self, scratch: Rm) {
        let code = &mut self.code;
        code.store(scratch, RAX);
        code.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
        code.raw(&[0x80, 0xe4, 0xef]); // and ah, !AF
        code.raw(&[0x04, 0x7f, 0x9e]); // add al, 0x7f; sahf
        code.load(RAX, scratch);
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
}
