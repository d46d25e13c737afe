//! Instructions that access a device's memory, decoded with iced: what is read or written, in which size, and where to it goes.

use crate::computation::{Computation, Kind};
use crate::vmcs::Segment;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// The longest instruction.
pub const LONGEST: usize = 15;

/// What an instruction does with the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads `size` bytes into a register.
    Load {
        /// Bytes.
        size: u8,
        /// Where to.
        into: Destination,
    },
    /// Writes `size` bytes.
    Store {
        /// Bytes.
        size: u8,
        /// What.
        value: u64,
    },
    /// Reads, computes with a register or an immediate, and writes back, or into the register.
    Compute(Computation),
    /// Moves an element between memory or RAX and memory, and goes on to the next.
    String(StringMove),
}

/// MOVS, STOS and LODS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringMove {
    /// Bytes of an element.
    pub size: u8,
    /// Reads at (R)SI; else RAX is written.
    pub reads: bool,
    /// Writes at (R)DI; else RAX is read into.
    pub writes: bool,
    /// The segment that is read.
    pub source: Segment,
    /// RCX counts.
    pub repeated: bool,
    /// The mask of the address size.
    pub width: u64,
}

/// A general register, and how what was read goes into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The number of the whole register.
    number: usize,
    /// Bytes written; 4 clear the upper half.
    size: u8,
    /// AH, CH, DH or BH.
    high: bool,
    /// Sign-extended from what was read.
    signed: bool,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// What it does.
    pub operation: Operation,
    /// Its length.
    pub length: u32,
}

/// Decodes the instruction `code`, of a segment of 16, 32 or 64 `bits`. `None`: it is not among those that access devices.
#[must_use]
pub fn decode(code: &[u8], bits: u32, registers: &[u64; 16], rsp: u64) -> Option<Decoded> {
    let instruction = Decoder::try_new(bits, code, DecoderOptions::NONE).ok()?.decode();
    if instruction.is_invalid() {
        return None;
    }
    let size = u8::try_from(instruction.memory_size().size()).ok()?;
    let operand = |register: Register| {
        let from = destination(register, false)?;
        let whole = if from.number == 4 { rsp } else { registers[from.number] };
        Some(if from.high { whole >> 8 } else { whole })
    };
    let length = instruction.len() as u32;
    let decoded = |operation| Some(Decoded { operation, length });
    if let Some(string) = string(&instruction, size) {
        return decoded(Operation::String(string));
    }
    let signed = match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movnti => false,
        Mnemonic::Movsx | Mnemonic::Movsxd => true,
        mnemonic => {
            return decoded(Operation::Compute(computation(&instruction, mnemonic, size, operand, registers[0])?));
        }
    };
    decoded(match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Memory) => {
            Operation::Load { size, into: destination(instruction.op0_register(), signed)? }
        }
        (OpKind::Memory, OpKind::Register) => Operation::Store { size, value: operand(instruction.op1_register())? },
        (OpKind::Memory, _) => Operation::Store { size, value: immediate(&instruction)? },
        _ => return None,
    })
}

fn string(instruction: &Instruction, size: u8) -> Option<StringMove> {
    let (reads, writes) = match instruction.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => (true, true),
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => (false, true),
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => (true, false),
        _ => return None,
    };
    let kinds = [instruction.op0_kind(), instruction.op1_kind()];
    let width = kinds.into_iter().find_map(|kind| match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(0xffff),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(0xffff_ffff),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(u64::MAX),
        _ => None,
    })?;
    let source = match instruction.segment_prefix() {
        Register::ES => Segment::Es,
        Register::CS => Segment::Cs,
        Register::SS => Segment::Ss,
        Register::FS => Segment::Fs,
        Register::GS => Segment::Gs,
        _ => Segment::Ds,
    };
    let repeated = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    Some(StringMove { size, reads, writes, source, repeated, width })
}

fn computation(
    instruction: &Instruction,
    mnemonic: Mnemonic,
    size: u8,
    operand: impl Fn(Register) -> Option<u64>,
    rax: u64,
) -> Option<Computation> {
    let kind = Kind::of(mnemonic)?;
    let (other, register) = match (instruction.op0_kind(), instruction.op1_kind()) {
        // An operand that is not there has a kind all the same.
        (OpKind::Memory, _) if instruction.op_count() == 1 => (0, None),
        (OpKind::Memory, OpKind::Register) => (operand(instruction.op1_register())?, Some(instruction.op1_register())),
        (OpKind::Register, OpKind::Memory) => (operand(instruction.op0_register())?, Some(instruction.op0_register())),
        (OpKind::Memory, _) => (immediate(instruction)?, None),
        _ => return None,
    };
    let memory_first = instruction.op0_kind() == OpKind::Memory || kind == Kind::Exchange;
    // A bit's number beyond the operand would mean other memory.
    if kind.is_of_bits() && register.is_some() && other >= u64::from(size) * 8 {
        return None;
    }
    let into = match register {
        Some(register) => Some(destination(register, false)?),
        None => None,
    };
    let accumulator = Destination { number: 0, size, high: false, signed: false };
    let into = if kind == Kind::CompareExchange { Some(accumulator) } else { into };
    Some(Computation { kind, size, other, memory_first, into, accumulator: rax })
}

fn immediate(instruction: &Instruction) -> Option<u64> {
    matches!(
        instruction.op1_kind(),
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate32to64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
    )
    .then(|| instruction.immediate(1))
}

