//! A guest as a whole: its memory, its board, the ways to its vCPUs, and how it ends or starts again.

use crate::apic::BASE;
use crate::assignment::{Assigned, Chosen};
use crate::board::{Board, Effects, Power};
use crate::capabilities::Capabilities;
use crate::configuration::{Boot, VmConfiguration};
use crate::console::Console;
use crate::destinations::Destinations;
use crate::ept::Ept;
use crate::host::{Host, Nanoseconds, ProcessorId};
use crate::loader::{self, Start};
use crate::memory::{self, GuestMemory, PAGE, Pages, RegisterPage};
use crate::network::{Port, Switch};
use crate::posted::signal;
use crate::remapping::Remapping;
use crate::statistics::Statistics;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use spec::apic::local_apic::{Icr, Shorthand};
use spec::vmx::capability::EptVpidCap;
use spin::Mutex;

/// The processor that waits for all guests to end.
const FIRST_PROCESSOR: ProcessorId = 0;

/// How a guest has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with a status.
    Status(u32),
    /// All its vCPUs have halted with interrupts disabled.
    Halted,
    /// By its watchdog.
    Watchdog,
    /// By a reset, as it is not to start again.
    Reset,
    /// With the others, as it runs in the background.
    Stopped,
    /// By a triple fault at this address.
    TripleFault(u64),
    /// It did what the hypervisor cannot do for it, or was refused.
    Failed(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(0) => f.write_str("ended"),
            Self::Status(status) => write!(f, "ended with status {status}"),
            Self::Watchdog => f.write_str("ended by its watchdog"),
            Self::Halted => f.write_str("halted"),
            Self::Stopped => f.write_str("stopped"),
            Self::Reset => f.write_str("asked for a reset"),
            Self::TripleFault(rip) => write!(f, "triple fault at {rip:#x}"),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

/// What all vCPUs of a guest are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Run.
    Running,
    /// Stand still: the last that does starts the guest again.
    Stopping,
    /// Nothing any more.
    Ended,
    /// Nothing until another guest has ended.
    Waiting,
}

/// What guests are made of, and where.
pub struct Environment<'a> {
    /// What the processor has.
    pub has: &'a Capabilities,
    /// Memory.
    pub pages: &'static dyn Pages,
    /// The machine.
    pub host: &'static dyn Host,
    /// The switch between guests.
    pub switch: &'a Arc<Switch>,
    /// The remapping units, where functions can be assigned.
    pub remapping: Option<&'a Arc<Remapping>>,
}

/// A guest.
pub struct Vm {
    /// Its number, from 0.
    pub index: usize,
    /// What it is made of.
    pub configuration: VmConfiguration,
    /// The number of its console on the terminal.
    pub console: usize,
    /// Its memory.
    pub memory: Arc<dyn GuestMemory>,
    /// Its local APICs, and the ways to its vCPUs.
    pub destinations: Arc<Destinations>,
    /// Its extended page tables.
    ept: Mutex<Ept>,
    /// Changes when something has been taken out of them.
    ept_changes: AtomicU32,
    pages: &'static dyn Pages,
    remapping: Option<Arc<Remapping>>,
    /// What the units have stopped of its functions' accesses.
    dma_faults: AtomicU64,
    /// The APIC-access page's physical address, where there is one.
    pub apic_access: Option<u64>,
    network: Option<Port>,
    board: Mutex<Board>,
    board_deadline: AtomicU64,
    intr: AtomicBool,
    /// Changes when the I/O APIC's table has changed.
    routes: AtomicU32,
    phase: AtomicU8,
    /// Times that the guest has started again.
    generation: AtomicU32,
    standing: AtomicU32,
    /// When a guest whose vCPUs all stand still goes on.
    resumes: AtomicU64,
    /// The vCPUs that nothing but others can wake, as bits.
    resting: AtomicU32,
    started: AtomicU64,
    start: Mutex<Option<Start>>,
    outcome: Mutex<Option<End>>,
    finished: Mutex<(u8, Statistics)>,
}

