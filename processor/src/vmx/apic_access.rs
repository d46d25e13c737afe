//! Accesses to the APIC-access page: which are virtualized, and the VM exits of the others (SDM Vol. 3C, 30.4).

use super::apic_virtualization::ApicWrite;
use super::exit::Exit;
use crate::cpu::Cpu;
use crate::run::attention;
use crate::trap::{Exec, Trapped};
use spec::apic::local_apic::offset;
use spec::vmx::qualification::apic_access;
use spec::vmx::{ExitReason, PrimaryControls as Primary, SecondaryControls as Secondary, VmcsField};

/// The last of the eight in-service registers.
const ISR_LAST: u16 = offset::ISR + 0x70;
/// The last trigger-mode register.
const TMR_LAST: u16 = offset::TMR + 0x70;
/// The last interrupt-request register.
const IRR_LAST: u16 = offset::IRR + 0x70;

/// Registers whose reads and writes "APIC-register virtualization" virtualizes.
fn is_virtualized_register(register: u16) -> bool {
    matches!(
        register,
        offset::ID
            | offset::TPR
            | offset::EOI
            | offset::LDR
            | offset::DFR
            | offset::SVR
            | offset::ESR
            | offset::ICR_LOW
            | offset::ICR_HIGH
            | offset::LVT_TIMER
            | offset::LVT_THERMAL
            | offset::LVT_PMI
            | offset::LVT_LINT0
            | offset::LVT_LINT1
            | offset::LVT_ERROR
            | offset::TIMER_INITIAL
            | offset::TIMER_DIVIDE
    )
}

/// Registers of which it virtualizes reads only.
fn is_virtualized_for_reads(register: u16) -> bool {
    matches!(
        register,
        offset::VERSION | offset::ISR..=ISR_LAST | offset::TMR..=TMR_LAST | offset::IRR..=IRR_LAST
    )
}

impl Cpu {
    /// Whether `physical` lies in the APIC-access page.
    #[inline]
    pub(crate) fn in_apic_access_page(&self, physical: u64) -> bool {
        self.vmx.controls.secondary.has(Secondary::VIRTUALIZE_APIC_ACCESSES)
            && physical & !0xfff == self.vmx.vmcs.get(VmcsField::APIC_ACCESS_ADDRESS)
    }

    /// Whether a linear access can be virtualized at all: with a TPR shadow, within the 32 bits of one register.
    fn is_register_access(&self, at: u16, size: usize) -> bool {
        self.vmx.controls.primary.has(Primary::USE_TPR_SHADOW)
            && size <= 4
            && at & 0xc == 0
            && (at & 3) + size as u16 <= 4
    }

    /// 30.4.2.
    fn reads_virtually(&self, at: u16, size: usize) -> bool {
        let secondary = self.vmx.controls.secondary;
        // An operation that has virtualized a write does not read virtually any more.
        self.is_register_access(at, size)
            && self.vmx.apic_write.is_none()
            && match at {
                offset::TPR => true,
                offset::EOI | offset::ICR_LOW if secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY) => true,
                _ => {
                    let register = at & !3;
                    secondary.has(Secondary::APIC_REGISTER_VIRTUALIZATION)
                        && (is_virtualized_register(register) || is_virtualized_for_reads(register))
                }
            }
    }

    /// 30.4.3.1.
    fn writes_virtually(&self, write: ApicWrite) -> bool {
        let secondary = self.vmx.controls.secondary;
        self.is_register_access(write.offset, usize::from(write.size))
            && self.vmx.apic_write.is_none_or(|before| before == write)
            && match write.offset {
                offset::TPR => true,
                offset::EOI | offset::ICR_LOW if secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY) => true,
                offset::ICR_LOW if self.ipi_virtualization() => true,
                _ => {
                    secondary.has(Secondary::APIC_REGISTER_VIRTUALIZATION) && is_virtualized_register(write.offset & !3)
                }
            }
    }

    /// The VM exit of a linear access of this kind.
    #[cold]
    pub(crate) fn apic_access_exit(&mut self, physical: u64, kind: u64) -> Trapped {
        let kind = if self.events.delivering.is_some() { apic_access::EVENT_DELIVERY } else { kind };
        self.vm_exit(Exit::new(ExitReason::ApicAccess, physical & 0xfff | kind << apic_access::TYPE_SHIFT))
    }

    /// The VM exit of a guest-physical access that is not the translation of a linear address: a page walk's (30.4.6.1).
    #[cold]
    pub(super) fn apic_access_by_walk(&mut self) -> Trapped {
        let kind = match self.events.delivering {
            Some(_) => apic_access::PHYSICAL_EVENT_DELIVERY,
            None => apic_access::PHYSICAL,
        };
        self.vm_exit(Exit::new(ExitReason::ApicAccess, kind << apic_access::TYPE_SHIFT))
    }

    /// MONITOR of a line in the page: a VM exit.
    pub(crate) fn check_monitored_page(&mut self, physical: u64) -> Exec {
        if self.in_apic_access_page(physical) {
            return Err(self.apic_access_exit(physical, apic_access::MONITOR));
        }
        Ok(())
    }

    /// A load from the APIC-access page.
    pub(crate) fn apic_access_load(&mut self, physical: u64, size: usize) -> Exec<u64> {
        let at = (physical & 0xfff) as u16;
        if !self.reads_virtually(at, size) {
            return Err(self.apic_access_exit(physical, apic_access::READ));
        }
        Ok(match size {
            1 => self.virtual_register::<1>(at),
            2 => self.virtual_register::<2>(at),
            _ => self.virtual_register::<4>(at),
        })
    }

    /// A store to the APIC-access page. When it is virtualized, its emulation follows at the end of the operation.
    pub(crate) fn apic_access_store(&mut self, physical: u64, size: usize, value: u64) -> Exec {
        let write = ApicWrite { offset: (physical & 0xfff) as u16, size: size as u8 };
        if !self.writes_virtually(write) {
            return Err(self.apic_access_exit(physical, apic_access::WRITE));
        }
        match size {
            1 => self.set_virtual_register::<1>(write.offset, value),
            2 => self.set_virtual_register::<2>(write.offset, value),
            _ => self.set_virtual_register::<4>(write.offset, value),
        }
        self.vmx.apic_write = Some(write);
        self.attention |= attention::EVENT;
        Ok(())
    }
}
