//! The user's terminal as the guest's serial console: raw mode, the escape key, and the promise that the terminal is as it was
//! when the command has ended, however it ended.

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The escape key: Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What Ctrl-A h prints.
const HELP: &str = "\r\n\
    Ctrl-A x       end the machine\r\n\
    Ctrl-A d       debug prompt: the machine stands still\r\n\
    Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n\
    Ctrl-A 1 to 9  with `run`: show one guest alone and type to it; Ctrl-A n the next, Ctrl-A 0 all\r\n\
    Ctrl-A h       this help\r\n";

/// The settings to go back to; here, not in the guard, so that the panic hook reaches them.
static ORIGINAL: Mutex<Option<Termios>> = Mutex::new(None);

/// Standard input in raw mode, until dropped. When standard input is no terminal, nothing is changed.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Sets raw mode: keys, Ctrl-C among them, go to the guest one by one and are not echoed.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let original = termios::tcgetattr(&stdin)?;
            let mut raw = original.clone();
            raw.make_raw();
            *ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(original);
            restore_on_panic();
            termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        }
        Ok(Self(()))
    }

    /// The terminal as it is, for a console that is not on it.
    #[must_use]
    pub fn none() -> Self {
        Self(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Control characters that end a line of the prompt.
pub const CTRL_C: u8 = 0x03;
/// The same.
pub const CTRL_D: u8 = 0x04;

/// The terminal of a [`RawMode`] gives lines, which can be edited, until dropped. Ctrl-C and Ctrl-D are characters that end a line.
#[derive(Debug)]
pub struct Cooked(());

impl Cooked {
    /// Sets line mode.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Self> {
        let original = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(original) = &*original {
            let mut cooked = original.clone();
            cooked.local_modes -= LocalModes::ISIG;
            // An end of the input would be one for ever.
            cooked.special_codes[SpecialCodeIndex::VEOF] = 0;
            cooked.special_codes[SpecialCodeIndex::VEOL] = CTRL_D;
            cooked.special_codes[SpecialCodeIndex::VEOL2] = CTRL_C;
            termios::tcsetattr(io::stdin(), OptionalActions::Now, &cooked)?;
        }
        Ok(Self(()))
    }
}

impl Drop for Cooked {
    fn drop(&mut self) {
        let original = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(original) = &*original {
            let mut raw = original.clone();
            raw.make_raw();
            // Nothing is left to do when this fails.
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
        }
    }
}

/// Gives the terminal its own settings back. May be called at any time and more than once.
pub fn restore() {
    let original = ORIGINAL.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(original) = original {
        // Nothing is left to do when this fails.
        let _ = io::stdout().flush();
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &original);
    }
}

/// Restores before the message of a panic in any thread is printed.
fn restore_on_panic() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |information| {
            restore();
            previous(information);
        }));
    });
}

/// What a key asks for, apart from going to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Ctrl-A x.
    Quit,
    /// Ctrl-A d.
    Prompt,
    /// Ctrl-A h.
    Help,
}

/// Separates the keys for the guest from those for us.
#[derive(Debug, Clone, Default)]
pub struct EscapeFilter {
    escaped: bool,
}

impl EscapeFilter {
    /// Appends to `guest` what is for the guest; stops at a request, with the number of bytes used.
    pub fn feed(&mut self, keys: &[u8], guest: &mut Vec<u8>) -> (usize, Option<Request>) {
        for (index, &key) in keys.iter().enumerate() {
            match (self.escaped, key) {
                (false, ESCAPE) => self.escaped = true,
                (false, key) => guest.push(key),
                (true, key) => {
                    self.escaped = false;
                    match key {
                        b'x' | b'X' => return (index + 1, Some(Request::Quit)),
                        b'd' | b'D' => return (index + 1, Some(Request::Prompt)),
                        b'h' | b'H' | b'?' => return (index + 1, Some(Request::Help)),
                        ESCAPE => guest.push(ESCAPE),
                        // Not ours: the guest gets both.
                        key => guest.extend([ESCAPE, key]),
                    }
                }
            }
        }
        (keys.len(), None)
    }
}

/// Prints the help of the escape key.
pub fn print_help() {
    eprint!("{HELP}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(keys: &[u8]) -> (Vec<u8>, Option<Request>) {
        let mut guest = Vec::new();
        let (_, request) = EscapeFilter::default().feed(keys, &mut guest);
        (guest, request)
    }

    #[test]
    fn ordinary_keys_go_to_the_guest_ctrl_c_among_them() {
        assert_eq!(feed(b"ls\r\x03"), (b"ls\r\x03".to_vec(), None));
    }

    #[test]
    fn ctrl_a_x_quits_and_what_came_before_is_kept() {
        assert_eq!(feed(b"ab\x01xcd"), (b"ab".to_vec(), Some(Request::Quit)));
    }

    #[test]
    fn ctrl_a_twice_sends_it_once() {
        assert_eq!(feed(b"\x01\x01e"), (b"\x01e".to_vec(), None));
    }

    #[test]
    fn an_escape_may_be_split_over_two_reads() {
        let mut filter = EscapeFilter::default();
        let mut guest = Vec::new();
        assert_eq!(filter.feed(b"a\x01", &mut guest), (2, None));
        assert_eq!(filter.feed(b"h", &mut guest), (1, Some(Request::Help)));
        assert_eq!(guest, b"a");
    }
}
