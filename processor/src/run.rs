//! The run loop: find the block, run it, see to what happened between instructions.

use crate::cet::CetCode;
use crate::cpu::{Cpu, Mode, RIP_BASE_REG};
use crate::decode::cache::{BLOCK_LIMIT, BlockKind, CodeCache};
use crate::decode::{At, Op, Stop};
use crate::memory::paging::Kind;
use crate::segment::{self, CS};
use crate::translator::Left;
use crate::trap::{Exec, Trap};

/// Bits of [`Cpu::attention`]: things to see to at the next instruction boundary.
pub mod attention {
    /// A store hit decoded code.
    pub const CODE_WRITTEN: u32 = 1 << 0;
    /// The bus was accessed: it may need service.
    pub const BUS_TOUCHED: u32 = 1 << 1;
    /// An interrupt, NMI, INIT or SIPI may be deliverable; or RFLAGS.IF, the priority or the interrupt shadow changed.
    pub const EVENT: u32 = 1 << 2;
    /// RFLAGS.TF is set, a debug trap is pending, or an instruction breakpoint is enabled: instructions run one by one.
    pub const DEBUG: u32 = 1 << 3;
    /// The last instruction inhibits interrupts for one instruction (STI, MOV SS, POP SS).
    pub const SHADOW: u32 = 1 << 4;
    /// A timer's deadline changed: compute the budget anew.
    pub const DEADLINE: u32 = 1 << 5;
    /// VT-x has something pending (MTF, window exiting, preemption timer, TPR threshold).
    pub const VMX: u32 = 1 << 6;
    /// The processor is not [`super::Activity::Active`].
    pub const INACTIVE: u32 = 1 << 7;
    /// PAUSE: leave the run.
    pub const YIELD: u32 = 1 << 8;
    /// The debugger wants to take over.
    pub const DEBUGGER: u32 = 1 << 9;
}

/// What the processor is doing (SDM Vol 3C, 25.4.2 names the first four for VT-x).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Activity {
    /// Executing instructions.
    Active,
    /// HLT (or MWAIT).
    Halted,
    /// After a triple fault.
    Shutdown,
    /// Waiting for a startup IPI.
    WaitForSipi,
}

/// Why [`Cpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunExit {
    /// Virtual time reached the given limit.
    Deadline,
    /// The bus wants service (see [`crate::Bus::needs_service`]).
    Service,
    /// Not active, and nothing pending wakes it.
    Idle,
    /// The processor spins (PAUSE): in turns with others, it is theirs.
    Yield,
    /// A triple fault outside VMX non-root operation: the board resets or stops.
    TripleFault,
    /// For the debugger; see [`Cpu::take_stopped`].
    Debug,
    /// On a parallel machine: another thread wanted it to leave. Its mail has been seen to.
    Kicked,
}

/// How many instructions are executed in linked blocks before the run loop takes over again: so the host's stack is large enough also where the
/// compiler makes no jumps of the calls from handler to handler.
const STRETCH: u64 = 4096;
/// By the host's clock, after how many instructions it is looked at.
const SLICE: u64 = 16_384;
const JUMPS: usize = 4096;
/// Position of [`CetCode`] in a jump's tag.
const CET_SHIFT: u32 = 21;
/// Bit of a jump's tag: the block is one instruction.
const SINGLE: u64 = 1 << (CET_SHIFT + 2);
/// Bit of a jump's tag: bus locks are watched for.
const LOCKS: u64 = 1 << (CET_SHIFT + 3);

#[derive(Clone, Copy)]
struct Jump {
    linear: u64,
    tag: u64,
    block: u32,
}

/// Direct-mapped cache from linear address and context to block number.
pub(crate) struct JumpCache {
    entries: Box<[Jump]>,
    /// Compared with each entry's: context, access class, code size, and a count of everything that voids entries.
    tag: u64,
    shootdowns: u64,
    code_epoch: u64,
    voids: u64,
    revocations_seen: usize,
}

impl JumpCache {
    pub(crate) fn new() -> Self {
        let empty = Jump { linear: 0, tag: u64::MAX, block: 0 };
        Self {
            entries: vec![empty; JUMPS].into_boxed_slice(),
            tag: 0,
            shootdowns: 0,
            code_epoch: 0,
            voids: 0,
            revocations_seen: 0,
        }
    }

    /// Code is looked up for `cet` from here on, also by blocks that follow without another look at the rest of the tag.
    #[inline]
    pub(crate) fn select_cet(&mut self, cet: CetCode) {
        self.tag = self.tag & !(3 << CET_SHIFT) | (cet as u64) << CET_SHIFT;
    }
}

