//! The digest of a machine: equal for two runs that are the same.

use crate::run::Machine;
use processor::Cpu;
use sha2::{Digest, Sha256};
use std::fmt::Write;

impl Machine {
    /// SHA-256 over the registers of every processor, virtual time, instruction counts and all memory ever written, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.now().to_le_bytes());
        for cpu in &self.cpus {
            registers(cpu, |value| hash.update(value.to_le_bytes()));
        }
        let board = crate::processors::lock(&self.board);
        board.memory.ram.for_each_page(|offset, page| {
            hash.update(offset.to_le_bytes());
            hash.update(page);
        });
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Gives every architectural register of `cpu` to `add`, in a fixed order.
fn registers(cpu: &Cpu, mut add: impl FnMut(u64)) {
    for value in &cpu.regs[..16] {
        add(*value);
    }
    for value in
        [cpu.rip, cpu.rflags(), cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.xcr0, cpu.efer, cpu.instructions, cpu.now()]
    {
        add(value);
    }
    for segment in cpu.segs[..6].iter().chain([&cpu.ldtr, &cpu.tr]) {
        add(u64::from(segment.selector) | u64::from(segment.access) << 16);
        add(segment.base);
        add(segment.limit.into());
    }
    for table in [&cpu.gdtr, &cpu.idtr] {
        add(table.base);
        add(table.limit.into());
    }
    for value in cpu.ymm.iter().flatten().chain(&cpu.dr) {
        add(*value);
    }
    add(cpu.mxcsr.into());
}
