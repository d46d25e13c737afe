//! Instructions that access a device's memory, decoded with iced: what is read or written, in which size, and where to it goes.

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
    let signed = match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx => false,
        Mnemonic::Movsx | Mnemonic::Movsxd => true,
        _ => return None,
    };
    let operation = match (instruction.op0_kind(), instruction.op1_kind()) {
        (OpKind::Register, OpKind::Memory) => {
            Operation::Load { size, into: destination(instruction.op0_register(), signed)? }
        }
        (OpKind::Memory, OpKind::Register) => {
            let from = destination(instruction.op1_register(), false)?;
            let whole = if from.number == 4 { rsp } else { registers[from.number] };
            Operation::Store { size, value: if from.high { whole >> 8 } else { whole } }
        }
        (OpKind::Memory, _) => Operation::Store { size, value: immediate(&instruction)? },
        _ => return None,
    };
    Some(Decoded { operation, length: instruction.len() as u32 })
}

fn immediate(instruction: &Instruction) -> Option<u64> {
    matches!(
        instruction.op1_kind(),
        OpKind::Immediate8 | OpKind::Immediate16 | OpKind::Immediate32 | OpKind::Immediate32to64
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
mod tests {
    use super::*;

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
    fn everything_else_is_not_ours() {
        // lock xadd [rdi], eax; add [rdi], eax; nothing
        for code in [&[0xf0, 0x0f, 0xc1, 0x07][..], &[0x01, 0x07], &[], &[0xff; 15]] {
            assert_eq!(operation(code, 64), None);
        }
    }
}
