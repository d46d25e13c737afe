//! Hints: where in the table of pages an access will probably find its page.
//!
//! An address that waits for a load would make the next load wait for two more: the table's tag and what is added to the address. So such accesses
//! ([`wanted`]) take the place of their page from a slot of their own in the state block, where it was found last time, while the address is still being
//! computed. If another page is there, one of [`Stubs`] looks where the address says, and notes that. It is only a hint: what counts is the table.
//!
//! A place that does not come from the address must have the page of the access' first byte, and the last one's is no other: so with a hint an access
//! has to be aligned.
//!
//! Some instructions go from page to page, or are not aligned. Of the accesses whose hint was wrong one in [`PERIOD`] is looked at; where the same
//! one is seen again too soon, its translation is changed to compute the place from the address.

use super::Translator;
use super::emit::{Emitter, Mask, Quiet, R14, R15, RCX, RSP, Rm};
use super::memory::Access;
use super::state::{PAGE_INDEX, State};
use core::mem::offset_of;
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Slots in a state block.
pub(super) const HINTS: usize = 16384;
/// Of so many wrong hints one is looked at.
pub(super) const PERIOD: u64 = 128;
/// Instructions between two of the same access, so looked at, that are too few: one wrong hint in a thousand instructions.
const TOO_SOON: u64 = PERIOD * 1000;

/// The access that a slot belongs to, the last one if it is shared.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Where it begins in the code; 0: it is not to be changed.
    address: u64,
    access: Access,
    /// The count of instructions when it was looked at.
    looked: u64,
}

const NO_SLOT: Slot = Slot { address: 0, access: Access { size: 1, write: false, aligned: false }, looked: 0 };

/// Which slot belongs to which access.
#[derive(Debug)]
pub(super) struct Hints {
    next: usize,
    accesses: Vec<Slot>,
}

impl Hints {
    pub(super) fn new() -> Self {
        Self { next: 0, accesses: vec![NO_SLOT; HINTS] }
    }

    /// A slot for an access that begins at `address`. When all are used they are shared.
    pub(super) fn slot(&mut self, address: u64, access: Access) -> usize {
        let slot = self.next % HINTS;
        self.accesses[slot] = Slot { address, access, looked: 0 };
        self.next += 1;
        slot
    }

    /// How many slots were given.
    pub(super) fn given(&self) -> usize {
        self.next
    }

    /// The accesses that were given slots since there were `given` are not emitted after all: something else will be where they begin.
    pub(super) fn take_back(&mut self, given: usize) {
        for number in given..self.next {
            self.accesses[number % HINTS].address = 0;
        }
        self.next = given;
    }

    /// No address is valid any more.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }
}

/// Where a slot's hint is.
fn hint(slot: usize) -> Rm {
    Rm::state(offset_of!(State, hints) + 2 * slot)
}

/// The hint of `slot` into R15.
fn take(code: &mut Emitter, slot: usize) {
    code.load16(R15, hint(slot));
}

/// The place of the page of the address in R14 into R15.
pub(super) fn compute(code: &mut Emitter) {
    code.extract(R15, R14, PAGE_INDEX);
}

/// The table of pages for loads or stores.
pub(super) fn table(write: bool) -> usize {
    if write { offset_of!(State, write) } else { offset_of!(State, read) }
}

/// The mask of what must be zero of an offset that is within a page, and aligned to `1 << shift` bytes.
fn beyond(shift: u32) -> Mask {
    Mask::low(offset_of!(State, beyond) + 8 * shift as usize)
}

/// RCX is zero if the table has the page of the address in R14 in the place R15, and the access stays in it. R15 was computed from that address:
/// so the last byte is enough to look at.
pub(super) fn check_reach(code: &mut Emitter, write: bool, reach: i32) {
    code.load(RCX, Rm::element(table(write), R15));
    code.lea(RCX, Rm::Indexed(RCX, R14, 0, reach));
    code.extract(RCX, RCX, beyond(0));
}

/// The same of any place in R15, if the address is also aligned to `1 << shift` bytes; or, of one that was computed, of the access' byte number `reach`.
/// Always as many bytes of code.
fn check_aligned(code: &mut Emitter, write: bool, reach: u8, shift: u32) {
    code.load(RCX, Rm::element(table(write), R15));
    code.raw(&[0x4a, 0x8d, 0x4c, 0x31, reach]); // lea rcx, [rcx + r14 + reach]
    code.extract(RCX, RCX, beyond(shift));
}

/// How far a computed place is checked, and which alignment the access must have.
fn computed(access: Access) -> (u8, u32) {
    if access.aligned { (0, access.size.trailing_zeros()) } else { (access.size as u8 - 1, 0) }
}

