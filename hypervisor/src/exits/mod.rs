//! What is done about VM exits: a file for each kind, and here the table of them.

mod apic;
mod control_registers;
mod cpuid;
mod halt;
mod io;
mod memory;
mod msr;
mod shutdown;
mod xsetbv;

use crate::host::Host;
use crate::vcpu::Vcpu;
use crate::vcpu::events::Injection;
use crate::vmcs::{Vmcs, field};
use alloc::format;
use spec::vmx::{ExitReason, Interruptibility, InterruptionInfo};
use spec::x86::{Efer, Rflags, Vector};

pub use cpuid::Withheld;
pub use msr::bitmap as msr_bitmap;

/// A VM exit being handled.
pub struct Exit<'a> {
    /// The vCPU.
    pub vcpu: &'a mut Vcpu,
    /// Its VMCS, which is current.
    pub vmcs: &'a mut dyn Vmcs,
    /// The processor.
    pub host: &'a dyn Host,
}

/// Handles a VM exit with this exit-reason field.
pub fn handle(mut exit: Exit<'_>, reason: u32) {
    exit.vcpu.injection = Injection::interrupted(exit.vmcs);
    let name = ExitReason::from_number(reason as u16);
    if let Some(name) = name {
        exit.vcpu.statistics.count(name);
    }
    if reason >> 31 != 0 {
        return shutdown::failed_entry(&mut exit, reason);
    }
    match name {
        // The time is up, or somebody called: the run loop looks at everything anyway.
        Some(ExitReason::ExternalInterrupt | ExitReason::PreemptionTimer | ExitReason::InterruptWindow) => {}
        Some(ExitReason::TprBelowThreshold) => {}
        Some(ExitReason::ExceptionOrNmi) => {}
        Some(ExitReason::Cpuid) => cpuid::handle(&mut exit),
        Some(ExitReason::Hlt) => halt::handle(&mut exit),
        Some(ExitReason::Io) => io::handle(&mut exit),
        Some(ExitReason::Rdmsr) => msr::read(&mut exit),
        Some(ExitReason::Wrmsr) => msr::write(&mut exit),
        Some(ExitReason::CrAccess) => control_registers::handle(&mut exit),
        Some(ExitReason::Xsetbv) => xsetbv::handle(&mut exit),
        Some(ExitReason::EptViolation) => memory::handle(&mut exit),
        Some(ExitReason::ApicAccess) => apic::access(&mut exit),
        Some(ExitReason::ApicWrite) => apic::written(&mut exit),
        Some(ExitReason::VirtualizedEoi) => apic::ended(&mut exit),
        Some(ExitReason::TripleFault) => shutdown::triple_fault(&mut exit),
        // There is nothing to write back: what is in caches is memory.
        Some(ExitReason::Wbinvd | ExitReason::Invd) => exit.advance(),
        Some(ExitReason::Pause) => {
            exit.advance();
            exit.vcpu.spins = true;
        }
        // None of them is announced: VMX, SMX, MONITOR, performance counters.
        Some(reason) if is_instruction(reason) => exit.raise(Vector::InvalidOpcode, None),
        _ => exit.give_up(reason),
    }
}

/// Whether a guest's instruction causes this exit, which the guest's CPUID does not announce.
fn is_instruction(reason: ExitReason) -> bool {
    use ExitReason as Reason;
    let number = reason as u16;
    (Reason::Vmcall as u16..=Reason::Vmxon as u16).contains(&number)
        || matches!(
            reason,
            Reason::Getsec
                | Reason::Rdpmc
                | Reason::Monitor
                | Reason::Mwait
                | Reason::Invept
                | Reason::Invvpid
                | Reason::Invpcid
                | Reason::Vmfunc
                | Reason::Encls
                | Reason::Xsaves
                | Reason::Xrstors
                | Reason::Rsm
        )
}

impl Exit<'_> {
    /// The exit qualification.
    fn qualification(&self) -> u64 {
        self.vmcs.get(field::EXIT_QUALIFICATION)
    }

    /// Goes on after the instruction that has been done for the guest.
    fn advance(&mut self) {
        let length = self.vmcs.get(field::EXIT_INSTRUCTION_LENGTH);
        self.advance_by(length);
    }

    /// The same, where the VMCS does not tell the length.
    fn advance_by(&mut self, length: u32) {
        let wide = self.vmcs.get(field::GUEST_EFER).has(Efer::LMA);
        let next = self.vmcs.get(field::GUEST_RIP).wrapping_add(length.into());
        self.vmcs.set(field::GUEST_RIP, if wide { next } else { next & 0xffff_ffff });
        let shadow = Interruptibility::STI | Interruptibility::MOV_SS;
        let blocking = self.vmcs.get(field::GUEST_INTERRUPTIBILITY);
        if blocking.0 & shadow != 0 {
            self.vmcs.set(field::GUEST_INTERRUPTIBILITY, Interruptibility(blocking.0 & !shadow));
        }
        // A trap of single-stepping that is due after the instruction.
        if self.vmcs.get(field::GUEST_RFLAGS).has(Rflags::TF) {
            self.raise(Vector::Debug, None);
        }
    }

    /// The next VM entry raises an exception.
    fn raise(&mut self, vector: Vector, error_code: Option<u32>) {
        self.vcpu.injection = Some(Injection::exception(vector, error_code));
    }

    /// #GP(0).
    fn general_protection(&mut self) {
        self.raise(Vector::GeneralProtection, Some(0));
    }

    /// A general register.
    fn register(&self, number: usize) -> u64 {
        if number == 4 { self.vmcs.get(field::GUEST_RSP) } else { self.vcpu.registers[number & 15] }
    }

    /// Writes a general register.
    fn set_register(&mut self, number: usize, value: u64) {
        if number == 4 {
            self.vmcs.set(field::GUEST_RSP, value);
        } else {
            self.vcpu.registers[number & 15] = value;
        }
    }

    /// EDX:EAX.
    fn edx_eax(&self) -> u64 {
        self.vcpu.registers[2] << 32 | self.vcpu.registers[0] & 0xffff_ffff
    }

    /// The guest wants what the hypervisor does not do: it ends, and only it.
    fn give_up(&mut self, reason: u32) {
        let name = ExitReason::from_number(reason as u16).map_or("unknown", ExitReason::text);
        let rip = self.vmcs.get(field::GUEST_RIP);
        let qualification = self.qualification();
        let vectoring = self.vmcs.get(field::IDT_VECTORING_INFO);
        let during = if vectoring.0 & InterruptionInfo::VALID != 0 { " during event delivery" } else { "" };
        let why = format!(
            "not handled: {name} (exit reason {reason:#x}, qualification {qualification:#x}){during} at {rip:#x}"
        );
        self.vcpu.give_up(self.host, why);
    }
}

#[cfg(test)]
mod tests;
