//! Whether a qcow2 image's own tables agree, asked before the image is written to.
//!
//! The library that writes trusts the reference counts: where they call a cluster free that is in use, it would overwrite
//! the image's tables. (Format: QEMU's docs/interop/qcow2.txt.)

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// Bits 9 to 55 of an L1 or L2 entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit 62 of an L2 entry: a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// Most bytes of a table named in the header, far above what 64 TiB need.
const TABLE_MAX: u64 = 64 << 20;
/// Most clusters of a file, for the sake of the host's memory.
const CLUSTERS_MAX: u64 = 1 << 28;

/// Incompatible features (bits of the header's field at 72).
mod incompatible {
    pub const DIRTY: u64 = 1 << 0;
    pub const CORRUPT: u64 = 1 << 1;
    pub const EXTERNAL_DATA: u64 = 1 << 2;
    pub const EXTENDED_L2: u64 = 1 << 4;
}

/// What a cluster of the file is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Nothing,
    Table,
    Data,
}

struct Image<'a> {
    file: &'a mut File,
    length: u64,
    cluster_size: u64,
    uses: Vec<Use>,
}

/// That `file` may be written to: the reason if not.
pub fn check(file: &mut File) -> Result<(), String> {
    let length = file.seek(SeekFrom::End(0)).map_err(|error| error.to_string())?;
    let mut header = [0; 104];
    let have = usize::try_from(length).unwrap_or(usize::MAX).min(header.len());
    if have < 72 {
        return Err("its header is cut off".to_string());
    }
    read_at(file, 0, &mut header[..have])?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    let version = word(4);
    let cluster_bits = word(20);
    if !(2..=3).contains(&version) || !(9..=21).contains(&cluster_bits) {
        return Err("its header is not one of version 2 or 3".to_string());
    }
    let (features, refcount_order) = if version == 3 && have == 104 { (long(72), word(96)) } else { (0, 4) };
    if features & incompatible::DIRTY != 0 {
        return Err("it was not closed properly".to_string());
    }
    if features & incompatible::CORRUPT != 0 || refcount_order > 6 {
        return Err("it is marked as damaged".to_string());
    }
    let cluster_size = 1 << cluster_bits;
    let clusters = length.div_ceil(cluster_size);
    if clusters > CLUSTERS_MAX {
        return Err("it has too many clusters".to_string());
    }
    let mut image = Image { file, length, cluster_size, uses: vec![Use::Nothing; clusters as usize] };
    image.claim(0, 1, Use::Table)?;
    let refcounts = image.refcounts(long(48), u64::from(word(56)).saturating_mul(cluster_size))?;
    let data_outside = features & incompatible::EXTERNAL_DATA != 0;
    let l2_entry = if features & incompatible::EXTENDED_L2 != 0 { 16 } else { 8 };
    image.mappings(long(40), u64::from(word(36)) * 8, l2_entry, data_outside)?;
    image.agree(&refcounts, refcount_order)
}

fn read_at(file: &mut File, at: u64, buffer: &mut [u8]) -> Result<(), String> {
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(buffer)).map_err(|error| error.to_string())
}

impl Image<'_> {
    /// Notes that `bytes` from `offset` on are in use; an error if they are not in the file, not aligned, or in use.
    fn claim(&mut self, offset: u64, bytes: u64, by: Use) -> Result<(), String> {
        let end = offset.checked_add(bytes).filter(|_| offset.is_multiple_of(self.cluster_size));
        let last = end.map(|end| end.saturating_sub(1) / self.cluster_size);
        match last {
            Some(last) if last < self.uses.len() as u64 => {
                for number in offset / self.cluster_size..=last {
                    let used = &mut self.uses[number as usize];
                    // Two mappings may share data, but nothing shares a table.
                    if *used == Use::Table || *used == Use::Data && by == Use::Table {
                        return Err(format!("two parts of it lie at {offset:#x}"));
                    }
                    *used = by;
                }
                Ok(())
            }
            _ => Err(format!("it refers to {offset:#x}, which is not in the file")),
        }
    }

    /// A table of `bytes` bytes, as big-endian words.
    fn table(&mut self, offset: u64, bytes: u64) -> Result<Vec<u64>, String> {
        if bytes > TABLE_MAX || offset.checked_add(bytes).is_none_or(|end| end > self.length) {
            return Err(format!("its table at {offset:#x} is cut off"));
        }
        let mut raw = vec![0; bytes as usize];
        read_at(self.file, offset, &mut raw)?;
        Ok(raw.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect())
    }

    /// The refcount blocks' offsets.
    fn refcounts(&mut self, offset: u64, bytes: u64) -> Result<Vec<u64>, String> {
        let table = self.table(offset, bytes)?;
        self.claim(offset, bytes, Use::Table)?;
        for block in table.iter().filter(|block| **block != 0) {
            self.claim(*block, self.cluster_size, Use::Table)?;
        }
        Ok(table)
    }

    /// Walks L1 and L2 tables.
    fn mappings(&mut self, offset: u64, bytes: u64, l2_entry: usize, data_outside: bool) -> Result<(), String> {
        if bytes == 0 {
            return Ok(());
        }
        let l1 = self.table(offset, bytes)?;
        self.claim(offset, bytes, Use::Table)?;
        // All tables first, so that data in one of them is found.
        let tables: Vec<u64> = l1.iter().map(|entry| entry & OFFSET).filter(|offset| *offset != 0).collect();
        for l2 in &tables {
            self.claim(*l2, self.cluster_size, Use::Table)?;
        }
        for l2 in tables {
            for entry in self.table(l2, self.cluster_size)?.iter().step_by(l2_entry / 8) {
                if entry & COMPRESSED != 0 {
                    // The offset's width depends on the cluster size: 62 - (cluster_bits - 8) bits.
                    let bits = 70 - self.cluster_size.trailing_zeros();
                    let at = entry & ((1 << bits) - 1);
                    let start = at / self.cluster_size * self.cluster_size;
                    self.claim(start, 1, Use::Data)?;
                } else if entry & OFFSET != 0 && !data_outside {
                    self.claim(entry & OFFSET, 1, Use::Data)?;
                }
            }
        }
        Ok(())
    }

    /// That every cluster in use has a reference count.
    fn agree(&mut self, blocks: &[u64], order: u32) -> Result<(), String> {
        let per_block = (self.cluster_size * 8) >> order;
        let mut raw = vec![0; self.cluster_size as usize];
        for first in (0..self.uses.len() as u64).step_by(per_block as usize) {
            let block = blocks.get((first / per_block) as usize).copied().unwrap_or(0);
            raw.fill(0);
            if block != 0 {
                read_at(self.file, block, &mut raw)?;
            }
            for number in first..(first + per_block).min(self.uses.len() as u64) {
                let bit = (number - first) << order;
                let count = match order {
                    0..=2 => u32::from(raw[(bit / 8) as usize] >> (bit % 8)) & ((1 << (1 << order)) - 1),
                    _ => {
                        let bytes = &raw[(bit / 8) as usize..][..1 << (order - 3)];
                        u32::from(bytes.iter().any(|byte| *byte != 0))
                    }
                };
                if self.uses[number as usize] != Use::Nothing && count == 0 {
                    return Err(format!("it calls {:#x} free, which is in use", number * self.cluster_size));
                }
            }
        }
        Ok(())
    }
}
