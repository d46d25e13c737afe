//! Running translations: the loop around them, and what they call.
#![allow(unsafe_code)]

use super::block::{Builder, Numbers, SECOND_PAGE, Site};
use super::brake::GO;
use super::enter::{Go, enter, reason};
use super::jumps::{self, CodePage, Table};
use super::source::Source;
use super::state::{Blocks, PENDING, State};
use super::unpinned::OfBlock;
use super::{Translator, Width, block_index};
use crate::cet::CetCode;
use crate::cpu::{Cpu, Mode, RIP_BASE_REG};
use crate::decode::cache::{BlockKind, CodeCache};
use crate::decode::op::Stop;
use crate::decode::{At, Op};
use crate::flags::{AC, LateFlags};
use crate::memory::paging::Kind;
use crate::memory::ram::{GuestRam, PAGE_SIZE};
use crate::memory::tlb::USER;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::segment::{FS, GS};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;
use std::sync::atomic::Ordering::SeqCst;

/// Relative branches from pages this near to the end of canonical addresses might go beyond it.
const EDGE: u64 = (1 << 31) + 2 * PAGE_SIZE;
/// The last page of 4 GiB.
const LAST_PAGE: u64 = (1 << 32) - PAGE_SIZE;

/// Status flags to what LAHF and SETO AL leave in AX.
fn pack(flags: LateFlags) -> u64 {
    pack_bits(flags.bits())
}

/// The same of RFLAGS.
fn pack_bits(bits: u64) -> u64 {
    (bits & 0xd5 | 2) << 8 | bits >> 11 & 1
}

/// The other way round, as bits of RFLAGS.
fn unpack_bits(ax: u64) -> u64 {
    ax >> 8 & 0xd5 | (ax & 1) << 11
}

/// The same of the instruction of `site`.
fn unpack_bits_at(ax: u64, site: Site) -> u64 {
    unpack_bits(if site.clear_af() { ax & !(0x10 << 8) } else { ax })
}

/// The same as [`LateFlags`].
fn unpack(ax: u64) -> LateFlags {
    LateFlags::from_bits(unpack_bits(ax))
}

/// The same of the instruction of `site`.
fn unpack_at(ax: u64, site: Site) -> LateFlags {
    LateFlags::from_bits(unpack_bits_at(ax, site))
}

/// MXCSR as kept by the guest raises exceptions that are not masked.
fn unmasked(mxcsr: u32) -> bool {
    mxcsr & 0x1f80 != 0x1f80
}

/// How a stay in translated code ended.
pub(crate) enum Left {
    /// Go on at RIP.
    Next,
    /// Go on at RIP, and link the jump that ends here to what is there.
    Link(u64),
    /// Go on at RIP, and enter what is there into the table of targets.
    Target,
    /// The interpreter is to execute one instruction at RIP.
    Step,
    /// An operation trapped.
    Trapped(Op),
}

/// Code that has a translation.
#[derive(Clone, Copy)]
struct Target {
    entry: u64,
    /// Where its first byte is in RAM.
    offset: u64,
    /// Where the linear page after it is, if it reaches into that.
    second: Option<u64>,
}

/// Runs the instructions at `entry`, which end in [`super::enter::leave`], with the registers and flags of `cpu`.
pub(super) fn execute(blocks: &mut Blocks, entry: u64, cpu: &mut Cpu) {
    blocks.ready(0).flags = pack(cpu.flags);
    let state = blocks.pointer(0);
    // SAFETY: the state block is ready; nothing else refers to it. What is executed touches general registers and flags only, and leaves.
    unsafe {
        (*state).cpu = &raw mut *cpu as u64;
        enter(state, entry);
        cpu.flags = unpack((*state).flags);
    }
}

impl Cpu {
    /// The index of the state block for what the processor now does; `None` if the interpreter has to do it.
    fn native_index(&self) -> Option<usize> {
        // Levels 1 and 2 would share a state block with level 0, whose bus locks an operating system does not watch for.
        let alike = !self.watches_locks || matches!(self.cpl, 0 | 3);
        let width = self.native_width()?;
        (self.cet == CetCode::Off && alike && !self.tlb.is_slow())
            .then(|| block_index(self.tlb.context_number(), self.tlb.class(), width))
    }

