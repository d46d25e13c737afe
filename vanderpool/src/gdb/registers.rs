//! The registers that gdb sees, in the order of the target description, which is made from the same table.
//!
//! The first are gdb's own for x86-64 (features `org.gnu.gdb.i386.core`, `.sse`, `.avx`, `.segments`); then come control registers, segment
//! bases, descriptor tables, MSRs and VT-x, under a feature of our own.

use gdbstub::arch::{Arch, RegId, Registers};
use processor::Cpu;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::OnceLock;

/// A register's contents, up to 16 bytes, low first.
type Value = u128;
type Read = fn(&Cpu, usize) -> Value;
/// False: the register cannot be written.
type Change = fn(&mut Cpu, usize, Value) -> bool;

/// One register of the target description.
struct Register {
    name: String,
    feature: &'static str,
    bits: usize,
    kind: &'static str,
    /// Which of several of its kind.
    index: usize,
    read: Read,
    change: Change,
}

const CORE: &str = "org.gnu.gdb.i386.core";
const SSE: &str = "org.gnu.gdb.i386.sse";
const SEGMENTS: &str = "org.gnu.gdb.i386.segments";
const AVX: &str = "org.gnu.gdb.i386.avx";
const SYSTEM: &str = "org.vanderpool.system";

/// gdb's order of the general registers, by their numbers.
const GENERAL: [(&str, usize); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];
/// gdb's order of the segment registers, by their numbers.
const SELECTORS: [(&str, usize); 6] = [("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5)];

fn fixed(_: &mut Cpu, _: usize, _: Value) -> bool {
    false
}

struct Table(Vec<Register>);

impl Table {
    fn add(
        &mut self,
        name: &str,
        feature: &'static str,
        (bits, kind): (usize, &'static str),
        read: Read,
        change: Change,
    ) {
        self.add_nth(name.to_owned(), feature, (bits, kind), 0, read, change);
    }

    fn add_nth(
        &mut self,
        name: String,
        feature: &'static str,
        (bits, kind): (usize, &'static str),
        index: usize,
        read: Read,
        change: Change,
    ) {
        self.0.push(Register { name, feature, bits, kind, index, read, change });
    }
}

const ADDRESS: (usize, &str) = (64, "data_ptr");
const QUAD: (usize, &str) = (64, "uint64");
const LONG: (usize, &str) = (32, "uint32");
const WORD: (usize, &str) = (32, "int");

fn table() -> &'static [Register] {
    static TABLE: OnceLock<Vec<Register>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table(Vec::new());
        add_core(&mut table);
        add_vectors(&mut table);
        add_system(&mut table);
        table.0
    })
}

fn add_core(table: &mut Table) {
    for (name, number) in GENERAL {
        let kind = if matches!(name, "rbp" | "rsp") { ADDRESS } else { (64, "int64") };
        table.add_nth(
            name.into(),
            CORE,
            kind,
            number,
            |cpu, n| cpu.regs[n].into(),
            |cpu, n, value| {
                cpu.regs[n] = value as u64;
                true
            },
        );
    }
    table.add(
        "rip",
        CORE,
        (64, "code_ptr"),
        |cpu, _| cpu.rip.into(),
        |cpu, _, value| {
            cpu.rip = value as u64;
            true
        },
    );
    table.add(
        "eflags",
        CORE,
        (32, "i386_eflags"),
        |cpu, _| cpu.rflags().into(),
        |cpu, _, value| {
            cpu.set_rflags(value as u64 & 0x003f_7fd5 | 2);
            cpu.mode_changed();
            cpu.recheck_events();
            true
        },
    );
    for (name, number) in SELECTORS {
        table.add_nth(name.into(), CORE, WORD, number, |cpu, n| cpu.segs[n].selector.into(), fixed);
    }
    for n in 0..8 {
        table.add_nth(
            format!("st{n}"),
            CORE,
            (80, "i387_ext"),
            n,
            |cpu, n| {
                let register = cpu.x87.regs[cpu.x87.physical(n as u8)];
                Value::from(register.significand) | Value::from(register.sign_exponent) << 64
            },
            fixed,
        );
    }
    let group = |table: &mut Table, name: &str, read: Read| table.add(name, CORE, (32, "int"), read, fixed);
    group(table, "fctrl", |cpu, _| cpu.x87.fcw.into());
    group(table, "fstat", |cpu, _| cpu.x87.status().into());
    group(table, "ftag", |cpu, _| cpu.x87.full_tags().into());
    group(table, "fiseg", |_, _| 0);
    group(table, "fioff", |cpu, _| (cpu.x87.fip as u32).into());
    group(table, "foseg", |_, _| 0);
    group(table, "fooff", |cpu, _| (cpu.x87.fdp as u32).into());
    group(table, "fop", |cpu, _| cpu.x87.fop.into());
}

fn half(cpu: &Cpu, n: usize, first: usize) -> Value {
    Value::from(cpu.ymm[n][first]) | Value::from(cpu.ymm[n][first + 1]) << 64
}

fn set_half(cpu: &mut Cpu, n: usize, first: usize, value: Value) -> bool {
    cpu.ymm[n][first] = value as u64;
    cpu.ymm[n][first + 1] = (value >> 64) as u64;
    true
}

fn add_vectors(table: &mut Table) {
    for n in 0..16 {
        table.add_nth(
            format!("xmm{n}"),
            SSE,
            (128, "vec128"),
            n,
            |cpu, n| half(cpu, n, 0),
            |cpu, n, value| set_half(cpu, n, 0, value),
        );
    }
    table.add("mxcsr", SSE, (32, "i386_mxcsr"), |cpu, _| cpu.mxcsr.into(), fixed);
    let base = |table: &mut Table, name: &str, n| {
        table.add_nth(
            name.into(),
            SEGMENTS,
            (64, "int"),
            n,
            |cpu, n| cpu.segs[n].base.into(),
            |cpu, n, value| {
                cpu.segs[n].base = value as u64;
                true
            },
        );
    };
    base(table, "fs_base", 4);
    base(table, "gs_base", 5);
    for n in 0..16 {
        table.add_nth(
            format!("ymm{n}h"),
            AVX,
            (128, "uint128"),
            n,
            |cpu, n| half(cpu, n, 2),
            |cpu, n, value| set_half(cpu, n, 2, value),
        );
    }
}

fn add_system(table: &mut Table) {
    let control =
        |table: &mut Table, name: &str, read: Read, change: Change| table.add(name, SYSTEM, QUAD, read, change);
    control(table, "cr0", |cpu, _| cpu.cr0.into(), |cpu, _, value| changed(cpu, |cpu| cpu.cr0 = value as u64));
    control(table, "cr2", |cpu, _| cpu.cr2.into(), |cpu, _, value| changed(cpu, |cpu| cpu.cr2 = value as u64));
    control(table, "cr3", |cpu, _| cpu.cr3.into(), |cpu, _, value| changed(cpu, |cpu| cpu.cr3 = value as u64));
    control(table, "cr4", |cpu, _| cpu.cr4.into(), |cpu, _, value| changed(cpu, |cpu| cpu.cr4 = value as u64));
    control(table, "cr8", |cpu, _| (cpu.apic.task_priority() >> 4).into(), fixed);
    control(table, "efer", |cpu, _| cpu.efer.into(), |cpu, _, value| changed(cpu, |cpu| cpu.efer = value as u64));
    control(table, "xcr0", |cpu, _| cpu.xcr0.into(), fixed);
    control(table, "cpl", |cpu, _| cpu.cpl.into(), fixed);
    for (name, number) in [("es", 0), ("cs", 1), ("ss", 2), ("ds", 3)] {
        table.add_nth(format!("{name}_base"), SYSTEM, ADDRESS, number, |cpu, n| cpu.segs[n].base.into(), fixed);
    }
    let address = |table: &mut Table, name: &str, read: Read| table.add(name, SYSTEM, ADDRESS, read, fixed);
    address(table, "gdtr_base", |cpu, _| cpu.gdtr.base.into());
    table.add("gdtr_limit", SYSTEM, LONG, |cpu, _| cpu.gdtr.limit.into(), fixed);
    address(table, "idtr_base", |cpu, _| cpu.idtr.base.into());
    table.add("idtr_limit", SYSTEM, LONG, |cpu, _| cpu.idtr.limit.into(), fixed);
    address(table, "tr_base", |cpu, _| cpu.tr.base.into());
    address(table, "ldtr_base", |cpu, _| cpu.ldtr.base.into());
    for n in [0, 1, 2, 3, 6, 7] {
        table.add_nth(format!("dr{n}"), SYSTEM, QUAD, n, |cpu, n| cpu.dr[n].into(), fixed);
    }
    let msr = |table: &mut Table, name: &str, read: Read| table.add(name, SYSTEM, QUAD, read, fixed);
    msr(table, "ia32_kernel_gs_base", |cpu, _| cpu.msrs.kernel_gs_base.into());
    msr(table, "ia32_star", |cpu, _| cpu.msrs.star.into());
    msr(table, "ia32_lstar", |cpu, _| cpu.msrs.lstar.into());
    msr(table, "ia32_cstar", |cpu, _| cpu.msrs.cstar.into());
    msr(table, "ia32_fmask", |cpu, _| cpu.msrs.fmask.into());
    msr(table, "ia32_sysenter_cs", |cpu, _| cpu.msrs.sysenter_cs.into());
    msr(table, "ia32_sysenter_esp", |cpu, _| cpu.msrs.sysenter_esp.into());
    msr(table, "ia32_sysenter_eip", |cpu, _| cpu.msrs.sysenter_eip.into());
    msr(table, "ia32_apic_base", |cpu, _| cpu.apic.base().into());
    msr(table, "ia32_pat", |cpu, _| cpu.msrs.pat.into());
    msr(table, "ia32_debugctl", |cpu, _| cpu.msrs.debugctl.into());
    msr(table, "ia32_tsc_aux", |cpu, _| cpu.msrs.tsc_aux.into());
    msr(table, "ia32_feature_control", |cpu, _| cpu.msrs.feature_control.into());
    // 0 outside VMX operation, 1 in root, 2 in non-root operation.
    table.add(
        "vmx_operation",
        SYSTEM,
        LONG,
        |cpu, _| match (cpu.vmx.on, cpu.vmx.non_root) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        },
        fixed,
    );
    msr(table, "vmcs_pointer", |cpu, _| cpu.vmx.vmcs.pointer.into());
    msr(table, "eptp", |cpu, _| cpu.vmx.eptp.into());
    table.add("vpid", SYSTEM, LONG, |cpu, _| cpu.vmx.vpid.into(), fixed);
}

