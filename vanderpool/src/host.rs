//! What reaches a running machine from the host: keys, the end of the input, signals.

use crate::Error;
use crate::terminal::{EscapeFilter, Request};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel,
};
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
    /// Ctrl-A x: see [`Keyboard::quits`].
    Quit,
    /// Ctrl-A d: see [`Keyboard::prompts`].
    Prompt,
    /// Nothing more will come.
    End,
}

/// What was asked for by keys that do not wait behind others.
#[derive(Debug, Default)]
struct Requests {
    quit: AtomicBool,
    prompt: AtomicBool,
}

/// Standard input, read by a thread of its own, for a read cannot be told to stop.
#[derive(Debug)]
pub struct Keyboard {
    inputs: Receiver<Input>,
    /// What is typed at the debug prompt.
    typed: Receiver<Vec<u8>>,
    requests: Arc<Requests>,
    ended: bool,
}

impl Keyboard {
    /// Reads standard input; `escape_key` looks for Ctrl-A, which belongs to a terminal.
    #[must_use]
    pub fn of_stdin(escape_key: bool) -> Self {
        if !escape_key && stdin_is_all_there() {
            return Self::of_bytes(io::stdin().lock());
        }
        // Room for a few reads: input from a pipe waits there when the guest is slow to take it. Keys must not wait, or the escape key would behind
        // those that the guest does not take.
        let (sender, inputs) = sync_channel(if escape_key { 1024 } else { 4 });
        let (prompt, typed) = channel();
        let requests = Arc::new(Requests::default());
        let reader = Reader { sender, prompt, requests: requests.clone(), escape_key };
        thread::spawn(move || reader.read(&mut io::stdin().lock()));
        Self { inputs, typed, requests, ended: false }
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
        Self { inputs, ended: true, ..Self::none() }
    }

    /// A keyboard on which nobody types.
    #[must_use]
    pub fn none() -> Self {
        Self { inputs: sync_channel(1).1, typed: channel().1, requests: Arc::default(), ended: true }
    }

    /// Ctrl-A x was typed.
    #[must_use]
    pub fn quits(&self) -> bool {
        self.requests.quit.load(Ordering::Relaxed)
    }

    /// Ctrl-A d was typed: what is typed goes to [`Keyboard::typed`] until [`Keyboard::leave_prompt`].
    #[must_use]
    pub fn prompts(&self) -> bool {
        self.requests.prompt.load(Ordering::Relaxed)
    }

    /// What is typed goes to the guest again.
    pub fn leave_prompt(&self) {
        self.requests.prompt.store(false, Ordering::Relaxed);
    }

