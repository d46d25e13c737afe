//! 32-bit instructions in the encodings of 64-bit code: with flat segments and an address-size prefix they do the same there.

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, FlowControl, Instruction, OpKind, Register};

/// The bytes of one instruction, as 64-bit code has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoding {
    bytes: [u8; 15],
    length: u8,
}

impl Encoding {
    /// Of an instruction that has none.
    const NONE: Self = Self { bytes: [0; 15], length: 0 };

    /// These bytes; none if they are too many.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut encoding = Self::NONE;
        if let Some(own) = encoding.bytes.get_mut(..bytes.len()) {
            own.copy_from_slice(bytes);
            encoding.length = bytes.len() as u8;
        }
        encoding
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// Codes that 64-bit code has not, and others for the same.
const REPLACED: [(Code, Code); 10] = [
    (Code::Inc_r16, Code::Inc_rm16),
    (Code::Inc_r32, Code::Inc_rm32),
    (Code::Dec_r16, Code::Dec_rm16),
    (Code::Dec_r32, Code::Dec_rm32),
    (Code::Mov_AL_moffs8, Code::Mov_r8_rm8),
    (Code::Mov_AX_moffs16, Code::Mov_r16_rm16),
    (Code::Mov_EAX_moffs32, Code::Mov_r32_rm32),
    (Code::Mov_moffs8_AL, Code::Mov_rm8_r8),
    (Code::Mov_moffs16_AX, Code::Mov_rm16_r16),
    (Code::Mov_moffs32_EAX, Code::Mov_rm32_r32),
];

/// The instruction of 64-bit code that does what this one does in 32-bit code, at the same place and as long as this one; and its encoding. Control
/// transfers, and what has no such encoding (the stack's instructions among them), stay as they are.
pub(super) fn for_long_mode(instruction: &Instruction) -> (Instruction, Encoding) {
    rewritten(instruction).unwrap_or((*instruction, Encoding::NONE))
}

fn rewritten(instruction: &Instruction) -> Option<(Instruction, Encoding)> {
    // CS cannot be stored to, nor always loaded from.
    let of_code =
        instruction.op_kinds().any(|kind| kind == OpKind::Memory) && instruction.memory_segment() == Register::CS;
    if instruction.flow_control() != FlowControl::Next || of_code {
        return None;
    }
    let mut wanted = *instruction;
    if let Some((_, code)) = REPLACED.iter().find(|(old, _)| *old == instruction.code()) {
        wanted.set_code(*code);
    }
    let mut encoder = Encoder::try_with_capacity(64, 16).ok()?;
    encoder.encode(&wanted, instruction.ip()).ok()?;
    let bytes = encoder.take_buffer();
    let mut again = Decoder::with_ip(64, &bytes, instruction.ip(), DecoderOptions::NONE).decode();
    if again.code() != wanted.code() || again.len() != bytes.len() {
        return None;
    }
    again.set_len(instruction.len());
    again.set_next_ip(instruction.next_ip());
    Some((again, Encoding::of(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(bytes: &[u8]) -> (Instruction, Vec<u8>) {
        let instruction = Decoder::with_ip(32, bytes, 0x123, DecoderOptions::NONE).decode();
        assert_eq!(instruction.len(), bytes.len());
        let (again, encoding) = for_long_mode(&instruction);
        assert_eq!((again.ip(), again.len()), (0x123, bytes.len()));
        (again, encoding.bytes().to_vec())
    }

    #[test]
    fn forms_that_64_bit_code_has_not() {
        assert_eq!(rewrite(&[0x41]).1, [0xff, 0xc1], "inc ecx");
        assert_eq!(rewrite(&[0x66, 0x4f]).1, [0x66, 0xff, 0xcf], "dec di");
        let (absolute, bytes) = rewrite(&[0xa1, 0x78, 0x56, 0x34, 0xf2]); // mov eax, [0xf2345678]
        assert_eq!(bytes, [0x67, 0x8b, 4, 0x25, 0x78, 0x56, 0x34, 0xf2]);
        assert_eq!((absolute.memory_displacement64(), absolute.memory_displ_size()), (0xf234_5678, 4));
        let (absolute, _) = rewrite(&[0x03, 0x1d, 0, 0x10, 0, 0x80]); // add ebx, [0x80001000]
        assert_eq!((absolute.memory_base(), absolute.memory_displacement64()), (Register::None, 0x8000_1000));
    }

    #[test]
    fn addresses_keep_their_size() {
        let (load, bytes) = rewrite(&[0x8b, 0x44, 0x8b, 0xf8]); // mov eax, [ebx + ecx * 4 - 8]
        assert_eq!(bytes, [0x67, 0x8b, 0x44, 0x8b, 0xf8]);
        assert_eq!((load.memory_base(), load.memory_index()), (Register::EBX, Register::ECX));
    }

    #[test]
    fn bits_that_32_bit_code_ignores_are_clear() {
        // vpextrd edx, xmm1, 3, with W; vblendvps xmm0, xmm1, xmm2, xmm3, its last operand named 11.
        assert_eq!(rewrite(&[0xc4, 0xe3, 0xf9, 0x16, 0xca, 3]).1, [0xc4, 0xe3, 0x79, 0x16, 0xca, 3]);
        assert_eq!(rewrite(&[0xc4, 0xe3, 0x71, 0x4a, 0xc2, 0xb0]).1.last(), Some(&0x30));
    }

    #[test]
    fn what_is_not_there_stays() {
        // push eax; aaa; mov ax, [bx + si]; jmp short: no encoding.
        // mov eax, cs:[ebx] either.
        for bytes in [&[0x50][..], &[0x37], &[0x67, 0x66, 0x8b, 0x00], &[0xeb, 0x10], &[0x2e, 0x8b, 0x03]] {
            assert!(rewrite(bytes).1.is_empty(), "{bytes:x?}");
        }
    }
}