    /// Code at `linear` may be run translated.
    fn native_address(&self, linear: u64) -> bool {
        if self.native_width() == Some(Width::Flat32) {
            // In the last page an instruction might reach beyond the limit.
            return linear < LAST_PAGE;
        }
        let top = 1u64 << (self.linear_bits() - 1);
        linear < top - EDGE || linear >= top.wrapping_neg() + EDGE
    }

    /// Copies what translated code reads from the state block, but for the flags.
    fn refresh_native(&self, state: &mut State) {
        state.refused = [FS, GS].map(|register| u64::from(!self.is_whole(register)));
        state.level_refused = u64::from(self.cpl != 0);
        state.control_refused = u64::from(self.cpl != 0 || self.vmx.non_root);
        let cleared = self.rflags & AC == 0;
        state.clac_refused = u64::from(self.cpl != 0 || !cleared);
        state.stac_refused = u64::from(self.cpl != 0 || cleared);
        state.bases_refused = u64::from(self.cr4 & Cr4::FSGSBASE == 0);
        self.refresh_registers(state);
    }

    /// The same of what an instruction may change without a change of [`crate::memory::tlb::Tlb::changes`], but for the flags, and in 64-bit code.
    fn refresh_registers(&self, state: &mut State) {
        state.fs = self.segs[FS].base;
        state.gs = self.segs[GS].base;
        let unmasked = unmasked(self.mxcsr);
        state.sse_refused = u64::from(self.sse_blocked != 0 || unmasked);
        state.avx_refused = u64::from(self.avx_blocked != 0 || unmasked);
        state.sti_refused = state.control_refused | u64::from(self.apic.pending().is_some());
        let absent = state.live ^ 1;
        state.sse_blocked = state.sse_refused | absent;
        state.avx_blocked = state.avx_refused | absent;
        let first = self.tsc_without_instructions();
        state.tsc_refused = u64::from(first.is_none());
        state.tsc_base = first.unwrap_or(0).wrapping_add(state.last.wrapping_mul(TSC_TICKS_PER_NS));
    }

    /// From here on other threads stop this one at the beginning of a block with `state`.
    fn fit_brake(&self, state: &State) {
        if let Some(peers) = &self.peers {
            state.sign.store(GO, SeqCst);
            peers.brake(self.index).fit(&state.sign);
            if peers.is_kicked(self.index) {
                state.sign.store(0, SeqCst);
            }
        }
    }

    /// Runs the translation at `entry` of the block at RIP, with `last` instructions as the limit. `None`: it cannot be run now.
    pub(crate) fn run_native(&mut self, code: &mut CodeCache, entry: u64, last: u64) -> Option<Left> {
        let linear = self.rip;
        let index = self.native_index()?;
        if !self.native_address(linear) {
            return None;
        }
        let table = self.jump_table();
        let translator = code.translator.as_ref()?;
        let blocks = self.tlb.native.as_mut()?;
        blocks.note_flushes(translator.flushes);
        blocks.ready(index);
        let state = blocks.pointer(index);
        // SAFETY: `ready` made the block; nothing else refers to it here.
        let block = unsafe { &mut *state };
        block.budget = self.instructions.wrapping_sub(last) as i64;
        block.last = last;
        block.pending = false;
        block.rip_base = linear & !0xfff;
        block.jumps = translator.jumps.table(table);
        (block.live, block.x87_live, block.x87_blocked) = (0, 0, 1);
        block.flags = pack(self.flags);
        self.refresh_native(block);
        block.cpu = &raw mut *self as u64;
        block.code = &raw mut *code as u64;
        self.fit_brake(block);
        // SAFETY: the state block is ready and `entry` is the entry of a translation that holds; its processor is `self`, which
        // is touched by nothing else until `enter` returns, nor is `code`; but for the brake, of which nothing else is known to be the value.
        let state = unsafe { enter(state, entry) };
        if let Some(peers) = &self.peers {
            peers.brake(self.index).remove();
        }
        // SAFETY: as above; translated code is left, with this state block, which is one of the processor's.
        let block = unsafe { &mut *state };
        block.take_x87(self);
        self.instructions = block.instructions();
        self.flags = unpack(block.flags);
        let base = block.rip_base;
        let site = Site::from(block.argument);
        Some(match block.reason {
            reason::BUDGET => {
                self.rip = base + block.value;
                Left::Target
            }
            reason::LINK => {
                self.rip = base + block.value;
                Left::Link(block.argument)
            }
            reason::LOOKUP => {
                self.rip = block.value;
                Left::Target
            }
            reason::INTERPRET => {
                self.flags = unpack_at(block.flags, site);
                self.instructions += site.index();
                self.rip = base + site.offset();
                Left::Step
            }
            reason::TRAPPED => {
                self.instructions += site.index();
                self.regs[RIP_BASE_REG as usize] = base;
                // SAFETY: the address of an operation, which the translator keeps.
                let op = unsafe { *(block.value as *const Op) };
                if self.trap.is_retry() {
                    self.rip = base + site.offset();
                    return Some(Left::Step);
                }
                Left::Trapped(op)
            }
            _ => Left::Target,
        })
    }

