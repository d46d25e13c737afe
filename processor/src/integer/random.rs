//! RDRAND and RDSEED: deterministic, a generator for each processor.

use super::operand::write;
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::flags::{CF, LateFlags};
use crate::op;
use crate::system::intercept::Intercept;
use crate::trap::Exec;
use iced_x86::Code;

impl Cpu {
    /// The next value of the processor's random number generator (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random_state = self.random_state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random_state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

fn rd<const N: usize, const SEED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept(Some(op), if SEED { Intercept::Rdseed } else { Intercept::Rdrand })?;
    let value = cpu.random();
    write::<N>(cpu, op.r[0], value);
    // CF says that there was a value; the other flags are clear (SDM Vol 2B, RDRAND).
    cpu.flags = LateFlags::from_bits(CF);
    Ok(())
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    table.one(Code::Rdrand_r16, op!(rd::<2, false>));
    table.one(Code::Rdrand_r32, op!(rd::<4, false>));
    table.one(Code::Rdrand_r64, op!(rd::<8, false>));
    table.one(Code::Rdseed_r16, op!(rd::<2, true>));
    table.one(Code::Rdseed_r32, op!(rd::<4, true>));
    table.one(Code::Rdseed_r64, op!(rd::<8, true>));
}
