//! What a unit keeps of the tables (VT-d, 6.2): context cache, PASID cache, IOTLB, paging-structure caches, interrupt entry cache.
//!
//! They hold what the tables said when they were read, until an invalidation or a replacement. Software that changes a table and forgets the
//! invalidation meets the old contents here, as on hardware.

use serde::{Deserialize, Serialize};

/// What an entry is found by.
pub trait Key: PartialEq {
    /// A number that spreads keys over the sets.
    fn spread(&self) -> u64;
}

/// Entries kept by key, four in a set, replaced in turn: the same accesses keep the same entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache<K, V> {
    slots: Vec<Option<(K, V)>>,
    /// For each set, the slot that is replaced next.
    turn: Vec<u8>,
}

const WAYS: usize = 4;

impl<K: Key, V> Cache<K, V> {
    /// An empty cache of `sets` (a power of two) sets.
    pub fn new(sets: usize) -> Self {
        Self { slots: (0..sets * WAYS).map(|_| None).collect(), turn: vec![0; sets] }
    }

    fn set(&self, key: &K) -> usize {
        // Multiplying by an odd number near 2^64 divided by the golden ratio spreads neighbours apart.
        let hash = key.spread().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash as usize & (self.turn.len() - 1)
    }

    /// The value kept for `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        let set = self.set(key) * WAYS;
        self.slots[set..set + WAYS].iter().flatten().find(|(kept, _)| kept == key).map(|(_, value)| value)
    }

    /// Keeps `value`, in the place of what there was for `key` if there was something.
    pub fn insert(&mut self, key: K, value: V) {
        let set = self.set(&key);
        let ways = &mut self.slots[set * WAYS..set * WAYS + WAYS];
        let same = ways.iter().position(|slot| slot.as_ref().is_some_and(|(kept, _)| *kept == key));
        let way = match same.or_else(|| ways.iter().position(Option::is_none)) {
            Some(way) => way,
            None => {
                let way = usize::from(self.turn[set]) % WAYS;
                self.turn[set] = (way as u8 + 1) % WAYS as u8;
                way
            }
        };
        ways[way] = Some((key, value));
    }

    /// Forgets the entries for which `is_meant` holds.
    pub fn invalidate(&mut self, mut is_meant: impl FnMut(&K, &V) -> bool) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|(key, value)| is_meant(key, value)) {
                *slot = None;
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
    }

    /// What is kept, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.slots.iter().flatten()
    }

    /// A cache as it can be saved: as many slots and sets as `other`.
    fn fits(&self, other: &Self) -> bool {
        self.slots.len() == other.slots.len() && self.turn.len() == other.turn.len()
    }
}

/// Which context entry: by source id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextKey(pub u16);

impl Key for ContextKey {
    fn spread(&self) -> u64 {
        self.0.into()
    }
}

/// A context entry, of legacy mode (two quadwords) or scalable mode (four).
pub type ContextEntry = [u64; 4];

/// Which PASID entry: by source id and PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PasidKey {
    /// The source id: two functions may have different PASID tables.
    pub source: u16,
    /// The PASID.
    pub pasid: u32,
}

impl Key for PasidKey {
    fn spread(&self) -> u64 {
        u64::from(self.source) << 20 ^ u64::from(self.pasid)
    }
}

/// The quadwords of a PASID entry that say something.
pub type PasidEntry = [u64; 3];

/// How an address was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// By the second stage alone, also in legacy mode.
    Second,
    /// By the first stage alone.
    First,
    /// By both.
    Nested,
}

/// Which translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IotlbKey {
    /// The domain id.
    pub domain: u16,
    /// The stages.
    pub stage: Stage,
    /// The PASID where the first stage takes part, else 0: the second stage is the same for all PASIDs of a domain.
    pub pasid: u32,
    /// The address without the bits of the page.
    pub page: u64,
    /// log2 of the page's size.
    pub shift: u8,
}

impl Key for IotlbKey {
    fn spread(&self) -> u64 {
        self.page >> self.shift ^ u64::from(self.domain) << 40 ^ u64::from(self.pasid) << 20
    }
}

/// What may be done to a page, for user and for supervisor requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights(pub u8);

