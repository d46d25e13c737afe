//! Decoded blocks, keyed by where their first byte lies in guest RAM and by the code's mode; shared by all contexts and processors.

use super::alone::{AlonePlaces, gains, on_its_own};
use super::lower::lower;
use super::op::{Op, Shape};
use super::ops::{At, Ops};
use super::table::{Place, Table, undefined_handler};
use crate::bus_lock::{may_lock_bus, watched as watched_handler};
use crate::cet::{CetCode, missing_endbranch_handler};
use crate::memory::locked::{is_locked, locked};
use crate::memory::ram::{GuestRam, PAGE_SIZE};
use crate::translator::{Translator, Tuning};
use iced_x86::{Code, CpuidFeature, Decoder, DecoderOptions, Instruction, OpKind, Register, RflagsBits};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Most instructions in a block.
pub const BLOCK_LIMIT: usize = 64;
/// Bytes of the longest block: of the longest instructions.
pub(crate) const LONGEST_BLOCK: usize = BLOCK_LIMIT * LONGEST;
/// Bytes of the longest instruction.
const LONGEST: usize = 15;
/// Bytes that are read for a block at first, because most are shorter.
const USUAL: usize = 128;
/// When so many blocks are held, all are dropped.
const CACHE_LIMIT: usize = 1 << 20;
/// Translations found at once.
const NEAR: usize = 1 << 14;

/// Most revocations remembered for processors that have not run since.
const REVOKED_LIMIT: usize = 4096;

/// Hashes the one u64 of a block's key, or of a page: blocks that lie close together do so in the table, because they are looked for and dropped one
/// after the other.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(byte as u64);
        }
    }
    fn write_u64(&mut self, value: u64) {
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        // The table takes the place from the lower bits, and the upper seven to tell apart what is in one place.
        const UPPER: u64 = !(u64::MAX >> 7);
        let (page, in_page) = (value >> 18, value >> 10 & 0xff);
        let place = (page.wrapping_mul(MIX) >> 32) + in_page;
        self.0 = value.wrapping_mul(MIX) & UPPER | place;
    }
}

/// A decoded run of instructions within one page (the last may reach into the next page, then it is alone).
#[derive(Debug)]
pub struct Block {
    /// The operations, one for each instruction.
    pub ops: Ops,
    /// Number of instructions.
    pub count: u32,
    /// Length in bytes.
    pub bytes: u32,
    /// RAM page of the second page's bytes, when the only instruction crosses.
    pub second_page: Option<u64>,
    /// The only instruction runs on its own, with exact time.
    pub alone: bool,
    /// It is of code where bus locks are watched for.
    pub locks: bool,
    /// See [`BlockKind::code_size`].
    pub code_size: u8,
    /// Its translation.
    pub(crate) native: Native,
}

/// A block's translation to host code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Native {
    /// Where the block's first byte is in RAM.
    pub offset: u64,
    /// How often the block was run without one.
    pub heat: u32,
    /// Where it begins; 0 if there is none.
    pub entry: u64,
    /// Where it is left when the block must not be run.
    pub exit: u64,
}

/// No block has this key.
const NOTHING_NEAR: (u64, u64) = (u64::MAX, 0);

fn near_place(offset: u64) -> usize {
    (offset ^ offset >> 12) as usize & (NEAR - 1)
}

/// How a block is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockKind {
    /// 0, 1, 2: 16-, 32-, 64-bit code.
    pub code_size: u8,
    /// One instruction only, all flags live.
    pub single: bool,
    /// Whether CET is on, and whether the first instruction has to be ENDBRANCH.
    pub cet: CetCode,
    /// Bus locks are watched for: instructions that may assert one get blocks of their own.
    pub locks: bool,
}

impl BlockKind {
    fn key(self, offset: u64) -> u64 {
        offset << 6
            | u64::from(self.locks) << 5
            | (self.cet as u64) << 3
            | u64::from(self.code_size) << 1
            | self.single as u64
    }

    fn is_single(key: u64) -> bool {
        key & 1 != 0
    }
}

