//! From a block of guest instructions to host code.

use super::Ops;
use super::Width;
use super::buffer::CodeBuffer;
use super::emit::{Emitter, Fixup, Mask, Quiet, R14, R15, RCX, Reg, Rm};
use super::enter::{self, reason};
use super::hints::{self, Hints};
use super::host::Features;
use super::jumps;
use super::loops::{self, Looping};
use super::memory::{Access, host_register};
use super::pins::{self, Plan};
use super::source::Source;
use super::state::{FETCH_INDEX, JUMP_INDEX, State};
use super::system;
use super::undefined::{self, shows_flags};
use super::unpinned::Unmade;
use crate::decode::alone::on_its_own;
use crate::decode::table::{Place, Table};
use crate::decode::{self, Op};
use core::mem::offset_of;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, OpKind};
use std::collections::VecDeque;

/// Code at the start of the buffer that all translations use.
pub(super) struct Stubs {
    budget: u64,
    link: u64,
    interpret: u64,
    accesses: hints::Stubs,
    call_interpret: u64,
    call_level: u64,
    call_lookup: u64,
    second_slot: u64,
    call_x87: u64,
    call_unpinned: u64,
    vectors: [u64; 2],
    /// Where translations begin.
    pub end: u64,
}

impl Stubs {
    /// Appends them.
    pub(super) fn emit(buffer: &mut CodeBuffer, quiet: Quiet) -> Self {
        let to = enter::addresses();
        let mut code = Emitter::new(buffer.next(), quiet);
        let exit = |code: &mut Emitter, reason: u64| {
            let at = code.here();
            code.op64(0xc7, 0, Rm::state(offset_of!(State, reason)));
            code.dword(reason as u32);
            // The process' own code is farther away than a relative jump reaches.
            code.far_jump(to.leave);
            at
        };
        let budget = exit(&mut code, reason::BUDGET);
        let link = exit(&mut code, reason::LINK);
        let interpret = exit(&mut code, reason::INTERPRET);
        let fill = code.here();
        code.far_jump(to.fill);
        let sample = code.here();
        code.far_jump(to.sample);
        let accesses = hints::Stubs::emit(&mut code, fill, sample);
        let call_interpret = code.here();
        code.far_jump(to.interpret);
        let call_level = code.here();
        code.far_jump(to.level);
        let call_lookup = code.here();
        code.far_jump(to.lookup);
        let second_slot = emit_second_slot(&mut code, call_lookup);
        let call_x87 = code.here();
        code.far_jump(to.x87);
        let call_unpinned = code.here();
        code.far_jump(to.unpinned);
        let vectors = to.vectors.map(|target| {
            let at = code.here();
            code.far_jump(target);
            at
        });
        buffer.append(code.bytes());
        Self {
            budget,
            link,
            interpret,
            accesses,
            call_interpret,
            call_level,
            call_lookup,
            second_slot,
            call_x87,
            call_unpinned,
            vectors,
            end: buffer.next(),
        }
    }
}

/// The entry of the address in R14 in [`State::fetched`] into R15.
fn load_fetched(code: &mut Emitter) {
    code.extract(R15, R14, FETCH_INDEX);
    code.load(R15, Rm::element(offset_of!(State, fetched), R15));
}

/// The place of the target in R14, which is also in [`State::target`], into R14, and its first slot into R15. RCX is zero if it has that target.
fn look_into_table(code: &mut Emitter) {
    load_fetched(code);
    code.extract(RCX, R14, JUMP_INDEX);
    code.lea(R14, Rm::Indexed(R15, R14, 0, 0));
    code.lea(RCX, Rm::Indexed(RCX, RCX, 0, 0));
    code.load(R15, Rm::state(offset_of!(State, jumps)));
    code.lea(R15, Rm::Indexed(R15, RCX, 3, 0));
    check_slot(code);
}

/// RCX is zero if the slot that R15 points to has the target whose place is in R14.
fn check_slot(code: &mut Emitter) {
    code.load(RCX, Rm::Base(R15, 0));
    code.lea(RCX, Rm::Indexed(RCX, R14, 0, 0));
}