fn destination(register: Register, signed: bool) -> Option<Destination> {
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    register.is_gpr().then(|| Destination {
        number: register.full_register().number(),
        size: register.size() as u8,
        high,
        signed,
    })
}

impl Destination {
    /// The number of the register.
    #[must_use]
    pub fn number(self) -> usize {
        self.number
    }

    /// The register, which was `before`, with `value` of `size` bytes in it.
    #[must_use]
    pub fn merge(self, before: u64, value: u64, size: u8) -> u64 {
        let unused = 64 - 8 * u32::from(size.clamp(1, 8));
        let value = if self.signed { ((value << unused) as i64 >> unused) as u64 } else { value << unused >> unused };
        match self.size {
            1 if self.high => before & !0xff00 | (value & 0xff) << 8,
            1 => before & !0xff | value & 0xff,
            2 => before & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A register as a destination of 4 bytes.
    pub(crate) fn register(number: usize) -> Option<Destination> {
        Some(Destination { number, size: 4, high: false, signed: false })
    }

    fn registers() -> [u64; 16] {
        core::array::from_fn(|n| 0x1111_1111_1111_1111 * n as u64)
    }

    fn operation(code: &[u8], bits: u32) -> Option<Operation> {
        decode(code, bits, &registers(), 0x5000).map(|decoded| decoded.operation)
    }

    #[test]
    fn stores_have_the_value_of_their_size() {
        // mov [rdi], eax; mov [rdi], rsp; mov [rdi], ah; mov dword [rdi], 0x1ff; mov [bx], cx
        assert_eq!(operation(&[0x89, 0x07], 64), Some(Operation::Store { size: 4, value: 0 }));
        assert_eq!(operation(&[0x48, 0x89, 0x27], 64), Some(Operation::Store { size: 8, value: 0x5000 }));
        let Some(Operation::Store { size: 1, value }) = operation(&[0x88, 0x2f], 64) else { panic!() };
        assert_eq!(value as u8, 0x11);
        let immediate = operation(&[0xc7, 0x07, 0xff, 1, 0, 0], 64);
        assert_eq!(immediate, Some(Operation::Store { size: 4, value: 0x1ff }));
        let Some(Operation::Store { size: 2, .. }) = operation(&[0x89, 0x0f], 16) else { panic!() };
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        let load = |code: &[u8], before, value| {
            let Some(Operation::Load { size, into }) = operation(code, 64) else { panic!() };
            into.merge(before, value, size)
        };
        // mov eax, [rdi]; mov al, [rdi]; movzx eax, word [rdi]; movsx rax, byte [rdi]
        assert_eq!(load(&[0x8b, 0x07], u64::MAX, 0x8000_0000), 0x8000_0000);
        assert_eq!(load(&[0x8a, 0x07], 0x1234, 0xff), 0x12ff);
        assert_eq!(load(&[0x0f, 0xb7, 0x07], u64::MAX, 0xffff_8001), 0x8001);
        assert_eq!(load(&[0x48, 0x0f, 0xbe, 0x07], 0, 0x80), 0xffff_ffff_ffff_ff80);
    }

    #[test]
    fn string_instructions_tell_where_from_and_where_to() {
        let Some(Operation::String(string)) = operation(&[0xf3, 0xab], 32) else { panic!() };
        assert_eq!((string.size, string.reads, string.writes, string.repeated), (4, false, true, true));
        assert_eq!(string.width, 0xffff_ffff);
        let Some(Operation::String(string)) = operation(&[0x65, 0x48, 0xa5], 64) else { panic!() };
        assert_eq!((string.size, string.source, string.repeated), (8, Segment::Gs, false));
    }

    #[test]
    fn computations_are_decoded_with_their_other_operand() {
        let computation = |code: &[u8]| match operation(code, 64) {
            Some(Operation::Compute(computation)) => computation,
            other => panic!("{other:?}"),
        };
        // lock xadd [rdi], edx; or dword [rdi], 8; and ecx, [rdi]; cmp dword [rdi], -1; bts dword [rdi], 5; inc byte [rdi]
        let xadd = computation(&[0xf0, 0x0f, 0xc1, 0x17]);
        assert_eq!((xadd.kind, xadd.into.map(Destination::number)), (Kind::ExchangeAdd, Some(2)));
        let or = computation(&[0x83, 0x0f, 8]);
        assert_eq!((or.kind, or.other, or.memory_first, or.into), (Kind::Or, 8, true, None));
        let and = computation(&[0x23, 0x0f]);
        assert_eq!((and.kind, and.memory_first, and.into.map(Destination::number)), (Kind::And, false, Some(1)));
        assert_eq!(computation(&[0x83, 0x3f, 0xff]).other as u32, u32::MAX);
        assert_eq!(computation(&[0x0f, 0xba, 0x2f, 5]).other, 5);
        assert_eq!((computation(&[0xfe, 0x07]).kind, computation(&[0xfe, 0x07]).size), (Kind::Increment, 1));
    }

    #[test]
    fn everything_else_is_not_ours() {
        // shl dword [rdi], 1; movaps [rdi], xmm0; bt [rdi], edx with a bit beyond it; nothing
        for code in [&[0xd1, 0x27][..], &[0x0f, 0x29, 0x07], &[0x0f, 0xa3, 0x17], &[], &[0xff; 15]] {
            assert_eq!(operation(code, 64), None);
        }
    }
}