    /// Puts the page of `linear` into the running state block, if it is memory that may be accessed directly.
    fn fill_native(&mut self, index: usize, linear: u64, site: Site) -> bool {
        let (size, write) = (site.size(), site.write());
        let kind = if write { Kind::Write } else { Kind::Read };
        if site.aligned() && linear as usize & (size - 1) != 0 {
            return false;
        }
        let place = |cpu: &Self| cpu.tlb.recall(cpu.tlb.class(), linear).map(|(offset, _)| offset);
        let before = if site.pinned() { place(self) } else { None };
        if (linear & 0xfff) as usize + size > PAGE_SIZE as usize || !self.make_present(linear, kind) {
            return false;
        }
        // A walk for a store may find the page elsewhere than where a pin has it.
        if before.is_some() && before != place(self) {
            return false;
        }
        let Some(blocks) = self.tlb.native.as_mut() else { return false };
        if blocks.empty_if_stale(index) && site.pinned() {
            return false;
        }
        let read = self.tlb.find_read(linear);
        let write = self.tlb.find_write(linear);
        let Some(offset) = read.or(write) else { return false };
        if let Some(blocks) = self.tlb.native.as_mut() {
            blocks.enter_page(index, linear, offset, read.is_some(), write.is_some());
        }
        true
    }

    /// The kind of the code that is executed.
    fn block_kind(&self) -> BlockKind {
        BlockKind { code_size: self.code_size(), single: false, cet: CetCode::Off, locks: self.watches_locks }
    }

    /// The translation of the code at `linear`, which is at `offset` in RAM, if it is found without another walk through the page tables.
    fn known_translation(&mut self, code: &mut CodeCache, linear: u64, offset: u64) -> Option<Target> {
        // No translation may be dropped now: translated code waits.
        if !self.native_address(linear) || code.translator.as_ref()?.full() {
            return None;
        }
        let kind = self.block_kind();
        if let Some(entry) = code.near_translation(offset, kind) {
            return Some(Target { entry, offset, second: None });
        }
        let index = code.find(offset, kind)?;
        let second = code.block(index)?.second_page;
        if second.is_some() && self.tlb.find_execute((linear & !0xfff).wrapping_add(0x1000)) != second {
            return None;
        }
        let entry = code.native(index, &self.ram)?;
        if second.is_none() {
            code.bring_near(offset, kind, entry);
        }
        Some(Target { entry, offset, second })
    }

    /// The table of jump targets for what the processor now does.
    fn jump_table(&self) -> Table {
        Table { user: self.tlb.class() == USER, non_root: self.vmx.non_root }
    }

    /// The page of RAM that `offset` is in, as the code that it is now.
    fn code_page(&self, offset: u64) -> CodePage {
        let BlockKind { code_size, locks, .. } = self.block_kind();
        CodePage { offset: offset & !(PAGE_SIZE - 1), code_size, locks }
    }