/// Emits what is called for a target in [`State::target`] that is not in its first slot, with the jump's site in RCX: looks into the second one, or else
/// calls `look_up`. R15 points to its slot then, which is the first one.
fn emit_second_slot(code: &mut Emitter, look_up: u64) -> u64 {
    let (site, back) = (Rm::state(offset_of!(State, jump_site)), Rm::state(offset_of!(State, jump)));
    let start = code.here();
    code.pop(back);
    code.store(site, RCX);
    let again = code.here();
    code.load(R14, Rm::state(offset_of!(State, target)));
    look_into_table(code);
    let first = code.skip_if_rcx_zero();
    code.lea(R15, Rm::Base(R15, jumps::SECOND));
    check_slot(code);
    let neither = code.jump_unless_rcx_zero();
    // They change places: who made it give way may have been one that comes seldom, as after an interrupt.
    for half in [0, jumps::LEADS_TO] {
        let (ours, other) = (Rm::Base(R15, half), Rm::Base(R15, half - jumps::SECOND));
        code.load(RCX, ours);
        code.load(R14, other);
        code.store(ours, R14);
        code.store(other, RCX);
    }
    code.lea(R15, Rm::Base(R15, -jumps::SECOND));
    code.fix_skip(first);
    code.op32(0xff, 4, back);
    code.fix(neither);
    code.load(R14, Rm::state(offset_of!(State, target)));
    code.load(RCX, site);
    code.call(look_up);
    code.jump_to(again);
    start
}

/// Of a call for a target: which jump of known distance it is, one more than its number, or that what reaches into a second page was arrived at.
pub(super) const SECOND_PAGE: u32 = u32::MAX;

/// An instruction of a block, and what it accesses: given to Rust as one number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site(u32);

/// Of a site: see [`Miss::Certain`].
const CERTAIN: u32 = 1 << 30;
/// Of a site: see [`Site::with_link`].
const LINKS: u32 = 1 << 31;

impl Site {
    /// The instruction at `offset` in its page, number `index` of its block.
    pub(super) fn new(offset: u64, index: usize) -> Self {
        Self(offset as u32 & 0xfff | (index as u32 & 0x7f) << 12)
    }

    pub(super) fn with(self, access: Access, pinned: bool) -> Self {
        let flags = u32::from(access.write) << 26 | u32::from(access.aligned) << 27 | u32::from(pinned) << 28;
        Self(self.0 | access.size << 19 | flags)
    }

    /// AF is clear before the instruction, whatever the host's is.
    pub(super) fn with_clear_af(self, clear: bool) -> Self {
        Self(self.0 | u32::from(clear) << 29)
    }

    /// From the number.
    pub(super) fn from(number: u64) -> Self {
        Self(number as u32)
    }

    pub(super) fn offset(self) -> u64 {
        u64::from(self.0 & 0xfff)
    }

    pub(super) fn index(self) -> u64 {
        u64::from(self.0 >> 12 & 0x7f)
    }

    pub(super) fn size(self) -> usize {
        (self.0 >> 19 & 0x7f) as usize
    }

    pub(super) fn write(self) -> bool {
        self.0 >> 26 & 1 != 0
    }

    pub(super) fn aligned(self) -> bool {
        self.0 >> 27 & 1 != 0
    }

    /// See [`Miss::Certain`].
    pub(super) fn certain(self) -> bool {
        self.0 & CERTAIN != 0
    }

    /// There are pins: what the software TLB holds must stay.
    pub(super) fn pinned(self) -> bool {
        self.0 >> 28 & 1 != 0
    }

    /// Of a call for an instruction that ends its block: what follows is linked, for when the instruction behind it comes next and nothing changed
    /// that decides what is there.
    pub(super) fn with_link(self) -> Self {
        Self(self.0 | LINKS)
    }

    /// See [`Site::with_link`].
    pub(super) fn links(self) -> bool {
        self.0 & LINKS != 0
    }

    /// AF is clear, whatever the host's is.
    pub(super) fn clear_af(self) -> bool {
        self.0 >> 29 & 1 != 0
    }
}