impl Vm {
    /// A guest with its image in memory, and with these functions of the machine unless it waits for another guest.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    pub fn new(
        index: usize,
        mut configuration: VmConfiguration,
        functions: Vec<Chosen>,
        console: &Console,
        environment: &Environment<'_>,
    ) -> Result<Self, String> {
        let Environment { has, pages, host, switch, remapping } = *environment;
        check(&configuration, has)?;
        let scarce = || "there is not enough memory for it".to_string();
        let size = u64::from(configuration.memory) << 20;
        let memory: Arc<dyn GuestMemory> = Arc::from(pages.guest_memory(size).ok_or_else(scarce)?);
        // The tables are those of its functions' domain as well.
        let large = |function: &Chosen| remapping.is_some_and(|remapping| remapping.has_large_pages(function.source));
        let large_pages = has.ept_vpid.has(EptVpidCap::PAGES_2M) && functions.iter().all(large);
        let mut ept = Ept::new(pages, large_pages).ok_or_else(scarce)?;
        let [(low, below), (high, above)] = memory::ranges(size);
        let mut mapped =
            ept.map(pages, low, memory.base(), below) && ept.map(pages, high, memory.base() + below, above);
        let mut apic_access = None;
        if has.apic().has_access_page() {
            let page = pages.page().ok_or_else(scarce)?;
            mapped &= ept.map(pages, BASE, page.address(), PAGE);
            apic_access = Some(page.address());
        }
        if !has.unrestricted_guest() {
            // Where a guest believes that paging is off, it runs on these page tables.
            let page = pages.page().ok_or_else(scarce)?;
            for (number, entry) in page.0.iter().enumerate() {
                let pair = (2 * number as u64) << 22 | 0x83;
                entry.store(pair | (pair + (1 << 22)) << 32, Ordering::Relaxed);
            }
            mapped &= ept.map(pages, crate::vcpu::modes::IDENTITY, page.address(), PAGE);
        }
        if !mapped {
            return Err(scarce());
        }
        let count = usize::from(configuration.vcpus);
        let apic_pages: Option<Vec<_>> = (0..count).map(|_| pages.register_page()).collect();
        let start = loader::load(&*memory, &configuration)?;
        let destinations = Arc::new(Destinations::new(apic_pages.ok_or_else(scarce)?));
        let mut board = Board::new(Box::new(console.clone()));
        let network = configuration.network.then(|| switch.port());
        if let Some(port) = &network {
            port.call(Arc::clone(&destinations.mailboxes[0]));
            board.add_network(&memory, port.backend(), Switch::address(port));
        }
        for (number, disk) in core::mem::take(&mut configuration.disks).iter().enumerate() {
            board.add_disk(&memory, disk, &alloc::format!("disk{number}"));
        }
        if configuration.virtio_console {
            board.add_console(&memory, Box::new(console.clone()));
        }
        for function in functions {
            let remapping = remapping.ok_or("there is no remapping unit")?;
            board.add_assigned(Assigned::new(function, remapping, &destinations, index, host)?)?;
        }
        let phase = if configuration.after.is_some() { Phase::Waiting } else { Phase::Running };
        let vm = Self {
            index,
            console: console.number(),
            destinations,
            network,
            board: Mutex::new(board),
            configuration,
            memory,
            ept: Mutex::new(ept),
            ept_changes: AtomicU32::new(0),
            pages,
            remapping: remapping.cloned(),
            dma_faults: AtomicU64::new(0),
            apic_access,
            board_deadline: AtomicU64::new(u64::MAX),
            intr: AtomicBool::new(false),
            routes: AtomicU32::new(0),
            phase: AtomicU8::new(phase as u8),
            generation: AtomicU32::new(0),
            standing: AtomicU32::new(0),
            resumes: AtomicU64::new(u64::MAX),
            resting: AtomicU32::new(0),
            started: AtomicU64::new(host.now()),
            start: Mutex::new(Some(start)),
            outcome: Mutex::new(None),
            finished: Mutex::default(),
        };
        if phase == Phase::Running {
            vm.take_functions()?;
        }
        Ok(vm)
    }

    /// The registers' page of a vCPU's local APIC.
    #[must_use]
    pub fn apic_page(&self, vcpu: usize) -> &'static RegisterPage {
        self.destinations.pages[vcpu]
    }

    /// Takes the functions assigned to the guest: from here on they reach its memory.
    fn take_functions(&self) -> Result<(), String> {
        let mut ept = self.ept.lock();
        self.board.lock().take_functions(&mut ept)
    }

    /// A vCPU has gone to another processor.
    pub fn vcpu_moved(&self) {
        if !self.configuration.assign.is_empty() {
            self.board.lock().vcpu_moved();
        }
    }

    /// Begins a guest that has waited.
    pub fn begin(&self, host: &dyn Host) {
        if let Err(why) = self.take_functions() {
            return self.end(host, End::Failed(why));
        }
        self.started.store(host.now(), Ordering::SeqCst);
        self.phase.store(Phase::Running as u8, Ordering::SeqCst);
        self.call_all(host);
    }

    /// The EPT pointer.
    #[must_use]
    pub fn ept_pointer(&self) -> u64 {
        self.ept.lock().pointer()
    }

    /// Pages mapped by EPT, of 4 KiB and of 2 MiB, and EPT's tables.
    #[must_use]
    pub fn ept_sizes(&self) -> ([u64; 2], u64) {
        let ept = self.ept.lock();
        (ept.mapped(), ept.tables())
    }

    /// Changes when something has been taken out of the extended page tables: what a processor keeps of them is to be invalidated.
    #[must_use]
    pub fn ept_changes(&self) -> u32 {
        self.ept_changes.load(Ordering::SeqCst)
    }

    /// Maps the page at a guest-physical address if it is one of an assigned function's registers that the guest accesses itself.
    pub fn map_registers(&self, address: u64) -> bool {
        if self.configuration.assign.is_empty() {
            return false;
        }
        let page = address & !(PAGE - 1);
        let mut ept = self.ept.lock();
        let Some(target) = self.board.lock().registers(page) else { return false };
        let mapped = ept.map_registers(self.pages, page, target);
        drop(ept);
        self.forget_domain();
        mapped
    }

    /// Functions' registers have moved: they are mapped anew where the guest accesses them.
    fn forget_registers(&self, host: &dyn Host) {
        if self.ept.lock().unmap_registers() {
            self.ept_changes.fetch_add(1, Ordering::SeqCst);
            self.call_all(host);
            self.forget_domain();
        }
    }

    fn forget_domain(&self) {
        if let Some(remapping) = &self.remapping {
            // A unit that does not invalidate any more keeps at worst what this guest had.
            let _ = remapping.forget_domain(self.index);
        }
    }

    /// Notes a fault of one of its functions; how many there were before.
    pub fn note_fault(&self) -> u64 {
        self.dma_faults.fetch_add(1, Ordering::Relaxed)
    }

    /// Faults of its functions.
    #[must_use]
    pub fn dma_faults(&self) -> u64 {
        self.dma_faults.load(Ordering::Relaxed)
    }

    /// What its vCPUs are to do.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Stopping,
            3 => Phase::Waiting,
            _ => Phase::Ended,
        }
    }

    /// Times that the guest has started again.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The state in which the first vCPU starts.
    #[must_use]
    pub fn start(&self) -> Option<Start> {
        *self.start.lock()
    }

    /// How it has ended.
    #[must_use]
    pub fn outcome(&self) -> Option<End> {
        self.outcome.lock().clone()
    }

    /// INTR of the PIC.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.intr.load(Ordering::SeqCst)
    }

    /// Changes when the I/O APIC's table has changed.
    #[must_use]
    pub fn routes(&self) -> u32 {
        self.routes.load(Ordering::SeqCst)
    }

    /// When the board next has to be looked at.
    #[must_use]
    pub fn board_deadline(&self) -> Nanoseconds {
        self.board_deadline.load(Ordering::SeqCst)
    }

    /// When the watchdog ends its patience.
    #[must_use]
    pub fn watchdog(&self) -> Option<Nanoseconds> {
        let patience = u64::from(self.configuration.watchdog) * 1_000_000;
        (patience != 0).then(|| self.started.load(Ordering::SeqCst) + patience)
    }

    /// Whether the network has something for the guest.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.network.as_ref().is_some_and(Port::has_frames)
    }

    /// Takes what was typed for the guest.
    pub fn type_bytes(&self, host: &dyn Host, bytes: &[u8]) {
        let now = host.now();
        self.with_board(host, |board| board.type_bytes(bytes, now));
    }

    /// Does something with the board, and what follows from it.
    pub fn with_board<T>(&self, host: &dyn Host, work: impl FnOnce(&mut Board) -> T) -> T {
        let mut board = self.board.lock();
        let result = work(&mut board);
        let Effects { messages, intr, power, moved } = board.take_effects();
        self.board_deadline.store(board.deadline(), Ordering::SeqCst);
        if let Some(level) = intr {
            self.intr.store(level, Ordering::SeqCst);
        }
        drop(board);
        if moved {
            self.forget_registers(host);
        }
        if intr == Some(true) {
            self.destinations.mailboxes[0].signal(host, signal::LOOK);
        }
        for (address, data) in messages {
            self.destinations.deliver_message(host, address, data);
        }
        match power {
            Some(Power::End(0)) => self.end(host, End::Status(0)),
            Some(Power::End(status)) => self.restart(host, End::Status(status)),
            Some(Power::Reset) => self.restart(host, End::Reset),
            None => {}
        }
        result
    }

    /// The I/O APIC's table has been written.
    pub fn routes_changed(&self) {
        self.routes.fetch_add(1, Ordering::SeqCst);
    }

    /// Does what a vCPU's interrupt command says.
    pub fn command(&self, host: &dyn Host, from: usize, high: u32, low: u32) {
        let destinations = &self.destinations;
        let logical = u64::from(low) & Icr::LOGICAL != 0;
        match Shorthand::of(low) {
            Shorthand::None if destinations.is_x2apic(from) => destinations.deliver(host, high, logical, low),
            Shorthand::None => {
                let destination = high >> 24;
                destinations.deliver(host, if destination == 0xff { u32::MAX } else { destination }, logical, low);
            }
            Shorthand::Itself => destinations.send(host, from, low),
            shorthand => (0..destinations.mailboxes.len())
                .filter(|vcpu| shorthand == Shorthand::AllIncludingSelf || *vcpu != from)
                .for_each(|vcpu| destinations.send(host, vcpu, low)),
        }
    }

    fn call_all(&self, host: &dyn Host) {
        self.destinations.mailboxes.iter().for_each(|mailbox| mailbox.signal(host, signal::LOOK));
    }

    /// Ends the guest.
    pub fn end(&self, host: &dyn Host, how: End) {
        self.outcome.lock().get_or_insert(how);
        self.phase.store(Phase::Ended as u8, Ordering::SeqCst);
        self.call_all(host);
    }

    /// Starts the guest again, or ends it by `how` where it is not to.
    pub fn restart(&self, host: &dyn Host, how: End) {
        if !self.configuration.restart {
            return self.end(host, how);
        }
        let (running, stopping) = (Phase::Running as u8, Phase::Stopping as u8);
        if self.phase.compare_exchange(running, stopping, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            self.call_all(host);
        }
    }

    /// Says whether only others can wake the vCPU. When that is so of all, the guest has come to its end.
    pub fn rests(&self, host: &dyn Host, vcpu: usize, rests: bool) {
        let bit = 1 << vcpu;
        if !rests {
            self.resting.fetch_and(!bit, Ordering::SeqCst);
            return;
        }
        let all = (1u32 << self.destinations.mailboxes.len()) - 1;
        let resting = self.resting.fetch_or(bit, Ordering::SeqCst) | bit;
        if resting == all
            && !self.destinations.mailboxes.iter().any(|mailbox| mailbox.has_mail())
            && self.phase() == Phase::Running
        {
            self.restart(host, End::Halted);
        }
    }

    /// A vCPU stands still. After the last one the guest starts again, as soon as its functions are ready.
    pub fn stands(&self, host: &dyn Host) {
        if self.standing.fetch_add(1, Ordering::SeqCst) + 1 != u32::from(self.configuration.vcpus) {
            return;
        }
        self.standing.store(0, Ordering::SeqCst);
        self.with_board(host, Board::reset);
        let ready = self.board.lock().functions_ready_at();
        self.resumes.store(ready.unwrap_or(0), Ordering::SeqCst);
        if !self.resume(host) {
            // The first vCPU waits for that time.
            self.destinations.mailboxes[0].signal(host, signal::LOOK);
        }
    }

    /// When a guest whose vCPUs all stand still goes on.
    #[must_use]
    pub fn resumes(&self) -> Nanoseconds {
        self.resumes.load(Ordering::SeqCst)
    }

    /// Starts the guest again if the time has come: puts its image in memory, which nothing writes to any more.
    pub fn resume(&self, host: &dyn Host) -> bool {
        let at = self.resumes();
        let is_mine = || self.resumes.compare_exchange(at, u64::MAX, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if host.now() < at || !is_mine() {
            return false;
        }
        self.memory.clear();
        self.with_board(host, Board::resume_functions);
        self.destinations.mailboxes.iter().for_each(|mailbox| mailbox.empty());
        match loader::load(&*self.memory, &self.configuration) {
            Ok(start) => *self.start.lock() = Some(start),
            Err(why) => {
                self.end(host, End::Failed(why));
                return false;
            }
        }
        self.started.store(host.now(), Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.phase.store(Phase::Running as u8, Ordering::SeqCst);
        self.call_all(host);
        true
    }

    /// A vCPU has done its last; what it has counted. After the guest's last the first processor looks whether all have ended.
    pub fn finish(&self, host: &dyn Host, statistics: &Statistics) {
        let mut finished = self.finished.lock();
        finished.0 += 1;
        finished.1.add(statistics);
        let last = finished.0 == self.configuration.vcpus;
        if last {
            // Nobody takes the guest for ended who could have its functions next before they are free.
            self.with_board(host, Board::release_functions);
        }
        drop(finished);
        if last && host.processor() != FIRST_PROCESSOR {
            host.kick(FIRST_PROCESSOR);
        }
    }

    /// What its vCPUs have counted, when all have done their last.
    #[must_use]
    pub fn result(&self) -> Option<Statistics> {
        let finished = self.finished.lock();
        (finished.0 == self.configuration.vcpus).then(|| finished.1.clone())
    }
}

/// Whether all guests have ended. When those have that the run waits for, the others are ended.
pub fn all_have_ended(host: &dyn Host, vms: &[Arc<Vm>]) -> bool {
    let ended = |vm: &&Arc<Vm>| vm.result().is_some();
    if vms.iter().filter(|vm| !vm.configuration.background).all(|vm| ended(&vm)) {
        vms.iter().filter(|vm| vm.phase() != Phase::Ended).for_each(|vm| vm.end(host, End::Stopped));
    }
    vms.iter().all(|vm| ended(&vm))
}

/// Begins the guests that wait for one which has ended; when to look at those again whose functions are not ready yet.
pub fn begin_waiting(host: &dyn Host, vms: &[Arc<Vm>]) -> Option<Nanoseconds> {
    let mut next = None;
    for vm in vms.iter().filter(|vm| vm.phase() == Phase::Waiting) {
        let after = vm.configuration.after.as_ref();
        let before = vms.iter().find(|other| after == Some(&other.configuration.name));
        if before.is_some_and(|before| before.result().is_none()) {
            continue;
        }
        let ready = vm.board.lock().functions_ready_at();
        match ready.filter(|ready| *ready > host.now()) {
            Some(ready) => next = Some(next.map_or(ready, |other: Nanoseconds| other.min(ready))),
            None => vm.begin(host),
        }
    }
    next
}

/// Whether the processor can run this guest.
fn check(configuration: &VmConfiguration, has: &Capabilities) -> Result<(), String> {
    if configuration.vcpus == 0 || configuration.memory < 2 || !configuration.memory.is_multiple_of(2) {
        return Err("a guest has one vCPU at least, and memory in steps of 2 MiB".into());
    }
    if has.unrestricted_guest() {
        return Ok(());
    }
    let several = configuration.vcpus > 1;
    let why = "which needs \"unrestricted guest\", and the processor does not have it";
    match configuration.boot {
        Boot::RealMode { .. } => Err(["it starts in real-address mode, ", why].concat()),
        Boot::Multiboot { .. } | Boot::Linux { .. } if several => {
            Err(["its second vCPU would start in real-address mode, ", why].concat())
        }
        Boot::Multiboot { .. } | Boot::Linux { .. } => Ok(()),
    }
}
