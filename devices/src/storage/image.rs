//! Disk images in files: raw, and qcow2 through the `imago` library.
//!
//! The format is never guessed from contents alone: a guest that owns a raw disk could write a qcow2 header with a
//! backing file onto it and at the next start read any file of the host.

use super::{Overlay, Storage, StorageError, check_range, qcow2_check};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use imago::FormatDriverBuilder;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The first bytes of a qcow2 image.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// How an image file is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// By the file's name: qcow2 if it ends in `.qcow2`, else raw; refused when a raw one looks like qcow2.
    #[default]
    ByName,
    /// The disk's bytes, one after the other. ISO images are such.
    Raw,
    /// qcow2, version 2 or 3.
    Qcow2,
}

/// How to open an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// The file's layout.
    pub format: Format,
    /// The guest may not write.
    pub read_only: bool,
    /// The guest may write, but into memory: the file stays as it is.
    pub snapshot: bool,
}

/// Opens the disk image at `path`. A file that is written is locked against others that do the same.
///
/// # Errors
/// In one line for the user: what is wrong with the file and, where it helps, what to do.
pub fn open(path: &Path, options: ImageOptions) -> Result<Box<dyn Storage>, String> {
    let name = path.display();
    let write = !options.read_only && !options.snapshot;
    let mut file = OpenOptions::new().read(true).write(write).open(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied if write => "; open it read-only or in snapshot mode to leave it unchanged",
            _ => "",
        };
        format!("cannot open the disk image {name}: {error}{hint}")
    })?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(format!("cannot use {name} as a disk image: it is a directory"));
    }
    let locked = if write { file.try_lock() } else { file.try_lock_shared() };
    if let Err(TryLockError::WouldBlock) = locked {
        return Err(format!(
            "the disk image {name} is in use by another machine; snapshot mode does not help, copy it"
        ));
    }
    let mut magic = [0; 4];
    let looks_like_qcow2 = file.read_exact(&mut magic).is_ok() && magic == QCOW2_MAGIC;
    let named_qcow2 = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("qcow2"));
    let qcow2 = match options.format {
        Format::Qcow2 => true,
        Format::Raw => false,
        Format::ByName if named_qcow2 => true,
        Format::ByName if looks_like_qcow2 => {
            return Err(format!(
                "the disk image {name} looks like qcow2 but is not named so; say format=qcow2 (or format=raw) for it"
            ));
        }
        Format::ByName => false,
    };
    if qcow2 && !looks_like_qcow2 {
        return Err(format!("the disk image {name} is not in qcow2 format; say format=raw if it is a raw one"));
    }
    let storage: Box<dyn Storage> = if qcow2 {
        if write {
            qcow2_check::check(&mut file).map_err(|reason| {
                format!("the disk image {name} is damaged: {reason}; repair it with qemu-img check -r all")
            })?;
        }
        Box::new(Qcow2::new(file, path, write).map_err(|error| format!("cannot use the disk image {name}: {error}"))?)
    } else {
        let size =
            file.seek(SeekFrom::End(0)).map_err(|error| format!("cannot use {name} as a disk image: {error}"))?;
        Box::new(RawFile { file, size, read_only: !write })
    };
    if storage.size() < 512 {
        return Err(format!("the disk image {name} holds less than one sector"));
    }
    Ok(if options.snapshot && !options.read_only { Box::new(Overlay::new(storage)) } else { storage })
}

fn host_error(error: &io::Error) -> StorageError {
    StorageError::Host(error.to_string())
}

/// A file that is the disk, byte for byte.
#[derive(Debug)]
struct RawFile {
    file: File,
    size: u64,
    read_only: bool,
}

impl Storage for RawFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        check_range(self.size, offset, buffer.len() as u64)?;
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| host_error(&e))?;
        self.file.read_exact(buffer).map_err(|e| host_error(&e))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        if self.read_only {
            return Err(StorageError::ReadOnly);
        }
        check_range(self.size, offset, data.len() as u64)?;
        self.file.seek(SeekFrom::Start(offset)).map_err(|e| host_error(&e))?;
        self.file.write_all(data).map_err(|e| host_error(&e))
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if self.read_only { Ok(()) } else { self.file.sync_data().map_err(|e| host_error(&e)) }
    }
}

