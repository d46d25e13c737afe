//! How the programs of a test suite ended, and how many in which way.

use std::fmt;
use std::time::Duration;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Skip(String),
    Fail(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("PASS"),
            Self::Skip(why) => write!(f, "SKIP {why}"),
            Self::Fail(why) => write!(f, "FAIL {why}"),
        }
    }
}

/// Prints each test as it ends, and counts.
#[derive(Default)]
pub struct Tally {
    passed: usize,
    skipped: usize,
    failed: usize,
}

impl Tally {
    /// The test `name` ended so after `time`.
    pub fn note(&mut self, name: &str, outcome: &Outcome, time: Duration) {
        println!("{name:<44} {outcome} ({:.1} s)", time.as_secs_f64());
        *match outcome {
            Outcome::Pass => &mut self.passed,
            Outcome::Skip(_) => &mut self.skipped,
            Outcome::Fail(_) => &mut self.failed,
        } += 1;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} skipped, {} failed", self.passed, self.skipped, self.failed)
    }
}
