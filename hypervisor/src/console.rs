//! The guests' consoles on one terminal: whole lines, each with its guest's name before it.

use crate::host::Host;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use devices::ports::Output;

/// A line that is longer is broken.
const LONGEST: usize = 200;

/// One guest's console.
pub struct Lines {
    name: String,
    line: Vec<u8>,
    host: &'static dyn Host,
}

impl Lines {
    /// The console of the guest `name`.
    #[must_use]
    pub fn new(name: &str, host: &'static dyn Host) -> Self {
        Self { name: name.into(), line: Vec::new(), host }
    }

    fn flush(&mut self) {
        let line = printable(&core::mem::take(&mut self.line));
        self.host.print(&format!("[{}] {line}\r\n", self.name));
    }
}

impl Output for Lines {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.flush(),
                b'\r' => {}
                _ => self.line.push(byte),
            }
            if self.line.len() >= LONGEST {
                self.flush();
            }
        }
    }
}

/// A guest's line with nothing in it that would move the terminal's cursor or colour other guests' lines.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() && c != '\t' { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_reach_the_terminal_through_its_lines() {
        assert_eq!(printable(b"a\x1b[2Jb\tc\xff"), "a.[2Jb\tc\u{fffd}");
    }
}
