//! A readable picture of a processor, for triple faults and debug prompts.

use crate::run::Machine;
use processor::decode::disassemble;
use std::fmt::Write;

const NAMES: [&str; 16] =
    ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

impl Machine {
    /// Registers, segments and the code at RIP of processor `index`.
    pub fn describe(&mut self, index: usize) -> String {
        let mut text = String::new();
        let _ = self.write_description(index, &mut text);
        text
    }

    fn write_description(&mut self, index: usize, out: &mut String) -> std::fmt::Result {
        let Some(cpu) = self.cpus.get_mut(index) else { return Ok(()) };
        writeln!(
            out,
            "processor {index}: {:?}, CPL {}, {} instructions, {} ns",
            cpu.mode,
            cpu.cpl,
            cpu.instructions,
            cpu.now()
        )?;
        for (i, name) in NAMES.iter().enumerate() {
            write!(out, "{name:>4} {:016x}{}", cpu.regs[i], if i % 4 == 3 { "\n" } else { "  " })?;
        }
        writeln!(out, " RIP {:016x}  RFLAGS {:08x}", cpu.rip, cpu.rflags())?;
        let line = [("CR0", cpu.cr0), ("CR2", cpu.cr2), ("CR3", cpu.cr3), ("CR4", cpu.cr4), ("EFER", cpu.efer)];
        writeln!(out, "{}", line.map(|(name, value)| format!("{name} {value:x}")).join("  "))?;
        for (name, segment) in SEGMENTS.iter().zip(&cpu.segs).chain([(&"LDTR", &cpu.ldtr), (&"TR", &cpu.tr)]) {
            let processor::segment::Segment { selector, base, limit, access } = segment;
            writeln!(out, "{name:>4} {selector:04x}  base {base:016x}  limit {limit:08x}  access {access:05x}")?;
        }
        writeln!(
            out,
            "GDTR {:016x}/{:04x}  IDTR {:016x}/{:04x}",
            cpu.gdtr.base, cpu.gdtr.limit, cpu.idtr.base, cpu.idtr.limit
        )?;
        if let Some(failed) = cpu.vmx.last_failed_check {
            writeln!(out, "the last VM entry failed: {failed}")?;
        }
        let linear = cpu.code_linear();
        let mut bytes = Vec::new();
        for i in 0..48 {
            match cpu.peek_code(linear.wrapping_add(i)) {
                Some(offset) => bytes.push(cpu.ram.load::<1>(offset) as u8),
                None => break,
            }
        }
        if bytes.is_empty() {
            writeln!(out, "the code at RIP is not mapped")?;
        }
        for line in disassemble(&bytes, cpu.rip, cpu.code_size()).into_iter().take(6) {
            writeln!(out, "  {line}")?;
        }
        Ok(())
    }
}
