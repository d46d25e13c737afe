//! Who watches the processors of a machine: explanations, traces, counts of VM exits. None of them changes the run.

use crate::exit_statistics::ExitStatistics;
use crate::explain::Explainer;
use crate::run::Machine;
use crate::trace::Tracer;
use processor::Cpu;
use processor::observe::{Happening, Observer};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The watchers of a machine.
#[derive(Default)]
pub struct Watchers {
    /// Explains failures.
    pub explainer: Option<Explainer>,
    /// Writes a trace.
    pub tracer: Option<Tracer>,
    /// Counts VM exits.
    pub exits: Option<ExitStatistics>,
}

impl Watchers {
    fn is_empty(&self) -> bool {
        self.explainer.is_none() && self.tracer.is_none() && self.exits.is_none()
    }
}

/// Watchers that the processors share.
pub(crate) type SharedWatchers = Arc<Mutex<Watchers>>;

/// One processor's way to the watchers.
struct Watch(SharedWatchers);

impl Observer for Watch {
    fn observe(&mut self, cpu: &Cpu, what: Happening<'_>) {
        let mut watchers = lock(&self.0);
        if let Some(tracer) = &mut watchers.tracer {
            tracer.observe(cpu, what);
        }
        if let Some(exits) = &mut watchers.exits {
            exits.observe(cpu, what);
        }
        if let Some(explainer) = &mut watchers.explainer {
            explainer.observe(cpu, what);
        }
    }
}

fn lock(watchers: &SharedWatchers) -> MutexGuard<'_, Watchers> {
    watchers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    /// Has `watchers` watch all processors from now on, in the place of those before.
    pub fn watch(&mut self, watchers: Watchers) {
        let watched = !watchers.is_empty();
        let shared = Arc::new(Mutex::new(watchers));
        for cpu in &mut self.cpus {
            cpu.observer = if watched { Some(Box::new(Watch(shared.clone()))) } else { None };
        }
        for unit in crate::processors::lock(&self.board).units.iter() {
            unit.lock().set_reporting(lock(&shared).explainer.is_some());
        }
        self.watchers = shared;
    }

    /// The watchers, for what they have found.
    pub fn watchers(&self) -> MutexGuard<'_, Watchers> {
        lock(&self.watchers)
    }
}