fn changed(cpu: &mut Cpu, change: impl FnOnce(&mut Cpu)) -> bool {
    change(cpu);
    cpu.tlb.flush_all();
    cpu.mode_changed();
    true
}

/// The target description.
pub(super) fn description() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = String::from(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n\
             <architecture>i386:x86-64</architecture>\n",
        );
        let mut feature = "";
        for register in table() {
            if register.feature != feature {
                if !feature.is_empty() {
                    text.push_str("</feature>\n");
                }
                feature = register.feature;
                let _ = writeln!(text, "<feature name=\"{feature}\">");
                text.push_str(types(feature));
            }
            let Register { name, bits, kind, .. } = register;
            let _ = writeln!(text, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"/>");
        }
        text.push_str("</feature>\n</target>\n");
        text
    })
}

/// Types that a feature's registers use.
fn types(feature: &str) -> &'static str {
    match feature {
        CORE => {
            "<flags id=\"i386_eflags\" size=\"4\">\
             <field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>\
             <field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/>\
             <field name=\"ZF\" start=\"6\" end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/>\
             <field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" start=\"9\" end=\"9\"/>\
             <field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/>\
             <field name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/>\
             <field name=\"VM\" start=\"17\" end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/>\
             <field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" start=\"20\" end=\"20\"/>\
             <field name=\"ID\" start=\"21\" end=\"21\"/></flags>\n"
        }
        SSE => {
            "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
             <vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
             <vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\
             <union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>\
             <field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>\
             <field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>\
             <field name=\"uint128\" type=\"uint128\"/></union>\
             <flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" end=\"1\"/>\
             <field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/><field name=\"UE\" start=\"4\" end=\"4\"/>\
             <field name=\"PE\" start=\"5\" end=\"5\"/><field name=\"DAZ\" start=\"6\" end=\"6\"/></flags>\n"
        }
        _ => "",
    }
}

