//! The parallel mode: each processor is run by a thread of its own, and virtual time is the host's.
//!
//! What happens depends on the host's scheduling, so no two runs are the same. The calling thread has the devices: it lets alarms act when
//! their time comes and looks at the host. Processors reach the board under its lock and carry out at once what devices then ask for. Whatever
//! concerns the whole machine (reset, sleep, a changed memory map, the end) is noted, every thread ends, and the calling thread does it as it is
//! done without threads; then new threads go on.

use crate::board::Board;
use crate::host::{Host, HostEvent};
use crate::processors::lock;
use crate::run::{Machine, Outcome};
use processor::peers::{HostClock, Peers};
use processor::{CodeCache, Cpu, RunExit};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a processor runs at most before it tells how far it is, in nanoseconds.
const LEG: u64 = 10_000_000;
/// How long the devices' thread sleeps at most, and while a device waits for the host.
const LOOK: Duration = Duration::from_millis(5);
const WAITING_LOOK: Duration = Duration::from_millis(1);
/// A processor in MWAIT looks at the monitored line so often.
const MONITOR_LOOK: Duration = Duration::from_micros(50);
/// After so many PAUSEs the host may have something better to do.
const PATIENCE: u32 = 16;
/// Of a processor's thread: handlers are called from handlers where the compiler makes no jumps of that.
const STACK: usize = 16 << 20;

/// What the threads share beside guest memory and the board.
pub struct Shared {
    /// The processors.
    pub peers: Arc<Peers>,
    /// Every thread is to end.
    stopping: AtomicBool,
    /// How long the devices' thread sleeps, in virtual time.
    sleeps_until: AtomicU64,
    /// It is to look before that.
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Shared {
    fn new(processors: usize) -> Arc<Self> {
        Arc::new(Self {
            peers: Peers::new(processors),
            stopping: AtomicBool::new(false),
            sleeps_until: AtomicU64::new(0),
            rung: Mutex::new(false),
            bell: Condvar::new(),
        })
    }

    /// Ends all threads.
    fn stop(&self) {
        self.stopping.store(true, SeqCst);
        self.peers.kick_all();
        self.ring();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_one();
    }

    /// Sleeps until it is rung, for `limit` at most.
    fn sleep(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) =
            self.bell.wait_timeout_while(rung, limit, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }

    /// Carries out what devices have asked for.
    pub fn carry_out(&self, board: &mut Board) {
        board.settle();
        for (sender, message) in std::mem::take(&mut board.messages) {
            self.peers.send(sender, &message);
        }
        if let Some(level) = board.pic_output.take() {
            self.peers.set_interrupt_pin(level);
        }
        if board.map_changed || !board.power_requests.is_empty() {
            self.stop();
        } else if board.next_alarm() < self.sleeps_until.load(SeqCst) {
            self.ring();
        }
    }
}

/// What a machine with threads has.
pub struct Parallel {
    pub(crate) shared: Arc<Shared>,
    /// Each processor's decoded code.
    codes: Vec<CodeCache>,
}

impl Parallel {
    /// For as many processors as there are caches.
    pub(crate) fn new(codes: Vec<CodeCache>) -> Self {
        let codes: Vec<_> = codes.into_iter().enumerate().map(|(index, code)| code.of_processor(index)).collect();
        Self { shared: Shared::new(codes.len()), codes }
    }
}

/// How a processor's thread ended when not because it was told to.
type Fault = Mutex<Option<usize>>;

/// Ends all threads when this one ends, whatever the reason.
struct EndsAll<'a>(&'a Shared);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs one processor until all threads are to end.
fn drive(cpu: &mut Cpu, code: &mut CodeCache, shared: &Shared, clock: HostClock, fault: &Fault) {
    let _guard = EndsAll(shared);
    let mut pauses = 0u32;
    while !shared.is_stopping() {
        match cpu.run(code, clock.now() + LEG) {
            RunExit::Idle => shared.peers.sleep(cpu.index, time_to_sleep(cpu, clock)),
            RunExit::Yield => {
                pauses = pauses.wrapping_add(1);
                if pauses.is_multiple_of(PATIENCE) { thread::yield_now() } else { std::hint::spin_loop() }
            }
            RunExit::TripleFault => {
                *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(cpu.index);
                return;
            }
            // Nobody debugs a machine with threads.
            RunExit::Kicked | RunExit::Deadline | RunExit::Service | RunExit::Debug => {}
        }
    }
}

/// How long a processor that is halted has nothing to do. `None`: for ever.
fn time_to_sleep(cpu: &Cpu, clock: HostClock) -> Option<Duration> {
    let deadline = cpu.next_deadline();
    let left = (deadline != u64::MAX).then(|| Duration::from_nanos(deadline.saturating_sub(clock.now())));
    if cpu.monitor.waiting { Some(left.map_or(MONITOR_LOOK, |left| left.min(MONITOR_LOOK))) } else { left }
}

