//! Between instructions: interrupts, NMI, INIT, start-up, debug traps, timers, in the architecture's order (SDM Vol 3A, 6.9, table 6-2).

use crate::cpu::{Cpu, RCX};
use crate::decode::Op;
use crate::decode::cache::CodeCache;
use crate::flags::{self, LateFlags};
use crate::observe::Happening;
use crate::run::{Activity, Boundary, RunExit, attention};
use crate::segment::{self, CS, Segment};
use crate::system::delivery::{Escalation, escalate};
use crate::system::event::{Barren, Event, IterationsLeft, Shadow};
use crate::trap::Trap;
use spec::x86::control_registers::Cr0;
use spec::x86::debug::{BreakCondition, DebugCtl, Dr6, Dr7};
use spec::x86::exceptions::Vector;

/// Attempts to deliver an event, or one that comes of it, before the run loop is asked whether there is time for more. More than a chain
/// that ends can have.
const ATTEMPTS: u32 = 16;
/// Virtual nanoseconds of an event when there seems to be no end of events, beside that of an instruction: about those of an exception on the
/// processors modelled.
const EVENT_TIME: u64 = 200;

impl Cpu {
    /// The earliest virtual time at which this processor's own timers want attention.
    pub fn next_deadline(&self) -> u64 {
        let apic = self.apic.next_deadline(self.moment()).unwrap_or(u64::MAX);
        apic.min(self.vmx_deadline()).min(self.counters_deadline()).min(self.wait_deadline())
    }

    /// Timers act whose time has come. True when one did.
    pub(crate) fn deadline_reached(&mut self) -> bool {
        // A deadline that has passed is given as the present time: by the host's clock that goes on meanwhile.
        if self.next_deadline() > self.now() {
            return false;
        }
        self.apic.advance(self.moment());
        self.vmx_deadline_reached();
        self.settle_running_counters();
        self.attention |= attention::EVENT | attention::DEADLINE;
        true
    }

    /// Sees to everything in [`Cpu::attention`] but code and the bus.
    pub(crate) fn between_instructions(&mut self, code: &mut CodeCache) -> Boundary {
        self.attention &= !attention::EVENT;
        if self.events.next_shadow != Shadow::None {
            self.events.shadow = std::mem::take(&mut self.events.next_shadow);
        }
        self.apic.advance(self.moment());
        if self.activity == Activity::Shutdown && !self.vmx.non_root {
            return Boundary::Leave(RunExit::TripleFault);
        }
        let repeats = self.set_rf_between_iterations();
        if self.retry_delivery()
            || self.vmx_emulate_apic_write()
            || self.see_to_init()
            || self.vmx_trap_like_exit()
            || self.see_to_debug_trap()
            || self.see_to_interrupts()
        {
            self.attention |= attention::EVENT;
            self.note_barren_event();
            self.debug_step_done();
            return Boundary::Again;
        }
        if repeats && self.dr[7] & Dr7::ENABLES == 0 {
            self.rflags &= !flags::RF;
        }
        if self.activity != Activity::Active {
            return Boundary::Leave(RunExit::Idle);
        }
        if !self.runs_one_by_one() {
            self.attention &= !(attention::DEBUG | attention::SHADOW);
            return Boundary::Go;
        }
        if self.debugger.active() && self.breakpoint_here() {
            return Boundary::Again;
        }
        self.single_step(code);
        self.debug_step_done();
        Boundary::Stepped
    }

    /// `op`, a repeated string instruction, has iterations left at RIP.
    pub(crate) fn note_iterations_left(&mut self, op: &Op) {
        let (rip, count) = (self.rip, self.regs[RCX]);
        // The count of instructions is still that of the beginning of what `op` stands in.
        let instructions = self.instructions + u64::from(op.number);
        self.events.iterations_left = Some(IterationsLeft { rip, count, instructions });
    }

    /// What was noted of a repeated string instruction, if nothing was run since. (What is noted else is a matter of when somebody looked last.)
    pub(crate) fn iterations_left(&self) -> Option<IterationsLeft> {
        let here = |left: &IterationsLeft| {
            left.rip == self.rip && left.count == self.regs[RCX] && left.instructions == self.instructions
        };
        self.events.iterations_left.filter(here)
    }