/// Code that is seldom executed, put behind the block.
pub(super) enum Cold {
    /// The page is not where it was looked for, by the hint in `slot` or the address: go on at `found` when it is found.
    Fill { jump: Fixup, found: u64, site: Site, access: Access, slot: Option<usize> },
    /// Go on in the form without pins, at the instruction of `site`.
    Unpinned { jump: Fixup, site: Site },
    /// Find the page in a loop, which is left then for the form without pins.
    FillUnpinned { jump: Fixup, site: Site, access: Access, slot: Option<usize> },
    /// Leave: the interpreter does the instruction. Flags are first restored from R15 if `flags`.
    Interpret { jump: Fixup, site: Site, flags: bool },
    /// Call the interpreter's operation, and go on at `back`.
    Call { jump: Fixup, back: u64, site: Site, operation: u64 },
    /// The target is not in its first slot: look into the second one, or else for its translation, and go on at `found`; leave if there is none.
    Lookup { jump: Fixup, miss: Miss, found: u64 },
    /// A jump of known distance, whose target is in R14, is not linked, or to another place, the end of whose doubleword is given: look for the
    /// translation and try again.
    Far { elsewhere: Fixup, jump: Fixup, retry: u64, place: u64 },
    /// What reaches into the page with this number checks that this is still there.
    SecondPage { jump: Fixup, number: u64 },
    /// Bring the vector registers and try again.
    Vectors { jump: Fixup, retry: u64, site: Site, avx: bool },
    /// Bring the x87's state and try again.
    X87 { jump: Fixup, retry: u64, site: Site },
    /// A jump within the page that is not linked.
    Link { jump: Fixup, target: u64 },
}

/// A conditional branch that is taken, `executed` instructions into the block.
pub(super) struct Taken {
    pub jump: Fixup,
    pub target: u64,
    pub executed: usize,
}

/// Where control goes when a target's translation is not known.
#[derive(Clone, Copy)]
pub(super) enum Miss {
    /// The instruction has changed nothing: the interpreter does it.
    Interpret(Site),
    /// The same, and nothing can hinder it any more: what is at the target comes next.
    Certain(Site),
    /// The target is R14's.
    Lookup,
}

impl Miss {
    /// The number for Rust.
    fn number(self) -> u64 {
        match self {
            Self::Interpret(site) => u64::from(site.0),
            Self::Certain(site) => u64::from(site.0 | CERTAIN),
            // Without a site: its number is never so large.
            Self::Lookup => u64::from(u32::MAX),
        }
    }
}

/// A translation that was made: its code is in [`Scratch::parts`].
pub(super) struct Translation {
    /// Where it begins.
    pub entry: u64,
    /// Where its exit for lack of budget is.
    pub exit: u64,
    /// Its form without pins, if it may need one.
    pub unpinned: Option<Unmade>,
}

/// Memory that one translation after the other uses.
pub(super) struct Scratch {
    /// The code of the last one, and what of it is seldom executed.
    pub parts: [Vec<u8>; 2],
    /// Its jumps to other pages.
    pub sites: Vec<jumps::Site>,
    cold: VecDeque<Cold>,
    taken: VecDeque<Taken>,
    pub factory: InstructionInfoFactory,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            parts: [const { Vec::new() }; 2],
            sites: Vec::new(),
            cold: VecDeque::new(),
            taken: VecDeque::new(),
            factory: InstructionInfoFactory::new(),
        }
    }
}

/// What a translation will have its numbers from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// Of its form without pins, if it needs one.
    pub unmade: usize,
    /// Of its first jump to another page.
    pub site: u32,
    /// Of the second page, if the block reaches into that.
    pub second: Option<u64>,
}

