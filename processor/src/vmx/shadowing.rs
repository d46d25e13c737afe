//! VMCS shadowing: VMREAD and VMWRITE in VMX non-root operation that reach the VMCS at the link pointer (SDM Vol. 3C, 25.10 and 26.1.3).

use super::vmcs::{self, NO_POINTER};
use crate::cpu::Cpu;
use spec::vmx::{SecondaryControls as Secondary, VmcsField};

/// Bits of the field encoding that index the bitmaps; with any bit above set, VMREAD and VMWRITE exit.
const INDEXED: u64 = 0x7fff;

impl Cpu {
    /// Whether VMREAD (`bitmap` the VMREAD bitmap) or VMWRITE of the field `encoding` in non-root operation goes to the shadow VMCS;
    /// otherwise it exits.
    pub(super) fn is_shadowed(&mut self, bitmap: VmcsField, encoding: u64) -> bool {
        if !self.vmx.controls.secondary.has(Secondary::VMCS_SHADOWING) || encoding & !INDEXED != 0 {
            return false;
        }
        let byte = self.vmx.vmcs.get(bitmap) + (encoding >> 3);
        self.physical_load::<1>(byte) >> (encoding & 7) & 1 == 0
    }

    /// Whether there is a VMCS that VMREAD and VMWRITE reach: the current one, or in non-root operation the one at the link pointer.
    pub(super) fn has_accessible_vmcs(&self) -> bool {
        if self.vmx.non_root {
            return self.vmx.vmcs.get(VmcsField::VMCS_LINK_POINTER) != NO_POINTER;
        }
        self.vmx.vmcs.is_current()
    }

    /// The address of a field (given by its full encoding) in the region of the VMCS at the link pointer.
    fn shadow_field(&self, field: VmcsField) -> u64 {
        self.vmx.vmcs.get(VmcsField::VMCS_LINK_POINTER) + vmcs::offset_of(field)
    }

    /// The value of a field of the VMCS that VMREAD and VMWRITE reach.
    pub(super) fn read_vmcs_field(&mut self, field: VmcsField) -> u64 {
        if !self.vmx.non_root {
            return self.vmx.vmcs.get(field);
        }
        vmcs::cut(field, self.physical_load::<8>(self.shadow_field(field)))
    }

    /// Writes a field of that VMCS.
    pub(super) fn write_vmcs_field(&mut self, field: VmcsField, value: u64) {
        if self.vmx.non_root {
            self.physical_store::<8>(self.shadow_field(field), value);
        } else {
            self.vmx.vmcs.set(field, value);
        }
    }
}
