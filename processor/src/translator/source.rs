//! A block that is to be translated: its instructions, decoded again.

use super::Width;
use super::rewrite::{Encoding, for_long_mode};
use crate::cet::CetCode;
use crate::decode::Op;
use crate::decode::cache::{Block, BlockKind, CodeCache, LONGEST_BLOCK};
use crate::memory::ram::{GuestRam, PAGE_SIZE};
use iced_x86::Instruction;

/// What is known of the block.
pub(super) struct Source<'a> {
    cache: &'a CodeCache,
    /// Where its page is in RAM.
    page: u64,
    /// What it, and blocks that its jumps lead to, are found by.
    pub kind: BlockKind,
    /// The kind of code.
    pub width: Width,
    /// The instructions, their IP being the offset in the page.
    decoded: Vec<Instruction>,
    /// The same for 64-bit code, where they are others.
    rewritten: Option<Vec<Instruction>>,
    /// The encoding of each in 64-bit code.
    pub encodings: Vec<Encoding>,
    /// Bytes of all.
    pub bytes: usize,
    /// The last instruction ends the block: RIP is set by it.
    pub ends: bool,
    /// The only instruction runs on its own, with exact time.
    pub alone: bool,
}

impl<'a> Source<'a> {
    /// Of `block`, one of `cache`. `None`: it is not translated, or another processor has written to it.
    pub(super) fn of(block: &Block, cache: &'a CodeCache, ram: &GuestRam) -> Option<Self> {
        let width = Width::of_code_size(block.code_size)?;
        let offset = block.native.offset;
        let in_page = offset % PAGE_SIZE;
        let mut bytes = [0; LONGEST_BLOCK];
        let length = block.bytes as usize;
        let own = length.min((PAGE_SIZE - in_page) as usize);
        ram.read(offset, &mut bytes[..own]);
        if let Some(second) = block.second_page {
            ram.read(second, &mut bytes[own..length]);
        }
        let bytes = &bytes[..length];
        let (decoded, ends) = cache.decode_again(bytes, in_page, block.count as usize, block.code_size)?;
        let (rewritten, encodings) = match width {
            Width::Flat32 => {
                let (instructions, encodings) = decoded.iter().map(for_long_mode).unzip();
                (Some(instructions), encodings)
            }
            Width::Long64 => {
                let bytes_of = |instruction: &Instruction| {
                    let at = (instruction.ip() - in_page) as usize;
                    &bytes[at..at + instruction.len()]
                };
                (None, decoded.iter().map(|instruction| Encoding::of(bytes_of(instruction))).collect())
            }
        };
        Some(Self {
            cache,
            page: offset - in_page,
            kind: BlockKind { code_size: block.code_size, single: false, cet: CetCode::Off, locks: block.locks },
            width,
            decoded,
            rewritten,
            encodings,
            bytes: length,
            ends,
            alone: block.alone,
        })
    }

    /// The instructions as 64-bit code has them, their IP being the offset in the page.
    pub(super) fn instructions(&self) -> &[Instruction] {
        self.rewritten.as_deref().unwrap_or(&self.decoded)
    }

    /// Whether the model has the instruction with this number.
    pub(super) fn has(&self, index: usize) -> bool {
        self.cache.has(&self.decoded[index])
    }

    /// The interpreter's operation for it, with all flags live.
    pub(super) fn operation(&self, index: usize) -> Op {
        self.cache.operation(&self.decoded[index], self.kind.code_size)
    }

    /// The translation at an offset of the page, if there is one.
    pub(super) fn known(&self, target: u64) -> Option<u64> {
        let found = self.cache.find(self.page + target, self.kind)?;
        let block = self.cache.block(found)?;
        (block.native.entry != 0 && block.second_page.is_none()).then_some(block.native.entry)
    }
}