#[inline(always)]
fn jump_slot(linear: u64) -> usize {
    (linear ^ linear >> 12) as usize & (JUMPS - 1)
}

impl Cpu {
    /// Something that decides whether an interrupt can be delivered changed.
    #[inline]
    pub fn recheck_events(&mut self) {
        self.attention |= attention::EVENT;
        if self.rflags & crate::flags::TF != 0 {
            self.attention |= attention::DEBUG;
        }
    }

    fn refresh_jump_tag(&mut self, code: &CodeCache) {
        let jumps = &mut self.jumps;
        if jumps.shootdowns != self.tlb.shootdowns || jumps.code_epoch != code.epoch {
            jumps.shootdowns = self.tlb.shootdowns;
            jumps.code_epoch = code.epoch;
            jumps.voids += 1;
        }
        let locks = if self.watches_locks { LOCKS } else { 0 };
        self.jumps.tag =
            self.tlb.fetch_tag() | (self.code_size() as u64) << 19 | locks | self.jumps.voids << (CET_SHIFT + 4);
        self.jumps.select_cet(self.cet);
    }

    fn revoke_stores(&mut self, code: &CodeCache) {
        match code.revoked_since(self.jumps.revocations_seen) {
            Some(pages) => {
                for &(page, writer) in pages {
                    self.tlb.revoke_stores(page, writer);
                }
            }
            None => self.tlb.flush_all(),
        }
        self.jumps.revocations_seen = code.revocations();
    }

    /// Runs until virtual time reaches `until` or something else ends the run.
    pub fn run(&mut self, code: &mut CodeCache, until: u64) -> RunExit {
        self.begin_run();
        let exit = self.run_until(code, until);
        self.end_run();
        exit
    }

    /// The number of instructions retired at which `limit` is reached if nothing takes time but instructions. By the host's clock nobody knows: then
    /// it is looked at after some.
    fn last_instruction(&self, now: u64, limit: u64) -> u64 {
        match self.clock {
            None => limit - self.idle_time,
            Some(_) => self.instructions + (limit - now).min(SLICE),
        }
    }

    fn run_until(&mut self, code: &mut CodeCache, until: u64) -> RunExit {
        self.revoke_stores(code);
        self.attention |= attention::EVENT | attention::DEADLINE;
        let mut limit = until;
        loop {
            if self.is_kicked() {
                self.open_mail();
                return RunExit::Kicked;
            }
            if self.attention != 0 {
                self.settle_running_counters();
                if self.attention & attention::CODE_WRITTEN != 0 || self.ram.code_was_written() {
                    self.attention &= !attention::CODE_WRITTEN;
                    code.drop_written(&self.ram);
                }
                if self.attention & attention::BUS_TOUCHED != 0 {
                    self.attention &= !attention::BUS_TOUCHED;
                    if self.bus.needs_service() {
                        return RunExit::Service;
                    }
                }
                if self.attention & attention::DEBUGGER != 0 && self.debugger_takes_over() {
                    return RunExit::Debug;
                }
                if self.attention & attention::YIELD != 0 {
                    self.attention &= !attention::YIELD;
                    return RunExit::Yield;
                }
                if self.attention & !attention::DEADLINE != 0 {
                    match self.between_instructions(code) {
                        Boundary::Go => {}
                        Boundary::Again if self.events.barren.takes_time() && self.now() >= until => {
                            return RunExit::Deadline;
                        }
                        Boundary::Stepped if self.now() >= until => return RunExit::Deadline,
                        Boundary::Again | Boundary::Stepped => continue,
                        Boundary::Leave(exit) => return exit,
                    }
                }
                self.attention &= !attention::DEADLINE;
                limit = until.min(self.next_deadline());
            }
            let now = self.now();
            if now >= limit {
                if self.deadline_reached() {
                    continue;
                }
                return RunExit::Deadline;
            }
            if limit - now == 1 {
                // No block is worth decoding for one instruction.
                self.run_one(code);
                continue;
            }
            if self.debugger.active() {
                if self.breakpoint_here() {
                    continue;
                }
                if self.debugger.stepping() {
                    self.debug_step(code);
                    continue;
                }
            }
            let last = self.last_instruction(now, limit);
            self.refresh_jump_tag(code);
            let Ok(index) = self.find_block(code, false) else {
                self.after_trap(None);
                continue;
            };
            if code.may_translate() && self.cet == CetCode::Off && self.tlb.native.is_some() && !self.debugger.active()
            {
                self.run_translations(code, index, last);
            } else {
                self.run_blocks(code, index, last);
            }
        }
    }