    /// Between two iterations of a repeated string instruction RF is 1, for whatever event is taken there to save, and so that a breakpoint on
    /// the instruction counts once (SDM vol. 3B, 18.3.1.1). True when it was not 1 before.
    fn set_rf_between_iterations(&mut self) -> bool {
        // What is noted stays: how often somebody looks between two instructions makes no difference.
        let sets = self.iterations_left().is_some() && self.rflags & flags::RF == 0;
        if sets {
            self.rflags |= flags::RF;
        }
        sets
    }

    /// Whether the next instruction needs care before or after it.
    fn runs_one_by_one(&self) -> bool {
        self.events.shadow != Shadow::None
            || self.rflags & (flags::TF | flags::RF) != 0
            || self.attention & attention::VMX != 0
            || self.dr[7] & Dr7::ENABLES != 0
    }

    /// The DR6 bits of the instruction breakpoints at RIP.
    fn code_breakpoint_hits(&self) -> u64 {
        let (dr7, linear) = (Dr7(self.dr[7]), self.code_linear());
        (0..4)
            .filter(|&n| dr7.enabled(n) && dr7.condition(n) == BreakCondition::Execute && self.dr[n as usize] == linear)
            .fold(0, |hits, n| hits | 1 << n)
    }

    /// Runs one instruction with its breakpoints, its single-step trap and the interrupt shadow.
    fn single_step(&mut self, code: &mut CodeCache) {
        let resume = self.rflags & flags::RF != 0;
        if !resume && self.events.shadow != Shadow::MovSs {
            let hits = self.code_breakpoint_hits();
            if hits != 0 {
                self.debug_fault(hits);
                self.note_barren_event();
                return;
            }
        }
        let traced = self.rflags & flags::TF != 0;
        self.events.interrupted = false;
        self.events.trace_late = false;
        self.events.loaded_rf = false;
        let guest = self.vmx.non_root;
        let start = self.rip;
        self.step(code);
        // With BTF only instructions that branch are traced.
        let next = self.cut_rip(start.wrapping_add(u64::from(self.events.step_length)));
        let untraced = self.msrs.debugctl & DebugCtl::BTF != 0 && self.rip == next;
        self.instruction_done(traced && !untraced, resume);
        if guest {
            self.vmx_instruction_done();
        }
        self.attention |= attention::EVENT;
        if self.runs_one_by_one() {
            self.attention |= attention::DEBUG;
        }
    }

    /// After an instruction that ran on its own, with TF (`traced`) and RF (`resume`) as they were before it.
    fn instruction_done(&mut self, traced: bool, resume: bool) {
        let interrupted = self.events.interrupted;
        let asked = std::mem::take(&mut self.events.next_shadow);
        if !interrupted {
            // An instruction that loads RFLAGS (IRET) may have set RF for the next one.
            if resume && !self.events.loaded_rf {
                self.rflags &= !flags::RF;
            }
            let traced = if self.events.trace_late { self.rflags & flags::TF != 0 } else { traced };
            if traced && asked != Shadow::MovSs {
                self.events.debug_trap |= Dr6::BS;
            }
        }
        self.events.shadow = asked;
        self.collect_breakpoints();
    }

    /// Data and I/O breakpoints that the last instruction hit become a pending debug trap.
    fn collect_breakpoints(&mut self) {
        self.events.debug_trap |= std::mem::take(&mut self.pending_breakpoints);
    }

    /// A debug exception that is a fault: instruction breakpoint, or general detect.
    pub(crate) fn debug_fault(&mut self, bits: u64) {
        self.events.debug_bits = bits;
        self.exception(Vector::Debug as u8, None);
    }

    fn see_to_debug_trap(&mut self) -> bool {
        self.collect_breakpoints();
        if self.events.debug_trap == 0 || self.events.shadow == Shadow::MovSs || self.activity == Activity::WaitForSipi
        {
            return false;
        }
        self.events.debug_bits = std::mem::take(&mut self.events.debug_trap);
        self.activity_resumes();
        self.exception(Vector::Debug as u8, None);
        true
    }

    /// INIT and start-up. True when something happened.
    fn see_to_init(&mut self) -> bool {
        if self.events.init {
            if self.vmx_blocks_init() {
                return false;
            }
            self.events.init = false;
            if !self.vmx_init_exit() {
                self.init();
            }
            return true;
        }
        if self.activity == Activity::WaitForSipi
            && let Some(vector) = self.events.startup.take()
        {
            if !self.vmx_startup_exit(vector) {
                self.start_up(vector);
            }
            return true;
        }
        false
    }

