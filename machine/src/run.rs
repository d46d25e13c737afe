//! The machine, and how it runs.
//!
//! The processors take turns on one host thread. There is one virtual time: while a processor has its turn, time advances with its
//! instructions; the others stand still and take up at that time. When none can run, time jumps to the next alarm or timer.

use crate::board::Board;
use crate::boot::firmware::{FirmwareConfig, fw_cfg_items, sata_path, virtio_block_path};
use crate::boot::{self, DirectBoot};
use crate::config::{Boot, Config, Engine};
use crate::error::Error;
use crate::host::{Host, HostEvent};
use crate::memory::BoardMemory;
use crate::parallel::Parallel;
use crate::processors::{BoardBus, lock, start};
use chipset::acpi::{AcpiConfig, AcpiTables};
use chipset::memory_map::RamLayout;
use devices::ports::PowerRequest;
use processor::apic::targets;
use processor::debugger::Stopped;
use processor::models::Model;
use processor::{CodeCache, Cpu, RunExit};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Virtual nanoseconds of one turn when several processors run.
const TURN: u64 = 20_000;
/// Virtual nanoseconds between two looks at the host.
const HOST_INTERVAL: u64 = 2_000_000;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched the power off.
    PowerOff,
    /// The guest asked for a reset, and the machine is not to start again.
    Reset,
    /// `isa-debug-exit` with this exit status.
    DebugExit(u32),
    /// Triple fault of processor `processor`; `state` is a readable dump.
    TripleFault {
        /// The processor's number.
        processor: usize,
        /// Registers, segments, the code at RIP.
        state: String,
    },
    /// The host asked to stop.
    Interrupted,
    /// The limit of instructions was reached.
    InstructionLimit,
    /// Every processor is halted and nothing can wake one.
    Idle,
    /// A processor met what the debugger asked for. The machine is in the middle of a turn, which the next run takes up.
    Debug {
        /// The processor's number.
        processor: usize,
        /// Why.
        stopped: Stopped,
    },
}

/// What a boot needs again after a reset.
pub(crate) enum Starter {
    Direct {
        name: String,
        kernel: Vec<u8>,
        initrd: Option<Vec<u8>>,
        initrd_name: String,
        command_line: String,
        acpi: Box<AcpiTables>,
    },
    Firmware,
}

/// A machine.
pub struct Machine {
    pub(crate) cpus: Vec<Cpu>,
    pub(crate) code: CodeCache,
    pub(crate) board: Arc<Mutex<Board>>,
    model: Arc<Model>,
    pub(crate) starter: Starter,
    reboot: bool,
    /// The virtual time of processors that are not running now.
    pub(crate) now: u64,
    /// The processor whose turn it is.
    pub(crate) turn: usize,
    /// The turn in which the debugger stopped the run.
    pub(crate) paused: Option<Paused>,
    /// When its turn ends, if it has begun.
    pub(crate) turn_end: Option<u64>,
    /// When the host is looked at next.
    pub(crate) next_look: u64,
    /// The last time at which the host was looked at because every processor was idle.
    pub(crate) idle_looked: Option<u64>,
    pub(crate) typed: VecDeque<u8>,
    pub(crate) end: Option<Outcome>,
    pub(crate) reset_wanted: bool,
    /// The guest has asked for sleep state S3.
    pub(crate) sleep_wanted: bool,
    /// In sleep state S3: nothing runs until something wakes the machine.
    pub(crate) asleep: bool,
    /// Who watches the processors.
    pub(crate) watchers: crate::watch::SharedWatchers,
    /// Where each processor has a thread of its own.
    pub(crate) parallel: Option<Parallel>,
}

