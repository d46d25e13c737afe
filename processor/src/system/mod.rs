//! The system side of the instruction set and of the processor: privilege, segments, far transfers, interrupts and exceptions,
//! tasks, system registers, time, I/O (SDM vol. 3, chapters 2, 5 to 8 and 18).

mod control;
mod debug;
pub(crate) mod delivery;
mod descriptor_tables;
pub mod event;
mod far;
mod fast_call;
mod flag_control;
pub mod halt;
mod identify;
pub mod intercept;
mod io;
mod iret;
pub mod msrs;
mod segments;
mod software_interrupt;
mod stack;
mod task;
#[cfg(test)]
mod tests;
pub mod user_wait;
mod xsave;

use crate::decode::Table;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

/// Registers all system instructions.
pub fn register(table: &mut Table) {
    far::register(table);
    iret::register(table);
    software_interrupt::register(table);
    fast_call::register(table);
    descriptor_tables::register(table);
    flag_control::register(table);
    control::register(table);
    debug::register(table);
    msrs::register(table);
    identify::register(table);
    io::register(table);
    halt::register(table);
    user_wait::register(table);
    xsave::register(table);
}

use crate::apic::{Acceptance, Effect, InterruptMessage, LocalSource, Moment};
use crate::cpu::Cpu;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::run::{Activity, attention};

impl Cpu {
    /// IA32_TIME_STAMP_COUNTER, without what VT-x adds. Exact where [`Cpu::now`] is.
    #[inline]
    pub fn tsc(&self) -> u64 {
        self.tsc_at(self.now())
    }

    pub(crate) fn tsc_at(&self, now: u64) -> u64 {
        now.wrapping_mul(TSC_TICKS_PER_NS).wrapping_add(self.msrs.tsc_adjust)
    }

    /// The moment, as the local APIC takes it.
    #[inline]
    pub fn moment(&self) -> Moment {
        let now = self.now();
        Moment { nanoseconds: now, tsc: self.tsc_at(now) }
    }

    /// An interrupt message has come for this processor's local APIC.
    pub fn accept(&mut self, message: &InterruptMessage) {
        let moment = self.moment();
        self.apic.advance(moment);
        let acceptance = self.apic.accept(message);
        self.accepted(acceptance);
    }

    /// Drives the 8259's interrupt line.
    pub fn set_interrupt_pin(&mut self, level: bool) {
        let acceptance = self.apic.set_lint0(level);
        self.accepted(acceptance);
    }

    /// Drives the NMI line.
    pub fn set_nmi_pin(&mut self, level: bool) {
        let acceptance = self.apic.set_lint1(level);
        self.accepted(acceptance);
    }

    /// What a serializing instruction does beside its own work (SDM vol. 3A, 9.3): no earlier store is on its way any more when a later load is made.
    /// Only other threads could tell.
    pub(crate) fn drain_stores(&self) {
        if self.peers.is_some() {
            fence(SeqCst);
        }
    }

    /// A source of the local APIC fires.
    pub(crate) fn raise_local(&mut self, source: LocalSource) {
        let acceptance = self.apic.raise(source);
        self.accepted(acceptance);
    }

    fn accepted(&mut self, acceptance: Acceptance) {
        match acceptance {
            Acceptance::Nmi => self.events.nmi = true,
            Acceptance::Init => self.events.init = true,
            Acceptance::StartUp(vector) if self.activity == Activity::WaitForSipi || self.events.init => {
                self.events.startup = Some(vector);
            }
            // There is no system-management mode.
            Acceptance::Smi | Acceptance::StartUp(_) | Acceptance::Ignored | Acceptance::Recorded => {}
        }
        self.recheck_events();
    }

    /// Carries out what a write to the local APIC asks for.
    pub(crate) fn apic_effect(&mut self, effect: Option<Effect>) {
        let now = self.now();
        match effect {
            Some(Effect::Send(message)) => {
                self.bus.send_interrupt(now, message);
                self.attention |= attention::BUS_TOUCHED;
            }
            Some(Effect::BroadcastEoi(vector)) => {
                self.bus.end_of_interrupt(now, vector);
                self.attention |= attention::BUS_TOUCHED;
            }
            None => {}
        }
        self.attention |= attention::DEADLINE;
        self.publish_address();
        self.recheck_events();
    }
}