    /// As [`Cpu::run_blocks`], with the translations of blocks that have them.
    fn run_translations(&mut self, code: &mut CodeCache, mut index: u32, last: u64) {
        let mut reached = Left::Next;
        let mut flushes = 0;
        loop {
            let translates = self.cet == CetCode::Off && self.native_width().is_some();
            let native = if translates { code.native(index, &self.ram) } else { None };
            let Some(block) = code.block(index) else { return };
            let (count, crosses) = (u64::from(block.count), block.second_page.is_some());
            let now = code.translator.as_ref().map_or(0, |translator| translator.flushes);
            if let Some(entry) = native {
                match std::mem::replace(&mut reached, Left::Next) {
                    Left::Link(site) if !crosses && flushes == now => {
                        if let Some(translator) = &mut code.translator {
                            translator.link(site, entry);
                        }
                    }
                    Left::Target | Left::Link(_) => self.enter_jump(code, index, entry),
                    _ => {}
                }
            }
            flushes = now;
            if self.instructions + count > last {
                if self.instructions < last {
                    self.run_one(code);
                }
                return;
            }
            reached = match native.and_then(|entry| self.run_native(code, entry, last)) {
                Some(Left::Step) => {
                    self.run_one(code);
                    Left::Target
                }
                Some(Left::Trapped(op)) => return self.after_trap(Some(&op)),
                Some(left) => left,
                None if self.run_block(code, index) => Left::Next,
                None => return,
            };
            if self.attention != 0 || self.instructions >= last || self.is_kicked() {
                return;
            }
            self.refresh_jump_tag(code);
            index = match self.find_block(code, false) {
                Ok(next) => next,
                Err(_) => return self.after_trap(None),
            };
        }
    }

    /// Interprets block `index` at RIP. False when it trapped, which was seen to.
    fn run_block(&mut self, code: &mut CodeCache, index: u32) -> bool {
        let Some(block) = code.block(index) else { return false };
        let linear = self.code_linear();
        self.regs[RIP_BASE_REG as usize] = self.rip.wrapping_sub(linear & 0xfff);
        self.trail.until = 0;
        match block.ops.run(self) {
            (Stop::Done, first) => self.instructions += u64::from(first.op().count),
            (Stop::Taken, _) => {}
            (Stop::Trapped, place) => {
                let page = block.native.offset & !0xfff;
                if let Some(op) = self.left(place) {
                    self.run_alone(code, page, &op);
                }
                return false;
            }
        }
        true
    }

    /// Runs blocks from number `index` on while nothing calls for attention and fewer than `last` instructions have been retired.
    fn run_blocks(&mut self, code: &mut CodeCache, mut index: u32, last: u64) {
        let changes = self.tlb.changes;
        let long = self.mode == Mode::Long64;
        let may_link = long && self.cet == CetCode::Off && code.may_link();
        self.trail.changes = changes;
        let mut linear = self.code_linear();
        while let Some(block) = code.block(index) {
            if !long && !self.fetches_within(block.bytes) {
                return;
            }
            if self.instructions + u64::from(block.count) > last {
                if self.instructions < last {
                    self.run_one(code);
                }
                return;
            }
            self.regs[RIP_BASE_REG as usize] = self.rip.wrapping_sub(linear & 0xfff);
            let stretch = last.saturating_sub(BLOCK_LIMIT as u64).min(self.instructions + STRETCH);
            self.trail.until = if may_link { stretch } else { 0 };
            let (stop, place) = block.ops.run(self);
            match stop {
                Stop::Done => self.instructions += u64::from(place.op().count),
                Stop::Taken => {}
                Stop::Trapped => {
                    // Linked blocks are of the same page.
                    let page = block.native.offset & !0xfff;
                    if let Some(op) = self.left(place) {
                        self.run_alone(code, page, &op);
                    }
                    return;
                }
            }
            if self.attention != 0 || self.tlb.changes != changes || self.is_kicked() {
                return;
            }
            let page = linear >> 12;
            linear = if long { self.rip } else { self.code_linear() };
            let Some(next) = self.lookup_jump(linear, self.jumps.tag) else { return };
            if stop == Stop::Taken && may_link && page == linear >> 12 {
                code.link(place, next);
            }
            index = next;
        }
    }

