//! BT, BTS, BTR and BTC with a bit number in a register and the bits in memory: the number reaches beyond the operand (SDM Vol 2A, BT).

use super::block::{Builder, Done, Site};
use super::emit::{Mask, Opcode, R15, RCX, Rm};
use super::memory::{Access, PROBED, addressable};
use super::state::State;
use core::mem::offset_of;
use iced_x86::{Instruction, Mnemonic, OpKind};

/// Whether it is one of them.
pub(super) fn is_bit_string(i: &Instruction) -> bool {
    matches!(i.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && i.op0_kind() == OpKind::Memory
        && i.op1_kind() == OpKind::Register
}

impl Builder<'_> {
    /// Emits one of 32 or 64 bits.
    pub(super) fn bit_string(&mut self, i: &Instruction, site: Site) -> Done {
        let register = i.op1_register();
        let (wide, shift) = match register.size() {
            4 => (false, 5),
            8 => (true, 6),
            _ => return Done::No,
        };
        if !addressable(i) {
            return Done::No;
        }
        let opcode = match i.mnemonic() {
            Mnemonic::Bt => 0xa3,
            Mnemonic::Bts => 0xab,
            Mnemonic::Btr => 0xb3,
            _ => 0xbb,
        };
        let write = i.mnemonic() != Mnemonic::Bt;
        let known = self.address_beyond(i, if wide { 3 } else { 2 }, |builder| {
            let number = builder.value_of(register.number() as u8, R15);
            if !wide {
                // movsxd r15, number
                builder.code.op64(0x63, R15, Rm::Reg(number));
            } else if number != R15 {
                builder.code.store(Rm::Reg(R15), number);
            }
            // Which doubleword or quadword.
            builder.code.shift_right(R15, shift);
        });
        if !known {
            return Done::No;
        }
        self.probe(Access { size: 1 << (shift - 3), write, aligned: false }, site, false);
        let number = self.value_of(register.number() as u8, RCX);
        self.code.extract(RCX, number, Mask::low(offset_of!(State, bit_numbers) + if wide { 8 } else { 0 }));
        if i.has_lock_prefix() {
            self.code.byte(0xf0);
        }
        self.code.op(Opcode { wide, bytes: &[0x0f, opcode], ..Opcode::default() }, RCX, PROBED);
        Done::Yes
    }
}
