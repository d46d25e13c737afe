//! What a unit holds, for people: `dump iommu`.

use super::RemappingUnit;
use super::caches::{Rights, Stage};
use super::interrupt_remapping::EntryText;
use spec::vtd::FaultReason;
use spec::vtd::interrupts::RemappingEntry;
use spec::vtd::registers::{FaultStatus, GlobalCommand, fault_record, interrupt_table, root_table};
use spec::vtd::tables::{ADDRESS, PRESENT, context, levels_of_width, pasid, root, scalable_context};
use std::fmt::{self, Write};

/// Lines of one kind before the rest is left out.
const MOST: usize = 64;

/// bus:device.function of a source id.
#[must_use]
pub fn function(source: u16) -> String {
    format!("{:02x}:{:02x}.{}", source >> 8, source >> 3 & 31, source & 7)
}

impl RemappingUnit {
    /// Writes what the registers, the tables in memory and the caches hold. Changes nothing.
    ///
    /// # Errors
    /// When `out` does not take the text.
    pub fn write_picture(&self, out: &mut dyn Write) -> fmt::Result {
        let registers = &self.registers;
        writeln!(out, "enabled: {}", GlobalCommand(registers.status).names())?;
        let mode = match registers.mode() {
            root_table::LEGACY => "legacy",
            root_table::SCALABLE => "scalable",
            _ => "reserved",
        };
        writeln!(out, "root table {:#x}, {mode} mode", registers.root_in_force & ADDRESS)?;
        writeln!(
            out,
            "invalidation queue {:#x}, head {:#x}, tail {:#x}",
            registers.queue_address & ADDRESS,
            registers.queue_head,
            registers.queue_tail
        )?;
        if self.config.page_requests {
            writeln!(
                out,
                "page request queue {:#x}, head {:#x}, tail {:#x}, status {:#x}",
                registers.page_queue_address & ADDRESS,
                registers.page_queue_head,
                registers.page_queue_tail,
                registers.page_status
            )?;
        }
        for source in self.silent_functions() {
            writeln!(out, "{} has not completed an invalidation", function(source))?;
        }
        writeln!(out, "fault status: {}", FaultStatus(registers.fault_status & 0xff).names())?;
        for (low, high) in registers.fault_records.iter().filter(|(_, high)| high & fault_record::FAULT != 0) {
            let code = (high >> fault_record::REASON_SHIFT) as u8;
            let kind = if high & fault_record::READ != 0 { "read" } else { "write" };
            match FaultReason::of(code) {
                Some(reason) => writeln!(out, "  {} {kind} {low:#x}: {reason}", function(*high as u16))?,
                None => writeln!(out, "  {} {kind} {low:#x}: reason {code:#x}", function(*high as u16))?,
            }
        }
        if registers.enabled(GlobalCommand::TRANSLATION) {
            self.write_contexts(out)?;
        }
        if registers.enabled(GlobalCommand::INTERRUPT_REMAPPING) {
            self.write_interrupts(out)?;
        }
        self.write_caches(out)
    }

    fn write_contexts(&self, out: &mut dyn Write) -> fmt::Result {
        let scalable = self.registers.mode() == root_table::SCALABLE;
        writeln!(out, "functions in the tables:")?;
        let mut left = MOST;
        for bus in 0..=255u16 {
            let at = (self.registers.root_in_force & ADDRESS).wrapping_add(u64::from(bus) * root::SIZE);
            let Some(entry) = self.read_physical::<2>(at) else { continue };
            for device in 0..=255u16 {
                let source = bus << 8 | device;
                let (half, size, index) = if scalable {
                    (entry[usize::from(device >> 7)], scalable_context::SIZE, device & 0x7f)
                } else {
                    (entry[0], context::SIZE, device)
                };
                if half & PRESENT == 0 {
                    continue;
                }
                let at = (half & ADDRESS).wrapping_add(u64::from(index) * size);
                let Some([low, high]) = self.read_physical(at) else { continue };
                if low & PRESENT == 0 {
                    continue;
                }
                if left == 0 {
                    return writeln!(out, "  ... and more");
                }
                left -= 1;
                if scalable {
                    self.write_scalable(out, source, low, high)?;
                    continue;
                }
                let domain = high >> context::DOMAIN_SHIFT & 0xffff;
                let way = match low >> context::TYPE_SHIFT & 3 {
                    context::TYPE_PASS_THROUGH => "pass-through".to_owned(),
                    _ => stage("second stage", low & ADDRESS, levels_of_width(high & context::WIDTH)),
                };
                writeln!(out, "  {}  domain {domain}, {way}", function(source))?;
            }
        }
        Ok(())
    }

