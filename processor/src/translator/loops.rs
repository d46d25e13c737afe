//! Loops: a block that branches to its own beginning has one more form, in which many rounds need one look at what can stop them.
//!
//! Most addresses in a loop go on by a constant from round to round. So before the first of several rounds it is computed how many of them stay
//! within their pages, and within the budget; each of those then only counts. What is added to a guest's address is in the state block
//! ([`State::pins`]), and nothing in the loop calls Rust. An access whose address is not known in advance has a probe of its own; where that misses
//! the loop is left in the middle of a round, for the form of the block without pins.
//!
//! Other threads stop translated code at the beginning of a block ([`super::brake`]), so a loop is left after [`LONGEST`] instructions at the latest.

use super::Width;
use super::block::{Builder, Cold, Done, Site};
use super::emit::{Emitter, Fixup, R14, R15, RAX, RCX, Reg, Rm};
use super::generic::aligned;
use super::hints;
use super::integer::{branch_target, condition};
use super::memory::{Access, PROBED, addressable, displacement, home, host_register, is_narrow};
use super::pins::{PINS, SPAN, Value, Values, general, writes};
use super::state::{PAGE_INDEX, State};
use core::mem::offset_of;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};

/// Most instructions until a loop looks again at what can stop it, but for one round.
const LONGEST: u32 = 1 << 14;
/// With a stride beyond this, a page has too few rounds.
const STRIDE: i64 = 512;
const PAGE: i64 = 0x1000;

/// What an address starts from, besides an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Base {
    Nothing,
    /// RIP of the page's first byte.
    Rip,
    Register(u8),
}

/// What an address is the sum of, with a constant: registers as they are at the beginning of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Terms {
    base: Base,
    index: Option<u8>,
    scale: u8,
}

/// Accesses that are near to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pin {
    terms: Terms,
    /// The lowest byte, counted from the sum of the terms.
    lowest: i64,
    span: i64,
    write: bool,
    /// The alignment that the byte `aligned_at` needs.
    align: i64,
    aligned_at: i64,
    /// By how much the address goes on in a round.
    stride: i64,
    /// The terms that are the same in each round: what is kept has them too.
    base_stays: bool,
    index_stays: bool,
}

/// An access to the memory of a pin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Use {
    pin: usize,
    /// The first byte, counted from the sum of the terms.
    from: i64,
    /// What base and scaled index have become, at this instruction, more than at the beginning of the round.
    base_delta: i64,
    index_delta: i64,
}

/// A loop.
#[derive(Debug)]
pub(super) struct Plan {
    /// The index of the branch back.
    last: usize,
    pins: Vec<Pin>,
    /// For each instruction.
    uses: Vec<Option<Use>>,
}

/// Where the instructions of the rounds to come are counted, negated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counter {
    Rcx,
    Memory,
}

/// The loop that is being emitted.
pub(super) struct Looping {
    plan: Plan,
    counter: Counter,
    /// There are vector instructions without and with VEX.
    pub guards: [bool; 2],
}

/// An access, and its terms.
struct Found {
    index: usize,
    terms: Terms,
    from: i64,
    size: i64,
    align: i64,
    write: bool,
    deltas: (i64, i64),
}

/// Where the first branch back to the beginning is.
fn back_branch(instructions: &[Instruction]) -> Option<usize> {
    let start = instructions.first()?.ip();
    instructions.iter().position(|i| {
        let branch = i.is_jcc_short_or_near() || i.is_jmp_short_or_near();
        branch && branch_target(i) == Some(start)
    })
}

