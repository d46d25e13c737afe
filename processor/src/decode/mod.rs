//! From bytes to operations: iced-x86 decodes, a table indexed by iced's `Code` gives the handler, blocks are cached by physical page.

pub(crate) mod alone;
pub mod announced;
pub mod cache;
pub mod lower;
pub mod op;
pub mod ops;
pub mod table;

pub use op::{Handler, Op, Stop};
pub use ops::{At, Ops};
pub use table::{Entry, Table};

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

/// Disassembles `bytes`, the first at `rip`: one line an instruction. `code_size` is 0, 1, 2 for 16-, 32-, 64-bit code.
pub fn disassemble(bytes: &[u8], rip: u64, code_size: u8) -> Vec<String> {
    let bitness = [16, 32, 64][usize::from(code_size.min(2))];
    let mut formatter = NasmFormatter::new();
    Decoder::with_ip(bitness, bytes, rip, DecoderOptions::NONE)
        .iter()
        .map(|instruction| {
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            let start = (instruction.ip() - rip) as usize;
            let hex: String =
                bytes[start..start + instruction.len()].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{:016x}  {hex:<24} {text}", instruction.ip())
        })
        .collect()
}