/// The cache.
pub struct CodeCache {
    blocks: Vec<Option<Block>>,
    free: Vec<u32>,
    by_key: HashMap<u64, u32, BuildHasherDefault<KeyHasher>>,
    by_page: HashMap<u64, Vec<(u64, u32)>, BuildHasherDefault<KeyHasher>>,
    /// Changes whenever a block is dropped: block numbers remembered under another value are void.
    pub epoch: u64,
    /// Pages that got code while some TLB context could store to them, with that context's token.
    revoked: Vec<(u64, u16)>,
    /// Number of revocations forgotten.
    revoked_before: usize,
    /// Which codes the processor model has.
    announced: Box<[bool]>,
    /// Offsets in a page at which an instruction begins a block, a bit for each; see [`CodeCache::set_stops`].
    stops: Option<Box<[u64; 64]>>,
    /// Instructions that get blocks of their own.
    alone: AlonePlaces,
    /// Of a parallel machine, the number of the processor whose cache this is; that has none of the others' code.
    owner: Option<usize>,
    /// Keys of blocks, with their translations, by the lowest bits of where they are: what was looked for last.
    near: Box<[(u64, u64)]>,
    /// Memory for decoding.
    instructions: Vec<Instruction>,
    /// The translating engine, where it is used.
    pub(crate) translator: Option<Box<Translator>>,
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCache")
            .field("blocks", &self.by_key.len())
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl CodeCache {
    /// An empty cache for a processor model that has the instructions whose CPUID features `announced` accepts; others are #UD.
    pub fn new(announced: impl Fn(CpuidFeature) -> bool) -> Self {
        let table = Table::shared();
        let announced = Code::values()
            .map(|code| table.get(code).known && code.cpuid_features().iter().all(|&f| announced(f)))
            .collect();
        Self {
            blocks: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            by_page: HashMap::default(),
            epoch: 0,
            revoked: Vec::new(),
            revoked_before: 0,
            announced,
            stops: None,
            alone: AlonePlaces::default(),
            owner: None,
            near: Box::default(),
            instructions: Vec::new(),
            translator: None,
        }
    }

    /// The same for processor `owner` alone, on a parallel machine.
    #[must_use]
    pub fn of_processor(mut self, owner: usize) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Uses the translating engine from now on. False where the host cannot.
    pub fn use_translator(&mut self) -> bool {
        self.use_tuned_translator(Tuning::default())
    }

    /// The same, not as usual.
    pub fn use_tuned_translator(&mut self, tuning: Tuning) -> bool {
        self.translator = Translator::new(tuning).map(Box::new);
        self.near = vec![NOTHING_NEAR; NEAR].into_boxed_slice();
        self.translator.is_some()
    }

    /// The translating engine is used, and no debugger has stops: translations know nothing of them.
    pub(crate) fn may_translate(&self) -> bool {
        self.translator.is_some() && self.stops.is_none()
    }

    /// Drops every translation, but no block.
    pub(crate) fn drop_translations(&mut self) {
        for block in self.blocks.iter_mut().flatten() {
            block.native = Native { offset: block.native.offset, ..Native::default() };
        }
        if let Some(translator) = &mut self.translator {
            translator.flush();
        }
        self.near.fill(NOTHING_NEAR);
    }

    /// The translation of the block at RAM `offset`, which lies in one page, if it was looked for lately.
    pub(crate) fn near_translation(&self, offset: u64, kind: BlockKind) -> Option<u64> {
        let (key, entry) = *self.near.get(near_place(offset))?;
        (key == kind.key(offset)).then_some(entry)
    }

    /// Remembers `entry` for [`CodeCache::near_translation`].
    pub(crate) fn bring_near(&mut self, offset: u64, kind: BlockKind, entry: u64) {
        if let Some(place) = self.near.get_mut(near_place(offset)) {
            *place = (kind.key(offset), entry);
        }
    }

    /// The block with number `index`.
    #[inline(always)]
    pub fn block(&self, index: u32) -> Option<&Block> {
        self.blocks.get(index as usize)?.as_ref()
    }

    /// Makes blocks end before every address whose offset in its page is that of one of `addresses`, for breakpoints: the run loop can then look
    /// at the beginning of blocks only. Blocks decoded before are dropped, unless they end in such places already.
    pub fn set_stops(&mut self, ram: &GuestRam, addresses: impl Iterator<Item = u64>) {
        let mut stops = [0u64; 64];
        for address in addresses {
            stops[(address >> 6 & 63) as usize] |= 1 << (address & 63);
        }
        let known =
            self.stops.as_ref().is_some_and(|old| stops.iter().zip(old.iter()).all(|(new, old)| new & !old == 0));
        let none = stops == [0; 64];
        if none && self.stops.is_none() || known && !none {
            return;
        }
        self.stops = (!none).then(|| Box::new(stops));
        self.drop_all(ram);
        self.epoch += 1;
    }

    /// A block must begin at addresses with this offset in their page.
    #[inline]
    pub(crate) fn is_stop(&self, address: u64) -> bool {
        self.stops.as_ref().is_some_and(|stops| stops[(address >> 6 & 63) as usize] >> (address & 63) & 1 != 0)
    }

    /// Branches may be linked to blocks: no debugger has to look at the beginning of some.
    pub(crate) fn may_link(&self) -> bool {
        self.stops.is_none()
    }

    /// Links the branch at `place` to block `index`, which lies in the page of the branch's own block and begins where the branch leads. Blocks of
    /// one page are dropped together; one that reaches into the next may be dropped on its own, so it is not linked to.
    pub(crate) fn link(&self, place: At, index: u32) {
        if let Some(block) = self.block(index).filter(|block| block.second_page.is_none()) {
            place.link(&block.ops);
        }
    }

    /// The block with number `index`, to be changed.
    pub(crate) fn block_mut(&mut self, index: u32) -> Option<&mut Block> {
        self.blocks.get_mut(index as usize)?.as_mut()
    }

    /// Forgets the block with number `index`.
    fn remove(&mut self, index: u32) {
        let block = self.blocks[index as usize].take();
        if let (Some(block), Some(translator)) = (block, &mut self.translator)
            && block.native.entry != 0
        {
            translator.kill(block.native.entry, block.native.exit);
            if let Some(place) = self.near.get_mut(near_place(block.native.offset))
                && place.1 == block.native.entry
            {
                *place = NOTHING_NEAR;
            }
        }
        self.free.push(index);
    }

    /// The number of the block at RAM `offset`, if it is there and, where it reaches into another page, that page is still `second_page`'s.
    pub fn find(&self, offset: u64, kind: BlockKind) -> Option<u32> {
        self.by_key.get(&kind.key(offset)).copied()
    }

    /// Drops the blocks of the pages that were written.
    pub fn drop_written(&mut self, ram: &GuestRam) {
        for page in ram.take_written_code(self.owner.unwrap_or(0)) {
            self.drop_page(page as u64 * PAGE_SIZE);
            self.alone.forget(page as u64 * PAGE_SIZE);
            ram.clear_has_code(page as u64 * PAGE_SIZE);
        }
    }

    fn drop_page(&mut self, page: u64) {
        self.epoch += 1;
        for (key, index) in self.by_page.remove(&page).unwrap_or_default() {
            if self.by_key.get(&key) == Some(&index) {
                self.by_key.remove(&key);
                self.remove(index);
            }
        }
    }

    /// Drops every block: the memory has become another one.
    pub fn clear(&mut self, ram: &GuestRam) {
        self.drop_written(ram);
        self.drop_all(ram);
    }

    /// `op`, whose first byte is at RAM `offset`, asked to be run on its own: from now on it has a block of its own.
    pub(crate) fn set_alone(&mut self, offset: u64, op: &Op) {
        // A locked instruction on a parallel machine is on its own only as long as it is interpreted.
        if !gains(op) || self.owner.is_some() && is_locked(op) {
            return;
        }
        self.alone.insert(offset);
        let covers = |block: &Block| {
            (block.native.offset..block.native.offset + u64::from(block.bytes)).contains(&offset) && !block.alone
        };
        let page = offset & !(PAGE_SIZE - 1);
        let of_page = self.by_page.get(&page).map_or(&[][..], Vec::as_slice);
        let covered = of_page.iter().any(|(key, index)| {
            !BlockKind::is_single(*key) && self.by_key.get(key) == Some(index) && self.block(*index).is_some_and(covers)
        });
        if covered {
            // All of the page, because others may be linked to the covering ones.
            self.drop_page(page);
        }
    }

    fn drop_all(&mut self, ram: &GuestRam) {
        let pages: Vec<u64> = self.by_page.keys().copied().collect();
        for page in pages {
            self.drop_page(page);
            ram.clear_has_code(page);
        }
    }

    /// Pages to revoke stores to, from number `seen` on. `None`: some are no longer known, so everything must be revoked.
    pub fn revoked_since(&self, seen: usize) -> Option<&[(u64, u16)]> {
        self.revoked.get(seen.checked_sub(self.revoked_before)?..)
    }

    /// How many revocations there were.
    pub fn revocations(&self) -> usize {
        self.revoked_before + self.revoked.len()
    }

    /// Marks the page at RAM offset `page` as having code, and sees to it that stores to it are seen.
    fn mark_code(&mut self, ram: &GuestRam, page: u64) {
        match (ram.peers(), self.owner) {
            (Some(peers), Some(owner)) => peers.marking(owner, || {
                if let Some(writer) = self.mark_page(ram, page) {
                    peers.revoke(owner, page, writer);
                }
            }),
            _ => {
                self.mark_page(ram, page);
            }
        }
    }

    /// The same for stores of this cache's own processors. Gives who may have the page cached for stores, if it had no code and somebody may.
    fn mark_page(&mut self, ram: &GuestRam, page: u64) -> Option<u16> {
        let writer = if ram.set_has_code(page) { ram.take_writer(page) } else { 0 };
        if writer == 0 {
            return None;
        }
        if self.revoked.len() >= REVOKED_LIMIT {
            self.revoked_before += self.revoked.len();
            self.revoked.clear();
        }
        self.revoked.push((page, writer));
        Some(writer)
    }

    /// Decodes the block whose first byte is at RAM `offset`; `second_page` is the RAM offset of the linear page after it, if it is mapped.
    /// `None`: the first instruction reaches into the next page and that is not known (`second_page` must be given).
    pub fn decode(&mut self, ram: &GuestRam, offset: u64, second_page: Option<u64>, kind: BlockKind) -> Option<u32> {
        if self.by_key.len() >= CACHE_LIMIT {
            self.drop_all(ram);
        }
        let page = offset & !(PAGE_SIZE - 1);
        if self.owner.is_some() {
            // Others may store meanwhile: what they store must be seen before anything is read.
            self.mark_code(ram, page);
            second_page.into_iter().for_each(|second| self.mark_code(ram, second));
        }
        let in_page = (offset - page) as usize;
        let mut bytes = [0u8; LONGEST_BLOCK + 16];
        let own = LONGEST_BLOCK.min(PAGE_SIZE as usize - in_page);
        let places = if kind.single { &[] } else { self.alone.in_page(page) };
        let mut memory = std::mem::take(&mut self.instructions);
        let mut decode = |length: usize| {
            ram.read(offset, &mut bytes[..length]);
            self.decode_into(&mut memory, &bytes[..length], in_page as u64, kind, places)
        };
        let usual = own.min(USUAL);
        // All that was looked at, and the instruction behind, is within what was read.
        let ends_within = |block: &Block| usual == own || block.bytes as usize + LONGEST <= usual;
        let mut block = match decode(usual).filter(ends_within).or_else(|| decode(own)) {
            Some(block) => block,
            None => {
                let second = second_page?;
                ram.read(second, &mut bytes[own..own + 16]);
                let single = BlockKind { single: true, ..kind };
                let mut block = self.decode_bytes(&bytes[..own + 16], in_page as u64, single, places)?;
                if block.bytes as usize > own {
                    block.second_page = Some(second);
                }
                block
            }
        };
        self.instructions = memory;
        block.native.offset = offset;
        let second = block.second_page;
        let key = kind.key(offset);
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.blocks.push(None);
                self.blocks.len() as u32 - 1
            }
        };
        if let Some(old) = self.by_key.insert(key, index) {
            self.remove(old);
            self.epoch += 1;
        }
        self.blocks[index as usize] = Some(block);
        self.mark_code(ram, page);
        self.by_page.entry(page).or_default().push((key, index));
        if let Some(second) = second {
            self.mark_code(ram, second);
            self.by_page.entry(second).or_default().push((key, index));
        }
        Some(index)
    }

    /// Decodes from `bytes`, the first being at offset `at` from the RIP base. `None`: the first instruction is longer than the bytes. Instructions
    /// at the offsets `alone` get blocks of their own.
    pub fn decode_bytes(&self, bytes: &[u8], at: u64, kind: BlockKind, alone: &[u16]) -> Option<Block> {
        self.decode_into(&mut Vec::new(), bytes, at, kind, alone)
    }

    /// The same, with memory for the decoder's instructions.
    fn decode_into(
        &self,
        instructions: &mut Vec<Instruction>,
        bytes: &[u8],
        at: u64,
        kind: BlockKind,
        alone: &[u16],
    ) -> Option<Block> {
        instructions.clear();
        let mut decoder = Decoder::with_ip(bitness(kind.code_size), bytes, at, DecoderOptions::NONE);
        let table = Table::shared();
        let limit = if kind.single { 1 } else { BLOCK_LIMIT };
        let mut ended = false;
        let mut ends_next = false;
        let mut is_alone = false;
        let mut locks = false;
        while instructions.len() < limit && !ended && !is_alone && decoder.can_decode() {
            is_alone = alone.contains(&(decoder.ip() as u16));
            if !instructions.is_empty() && (is_alone || self.is_stop(decoder.ip())) {
                is_alone = false;
                break;
            }
            let start = decoder.position();
            let instruction = self.decode_one(&mut decoder);
            let mut place = Place::Ends;
            if instruction.is_invalid() {
                let short = decoder.last_error() == iced_x86::DecoderError::NoMoreBytes && bytes.len() - start < 15;
                if short {
                    if instructions.is_empty() {
                        return None;
                    }
                    break;
                }
                if !instructions.is_empty() {
                    // It gets a block of its own, where it raises #UD.
                    break;
                }
                ended = true;
            } else {
                locks = kind.locks && may_lock_bus(&instruction);
                if locks && !instructions.is_empty() {
                    locks = false;
                    break;
                }
                place = table.get(instruction.code()).place;
                ended = place == Place::Ends || !self.announced[instruction.code() as usize] || locks;
            }
            instructions.push(instruction);
            if ends_next {
                break;
            }
            ends_next = place == Place::EndsAfterNext;
        }
        if kind.cet == CetCode::Waiting && instructions.first().is_some_and(|first| !ends_branch(first, kind)) {
            instructions.truncate(1);
            let first = instructions.first()?;
            let mut op = Op::new(missing_endbranch_handler());
            (op.offset, op.length, op.code) = (first.ip() as u16, first.len() as u8, first.code() as u16);
            let bytes = (first.next_ip() - at) as u32;
            (op.number, op.count) = (1, 1);
            return Some(Block {
                ops: Ops::new(vec![op], first.next_ip()),
                count: 1,
                bytes,
                second_page: None,
                alone: false,
                locks: kind.locks,
                code_size: kind.code_size,
                native: Native::default(),
            });
        }
        let mut ops = Vec::with_capacity(instructions.len() + 1);
        // Which status flags someone may still read, going backwards.
        let mut live = u32::MAX;
        for instruction in instructions.iter().rev() {
            ops.push(self.lower(instruction, kind, &mut live));
        }
        ops.reverse();
        for (op, number) in ops.iter_mut().zip(1..) {
            (op.number, op.count) = (number, instructions.len() as u8);
        }
        if locks {
            is_alone = true;
            ops.insert(0, Op { run: watched_handler, ..ops[0] });
        } else if is_alone {
            ops.insert(0, on_its_own(&ops[0]));
        }
        if kind.code_size == 2 {
            fuse(&mut ops);
        }
        let last = instructions.last()?;
        let end = last.next_ip();
        Some(Block {
            count: instructions.len() as u32,
            bytes: (end - at) as u32,
            ops: Ops::new(ops, end),
            second_page: None,
            alone: is_alone,
            locks: kind.locks,
            code_size: kind.code_size,
            native: Native::default(),
        })
    }

    /// The `count` instructions in `bytes`, of `code_size`, again, and whether the last ends the block. `None`: they are no longer one block, another
    /// processor having written them.
    pub(crate) fn decode_again(
        &self,
        bytes: &[u8],
        at: u64,
        count: usize,
        code_size: u8,
    ) -> Option<(Vec<Instruction>, bool)> {
        let mut decoder = Decoder::with_ip(bitness(code_size), bytes, at, DecoderOptions::NONE);
        let instructions: Vec<_> = (0..count).map(|_| self.decode_one(&mut decoder)).collect();
        let table = Table::shared();
        let ends =
            |instruction: &Instruction| !self.has(instruction) || table.get(instruction.code()).place == Place::Ends;
        let (last, others) = instructions.split_last()?;
        if others.iter().any(ends) || decoder.position() != bytes.len() {
            return None;
        }
        let ends = ends(last);
        Some((instructions, ends))
    }

    /// Whether the model has the instruction.
    #[inline]
    pub(crate) fn has(&self, instruction: &Instruction) -> bool {
        !instruction.is_invalid() && self.announced[instruction.code() as usize]
    }

    /// The operation that stands for the instruction alone, with all flags live.
    pub(crate) fn operation(&self, instruction: &Instruction, code_size: u8) -> Op {
        let kind = BlockKind { code_size, single: true, cet: CetCode::Off, locks: false };
        self.lower(instruction, kind, &mut u32::MAX.clone())
    }

    /// The next instruction, as the model has it.
    fn decode_one(&self, decoder: &mut Decoder<'_>) -> Instruction {
        let mut instruction = decoder.decode();
        let without_prefix = without_ignored_prefix(instruction.code());
        if !self.announced[instruction.code() as usize] && without_prefix != Code::INVALID {
            instruction.set_code(without_prefix);
        }
        instruction
    }

    fn lower(&self, instruction: &Instruction, kind: BlockKind, live: &mut u32) -> Op {
        let code = instruction.code();
        let table = Table::shared();
        let entry = table.get(code);
        if !self.has(instruction) {
            let mut op = Op::new(undefined_handler());
            op.offset = instruction.ip() as u16;
            op.length = instruction.len() as u8;
            op.code = code as u16;
            *live = u32::MAX;
            return op;
        }
        let mut op = lower(instruction, entry, kind.code_size);
        if self.owner.is_some() && is_locked(&op) {
            op.run = locked;
            *live = u32::MAX;
            return op;
        }
        if kind.cet != CetCode::Off
            && let Some([reg, mem]) = entry.cet
        {
            op.run = if instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory { mem } else { reg };
            // The NOTRACK prefix.
            op.extra = u8::from(instruction.segment_prefix() == Register::DS);
        }
        const STATUS: u32 =
            RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;
        let modified = instruction.rflags_modified() & STATUS;
        let memory = entry.mem.has(op.run) && !entry.mem.has(entry.reg);
        if modified != 0 && *live & modified == 0 {
            let dead = if memory { entry.mem_dead.map(|forms| forms.of(&op)) } else { entry.reg_dead };
            if let Some(handler) = dead {
                op.run = handler;
            }
        }
        if !memory && entry.reg_cannot_trap {
            // Shifts by a count that may be zero modify flags only sometimes: iced says they are modified, so keep those alive unless dead for certain.
            let certain = if may_keep_flags(instruction) { 0 } else { modified & !kept(instruction) };
            *live = *live & !certain | instruction.rflags_read();
        } else {
            *live = u32::MAX;
        }
        op
    }
}

