//! ELF images: which parts go where, the entry point, the PVH note. Parsing is the `object` crate's.

use super::BootError;
use super::placement::Placement;
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, NoteType, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endian, Endianness};

const MAGIC: &[u8] = b"\x7fELF";
/// Note of a PVH kernel: the 32-bit physical entry point (Xen, public/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);
/// More loadable segments than any kernel has.
const MAX_SEGMENTS: usize = 256;

pub(super) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(MAGIC)
}

/// A part of the file that goes to memory.
#[derive(Debug)]
pub(super) struct LoadSegment<'a> {
    pub address: u64,
    pub data: &'a [u8],
    /// Bytes in memory, at least those of `data`; the rest is zero.
    pub size: u64,
}

/// What a boot protocol needs to know of an ELF file.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub segments: Vec<LoadSegment<'a>>,
    /// Entry point as a physical address.
    pub entry: u64,
    /// Entry point of the PVH note.
    pub pvh_entry: Option<u64>,
}

pub(super) fn parse(image: &[u8]) -> Result<Image<'_>, BootError> {
    match image.get(4) {
        Some(1) => parse_class::<FileHeader32<Endianness>>(image),
        Some(2) => parse_class::<FileHeader64<Endianness>>(image),
        Some(_) => Err(BootError::BadElf("it is neither of the 32-bit nor of the 64-bit class")),
        None => Err(truncated(image, 64)),
    }
}

fn truncated(image: &[u8], needs: u64) -> BootError {
    BootError::Truncated { what: "the ELF kernel", needs, has: image.len() as u64 }
}

fn parse_class<H: FileHeader<Endian = Endianness>>(image: &[u8]) -> Result<Image<'_>, BootError> {
    let header = H::parse(image).map_err(|_| match image.len() {
        0..64 => truncated(image, 64),
        _ => BootError::BadElf("its header is not valid"),
    })?;
    let endian = header.endian().map_err(|_| BootError::BadElf("its byte order is unknown"))?;
    if endian.is_big_endian() || ![EM_386, EM_X86_64].contains(&header.e_machine(endian)) {
        return Err(BootError::BadElf("it is not for x86"));
    }
    let table_end = header
        .e_phoff(endian)
        .into()
        .saturating_add(u64::from(header.e_phnum(endian)) * u64::from(header.e_phentsize(endian)));
    if table_end > image.len() as u64 {
        return Err(truncated(image, table_end));
    }
    let headers =
        header.program_headers(endian, image).map_err(|_| BootError::BadElf("its program headers are not valid"))?;
    let entry: u64 = header.e_entry(endian).into();
    let mut parsed = Image { segments: Vec::new(), entry, pvh_entry: None };
    for segment in headers {
        let (offset, file_size): (u64, u64) = (segment.p_offset(endian).into(), segment.p_filesz(endian).into());
        let end = offset.saturating_add(file_size);
        match segment.p_type(endian) {
            PT_LOAD => {
                let data = segment.data(endian, image).map_err(|()| truncated(image, end))?;
                let (address, size): (u64, u64) = (segment.p_paddr(endian).into(), segment.p_memsz(endian).into());
                if size < file_size {
                    return Err(BootError::BadElf("a segment is larger in the file than in memory"));
                }
                let virtual_address: u64 = segment.p_vaddr(endian).into();
                if (virtual_address..virtual_address.saturating_add(size)).contains(&entry) {
                    parsed.entry = address.wrapping_add(entry - virtual_address);
                }
                if size > 0 {
                    parsed.segments.push(LoadSegment { address, data, size });
                }
                if parsed.segments.len() > MAX_SEGMENTS {
                    return Err(BootError::BadElf("it has too many segments"));
                }
            }
            PT_NOTE => {
                if end > image.len() as u64 {
                    return Err(truncated(image, end));
                }
                parsed.pvh_entry = parsed.pvh_entry.or(pvh_note::<H>(segment, endian, image));
            }
            _ => {}
        }
    }
    if parsed.segments.is_empty() {
        return Err(BootError::BadElf("it has nothing to load"));
    }
    Ok(parsed)
}

/// The entry point in a note segment, if the PVH note is there.
fn pvh_note<H: FileHeader<Endian = Endianness>>(
    segment: &H::ProgramHeader,
    endian: Endianness,
    image: &[u8],
) -> Option<u64> {
    let mut notes = segment.notes(endian, image).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"Xen" && note.n_type(endian) == XEN_ELFNOTE_PHYS32_ENTRY {
            return match *note.desc() {
                [a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d]).into()),
                [a, b, c, d, e, f, g, h] => Some(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
                _ => None,
            };
        }
    }
    None
}

/// Puts the segments in memory.
pub(super) fn place(placement: &mut Placement<'_>, image: &Image<'_>) -> Result<(), BootError> {
    // All are claimed before any is written: a size that is not real memory costs nothing.
    for segment in &image.segments {
        placement.claim("the kernel", segment.address, segment.size)?;
    }
    for segment in &image.segments {
        placement.fill(segment.address, segment.data)?;
        let data_size = segment.data.len() as u64;
        placement.zero(segment.address + data_size, segment.size - data_size)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    /// An ELF64 file with one note segment (if `note`) and one load segment at `address` with `code` and 16 zero bytes behind.
    pub(in super::super) fn image64(address: u64, entry: u64, note: Option<u32>, code: &[u8]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
        let phnum = 1 + u16::from(note.is_some());
        file.extend(entry.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend([0; 12]);
        for half in [64u16, 56, phnum, 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let data_at = 64 + 56 * u64::from(phnum);
        let note_bytes = note.map_or(vec![], |entry| {
            let words = [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), entry];
            words.iter().flat_map(|w| w.to_le_bytes()).collect()
        });
        let mut segment = |kind: u32, offset: u64, address: u64, size: u64, memory: u64| {
            file.extend(kind.to_le_bytes());
            file.extend(7u32.to_le_bytes());
            for field in [offset, address | 0xffff_ffff_8000_0000, address, size, memory, 4] {
                file.extend(field.to_le_bytes());
            }
        };
        let code_at = data_at + note_bytes.len() as u64;
        segment(1, code_at, address, code.len() as u64, code.len() as u64 + 16);
        if note.is_some() {
            segment(4, data_at, 0, note_bytes.len() as u64, 0);
        }
        file.extend(note_bytes);
        file.extend(code);
        file
    }

    /// The same as [`image64`] without a note, of the 32-bit class.
    pub(in super::super) fn image32(address: u32, entry: u32, code: &[u8]) -> Vec<u8> {
        let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0\x01\0\0\0".to_vec();
        for word in [entry, 52, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [52u16, 32, 1, 40, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let size = code.len() as u32;
        for word in [1, 84, address, address, size, size + 16, 7, 4] {
            file.extend(word.to_le_bytes());
        }
        file.extend(code);
        file
    }
}
