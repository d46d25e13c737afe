//! The firmware's tables (ACPI 6.5, chapter 5).
#![allow(unsafe_code, reason = "firmware's tables are at addresses")]

use crate::multiboot;

const RSDP: &[u8; 8] = b"RSD PTR ";
/// Offsets in the root pointer (5.2.5.3).
const REVISION: usize = 15;
const RSDT: usize = 16;
const XSDT: usize = 24;
/// Bytes of the root pointer of revision 2.
const RSDP_SIZE: usize = 36;
/// A table's header: its length is at 4.
const HEADER: usize = 36;
/// The longest table that is believed.
const LONGEST: usize = 1 << 20;
/// Where the address of the extended BIOS data area is, as a segment.
const EBDA: usize = 0x40e;

/// `length` bytes at a physical address below 4 GiB.
fn bytes(address: u64, length: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(length as u64)?;
    // SAFETY: all of the first 4 GiB is mapped; firmware's tables lie in memory that the loader does not call usable, so nobody writes there.
    (address != 0 && end <= 1 << 32)
        .then(|| unsafe { core::slice::from_raw_parts(address as usize as *const u8, length) })
}

fn number(bytes: &[u8], offset: usize, size: usize) -> u64 {
    let part = bytes.get(offset..offset + size).unwrap_or_default();
    part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn is_whole(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}

/// The root pointer: where the loader says, or where firmware of PCs has it (5.2.5.1).
fn root_pointer() -> Option<&'static [u8]> {
    let is_one = |at: &u64| bytes(*at, 20).is_some_and(|found| found.starts_with(RSDP) && is_whole(found));
    let ebda = bytes(EBDA as u64, 2).map_or(0, |segment| number(segment, 0, 2) << 4);
    let places = (ebda..ebda + 0x400).step_by(16).chain((0xe_0000..0x10_0000).step_by(16));
    let at = multiboot::acpi_root().into_iter().chain(places).find(is_one)?;
    bytes(at, RSDP_SIZE)
}

/// The table at `address`, if it is whole.
fn table(address: u64) -> Option<&'static [u8]> {
    let length = number(bytes(address, HEADER)?, 4, 4) as usize;
    let table = bytes(address, length).filter(|_| (HEADER..LONGEST).contains(&length))?;
    is_whole(table).then_some(table)
}

/// The first table with this signature.
#[must_use]
pub fn find(signature: [u8; 4]) -> Option<&'static [u8]> {
    let pointer = root_pointer()?;
    let (address, width) =
        if pointer[REVISION] >= 2 { (number(pointer, XSDT, 8), 8) } else { (number(pointer, RSDT, 4), 4) };
    let entries = table(address)?.get(HEADER..)?.chunks_exact(width);
    entries.map(|entry| number(entry, 0, width)).filter_map(table).find(|table| table.starts_with(&signature))
}
