//! The device TLB: translations that the function asked for and keeps until it is told to forget them.

use crate::pci::ats::TranslationCompletion;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// How many translations are kept; then the oldest goes.
const ENTRIES: usize = 64;

/// Whose translation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// The PASID.
    pub pasid: Option<u32>,
    /// With supervisor privilege.
    pub privileged: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Read.
    Read,
    /// Read, to execute.
    Execute,
    /// Write.
    Write,
}

/// A translation that allows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    requester: Requester,
    first: u64,
    last: u64,
    target: u64,
    read: bool,
    write: bool,
    execute: bool,
}

impl Entry {
    fn allows(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Read => self.read,
            Wanted::Execute => self.execute,
            Wanted::Write => self.write,
        }
    }
}

/// The TLB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceTlb {
    /// The oldest first.
    entries: Vec<Entry>,
}

impl DeviceTlb {
    /// How many translations are kept.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// The translated address, if what is kept allows it.
    pub fn find(&self, requester: Requester, address: u64, wanted: Wanted) -> Option<u64> {
        let entry = self.entries.iter().find(|entry| {
            entry.requester == requester && (entry.first..=entry.last).contains(&address) && entry.allows(wanted)
        })?;
        Some(entry.target + (address - entry.first))
    }

    /// Keeps the translation of `address`. One that allows nothing is not kept.
    pub fn insert(&mut self, requester: Requester, address: u64, translation: &TranslationCompletion) {
        let TranslationCompletion { address: target, shift, read, write, execute } = *translation;
        let mask = (1 << shift.min(63)) - 1;
        let first = address & !mask;
        self.entries.retain(|entry| entry.requester != requester || entry.last < first || entry.first > first | mask);
        if !(read || write || execute) {
            return;
        }
        if self.entries.len() == ENTRIES {
            self.entries.remove(0);
        }
        self.entries.push(Entry { requester, first, last: first | mask, target: target & !mask, read, write, execute });
    }

    /// Forgets the translations with any part in a range: those of `pasid`, or of all PASIDs.
    pub fn invalidate(&mut self, pasid: Option<u32>, global: bool, first: u64, last: u64) {
        self.entries.retain(|entry| {
            let is_whose = if global { entry.requester.pasid.is_some() } else { entry.requester.pasid == pasid };
            !is_whose || entry.last < first || entry.first > last
        });
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}