/// A qcow2 image and what it refers to.
struct Qcow2 {
    image: imago::FormatAccess<imago::file::File>,
    read_only: bool,
}

impl Qcow2 {
    fn new(file: File, path: &Path, write: bool) -> io::Result<Self> {
        let options = imago::StorageOpenOptions::new().filename(path).write(write);
        let file = imago::file::File::from_open_file(file, options)?;
        let image =
            imago::qcow2::Qcow2::<_>::builder(file).write(write).open(imago::PermissiveImplicitOpenGate::default())?;
        Ok(Self { image: imago::FormatAccess::new(image), read_only: !write })
    }
}

impl Storage for Qcow2 {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        check_range(self.size(), offset, buffer.len() as u64)?;
        self.image.read(buffer, offset).map_err(|e| host_error(&e))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        if self.read_only {
            return Err(StorageError::ReadOnly);
        }
        check_range(self.size(), offset, data.len() as u64)?;
        self.image.write(data, offset).map_err(|e| host_error(&e))
    }

    fn write_zeroes(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        if self.read_only {
            return Err(StorageError::ReadOnly);
        }
        check_range(self.size(), offset, length)?;
        self.image.write_zeroes(offset, length).map_err(|e| host_error(&e))
    }

    fn discard(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        check_range(self.size(), offset, length)?;
        match self.image.discard_to_any(offset, length) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(host_error(&error)),
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if self.read_only {
            return Ok(());
        }
        self.image.flush().and_then(|()| self.image.sync()).map_err(|e| host_error(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use imago::format::builder::FormatCreateBuilder;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A file in the temporary directory, removed at the end.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str, contents: &[u8]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let unique = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("vanderpool-{}-{unique}-{name}", std::process::id()));
            std::fs::write(&path, contents).unwrap();
            Self(path)
        }

        fn qcow2(size: u64) -> Self {
            let temporary = Self::new("image.qcow2", &[]);
            let file = OpenOptions::new().read(true).write(true).open(&temporary.0).unwrap();
            let options = imago::StorageOpenOptions::new().filename(&temporary.0).write(true);
            let file = imago::file::File::from_open_file(file, options).unwrap();
            imago::qcow2::Qcow2::<imago::file::File>::create_builder(file).size(size).create().unwrap();
            temporary
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn open_with(
        file: &Temporary,
        format: Format,
        read_only: bool,
        snapshot: bool,
    ) -> Result<Box<dyn Storage>, String> {
        open(&file.0, ImageOptions { format, read_only, snapshot })
    }

    fn error(result: Result<Box<dyn Storage>, String>) -> String {
        match result {
            Ok(_) => panic!("an error was expected"),
            Err(error) => error,
        }
    }

    #[test]
    fn raw_files_are_read_and_written_in_place() {
        let file = Temporary::new("disk.img", &[7; 2048]);
        let mut storage = open_with(&file, Format::ByName, false, false).unwrap();
        storage.write_at(1000, &[1, 2, 3]).unwrap();
        storage.flush().unwrap();
        assert_eq!(storage.write_at(2047, &[0; 2]), Err(StorageError::OutOfRange));
        drop(storage);
        let contents = std::fs::read(&file.0).unwrap();
        assert_eq!(contents.len(), 2048);
        assert_eq!(contents[999..1004], [7, 1, 2, 3, 7]);
    }

    #[test]
    fn snapshot_mode_leaves_the_file_alone() {
        let file = Temporary::new("disk.img", &[7; 2048]);
        let mut storage = open_with(&file, Format::Raw, false, true).unwrap();
        assert!(!storage.read_only());
        storage.write_at(0, &[0; 2048]).unwrap();
        storage.flush().unwrap();
        let mut buffer = [1; 2048];
        storage.read_at(0, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 2048]);
        assert_eq!(std::fs::read(&file.0).unwrap(), [7; 2048]);
    }

    #[test]
    fn qcow2_images_keep_what_is_written() {
        let file = Temporary::qcow2(10 << 20);
        let mut storage = open_with(&file, Format::ByName, false, false).unwrap();
        assert_eq!(storage.size(), 10 << 20);
        let data: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
        storage.write_at(123_456, &data).unwrap();
        storage.write_zeroes(200_000, 70_000).unwrap();
        storage.flush().unwrap();
        drop(storage);
        let mut storage = open_with(&file, Format::Qcow2, true, false).unwrap();
        let mut buffer = alloc::vec![1; 300_000];
        storage.read_at(123_456, &mut buffer).unwrap();
        let mut expected = data;
        expected[200_000 - 123_456..][..70_000].fill(0);
        assert!(buffer == expected);
        assert_eq!(storage.write_at(0, &[0]), Err(StorageError::ReadOnly));
    }

    #[test]
    fn the_format_is_not_guessed_from_contents() {
        let mut contents = [0; 2048];
        contents[..4].copy_from_slice(&QCOW2_MAGIC);
        let file = Temporary::new("disk.img", &contents);
        assert!(error(open_with(&file, Format::ByName, false, false)).contains("format=raw"));
        assert!(open_with(&file, Format::Raw, false, false).is_ok());
    }

    #[test]
    fn bad_files_give_one_line() {
        let missing = open(Path::new("/nonexistent/disk.img"), ImageOptions::default());
        assert!(error(missing).contains("/nonexistent/disk.img"));
        let directory = open(&std::env::temp_dir(), ImageOptions { read_only: true, ..ImageOptions::default() });
        assert!(error(directory).contains("directory"));
        let empty = Temporary::new("disk.img", &[]);
        assert!(error(open_with(&empty, Format::ByName, false, false)).contains("sector"));
        let not_qcow2 = Temporary::new("disk.qcow2", &[0; 4096]);
        assert!(error(open_with(&not_qcow2, Format::ByName, false, false)).contains("not in qcow2"));
    }

    #[test]
    fn a_file_that_is_written_is_locked() {
        let file = Temporary::new("disk.img", &[7; 2048]);
        let first = open_with(&file, Format::Raw, false, false).unwrap();
        assert!(error(open_with(&file, Format::Raw, false, false)).contains("in use"));
        drop(first);
        let first = open_with(&file, Format::Raw, true, false).unwrap();
        assert!(open_with(&file, Format::Raw, true, false).is_ok());
        drop(first);
    }

    /// Damages an image in 100 ways; whatever opens is read and written.
    fn damage(read_only: bool, snapshot: bool) -> usize {
        let file = Temporary::qcow2(4 << 20);
        let mut storage = open_with(&file, Format::Qcow2, false, false).unwrap();
        storage.write_at(0, &[9; 200_000]).unwrap();
        storage.flush().unwrap();
        drop(storage);
        let good = std::fs::read(&file.0).unwrap();
        // Where something stands: anything else is empty space.
        let used: Vec<usize> = (0..good.len()).filter(|at| *at < 120 || good[*at] != 0 && good[*at] != 9).collect();
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut opened = 0;
        for _ in 0..100 {
            let mut bad = good.clone();
            for _ in 0..3 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let anywhere = (random >> 10) as usize % bad.len();
                let at = if random & 3 == 0 { anywhere } else { used[anywhere % used.len()] };
                bad[at] = (random >> 8) as u8;
            }
            bad.truncate(good.len() - (random >> 40) as usize % 100_000 * usize::from(random & 12 == 0));
            // In place: making a file for each takes longer than all the rest.
            std::fs::write(&file.0, &bad).unwrap();
            if let Ok(mut storage) = open_with(&file, Format::Qcow2, read_only, snapshot) {
                opened += 1;
                let size = storage.size();
                let mut buffer = [0; 4096];
                for at in [0, 65_000, size / 2, size.saturating_sub(4096)] {
                    let _ = storage.read_at(at, &mut buffer);
                    let _ = storage.write_at(at, &buffer);
                }
                let _ = storage.flush();
            }
        }
        opened
    }

    #[test]
    fn damaged_qcow2_images_can_be_read_without_harm() {
        assert!(damage(false, true) > 10);
    }

    #[test]
    fn damaged_qcow2_images_are_not_written() {
        assert!(damage(false, false) > 10, "what is damaged elsewhere than in the tables can be used");
    }
}