/// Emits one block.
pub(super) struct Builder<'a> {
    pub code: Emitter,
    pub cold: VecDeque<Cold>,
    pub taken: VecDeque<Taken>,
    pub host: &'a Features,
    pub guarded: [bool; 2],
    pub guarded_x87: bool,
    /// The page of FIP is noted.
    pub noted_page: bool,
    /// Status flags that may be read after the instruction that is emitted, in iced's bits.
    pub live: u32,
    /// AF is clear, whatever the host's is ([`super::undefined`]): so it is made to be before anything can read it.
    pub clear_af: bool,
    /// For each instruction, whether its access takes a hint.
    pub hinted: Vec<bool>,
    /// The pins, in the form with them.
    pub plan: Option<Plan>,
    /// A bit for each pin that is set.
    pub pins_set: u32,
    /// A guest's register of those that are in memory, and a temporary that holds it too, at the beginning of the instruction.
    pub held: Option<(u8, Reg)>,
    /// The same for the next instruction.
    pub held_next: Option<(u8, Reg)>,
    pub scratch: &'a mut Scratch,
    /// The loop, while it is emitted.
    pub looping: Option<Looping>,
    /// R15 holds the negated budget throughout.
    pub kept_budget: bool,
    /// The form without pins is emitted, to any of whose instructions control may come.
    unpinned: bool,
    /// Where jumps to the form without pins end, and to which instruction they go.
    to_unpinned: Vec<(u64, usize)>,
    numbers: Numbers,
    /// Jumps to the beginning, which may go to the loop.
    to_loop: Vec<Fixup>,
    /// Where the translation begins.
    pub entry: u64,
    stubs: &'a Stubs,
    pub source: &'a Source<'a>,
    ops: &'a mut Ops,
    pub hints: &'a mut Hints,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        origins: [u64; 2],
        source: &'a Source<'a>,
        stubs: &'a Stubs,
        host: &'a Features,
        ops: &'a mut Ops,
        hints: &'a mut Hints,
        scratch: &'a mut Scratch,
    ) -> Self {
        scratch.sites.clear();
        let memory = std::mem::take(&mut scratch.parts);
        Self {
            code: Emitter::in_two_parts(origins, host.quiet(), memory),
            cold: std::mem::take(&mut scratch.cold),
            taken: std::mem::take(&mut scratch.taken),
            host,
            guarded: [false; 2],
            guarded_x87: false,
            noted_page: false,
            live: 0,
            clear_af: false,
            hinted: Vec::new(),
            plan: None,
            pins_set: 0,
            held: None,
            held_next: None,
            scratch,
            looping: None,
            kept_budget: false,
            unpinned: false,
            to_unpinned: Vec::new(),
            numbers: Numbers::default(),
            to_loop: Vec::new(),
            entry: 0,
            stubs,
            source,
            ops,
            hints,
        }
    }

    /// Translates the block.
    pub(super) fn build(mut self, numbers: Numbers) -> Translation {
        self.numbers = numbers;
        let source = self.source;
        let instructions = source.instructions();
        let start = instructions[0].ip();
        let count = instructions.len();
        let plan = pins::plan(instructions, source.width, &mut self.scratch.factory);
        self.hinted = self.wanted_hints();
        self.kept_budget = instructions.iter().all(keeps_temporaries);
        self.plan = (!plan.pins.is_empty()).then_some(plan);
        let exit = self.code.here();
        self.code.constant(R14, start);
        self.code.jump_to(self.stubs.budget);
        while !self.code.here().is_multiple_of(16) {
            self.code.byte(0xcc);
        }
        self.emit_lead(start);
        self.entry = self.code.here();
        // RCX holds the negated budget. The entry is at least five bytes long: a jump can be put over it.
        if self.kept_budget {
            self.code.store(Rm::Reg(R15), RCX);
        }
        self.code.lea(RCX, Rm::Base(RCX, count as i32 - 1));
        self.code.extract(RCX, RCX, Mask::low(offset_of!(State, sign)));
        self.code.jump_back_if_rcx_zero(exit);
        let live = self.live_flags();
        let mut clear_af = vec![false; count];
        self.emit_from(0, &live, &mut |builder, index| clear_af[index] = builder.clear_af);
        let cold = std::mem::take(&mut self.cold);
        let rounds = if self.to_loop.is_empty() {
            None
        } else {
            loops::plan(instructions, source.width, &mut self.scratch.factory)
                .and_then(|plan| self.emit_loop(plan, &live))
        };
        self.code.second_part();
        self.emit_cold();
        self.looping = None;
        self.cold = cold;
        self.emit_cold();
        let beginning = rounds.unwrap_or(self.entry);
        for jump in std::mem::take(&mut self.to_loop) {
            self.code.fix_at(jump, beginning);
        }
        let jumps = std::mem::take(&mut self.to_unpinned);
        let unpinned = jumps.iter().map(|(_, index)| *index).min().map(|first| Unmade {
            beginning,
            first,
            clear_af: clear_af[first],
            jumps,
        });
        let entry = self.entry;
        (self.scratch.cold, self.scratch.taken, self.scratch.parts) = (self.cold, self.taken, self.code.into_parts());
        Translation { entry, exit, unpinned }
    }

    /// Makes the form without pins, all of it in the first of [`Scratch::parts`]. Gives the address of each of its instructions.
    pub(super) fn build_unpinned(mut self, form: &Unmade, numbers: Numbers) -> Vec<u64> {
        self.numbers = numbers;
        let live = self.live_flags();
        let mut places = vec![0; self.count()];
        (self.unpinned, self.clear_af) = (true, form.clear_af);
        self.hinted = self.wanted_hints();
        self.emit_from(form.first, &live, &mut |builder, index| places[index] = builder.code.here());
        self.emit_cold();
        for jump in std::mem::take(&mut self.to_loop) {
            self.code.fix_at(jump, form.beginning);
        }
        self.code.second_part();
        (self.scratch.cold, self.scratch.taken, self.scratch.parts) = (self.cold, self.taken, self.code.into_parts());
        places
    }

    /// For each instruction, whether its access takes a hint.
    fn wanted_hints(&self) -> Vec<bool> {
        let instructions = self.source.instructions();
        let start = instructions[0].ip();
        let repeats = instructions.iter().any(|i| {
            matches!(i.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch)
                && i.near_branch_target() == start
        });
        hints::wanted(instructions, repeats)
    }

    /// For each instruction, which status flags may be read after it.
    fn live_flags(&self) -> Vec<u32> {
        undefined::live(self.source.instructions(), |index| self.source.has(index), self.host)
    }

    /// Emits the block from instruction `first` on. `note` is called before each, with its number.
    fn emit_from(&mut self, first: usize, live: &[u32], note: &mut dyn FnMut(&Self, usize)) {
        let source = self.source;
        let count = self.count();
        let mut left = false;
        for index in first..count {
            note(self, index);
            left = match self.emit_one(index, live) {
                Done::Yes => false,
                Done::Left => true,
                Done::No => {
                    let site = self.site(index);
                    self.interpret(index, site);
                    self.clear_af = false;
                    index + 1 == count && source.ends
                }
            };
        }
        if !left {
            self.emit_end();
        }
        self.emit_taken();
    }

    /// Emits what follows taken branches, which is often enough.
    pub(super) fn emit_taken(&mut self) {
        while let Some(Taken { jump, target, executed }) = self.taken.pop_front() {
            self.code.fix(jump);
            if target < 0x1000 { self.jump(target, executed) } else { self.jump_far(target, executed) }
        }
    }

    /// What instruction `index` is to Rust.
    pub(super) fn site(&self, index: usize) -> Site {
        Site::new(self.source.instructions()[index].ip(), index).with_clear_af(self.clear_af)
    }

    /// Emits instruction `index`, if it is not the interpreter's.
    pub(super) fn emit_one(&mut self, index: usize, live: &[u32]) -> Done {
        let source = self.source;
        let instruction = &source.instructions()[index];
        let bytes = source.encodings[index].bytes();
        self.live = live[index];
        self.held = self.held_next.take().filter(|_| !self.unpinned);
        if shows_flags(instruction) {
            self.settle_af();
        }
        let site = self.site(index);
        let supported = self.host.have(instruction.code()) || is_hint(instruction) || system::is_of_state(instruction);
        // A branch that does not end its block is no operation of the interpreter's here.
        let own_time = !source.alone || instruction.flow_control() != FlowControl::Next;
        let known = source.has(index) && supported && (own_time || system::has_time(instruction));
        let done = match () {
            () if !known => Done::No,
            () if self.looping.is_some() => self.translate_in_loop(instruction, bytes, site, index + 1),
            () => self.translate(instruction, bytes, site, index + 1),
        };
        if done == Done::Yes {
            self.note_af(instruction);
        }
        done
    }

    /// Goes on behind the last instruction.
    pub(super) fn emit_end(&mut self) {
        self.settle_af();
        let (source, count) = (self.source, self.count());
        let next = source.instructions()[count - 1].next_ip();
        if next < 0x1000 { self.jump(next, count) } else { self.jump_far(next, count) }
    }

    fn emit_cold(&mut self) {
        while let Some(cold) = self.cold.pop_front() {
            self.emit_one_cold(cold);
        }
    }

    fn emit_one_cold(&mut self, cold: Cold) {
        match cold {
            Cold::Fill { jump, found, site, access, slot } => {
                self.code.fix(jump);
                self.fill(site, access, slot);
                self.code.jump_to(found);
            }
            Cold::Unpinned { jump, site } => self.go_unpinned(jump, site),
            Cold::FillUnpinned { jump, site, access, slot } => {
                self.code.fix(jump);
                self.spend(0);
                self.fill(site, access, slot);
                let jump = self.code.jump();
                self.go_unpinned(jump, site);
            }
            Cold::Interpret { jump, site, flags } => {
                self.code.fix(jump);
                if flags {
                    self.restore_flags();
                }
                self.code.constant(RCX, u64::from(site.0));
                self.code.jump_to(self.stubs.interpret);
            }
            Cold::Call { jump, back, site, operation } => {
                self.code.fix(jump);
                self.call_interpreter(site, operation);
                self.code.jump_to(back);
            }
            Cold::Lookup { jump, miss, found } => {
                self.code.fix(jump);
                self.code.constant(RCX, miss.number());
                self.code.call(self.stubs.second_slot);
                self.code.jump_to(found);
            }
            Cold::Far { elsewhere, jump, retry, place } => {
                let site = jumps::Site { place, jump: self.code.end_of(&jump), unlinked: self.code.here(), entry: 0 };
                self.code.fix(elsewhere);
                self.code.fix(jump);
                let number = self.numbers.site + self.scratch.sites.len() as u32;
                self.scratch.sites.push(site);
                self.look_for(number + 1);
                self.code.jump_to(retry);
            }
            Cold::SecondPage { jump, number } => {
                self.code.fix(jump);
                self.emit_second_page(number);
            }
            Cold::Vectors { jump, retry, site, avx } => {
                self.code.fix(jump);
                self.code.constant(RCX, u64::from(site.0));
                self.code.call(self.stubs.vectors[usize::from(avx)]);
                self.code.jump_to(retry);
            }
            Cold::X87 { jump, retry, site } => {
                self.code.fix(jump);
                self.code.constant(RCX, u64::from(site.0));
                self.code.call(self.stubs.call_x87);
                self.code.jump_to(retry);
            }
            Cold::Link { jump, target } => {
                let site = self.code.end_of(&jump);
                self.code.fix(jump);
                self.code.constant(RCX, site);
                self.code.constant(R14, target);
                self.code.jump_to(self.stubs.link);
            }
        }
    }

    /// Looks for the page of the address in R14, or leaves.
    fn fill(&mut self, site: Site, access: Access, slot: Option<usize>) {
        self.code.constant(RCX, (slot.unwrap_or(0) as u64) << 32 | u64::from(site.0));
        self.code.call(self.stubs.accesses.of(access, slot.is_some()));
    }

    /// The jump goes to the form without pins, at the instruction of `site`, once that is made.
    fn go_unpinned(&mut self, jump: Fixup, site: Site) {
        self.to_unpinned.push((self.code.end_of(&jump), site.index() as usize));
        self.code.fix(jump);
        self.code.constant(RCX, (self.numbers.unmade as u64) << 32 | u64::from(site.0));
        self.code.call(self.stubs.call_unpinned);
    }

    /// The address of the interpreter's operation for instruction `index`, made to be called alone.
    fn operation(&mut self, index: usize) -> u64 {
        let mut op = self.source.operation(index);
        // As in the interpreter's block: from it follows how many instructions had completed.
        op.number = index as u8 + 1;
        let last = index + 1 == self.count();
        let mut ops = vec![op];
        if self.source.alone {
            ops.insert(0, on_its_own(&op));
        }
        // STI holds interrupts back by itself if the next instruction runs before anybody looks.
        if !last && Table::shared().get(op.code()).place == Place::EndsAfterNext {
            ops.push(Op::successor());
        }
        let ops = decode::Ops::new(ops, 0);
        let address = ops.first().address();
        self.ops.push(ops);
        address as u64
    }

    /// Calls the interpreter's operation at `address`.
    fn call_interpreter(&mut self, site: Site, address: u64) {
        self.call_for(self.stubs.call_interpret, site, address);
    }

    fn call_for(&mut self, stub: u64, site: Site, operation: u64) {
        self.code.constant(RCX, u64::from(site.0));
        self.code.constant(R14, operation);
        self.code.call(stub);
    }

    /// The interpreter is called for the instruction instead of what `emit` emits, unless the field of the state block at `offset` is zero. RCX is used.
    pub(super) fn call_unless(&mut self, offset: usize, site: Site, emit: impl FnOnce(&mut Self)) {
        let operation = self.operation(site.index() as usize);
        self.code.load(RCX, Rm::state(offset));
        let jump = self.code.jump_unless_rcx_zero();
        emit(self);
        self.cold.push_back(Cold::Call { jump, back: self.code.here(), site, operation });
    }

    /// The interpreter does instruction `index`.
    fn interpret(&mut self, index: usize, site: Site) {
        let source = self.source;
        let instruction = &source.instructions()[index];
        let last = index + 1 == self.count();
        if Table::shared().get(instruction.code()).condition.is_some() {
            // Taken, it leaves the block in its middle.
            self.code.constant(RCX, u64::from(site.0));
            return self.code.jump_to(self.stubs.interpret);
        }
        let address = self.operation(index);
        if system::changes_level(instruction) && self.width() == Width::Long64 {
            return self.call_for(self.stubs.call_level, site, address);
        }
        (self.guarded, self.guarded_x87, self.noted_page) = ([false; 2], false, false);
        (self.pins_set, self.kept_budget) = (0, false);
        let ends = last && source.ends;
        let next = instruction.next_ip();
        let links = ends && instruction.flow_control() == FlowControl::Next && next < 0x1000;
        let site = if links { site.with_link() } else { site };
        self.call_interpreter(site, address);
        if links {
            self.jump(next, index + 1);
        } else if ends {
            self.spend(index + 1);
            self.code.load(R14, Rm::state(offset_of!(State, rip)));
            self.look_up(0, Miss::Lookup, |_| {});
        }
    }

    /// The kind of code.
    pub(super) fn width(&self) -> Width {
        self.source.width
    }

    /// How many instructions the block has.
    pub(super) fn count(&self) -> usize {
        self.source.instructions().len()
    }

    /// Takes `executed` from the budget, which is in RCX afterwards.
    pub(super) fn spend(&mut self, executed: usize) {
        let budget = Rm::state(offset_of!(State, budget));
        if self.looping.is_some() {
            self.budget_in_loop(executed as i32);
        } else if self.kept_budget {
            self.code.lea(RCX, Rm::Base(R15, executed as i32));
        } else {
            self.code.load(RCX, budget);
            self.code.lea(RCX, Rm::Base(RCX, executed as i32));
        }
        self.code.store(budget, RCX);
    }

    /// Goes to `target` in the same page.
    pub(super) fn jump(&mut self, target: u64, executed: usize) {
        self.spend(executed);
        let start = self.source.instructions()[0].ip();
        if target == start && start as usize + self.source.bytes <= 0x1000 {
            return match self.looping {
                Some(_) => self.code.jump_to(self.entry),
                None => self.to_loop.push(self.code.jump()),
            };
        }
        if let Some(entry) = self.source.known(target) {
            return self.code.jump_to(entry);
        }
        let jump = self.code.jump();
        self.cold.push_back(Cold::Link { jump, target });
    }

    /// Goes to an address that is `distance` from the page's first byte.
    pub(super) fn jump_far(&mut self, distance: u64, executed: usize) {
        self.spend(executed);
        self.rip(R14, distance);
        let retry = self.code.here();
        load_fetched(&mut self.code);
        let place = self.code.lea_changeable(RCX, R15, R14, 0);
        let elsewhere = self.code.jump_unless_rcx_zero();
        let jump = self.code.jump();
        self.cold.push_back(Cold::Far { elsewhere, jump, retry, place });
    }

    /// The address that is `distance` from the page's first byte.
    pub(super) fn rip(&mut self, to: u8, distance: u64) {
        self.code.load(to, Rm::state(offset_of!(State, rip_base)));
        match i32::try_from(distance as i64) {
            Ok(distance) => self.lea_address(to, Rm::Base(to, distance)),
            Err(_) => {
                self.code.constant(R15, distance);
                self.code.lea(to, Rm::Indexed(to, R15, 0, 0));
            }
        }
    }

    /// Goes to the address in R14, if its translation is known; then `commit` is done first. R14 and RCX are free for it, not R15.
    pub(super) fn look_up(&mut self, executed: usize, miss: Miss, commit: impl FnOnce(&mut Self)) {
        self.find_target(miss);
        commit(self);
        self.go(executed);
    }

    /// Looks for the translation of the target in R14; `which` as in the upper half of the number that is given to Rust ([`SECOND_PAGE`]).
    fn look_for(&mut self, which: u32) {
        self.code.constant(RCX, u64::from(which) << 32 | Miss::Lookup.number());
        self.code.call(self.stubs.call_lookup);
    }

    /// The slot of the target in R14 into R15, if its translation is known. RCX and R14 are used.
    pub(super) fn find_target(&mut self, miss: Miss) {
        let code = &mut self.code;
        code.store(Rm::state(offset_of!(State, target)), R14);
        look_into_table(code);
        let jump = code.jump_unless_rcx_zero();
        self.cold.push_back(Cold::Lookup { jump, miss, found: code.here() });
    }

    /// Goes to the target that [`Builder::find_target`] found, taking `executed` from the budget.
    pub(super) fn go(&mut self, executed: usize) {
        if executed != 0 {
            self.spend(executed);
        }
        self.code.load(R14, Rm::state(offset_of!(State, target)));
        // jmp [r15 + …]
        self.code.op32(0xff, 4, Rm::Base(R15, jumps::LEADS_TO));
    }

    /// What is executed before the block, which begins at `start` in its page, by who comes from another page, with the target in R14.
    fn emit_lead(&mut self, start: u64) {
        let lead = self.code.here();
        if let Some(number) = self.numbers.second {
            let jump = self.code.jump();
            self.cold.push_back(Cold::SecondPage { jump, number });
        } else {
            self.arrive(start);
            self.code.load(RCX, Rm::state(offset_of!(State, budget)));
        }
        while self.code.here() < lead + jumps::LEAD {
            self.code.byte(0xcc);
        }
    }

    /// Takes the page's linear address from the target in R14.
    fn arrive(&mut self, start: u64) {
        self.code.raw(&[0x4d, 0x8d, 0xb6]); // lea r14, [r14 - start]
        self.code.dword((start as u32).wrapping_neg());
        self.code.store(Rm::state(offset_of!(State, rip_base)), R14);
    }

    fn emit_second_page(&mut self, number: u64) {
        let start = self.source.instructions()[0].ip();
        self.arrive(start);
        self.code.lea(R14, Rm::Base(R14, 0x1000));
        load_fetched(&mut self.code);
        self.code.lea_changeable(RCX, R15, R14, (jumps::place(0, number) as i32).wrapping_neg());
        let elsewhere = self.code.jump_unless_rcx_zero();
        self.code.load(RCX, Rm::state(offset_of!(State, budget)));
        self.code.jump_to(self.entry);
        self.code.fix(elsewhere);
        self.code.lea(R14, Rm::Base(R14, start as i32 - 0x1000));
        self.look_for(SECOND_PAGE);
        self.code.jump_to(self.entry - jumps::LEAD);
    }

    /// Brings the vector registers, or leaves if vector instructions (with VEX: `avx`) are not to be executed here.
    pub(super) fn guard(&mut self, avx: bool, site: Site) {
        if let Some(looping) = &mut self.looping {
            looping.guards[usize::from(avx)] = true;
            return;
        }
        self.held = None;
        if !std::mem::replace(&mut self.guarded[usize::from(avx)], true) {
            let field = if avx { offset_of!(State, avx_blocked) } else { offset_of!(State, sse_blocked) };
            let retry = self.code.here();
            self.code.load(RCX, Rm::state(field));
            let jump = self.code.jump_unless_rcx_zero();
            self.cold.push_back(Cold::Vectors { jump, retry, site, avx });
        }
    }

    /// The status flags into R15. R14 is used.
    pub(super) fn save_flags(&mut self) {
        self.code.store(Rm::Reg(R14), 0);
        self.code.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
        self.code.store(Rm::Reg(R15), 0);
        self.code.store(Rm::Reg(0), R14);
    }

    /// The status flags from R15. R14 is used.
    pub(super) fn restore_flags(&mut self) {
        self.code.store(Rm::Reg(R14), 0);
        self.code.store(Rm::Reg(0), R15);
        self.code.raw(&[0x04, 0x7f, 0x9e]); // add al, 0x7f; sahf
        self.code.store(Rm::Reg(0), R14);
    }
}