    fn write_scalable(&self, out: &mut dyn Write, source: u16, low: u64, high: u64) -> fmt::Result {
        let number = high & scalable_context::RID_PASID;
        write!(out, "  {}  PASID directory {:#x}, RID_PASID {number}: ", function(source), low & ADDRESS)?;
        let entry = self.read_physical::<1>((low & ADDRESS).wrapping_add((number >> 6) * 8)).and_then(|[upper]| {
            (upper & PRESENT != 0)
                .then(|| self.read_physical::<3>((upper & ADDRESS).wrapping_add((number & 0x3f) * pasid::SIZE)))?
        });
        let Some(entry) = entry.filter(|entry| entry[0] & PRESENT != 0) else { return writeln!(out, "not present") };
        let first =
            stage("first stage", entry[2] & ADDRESS, Some(4 + (entry[2] >> pasid::PAGING_MODE_SHIFT & 1) as u32));
        let second = stage("second stage", entry[0] & ADDRESS, levels_of_width(entry[0] >> pasid::WIDTH_SHIFT & 7));
        let way = match entry[0] >> pasid::TYPE_SHIFT & 7 {
            pasid::TYPE_FIRST_STAGE => first,
            pasid::TYPE_SECOND_STAGE => second,
            pasid::TYPE_NESTED => format!("{first} over {second}"),
            pasid::TYPE_PASS_THROUGH => "pass-through".to_owned(),
            _ => "reserved type".to_owned(),
        };
        writeln!(out, "domain {}, {way}", entry[1] & pasid::DOMAIN)
    }

    fn write_interrupts(&self, out: &mut dyn Write) -> fmt::Result {
        let register = self.registers.interrupts_in_force;
        let extended = register & interrupt_table::EXTENDED != 0;
        writeln!(
            out,
            "interrupt-remapping table {:#x}{}:",
            register & ADDRESS,
            if extended { ", extended mode" } else { "" }
        )?;
        let mut left = MOST;
        for index in 0..2u64 << (register & interrupt_table::SIZE) {
            let at = (register & ADDRESS).wrapping_add(index * RemappingEntry::SIZE);
            let Some([low, high]) = self.read_physical(at) else { break };
            let entry = RemappingEntry { low, high };
            if !entry.is_present() {
                continue;
            }
            if left == 0 {
                return writeln!(out, "  ... and more");
            }
            left -= 1;
            writeln!(out, "  {index}: {}", EntryText(entry, extended))?;
        }
        Ok(())
    }

    fn write_caches(&self, out: &mut dyn Write) -> fmt::Result {
        let caches = &self.caches;
        writeln!(
            out,
            "kept: {} context entries, {} PASID entries, {} paging structures, {} interrupt entries, {} translations",
            caches.contexts.iter().count(),
            caches.pasids.iter().count(),
            caches.structures.iter().count(),
            caches.interrupts.iter().count(),
            caches.iotlb.iter().count()
        )?;
        let mut translations: Vec<_> = caches.iotlb.iter().collect();
        translations.sort_by_key(|(key, _)| (key.domain, key.pasid, key.page));
        for (key, mapping) in translations.iter().take(MOST) {
            let right = |bit, letter| if mapping.rights.allow(bit, false) { letter } else { '-' };
            let by = match key.stage {
                Stage::Second => "",
                Stage::First => " first stage",
                Stage::Nested => " nested",
            };
            writeln!(
                out,
                "  domain {} PASID {}{by}: {:#x} -> {:#x}, {} KiB, {}{}",
                key.domain,
                key.pasid,
                key.page,
                mapping.target,
                (1u64 << key.shift) / 1024,
                right(Rights::READ, 'r'),
                right(Rights::WRITE, 'w')
            )?;
        }
        if translations.len() > MOST { writeln!(out, "  ... and more") } else { Ok(()) }
    }
}

fn stage(what: &str, table: u64, levels: Option<u32>) -> String {
    match levels {
        Some(levels) => format!("{what} {table:#x} with {levels} levels"),
        None => format!("{what} of a reserved width"),
    }
}
