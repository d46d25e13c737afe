//! Hints and cache control: CLFLUSH, CLFLUSHOPT, CLWB, and the encodings that are no-operations because the feature behind them is not
//! announced (MPX, CLDEMOTE).

use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

/// There is no cache to flush, but the address is checked as a load's is (SDM Vol 2A, CLFLUSH).
fn flush_line(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear(op, 1, false)?;
    cpu.load::<1>(address)?;
    Ok(())
}

fn nothing(_cpu: &mut Cpu, _op: &Op) -> Exec {
    Ok(())
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    for code in [Code::Clflush_m8, Code::Clflushopt_m8, Code::Clwb_m8] {
        table.one(code, op!(flush_line));
    }
    for code in [
        Code::Cldemote_m8,
        Code::Prefetchwt1_m8,
        Code::Bndldx_bnd_mib,
        Code::Bndmov_bnd_bndm64,
        Code::Bndmov_bnd_bndm128,
        Code::Bndcl_bnd_rm32,
        Code::Bndcl_bnd_rm64,
        Code::Bndcu_bnd_rm32,
        Code::Bndcu_bnd_rm64,
        Code::Bndstx_mib_bnd,
        Code::Bndmov_bndm64_bnd,
        Code::Bndmov_bndm128_bnd,
        Code::Bndmk_bnd_m32,
        Code::Bndmk_bnd_m64,
        Code::Bndcn_bnd_rm32,
        Code::Bndcn_bnd_rm64,
    ] {
        table.one(code, op!(nothing)).safe();
    }
}