impl Machine {
    /// Builds the machine and loads what it boots.
    ///
    /// # Errors
    /// When the configuration cannot be: each error is one line that says what is wrong.
    pub fn new(mut config: Config) -> Result<Self, Error> {
        if !(1..=255).contains(&config.processors) {
            return Err(Error::Processors(config.processors));
        }
        if config.memory < 1 << 20 || config.memory > 1 << 40 {
            return Err(Error::Memory(config.memory));
        }
        config.memory = config.memory.next_multiple_of(processor::memory::ram::PAGE_SIZE);
        if config.threads && !cfg!(target_arch = "x86_64") {
            return Err(Error::ThreadsOnHost);
        }
        if config.threads && config.iommu.is_some() {
            return Err(Error::ThreadsWithIommu);
        }
        if let Some(iommu) = &mut config.iommu {
            iommu.unit.host_address_width = config.model.physical_bits;
        }
        let layout = RamLayout::new(config.memory);
        if let Some(iommu) = &config.iommu {
            crate::iommu::check(iommu, layout)?;
        }
        let processors = config.processors as u8;
        let acpi = AcpiTables::new(&AcpiConfig {
            ram: layout,
            processors,
            serial_ports: crate::board::SERIAL_PORTS[..config.serial.len().min(4)].to_vec(),
            keyboard_controller: true,
            iommu: config.iommu.as_ref().map(crate::iommu::acpi),
        });
        let boot = std::mem::replace(
            &mut config.boot,
            Boot::Direct {
                name: String::new(),
                kernel: Vec::new(),
                initrd: None,
                initrd_name: String::new(),
                command_line: String::new(),
            },
        );
        let first_disk = if config.network.is_some() { 2 } else { 1 };
        let sata = (0..config.sata.len()).map(|port| sata_path(port as u8));
        let virtio = (0..config.disks.len()).map(|i| virtio_block_path(first_disk + i as u8, 0));
        let order: Vec<String> = sata.chain(virtio).collect();
        // Kernels booted directly may look here too: kvm-unit-tests counts its processors by it.
        let items = fw_cfg_items(&FirmwareConfig {
            ram: layout,
            processors,
            acpi: &acpi,
            serial_console: (!config.serial.is_empty()).then_some(crate::board::SERIAL_PORTS[0].0),
            boot_order: &order,
            boot_menu_wait: None,
        })?;
        let (starter, firmware) = match boot {
            Boot::Direct { name, kernel, initrd, initrd_name, command_line } => {
                (Starter::Direct { name, kernel, initrd, initrd_name, command_line, acpi: Box::new(acpi) }, None)
            }
            Boot::Firmware(firmware) => (Starter::Firmware, Some(firmware)),
        };
        let memory = BoardMemory::new(config.memory, firmware.as_ref())?;
        let ram = memory.ram.clone();
        let model = Arc::new(config.model.clone());
        let board = Arc::new(Mutex::new(Board::new(&mut config, memory, Some(items))?));
        let map = Arc::new(lock(&board).memory_map());
        let new_cache = || {
            let mut code = CodeCache::new(|feature| processor::decode::announced::announces(&model, feature));
            let translates = config.engine == Engine::Translator && code.use_tuned_translator(config.tuning);
            (code, translates)
        };
        let parallel = config.threads.then(|| Parallel::new((0..config.processors).map(|_| new_cache().0).collect()));
        let shared = parallel.as_ref().map(|parallel| parallel.shared.clone());
        if let Some(shared) = &shared {
            ram.share(shared.peers.clone());
        }
        let mut cpus: Vec<Cpu> = (0..config.processors)
            .map(|index| {
                let bus = Box::new(BoardBus::new(board.clone(), index, shared.clone()));
                Cpu::new(index, ram.clone(), map.clone(), bus).with_model(model.clone(), config.processors as u32)
            })
            .collect();
        let (code, translates) = new_cache();
        if translates {
            for cpu in &mut cpus {
                cpu.use_translator();
            }
        }
        let mut machine = Self {
            cpus,
            code,
            board,
            model,
            starter,
            reboot: config.reboot,
            now: 0,
            turn: 0,
            paused: None,
            turn_end: None,
            next_look: 0,
            idle_looked: None,
            typed: VecDeque::new(),
            end: None,
            reset_wanted: false,
            sleep_wanted: false,
            asleep: false,
            watchers: Default::default(),
            parallel,
        };
        machine.start()?;
        Ok(machine)
    }