/// The devices' thread.
struct Devices<'a> {
    board: &'a Mutex<Board>,
    typed: &'a mut VecDeque<u8>,
    shared: &'a Shared,
    clock: HostClock,
}

impl Devices<'_> {
    /// Until all threads are to end.
    fn drive(&mut self, host: &mut dyn Host, limit: Option<u64>) -> Option<Outcome> {
        while !self.shared.is_stopping() {
            let now = self.clock.now();
            let (alarm, waiting) = {
                let mut board = lock(self.board);
                if board.next_alarm() <= now {
                    board.run_alarms(now);
                }
                board.poll_host(now);
                self.shared.carry_out(&mut board);
                (board.next_alarm(), board.waiting_for_host())
            };
            if self.look_at_host(host) {
                return Some(Outcome::Interrupted);
            }
            if limit.is_some_and(|limit| self.shared.peers.retired() >= limit) {
                return Some(Outcome::InstructionLimit);
            }
            if alarm == u64::MAX && !waiting && !host.interactive() && self.shared.peers.all_sleep_for_good() {
                return Some(Outcome::Idle);
            }
            self.shared.sleeps_until.store(alarm, SeqCst);
            // What was set meanwhile did not ring.
            if lock(self.board).next_alarm() < alarm {
                continue;
            }
            let longest = if waiting { WAITING_LOOK } else { LOOK };
            self.shared.sleep(Duration::from_nanos(alarm.saturating_sub(self.clock.now())).min(longest));
        }
        None
    }

    /// Takes what the host has. True when the run shall end.
    fn look_at_host(&mut self, host: &mut dyn Host) -> bool {
        if host.interrupts() {
            return true;
        }
        while self.typed.is_empty() {
            match host.poll() {
                Some(HostEvent::Serial(bytes)) => self.typed.extend(bytes),
                Some(HostEvent::Stop) => return true,
                None => break,
            }
        }
        if !self.typed.is_empty() {
            let mut board = lock(self.board);
            board.wires.set_now(self.clock.now());
            let taken = board.type_bytes(self.typed.make_contiguous());
            self.shared.carry_out(&mut board);
            self.typed.drain(..taken);
        }
        false
    }
}

impl Machine {
    /// As [`Machine::run`], with a thread for each processor.
    pub(crate) fn run_parallel(&mut self, host: &mut dyn Host, limit: Option<u64>) -> Outcome {
        loop {
            self.service();
            if let Some(outcome) = self.see_to_requests() {
                return outcome;
            }
            let outcome = if self.asleep { self.sleep_through(host) } else { self.run_threads(host, limit) };
            self.service();
            // What the guest did comes before what the host wants.
            if self.end.is_none()
                && let Some(outcome) = outcome
            {
                return outcome;
            }
        }
    }

    /// Runs all processors until something concerns the whole machine.
    fn run_threads(&mut self, host: &mut dyn Host, limit: Option<u64>) -> Option<Outcome> {
        let Some(Parallel { shared, codes }) = &mut self.parallel else { return None };
        let clock = HostClock::starting_at(self.now);
        let fault = Fault::default();
        shared.stopping.store(false, SeqCst);
        for cpu in &mut self.cpus {
            cpu.join(shared.peers.clone(), clock);
        }
        let shared: &Shared = shared;
        let mut devices = Devices { board: &self.board, typed: &mut self.typed, shared, clock };
        let outcome = thread::scope(|scope| {
            let _guard = EndsAll(shared);
            for (cpu, code) in self.cpus.iter_mut().zip(codes) {
                let (index, fault) = (cpu.index, &fault);
                let thread = thread::Builder::new().name(format!("processor {index}")).stack_size(STACK);
                let spawned = thread.spawn_scoped(scope, move || drive(cpu, code, shared, clock, fault));
                // The host has no threads left: nothing can go on.
                if spawned.is_err() {
                    return Some(Outcome::Interrupted);
                }
            }
            devices.drive(host, limit)
        });
        self.now = clock.now();
        let faulted = fault.into_inner().unwrap_or_else(PoisonError::into_inner);
        faulted.map(|processor| self.triple_fault(processor)).or(outcome)
    }

    /// Sleep state S3: time passes until the next alarm.
    fn sleep_through(&mut self, host: &mut dyn Host) -> Option<Outcome> {
        let clock = HostClock::starting_at(self.now);
        let left = lock(&self.board).next_alarm().saturating_sub(self.now);
        let event = host.wait(Duration::from_nanos(left).min(LOOK));
        self.now = clock.now();
        self.run_due_alarms();
        (host.interrupts() || event == Some(HostEvent::Stop)).then_some(Outcome::Interrupted)
    }
}