    /// Notes in state block `index`, which is ready, that the page of `linear` was fetched from: it is at `offset` in RAM. Gives the place of that code.
    fn note_fetched(&mut self, code: &CodeCache, index: usize, linear: u64, offset: u64) -> Option<u64> {
        let number = code.translator.as_ref()?.jumps.number(self.code_page(offset))?;
        self.tlb.native.as_mut()?.get(index).enter_fetched(linear, number);
        Some(jumps::place(linear, number))
    }

    /// Enters the translation of the code at `linear` into the table of jump targets, and into state block `index`, which is ready, that its pages
    /// were fetched from. Gives the place of that code.
    fn enter_target(&mut self, code: &mut CodeCache, index: usize, linear: u64, target: Target) -> Option<u64> {
        let place = self.note_fetched(code, index, linear, target.offset)?;
        if let Some(second) = target.second {
            let after = linear.wrapping_add(PAGE_SIZE);
            if !self.native_address(after) {
                return None;
            }
            self.note_fetched(code, index, after, second)?;
        }
        code.translator.as_mut()?.jumps.enter(self.jump_table(), linear, place, target.entry);
        Some(place)
    }

    /// The translation of the code at `linear`, which is at `offset` in RAM, for a jump of translated code with state block `index`, which is ready:
    /// the place of that code, and the entry.
    fn find_target(
        &mut self,
        code: &mut CodeCache,
        index: usize,
        linear: u64,
        offset: u64,
        which: u32,
    ) -> Option<(u64, u64)> {
        if !self.native_address(linear) {
            return None;
        }
        if which != SECOND_PAGE
            && let Some(place) = self.note_fetched(code, index, linear, offset)
            && let Some(entry) = code.translator.as_ref()?.jumps.find(self.jump_table(), linear, place)
        {
            return Some((place, entry));
        }
        let target = self.known_translation(code, linear, offset)?;
        Some((self.enter_target(code, index, linear, target)?, target.entry))
    }

    /// The translation of the code at `linear` according to the table of jump targets, for state block `index`, which is ready.
    fn known_jump(&mut self, code: &CodeCache, index: usize, linear: u64) -> Option<u64> {
        let place = self.tlb.native.as_mut()?.get(index).place(linear);
        code.translator.as_ref()?.jumps.find(self.jump_table(), linear, place)
    }

    /// Goes on at RIP with state block `index`, `old` being the one that ran, if the translation there is known.
    fn change_block(&mut self, code: &mut CodeCache, old: *const State, index: usize) -> Option<Go> {
        let rip = self.rip;
        if !self.native_address(rip) {
            return None;
        }
        self.tlb.native.as_mut()?.ready(index);
        let entry = match self.known_jump(code, index, rip) {
            Some(entry) => entry,
            None => {
                let offset = self.tlb.find_execute(rip)?;
                let target = self.known_translation(code, rip, offset)?;
                self.enter_target(code, index, rip, target)?;
                target.entry
            }
        };
        let table = code.translator.as_ref()?.jumps.table(self.jump_table());
        let state = self.tlb.native.as_mut()?.pointer(index);
        // SAFETY: the state block that ran, which waits; it may be the other one.
        let (budget, last, host_rsp, own, cache, flags) =
            unsafe { ((*old).budget, (*old).last, (*old).host_rsp, (*old).cpu, (*old).code, (*old).flags) };
        // SAFETY: `ready` made the block; nothing else refers to it here.
        let block = unsafe { &mut *state };
        (block.budget, block.pending, block.rip_base) = (budget, false, rip & !0xfff);
        if !std::ptr::eq(state, old) {
            (block.live, block.x87_live, block.x87_blocked) = (0, 0, 1);
        }
        (block.cpu, block.code, block.host_rsp, block.last, block.flags) = (own, cache, host_rsp, last, flags);
        block.jumps = table;
        self.refresh_native(block);
        self.fit_brake(block);
        // As who comes from another page, so that a second page is looked at.
        block.value = rip;
        Some(Go::to(entry - jumps::LEAD, state))
    }