fn find(
    i: &Instruction,
    index: usize,
    values: &Values,
    width: Width,
    factory: &mut InstructionInfoFactory,
) -> Option<Found> {
    let in_memory = i.op_kinds().any(|kind| kind == OpKind::Memory);
    let segment = matches!(i.memory_segment(), Register::FS | Register::GS);
    if !in_memory || i.mnemonic() == Mnemonic::Lea || segment || !addressable(i) {
        return None;
    }
    if width == Width::Long64 && is_narrow(i) {
        return None;
    }
    // What a register holds now, as one that was there at the beginning, and a distance.
    let known = |register: Register| {
        let Value { version, delta } = values.of(general(register, width)?);
        (version < 16).then_some((version as u8, delta))
    };
    let (base, base_delta) = match i.memory_base() {
        Register::None => (Base::Nothing, 0),
        Register::RIP => (Base::Rip, 0),
        register => known(register).map(|(register, delta)| (Base::Register(register), delta))?,
    };
    let scale = i.memory_index_scale().trailing_zeros() as u8;
    let (index_register, index_delta) = match i.memory_index() {
        Register::None => (None, 0),
        register => known(register).map(|(register, delta)| (Some(register), delta))?,
    };
    let index_delta = index_delta.checked_shl(scale.into())?;
    let from = i64::from(displacement(i)?).wrapping_add(base_delta).wrapping_add(index_delta);
    let size = i.memory_size().size();
    let align = if aligned(i, size) { size as i64 } else { 1 };
    let write = factory.info(i).used_memory().iter().any(|memory| writes(memory.access()));
    let terms = Terms { base, index: index_register, scale };
    (1..=32).contains(&size).then_some(Found {
        index,
        terms,
        from,
        size: size as i64,
        align,
        write,
        deltas: (base_delta, index_delta),
    })
}

/// Finds the loop of a block.
pub(super) fn plan(instructions: &[Instruction], width: Width, factory: &mut InstructionInfoFactory) -> Option<Plan> {
    let last = back_branch(instructions)?;
    let mut values = Values::new();
    let mut found = Vec::new();
    for (index, i) in instructions.iter().enumerate().take(last + 1) {
        found.extend(find(i, index, &values, width, factory));
        values.pass(i, factory.info(i), width, None);
    }
    // By how much a register goes on in a round, if that is a constant.
    let stride = |register: u8| {
        let value = values.of(register.into());
        (value.version == u32::from(register)).then_some(value.delta)
    };
    let mut plan = Plan { last, pins: Vec::new(), uses: vec![None; last + 1] };
    for one in found {
        let strides = || {
            let base = match one.terms.base {
                Base::Register(register) => stride(register)?,
                _ => 0,
            };
            Some((base, one.terms.index.map_or(Some(0), stride)?.checked_shl(one.terms.scale.into())?))
        };
        let Some((of_base, of_index)) = strides() else { continue };
        let stride = of_base.wrapping_add(of_index);
        if !(-STRIDE..=STRIDE).contains(&stride) || stride % one.align != 0 {
            continue;
        }
        let to = one.from.wrapping_add(one.size);
        let joined = plan.pins.iter().position(|pin| {
            let (low, high) = (pin.lowest.min(one.from), (pin.lowest + pin.span).max(to));
            let together = (0..=SPAN).contains(&high.wrapping_sub(low)) && i32::try_from(low).is_ok();
            together && pin.terms == one.terms && one.from.wrapping_sub(pin.aligned_at) % one.align.min(pin.align) == 0
        });
        let number = match joined {
            Some(number) => number,
            None if plan.pins.len() == PINS || i32::try_from(one.from).is_err() => continue,
            None => {
                // What is in memory and scaled cannot be added at once.
                let index_stays = one
                    .terms
                    .index
                    .is_none_or(|index| of_index == 0 && (one.terms.scale == 0 || host_register(index).is_some()));
                plan.pins.push(Pin {
                    terms: one.terms,
                    lowest: one.from,
                    span: one.size,
                    write: one.write,
                    align: one.align,
                    aligned_at: one.from,
                    stride,
                    base_stays: of_base == 0,
                    index_stays,
                });
                plan.pins.len() - 1
            }
        };
        let pin = &mut plan.pins[number];
        let end = to.max(pin.lowest + pin.span);
        pin.lowest = pin.lowest.min(one.from);
        pin.span = end - pin.lowest;
        pin.write |= one.write;
        if one.align > pin.align {
            (pin.align, pin.aligned_at) = (one.align, one.from);
        }
        let (base_delta, index_delta) = one.deltas;
        plan.uses[one.index] = Some(Use { pin: number, from: one.from, base_delta, index_delta });
    }
    Some(plan)
}