/// RCX is zero if R15 is the place of the page that the access to the address in R14 stays in. Gives the slot of the hint, if one is `wanted` and there
/// can be one.
pub(super) fn probe(code: &mut Emitter, access: Access, wanted: bool, hints: &mut Hints) -> Option<usize> {
    // Without BMI2 there are no two forms of one length.
    let hinted = wanted && access.size.is_power_of_two() && code.quiet() == Quiet::Bmi2;
    if !hinted {
        compute(code);
        let (reach, shift) = computed(access);
        check_aligned(code, access.write, reach, shift);
        return None;
    }
    let slot = hints.slot(code.here(), access);
    take(code, slot);
    check_aligned(code, access.write, 0, access.size.trailing_zeros());
    Some(slot)
}

/// For each instruction of a block, whether its access takes a hint: those that something waits for. Their address waits for a load before it in the block;
/// of one that `repeats`, also for a load in the round before. Or a jump to an address out of a table comes of them, at the end of the block or where
/// that jumps to: the host guesses such jumps wrongly, and waits for them.
///
/// Others would only lose: a hint may be wrong, and is one more place in memory. (With hints for all accesses a fork took a third longer, and programs
/// whose addresses come from registers a tenth.)
pub(super) fn wanted(instructions: &[Instruction], repeats: bool) -> Vec<bool> {
    let count = instructions.len();
    let end = instructions.last().map(Instruction::flow_control);
    let mut loaded = if repeats { instructions.iter().fold(0, loaded_after) } else { 0 };
    let mut wanted = Vec::with_capacity(count);
    for (index, i) in instructions.iter().enumerate() {
        let leads_to_jump = match end {
            Some(FlowControl::IndirectBranch) => true,
            Some(FlowControl::UnconditionalBranch) => index + 2 == count,
            _ => false,
        };
        let accesses = i.mnemonic() != Mnemonic::Lea && i.op_kinds().any(|kind| kind == OpKind::Memory);
        wanted.push(accesses && (leads_to_jump || loaded & in_address(i) != 0));
        loaded = loaded_after(loaded, i);
    }
    wanted
}

/// A bit for the general register of which this is part.
fn bit(register: Register) -> u16 {
    if register.is_gpr() { 1 << register.full_register().number() } else { 0 }
}

/// The registers of which the address of the operand in memory is made.
fn in_address(i: &Instruction) -> u16 {
    bit(i.memory_base()) | bit(i.memory_index())
}

/// The registers whose values come from loads, after `i`. It need not be right: what is emitted is right in any case. So it knows no registers but those
/// that instructions name.
fn loaded_after(loaded: u16, i: &Instruction) -> u16 {
    use Mnemonic::{Bt, Cmp, Imul, Lea, Mov, Movsx, Movsxd, Movzx, Pop, Test};
    if i.op0_kind() != OpKind::Register || matches!(i.mnemonic(), Cmp | Test | Bt) {
        return loaded;
    }
    let to = bit(i.op0_register());
    let of_operands = (1..i.op_count()).any(|operand| match i.op_kind(operand) {
        OpKind::Register => loaded & bit(i.op_register(operand)) != 0,
        OpKind::Memory => i.mnemonic() != Lea || loaded & in_address(i) != 0,
        _ => false,
    });
    let replaces = match i.mnemonic() {
        Mov | Movzx | Movsx | Movsxd | Lea | Pop => true,
        Imul => i.op_count() == 3,
        // Most often it clears a register.
        Mnemonic::Xor => i.op1_kind() == OpKind::Register && i.op1_register() == i.op0_register(),
        _ => false,
    };
    let cleared = i.mnemonic() == Mnemonic::Xor && replaces;
    if of_operands && !cleared || !replaces && loaded & to != 0 { loaded | to } else { loaded & !to }
}

/// The same, whatever the last page was and however the address is aligned.
fn probe_computed(code: &mut Emitter, access: Access) {
    compute(code);
    code.raw(&[0x66, 0x90]);
    let (reach, shift) = computed(access);
    check_aligned(code, access.write, reach, shift);
}

/// The place in R15 is the hint of the slot in the argument's upper half. RCX is used.
fn note(code: &mut Emitter) {
    code.load32(RCX, Rm::state(offset_of!(State, argument) + 4));
    code.store16(Rm::Indexed(RSP, RCX, 1, offset_of!(State, hints) as i32), R15);
}

/// The largest access.
const LARGEST: u32 = 32;

/// For each kind of access, code that is called with the address in R14, and in RCX the site and, in its upper half, the slot: R15 is where the page is.
pub(super) struct Stubs {
    hinted: Vec<u64>,
    /// The same for any access that took no hint: it did not find its page.
    computed: u64,
}