    /// INIT: registers as after power-up, but for the state that SDM vol. 3A, table 10-1 keeps.
    pub fn init(&mut self) {
        let (xcr0, ymm, mxcsr, cr0) = (self.xcr0, self.ymm, self.mxcsr, self.cr0);
        let (x87, pkru) = (self.x87.clone(), self.pkru);
        let startup = self.events.startup.take();
        self.apic.init();
        self.reset_registers();
        (self.xcr0, self.ymm, self.mxcsr) = (xcr0, ymm, mxcsr);
        (self.x87, self.pkru) = (x87, pkru);
        self.cr0 = self.cr0 & !(Cr0::CD | Cr0::NW) | cr0 & (Cr0::CD | Cr0::NW);
        self.events = crate::system::event::PendingEvents::default();
        self.attention &= !attention::INACTIVE;
        if !self.apic.is_bootstrap() {
            self.events.startup = startup;
            self.activity = Activity::WaitForSipi;
            self.attention |= attention::INACTIVE;
        }
        self.mode_changed();
        self.publish_address();
    }

    /// Start-up at page `vector`.
    pub(crate) fn start_up(&mut self, vector: u8) {
        self.segs[CS] = Segment {
            selector: u16::from(vector) << 8,
            base: u64::from(vector) << 12,
            access: Segment::real(0).access | segment::CODE,
            ..Segment::real(0)
        };
        self.rip = 0;
        self.flags = LateFlags::from_bits(0);
        self.activity_resumes();
        self.mode_changed();
    }

    /// The processor executes instructions again.
    pub(crate) fn activity_resumes(&mut self) {
        self.activity = Activity::Active;
        self.events.wake_if_masked = false;
        self.monitor.armed = false;
        self.monitor.waiting = false;
        self.monitor.limit = None;
        self.attention &= !attention::INACTIVE;
    }

    /// VT-x's own events, NMI and interrupts. True when something happened.
    fn see_to_interrupts(&mut self) -> bool {
        if self.activity == Activity::WaitForSipi {
            return false;
        }
        if self.see_to_monitor() {
            return true;
        }
        if self.vmx_see_to_events() {
            return true;
        }
        let shadow = self.events.shadow;
        if self.events.nmi && !self.nmis_blocked() && shadow == Shadow::None {
            self.events.nmi = false;
            if !self.vmx_nmi_exit() {
                self.activity_resumes();
                self.events.nmi_blocked = true;
                self.deliver_or_escalate(Event::nmi(), None);
            }
            return true;
        }
        if self.vmx_interrupt_window_exit() {
            return true;
        }
        if self.activity == Activity::Shutdown {
            return false;
        }
        if shadow != Shadow::None {
            return false;
        }
        if self.vmx.virtual_interrupt && self.deliver_virtual_interrupt() {
            return true;
        }
        if self.apic.pending().is_none() {
            return false;
        }
        if self.vmx_interrupt_exit() {
            return true;
        }
        if self.rflags & flags::IF == 0 {
            if self.events.wake_if_masked && self.activity == Activity::Halted {
                self.activity_resumes();
                return true;
            }
            return false;
        }
        let vector = self.acknowledge_interrupt();
        self.activity_resumes();
        self.deliver_or_escalate(Event::external(vector), None);
        true
    }

    /// NMIs wait: one is being handled.
    fn nmis_blocked(&self) -> bool {
        self.events.nmi_blocked && !self.vmx_ignores_nmi_blocking()
    }

    /// Takes the vector of the pending interrupt from the local APIC or the 8259 pair.
    pub(crate) fn acknowledge_interrupt(&mut self) -> u8 {
        if self.apic.external_pending() {
            let now = self.now();
            self.apic.acknowledge_external();
            self.attention |= attention::BUS_TOUCHED;
            return self.bus.acknowledge_external(now);
        }
        self.apic.acknowledge()
    }

    /// Raises an exception at the current RIP: VT-x may intercept it, else it is delivered through the IDT; a fault while delivering makes a
    /// double, then a triple fault.
    pub(crate) fn exception(&mut self, vector: u8, error: Option<u32>) {
        let vectoring = self.events.failed.take();
        self.deliver_or_escalate(Event::exception(vector, error), vectoring);
    }

