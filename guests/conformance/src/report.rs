//! What is printed, and the counts.

use bare::{cpu, println};
use core::fmt::Display;

/// The counts so far.
#[derive(Debug)]
pub struct Report {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// Whether failed entries are told to who runs the machine.
    signals: bool,
}

impl Report {
    /// No case yet.
    #[must_use]
    pub fn new(signals: bool) -> Self {
        Self { passed: 0, failed: 0, skipped: 0, signals }
    }

    /// The case did what the manual says.
    pub fn ok(&mut self, kind: &str, name: impl Display, number: usize) {
        self.passed += 1;
        println!("ok   {kind} {name} {number}");
    }

    /// The case did not.
    pub fn fail(&mut self, kind: &str, name: impl Display, number: usize, why: impl Display) {
        self.failed += 1;
        println!("FAIL {kind} {name} {number}: {why}");
    }

    /// The case is for other processors.
    pub fn skip(&mut self, kind: &str, name: impl Display, number: usize, why: impl Display) {
        self.skipped += 1;
        println!("skip {kind} {name} {number}: {why}");
    }

    /// An entry has just failed the check with this number.
    pub fn failed_check(&self, number: u16) {
        if self.signals {
            cpu::signal(number + 0x100);
        }
    }

    /// Prints the counts and ends the run: 0 when no case failed.
    pub fn finish(&self) -> ! {
        println!("conformance: {} ok, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        cpu::end(u8::from(self.failed != 0 || self.passed == 0))
    }
}