/// A 64-bit x86 with the registers of this module.
pub(super) enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = AllRegisters;
    type BreakpointKind = usize;
    type RegId = Number;
}

/// A register by its number in the description.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(usize);

impl RegId for Number {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = table().get(id)?;
        Some((Self(id), NonZeroUsize::new(register.bits / 8)))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0)
    }
}

impl Number {
    /// The register's bytes, into the front of `buffer`; how many.
    pub fn read(self, cpu: &Cpu, buffer: &mut [u8]) -> usize {
        let Some(register) = table().get(self.0) else { return 0 };
        let size = (register.bits / 8).min(buffer.len());
        buffer[..size].copy_from_slice(&(register.read)(cpu, register.index).to_le_bytes()[..size]);
        size
    }

    /// Sets the register. False when it cannot be set.
    pub fn write(self, cpu: &mut Cpu, bytes: &[u8]) -> bool {
        let Some(register) = table().get(self.0) else { return false };
        let mut value = [0; 16];
        let size = bytes.len().min(register.bits / 8);
        value[..size].copy_from_slice(&bytes[..size]);
        (register.change)(cpu, register.index, Value::from_le_bytes(value))
    }
}

/// All registers' bytes, one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct AllRegisters {
    bytes: Vec<u8>,
    rip: u64,
}

