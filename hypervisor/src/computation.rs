//! Instructions that compute with a device's memory: what they leave there, in a register and in the flags (SDM Vol. 1, 7.3).

use crate::mmio::Destination;
use iced_x86::Mnemonic;
use spec::x86::Rflags;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the names of the instructions")]
pub enum Kind {
    Add,
    AddCarry,
    Subtract,
    SubtractBorrow,
    Compare,
    And,
    Or,
    Xor,
    Test,
    Increment,
    Decrement,
    Not,
    Negate,
    Exchange,
    ExchangeAdd,
    CompareExchange,
    BitTest,
    BitSet,
    BitReset,
    BitComplement,
}

impl Kind {
    /// What the instruction computes, if it is one of these.
    #[must_use]
    pub fn of(mnemonic: Mnemonic) -> Option<Self> {
        Some(match mnemonic {
            Mnemonic::Add => Self::Add,
            Mnemonic::Adc => Self::AddCarry,
            Mnemonic::Sub => Self::Subtract,
            Mnemonic::Sbb => Self::SubtractBorrow,
            Mnemonic::Cmp => Self::Compare,
            Mnemonic::And => Self::And,
            Mnemonic::Or => Self::Or,
            Mnemonic::Xor => Self::Xor,
            Mnemonic::Test => Self::Test,
            Mnemonic::Inc => Self::Increment,
            Mnemonic::Dec => Self::Decrement,
            Mnemonic::Not => Self::Not,
            Mnemonic::Neg => Self::Negate,
            Mnemonic::Xchg => Self::Exchange,
            Mnemonic::Xadd => Self::ExchangeAdd,
            Mnemonic::Cmpxchg => Self::CompareExchange,
            Mnemonic::Bt => Self::BitTest,
            Mnemonic::Bts => Self::BitSet,
            Mnemonic::Btr => Self::BitReset,
            Mnemonic::Btc => Self::BitComplement,
            _ => return None,
        })
    }

    /// Whether the other operand is the number of a bit.
    #[must_use]
    pub fn is_of_bits(self) -> bool {
        matches!(self, Self::BitTest | Self::BitSet | Self::BitReset | Self::BitComplement)
    }
}

/// An instruction that computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computation {
    /// What it computes.
    pub kind: Kind,
    /// Bytes of the operands.
    pub size: u8,
    /// The operand that is no device's memory.
    pub other: u64,
    /// The device's memory is the first operand, where the result goes.
    pub memory_first: bool,
    /// The register that is written, or would be.
    pub into: Option<Destination>,
    /// RAX, for CMPXCHG.
    pub accumulator: u64,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What is written to the device's memory.
    pub memory: Option<u64>,
    /// What is written to the register.
    pub register: Option<(Destination, u64)>,
    /// RFLAGS.
    pub flags: u64,
}

const STATUS: u64 = Rflags::CF | Rflags::PF | Rflags::AF | Rflags::ZF | Rflags::SF | Rflags::OF;

impl Computation {
    /// Computes with what was read from the device's memory.
    #[must_use]
    pub fn perform(&self, read: u64, rflags: u64) -> Outcome {
        use Kind as K;
        let bits = 8 * u32::from(self.size.clamp(1, 8));
        let mask = u64::MAX >> (64 - bits);
        let (read, other) = (read & mask, self.other & mask);
        let (a, b) = if self.memory_first { (read, other) } else { (other, read) };
        let carry = rflags & Rflags::CF;
        let arithmetic = |a: u64, b: u64, carry: u64, subtract: bool| {
            let wide = |v: u64| i128::from(v);
            let exact = if subtract { wide(a) - wide(b) - wide(carry) } else { wide(a) + wide(b) + wide(carry) };
            let result = exact as u64 & mask;
            let overflow = if subtract { (a ^ b) & (a ^ result) } else { (a ^ result) & (b ^ result) };
            let flags = when(exact < 0 || exact > i128::from(mask), Rflags::CF)
                | when(overflow >> (bits - 1) & 1 != 0, Rflags::OF)
                | when((a ^ b ^ result) & 0x10 != 0, Rflags::AF);
            (result, flags | shape(result, bits))
        };
        let logic = |result: u64| (result, shape(result, bits));
        let bit = 1 << (other % u64::from(bits));
        let of_bit = |result: u64| (result & mask, rflags & STATUS & !Rflags::CF | when(read & bit != 0, Rflags::CF));
        let (result, status) = match self.kind {
            K::Add | K::ExchangeAdd => arithmetic(a, b, 0, false),
            K::AddCarry => arithmetic(a, b, carry, false),
            K::Subtract | K::Compare => arithmetic(a, b, 0, true),
            K::SubtractBorrow => arithmetic(a, b, carry, true),
            K::CompareExchange => {
                let accumulator = self.accumulator & mask;
                let (_, status) = arithmetic(accumulator, read, 0, true);
                (if accumulator == read { other } else { read }, status)
            }
            K::And | K::Test => logic(a & b),
            K::Or => logic(a | b),
            K::Xor => logic(a ^ b),
            K::Increment | K::Decrement => {
                let (result, status) = arithmetic(read, 1, 0, self.kind == K::Decrement);
                (result, status & !Rflags::CF | carry)
            }
            K::Not => (!read & mask, rflags & STATUS),
            K::Negate => arithmetic(0, read, 0, true),
            K::Exchange => (other, rflags & STATUS),
            K::BitTest => of_bit(read),
            K::BitSet => of_bit(read | bit),
            K::BitReset => of_bit(read & !bit),
            K::BitComplement => of_bit(read ^ bit),
        };
        let into = |value| self.into.map(|into| (into, value));
        let (memory, register) = match self.kind {
            K::Compare | K::Test | K::BitTest => (None, None),
            K::Exchange | K::ExchangeAdd => (Some(result), into(read)),
            // An accumulator that was equal keeps its value, upper half and all.
            K::CompareExchange if self.accumulator & mask == read => (Some(result), None),
            K::CompareExchange => (Some(result), into(read)),
            _ if self.memory_first => (Some(result), None),
            _ => (None, into(result)),
        };
        Outcome { memory, register, flags: rflags & !STATUS | status }
    }
}

