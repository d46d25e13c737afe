//! One processor of a guest: its registers outside the VMCS, what it waits for, and what it is given at the next VM entry.

pub mod events;
pub mod modes;
pub mod reset;

use crate::apic::LocalApic;
use crate::capabilities::{ApicVirtualization, Capabilities};
use crate::controls::Controls;
use crate::exits::Withheld;
use crate::host::{Host, Nanoseconds};
use crate::posted::{Mailbox, signal};
use crate::statistics::Statistics;
use crate::vm::{End, Phase, Vm};
use crate::vmcs::{Vmcs, field};
use alloc::sync::Arc;
use events::Injection;
use spec::vmx::SecondaryControls;
use spec::x86::msr;

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It runs, or would.
    Running,
    /// HLT; whether interrupts were enabled.
    Halted(bool),
    /// It waits for a start-up IPI.
    WaitForSipi,
    /// It stands still until the guest has started again.
    Standing,
    /// It has done its last.
    Ended,
}

/// The state in which a vCPU begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As the guest's image wants it.
    Boot,
    /// In real-address mode at this page.
    StartUp(u8),
}

/// The MSRs that are the guest's while it runs and are switched with the vCPU, not at each exit: the hypervisor uses none of them.
pub const SWITCHED_MSRS: [u32; 6] = [msr::STAR, msr::LSTAR, msr::CSTAR, msr::FMASK, msr::KERNEL_GS_BASE, msr::TSC_AUX];

/// A vCPU.
pub struct Vcpu {
    /// Its guest.
    pub vm: Arc<Vm>,
    /// Its number in the guest: its local APIC's id.
    pub index: usize,
    /// The general registers by their numbers; RSP is in the VMCS.
    pub registers: [u64; 16],
    /// The MSRs of [`SWITCHED_MSRS`].
    pub msrs: [u64; SWITCHED_MSRS.len()],
    /// XCR0.
    pub xcr0: u64,
    /// Its local APIC.
    pub apic: LocalApic,
    /// What it does.
    pub activity: Activity,
    /// What it has done.
    pub statistics: Statistics,
    /// Its controls, as they are in the VMCS.
    pub controls: Controls,
    /// It spins: others may have its processor first. Whoever takes note of it clears it.
    pub spins: bool,
    /// What the processor does for its local APIC.
    pub virtualization: ApicVirtualization,
    /// The MSR bitmaps for a local APIC in xAPIC mode and in x2APIC mode: physical addresses.
    pub msr_bitmaps: [u64; 2],
    pub(crate) unrestricted: bool,
    pub(crate) withheld: Withheld,
    /// The processor virtualizes x2APIC mode.
    virtualizes_x2apic: bool,
    pub(crate) begin: Option<Begin>,
    pub(crate) injection: Option<Injection>,
    pub(crate) nmi: bool,
    pub(crate) shadow: modes::Shadow,
    generation: u32,
    /// What the guest was told of it.
    rests: bool,
    pub(crate) routes: Option<u32>,
    /// The extended page tables that this processor may keep something of.
    pub(crate) ept_changes: u32,
}

/// The generation of a vCPU whose guest has not started yet.
const NEVER_STARTED: u32 = u32::MAX;

impl Vcpu {
    /// A vCPU after power-on. `registers` is the virtual-APIC page.
    #[must_use]
    pub fn new(vm: Arc<Vm>, index: usize, has: &Capabilities) -> Self {
        let apic = LocalApic::new(vm.apic_page(index), index as u8);
        let mut vcpu = Self {
            index,
            registers: [0; 16],
            msrs: [0; SWITCHED_MSRS.len()],
            xcr0: 1,
            apic,
            activity: Activity::WaitForSipi,
            statistics: Statistics::default(),
            controls: Controls::new(has),
            spins: false,
            virtualization: has.apic(),
            msr_bitmaps: [0; 2],
            withheld: Withheld::new(&Controls::new(has)),
            unrestricted: has.unrestricted_guest(),
            virtualizes_x2apic: has.virtualizes_x2apic(),
            begin: None,
            injection: None,
            nmi: false,
            shadow: modes::Shadow::default(),
            generation: vm.generation(),
            rests: false,
            routes: None,
            ept_changes: vm.ept_changes(),
            vm,
        };
        vcpu.power_on();
        if vcpu.vm.phase() == Phase::Waiting {
            (vcpu.activity, vcpu.generation) = (Activity::Standing, NEVER_STARTED);
        }
        vcpu
    }

    /// Power-on: the first vCPU begins, the others wait.
    fn power_on(&mut self) {
        self.apic.reset();
        self.vm.destinations.set_x2apic(self.index, false);
        self.xcr0 = 1;
        self.msrs = [0; SWITCHED_MSRS.len()];
        self.nmi = false;
        self.routes = None;
        self.activity = if self.index == 0 { Activity::Running } else { Activity::WaitForSipi };
        self.begin = (self.index == 0).then_some(Begin::Boot);
    }

    /// The local APIC goes into x2APIC mode.
    pub(crate) fn enter_x2apic(&mut self, vmcs: &mut dyn Vmcs) {
        self.apic.enter_x2apic();
        self.vm.destinations.set_x2apic(self.index, true);
        self.write_apic_mode(vmcs);
    }

