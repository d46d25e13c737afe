//! The TPR shadow (SDM Vol. 3C, 30.1.1 to 30.1.3).

use crate::cpu::Cpu;
use crate::run::attention;
use spec::apic::local_apic::offset;
use spec::vmx::VmcsField;

impl Cpu {
    fn virtual_apic_register(&self, offset: u16) -> u64 {
        self.vmx.vmcs.get(VmcsField::VIRTUAL_APIC_ADDRESS).wrapping_add(u64::from(offset))
    }

    /// VTPR, the 32 bits at offset 80H of the virtual-APIC page.
    pub(crate) fn virtual_tpr(&mut self) -> u32 {
        self.physical_load::<4>(self.virtual_apic_register(offset::TPR)) as u32
    }

    /// Writes VTPR (bits 31:8 become 0). TPR virtualization follows: a VM exit after the instruction when VTPR falls below the threshold.
    pub(crate) fn set_virtual_tpr(&mut self, value: u32) {
        let value = value & 0xff;
        self.physical_store::<4>(self.virtual_apic_register(offset::TPR), u64::from(value));
        if u64::from(value >> 4) < self.vmx.vmcs.get(VmcsField::TPR_THRESHOLD) & 0xf {
            self.vmx.tpr_below_threshold = true;
            self.attention |= attention::EVENT;
        }
    }
}
