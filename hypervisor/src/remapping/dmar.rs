//! What the ACPI table DMAR tells (VT-d, chapter 8): which remapping units there are, and for whom.

use alloc::vec::Vec;
use spec::vtd::dmar::{
    ALL, FLAGS, HARDWARE_UNIT, INTERRUPT_REMAPPING, RESERVED_MEMORY, SCOPE_ENDPOINT, SCOPE_IO_APIC, STRUCTURES, scope,
    structure,
};

/// A remapping unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where its registers are.
    pub base: u64,
    /// It is for every function that no other unit is for.
    pub all: bool,
    /// The source ids of the functions that are its own.
    pub functions: Vec<u16>,
    /// The source ids of the I/O APICs behind it.
    pub io_apics: Vec<u16>,
}

/// The table, as far as functions directly on a root bus of segment 0 go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dmar {
    /// Interrupts can be remapped.
    pub interrupt_remapping: bool,
    /// The units.
    pub units: Vec<Place>,
    /// The functions that need reserved memory at all times (RMRR).
    pub reserved: Vec<u16>,
}

fn number(bytes: &[u8], offset: usize, size: usize) -> u64 {
    let part = bytes.get(offset..offset + size).unwrap_or_default();
    part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The parts of `bytes`, each of which has its length in `size` bytes at `at`; what does not fit ends them.
fn parts(mut bytes: &[u8], at: usize, size: usize, least: usize) -> impl Iterator<Item = &[u8]> {
    core::iter::from_fn(move || {
        let length = number(bytes, at, size) as usize;
        let part = bytes.get(..length).filter(|_| length >= least)?;
        bytes = &bytes[length..];
        Some(part)
    })
}

/// The source ids of the scopes of one kind. What lies behind a bridge has a longer path and is none of them.
fn scopes(bytes: Option<&[u8]>, kind: u8) -> Vec<u16> {
    let one = |part: &[u8]| {
        let is_one = part[scope::TYPE] == kind && part.len() == scope::PATH + 2;
        is_one.then(|| u16::from(part[scope::BUS]) << 8 | u16::from(part[scope::PATH]) << 3 | u16::from(part[7]))
    };
    parts(bytes.unwrap_or_default(), scope::LENGTH, 1, scope::PATH + 2).filter_map(one).collect()
}

impl Dmar {
    /// From the bytes of the table.
    #[must_use]
    pub fn parse(table: &[u8]) -> Self {
        let mut dmar = Self {
            interrupt_remapping: table.get(FLAGS).is_some_and(|flags| flags & INTERRUPT_REMAPPING != 0),
            ..Self::default()
        };
        for part in parts(table.get(STRUCTURES..).unwrap_or_default(), structure::LENGTH, 2, structure::UNIT_SCOPES) {
            if number(part, structure::SEGMENT, 2) != 0 {
                continue;
            }
            match number(part, 0, 2) as u16 {
                HARDWARE_UNIT => dmar.units.push(Place {
                    base: number(part, structure::BASE, 8),
                    all: part[structure::UNIT_FLAGS] & ALL != 0,
                    functions: scopes(part.get(structure::UNIT_SCOPES..), SCOPE_ENDPOINT),
                    io_apics: scopes(part.get(structure::UNIT_SCOPES..), SCOPE_IO_APIC),
                }),
                RESERVED_MEMORY => {
                    dmar.reserved.extend(scopes(part.get(structure::RESERVED_SCOPES..), SCOPE_ENDPOINT));
                }
                _ => {}
            }
        }
        dmar
    }

    /// The number of the unit that the requests of a function pass.
    #[must_use]
    pub fn unit_of(&self, source: u16) -> Option<usize> {
        let own = self.units.iter().position(|unit| unit.functions.contains(&source));
        own.or_else(|| self.units.iter().position(|unit| unit.all))
    }

    /// The number of the unit that the I/O APIC's requests pass, and its source id.
    #[must_use]
    pub fn io_apic(&self) -> Option<(usize, u16)> {
        self.units.iter().enumerate().find_map(|(n, unit)| Some((n, *unit.io_apics.first()?)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn with_length(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &(4 + body.len() as u16).to_le_bytes(), body].concat()
    }

    fn unit(flags: u8, base: u64, scopes: &[u8]) -> Vec<u8> {
        with_length(HARDWARE_UNIT, &[&[flags, 0, 0, 0], &base.to_le_bytes()[..], scopes].concat())
    }

    /// Function 00:03.0 has a unit of its own and reserved memory; another is for all others and the I/O APIC.
    pub(crate) fn table() -> Vec<u8> {
        let mut table = std::vec![0; STRUCTURES];
        table[FLAGS] = INTERRUPT_REMAPPING;
        let endpoint = [SCOPE_ENDPOINT, 8, 0, 0, 0, 0, 3, 0];
        let behind_a_bridge = [SCOPE_ENDPOINT, 10, 0, 0, 0, 0, 4, 0, 5, 0];
        table.extend(unit(0, 0xfed9_1000, &[&endpoint[..], &behind_a_bridge].concat()));
        table.extend(unit(ALL, 0xfed9_0000, &[SCOPE_IO_APIC, 8, 0, 0, 0, 0xff, 0, 0]));
        let memory = [&[0; 4][..], &0x7_0000u64.to_le_bytes(), &0x7_ffffu64.to_le_bytes(), &endpoint].concat();
        table.extend(with_length(RESERVED_MEMORY, &memory));
        table
    }

    #[test]
    fn each_function_has_its_unit() {
        let dmar = Dmar::parse(&table());
        assert!(dmar.interrupt_remapping);
        assert_eq!(dmar.units.iter().map(|unit| unit.base).collect::<Vec<_>>(), [0xfed9_1000, 0xfed9_0000]);
        assert_eq!((dmar.unit_of(3 << 3), dmar.unit_of(4 << 3), dmar.unit_of(0xff)), (Some(0), Some(1), Some(1)));
        assert_eq!((dmar.io_apic(), &dmar.reserved[..]), (Some((1, 0xff00)), &[3 << 3][..]));
    }

    #[test]
    fn a_table_that_is_cut_off_tells_less_and_harms_nobody() {
        let table = table();
        for length in 0..table.len() {
            let _ = Dmar::parse(&table[..length]);
        }
        assert_eq!(Dmar::parse(&table[..STRUCTURES]).units, []);
        // A structure of no length has no end.
        let mut endless = table.clone();
        endless[STRUCTURES + structure::LENGTH] = 0;
        assert_eq!(Dmar::parse(&endless).units, []);
    }
}
