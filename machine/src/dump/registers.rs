//! Registers and the code at RIP.

use super::Failure;
use processor::Cpu;
use processor::decode::disassemble;
use processor::segment::Segment;
use std::fmt::Write;

const NAMES: [&str; 16] =
    ["RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"];
const SEGMENTS: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];
/// Instructions shown.
const LINES: usize = 6;

pub(super) fn write(cpu: &Cpu, _address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    let operation = match (cpu.vmx.on, cpu.vmx.non_root) {
        (false, _) => "",
        (true, false) => ", VMX root operation",
        (true, true) => ", VMX non-root operation",
    };
    writeln!(
        out,
        "processor {}: {:?}, CPL {}{operation}, {:?}, {} instructions, {} ns",
        cpu.index,
        cpu.mode,
        cpu.cpl,
        cpu.activity,
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
        let Segment { selector, base, limit, access } = segment;
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
    for line in code_at(cpu, cpu.rip, LINES) {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

/// The code at `rip` in the present code segment, disassembled, a line for each of `count` instructions; or one line that says why there is none.
pub(crate) fn code_at(cpu: &Cpu, rip: u64, count: usize) -> Vec<String> {
    let linear = cpu.code_linear().wrapping_add(rip.wrapping_sub(cpu.rip));
    let mut bytes = vec![0; 15 * count];
    let read = cpu.peek_linear(linear, &mut bytes);
    if read == 0 {
        return vec![format!("the code at RIP {rip:#x} is not mapped")];
    }
    let mut lines = disassemble(&bytes[..read], rip, cpu.code_size());
    lines.truncate(count);
    lines
}
