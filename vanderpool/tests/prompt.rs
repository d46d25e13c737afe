//! The terminal: raw mode, the escape key, the debug prompt, on a terminal as a person has it.

mod common;

use common::temporary;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

/// Firmware that sends a dot and then counts for ever, deaf to its serial port.
fn counting(name: &str) -> String {
    let mut image = vec![0x90; 0x1_0000];
    // mov dx, 0x3f8; mov al, '.'; out dx, al; inc ax; jmp to inc
    image[..9].copy_from_slice(&[0xba, 0xf8, 0x03, 0xb0, b'.', 0xee, 0x40, 0xeb, 0xfd]);
    // jmp 0
    image[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]);
    temporary(name, &image).display().to_string()
}

/// The command on a pseudoterminal.
struct Terminal {
    child: Child,
    master: File,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    deadline: Instant,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudoterminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("a name in UTF-8");
        let slave = || OpenOptions::new().read(true).write(true).open(&name).expect("the other end opens");
        let child = Command::new(env!("CARGO_BIN_EXE_vanderpool"))
            .args(arguments)
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("the command starts");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a copy");
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error tells that the other end is closed.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, master, output, seen: Vec::new(), deadline: Instant::now() + LIMIT }
    }

    fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits for `text` after what was waited for before.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        while !text.is_empty() {
            if let Some(at) = self.seen.windows(text.len()).position(|window| window == text.as_bytes()) {
                self.seen.drain(..at + text.len());
                return;
            }
            match self.output.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(_) => panic!("no {text:?} after\n{}", String::from_utf8_lossy(&self.seen)),
            }
        }
    }

    /// Types a command at the prompt and waits for what it answers.
    #[track_caller]
    fn ask(&mut self, command: &str, answer: &str) {
        self.wait_for("(vanderpool) ");
        self.send(&format!("{command}\n"));
        self.wait_for(&format!("{command}\r\n"));
        self.wait_for(answer);
    }

    fn is_in_line_mode(&self) -> bool {
        tcgetattr(&self.master).expect("the terminal's settings").local_modes.contains(LocalModes::ICANON)
    }

    /// The exit status; the terminal must be as it was.
    #[track_caller]
    fn finish(mut self) -> Option<i32> {
        while self.child.try_wait().expect("a child of ours").is_none() {
            if Instant::now() > self.deadline {
                let _ = self.child.kill();
                panic!("the command does not end");
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert!(self.is_in_line_mode(), "the terminal is left in raw mode");
        self.child.wait().expect("a child of ours").code()
    }
}

#[test]
fn the_prompt_shows_the_standing_machine_steps_and_lets_it_go_on() {
    let image = counting("prompt-counting.bin");
    let mut terminal = Terminal::start(&["boot", "--firmware", &image, "--memory", "16M", "--cpus", "2"]);
    terminal.wait_for("Ctrl-A d");
    terminal.wait_for(".");
    assert!(!terminal.is_in_line_mode());
    terminal.send("\x01d");
    terminal.wait_for("stopped at ");
    terminal.ask("help", "step [COUNT]");
    assert!(terminal.is_in_line_mode());
    terminal.ask("registers", "processor 0: Real, CPL 0, Active");
    terminal.ask("dump apic 1", "local APIC of processor 1");
    terminal.ask("cpu 1", "");
    terminal.ask("apic", "local APIC of processor 1");
    terminal.ask("cpu 0", "");
    terminal.ask("disassemble 0xffff0006 2", "inc ax");
    terminal.ask("physical 0xffff0000 4", " ba f8 03 b0");
    terminal.ask("memory 0xffff0003 3", " b0 2e ee");
    terminal.ask("explain", "no VM entry has failed on processor 0");
    terminal.ask("vmcs", "not in VMX operation");
    terminal.ask("nonsense", "there is no command \"nonsense\"");
    // Two instructions make a round of the loop.
    terminal.ask("registers", "RIP ");
    terminal.ask("step", "00000000ffff000");
    terminal.ask("step 2", "00000000ffff000");
    terminal.ask("time", " instructions");
    terminal.ask("continue", "");
    while terminal.is_in_line_mode() {
        thread::sleep(Duration::from_millis(5));
    }
    terminal.send("\x01d");
    terminal.wait_for("stopped at ");
    // Ctrl-D goes on, too.
    terminal.wait_for("(vanderpool) ");
    terminal.send("\x04");
    while terminal.is_in_line_mode() {
        thread::sleep(Duration::from_millis(5));
    }
    terminal.send("\x01d");
    terminal.ask("quit", "");
    assert_eq!(terminal.finish(), Some(0));
}

#[test]
fn the_escape_key_works_though_the_guest_takes_no_input() {
    let image = counting("prompt-deaf.bin");
    let mut terminal = Terminal::start(&["boot", "--firmware", &image, "--memory", "16M"]);
    terminal.wait_for(".");
    // More than the port and everything before it can hold.
    for _ in 0..20 {
        terminal.send(&"x".repeat(100));
        thread::sleep(Duration::from_millis(20));
    }
    terminal.send("\x01x");
    assert_eq!(terminal.finish(), Some(0));
}
