//! A few SMBIOS structures (System Management BIOS Reference Specification 2.8): who made the machine, how much memory it has.

use crate::fw_cfg::{FileError, Items};
use crate::memory_map::{FOUR_GIB, MIB, RamLayout};

const ANCHOR_SIZE: usize = 31;
/// Other and unknown, as many enumerations spell them.
const OTHER: u8 = 1;
const UNKNOWN: u8 = 2;

/// The structures and the entry point, not yet linked to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    structures: Structures,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Structures {
    bytes: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Structures {
    /// Appends a structure (6.1.2): `body` follows the header; strings are counted from 1.
    fn add(&mut self, kind: u8, handle: u16, body: &[u8], strings: &[&str]) {
        let start = self.bytes.len();
        self.bytes.extend([kind, 4 + body.len() as u8]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(body);
        for string in strings {
            self.bytes.extend(string.as_bytes());
            self.bytes.push(0);
        }
        // The set of strings ends in an empty one; an empty set is two zeros.
        self.bytes.push(0);
        if strings.is_empty() {
            self.bytes.push(0);
        }
        self.count += 1;
        self.largest = self.largest.max((self.bytes.len() - start) as u16);
    }
}

impl Smbios {
    /// The structures for a machine with `ram`. `firmware_version` is for a machine without firmware, which would otherwise
    /// describe itself.
    #[must_use]
    pub fn new(ram: RamLayout, firmware_version: Option<&str>) -> Self {
        let mut structures = Structures::default();
        if let Some(version) = firmware_version {
            // BIOS information: vendor, version, segment, date, size, characteristics ("not supported"), extensions.
            let mut body = vec![1, 2, 0x00, 0xf0, 3, 0];
            body.extend((1u64 << 3).to_le_bytes());
            body.extend([0, 4, 0xff, 0xff, 0xff, 0xff]);
            structures.add(0, 0, &body, &["Vanderpool", version, "01/01/2026"]);
        }
        // System: manufacturer, product, no version or serial number, UUID not set, wake-up by power switch.
        let mut system = vec![1, 2, 0, 0];
        system.extend([0; 16]);
        system.extend([6, 0, 0]);
        structures.add(1, 0x100, &system, &["Vanderpool", "q35"]);
        // Chassis: manufacturer, other, states safe (3), security unknown.
        structures.add(3, 0x300, &[1, OTHER, 0, 0, 0, 3, 3, 3, UNKNOWN, 0, 0, 0, 0, 0, 1, 0, 0], &["Vanderpool"]);
        memory(&mut structures, ram);
        structures.add(127, 0x7f00, &[], &[]);
        Self { structures }
    }

    /// Entry point for structures at `address`; with `link` false, address and checksums are left for firmware to fill in.
    fn anchor(&self, address: u32, link: bool) -> [u8; ANCHOR_SIZE] {
        let Structures { bytes, count, largest } = &self.structures;
        let mut anchor = [0; ANCHOR_SIZE];
        let mut set = |at: usize, field: &[u8]| anchor[at..at + field.len()].copy_from_slice(field);
        set(0, b"_SM_");
        set(5, &[ANCHOR_SIZE as u8, 2, 8]);
        set(8, &largest.to_le_bytes());
        set(16, b"_DMI_");
        set(22, &(bytes.len() as u16).to_le_bytes());
        set(24, &address.to_le_bytes());
        set(28, &count.to_le_bytes());
        set(30, &[0x28]);
        if link {
            let sum = |part: &[u8]| part.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
            anchor[21] = sum(&anchor[16..]);
            anchor[4] = sum(&anchor);
        }
        anchor
    }

    /// What to write from `address` on, a multiple of 16 in 0xF0000-0xFFFFF: the entry point with the structures behind it.
    #[must_use]
    pub fn link(&self, address: u32) -> Vec<u8> {
        let structures_at = ANCHOR_SIZE.next_multiple_of(16);
        let mut bytes = self.anchor(address + structures_at as u32, true).to_vec();
        bytes.resize(structures_at, 0);
        bytes.extend(&self.structures.bytes);
        bytes
    }

    /// Adds the structures to `items`, for firmware.
    ///
    /// # Errors
    /// When `items` has SMBIOS structures already.
    pub fn add_to(&self, items: &mut Items) -> Result<(), FileError> {
        items.add_file("etc/smbios/smbios-anchor", self.anchor(0, false).to_vec())?;
        items.add_file("etc/smbios/smbios-tables", self.structures.bytes.clone())
    }
}

/// One module that is all the memory, and the addresses it has.
fn memory(structures: &mut Structures, ram: RamLayout) {
    let mib = ram.size() / MIB;
    // Array: on the board, system memory, multi-bit ECC, capacity in KiB (0x8000_0000: see the extended field).
    let kib = u32::try_from(mib * 1024).ok().filter(|kib| *kib < 0x8000_0000);
    let mut array = vec![3, 3, 6];
    array.extend(kib.unwrap_or(0x8000_0000).to_le_bytes());
    array.extend(0xfffeu16.to_le_bytes());
    array.extend(1u16.to_le_bytes());
    array.extend(kib.map_or(ram.size(), |_| 0).to_le_bytes());
    structures.add(16, 0x1000, &array, &[]);
    // Device: array, no error, widths unknown, size in MiB (0x7fff: see the extended field), DIMM, locator, RAM.
    let mut device = Vec::new();
    for word in [0x1000u16, 0xfffe, 0xffff, 0xffff, mib.min(0x7fff) as u16] {
        device.extend(word.to_le_bytes());
    }
    device.extend([9, 0, 1, 0, 7]);
    device.extend(2u16.to_le_bytes()); // type detail: other
    device.extend([0; 2 + 4 + 1]);
    device.extend((if mib >= 0x7fff { mib as u32 } else { 0 }).to_le_bytes());
    device.extend([0; 2 + 6]);
    structures.add(17, 0x1100, &device, &["DIMM 0"]);
    for (i, (base, size)) in (0u16..).zip([(0, ram.low), (FOUR_GIB, ram.high)]).filter(|(_, (_, size))| *size > 0) {
        let mut mapped = Vec::new();
        let (start, end) = (base, base + size - 1);
        let narrow = u32::try_from(end / 1024).ok().filter(|end| *end != u32::MAX);
        mapped.extend(narrow.map_or(u32::MAX, |_| (start / 1024) as u32).to_le_bytes());
        mapped.extend(narrow.unwrap_or(u32::MAX).to_le_bytes());
        mapped.extend(0x1000u16.to_le_bytes());
        mapped.push(1);
        mapped.extend(narrow.map_or((start, end), |_| (0, 0)).0.to_le_bytes());
        mapped.extend(narrow.map_or((start, end), |_| (0, 0)).1.to_le_bytes());
        structures.add(19, 0x1300 + i, &mapped, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::GIB;

    /// The types of the structures, walked as firmware does.
    fn walk(bytes: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            kinds.push(bytes[at]);
            at += usize::from(bytes[at + 1]);
            at += bytes[at..].windows(2).position(|pair| pair == [0, 0]).unwrap() + 2;
        }
        kinds
    }

    #[test]
    fn entry_point_leads_to_the_structures_with_right_checksums() {
        let bytes = Smbios::new(RamLayout::new(6 * GIB), Some("1")).link(0xf_0000);
        let sum = |part: &[u8]| part.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((&bytes[..4], sum(&bytes[..31]), sum(&bytes[16..31])), (&b"_SM_"[..], 0, 0));
        let at = u32::from_le_bytes(bytes[24..28].try_into().unwrap()) as usize - 0xf_0000;
        let length = usize::from(u16::from_le_bytes([bytes[22], bytes[23]]));
        assert_eq!(walk(&bytes[at..at + length]), [0, 1, 3, 16, 17, 19, 19, 127]);
        assert_eq!(u16::from_le_bytes([bytes[28], bytes[29]]), 8);
    }

    #[test]
    fn firmware_gets_the_structures_without_an_address() {
        let mut items = Items::new();
        Smbios::new(RamLayout::new(GIB), None).add_to(&mut items).unwrap();
        assert_eq!(walk(items.file("etc/smbios/smbios-tables").unwrap()), [1, 3, 16, 17, 19, 127]);
        assert_eq!(items.file("etc/smbios/smbios-anchor").unwrap()[24..28], [0; 4]);
    }

    #[test]
    fn huge_memory_uses_the_extended_fields() {
        let smbios = Smbios::new(RamLayout::new(8192 * GIB), None);
        assert_eq!(walk(&smbios.structures.bytes).last(), Some(&127));
    }
}