    /// Enters the translation at `entry` of block `number`, which is at RIP, into the table of jump targets.
    pub(crate) fn enter_jump(&mut self, code: &mut CodeCache, number: u32, entry: u64) {
        let Some(block) = code.block(number) else { return };
        let target = Target { entry, offset: block.native.offset, second: block.second_page };
        let Some(index) = self.native_index().filter(|_| self.native_address(self.rip)) else { return };
        if let (Some(blocks), Some(translator)) = (&mut self.tlb.native, &code.translator) {
            blocks.note_flushes(translator.flushes);
            blocks.ready(index);
            self.enter_target(code, index, self.rip, target);
        }
    }
}

/// Called from translated code: maps the page of an address. Gives where to go on.
pub(super) extern "C" fn fill(state: *mut State) -> Go {
    // SAFETY: translated code passes its state block, and waits.
    let (argument, linear, cpu) = unsafe { ((*state).argument, (*state).value, (*state).cpu) };
    // SAFETY: the processor that runs this state block, put there by `run_native`, which waits too.
    let cpu = unsafe { &mut *(cpu as *mut Cpu) };
    let site = Site::from(argument);
    let filled = cpu.native_index().is_some_and(|index| cpu.fill_native(index, linear, site));
    // SAFETY: as before; the tables were changed through another reference, which is gone.
    let block = unsafe { &mut *state };
    if filled {
        block.look_at_events(cpu);
        return Go::to(block.resume, state);
    }
    block.reason = reason::INTERPRET;
    Go::leave(state)
}

/// Called from translated code: looks at a wrong hint. Gives where to go on.
pub(super) extern "C" fn sample(state: *mut State) -> Go {
    // SAFETY: as in `fill`; the code cache is put there with the processor.
    let (block, code) = unsafe { (&mut *state, &mut *((*state).code as *mut CodeCache)) };
    block.hints_left = super::hints::PERIOD;
    if let Some(translator) = &mut code.translator {
        translator.look_at_hint((block.argument >> 32) as usize, block.instructions());
    }
    Go::to(block.resume, state)
}

/// Called from translated code: looks for the translation of a jump target and enters it into the table. Gives where to go on.
pub(super) extern "C" fn look_up(state: *mut State) -> Go {
    // SAFETY: as in `fill`.
    let (argument, target, cpu, code) = unsafe { ((*state).argument, (*state).value, (*state).cpu, (*state).code) };
    // SAFETY: as in `fill`; the code cache is put there with the processor.
    let (cpu, code) = unsafe { (&mut *(cpu as *mut Cpu), &mut *(code as *mut CodeCache)) };
    // SAFETY: as in `fill`.
    let budget = unsafe { (*state).budget };
    let (site, which) = (Site::from(argument), (argument >> 32) as u32);
    let left = argument as u32 == u32::MAX;
    // If that comes next, whatever else there is, its page may be walked to, as it would be by the run loop.
    let next = left && budget < 0 || site.certain() && budget + site.index() as i64 + 1 < 0;
    let next = next && cpu.attention == 0 && !cpu.is_kicked() && cpu.native_address(target);
    let index = cpu.native_index();
    // If it cannot be, the run loop will find that once more.
    let offset = if next { cpu.place_code(target).ok().flatten() } else { cpu.tlb.find_execute(target) };
    if let (Some(index), Some(offset), Some(blocks)) = (index, offset, &mut cpu.tlb.native) {
        // Too many pages of code make room for others.
        blocks.ready(index);
        if let Some((place, entry)) = cpu.find_target(code, index, target, offset, which) {
            if let (1.., Some(translator)) = (which, &mut code.translator) {
                translator.link_far(which, place, entry);
            }
            // What reaches into another second page now has another translation.
            let again = if which == SECOND_PAGE {
                entry - jumps::LEAD
            } else {
                // SAFETY: as in `fill`.
                unsafe { (*state).resume }
            };
            return Go::to(again, state);
        }
    }
    // SAFETY: as in `fill`; the tables were changed through other references, which are gone.
    let block = unsafe { &mut *state };
    block.reason = if left { reason::LOOKUP } else { reason::INTERPRET };
    Go::leave(state)
}