    #[inline(always)]
    fn lookup_jump(&self, linear: u64, tag: u64) -> Option<u32> {
        let jump = &self.jumps.entries[jump_slot(linear)];
        (jump.linear == linear && jump.tag == tag).then_some(jump.block)
    }

    /// Linear address of RIP.
    #[inline(always)]
    pub fn code_linear(&self) -> u64 {
        if self.mode == Mode::Long64 { self.rip } else { self.segs[CS].base.wrapping_add(self.rip) & 0xffff_ffff }
    }

    /// The block at RIP, decoded if need be.
    fn find_block(&mut self, code: &mut CodeCache, single: bool) -> Exec<u32> {
        let linear = self.code_linear();
        self.regs[RIP_BASE_REG as usize] = self.rip.wrapping_sub(linear & 0xfff);
        let tag = self.jumps.tag | if single { SINGLE } else { 0 };
        // Outside 64-bit mode the segment limit is looked at for each single instruction.
        let cached = !single || self.mode == Mode::Long64;
        if cached
            && let Some(index) = self.lookup_jump(linear, tag)
            && (self.mode == Mode::Long64 || code.block(index).is_some_and(|block| self.fetches_within(block.bytes)))
        {
            return Ok(index);
        }
        self.check_fetch(1)?;
        let Some(offset) = self.place_code(linear)? else { return Err(self.fetch_from_nowhere()) };
        let kind = BlockKind { code_size: self.code_size(), single, cet: self.cet, locks: self.watches_locks };
        let next_page = (linear & !0xfff).wrapping_add(0x1000);
        let mut found = code.find(offset, kind);
        if let Some(second) = found.and_then(|index| code.block(index)).and_then(|block| block.second_page) {
            let mapped = self.place_code(next_page)?;
            if mapped != Some(second) {
                found = None;
            }
        }
        let index = match found {
            Some(index) => index,
            None => {
                let decoded = code.decode(&self.ram, offset, None, kind);
                let decoded = match decoded {
                    Some(index) => Some(index),
                    None => {
                        let second = self.place_code(next_page)?;
                        code.decode(&self.ram, offset, second, kind)
                    }
                };
                self.revoke_stores(code);
                self.answer_revocations();
                self.refresh_jump_tag(code);
                match decoded {
                    Some(index) => index,
                    None => return Err(self.fetch_from_nowhere()),
                }
            }
        };
        let bytes = code.block(index).map_or(1, |block| block.bytes);
        if self.mode != Mode::Long64 && self.check_fetch(bytes).is_err() {
            if single {
                self.check_fetch(bytes)?;
            }
            return self.find_block(code, true);
        }
        // Where a breakpoint may be, the run loop has to look each time.
        if cached && (single || !code.is_stop(linear)) {
            let tag = self.jumps.tag | if single { SINGLE } else { 0 };
            self.jumps.entries[jump_slot(linear)] = Jump { linear, tag, block: index };
        }
        Ok(index)
    }

    /// Whether `bytes` at RIP are within the code segment, outside 64-bit mode. Blocks are found by linear address, to which another segment, or
    /// an offset beyond the limit, may lead as well: each has to be looked at.
    #[inline(always)]
    fn fetches_within(&self, bytes: u32) -> bool {
        self.rip + u64::from(bytes) - 1 <= u64::from(self.segs[CS].limit)
    }