/// Instructions that do nothing that a guest can see, whatever the host has.
pub(super) fn is_hint(i: &Instruction) -> bool {
    use iced_x86::Mnemonic::{Endbr32, Endbr64, Nop, Prefetchnta, Prefetcht0, Prefetcht1, Prefetcht2, Prefetchw};
    matches!(i.mnemonic(), Nop | Endbr64 | Endbr32 | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchnta | Prefetchw)
}

/// Whether it surely leaves R15 alone: most of what is in a loop that waits or counts.
fn keeps_temporaries(i: &Instruction) -> bool {
    use iced_x86::Mnemonic::{Add, And, Cmp, Dec, Inc, Jmp, Mov, Nop, Or, Sub, Test, Xor};
    let simple = matches!(i.mnemonic(), Add | And | Cmp | Dec | Inc | Mov | Nop | Or | Sub | Test | Xor)
        && i.op_kinds().enumerate().all(|(at, kind)| match kind {
            OpKind::Register => {
                let register = i.op_register(at as u32);
                (register.is_gpr32() || register.is_gpr64()) && host_register(register.number() as u8).is_some()
            }
            OpKind::Immediate8 | OpKind::Immediate32 => true,
            OpKind::Immediate8to32 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => true,
            _ => false,
        });
    let branch = matches!(i.op0_kind(), OpKind::NearBranch32 | OpKind::NearBranch64)
        && (i.is_jcc_short_or_near() || i.mnemonic() == Jmp);
    simple || branch
}

/// What became of an instruction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// It is emitted.
    Yes,
    /// It is emitted, and control does not come behind it.
    Left,
    /// Nothing was emitted: the interpreter has to do it.
    No,
}