fn bitness(code_size: u8) -> u32 {
    [16, 32, 64][usize::from(code_size.min(2))]
}

/// Whether the instruction satisfies a wait for ENDBRANCH; INT3 does, for debuggers that put it in the place of one.
fn ends_branch(instruction: &Instruction, kind: BlockKind) -> bool {
    let wanted = if kind.code_size == 2 { Code::Endbr64 } else { Code::Endbr32 };
    instruction.code() == wanted || instruction.code() == Code::Int3
}

/// What TZCNT and LZCNT are where they are not announced: their prefix is ignored. INVALID for every other code.
fn without_ignored_prefix(code: Code) -> Code {
    match code {
        Code::Tzcnt_r16_rm16 => Code::Bsf_r16_rm16,
        Code::Tzcnt_r32_rm32 => Code::Bsf_r32_rm32,
        Code::Tzcnt_r64_rm64 => Code::Bsf_r64_rm64,
        Code::Lzcnt_r16_rm16 => Code::Bsr_r16_rm16,
        Code::Lzcnt_r32_rm32 => Code::Bsr_r32_rm32,
        Code::Lzcnt_r64_rm64 => Code::Bsr_r64_rm64,
        _ => Code::INVALID,
    }
}

/// Joins comparisons with the conditional branches that follow them.
fn fuse(ops: &mut [Op]) {
    let table = Table::shared();
    for i in 1..ops.len() {
        let (op, branch) = (&ops[i - 1], &ops[i]);
        let entry = table.get(op.code());
        if let (Some([reg, mem, flat]), Some(condition)) = (entry.fused, table.get(branch.code()).condition) {
            let handlers = match entry.mem.has(op.run) {
                true if op.shape() == Shape::Flat => flat,
                true => mem,
                false => reg,
            };
            ops[i - 1].run = handlers[usize::from(condition & 15)];
        }
    }
}

/// Whether the instruction may leave the flags that it modifies as they are.
pub(crate) fn may_keep_flags(instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic::*;
    match instruction.mnemonic() {
        Shl | Shr | Sar | Sal => instruction.op1_kind() != OpKind::Immediate8 || instruction.immediate8() & 31 == 0,
        Rol | Ror | Rcl | Rcr | Shld | Shrd => true,
        _ => false,
    }
}

/// Flags that are undefined after the instruction, and that our handler keeps.
fn kept(instruction: &Instruction) -> u32 {
    use iced_x86::Mnemonic::*;
    match instruction.mnemonic() {
        Bt | Bts | Btr | Btc => instruction.rflags_undefined(),
        _ => 0,
    }
}