/// Called from translated code: makes the x87's state ready to be loaded. Gives where to go on.
pub(super) extern "C" fn bring_x87(state: *mut State) -> Go {
    // SAFETY: as in `fill`.
    let (block, cpu) = unsafe { (&mut *state, &*((*state).cpu as *const Cpu)) };
    if block.give_x87(cpu) {
        return Go::to(block.resume, state);
    }
    block.reason = reason::INTERPRET;
    Go::leave(state)
}

#[cfg(test)]
thread_local! {
    /// How often [`interpret`] was called.
    static CALLS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How often this thread's translations have called the interpreter.
#[cfg(test)]
pub(super) fn calls() -> usize {
    CALLS.get()
}

/// Called from translated code: does one operation. Gives where to go on.
pub(super) extern "C" fn interpret(state: *mut State) -> Go {
    #[cfg(test)]
    CALLS.set(CALLS.get() + 1);
    // SAFETY: as in `fill`.
    let block = unsafe { &mut *state };
    // SAFETY: as in `fill`.
    let cpu = unsafe { &mut *(block.cpu as *mut Cpu) };
    // SAFETY: the address of an operation, which the translator keeps.
    let op = unsafe { At::from_address(block.value as usize) };
    let (site, base) = (Site::from(block.argument), block.rip_base);
    block.take_x87(cpu);
    cpu.instructions = block.instructions();
    let flags = unpack_at(block.flags, site);
    cpu.flags = flags;
    cpu.regs[RIP_BASE_REG as usize] = base;
    let changes = cpu.tlb.changes;
    let stop = op.run(cpu);
    // SAFETY: as in `fill`; the tables may have been changed through other references, which are gone.
    let block = unsafe { &mut *state };
    if cpu.flags != flags || site.clear_af() {
        block.flags = pack(cpu.flags);
    }
    if stop == Stop::Trapped {
        block.reason = reason::TRAPPED;
        return Go::leave(state);
    }
    block.rip = cpu.rip;
    block.look_at_events(cpu);
    // Outside 64-bit mode segments count too.
    let same = cpu.tlb.changes == changes && cpu.cet == CetCode::Off && cpu.mode == Mode::Long64;
    let next = base + u64::from(op.op().offset) + u64::from(op.op().length);
    if same && (!site.links() || cpu.rip == next) {
        cpu.refresh_registers(block);
        return Go::to(block.resume, state);
    }
    after_change(cpu, state, site)
}

/// Goes on after an operation that may have changed what there is to translated code, or is not followed by the next one.
fn after_change(cpu: &mut Cpu, state: *mut State, site: Site) -> Go {
    // SAFETY: as in `fill`.
    let block = unsafe { &mut *state };
    let index = block.index;
    let after = cpu.native_index();
    if after == Some(index) && !site.links() {
        if let Some(blocks) = &mut cpu.tlb.native {
            // What the operation made void must not be used by the rest of the block.
            blocks.ready(index);
        }
        // SAFETY: as in `fill`; the tables may have been changed through another reference, which is gone.
        let block = unsafe { &mut *state };
        cpu.refresh_native(block);
        return Go::to(block.resume, state);
    }
    // Only an instruction that ends its block comes here.
    go_on(cpu, state, site, after)
}

/// Goes on at RIP, after the last instruction of its block, with state block `after`, if there is one.
fn go_on(cpu: &mut Cpu, state: *mut State, site: Site, after: Option<usize>) -> Go {
    // SAFETY: as in `fill`.
    let block = unsafe { &mut *state };
    block.budget += site.index() as i64 + 1;
    block.reason = reason::GO;
    if let (Some(after), false) = (after, block.pending) {
        // SAFETY: the code cache is put there with the processor.
        let code = unsafe { &mut *(block.code as *mut CodeCache) };
        return cpu.change_block(code, state, after).unwrap_or(Go::leave(state));
    }
    Go::leave(state)
}

/// Called from translated 64-bit code: does SYSCALL or SYSRET. Gives where to go on.
///
/// It is what [`interpret`] would do of them, with status flags that need not be looked at.
pub(super) extern "C" fn change_level(state: *mut State) -> Go {
    #[cfg(test)]
    CALLS.set(CALLS.get() + 1);
    // SAFETY: as in `fill`.
    let block = unsafe { &mut *state };
    // SAFETY: as in `fill`.
    let cpu = unsafe { &mut *(block.cpu as *mut Cpu) };
    // SAFETY: the address of an operation, which the translator keeps.
    let op = unsafe { &*(block.value as *const Op) };
    let site = Site::from(block.argument);
    block.take_x87(cpu);
    cpu.instructions = block.instructions();
    let status = unpack_bits_at(block.flags, site);
    let done = if op.code == Code::Syscall as u16 {
        let next = block.rip_base + site.offset() + u64::from(op.length);
        cpu.system_call(next, cpu.rflags | status)
    } else {
        cpu.system_return(op.size == 8)
    };
    // SAFETY: as in `fill`; the tables may have been changed through other references, which are gone.
    let block = unsafe { &mut *state };
    match done {
        Ok(image) => {
            block.flags = pack_bits(image);
            cpu.set_system_flags(image);
        }
        Err(_) => {
            block.flags = pack_bits(status);
            block.reason = reason::TRAPPED;
            return Go::leave(state);
        }
    }
    block.look_at_events(cpu);
    let after = cpu.native_index();
    go_on(cpu, state, site, after)
}

impl State {
    /// The count of instructions when the running block began.
    fn instructions(&self) -> u64 {
        self.last.wrapping_add_signed(self.budget - if self.pending { PENDING } else { 0 })
    }

    /// If there is something to see to, the next block is not begun.
    fn look_at_events(&mut self, cpu: &Cpu) {
        if cpu.attention != 0 && !self.pending {
            self.pending = true;
            self.budget += PENDING;
        }
    }
}

impl CodeCache {
    /// The translation of block `index`; made if the block has been run often enough.
    pub(crate) fn native(&mut self, index: u32, ram: &GuestRam) -> Option<u64> {
        let threshold = self.translator.as_ref()?.threshold;
        let block = self.block_mut(index)?;
        if block.native.entry != 0 {
            return Some(block.native.entry);
        }
        if block.alone && block.locks {
            return None;
        }
        block.native.heat += 1;
        if block.native.heat != threshold {
            return None;
        }
        if self.translator.as_ref()?.full() {
            self.drop_translations();
        }
        let mut translator = self.translator.take()?;
        let made = translator.translate(self, index, ram);
        self.translator = Some(translator);
        let native = &mut self.block_mut(index)?.native;
        (native.entry, native.exit) = made?;
        Some(native.entry)
    }
}

impl Translator {
    /// Translates block `index`. Gives its entry and its exit.
    fn translate(&mut self, cache: &CodeCache, index: u32, ram: &GuestRam) -> Option<(u64, u64)> {
        let block = cache.block(index)?;
        let source = Source::of(block, cache, ram)?;
        let BlockKind { code_size, locks, .. } = source.kind;
        let page = |offset: u64| CodePage { offset: offset & !(PAGE_SIZE - 1), code_size, locks };
        self.jumps.give_number(page(block.native.offset))?;
        let second = match block.second_page {
            Some(second) => Some(self.jumps.give_number(page(second))?),
            None => None,
        };
        let origins = [self.buffer.next(), self.buffer.next_cold()];
        let given = self.hints.given();
        let (ops, scratch) = (&mut self.ops, &mut self.scratch);
        let numbers = Numbers { unmade: self.unmade.len(), site: self.jumps.next_site(), second };
        let builder = Builder::new(origins, &source, &self.stubs, &self.host, ops, &mut self.hints, scratch);
        let made = builder.build(numbers);
        let [code, cold] = &self.scratch.parts;
        if code.len().max(cold.len()) > super::LONGEST {
            self.hints.take_back(given);
            return None;
        }
        self.buffer.append(code);
        self.buffer.append_cold(cold);
        self.jumps.add_sites(&self.scratch.sites);
        if let Some(form) = made.unpinned {
            self.unmade.push(OfBlock { offset: block.native.offset, kind: source.kind, entry: made.entry, form });
        }
        Some((made.entry, made.exit))
    }
}
