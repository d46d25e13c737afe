//! What the hypervisor tells whoever runs it, on the port where firmware writes its messages: lines of text that say which VMCS is which
//! vCPU's, and between them what guests write to consoles that are files.

use crate::Error;
use crate::boot::FileOutput;
use devices::ports::Output;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Begins a part of a console: this, the console's number, the length, the bytes.
const TRANSFER: u8 = 0;
const HEADER: usize = 3;

#[derive(Default)]
struct Inner {
    text: Vec<u8>,
    /// A part of a console that is not whole yet.
    part: Vec<u8>,
    files: Vec<Option<FileOutput>>,
}

/// Takes what comes.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Inner>>);

impl Reports {
    /// With files for the consoles of these numbers.
    ///
    /// # Errors
    /// When a file cannot be made.
    pub fn new(files: &[Option<PathBuf>]) -> Result<Self, Error> {
        let files = files.iter().map(|file| file.as_deref().map(FileOutput::create).transpose());
        let inner = Inner { files: files.collect::<Result<_, _>>()?, ..Inner::default() };
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// The lines.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner).text).into_owned()
    }
}

impl Output for Reports {
    fn write(&mut self, bytes: &[u8]) {
        let inner = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &byte in bytes {
            if inner.part.is_empty() && byte != TRANSFER {
                inner.text.push(byte);
                continue;
            }
            inner.part.push(byte);
            if let [_, number, length, data @ ..] = &inner.part[..]
                && data.len() == usize::from(*length)
            {
                if let Some(Some(file)) = inner.files.get_mut(usize::from(*number)) {
                    file.write(data);
                }
                inner.part.clear();
            }
        }
        debug_assert!(inner.part.len() < HEADER + 256);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_consoles_are_told_from_lines_however_they_come() {
        let path = std::env::temp_dir().join(format!("vanderpool-reports-{}", std::process::id()));
        let mut reports = Reports::new(&[None, Some(path.clone())]).unwrap();
        let stream = b"vcpu 0 0 0x1000\n\0\x01\x05ab\0cd\0\x00\x01x\0\x01\x00vcpu 1 0 0x2000\n";
        for byte in stream {
            reports.write(&[*byte]);
        }
        reports.write(b"\0\x07\x02no");
        assert_eq!(reports.text(), "vcpu 0 0 0x1000\nvcpu 1 0 0x2000\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"ab\0cd");
        let _ = std::fs::remove_file(path);
    }
}
