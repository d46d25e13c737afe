//! One engine: its registers, and how far it has come.

use crate::pci::ats::Attributes;
use crate::ports::Nanoseconds;
use serde::{Deserialize, Serialize};
use spec::dma_tester::{Failure, Flags, State, engine};

/// No run takes less, whatever [`engine::DELAY`] says.
const SHORTEST_DELAY: Nanoseconds = 1000;

/// What an engine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Waits for its time.
    Running {
        /// When.
        due: Nanoseconds,
    },
    /// Waits for the response to a page request.
    Waiting,
    /// All runs are made.
    Done,
    /// A request failed: a [`Failure`].
    Failed(u8),
}

/// An engine; at the same time its saved state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    pub(super) source: u64,
    pub(super) destination: u64,
    pub(super) length: u32,
    pub(super) pasid: u32,
    pub(super) flags: u32,
    pub(super) delay: u32,
    pub(super) runs: u32,
    pub(super) phase: Phase,
    pub(super) moved: u32,
    pub(super) failed_at: u64,
    pub(super) sum: u64,
    /// Runs that are still to be made.
    pub(super) left: u32,
    /// Page requests since something was moved.
    pub(super) attempts: u8,
}

impl Engine {
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// What its requests have besides the address.
    pub(super) fn attributes(&self, write: bool) -> Attributes {
        let with_pasid = self.has(Flags::PASID);
        Attributes {
            pasid: with_pasid.then_some(self.pasid),
            privileged: with_pasid && self.has(Flags::PRIVILEGED),
            execute: with_pasid && !write && self.has(Flags::EXECUTE),
            translated: self.has(Flags::TRUSTED),
        }
    }

    /// Registers, as they are read.
    pub(super) fn read(&self, offset: u64) -> u64 {
        match offset {
            engine::SOURCE => self.source,
            engine::DESTINATION => self.destination,
            engine::LENGTH => self.length.into(),
            engine::PASID => self.pasid.into(),
            engine::FLAGS => self.flags.into(),
            engine::STATUS => self.status().into(),
            engine::MOVED => self.moved.into(),
            engine::FAILED_AT => self.failed_at,
            engine::SUM => self.sum,
            engine::DELAY => self.delay.into(),
            engine::RUNS => self.runs.into(),
            _ => 0,
        }
    }

    fn status(&self) -> u32 {
        match self.phase {
            Phase::Idle => State::Idle as u32,
            Phase::Running { .. } => State::Running as u32,
            Phase::Waiting => State::Waiting as u32,
            Phase::Done => State::Done as u32,
            Phase::Failed(failure) => State::Failed as u32 | u32::from(failure) << 8,
        }
    }

    /// It is under way: its registers are not to be written.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Waiting)
    }

    /// Writes a register other than the command.
    pub(super) fn write(&mut self, offset: u64, value: u64) {
        match offset {
            engine::SOURCE => self.source = value,
            engine::DESTINATION => self.destination = value,
            engine::LENGTH => self.length = value as u32,
            engine::PASID => self.pasid = value as u32 & 0xf_ffff,
            engine::FLAGS => self.flags = value as u32 & Flags::ALL,
            engine::DELAY => self.delay = value as u32,
            engine::RUNS => self.runs = value as u32,
            _ => {}
        }
    }

    /// Starts all runs.
    pub(super) fn start(&mut self, now: Nanoseconds) {
        self.left = self.runs.max(1);
        (self.failed_at, self.attempts) = (0, 0);
        self.start_run(now);
    }

    /// Starts one run. A byte takes a nanosecond.
    pub(super) fn start_run(&mut self, now: Nanoseconds) {
        (self.moved, self.sum) = (0, 0);
        let time = Nanoseconds::from(self.delay).max(SHORTEST_DELAY) + Nanoseconds::from(self.length);
        self.phase = Phase::Running { due: now.saturating_add(time) };
    }

    pub(super) fn due(&self) -> Option<Nanoseconds> {
        match self.phase {
            Phase::Running { due } => Some(due),
            _ => None,
        }
    }

    pub(super) fn fail(&mut self, failure: Failure, at: u64) {
        (self.phase, self.failed_at) = (Phase::Failed(failure as u8), at);
    }
}
