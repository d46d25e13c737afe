//! The MSR areas of VM entry and VM exit (SDM Vol. 3C, 25.7.2, 25.8.2, 27.4, 28.4 and 28.6).

use crate::apic;
use crate::cpu::Cpu;
use spec::vmx::EntryCheck;
use spec::x86::msr;

/// Entries in an area that are processed; IA32_VMX_MISC recommends no more.
pub const LIMIT: u64 = 512;

/// One entry of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    address: u64,
    number: u32,
    reserved: u32,
    data: u64,
}

impl Entry {
    /// Reads the entry at physical `address`.
    pub fn load(cpu: &mut Cpu, address: u64) -> Self {
        let low = cpu.physical_load::<8>(address);
        let data = cpu.physical_load::<8>(address.wrapping_add(8));
        Self { address, number: low as u32, reserved: (low >> 32) as u32, data }
    }

    /// What both loading and storing refuse.
    fn check(&self, cpu: &Cpu) -> Result<(), EntryCheck> {
        if matches!(self.number, msr::X2APIC_FIRST..=msr::X2APIC_LAST) && cpu.apic.mode() == apic::Mode::X2Apic {
            return Err(EntryCheck::MsrLoadX2apic);
        }
        if matches!(self.number, msr::SMM_MONITOR_CTL | msr::SMBASE) {
            return Err(EntryCheck::MsrLoadSmmOnly);
        }
        if self.reserved != 0 { Err(EntryCheck::MsrLoadReserved) } else { Ok(()) }
    }

    /// Loads the MSR.
    ///
    /// # Errors
    /// The rule that the entry breaks.
    pub fn write(&self, cpu: &mut Cpu) -> Result<(), EntryCheck> {
        if matches!(self.number, msr::FS_BASE | msr::GS_BASE) {
            return Err(EntryCheck::MsrLoadFsGsBase);
        }
        self.check(cpu)?;
        if matches!(self.number, msr::BIOS_UPDT_TRIG | msr::BIOS_SIGN_ID) {
            return Err(EntryCheck::MsrLoadModelSpecific);
        }
        if cpu.write_msr(self.number, self.data) { Ok(()) } else { Err(EntryCheck::MsrLoadRefused) }
    }

    /// Stores the MSR's value into the entry. False if it cannot be.
    pub fn store(&self, cpu: &mut Cpu) -> bool {
        if self.check(cpu).is_err() {
            return false;
        }
        let Some(value) = cpu.read_msr(self.number) else { return false };
        cpu.physical_store::<8>(self.address.wrapping_add(8), value);
        true
    }
}
