//! The newc cpio archive, the form in which Linux takes an initramfs.
//!
//! Source: Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;

const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_CHARACTER_DEVICE: u32 = 0o020_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_SYMLINK: u32 = 0o120_000;

/// An archive in the making. Paths are relative to its root; directories above an entry are made when missing. Times and
/// owners are zero, so that the same contents give the same bytes.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory with permissions 0755, once.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        self.parents(path);
        self.directories.insert(path.to_owned());
        self.entry(path, TYPE_DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entry(path, TYPE_FILE | permissions & 0o7777, (0, 0), data);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entry(path, TYPE_SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, permissions: u32, major: u32, minor: u32) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entry(path, TYPE_CHARACTER_DEVICE | permissions & 0o7777, (major, minor), &[]);
    }

    /// Ends the archive and returns its bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.header("TRAILER!!!", 0, 0, (0, 0), 0);
        self.pad();
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.inode += 1;
        let size = u32::try_from(data.len()).expect("newc holds files below 4 GiB");
        self.header(path, self.inode, mode, device, size);
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn header(&mut self, name: &str, inode: u32, mode: u32, (major, minor): (u32, u32), size: u32) {
        let links = 1;
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        self.bytes.extend_from_slice(b"070701");
        for field in [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn headers_are_110_hex_digits_and_entries_are_padded_to_4() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.finish();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000081a4", "mode of a 0644 file");
        assert_eq!(&bytes[54..62], b"00000005", "size");
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..117], b"hello");
        assert_eq!(&bytes[120..126], b"070701", "the trailer follows at a multiple of 4");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn parents_are_made_once() {
        let mut archive = Archive::new();
        archive.file("/usr/bin/one", 0o755, b"1");
        archive.file("/usr/bin/two", 0o755, b"2");
        archive.directory("usr");
        let text = String::from_utf8_lossy(&archive.finish()).into_owned();
        assert_eq!(text.matches("usr/bin\0").count(), 1);
        assert_eq!(text.matches("usr\0").count(), 1);
    }

    #[test]
    fn busybox_reads_it() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.symlink("sbin", "bin");
        archive.file("bin/tool", 0o755, &[7; 1000]);
        // The reader is another implementation of the format; a machine without it has nothing to compare with.
        let Ok(mut child) = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        else {
            return;
        };
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(listing.lines().collect::<Vec<_>>(), ["dev", "sbin", "bin", "bin/tool"]);
    }
}