    /// An event happened. When many have without an instruction between, each counts as one and takes time, so that a guest for which there
    /// is no end of them ages, too.
    fn note_barren_event(&mut self) {
        if self.events.barren.instructions != self.instructions || self.events.barren.count == 0 {
            self.events.barren = Barren { count: 0, instructions: self.instructions, since: self.now() };
        }
        self.events.barren.count = self.events.barren.count.saturating_add(1);
        if self.events.barren.takes_time() {
            self.instructions += 1;
            self.events.barren.instructions = self.instructions;
            self.idle_time = self.idle_time.wrapping_add(EVENT_TIME);
            self.vmx_instruction_timeout();
        }
    }

    /// Goes on with the event whose delivery raised exceptions without end.
    fn retry_delivery(&mut self) -> bool {
        let Some((event, vectoring)) = self.events.retried.take() else { return false };
        self.deliver_or_escalate(event, vectoring);
        true
    }

    /// Delivers `event`, and what comes of faults on the way. `vectoring` is the event whose delivery raised it, if one did.
    ///
    /// A benign exception in the chain (#AC) makes no double fault (SDM vol. 3A, table 6-5), so there need be no end to it: processors stay in
    /// it until reset, and recognize no interrupt meanwhile. Here the delivery is given up after some attempts and taken up again by the run
    /// loop, before anything else.
    pub(crate) fn deliver_or_escalate(&mut self, event: Event, vectoring: Option<Event>) {
        let (mut event, mut vectoring) = (event, vectoring);
        for _ in 0..ATTEMPTS {
            self.events.interrupted = true;
            if self.vmx_exception_exit(event, vectoring) {
                return;
            }
            self.note_exception(event);
            // Between instructions time is exact, and the board within reach.
            let exact = std::mem::replace(&mut self.exact, true);
            let delivered = self.deliver(event);
            self.exact = exact;
            if delivered.is_ok() {
                self.vmx.iret_unblocked_nmi = false;
                // An event delivered before an instruction counts as that instruction does.
                self.vmx_instruction_done();
                return;
            }
            match self.trap {
                Trap::Exception { vector, error } => match self.nested(event, Event::exception(vector, error)) {
                    Some(next) => (event, vectoring) = next,
                    None => return,
                },
                Trap::VmExit => return self.vm_exit_pending(),
                Trap::Shutdown => return self.shut_down(),
                Trap::RetryExact | Trap::RetryOnce | Trap::Continue => return,
            }
        }
        self.events.retried = Some((event, vectoring));
    }

    /// `second` was raised while `first` was being delivered: what is to be delivered now, and on the way of what. `None`: VT-x intercepted
    /// `second` itself, which comes before it makes a double or triple fault, or the processor shut down.
    pub(crate) fn nested(&mut self, first: Event, second: Event) -> Option<(Event, Option<Event>)> {
        match escalate(first, second.vector) {
            Escalation::Serial => return Some((second, Some(first))),
            _ if self.vmx_exception_exit(second, Some(first)) => {}
            Escalation::Double => return Some((Event::exception(Vector::DoubleFault as u8, Some(0)), None)),
            Escalation::Triple => self.shut_down(),
        }
        None
    }

    /// The registers that an exception sets when it is not intercepted: CR2; DR6, DR7 and IA32_DEBUGCTL.
    fn note_exception(&mut self, event: Event) {
        use crate::system::event::EventKind::HardwareException;
        if event.kind != HardwareException {
            return;
        }
        if event.vector == Vector::PageFault as u8 {
            self.cr2 = self.fault_address;
        } else if event.vector == Vector::Debug as u8 {
            let bits = std::mem::take(&mut self.events.debug_bits);
            // A bus lock is told of by a 0; other causes leave that bit alone.
            self.dr[6] = self.dr[6] & !(Dr6::HIT | bits & Dr6::BLD) | bits & !Dr6::BLD;
            self.dr[7] &= !Dr7::GD;
            self.msrs.debugctl &= !(DebugCtl::LBR | DebugCtl::BTF);
        }
    }

    fn shut_down(&mut self) {
        if self.vmx_triple_fault_exit() {
            return;
        }
        self.observe(Happening::TripleFault);
        self.activity = Activity::Shutdown;
        self.attention |= attention::INACTIVE;
    }
}