/// `cmp`, `add`, … of group 1 with a constant.
fn with_constant(code: &mut Emitter, operation: u8, register: Reg, constant: i32) {
    code.op64(0x81, operation, Rm::Reg(register));
    code.dword(constant as u32);
}

const ADD: u8 = 0;
const COMPARE: u8 = 7;
/// The opcode of JMP.
const JUMP: u8 = 0xe9;
/// Conditions.
const BELOW: u8 = 2;
const ZERO: u8 = 4;
const NOT_ZERO: u8 = 5;
const ABOVE: u8 = 7;
const SIGN: u8 = 8;

/// `register / divisor`, where it is below 1 << 14 and the divisor is not above 1 << 12.
fn divide(code: &mut Emitter, register: Reg, divisor: u32) {
    let by = if divisor.is_power_of_two() {
        divisor.trailing_zeros() as u8
    } else {
        // The error is below the number / 2^30, and the quotient's distance to the next number at least 1 / 2^12.
        code.op64(0x69, register, Rm::Reg(register)); // imul
        code.dword((1u32 << 30).div_ceil(divisor));
        30
    };
    if by != 0 {
        code.op64(0xc1, 5, Rm::Reg(register)); // shr
        code.byte(by);
    }
}

impl Builder<'_> {
    /// Emits the loop of the block, but for its cold code. Gives where it is entered, with the host's registers as at the entry of the block; `None` if
    /// there is none.
    pub(super) fn emit_loop(&mut self, plan: Plan, live: &[u32]) -> Option<u64> {
        let start = self.code.here();
        let given = self.hints.given();
        let end_of_rounds = start;
        self.code.load(RCX, Rm::state(offset_of!(State, loop_end)));
        self.code.store(Rm::state(offset_of!(State, budget)), RCX);
        self.code.jump_to(self.entry);
        while !self.code.here().is_multiple_of(32) {
            self.code.byte(0xcc);
        }
        let top = self.code.here();
        self.looping = Some(Looping { plan, counter: Counter::Rcx, guards: [false; 2] });
        let mut body = self.emit_round(top, end_of_rounds, live);
        if body.is_some() && self.uses_rcx(body?) {
            // Without a register for it, pins are what makes it worth while.
            let looping = self.looping.as_mut()?;
            looping.counter = Counter::Memory;
            let again = !looping.plan.pins.is_empty();
            self.hints.take_back(given);
            body = if again { self.emit_round(top, end_of_rounds, live) } else { None };
        }
        let Some(body) = body else {
            self.looping = None;
            self.cold.clear();
            self.taken.clear();
            self.hints.take_back(given);
            self.code.back_to(start);
            return None;
        };
        self.emit_way_out();
        let setup = self.code.here();
        let failed = self.emit_setup(body);
        for jump in failed {
            self.code.fix(jump);
        }
        self.flags_back();
        self.code.load(RCX, Rm::state(offset_of!(State, budget)));
        self.code.jump_to(self.entry);
        Some(setup)
    }

    /// Emits a round, which begins at `top` by counting. Gives where its first instruction is; `None` if one cannot be in a loop.
    fn emit_round(&mut self, top: u64, end_of_rounds: u64, live: &[u32]) -> Option<u64> {
        self.code.back_to(top);
        self.cold.clear();
        self.taken.clear();
        (self.held_next, self.clear_af) = (None, false);
        let looping = self.looping.as_ref()?;
        let (last, counter) = (looping.plan.last, looping.counter);
        let executed = last as i32 + 1;
        let memory = Rm::state(offset_of!(State, loop_count));
        if counter == Counter::Memory {
            self.code.load(RCX, memory);
        }
        self.code.lea(RCX, Rm::Base(RCX, executed));
        if counter == Counter::Memory {
            self.code.store(memory, RCX);
        }
        self.code.jump_back_if_rcx_zero(end_of_rounds);
        let body = self.code.here();
        for index in 0..last {
            if self.emit_one(index, live) != Done::Yes {
                return None;
            }
        }
        self.settle_af();
        match condition(&self.source.instructions()[last]) {
            Some(condition) => self.code.jump_back_if(condition, top),
            None => self.code.jump_to(top),
        }
        Some(body)
    }

    /// What is emitted from `start` on uses RCX.
    fn uses_rcx(&mut self, start: u64) -> bool {
        let mut factory = InstructionInfoFactory::new();
        Decoder::new(64, self.code.from(start), DecoderOptions::NONE).iter().any(|i| {
            factory.info(&i).used_registers().iter().any(|used| used.register().full_register() == Register::RCX)
        })
    }

    /// Emits what comes behind the branch that is not taken, and behind others.
    fn emit_way_out(&mut self) {
        let Some(looping) = &self.looping else { return };
        let next = looping.plan.last + 1;
        self.held_next = None;
        match self.source.instructions().get(next) {
            _ if condition(&self.source.instructions()[next - 1]).is_none() => {}
            None => self.emit_end(),
            Some(_) => self.leave_round(self.site(next)),
        }
        self.emit_taken();
    }

    /// Goes on behind the loop, at the instruction of `site`.
    fn leave_round(&mut self, site: Site) {
        self.spend(0);
        let jump = self.code.jump();
        self.cold.push_back(Cold::Unpinned { jump, site });
    }

    /// `budget + executed` into RCX, in the loop.
    pub(super) fn budget_in_loop(&mut self, counted: i32) {
        let in_memory = self.looping.as_ref().is_some_and(|looping| looping.counter == Counter::Memory);
        if in_memory {
            self.code.load(RCX, Rm::state(offset_of!(State, loop_count)));
        }
        self.code.load(R15, Rm::state(offset_of!(State, loop_end)));
        self.code.lea(RCX, Rm::Indexed(RCX, R15, 0, counted));
    }

    /// Emits one instruction of a loop.
    pub(super) fn translate_in_loop(&mut self, i: &Instruction, bytes: &[u8], site: Site, executed: usize) -> Done {
        let segment = matches!(i.memory_segment(), Register::FS | Register::GS);
        match (i.mnemonic(), i.flow_control()) {
            _ if super::block::is_hint(i) => Done::Yes,
            (Mnemonic::Lea, _) => self.load_address(i),
            (_, FlowControl::ConditionalBranch) => self.branch_if(i, executed),
            (_, FlowControl::Next) if !segment && !super::bit_string::is_bit_string(i) => self.generic(i, bytes, site),
            _ => Done::No,
        }
    }

    /// Where the operand in memory lies, in a loop. R14 and R15 are used, RCX if it is not pinned. No flag is touched.
    pub(super) fn operand_in_loop(&mut self, i: &Instruction, access: Access, site: Site) -> Rm {
        if let Some(rm) = self.pinned_in_loop(i, access, site) {
            return rm;
        }
        self.effective_address(i, R14);
        let slot = hints::probe(&mut self.code, access, self.hinted[site.index() as usize], self.hints);
        let jump = self.code.jump_unless_rcx_zero();
        self.cold.push_back(Cold::FillUnpinned { jump, site: site.with(access, false), access, slot });
        self.code.load(R15, Rm::element(offset_of!(State, addend), R15));
        PROBED
    }

    fn pinned_in_loop(&mut self, i: &Instruction, access: Access, site: Site) -> Option<Rm> {
        let plan = &self.looping.as_ref()?.plan;
        let one = (*plan.uses.get(site.index() as usize)?)?;
        let pin = plan.pins[one.pin];
        let inside = one.from - pin.lowest + i64::from(access.size) <= pin.span && (pin.write || !access.write);
        let aligned = !access.aligned || pin.align >= i64::from(access.size);
        if !inside || !aligned {
            return None;
        }
        let kept = kept(one.pin);
        let disp = i64::from(displacement(i)?);
        let (base, index) = (i.memory_base(), i.memory_index());
        match pin.stays(self.width()) {
            Stays::All => {
                self.code.load(R14, kept);
                Some(Rm::Base(R14, i32::try_from(one.from - pin.lowest).ok()?))
            }
            Stays::Base => {
                let disp = i32::try_from(disp + one.base_delta).ok()?;
                let index = self.value_of(index.number() as u8, R15);
                self.code.load(R14, kept);
                Some(self.not_in_r15(Rm::Indexed(R14, index, pin.terms.scale, disp)))
            }
            Stays::Index => {
                let disp = i32::try_from(disp + one.index_delta).ok()?;
                let base = self.value_of(base.number() as u8, R15);
                self.code.load(R14, kept);
                Some(self.not_in_r15(Rm::Indexed(R14, base, 0, disp)))
            }
            Stays::Nothing => {
                self.effective_address(i, R14);
                self.code.load(R15, kept);
                Some(PROBED)
            }
        }
    }

    /// The same place, without R15.
    fn not_in_r15(&mut self, at: Rm) -> Rm {
        match at {
            Rm::Indexed(_, R15, ..) => {
                self.code.lea(R14, at);
                Rm::Base(R14, 0)
            }
            _ => at,
        }
    }

    /// Computes how many rounds there are, and what is kept of the pins, and goes to `body`. Gives the jumps to where that fails; what they jump to
    /// must give the flags back.
    fn emit_setup(&mut self, body: u64) -> Vec<Fixup> {
        let Some(Looping { plan, counter, guards }) = &self.looping else { return Vec::new() };
        let (executed, pins, counter, guards) = (plan.last as u32 + 1, plan.pins.clone(), *counter, *guards);
        let count = self.count() as i32;
        let mut failed = Vec::new();
        let flags = Rm::state(offset_of!(State, loop_flags));
        self.code.store(Rm::Reg(R14), RAX);
        self.code.raw(&[0x9f, 0x0f, 0x90, 0xc0]); // lahf; seto al
        self.code.store(flags, RAX);
        self.code.store(Rm::Reg(RAX), R14);
        for (guard, field) in guards.into_iter().zip([offset_of!(State, sse_blocked), offset_of!(State, avx_blocked)]) {
            if guard {
                self.code.op64(0x83, COMPARE, Rm::state(field));
                self.code.byte(0);
                failed.push(self.code.jump_if(NOT_ZERO));
            }
        }
        // Where the code was written to, the entry is a jump (`Translator::kill`).
        self.code.raw(&[0x80, 0x3d]); // cmp byte [rip + …], jmp
        let next = self.code.here() + 5;
        self.code.dword(self.entry.wrapping_sub(next) as u32);
        self.code.byte(JUMP);
        failed.push(self.code.jump_if(ZERO));
        // Rounds, but for the first: R15.
        self.code.lea(R15, Rm::Base(RCX, count));
        self.code.op64(0xf7, 3, Rm::Reg(R15)); // neg
        failed.push(self.code.jump_if(SIGN));
        self.code.constant(R14, u64::from(LONGEST - 1));
        self.code.op64(0x3b, R15, Rm::Reg(R14));
        self.code.op(
            super::emit::Opcode { wide: true, bytes: &[0x0f, 0x40 | ABOVE], ..Default::default() },
            R15,
            Rm::Reg(R14),
        );
        divide(&mut self.code, R15, executed);
        for (number, pin) in pins.iter().enumerate() {
            self.emit_pin(number, pin, &mut failed);
        }
        self.code.op64(0x69, R14, Rm::Reg(R15)); // imul
        self.code.dword(executed);
        with_constant(&mut self.code, ADD, R14, executed as i32);
        self.code.load(RCX, Rm::state(offset_of!(State, budget)));
        self.code.lea(RCX, Rm::Indexed(RCX, R14, 0, 0));
        self.code.store(Rm::state(offset_of!(State, loop_end)), RCX);
        self.code.op64(0xf7, 3, Rm::Reg(R14)); // neg
        match counter {
            Counter::Rcx => self.code.store(Rm::Reg(RCX), R14),
            Counter::Memory => self.code.store(Rm::state(offset_of!(State, loop_count)), R14),
        }
        self.flags_back();
        self.code.jump_to(body);
        failed
    }

    /// Keeps what the accesses of a pin need, and lowers R15 to the rounds that they stay in their page.
    fn emit_pin(&mut self, number: usize, pin: &Pin, failed: &mut Vec<Fixup>) {
        let lowest = pin.lowest as i32;
        let Terms { base, index, scale } = pin.terms;
        let mut part = |register: u8, temporary: Reg| {
            host_register(register).unwrap_or_else(|| {
                self.code.load(temporary, home(register));
                temporary
            })
        };
        let index_at = index.map(|index| part(index, RCX));
        let base_at = match base {
            Base::Nothing => None,
            Base::Rip => {
                self.code.load(R14, Rm::state(offset_of!(State, rip_base)));
                Some(R14)
            }
            Base::Register(register) => Some(part(register, R14)),
        };
        let at = match (base_at, index_at) {
            (Some(base), Some(index)) => Rm::Indexed(base, index, scale, lowest),
            (Some(base), None) => Rm::Base(base, lowest),
            (None, Some(index)) => Rm::Scaled(index, scale, lowest),
            (None, None) => {
                self.code.constant(RCX, 0);
                Rm::Base(RCX, lowest)
            }
        };
        self.lea_address(R14, at);
        let code = &mut self.code;
        let stays = pin.stays(self.source.width);
        let whole = stays == Stays::All;
        if whole {
            code.store(Rm::state(offset_of!(State, spill)), R14);
        }
        code.extract(RCX, R14, PAGE_INDEX);
        code.op64(0x03, R14, Rm::element(hints::table(pin.write), RCX)); // add
        code.load(RCX, Rm::element(offset_of!(State, addend), RCX));
        match stays {
            Stays::All => code.op64(0x03, RCX, Rm::state(offset_of!(State, spill))),
            Stays::Nothing => {}
            Stays::Base => match base {
                Base::Nothing => {}
                Base::Rip => code.op64(0x03, RCX, Rm::state(offset_of!(State, rip_base))),
                Base::Register(register) => {
                    code.op64(0x03, RCX, host_register(register).map_or_else(|| home(register), Rm::Reg));
                }
            },
            Stays::Index => match index {
                None => {}
                Some(index) => match host_register(index) {
                    Some(index) => code.lea(RCX, Rm::Indexed(RCX, index, scale, 0)),
                    None => code.op64(0x03, RCX, home(index)),
                },
            },
        }
        code.store(kept(number), RCX);
        // R14 is the offset in the page, or large.
        let end = PAGE - pin.span;
        with_constant(code, COMPARE, R14, end as i32);
        failed.push(code.jump_if(ABOVE));
        if pin.align > 1 {
            code.lea(RCX, Rm::Base(R14, (pin.aligned_at - pin.lowest) as i32));
            code.op32(0xf7, 0, Rm::Reg(RCX)); // test
            code.dword(pin.align as u32 - 1);
            failed.push(code.jump_if(NOT_ZERO));
        }
        if pin.stride == 0 {
            return;
        }
        if pin.stride > 0 {
            code.op64(0xf7, 3, Rm::Reg(R14)); // neg
            with_constant(code, ADD, R14, end as i32);
        }
        divide(code, R14, pin.stride.unsigned_abs() as u32);
        code.op64(0x3b, R14, Rm::Reg(R15));
        code.op(
            super::emit::Opcode { wide: true, bytes: &[0x0f, 0x40 | BELOW], ..Default::default() },
            R15,
            Rm::Reg(R14),
        );
    }

    /// The flags that were kept. R14 is used.
    fn flags_back(&mut self) {
        self.code.store(Rm::Reg(R14), RAX);
        self.code.load(RAX, Rm::state(offset_of!(State, loop_flags)));
        self.code.raw(&[0x04, 0x7f, 0x9e]); // add al, 0x7f; sahf
        self.code.store(Rm::Reg(RAX), R14);
    }
}