impl Rights {
    /// Reads.
    pub const READ: u8 = 1 << 0;
    /// Writes; in a kept translation only where the dirty flag has been set, if there is one.
    pub const WRITE: u8 = 1 << 1;
    /// Execute requests.
    pub const EXECUTE: u8 = 1 << 2;
    /// The same for supervisor requests.
    pub const SUPERVISOR_SHIFT: u8 = 3;
    /// Everything.
    pub const ALL: Self = Self(0x3f);

    /// What is allowed by both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of `rights` (of a user request) are allowed, with supervisor privilege or not.
    pub const fn allow(self, rights: u8, privileged: bool) -> bool {
        let rights = if privileged { rights << Self::SUPERVISOR_SHIFT } else { rights };
        self.0 & rights == rights
    }
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// The host address of the page.
    pub target: u64,
    /// What may be done.
    pub rights: Rights,
}

/// Which paging structure: what refers to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructureKey {
    /// The domain id.
    pub domain: u16,
    /// The stage whose tables these are.
    pub stage: Stage,
    /// As in [`IotlbKey::pasid`].
    pub pasid: u32,
    /// The level of the table that the entry refers to, 1 the last.
    pub level: u8,
    /// The address without the bits that the table translates.
    pub prefix: u64,
}

impl Key for StructureKey {
    fn spread(&self) -> u64 {
        self.prefix >> (12 + 9 * u32::from(self.level))
            ^ u64::from(self.level) << 56
            ^ u64::from(self.domain) << 40
            ^ u64::from(self.pasid) << 20
    }
}

/// A table, and what the entries on the way to it allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// Its address.
    pub table: u64,
    /// What is allowed by all entries so far.
    pub rights: Rights,
}

/// Which interrupt-remapping entry: by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptKey(pub u16);

impl Key for InterruptKey {
    fn spread(&self) -> u64 {
        self.0.into()
    }
}

/// All caches of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caches {
    /// Context entries; those that are not present only in caching mode, with domain id 0.
    pub contexts: Cache<ContextKey, ContextEntry>,
    /// PASID entries.
    pub pasids: Cache<PasidKey, PasidEntry>,
    /// Translations.
    pub iotlb: Cache<IotlbKey, Mapping>,
    /// Entries that refer to tables.
    pub structures: Cache<StructureKey, Structure>,
    /// Interrupt-remapping entries.
    pub interrupts: Cache<InterruptKey, (u64, u64)>,
}

impl Default for Caches {
    fn default() -> Self {
        Self::new()
    }
}

impl Caches {
    /// Empty caches.
    pub fn new() -> Self {
        Self {
            contexts: Cache::new(16),
            pasids: Cache::new(16),
            iotlb: Cache::new(256),
            structures: Cache::new(16),
            interrupts: Cache::new(64),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes over `saved`, unless it is not of these sizes.
    pub fn restore(&mut self, saved: &Self) {
        let Self { contexts, pasids, iotlb, structures, interrupts } = self;
        if contexts.fits(&saved.contexts)
            && pasids.fits(&saved.pasids)
            && iotlb.fits(&saved.iotlb)
            && structures.fits(&saved.structures)
            && interrupts.fits(&saved.interrupts)
        {
            self.clone_from(saved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_set_replaces_its_entries_in_turn() {
        let mut cache = Cache::new(1);
        for source in 0..4 {
            cache.insert(ContextKey(source), source);
        }
        cache.insert(ContextKey(4), 4);
        cache.insert(ContextKey(5), 5);
        let kept: Vec<u16> = (0..6).filter(|source| cache.get(&ContextKey(*source)).is_some()).collect();
        assert_eq!(kept, [2, 3, 4, 5]);
        cache.insert(ContextKey(3), 33);
        assert_eq!((cache.get(&ContextKey(3)), cache.iter().count()), (Some(&33), 4));
    }

    #[test]
    fn only_what_is_meant_is_forgotten() {
        let mut cache = Cache::new(16);
        for source in 0..20 {
            cache.insert(ContextKey(source), source % 2);
        }
        cache.invalidate(|_, value| *value == 1);
        assert!(cache.iter().all(|(_, value)| *value == 0));
        assert!(cache.get(&ContextKey(2)).is_some());
        cache.clear();
        assert_eq!(cache.iter().count(), 0);
    }
}
