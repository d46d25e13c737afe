//! Running the command as a user does: a child process, its console, its exit status.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};
use vanderpool::debian::{Cache, Kernel};
use vanderpool::initramfs::Initramfs;

/// How long a boot may take on a slow machine with other tests beside it.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// The cache of Debian's packages.
pub fn cache() -> &'static Cache {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    CACHE.get_or_init(|| Cache::of_user(|line| eprintln!("{line}")).expect("a cache directory"))
}

/// Debian's kernel.
pub fn kernel() -> &'static Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    KERNEL.get_or_init(|| cache().kernel().expect("Debian's kernel and busybox"))
}

/// What a finished command left.
#[derive(Debug)]
pub struct Run {
    pub status: Option<i32>,
    pub console: String,
    pub errors: String,
}

impl Run {
    /// Fails with the console unless the exit status is `status`.
    #[track_caller]
    pub fn expect_status(&self, status: i32) -> &Self {
        assert_eq!(self.status, Some(status), "exit status\n{}", self.everything());
        self
    }

    /// Fails with the console unless a line has `text`.
    #[track_caller]
    pub fn expect(&self, text: &str) -> &Self {
        assert!(self.console.contains(text), "no {text:?} on the console\n{}", self.everything());
        self
    }

    /// Fails unless the script named by `vp.run` ended with 0 and the machine was powered off.
    #[track_caller]
    pub fn expect_success(&self) -> &Self {
        self.expect("vanderpool: status 0").expect("reboot: Power down").expect_status(0)
    }

    /// The rest of the line on standard error that begins with `name`.
    #[track_caller]
    pub fn reported(&self, name: &str) -> &str {
        let line = self.errors.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name:?} on standard error\n{}", self.everything())).trim()
    }

    fn everything(&self) -> String {
        let from = self.console.len().saturating_sub(6000);
        let from = (from..).find(|&i| self.console.is_char_boundary(i)).unwrap_or(0);
        format!("--- end of the console\n{}\n--- standard error\n{}", &self.console[from..], self.errors)
    }
}

/// A running command.
pub struct Session {
    child: Child,
    output: Receiver<Vec<u8>>,
    console: Vec<u8>,
    errors: thread::JoinHandle<String>,
    deadline: Instant,
}

impl Session {
    /// Starts `vanderpool` with `arguments`. It is killed after `limit`.
    pub fn start<S: AsRef<std::ffi::OsStr>>(arguments: &[S], limit: Duration) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vanderpool"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let (sender, output) = channel();
        let mut stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, output, console: Vec::new(), errors, deadline: Instant::now() + limit }
    }

    /// Types `text`.
    pub fn send(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).expect("the command reads its input");
    }

    /// Waits until the console has `text` after what was there when it was last called with true.
    pub fn wait_for(&mut self, text: &str) -> bool {
        let mut from = 0;
        loop {
            if self.console[from..].windows(text.len()).any(|w| w == text.as_bytes()) {
                return true;
            }
            from = self.console.len().saturating_sub(text.len());
            match self.output.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.console.extend(bytes),
                Err(_) => return false,
            }
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes the input, waits for the end and gives what was left.
    pub fn finish(mut self) -> Run {
        drop(self.child.stdin.take());
        loop {
            match self.output.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.console.extend(bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.child.kill().expect("a child of ours can be killed");
                    break;
                }
            }
        }
        let status = self.child.wait().expect("the command ends").code();
        let errors = self.errors.join().expect("the reader ends");
        Run { status, console: String::from_utf8_lossy(&self.console).into_owned(), errors }
    }
}

/// Runs `vanderpool` with `arguments` and no input.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S], limit: Duration) -> Run {
    Session::start(arguments, limit).finish()
}

/// The arguments that boot Debian's kernel with `image`, which runs its script when it has one.
pub fn boot_arguments(name: &str, image: Initramfs) -> Vec<String> {
    let initrd = guests::images::write(name, image).expect("an image");
    let append = format!("console=ttyS0 panic=-1 vp.run={}", guests::images::SCRIPT);
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    [
        "boot".into(),
        "--kernel".into(),
        path(&kernel().image),
        "--initrd".into(),
        path(&initrd),
        "--append".into(),
        append,
    ]
    .into()
}

/// A file in a directory for tests, made anew with `contents`.
pub fn temporary(name: &str, contents: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, contents).expect("a temporary file");
    path
}

/// Serves `body` to every request on the host's loopback; the port.
pub fn serve(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            answer(&mut stream, body);
        }
    });
    port
}

fn answer(stream: &mut TcpStream, body: &str) {
    let mut request: Vec<u8> = Vec::new();
    let mut buffer = [0; 512];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => request.extend(&buffer[..count]),
            _ => return,
        }
    }
    let head = format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}