    /// #GP(0) if `bytes` at RIP are not within the code segment, or not canonical.
    fn check_fetch(&mut self, bytes: u32) -> Exec {
        let fits = match self.mode {
            Mode::Long64 => self.is_canonical(self.rip),
            _ => self.fetches_within(bytes),
        };
        if fits { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// Code where there is no memory: the bus answers all ones, which is no instruction.
    fn fetch_from_nowhere(&mut self) -> crate::trap::Trapped {
        self.undefined_opcode()
    }

    /// Sees to a block that was left at an operation that trapped. Gives it if it must be run again on its own.
    #[cold]
    #[inline(never)]
    fn left(&mut self, place: At) -> Option<Op> {
        let op = *place.op();
        self.instructions += u64::from(op.number) - 1;
        if self.trap.is_retry() && !self.exact {
            self.rip = self.rip_of(&op);
            return Some(op);
        }
        self.after_trap(Some(&op));
        None
    }

    /// Runs `op` again, on its own, whose first byte lies in the page at RAM offset `page`; the next time it is so from the start, unless it was for
    /// this once.
    #[cold]
    #[inline(never)]
    fn run_alone(&mut self, code: &mut CodeCache, page: u64, op: &Op) {
        if self.trap == Trap::RetryExact {
            code.set_alone(page | u64::from(op.offset), op);
        }
        self.step(code);
    }

    /// Runs one instruction as it would run in a block: on its own only if it asks for that. So it makes no difference to the guest
    /// which instructions the limit of a run makes single.
    fn run_one(&mut self, code: &mut CodeCache) {
        self.refresh_jump_tag(code);
        match self.find_block(code, true) {
            Err(_) => self.after_trap(None),
            Ok(index) => {
                let Some(block) = code.block(index) else { return };
                match block.ops.run(self) {
                    (Stop::Done, _) => self.instructions += 1,
                    (Stop::Taken, _) => {}
                    (Stop::Trapped, place) => {
                        let page = block.native.offset & !0xfff;
                        if let Some(op) = self.left(place) {
                            self.run_alone(code, page, &op);
                        }
                    }
                }
            }
        }
    }

    /// Runs exactly one instruction, with exact time and the board within reach.
    pub fn step(&mut self, code: &mut CodeCache) {
        self.refresh_jump_tag(code);
        match self.find_block(code, true) {
            Err(_) => self.after_trap(None),
            Ok(index) => {
                self.exact = true;
                if let Some(block) = code.block(index) {
                    self.events.step_length = block.bytes;
                    match block.ops.run(self) {
                        (Stop::Done, _) => self.instructions += 1,
                        (Stop::Taken, _) => {}
                        (Stop::Trapped, place) => {
                            self.left(place);
                        }
                    }
                }
                self.exact = false;
            }
        }
    }

    /// Sees to the trap of `op`, or of a fetch: delivers the exception, makes the VM exit.
    #[cold]
    #[inline(never)]
    fn after_trap(&mut self, op: Option<&Op>) {
        // An instruction that traps takes its nanosecond too: a guest that only faults still ages.
        self.instructions += 1;
        // An instruction that has not completed has hit no breakpoint, whatever it accessed before it trapped.
        if matches!(self.trap, Trap::Exception { .. } | Trap::VmExit) {
            self.pending_breakpoints = 0;
        }
        match self.trap {
            Trap::Exception { vector, error } => {
                let mut vector = vector;
                if let Some(op) = op {
                    self.rip = self.rip_of(op);
                    if self.non_canonical && vector == 13 && self.stack_operand(op) {
                        vector = 12;
                    }
                }
                self.exception(vector, error);
            }
            Trap::VmExit => {
                if let Some(op) = op {
                    self.rip = self.rip_of(op);
                    self.vmx.pending.length = u32::from(op.length);
                }
                self.vm_exit_pending();
            }
            Trap::RetryExact | Trap::RetryOnce => {
                debug_assert!(false, "an instruction on its own asked to be alone");
            }
            Trap::Continue => {}
            Trap::Shutdown => {
                self.activity = Activity::Shutdown;
                self.attention |= attention::INACTIVE;
            }
        }
        self.attention |= attention::EVENT;
    }

    /// Translates the code address for a debugger or a dump: no fault is raised for the guest.
    pub fn peek_code(&mut self, linear: u64) -> Option<u64> {
        let (trap, address) = (self.trap, self.fault_address);
        let found =
            self.translate(linear, Kind::Execute, self.tlb.class()).ok().and_then(|t| self.map.lookup(t.physical));
        (self.trap, self.fault_address) = (trap, address);
        found.map(|(offset, _)| offset)
    }
}

impl Cpu {
    /// The operand that was not canonical is the stack's: a memory operand through SS, or an instruction that uses the stack itself and
    /// whose memory operand, if it has one, is canonical.
    fn stack_operand(&self, op: &Op) -> bool {
        if op.seg as usize == segment::ZERO_STACK || op.base == 4 {
            return true;
        }
        let base = self.segs[(op.seg & 7) as usize].base;
        if !self.is_canonical(self.offset_of(op).wrapping_add(base)) {
            return false;
        }
        let code = op.code();
        code.op_code().op_count() <= 1 && {
            let mut instruction = iced_x86::Instruction::default();
            instruction.set_code(code);
            instruction.is_stack_instruction()
        }
    }
}

/// What to do after seeing to events.
pub(crate) enum Boundary {
    /// Execute blocks.
    Go,
    /// Something changed: look again.
    Again,
    /// An instruction was run on its own: look again.
    Stepped,
    /// Return from [`Cpu::run`].
    Leave(RunExit),
}
