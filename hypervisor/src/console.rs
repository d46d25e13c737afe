//! The guests' consoles on one terminal. All of them are shown together, whole lines with the guest's name before each, or one alone, as it
//! comes; keys after Ctrl-A choose. What is typed goes to the guest that was chosen last, at first to the first.

use crate::host::Host;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use devices::ports::Output;
use spin::Mutex;

/// A line that is longer is broken.
const LONGEST: usize = 200;
/// What is shown of a guest that was not shown before.
const RECENT: usize = 4096;
/// The key before a choice: Ctrl-A.
const ESCAPE: u8 = 0x01;

/// A guest's console.
struct Guest {
    name: String,
    /// What is no whole line yet.
    line: Vec<u8>,
    recent: VecDeque<u8>,
    /// Its output goes to a file of whoever runs this machine, not to the terminal.
    to_file: bool,
}

#[derive(Default)]
struct State {
    guests: Vec<Guest>,
    /// The guest that is shown alone.
    shown: Option<usize>,
    /// The guest that gets what is typed.
    chosen: usize,
    escaped: bool,
}

/// The terminal.
pub struct Terminal {
    host: &'static dyn Host,
    state: Mutex<State>,
}

/// One guest's console.
#[derive(Clone)]
pub struct Console {
    terminal: Arc<Terminal>,
    number: usize,
}

impl Terminal {
    /// A terminal without consoles.
    #[must_use]
    pub fn new(host: &'static dyn Host) -> Arc<Self> {
        Arc::new(Self { host, state: Mutex::default() })
    }

    /// A new console, of the guest `name`.
    #[must_use]
    pub fn console(self: &Arc<Self>, name: &str, to_file: bool) -> Console {
        let mut state = self.state.lock();
        let guest = Guest { name: name.into(), line: Vec::new(), recent: VecDeque::new(), to_file };
        state.guests.push(guest);
        Console { terminal: Arc::clone(self), number: state.guests.len() - 1 }
    }

    fn output(&self, number: usize, bytes: &[u8]) {
        let mut state = self.state.lock();
        let shown = state.shown;
        let Some(guest) = state.guests.get_mut(number) else { return };
        if guest.to_file {
            return self.host.transfer(number, bytes);
        }
        guest.recent.extend(bytes);
        let too_much = guest.recent.len().saturating_sub(RECENT);
        guest.recent.drain(..too_much);
        if shown == Some(number) {
            self.host.write(bytes);
        }
        for &byte in bytes {
            match byte {
                b'\n' => {}
                b'\r' => continue,
                _ => guest.line.push(byte),
            }
            if byte == b'\n' || guest.line.len() >= LONGEST {
                let line = printable(&core::mem::take(&mut guest.line));
                if shown.is_none() {
                    self.host.write(format!("[{}] {line}\r\n", guest.name).as_bytes());
                }
            }
        }
    }

    /// Takes what was typed; gives what of it is for guests, by the numbers of their consoles.
    #[must_use]
    pub fn typed(&self, keys: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut state = self.state.lock();
        let mut all: Vec<(usize, Vec<u8>)> = Vec::new();
        for &key in keys {
            let chosen = state.chosen;
            let mut give = |keys: &[u8]| match all.last_mut() {
                Some((number, before)) if *number == chosen => before.extend(keys),
                _ => all.push((chosen, keys.into())),
            };
            if !core::mem::take(&mut state.escaped) {
                if key == ESCAPE {
                    state.escaped = true
                } else {
                    give(&[key])
                }
                continue;
            }
            let count = state.guests.len();
            match key {
                b'1'..=b'9' if usize::from(key - b'1') < count => self.show(&mut state, usize::from(key - b'1')),
                b'n' if count != 0 => {
                    let next = state.shown.map_or(state.chosen, |shown| (shown + 1) % count);
                    self.show(&mut state, next);
                }
                b'0' => {
                    state.shown = None;
                    self.host.write(b"\r\n-- all guests --\r\n");
                }
                ESCAPE => give(&[ESCAPE]),
                // Not ours: the guest gets both.
                key => give(&[ESCAPE, key]),
            }
        }
        all
    }

    /// Shows one guest alone, with the last of what it wrote.
    fn show(&self, state: &mut State, number: usize) {
        (state.shown, state.chosen) = (Some(number), number);
        let Some(guest) = state.guests.get_mut(number) else { return };
        self.host.write(format!("\r\n-- {} (Ctrl-A 0: all guests) --\r\n", guest.name).as_bytes());
        self.host.write(guest.recent.make_contiguous());
    }
}

impl Console {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Output for Console {
    fn write(&mut self, bytes: &[u8]) {
        self.terminal.output(self.number, bytes);
    }
}

/// A guest's line with nothing in it that would move the terminal's cursor or colour other guests' lines.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() && c != '\t' { '.' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;
    use std::boxed::Box;

    fn terminal(files: [bool; 2]) -> (&'static TestHost, Arc<Terminal>, [Console; 2]) {
        let host: &'static TestHost = Box::leak(Box::default());
        let terminal = Terminal::new(host);
        let mut names = ["a", "b"].into_iter();
        let consoles = files.map(|to_file| terminal.console(names.next().unwrap(), to_file));
        (host, terminal, consoles)
    }

    #[test]
    fn a_guest_cannot_reach_the_terminal_through_its_lines() {
        assert_eq!(printable(b"a\x1b[2Jb\tc\xff"), "a.[2Jb\tc\u{fffd}");
    }

    #[test]
    fn all_are_shown_by_lines_and_one_as_it_comes() {
        let (host, terminal, [mut a, mut b]) = terminal([false; 2]);
        a.write(b"one\r\ntw");
        b.write(b"other\n");
        assert_eq!(host.take_written(), "[a] one\r\n[b] other\r\n");
        assert!(terminal.typed(b"\x011").is_empty());
        assert_eq!(host.take_written(), "\r\n-- a (Ctrl-A 0: all guests) --\r\none\r\ntw");
        a.write(b"o$ ");
        b.write(b"unseen\n");
        assert_eq!(host.take_written(), "o$ ");
        assert!(terminal.typed(b"\x01n").is_empty());
        assert_eq!(host.take_written(), "\r\n-- b (Ctrl-A 0: all guests) --\r\nother\nunseen\n");
        let _ = terminal.typed(b"\x010");
        a.write(b"\n");
        assert_eq!(host.take_written(), "\r\n-- all guests --\r\n[a] two$ \r\n");
    }

    #[test]
    fn keys_go_to_the_guest_that_was_chosen_last() {
        let (_, terminal, _consoles) = terminal([false; 2]);
        assert_eq!(terminal.typed(b"x\x01"), [(0, b"x".to_vec())]);
        assert_eq!(terminal.typed(b"2ls\x010\r\x01\x01\x01q\x019"), [(1, b"ls\r\x01\x01q\x019".to_vec())]);
    }

    #[test]
    fn what_goes_to_a_file_is_not_on_the_terminal() {
        let (host, _, [mut a, mut b]) = terminal([true, false]);
        a.write(b"secret\n");
        b.write(b"b\n");
        assert_eq!(host.take_written(), "[b] b\r\n");
        assert_eq!(*host.transferred.lock().unwrap(), [(0, b"secret\n".to_vec())]);
    }
}
