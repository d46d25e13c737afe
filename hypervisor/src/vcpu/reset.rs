//! The state in which a vCPU begins (SDM Vol. 3A, table 10-1; Multiboot Specification 0.6.96, 3.2).

use super::{Begin, Vcpu, modes};
use crate::host::Host;
use crate::loader::Start;
use crate::vmcs::{Segment, SegmentValue, Vmcs, field};
use spec::vmx::{ActivityState, EntryControls, Interruptibility, InterruptionInfo, VmcsField};
use spec::x86::{Cr0, Cr4, Rflags};

/// Access rights in the VMCS's format (SDM Vol. 3C, table 25-2).
mod rights {
    pub const CODE16: u32 = 0x9b;
    pub const DATA16: u32 = 0x93;
    pub const CODE32: u32 = 0xc09b;
    pub const DATA32: u32 = 0xc093;
    pub const LDT: u32 = 0x82;
    pub const TSS: u32 = 0x8b;
}

impl Vcpu {
    /// Writes the guest-state area, and the registers outside it.
    pub(crate) fn reset(&mut self, vmcs: &mut dyn Vmcs, host: &dyn Host, begin: Begin) {
        let start = match begin {
            Begin::Boot => self.vm.start(),
            Begin::StartUp(page) => Some(Start::RealMode { segment: u16::from(page) << 8, ip: 0 }),
        };
        let Some(start) = start else { return };
        self.registers = [0; 16];
        self.registers[2] = u64::from(host.cpuid(1, 0)[0]);
        self.shadow = modes::Shadow::default();
        self.clear_state(vmcs);
        self.write_apic_mode(vmcs);
        let cr0 = match start {
            Start::RealMode { segment, ip } => {
                let code = SegmentValue {
                    selector: segment,
                    base: u64::from(segment) << 4,
                    limit: 0xffff,
                    rights: rights::CODE16,
                };
                let data = SegmentValue { selector: 0, base: 0, limit: 0xffff, rights: rights::DATA16 };
                self.set_segments(vmcs, code, data);
                vmcs.set(field::GUEST_RIP, ip.into());
                Cr0::RESET
            }
            Start::Protected { entry, eax, ebx, esi } => {
                let flat = |selector, rights| SegmentValue { selector, base: 0, limit: u32::MAX, rights };
                self.set_segments(vmcs, flat(0x10, rights::CODE32), flat(0x18, rights::DATA32));
                vmcs.set(field::GUEST_RIP, entry.into());
                (self.registers[0], self.registers[3], self.registers[6]) = (eax.into(), ebx.into(), esi.into());
                Cr0::RESET | Cr0::PE
            }
        };
        // What is written here is valid, or the guest was refused.
        let _ = self.set_cr0(vmcs, cr0);
        let _ = self.set_cr4(vmcs, 0);
    }

    fn set_segments(&self, vmcs: &mut dyn Vmcs, code: SegmentValue, data: SegmentValue) {
        for segment in Segment::ALL {
            let value = match segment {
                Segment::Cs => code,
                Segment::Ldtr => SegmentValue { selector: 0, base: 0, limit: 0xffff, rights: rights::LDT },
                Segment::Tr => SegmentValue { selector: 0, base: 0, limit: 0xffff, rights: rights::TSS },
                _ => data,
            };
            segment.set(vmcs, value);
        }
    }

    fn clear_state(&mut self, vmcs: &mut dyn Vmcs) {
        for zero in [
            VmcsField::GUEST_DEBUGCTL,
            VmcsField::GUEST_PENDING_DEBUG,
            VmcsField::GUEST_SYSENTER_CS,
            VmcsField::GUEST_SYSENTER_ESP,
            VmcsField::GUEST_SYSENTER_EIP,
            VmcsField::GUEST_CR3,
            VmcsField::GUEST_RSP,
            VmcsField::GUEST_EFER,
            VmcsField::GUEST_GDTR_BASE,
            VmcsField::GUEST_IDTR_BASE,
        ] {
            vmcs.write(zero, 0);
        }
        vmcs.set(field::GUEST_CR0, Cr0(0));
        vmcs.set(field::CR0_MASK, Cr0(self.cr0_mask()));
        vmcs.set(field::CR0_READ_SHADOW, Cr0(Cr0::PG));
        vmcs.set(field::GUEST_CR4, Cr4(Cr4::VMXE));
        vmcs.set(field::CR4_MASK, Cr4(self.cr4_mask()));
        vmcs.set(field::CR4_READ_SHADOW, Cr4(0));
        if self.controls.entry & EntryControls::LOAD_PAT != 0 {
            vmcs.set(field::GUEST_PAT, 0x0007_0406_0007_0406);
        }
        vmcs.set(field::GUEST_DR7, 0x400);
        vmcs.set(field::GUEST_RFLAGS, Rflags(Rflags::FIXED1));
        vmcs.set(field::GUEST_GDTR_LIMIT, 0xffff);
        vmcs.set(field::GUEST_IDTR_LIMIT, 0xffff);
        vmcs.set(field::GUEST_INTERRUPTIBILITY, Interruptibility(0));
        vmcs.set(field::GUEST_ACTIVITY_STATE, ActivityState::Active);
        vmcs.set(field::ENTRY_INTERRUPTION_INFO, InterruptionInfo(0));
        vmcs.set(field::VMCS_LINK_POINTER, u64::MAX);
    }
}