/// `flag`, if it is to be set.
fn when(set: bool, flag: u64) -> u64 {
    if set { flag } else { 0 }
}

/// The flags that follow from a result alone.
fn shape(result: u64, bits: u32) -> u64 {
    when(result == 0, Rflags::ZF)
        | when(result >> (bits - 1) & 1 != 0, Rflags::SF)
        | when((result as u8).count_ones().is_multiple_of(2), Rflags::PF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perform(kind: Kind, size: u8, read: u64, other: u64, rflags: u64) -> (Option<u64>, u64) {
        let computation = Computation { kind, size, other, memory_first: true, into: None, accumulator: 5 };
        let outcome = computation.perform(read, rflags);
        (outcome.memory, outcome.flags)
    }

    #[test]
    fn results_and_flags_are_the_processor_s() {
        const RF: u64 = 1 << 16;
        let (cf, pf, af, zf, sf, of) = (Rflags::CF, Rflags::PF, Rflags::AF, Rflags::ZF, Rflags::SF, Rflags::OF);
        for (kind, size, read, other, before, memory, after) in [
            (Kind::Add, 1, 0xff, 1, RF, Some(0), RF | cf | pf | af | zf),
            (Kind::Add, 4, 0x7fff_ffff, 1, 0, Some(0x8000_0000), pf | af | sf | of),
            (Kind::AddCarry, 8, u64::MAX, 0, cf, Some(0), cf | pf | af | zf),
            (Kind::Subtract, 2, 0, 1, 0, Some(0xffff), cf | pf | af | sf),
            (Kind::SubtractBorrow, 1, 0x80, 0, cf, Some(0x7f), af | of),
            (Kind::Compare, 4, 7, 7, cf, None, pf | zf),
            (Kind::And, 4, 0xf0, 0x0f, cf | of, Some(0), pf | zf),
            (Kind::Test, 1, 0x80, 0x80, cf, None, sf),
            (Kind::Increment, 1, 0xff, 0, 0, Some(0), pf | af | zf),
            (Kind::Decrement, 1, 0x80, 0, cf, Some(0x7f), cf | af | of),
            (Kind::Negate, 1, 1, 0, 0, Some(0xff), cf | pf | af | sf),
            (Kind::Not, 2, 0xff, 0, cf | zf, Some(0xff00), cf | zf),
            (Kind::Exchange, 4, 1, 2, zf, Some(2), zf),
            (Kind::CompareExchange, 4, 5, 9, 0, Some(9), pf | zf),
            (Kind::BitSet, 4, 0, 31, zf, Some(0x8000_0000), zf),
            (Kind::BitReset, 4, 1, 0, 0, Some(0), cf),
            (Kind::BitTest, 4, 2, 1, 0, None, cf),
        ] {
            assert_eq!(perform(kind, size, read, other, before), (memory, after), "{kind:?} {read:#x} {other:#x}");
        }
    }

    #[test]
    fn a_failed_exchange_gives_the_accumulator_what_was_there() {
        let Some(into) = crate::mmio::tests::register(0) else { panic!() };
        let computation = Computation {
            kind: Kind::CompareExchange,
            size: 4,
            other: 9,
            memory_first: true,
            into: Some(into),
            accumulator: 5,
        };
        let outcome = computation.perform(6, 0);
        assert_eq!((outcome.memory, outcome.register), (Some(6), Some((into, 6))));
        assert_eq!(computation.perform(5, 0).register, None);
    }
}
