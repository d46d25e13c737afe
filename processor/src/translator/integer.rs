//! Instructions that need more than their registers replaced: control transfers, the stack, division.

use super::bit_string::is_bit_string;
use super::block::{Builder, Cold, Done, Miss, Site, Taken, is_hint};
use super::emit::{Opcode, R12, R13, R14, R15, RAX, RCX, RDX, Rm};
use super::memory::{Access, addressable, home, host_register};
use super::state::State;
use super::system::is_of_state;
use super::x87::is_x87;
use core::mem::offset_of;
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};

impl Builder<'_> {
    /// Emits one instruction, number `executed` counting from one.
    pub(super) fn translate(&mut self, i: &Instruction, bytes: &[u8], site: Site, executed: usize) -> Done {
        match i.mnemonic() {
            _ if is_hint(i) => {
                self.held_next = self.held;
                return Done::Yes;
            }
            Mnemonic::Lea => return self.load_address(i),
            Mnemonic::Push => return self.push(i, site),
            Mnemonic::Pop => return self.pop(i, site),
            Mnemonic::Leave => return self.leave(i, site),
            Mnemonic::Div | Mnemonic::Idiv => return self.divide(i, site),
            Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b => return self.compare_exchange_pair(i, site),
            _ if is_x87(i) => return self.x87(i, bytes, site),
            _ if is_bit_string(i) => return self.bit_string(i, site),
            _ => {}
        }
        match i.flow_control() {
            FlowControl::ConditionalBranch => self.branch_if(i, executed),
            FlowControl::UnconditionalBranch => match branch_target(i) {
                Some(target) => {
                    self.jump_anywhere(target, executed);
                    Done::Left
                }
                None => Done::No,
            },
            FlowControl::IndirectBranch if matches!(i.code(), Code::Jmp_rm32 | Code::Jmp_rm64) => {
                self.jump_indirect(i, site, executed)
            }
            FlowControl::Call if matches!(i.code(), Code::Call_rel32_32 | Code::Call_rel32_64) => {
                self.call(i, site, executed)
            }
            FlowControl::IndirectCall if matches!(i.code(), Code::Call_rm32 | Code::Call_rm64) => {
                self.call_indirect(i, site, executed)
            }
            FlowControl::Return
                if matches!(i.code(), Code::Retnd | Code::Retnd_imm16 | Code::Retnq | Code::Retnq_imm16) =>
            {
                self.ret(i, site, executed)
            }
            FlowControl::Next => match self.system(i, site, executed == self.count()) {
                Done::No if !is_of_state(i) => self.generic(i, bytes, site),
                done => done,
            },
            _ => Done::No,
        }
    }

    /// Goes to `target`, counted from the page's first byte.
    fn jump_anywhere(&mut self, target: u64, executed: usize) {
        if target < 0x1000 { self.jump(target, executed) } else { self.jump_far(target, executed) }
    }

    pub(super) fn load_address(&mut self, i: &Instruction) -> Done {
        if !addressable(i) || i.memory_segment() == Register::None {
            return Done::No;
        }
        let register = i.op0_register();
        let guest = register.number() as u8;
        let prefix: &[u8] = match register.size() {
            8 => {
                match host_register(guest) {
                    Some(host) => self.effective_address(i, host),
                    None => {
                        self.effective_address(i, R14);
                        self.code.store(home(guest), R14);
                        self.held_next = Some((guest, R14));
                    }
                }
                return Done::Yes;
            }
            4 => {
                let to = host_register(guest).unwrap_or(R14);
                self.effective_address_of(i, to, false);
                if to == R14 {
                    self.code.store(home(guest), R14);
                    self.held_next = Some((guest, R14));
                }
                return Done::Yes;
            }
            _ => &[0x66],
        };
        self.effective_address(i, R14);
        match host_register(guest) {
            Some(host) => {
                self.code.op(Opcode { prefixes: prefix, bytes: &[0x89], ..Opcode::default() }, R14, Rm::Reg(host));
            }
            None => self.code.op(Opcode { prefixes: prefix, bytes: &[0x89], ..Opcode::default() }, R14, home(guest)),
        }
        Done::Yes
    }

    fn push(&mut self, i: &Instruction, site: Site) -> Done {
        match i.code() {
            Code::Push_r32 | Code::Push_r64 => {}
            Code::Push_rm32 | Code::Push_rm64 if i.op0_kind() == OpKind::Register => {}
            Code::Push_rm32 | Code::Push_rm64 if addressable(i) => {
                let operand = self.operand(i, self.slot(false), site);
                self.load_slot(R14, operand);
                self.code.store(Rm::state(offset_of!(State, spill)), R14);
                let pushed = self.pushed(site);
                self.code.load(RCX, Rm::state(offset_of!(State, spill)));
                self.store_slot(pushed, RCX);
                self.move_stack(-self.slot_size());
                return Done::Yes;
            }
            Code::Pushd_imm32 | Code::Pushd_imm8 | Code::Pushq_imm32 | Code::Pushq_imm8 => {
                let pushed = self.pushed(site);
                let wide = self.width().wide();
                self.code.op(Opcode { wide, bytes: &[0xc7], ..Opcode::default() }, 0, pushed);
                self.code.dword(i.immediate(0) as u32);
                self.move_stack(-self.slot_size());
                return Done::Yes;
            }
            _ => return Done::No,
        }
        let pushed = self.pushed(site);
        let value = self.value_of(i.op0_register().number() as u8, RCX);
        self.store_slot(pushed, value);
        self.move_stack(-self.slot_size());
        Done::Yes
    }

    fn pop(&mut self, i: &Instruction, site: Site) -> Done {
        let of_memory = matches!(i.code(), Code::Pop_rm32 | Code::Pop_rm64) && i.op0_kind() == OpKind::Register;
        if !(matches!(i.code(), Code::Pop_r32 | Code::Pop_r64) || of_memory) {
            return Done::No;
        }
        let guest = i.op0_register().number() as u8;
        let popped = self.popped(site);
        match host_register(guest) {
            // POP RSP: the value, not moved.
            Some(R12) => {
                self.load_slot(R12, popped);
                return Done::Yes;
            }
            Some(host) => self.load_slot(host, popped),
            None => {
                self.code.load(RCX, popped);
                self.code.store(home(guest), RCX);
            }
        }
        self.move_stack(self.slot_size());
        Done::Yes
    }

    fn leave(&mut self, i: &Instruction, site: Site) -> Done {
        if !matches!(i.code(), Code::Leaved | Code::Leaveq) {
            return Done::No;
        }
        const RBP: u8 = 5;
        let saved = self.stack(self.slot(false), RBP, 0, site);
        self.load_slot(RCX, saved);
        self.lea_address(R12, Rm::Base(RBP, self.slot_size()));
        self.code.store(Rm::Reg(RBP), RCX);
        Done::Yes
    }

    pub(super) fn branch_if(&mut self, i: &Instruction, executed: usize) -> Done {
        let (Some(target), Some(condition)) = (branch_target(i), condition(i)) else { return Done::No };
        self.held_next = self.held;
        if target <= i.ip() {
            // Probably a loop, which goes on.
            let over = self.code.jump_if(condition ^ 1);
            self.jump(target, executed);
            self.code.fix(over);
            return Done::Yes;
        }
        let jump = self.code.jump_if(condition);
        self.taken.push_back(Taken { jump, target, executed });
        Done::Yes
    }

    /// The target of an indirect branch into R14.
    fn indirect_target(&mut self, i: &Instruction, site: Site) -> bool {
        if i.op0_kind() == OpKind::Register {
            let value = self.value_of(i.op0_register().number() as u8, R14);
            if value != R14 {
                self.store_slot(Rm::Reg(R14), value);
            }
        } else if addressable(i) {
            let operand = self.operand(i, self.slot(false), site);
            self.load_slot(R14, operand);
        } else {
            return false;
        }
        true
    }

    fn jump_indirect(&mut self, i: &Instruction, site: Site, executed: usize) -> Done {
        if !self.indirect_target(i, site) {
            return Done::No;
        }
        self.look_up(executed, Miss::Certain(site), |_| {});
        Done::Left
    }

    fn call(&mut self, i: &Instruction, site: Site, executed: usize) -> Done {
        let Some(target) = branch_target(i) else { return Done::No };
        self.push_next(i, site);
        self.jump_anywhere(target, executed);
        Done::Left
    }

    /// Pushes the address of the next instruction.
    fn push_next(&mut self, i: &Instruction, site: Site) {
        let pushed = self.pushed(site);
        self.code.load(RCX, Rm::state(offset_of!(State, rip_base)));
        self.code.lea(RCX, Rm::Base(RCX, i.next_ip() as i32));
        self.store_slot(pushed, RCX);
        self.move_stack(-self.slot_size());
    }

    fn call_indirect(&mut self, i: &Instruction, site: Site, executed: usize) -> Done {
        if !self.indirect_target(i, site) {
            return Done::No;
        }
        // As the interpreter: nothing is seen of the stack before the target is known to be good.
        self.find_target(Miss::Interpret(site));
        self.code.store(Rm::state(offset_of!(State, spill)), R15);
        self.push_next(i, site);
        self.code.load(R15, Rm::state(offset_of!(State, spill)));
        self.go(executed);
        Done::Left
    }

    fn ret(&mut self, i: &Instruction, site: Site, executed: usize) -> Done {
        let release = if i.op_count() == 1 { i32::from(i.immediate16()) } else { 0 };
        let popped = self.popped(site);
        self.load_slot(R14, popped);
        self.look_up(executed, Miss::Certain(site), |builder| builder.move_stack(builder.slot_size() + release));
        Done::Left
    }

    /// CMPXCHG8B and CMPXCHG16B: three of the four implicit registers are where they belong.
    fn compare_exchange_pair(&mut self, i: &Instruction, site: Site) -> Done {
        if !addressable(i) {
            return Done::No;
        }
        let wide = i.mnemonic() == Mnemonic::Cmpxchg16b;
        let access = Access { size: if wide { 16 } else { 8 }, write: true, aligned: wide };
        let operand = self.operand(i, access, site);
        self.code.store(Rm::Reg(RCX), R13);
        if i.has_lock_prefix() {
            self.code.byte(0xf0);
        }
        self.code.op(Opcode { wide, bytes: &[0x0f, 0xc7], ..Opcode::default() }, 1, operand);
        Done::Yes
    }

    /// DIV and IDIV of 32 and 64 bits, where the quotient surely fits; the flags are kept, as the interpreter keeps them.
    fn divide(&mut self, i: &Instruction, site: Site) -> Done {
        let wide = match i.code() {
            Code::Div_rm64 | Code::Idiv_rm64 => true,
            Code::Div_rm32 | Code::Idiv_rm32 => false,
            _ => return Done::No,
        };
        let signed = i.mnemonic() == Mnemonic::Idiv;
        let opcode = |byte: &'static [u8]| Opcode { wide, bytes: byte, ..Opcode::default() };
        if i.op0_kind() == OpKind::Register {
            let value = self.value_of(i.op0_register().number() as u8, RCX);
            if value != RCX {
                self.code.store(Rm::Reg(RCX), value);
            }
        } else if addressable(i) {
            let operand =
                self.operand(i, Access { size: if wide { 8 } else { 4 }, write: false, aligned: false }, site);
            self.code.op(opcode(&[0x8b]), RCX, operand);
        } else {
            return Done::No;
        }
        self.save_flags();
        let out = |builder: &mut Self, condition: u8| {
            let jump = builder.code.jump_if(condition);
            builder.cold.push_back(Cold::Interpret { jump, site, flags: true });
        };
        if signed {
            // The dividend is sign-extended, and the divisor neither 0 nor -1.
            self.code.op(opcode(&[0x8b]), R14, Rm::Reg(RAX));
            self.code.op(opcode(&[0xc1]), 7, Rm::Reg(R14));
            self.code.byte(if wide { 63 } else { 31 });
            self.code.op(opcode(&[0x3b]), R14, Rm::Reg(RDX));
            out(self, 5);
            self.code.op(opcode(&[0x8d]), R14, Rm::Base(RCX, 1));
            self.code.op(opcode(&[0x83]), 7, Rm::Reg(R14));
            self.code.byte(1);
            out(self, 6);
        } else {
            // The high half is less than the divisor.
            self.code.op(opcode(&[0x3b]), RDX, Rm::Reg(RCX));
            out(self, 3);
        }
        self.code.op(opcode(&[0xf7]), if signed { 7 } else { 6 }, Rm::Reg(RCX));
        self.restore_flags();
        Done::Yes
    }
}