impl Stubs {
    /// Emits them. `fill` maps a page, `sample` looks at a wrong hint.
    pub(super) fn emit(code: &mut Emitter, fill: u64, sample: u64) -> Self {
        let mut places = Vec::new();
        for number in 0..4 * (LARGEST + 1) {
            let access = Access { size: (number / 4).max(1), write: number & 1 != 0, aligned: number & 2 != 0 };
            if access.aligned && !matches!(access.size, 16 | 32) {
                places.push(0);
                continue;
            }
            places.push(code.here());
            let argument = offset_of!(State, argument);
            code.pop(Rm::state(offset_of!(State, access)));
            code.store(Rm::state(argument), RCX);
            let again = code.here();
            probe_computed(code, access);
            let found = code.skip_if_rcx_zero();
            code.load(RCX, Rm::state(argument));
            code.call(fill);
            // Not the hint was wrong: two pages may want the same place in turns.
            compute(code);
            note(code);
            code.op32(0xff, 4, Rm::state(offset_of!(State, access)));
            code.fix_skip(found);
            note(code);
            let left = Rm::state(offset_of!(State, hints_left));
            code.load(RCX, left);
            code.lea(RCX, Rm::Base(RCX, -1));
            code.store(left, RCX);
            let look = code.skip_if_rcx_zero();
            code.op32(0xff, 4, Rm::state(offset_of!(State, access)));
            code.fix_skip(look);
            code.load(RCX, Rm::state(argument));
            code.call(sample);
            code.jump_to(again);
        }
        let without_hint = code.here();
        code.pop(Rm::state(offset_of!(State, access)));
        code.call(fill);
        compute(code);
        code.op32(0xff, 4, Rm::state(offset_of!(State, access)));
        Self { hinted: places, computed: without_hint }
    }

    /// The one for an access that took a hint, or did not.
    pub(super) fn of(&self, access: Access, hinted: bool) -> u64 {
        if !hinted {
            return self.computed;
        }
        let number = access.size.min(LARGEST) * 4 + u32::from(access.aligned) * 2 + u32::from(access.write);
        self.hinted[number as usize]
    }
}

