//! RDMSR and WRMSR of the x2APIC's registers with "virtualize x2APIC mode" (SDM Vol. 3C, 30.5).
//!
//! Whether the MSR bitmaps make the instruction exit has been asked before. What is not virtualized here reaches the local APIC.

use super::apic_virtualization::ApicExit;
use crate::apic::X2APIC_COMMAND_ACCEPTED;
use crate::cpu::Cpu;
use crate::trap::Exec;
use spec::apic::local_apic::offset;
use spec::vmx::SecondaryControls as Secondary;
use spec::x86::msr::{X2APIC_FIRST, X2APIC_LAST};

impl Cpu {
    /// The offset of the register in the virtual-APIC page, when "virtualize x2APIC mode" is 1 and `number` is an x2APIC MSR.
    fn virtual_x2apic_register(&self, number: u32) -> Option<u16> {
        let virtualized = self.vmx.controls.secondary.has(Secondary::VIRTUALIZE_X2APIC_MODE)
            && (X2APIC_FIRST..=X2APIC_LAST).contains(&number);
        virtualized.then_some(((number & 0xff) << 4) as u16)
    }

    /// A read of an MSR that VT-x answers itself, whatever mode the local APIC is in. `None`: the ordinary way.
    pub(crate) fn virtual_msr_read(&mut self, number: u32) -> Option<u64> {
        let register = self.virtual_x2apic_register(number)?;
        let all = self.vmx.controls.secondary.has(Secondary::APIC_REGISTER_VIRTUALIZATION);
        (all || register == offset::TPR).then(|| self.virtual_register::<8>(register))
    }

    /// A write of an MSR that VT-x takes itself. False: the ordinary way.
    pub(crate) fn virtual_msr_write(&mut self, number: u32, value: u64) -> Exec<bool> {
        let Some(register) = self.virtual_x2apic_register(number) else { return Ok(false) };
        let delivery = self.vmx.controls.secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY);
        let writable = match register {
            offset::TPR => 0xff,
            offset::EOI if delivery => 0,
            offset::SELF_IPI if delivery => 0xff,
            offset::ICR_LOW if self.ipi_virtualization() => !0xffff_ffff | u64::from(X2APIC_COMMAND_ACCEPTED),
            _ => return Ok(false),
        };
        if value & !writable != 0 {
            return Err(self.general_protection(0));
        }
        self.set_virtual_register::<8>(register, value);
        match register {
            offset::TPR => self.virtualize_tpr(),
            offset::EOI => self.virtualize_eoi(),
            offset::SELF_IPI if value >> 4 == 0 => self.apic_exit_due(ApicExit::Write(offset::SELF_IPI)),
            offset::SELF_IPI => self.virtualize_self_ipi(value as u8),
            _ => self.virtualize_ipi_command(value as u32, (value >> 32) as u32),
        }
        Ok(true)
    }
}