/// The target of a relative branch, counted from the page's first byte; `None` where 16 bits of it count.
pub(super) fn branch_target(i: &Instruction) -> Option<u64> {
    match i.op0_kind() {
        OpKind::NearBranch32 => Some(i64::from(i.near_branch32() as i32) as u64),
        OpKind::NearBranch64 => Some(i.near_branch64()),
        _ => None,
    }
}

/// The processor's number of the condition of a conditional branch.
pub(super) fn condition(i: &Instruction) -> Option<u8> {
    let condition = i.condition_code() as u8;
    (i.is_jcc_short_or_near() && condition != 0).then(|| CONDITIONS[usize::from(condition) & 31])
}

/// iced's condition codes to the processor's.
const CONDITIONS: [u8; 32] = {
    use iced_x86::ConditionCode as C;
    let mut table = [0; 32];
    table[C::o as usize] = 0;
    table[C::no as usize] = 1;
    table[C::b as usize] = 2;
    table[C::ae as usize] = 3;
    table[C::e as usize] = 4;
    table[C::ne as usize] = 5;
    table[C::be as usize] = 6;
    table[C::a as usize] = 7;
    table[C::s as usize] = 8;
    table[C::ns as usize] = 9;
    table[C::p as usize] = 10;
    table[C::np as usize] = 11;
    table[C::l as usize] = 12;
    table[C::ge as usize] = 13;
    table[C::le as usize] = 14;
    table[C::g as usize] = 15;
    table
};