    /// What is typed at the prompt within `limit`; `Err` when nothing more can come.
    ///
    /// # Errors
    /// When the input has ended.
    pub fn typed(&self, limit: Duration) -> Result<Option<Vec<u8>>, InputEnded> {
        match self.typed.recv_timeout(limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(InputEnded),
        }
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

/// Standard input has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputEnded;

/// Whether standard input is a file or the null device, which need not be waited for.
fn stdin_is_all_there() -> bool {
    let stdin = io::stdin();
    let Ok(status) = rustix::fs::fstat(&stdin) else { return true };
    let null = rustix::fs::stat("/dev/null")
        .is_ok_and(|null| null.st_rdev == status.st_rdev && null.st_mode == status.st_mode);
    null || rustix::fs::FileType::from_raw_mode(status.st_mode) == rustix::fs::FileType::RegularFile
}

/// Reads keys and sends them where they belong.
struct Reader {
    sender: SyncSender<Input>,
    prompt: Sender<Vec<u8>>,
    requests: Arc<Requests>,
    escape_key: bool,
}

impl Reader {
    fn read(self, source: &mut dyn Read) {
        let mut filter = EscapeFilter::default();
        let mut buffer = [0; 256];
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if !self.distribute(&buffer[..count], &mut filter) {
                return;
            }
        }
        // A receiver that is gone needs no news.
        let _ = self.sender.send(Input::End);
    }

    /// Passes keys on to the guest. False when nobody wants more.
    fn pass_on(&self, keys: Vec<u8>) -> bool {
        if self.escape_key {
            // Keys are lost where there is no room, as they are on any keyboard.
            !matches!(self.sender.try_send(Input::Bytes(keys)), Err(TrySendError::Disconnected(_)))
        } else {
            self.sender.send(Input::Bytes(keys)).is_ok()
        }
    }

    /// False when nobody wants more.
    fn distribute(&self, mut keys: &[u8], filter: &mut EscapeFilter) -> bool {
        while !keys.is_empty() {
            if self.requests.prompt.load(Ordering::Relaxed) {
                return self.prompt.send(keys.to_vec()).is_ok();
            }
            let mut guest = Vec::new();
            let request = if self.escape_key {
                let (used, request) = filter.feed(keys, &mut guest);
                keys = &keys[used..];
                request
            } else {
                guest.extend_from_slice(keys);
                keys = &[];
                None
            };
            // A request must not wait for a guest that does not take its input: then what was typed before it is lost.
            match request {
                Some(Request::Quit) => {
                    self.requests.quit.store(true, Ordering::Relaxed);
                    if !guest.is_empty() {
                        let _ = self.sender.try_send(Input::Bytes(guest));
                    }
                    let _ = self.sender.try_send(Input::Quit);
                    return false;
                }
                Some(Request::Prompt) => {
                    self.requests.prompt.store(true, Ordering::Relaxed);
                    if !guest.is_empty() {
                        let _ = self.sender.try_send(Input::Bytes(guest));
                    }
                    let _ = self.sender.try_send(Input::Prompt);
                    continue;
                }
                Some(Request::Help) => crate::terminal::print_help(),
                None => {}
            }
            if !guest.is_empty() && !self.pass_on(guest) {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(escape_key: bool, room: usize) -> (Reader, Keyboard) {
        let (sender, inputs) = sync_channel(room);
        let (prompt, typed) = channel();
        let requests = Arc::new(Requests::default());
        let keyboard = Keyboard { inputs, typed, requests: requests.clone(), ended: false };
        (Reader { sender, prompt, requests, escape_key }, keyboard)
    }

    fn read_all(text: &[u8], escape_key: bool) -> Vec<Input> {
        let (reader, keyboard) = reader(escape_key, 16);
        reader.read(&mut &text[..]);
        keyboard.inputs.iter().collect()
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
    fn a_request_does_not_wait_behind_keys_that_the_guest_does_not_take() {
        let (reader, keyboard) = reader(true, 0);
        assert!(reader.distribute(b"\x01d", &mut EscapeFilter::default()));
        assert!(keyboard.prompts() && !keyboard.quits());
        keyboard.leave_prompt();
        assert!(!reader.distribute(b"ab\x01x", &mut EscapeFilter::default()));
        assert!(keyboard.quits());
    }

    #[test]
    fn what_follows_the_prompt_key_is_typed_at_the_prompt() {
        let (reader, keyboard) = reader(true, 16);
        assert!(reader.distribute(b"ls\x01dtime\n\x01x", &mut EscapeFilter::default()));
        assert_eq!(keyboard.typed(Duration::ZERO), Ok(Some(b"time\n\x01x".to_vec())));
        assert!(!keyboard.quits());
        keyboard.leave_prompt();
        assert!(reader.distribute(b"ab", &mut EscapeFilter::default()));
        drop(reader);
        let inputs: Vec<Input> = keyboard.inputs.iter().collect();
        assert_eq!(inputs, [Input::Bytes(b"ls".to_vec()), Input::Prompt, Input::Bytes(b"ab".to_vec())]);
        assert_eq!(keyboard.typed(Duration::ZERO), Err(InputEnded));
    }

    #[test]
    fn the_end_is_told_once() {
        let (sender, inputs) = sync_channel(1);
        drop(sender);
        let mut keyboard = Keyboard { inputs, ended: false, ..Keyboard::none() };
        assert_eq!(keyboard.poll(), Some(Input::End));
        assert_eq!(keyboard.poll(), None);
        assert!(keyboard.ended());
    }
}