impl AllRegisters {
    pub fn of(cpu: &Cpu) -> Self {
        let mut bytes = Vec::new();
        for number in 0..table().len() {
            let mut buffer = [0; 16];
            let size = Number(number).read(cpu, &mut buffer);
            bytes.extend(&buffer[..size]);
        }
        Self { bytes, rip: cpu.rip }
    }

    /// Sets those that differ and can be set.
    pub fn apply(&self, cpu: &mut Cpu) {
        let mut rest = self.bytes.as_slice();
        for number in 0..table().len() {
            let mut buffer = [0; 16];
            let size = Number(number).read(cpu, &mut buffer);
            let Some((wanted, after)) = rest.split_at_checked(size) else { return };
            if wanted != &buffer[..size] {
                Number(number).write(cpu, wanted);
            }
            rest = after;
        }
    }
}

impl Registers for AllRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes.iter().for_each(|&byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.bytes = bytes.to_vec();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_names_every_register_once() {
        let text = description();
        assert_eq!(text.matches("<reg ").count(), table().len());
        for register in table() {
            assert_eq!(text.matches(&format!("<reg name=\"{}\"", register.name)).count(), 1, "{}", register.name);
        }
        assert_eq!(text.matches("<feature ").count(), 5);
        assert_eq!(text.matches("</feature>").count(), 5);
    }

    #[test]
    fn gdb_s_own_registers_have_its_numbers() {
        let number = |name: &str| table().iter().position(|register| register.name == name);
        assert_eq!(
            (number("rip"), number("eflags"), number("st0"), number("fctrl")),
            (Some(16), Some(17), Some(24), Some(32))
        );
        assert_eq!((number("xmm0"), number("mxcsr"), number("fs_base")), (Some(40), Some(56), Some(57)));
    }
}