    /// The processor model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Instructions retired by all processors.
    pub fn instructions(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.instructions).sum()
    }

    /// Virtual nanoseconds since power-on.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The processors.
    pub fn processors(&self) -> &[Cpu] {
        &self.cpus
    }

    /// Loads what is booted, after power-on or reset.
    fn start(&mut self) -> Result<(), Error> {
        let mut board = lock(&self.board);
        if let Starter::Direct { name, kernel, initrd, initrd_name, command_line, acpi } = &self.starter {
            board.configure()?;
            let state = boot::load(
                &mut board.memory,
                &DirectBoot { name, kernel, initrd: initrd.as_deref(), initrd_name, command_line, acpi: Some(acpi) },
            )?;
            start(&mut self.cpus[0], &state);
        }
        drop(board);
        self.renew_map();
        self.service();
        Ok(())
    }

    pub(crate) fn renew_map(&mut self) {
        let map = Arc::new(lock(&self.board).memory_map());
        for cpu in &mut self.cpus {
            cpu.map = map.clone();
            cpu.tlb.flush_all();
        }
    }

    /// Everything as after power-on, but time goes on.
    ///
    /// # Errors
    /// When what is booted cannot be loaded again.
    pub fn reset(&mut self) -> Result<(), Error> {
        lock(&self.board).reset();
        self.power_on_processors();
        (self.turn, self.turn_end) = (0, None);
        self.paused = None;
        self.asleep = false;
        self.start()
    }

    /// The processors are as after power-on.
    pub(crate) fn power_on_processors(&mut self) {
        if let Some(parallel) = &self.parallel {
            parallel.shared.peers.forget_interrupts();
        }
        self.cpus.iter_mut().for_each(Cpu::power_on);
    }

    /// Carries out what devices and processors have asked of the board.
    pub(crate) fn service(&mut self) {
        let mut board = lock(&self.board);
        board.settle();
        for unit in board.units.iter() {
            let reports = unit.lock().take_reports();
            if !reports.is_empty()
                && let Some(explainer) = &mut self.watchers().explainer
            {
                reports.iter().for_each(|report| explainer.blocked(report, self.now));
            }
        }
        let messages = std::mem::take(&mut board.messages);
        let pic_output = board.pic_output.take();
        let map_changed = std::mem::take(&mut board.map_changed);
        for request in std::mem::take(&mut board.power_requests) {
            match request {
                PowerRequest::PowerOff => self.end = Some(Outcome::PowerOff),
                PowerRequest::Exit(status) => self.end = Some(Outcome::DebugExit(status)),
                PowerRequest::SuspendToRam => self.sleep_wanted = true,
                PowerRequest::Reset => self.reset_wanted = true,
            }
        }
        drop(board);
        for (sender, message) in messages {
            for index in targets(self.cpus.iter().map(|cpu| cpu.apic.address()), sender, &message) {
                self.catch_up(index);
                self.cpus[index].accept(&message);
            }
        }
        if let Some(level) = pic_output {
            self.cpus[0].set_interrupt_pin(level);
        }
        if map_changed {
            self.renew_map();
        }
    }

    /// Brings a processor that stood still to the present.
    fn catch_up(&mut self, index: usize) {
        let cpu = &mut self.cpus[index];
        let behind = self.now.saturating_sub(cpu.now());
        cpu.idle_time += behind;
    }

    /// Runs until the machine ends, at most until `limit` instructions have been retired.
    ///
    /// Where a limit cuts the run makes no difference to what the machine does when it is run on.
    pub fn run(&mut self, host: &mut dyn Host, limit: Option<u64>) -> Outcome {
        if self.parallel.is_some() {
            return self.run_parallel(host, limit);
        }
        loop {
            if let Some(outcome) = self.see_to_requests() {
                return outcome;
            }
            if self.paused.is_none() && self.now >= self.next_look {
                self.next_look = self.now + HOST_INTERVAL;
                if self.look_at_host(host) {
                    return Outcome::Interrupted;
                }
            }
            let until = self.next_look.min(lock(&self.board).next_alarm());
            let mut cut = u64::MAX;
            if let Some(limit) = limit {
                let left = limit.saturating_sub(self.instructions());
                if left == 0 && self.paused.is_none() {
                    return Outcome::InstructionLimit;
                }
                cut = self.now.saturating_add(left);
            }
            let turn = if self.asleep { Turn::AllIdle } else { self.run_turn(until, cut) };
            match turn {
                Turn::Ran => {}
                Turn::Debug(processor, stopped) => return Outcome::Debug { processor, stopped },
                Turn::TripleFault(processor) => return self.triple_fault(processor),
                // What a processor has just sent may already be answered: time is not skipped past the answer.
                Turn::AllIdle if self.idle_looked != Some(self.now) => {
                    self.idle_looked = Some(self.now);
                    if self.look_at_host(host) {
                        return Outcome::Interrupted;
                    }
                }
                Turn::AllIdle => {
                    if let Some(outcome) = self.pass_idle_time(host) {
                        return outcome;
                    }
                }
            }
            self.run_due_alarms();
        }
    }

    /// Sees to what the guest has asked of the machine as a whole. Gives how the run ends, if it does.
    pub(crate) fn see_to_requests(&mut self) -> Option<Outcome> {
        if let Some(outcome) = self.end.take() {
            return Some(outcome);
        }
        if std::mem::take(&mut self.reset_wanted) && (!self.reboot || self.reset().is_err()) {
            return Some(Outcome::Reset);
        }
        if std::mem::take(&mut self.sleep_wanted) {
            self.fall_asleep();
        }
        if self.asleep {
            self.wake_if_due();
        }
        None
    }

    /// The end by a triple fault of `processor`.
    pub(crate) fn triple_fault(&self, processor: usize) -> Outcome {
        let why = crate::explain::triple_fault(&self.cpus[processor]);
        Outcome::TripleFault { processor, state: format!("{why}{}", self.describe(processor)) }
    }

    pub(crate) fn run_due_alarms(&mut self) {
        let mut board = lock(&self.board);
        if board.next_alarm() <= self.now {
            board.run_alarms(self.now);
            drop(board);
            self.service();
        }
    }

    /// Gives one processor its turn, the first that can run. At `cut` it is left off in the middle.
    fn run_turn(&mut self, until: u64, cut: u64) -> Turn {
        let count = self.cpus.len();
        for _ in 0..count {
            let Paused { index, end, before } = match self.paused.take() {
                Some(paused) => paused,
                None => {
                    let index = self.turn;
                    let turn_end = *self.turn_end.get_or_insert(if count > 1 { self.now + TURN } else { u64::MAX });
                    self.catch_up(index);
                    Paused { index, end: until.min(turn_end), before: self.cpus[index].instructions }
                }
            };
            let stop = end.min(cut);
            loop {
                let cpu = &mut self.cpus[index];
                let exit = cpu.run(&mut self.code, stop);
                self.now = self.now.max(cpu.now());
                match exit {
                    RunExit::Service => {
                        self.service();
                        if self.end.is_some() || self.reset_wanted || self.sleep_wanted {
                            return Turn::Ran;
                        }
                        // The alarm that bounds this turn may have been set anew.
                        if lock(&self.board).next_alarm() < end {
                            return Turn::Ran;
                        }
                    }
                    RunExit::TripleFault => return Turn::TripleFault(index),
                    RunExit::Debug => {
                        let stopped = cpu.take_stopped().unwrap_or(Stopped::Step);
                        self.paused = Some(Paused { index, end, before });
                        return Turn::Debug(index, stopped);
                    }
                    RunExit::Deadline if stop < end => return Turn::Ran,
                    RunExit::Deadline | RunExit::Idle | RunExit::Yield | RunExit::Kicked => break,
                }
            }
            self.turn = (index + 1) % count;
            self.turn_end = None;
            if self.cpus[index].instructions != before {
                return Turn::Ran;
            }
        }
        Turn::AllIdle
    }

    /// Nobody can run: time passes until something happens.
    fn pass_idle_time(&mut self, host: &mut dyn Host) -> Option<Outcome> {
        let timers = self.cpus.iter().map(Cpu::next_deadline).min().unwrap_or(u64::MAX);
        let (alarm, waiting) = {
            let mut board = lock(&self.board);
            (board.next_alarm(), board.waiting_for_host())
        };
        let next = timers.min(alarm);
        if next <= self.now {
            return None;
        }
        if !host.interactive() && !waiting {
            if next == u64::MAX {
                return Some(Outcome::Idle);
            }
            self.now = next;
            return None;
        }
        // Somebody or something outside may act first: real time passes.
        let ahead = Duration::from_nanos(next - self.now);
        let longest = if waiting { Duration::from_millis(1) } else { Duration::from_millis(50) };
        let start = Instant::now();
        let event = host.wait(ahead.min(longest));
        let passed = start.elapsed().as_nanos() as u64;
        self.now = next.min(self.now.saturating_add(passed.max(1)));
        if self.take(event) {
            return Some(Outcome::Interrupted);
        }
        if self.look_at_host(host) { Some(Outcome::Interrupted) } else { None }
    }

    /// Takes what the host has. True when the run shall end.
    fn look_at_host(&mut self, host: &mut dyn Host) -> bool {
        // Bytes wait here until the guest has taken those before: then the next are asked for.
        if host.interrupts() {
            return true;
        }
        let mut stop = false;
        while self.typed.is_empty() {
            let event = host.poll();
            if event.is_none() {
                break;
            }
            if self.take(event) {
                stop = true;
                break;
            }
            self.type_ahead();
        }
        self.type_ahead();
        lock(&self.board).poll_host(self.now);
        self.service();
        stop
    }

    fn take(&mut self, event: Option<HostEvent>) -> bool {
        match event {
            Some(HostEvent::Serial(bytes)) => self.typed.extend(bytes),
            Some(HostEvent::Stop) => return true,
            None => {}
        }
        false
    }

    fn type_ahead(&mut self) {
        if !self.typed.is_empty() {
            let bytes = self.typed.make_contiguous();
            let mut board = lock(&self.board);
            board.wires.set_now(self.now);
            let taken = board.type_bytes(bytes);
            drop(board);
            self.typed.drain(..taken);
            self.service();
        }
    }
}

enum Turn {
    Ran,
    AllIdle,
    TripleFault(usize),
    Debug(usize, Stopped),
}

/// A turn that has begun: whose, until when, and how many instructions the processor had retired.
pub(crate) struct Paused {
    pub(crate) index: usize,
    end: u64,
    before: u64,
}