impl Translator {
    /// The hint of `slot` was wrong, `now` instructions having been executed: one of [`PERIOD`].
    pub(super) fn look_at_hint(&mut self, slot: usize, now: u64) {
        let slot = &mut self.hints.accesses[slot % HINTS];
        let last = std::mem::replace(&mut slot.looked, now);
        if slot.address != 0 && last != 0 && now.wrapping_sub(last) < TOO_SOON {
            let mut code = Emitter::new(slot.address, Quiet::Bmi2);
            probe_computed(&mut code, slot.access);
            self.buffer.patch(slot.address, code.bytes());
            slot.address = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::RAX;
    use crate::testing::Machine;
    use crate::translator::buffer::CodeBuffer;
    use crate::translator::enter::leave_address;
    use crate::translator::run::execute;
    use crate::translator::state::Blocks;

    const PAGE: u64 = 0x7654_3000;

    /// Whether an access to `address` hits by the hint, and by the computed place, where only [`PAGE`] is in the table and the hint is its place.
    fn hits(address: u64, access: Access) -> (bool, bool) {
        let mut machine = Machine::long();
        let mut buffer = CodeBuffer::new(1 << 16).unwrap();
        let mut blocks = Blocks::new(machine.cpu.ram.host_address()).unwrap();
        blocks.ready(0);
        blocks.enter_page(0, PAGE, 0, true, true);
        let mut hints = Hints::new();
        let mut probed = |emit: &mut dyn FnMut(&mut Emitter)| {
            let entry = buffer.next();
            let mut code = Emitter::new(entry, Quiet::Bmi2);
            code.constant(R14, address);
            emit(&mut code);
            code.store(Rm::Reg(0), RCX);
            code.far_jump(leave_address());
            buffer.append(code.bytes());
            execute(&mut blocks, entry, &mut machine.cpu);
            machine.cpu.regs[RAX] == 0
        };
        let mut lengths = Vec::new();
        let by_hint = probed(&mut |code| {
            // MOV WORD [hint 0], place: what the last access left.
            code.op(super::super::emit::Opcode { prefixes: &[0x66], bytes: &[0xc7], ..Default::default() }, 0, hint(0));
            code.raw(&((PAGE >> 12) as u16 & (super::super::state::PAGES as u16 - 1)).to_le_bytes());
            let start = code.here();
            assert_eq!(probe(code, access, true, &mut hints), Some(0));
            lengths.push(code.here() - start);
        });
        let computed = probed(&mut |code| {
            let start = code.here();
            probe_computed(code, access);
            lengths.push(code.here() - start);
        });
        assert_eq!(lengths[0], lengths[1], "one is put in the place of the other");
        let without = probed(&mut |code| assert_eq!(probe(code, access, false, &mut Hints::new()), None));
        assert_eq!(without, computed);
        (by_hint, computed)
    }

    /// Slots are shared when all are used: whoever shares one with an access that was not emitted must not change what is there instead.
    #[test]
    fn what_is_not_emitted_is_not_changed() {
        let access = Access { size: 8, write: false, aligned: false };
        let mut hints = Hints::new();
        (0..HINTS as u64).for_each(|number| assert_eq!(hints.slot(0x1000 + number, access), number as usize));
        let given = hints.given();
        assert_eq!((hints.slot(0x9999, access), hints.slot(0x9999, access)), (0, 1));
        hints.take_back(given);
        let address = |slot: usize| hints.accesses[slot].address;
        assert_eq!((address(0), address(1), address(2), hints.given()), (0, 0, 0x1002, HINTS));
    }

    fn wanted_in(bytes: &[u8], repeats: bool) -> Vec<bool> {
        let block: Vec<_> = iced_x86::Decoder::new(64, bytes, iced_x86::DecoderOptions::NONE).iter().collect();
        wanted(&block, repeats)
    }

    #[test]
    fn hints_are_for_addresses_that_wait_for_loads_and_for_what_jumps_wait_for() {
        let (n, y) = (false, true);
        // mov rax, [rdi]; lea rcx, [rax + 8]; mov edx, [rcx]; mov [rsi], edx; cmp [rdx], ebx; xor edx, edx; mov al, [rdx]; mov [rbp + rax], cl
        let chain = [
            0x48, 0x8b, 0x07, 0x48, 0x8d, 0x48, 0x08, 0x8b, 0x11, 0x89, 0x16, 0x39, 0x1a, 0x31, 0xd2, 0x8a, 0x02, 0x88,
            0x4c, 0x05, 0x00,
        ];
        assert_eq!(wanted_in(&chain, false), [n, n, y, n, y, n, n, y]);
        // xor dl, [rdi]; movzx edx, dl; mov edx, [rsi + 4 * rdx]; inc rdi; cmp rdi, rax; jne to the beginning
        let checksum = [0x32, 0x17, 0x0f, 0xb6, 0xd2, 0x8b, 0x14, 0x96, 0x48, 0xff, 0xc7, 0x48, 0x39, 0xc7, 0x75, 0xf0];
        assert_eq!(wanted_in(&checksum, false), [n, n, y, n, n, n]);
        // mov rax, [rax]; jne to the beginning
        let list = [0x48, 0x8b, 0x00, 0x75, 0xfb];
        assert_eq!((wanted_in(&list, false), wanted_in(&list, true)), (vec![n, n], vec![y, n]));
        // mov ecx, [rdi]; movzx eax, byte [rdx]; jmp
        let fetch = [0x8b, 0x0f, 0x0f, 0xb6, 0x02, 0xeb, 0x10];
        assert_eq!(wanted_in(&fetch, false), [n, y, n]);
        // movsxd rax, dword [rsi + 4 * rax]; add rax, rsi; jmp rax
        let dispatch = [0x48, 0x63, 0x04, 0x86, 0x48, 0x01, 0xf0, 0xff, 0xe0];
        assert_eq!(wanted_in(&dispatch, false), [y, n, n]);
    }

    /// Above all an access that only ends in the page of the hint must not hit.
    #[test]
    fn an_access_hits_if_all_of_it_is_in_the_page() {
        if !super::super::supported() {
            return;
        }
        for size in [1, 2, 4, 8, 16, 32] {
            for write in [false, true] {
                let access = Access { size, write, aligned: false };
                let size = u64::from(size);
                for address in [PAGE - size, PAGE, PAGE + 0x1000 - size] {
                    let inside = address & !0xfff == PAGE;
                    assert_eq!(hits(address, access), (inside, inside), "{address:x} {size}");
                }
                if size > 1 {
                    assert_eq!(hits(PAGE - 1, access), (false, false));
                    assert_eq!(hits(PAGE + 1, access), (false, true), "by the computed place alone if not aligned");
                    assert_eq!(hits(PAGE + 0x1001 - size, access), (false, false));
                }
            }
        }
        for size in [16, 32] {
            let access = Access { size, write: false, aligned: true };
            assert_eq!((hits(PAGE + 8, access), hits(PAGE + 64, access)), ((false, false), (true, true)));
        }
    }
}
