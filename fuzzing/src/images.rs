//! Disk images: any bytes for a qcow2 file, then a guest that uses the disk.

use crate::input::Input;
use devices::storage::image::{Format, ImageOptions, open};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file of the host that goes with the value.
struct Temporary(PathBuf);

impl Temporary {
    fn new(contents: &[u8]) -> std::io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vanderpool-fuzz-{}-{number}.qcow2", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        std::fs::write(&file.0, contents)?;
        Ok(file)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing depends on it: the directory is for temporary files.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Most that a guest may make an image file of these few bytes grow.
const LARGEST: u64 = 256 << 20;

/// One byte of options, the number of operations and those, then the image.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let count = usize::from(input.byte() % 16);
    let mut operations = Input::new(input.bytes(count * 8));
    let Ok(file) = Temporary::new(input.rest()) else { return };
    let options = ImageOptions {
        format: if options & 1 != 0 { Format::Raw } else { Format::Qcow2 },
        read_only: options & 2 != 0,
        snapshot: options & 4 != 0,
    };
    let Ok(mut storage) = open(&file.0, options) else { return };
    let size = storage.size();
    let mut buffer = vec![0x5a; 4096];
    while !operations.is_empty() {
        let operation = operations.byte();
        let length = operations.below(4097) as usize;
        let offset = match operation >> 6 {
            0 => operations.number(2),
            1 => size.saturating_sub(operations.number(2)),
            2 => operations.number(2) << 32,
            _ => operations.number(4),
        };
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= size);
        let result = match operation & 7 {
            0..=2 => storage.read_at(offset, &mut buffer[..length]),
            3 | 4 => storage.write_at(offset, &buffer[..length]),
            5 => storage.write_zeroes(offset, length as u64),
            6 => storage.discard(offset, length as u64),
            _ => storage.flush(),
        };
        assert!(inside || operation & 7 == 7 || result.is_err(), "an access beyond the end of the disk succeeded");
    }
    drop(storage);
    let length = std::fs::metadata(&file.0).map_or(0, |metadata| metadata.len());
    assert!(length <= LARGEST, "the image file grew to {length} bytes");
}

/// A qcow2 image of version `version` without any data: header, level 1 table, refcount table and block.
fn qcow2(version: u32) -> Vec<u8> {
    const CLUSTER: usize = 512;
    let mut image = vec![0; 4 * CLUSTER];
    let header: Vec<u8> = [
        &b"QFI\xfb"[..],
        &version.to_be_bytes(),
        &[0; 12],
        &9_u32.to_be_bytes(),
        &0x1_0000_u64.to_be_bytes(),
        &[0; 4],
        &2_u32.to_be_bytes(),
        &(CLUSTER as u64).to_be_bytes(),
        &(2 * CLUSTER as u64).to_be_bytes(),
        &1_u32.to_be_bytes(),
        &[0; 12],
    ]
    .concat();
    image[..header.len()].copy_from_slice(&header);
    if version > 2 {
        image[96..100].copy_from_slice(&4_u32.to_be_bytes());
        image[100..104].copy_from_slice(&104_u32.to_be_bytes());
    }
    image[2 * CLUSTER..2 * CLUSTER + 8].copy_from_slice(&(3 * CLUSTER as u64).to_be_bytes());
    for cluster in 0..4 {
        image[3 * CLUSTER + 2 * cluster + 1] = 1;
    }
    image
}

/// Small images of both versions, with reads and writes.
pub fn seeds() -> Vec<Vec<u8>> {
    let operations = [[3, 0, 2, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0], [6, 0, 2, 0, 0, 0, 0, 0], [7; 8]];
    [2, 3]
        .iter()
        .flat_map(|&version| [0, 4].map(|options| (version, options)))
        .map(|(version, options)| {
            let mut data = vec![options, operations.len() as u8];
            data.extend(operations.as_flattened());
            data.extend(qcow2(version));
            data
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_an_image() {
        for data in seeds() {
            let file = Temporary::new(&data[34..]).unwrap();
            let options = ImageOptions { format: Format::Qcow2, ..ImageOptions::default() };
            let storage = open(&file.0, options).map_err(|error| error.to_string());
            assert_eq!(storage.map(|storage| storage.size()), Ok(0x1_0000));
        }
    }
}