/// Where what is kept of a pin is.
fn kept(number: usize) -> Rm {
    Rm::state(offset_of!(State, pins) + 8 * number)
}

/// Which terms of an address are in what is kept of its pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    /// All, and the constant of the lowest access: it is the host's address.
    All,
    Base,
    Index,
    /// None: the guest's address is made in full.
    Nothing,
}

impl Pin {
    fn stays(&self, width: Width) -> Stays {
        // 32-bit sums are cut.
        let wide = width.wide();
        match (self.base_stays, self.index_stays) {
            (true, true) => Stays::All,
            (true, false) if wide => Stays::Base,
            (false, true) if wide => Stays::Index,
            _ => Stays::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(bytes: &[u8]) -> Option<Plan> {
        let instructions: Vec<_> = Decoder::new(64, bytes, DecoderOptions::NONE).iter().collect();
        plan(&instructions, Width::Long64, &mut InstructionInfoFactory::new())
    }

    #[test]
    fn a_stencil_has_a_pin_for_each_row() {
        // movsd xmm0, [rdi + rax]; movaps xmm1, [rdx + rax - 16]; addsd xmm0, [rdx + rax + 8]; movsd [rsi], xmm0; add rax, 8; add rsi, 8;
        // jne to the first; ret
        let plan = planned(&[
            0xf2, 0x0f, 0x10, 0x04, 7, 0x0f, 0x28, 0x4c, 2, 0xf0, 0xf2, 0x0f, 0x58, 0x44, 2, 8, 0xf2, 0x0f, 0x11, 6,
            0x48, 0x83, 0xc0, 8, 0x48, 0x83, 0xc6, 8, 0x75, 0xe2, 0xc3,
        ]);
        let plan = plan.unwrap();
        assert_eq!(plan.last, 6);
        let of = |pin: &Pin| (pin.lowest, pin.span, pin.write, pin.stride, pin.stays(Width::Long64));
        let pins: Vec<_> = plan.pins.iter().map(of).collect();
        // The aligned one would not stay aligned.
        let wanted = [(0, 8, false, 8, Stays::Base), (8, 8, false, 8, Stays::Base), (0, 8, true, 8, Stays::Index)];
        assert_eq!(pins, wanted);
        assert_eq!(plan.uses[1], None);
    }

    #[test]
    fn what_does_not_go_on_by_a_constant_has_no_pin() {
        // mov rax, [rbx + rcx * 8]; add rcx, rdx; mov rbx, [rbx + 8]; jne to the first
        let plan = planned(&[0x48, 0x8b, 4, 0xcb, 0x48, 1, 0xd1, 0x48, 0x8b, 0x5b, 8, 0x75, 0xf3]).unwrap();
        assert_eq!((plan.last, plan.pins, plan.uses), (3, vec![], vec![None; 4]));
        // No branch back.
        assert!(planned(&[0x48, 0x8b, 3, 0x75, 0xfe]).is_none());
    }

    /// As [`divide`] does it.
    #[test]
    fn division_by_multiplication_is_exact() {
        for divisor in 1..=0x1000_u64 {
            for number in 0..0x4000_u64 {
                assert_eq!((number * (1_u64 << 30).div_ceil(divisor)) >> 30, number / divisor);
            }
        }
    }
}