    /// Writes the controls that go with the local APIC's mode.
    pub(crate) fn write_apic_mode(&mut self, vmcs: &mut dyn Vmcs) {
        let x2apic = self.apic.is_x2apic();
        let [page, msrs] = [SecondaryControls::VIRTUALIZE_APIC_ACCESSES, SecondaryControls::VIRTUALIZE_X2APIC_MODE];
        let (page, msrs) = (
            if self.virtualization.has_access_page() && !x2apic { page } else { 0 },
            if self.virtualizes_x2apic && x2apic { msrs } else { 0 },
        );
        let both = SecondaryControls::VIRTUALIZE_APIC_ACCESSES | SecondaryControls::VIRTUALIZE_X2APIC_MODE;
        self.controls.secondary = self.controls.secondary & !both | page | msrs;
        vmcs.set(field::SECONDARY_CONTROLS, SecondaryControls(self.controls.secondary));
        vmcs.set(field::MSR_BITMAPS, self.msr_bitmaps[usize::from(x2apic)]);
    }

    /// Its mailbox.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.vm.destinations.mailboxes[self.index]
    }

    /// Whether it can run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.activity == Activity::Running
    }

    /// Whether it has done its last.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.activity == Activity::Ended
    }

    /// When it next has to be looked at although nobody calls.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanoseconds> {
        if matches!(self.activity, Activity::Standing | Activity::Ended) {
            let resumes = self.vm.resumes();
            return (self.activity == Activity::Standing && self.index == 0 && resumes != u64::MAX).then_some(resumes);
        }
        let mut board = u64::MAX;
        if self.index == 0 {
            board = self.vm.board_deadline().min(self.vm.watchdog().unwrap_or(u64::MAX));
        }
        let next = board.min(self.apic.deadline().unwrap_or(u64::MAX));
        (next != u64::MAX).then_some(next)
    }

    /// Looks at everything that may have come: the guest's phase, mail, timers. Afterwards [`is_ready`](Self::is_ready) is right.
    pub fn attend(&mut self, host: &dyn Host) {
        if !self.follows_phase(host) {
            // It has no use for mail, for which its processor would stay awake.
            self.mailbox().empty();
            return;
        }
        let now = host.now();
        if self.index == 0 && self.vm.board_deadline() <= now {
            let vm = Arc::clone(&self.vm);
            vm.with_board(host, |board| board.advance(now));
        }
        if self.index == 0 && self.vm.watchdog().is_some_and(|end| end <= now) {
            let vm = Arc::clone(&self.vm);
            vm.restart(host, End::Watchdog);
            self.follows_phase(host);
            return;
        }
        if self.index == 0 && self.vm.has_frames() {
            let vm = Arc::clone(&self.vm);
            vm.with_board(host, |board| board.poll(now));
        }
        if self.apic.deadline().is_some_and(|deadline| deadline <= now) {
            self.apic.advance(now);
        }
        if self.mailbox().has_mail() {
            self.read_mail();
        }
        if let Activity::Halted(enabled) = self.activity
            && (self.nmi || enabled && (self.apic.due().is_some() || self.pic_interrupts()))
        {
            self.activity = Activity::Running;
        }
        let rests = matches!(self.activity, Activity::Halted(false) | Activity::WaitForSipi);
        if rests != self.rests {
            self.rests = rests;
            let vm = Arc::clone(&self.vm);
            vm.rests(host, self.index, rests);
        }
    }

    /// Whether the PIC's interrupt is for this vCPU and passes its local APIC.
    #[must_use]
    pub(crate) fn pic_interrupts(&self) -> bool {
        self.index == 0 && self.vm.intr() && self.apic.admits_pic()
    }

    /// Does what the guest's phase wants; false when there is nothing else to do.
    fn follows_phase(&mut self, host: &dyn Host) -> bool {
        match (self.vm.phase(), self.activity) {
            (_, Activity::Ended) => false,
            (Phase::Ended, _) => {
                self.activity = Activity::Ended;
                self.vm.finish(host, &self.statistics);
                false
            }
            (Phase::Waiting, _) => false,
            (Phase::Stopping, Activity::Standing) => {
                let vm = Arc::clone(&self.vm);
                self.index == 0 && vm.resume(host) && self.starts_again()
            }
            (Phase::Stopping, _) => {
                self.activity = Activity::Standing;
                let vm = Arc::clone(&self.vm);
                vm.stands(host);
                self.starts_again()
            }
            (Phase::Running, Activity::Standing) => self.starts_again(),
            (Phase::Running, _) => true,
        }
    }

    fn starts_again(&mut self) -> bool {
        let generation = self.vm.generation();
        if generation == self.generation {
            return false;
        }
        self.generation = generation;
        self.injection = None;
        self.power_on();
        true
    }

    fn read_mail(&mut self) {
        let signals = self.mailbox().take_signals();
        if signals & signal::INIT != 0 {
            // The first processor of a PC would start at its firmware; there is none here.
            self.activity = Activity::WaitForSipi;
            self.injection = None;
            self.nmi = false;
        }
        if signals & signal::START_UP != 0 && self.activity == Activity::WaitForSipi {
            self.begin = Some(Begin::StartUp((signals >> signal::VECTOR_SHIFT) as u8));
            self.activity = Activity::Running;
        }
        self.nmi |= signals & signal::NMI != 0;
        if self.mailbox().interrupts.outstanding() {
            let requests = self.mailbox().interrupts.take();
            self.apic.accept(requests);
        }
    }

    /// Ends the guest or starts it again, as the hypervisor cannot do what it wants.
    pub(crate) fn give_up(&mut self, host: &dyn Host, why: alloc::string::String) {
        let vm = Arc::clone(&self.vm);
        vm.restart(host, End::Failed(why));
    }
}
