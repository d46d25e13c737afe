//! Extended page tables and page walks.

use super::{Failure, failure};
use crate::explain::walks;
use processor::Cpu;
use processor::memory::paging::Kind;
use processor::vmx::ept::Access;
use spec::vmx::ept::{EptEntry, Eptp};
use spec::vmx::{PrimaryControls, SecondaryControls, VmcsField};
use std::fmt::Write;

/// Lines of a map before it is cut.
const MAX_RANGES: usize = 400;

/// The EPT pointer in force, or that of the current VMCS.
fn eptp(cpu: &Cpu) -> Result<u64, Failure> {
    if cpu.vmx.eptp != 0 {
        return Ok(cpu.vmx.eptp);
    }
    let vmcs = &cpu.vmx.vmcs;
    if !cpu.vmx.on || !vmcs.is_current() {
        return Err(failure("there is no current VMCS"));
    }
    let secondary = PrimaryControls(vmcs.get32(VmcsField::PRIMARY_CONTROLS))
        .has(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS)
        && SecondaryControls(vmcs.get32(VmcsField::SECONDARY_CONTROLS)).has(SecondaryControls::ENABLE_EPT);
    if secondary { Ok(vmcs.get(VmcsField::EPT_POINTER)) } else { Err(failure("the current VMCS does not enable EPT")) }
}

pub(super) fn write(cpu: &Cpu, address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    let eptp = eptp(cpu)?;
    writeln!(out, "EPT pointer {eptp:#x}: {}", spec::vmx::decode::Field(VmcsField::EPT_POINTER, eptp))?;
    if let Some(address) = address {
        let access = Access { read: true, ..Access::default() };
        for line in walks::ept_lines(&cpu.inspect_ept(eptp, address, access), cpu) {
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    let mut map = Map { cpu, ranges: Vec::new(), cut: false };
    map.table(Eptp(eptp).table(), u32::from(Eptp(eptp).walk_length()), 0, EptEntry::PERMISSIONS);
    for range in &map.ranges {
        let Range { guest, length, physical, rights, memory_type } = range;
        let flag = |bit: u64, letter: char| if rights & bit != 0 { letter } else { '-' };
        writeln!(
            out,
            "  {guest:012x}-{:012x} -> {physical:012x}  {}{}{}  {}",
            guest + length - 1,
            flag(EptEntry::READ, 'r'),
            flag(EptEntry::WRITE, 'w'),
            flag(EptEntry::EXECUTE, 'x'),
            spec::x86::decode::memory_type(*memory_type)
        )?;
    }
    if map.ranges.is_empty() {
        writeln!(out, "  nothing is mapped")?;
    }
    if map.cut {
        writeln!(out, "  ... and more; ask for one address")?;
    }
    Ok(())
}

struct Range {
    guest: u64,
    length: u64,
    physical: u64,
    rights: u64,
    memory_type: u8,
}

struct Map<'a> {
    cpu: &'a Cpu,
    ranges: Vec<Range>,
    cut: bool,
}

impl Map<'_> {
    fn table(&mut self, table: u64, level: u32, guest: u64, rights: u64) {
        let size = 1u64 << (12 + 9 * (level - 1));
        for index in 0..512u64 {
            if self.cut {
                return;
            }
            let Some(entry) = self.cpu.peek_physical::<8>(table + 8 * index) else { return };
            let (guest, rights) = (guest + index * size, rights & entry);
            if entry & EptEntry::PERMISSIONS == 0 {
                continue;
            }
            if level == 1 || level <= 3 && entry & EptEntry::PAGE != 0 {
                let memory_type = (entry >> EptEntry::MEMORY_TYPE_SHIFT & 7) as u8;
                let physical = entry & EptEntry::ADDRESS & !(size - 1);
                self.add(Range { guest, length: size, physical, rights, memory_type });
            } else {
                self.table(entry & EptEntry::ADDRESS, level - 1, guest, rights);
            }
        }
    }

    fn add(&mut self, range: Range) {
        if let Some(last) = self.ranges.last_mut()
            && last.guest + last.length == range.guest
            && last.physical + last.length == range.physical
            && (last.rights, last.memory_type) == (range.rights, range.memory_type)
        {
            last.length += range.length;
        } else if self.ranges.len() == MAX_RANGES {
            self.cut = true;
        } else {
            self.ranges.push(range);
        }
    }
}

pub(super) fn write_walk(cpu: &Cpu, address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    let Some(linear) = address else {
        return Err(failure("walk wants a linear address, such as 0xffffffff81000000"));
    };
    let walk = cpu.inspect_linear(linear, Kind::Read, cpu.access_class_of(cpu.cpl == 3));
    for line in walks::paging_lines(&walk, cpu) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
