//! What reaches a running machine from the host: keys, the end of the input, signals.

use crate::Error;
use crate::terminal::{EscapeFilter, Request};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

/// Signals that end the run, noted until the machine comes to look.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// Notes SIGINT, SIGTERM and SIGHUP instead of letting them end the process.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn watch() -> Result<Self, Error> {
        let signals = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let number = usize::try_from(signal).unwrap_or_default();
            signal_hook::flag::register_usize(signal, Arc::clone(&signals.last), number)
                .map_err(|e| Error::new(format!("cannot watch for signals: {e}")))?;
        }
        Ok(signals)
    }

    /// The number of the last signal that came.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        match self.last.load(Ordering::Relaxed) {
            0 => None,
            number => u8::try_from(number).ok(),
        }
    }
}

/// What came from standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes for the guest's serial port.
    Bytes(Vec<u8>),
    /// Ctrl-A x.
    Quit,
    /// Nothing more will come.
    End,
}

/// Standard input, read by a thread of its own, for a read cannot be told to stop.
#[derive(Debug)]
pub struct Keyboard {
    inputs: Receiver<Input>,
    ended: bool,
}

impl Keyboard {
    /// Reads standard input; `escape_key` looks for Ctrl-A, which belongs to a terminal.
    #[must_use]
    pub fn of_stdin(escape_key: bool) -> Self {
        if !escape_key && stdin_is_all_there() {
            return Self::of_bytes(io::stdin().lock());
        }
        // Room for a few reads: input from a pipe waits there when the guest is slow to take it.
        let (sender, inputs) = sync_channel(4);
        thread::spawn(move || read(&mut io::stdin().lock(), escape_key, &sender));
        Self { inputs, ended: false }
    }

    /// All of `source` at once: a run with such input is the same every time.
    fn of_bytes(mut source: impl Read) -> Self {
        let mut bytes = Vec::new();
        // What could be read before an error counts.
        let _ = source.read_to_end(&mut bytes);
        let (sender, inputs) = sync_channel(1);
        if !bytes.is_empty() {
            let _ = sender.send(Input::Bytes(bytes));
        }
        // Nobody has to be waited for.
        Self { inputs, ended: true }
    }

    /// A keyboard on which nobody types.
    #[must_use]
    pub fn none() -> Self {
        Self { inputs: sync_channel(1).1, ended: true }
    }

    /// What has come, without waiting.
    pub fn poll(&mut self) -> Option<Input> {
        match self.inputs.try_recv() {
            Ok(input) => Some(self.note(input)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => self.end(),
        }
    }

    /// What comes within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<Input> {
        match self.inputs.recv_timeout(limit) {
            Ok(input) => Some(self.note(input)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => self.end(),
        }
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended
    }

    fn note(&mut self, input: Input) -> Input {
        self.ended |= input == Input::End;
        input
    }

    /// The end is told once.
    fn end(&mut self) -> Option<Input> {
        let news = !self.ended;
        self.ended = true;
        news.then_some(Input::End)
    }
}

/// Whether standard input is a file or the null device, which need not be waited for.
fn stdin_is_all_there() -> bool {
    let stdin = io::stdin();
    let Ok(status) = rustix::fs::fstat(&stdin) else { return true };
    let null = rustix::fs::stat("/dev/null")
        .is_ok_and(|null| null.st_rdev == status.st_rdev && null.st_mode == status.st_mode);
    null || rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::RegularFile
}

fn read(source: &mut dyn Read, escape_key: bool, sender: &SyncSender<Input>) {
    let mut filter = EscapeFilter::default();
    let mut buffer = [0; 256];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut keys = &buffer[..count];
        while !keys.is_empty() {
            let mut guest = Vec::new();
            let request = if escape_key {
                let (used, request) = filter.feed(keys, &mut guest);
                keys = &keys[used..];
                request
            } else {
                guest.extend_from_slice(keys);
                keys = &[];
                None
            };
            if !guest.is_empty() && sender.send(Input::Bytes(guest)).is_err() {
                return;
            }
            match request {
                Some(Request::Quit) => {
                    let _ = sender.send(Input::Quit);
                    return;
                }
                Some(Request::Help) => crate::terminal::print_help(),
                None => {}
            }
        }
    }
    // A receiver that is gone needs no news.
    let _ = sender.send(Input::End);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &[u8], escape_key: bool) -> Vec<Input> {
        let (sender, receiver) = sync_channel(16);
        read(&mut &text[..], escape_key, &sender);
        drop(sender);
        receiver.iter().collect()
    }

    #[test]
    fn a_pipe_is_passed_on_as_it_is_and_its_end_is_told() {
        assert_eq!(read_all(b"a\x01x", false), [Input::Bytes(b"a\x01x".to_vec()), Input::End]);
    }

    #[test]
    fn keys_before_the_quit_key_still_reach_the_guest() {
        assert_eq!(read_all(b"ab\x01x", true), [Input::Bytes(b"ab".to_vec()), Input::Quit]);
    }

    #[test]
    fn the_end_is_told_once() {
        let (sender, inputs) = sync_channel(1);
        drop(sender);
        let mut keyboard = Keyboard { inputs, ended: false };
        assert_eq!(keyboard.poll(), Some(Input::End));
        assert_eq!(keyboard.poll(), None);
        assert!(keyboard.ended());
    }
}
