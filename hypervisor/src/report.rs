//! The table at the end: what each guest did, and what that cost.

use crate::assignment::Place;
use crate::statistics::Statistics;
use crate::vm::End;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use spec::vmx::ExitReason;
use spec::vtd::FaultRecord;

/// Faults of one guest that are told one by one; the others are counted.
pub const SAID_FAULTS: u64 = 8;

/// Whose a function is.
#[must_use]
pub fn whose(guest: Option<&str>) -> String {
    guest.map_or("a function that no guest has".into(), |guest| alloc::format!("guest {guest}: its function"))
}

/// What a remapping unit has stopped, in words. `guest` is whose function it is.
#[must_use]
pub fn fault(guest: Option<&str>, record: &FaultRecord) -> String {
    let whose = whose(guest);
    let place = Place(record.source);
    let FaultRecord { code, address, .. } = *record;
    let what = match record.reason() {
        Some(reason) if reason.is_of_interrupt() => alloc::format!("was kept from interrupting by entry {address}"),
        _ if record.write => alloc::format!("was kept from writing to page {address:#x}"),
        _ => alloc::format!("was kept from reading page {address:#x}"),
    };
    match record.reason() {
        Some(reason) => alloc::format!("{whose} {place} {what}: {}", reason.text()),
        None => alloc::format!("{whose} {place} {what}: reason {code:#x}"),
    }
}

/// One guest's line.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its vCPUs.
    pub vcpus: u8,
    /// What its vCPUs have counted.
    pub statistics: Statistics,
    /// Pages mapped by EPT: of 4 KiB and of 2 MiB.
    pub ept_pages: [u64; 2],
    /// Pages of EPT's tables.
    pub ept_tables: u64,
    /// How it ended.
    pub end: Option<End>,
    /// Times that it started again.
    pub restarts: u32,
    /// Functions of the machine that it had.
    pub functions: usize,
    /// What the remapping units have stopped of them.
    pub dma_faults: u64,
}

/// All guests.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The guests.
    pub guests: Vec<Guest>,
    /// Time-stamp counts in a millisecond.
    pub ticks_per_millisecond: u64,
}

const FIRST: usize = 28;
const COLUMN: usize = 14;

impl Report {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, cell: impl Fn(&Guest) -> String) -> fmt::Result {
        write!(f, "{name:<FIRST$}")?;
        for guest in &self.guests {
            write!(f, " {:>COLUMN$}", cell(guest))?;
        }
        f.write_str("\r\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.row(f, "guest", |guest| guest.name.clone())?;
        self.row(f, "vCPUs", |guest| guest.vcpus.to_string())?;
        self.row(f, "end", |guest| match &guest.end {
            Some(End::Status(_) | End::Reset | End::Halted | End::Watchdog | End::Stopped) | None => {
                guest.end.as_ref().map_or("running".into(), End::to_string)
            }
            Some(End::TripleFault(_)) => "triple fault".into(),
            Some(End::Failed(_)) => "failed".into(),
        })?;
        self.row(f, "started again", |guest| guest.restarts.to_string())?;
        self.row(f, "VM exits", |guest| guest.statistics.total().to_string())?;
        for reason in ExitReason::ALL {
            let count = |guest: &Guest| guest.statistics.exits(*reason);
            if self.guests.iter().any(|guest| count(guest) != 0) {
                self.row(f, &["  ", reason.text()].concat(), |guest| count(guest).to_string())?;
            }
        }
        let ticks = self.ticks_per_millisecond.max(1);
        self.row(f, "ms in the guest", |guest| (guest.statistics.inside / ticks).to_string())?;
        self.row(f, "ms in the hypervisor for it", |guest| (guest.statistics.outside / ticks).to_string())?;
        self.row(f, "share in the guest", |guest| {
            let share = guest.statistics.inside_per_mille();
            alloc::format!("{}.{} %", share / 10, share % 10)
        })?;
        self.row(f, "turns on a processor", |guest| guest.statistics.turns.to_string())?;
        self.row(f, "moves between processors", |guest| guest.statistics.moves.to_string())?;
        self.row(f, "events injected", |guest| guest.statistics.injected.to_string())?;
        self.row(f, "virtual interrupts", |guest| guest.statistics.virtual_interrupts.to_string())?;
        if self.guests.iter().any(|guest| guest.functions != 0) {
            self.row(f, "functions assigned", |guest| guest.functions.to_string())?;
            self.row(f, "faults of their DMA", |guest| guest.dma_faults.to_string())?;
        }
        self.row(f, "EPT pages of 2 MiB", |guest| guest.ept_pages[1].to_string())?;
        self.row(f, "EPT pages of 4 KiB", |guest| guest.ept_pages[0].to_string())?;
        self.row(f, "EPT tables", |guest| guest.ept_tables.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_in_words() {
        let mut record = FaultRecord { code: 5, source: 5 << 3, address: 0x1234_5000, write: true };
        let told = fault(Some("a"), &record);
        assert!(told.starts_with("guest a: its function 00:05.0 was kept from writing to page 0x12345000: "), "{told}");
        record = FaultRecord { code: 0x22, address: 7, ..record };
        assert!(
            fault(None, &record)
                .starts_with("a function that no guest has 00:05.0 was kept from interrupting by entry 7")
        );
        record.code = 0xff;
        assert!(fault(None, &record).ends_with("reason 0xff"));
    }
}
