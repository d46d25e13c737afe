//! Which fields a VMCS has: many exist only where a control can be 1 (SDM Vol. 3D, appendix B).

use super::vmcs;
use crate::models::VmxBits;
use spec::vmx::capability::vmfunc;
use spec::vmx::{
    EntryControls as Entry, ExitControls as Exit, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, SecondaryExitControls as SecondaryExit, TertiaryControls as Tertiary, VmcsField,
};

/// A bit for each slot of [`vmcs::slot_of`].
pub type FieldSet = [u64; vmcs::SLOTS / 64];

const NONE: VmxBits = VmxBits::NONE;

const fn pin(bits: u32) -> VmxBits {
    VmxBits { pin: bits, ..NONE }
}

const fn primary(bits: u32) -> VmxBits {
    VmxBits { primary: bits, ..NONE }
}

const fn secondary(bits: u32) -> VmxBits {
    VmxBits { secondary: bits, ..NONE }
}

const fn tertiary(bits: u64) -> VmxBits {
    VmxBits { tertiary: bits, ..NONE }
}

const fn exit(bits: u32) -> VmxBits {
    VmxBits { exit: bits, ..NONE }
}

const fn entry(bits: u32) -> VmxBits {
    VmxBits { entry: bits, ..NONE }
}

/// Fields that exist if one of the bits can be 1. All others always do.
const EXISTS_WITH: &[(VmxBits, &[VmcsField])] = &[
    (
        pin(Pin::POSTED_INTERRUPTS),
        &[VmcsField::POSTED_INTERRUPT_NOTIFICATION_VECTOR, VmcsField::POSTED_INTERRUPT_DESCRIPTOR],
    ),
    (pin(Pin::PREEMPTION_TIMER), &[VmcsField::PREEMPTION_TIMER]),
    (primary(Primary::USE_MSR_BITMAPS), &[VmcsField::MSR_BITMAPS]),
    (primary(Primary::USE_TPR_SHADOW), &[VmcsField::VIRTUAL_APIC_ADDRESS, VmcsField::TPR_THRESHOLD]),
    (primary(Primary::ACTIVATE_SECONDARY_CONTROLS), &[VmcsField::SECONDARY_CONTROLS]),
    (primary(Primary::ACTIVATE_TERTIARY_CONTROLS), &[VmcsField::TERTIARY_CONTROLS]),
    (secondary(Secondary::VIRTUALIZE_APIC_ACCESSES), &[VmcsField::APIC_ACCESS_ADDRESS]),
    (
        secondary(Secondary::ENABLE_EPT),
        &[
            VmcsField::EPT_POINTER,
            VmcsField::GUEST_PHYSICAL_ADDRESS,
            VmcsField::GUEST_PDPTE0,
            VmcsField::GUEST_PDPTE1,
            VmcsField::GUEST_PDPTE2,
            VmcsField::GUEST_PDPTE3,
        ],
    ),
    (secondary(Secondary::ENABLE_VPID), &[VmcsField::VPID]),
    (
        secondary(Secondary::VIRTUAL_INTERRUPT_DELIVERY),
        &[
            VmcsField::GUEST_INTERRUPT_STATUS,
            VmcsField::EOI_EXIT_BITMAP_0,
            VmcsField::EOI_EXIT_BITMAP_1,
            VmcsField::EOI_EXIT_BITMAP_2,
            VmcsField::EOI_EXIT_BITMAP_3,
        ],
    ),
    (secondary(Secondary::PAUSE_LOOP_EXITING), &[VmcsField::PLE_GAP, VmcsField::PLE_WINDOW]),
    (secondary(Secondary::ENABLE_VM_FUNCTIONS), &[VmcsField::VM_FUNCTION_CONTROLS]),
    (VmxBits { vm_functions: vmfunc::EPTP_SWITCHING, ..NONE }, &[VmcsField::EPTP_LIST_ADDRESS]),
    (secondary(Secondary::VMCS_SHADOWING), &[VmcsField::VMREAD_BITMAP, VmcsField::VMWRITE_BITMAP]),
    (secondary(Secondary::ENABLE_ENCLS_EXITING), &[VmcsField::ENCLS_EXITING_BITMAP]),
    (secondary(Secondary::ENABLE_PML), &[VmcsField::PML_INDEX, VmcsField::PML_ADDRESS]),
    (secondary(Secondary::EPT_VIOLATION_VE), &[VmcsField::EPTP_INDEX, VmcsField::VE_INFORMATION_ADDRESS]),
    (secondary(Secondary::ENABLE_XSAVES), &[VmcsField::XSS_EXITING_BITMAP]),
    (secondary(Secondary::PASID_TRANSLATION), &[VmcsField::LOW_PASID_DIRECTORY, VmcsField::HIGH_PASID_DIRECTORY]),
    (secondary(Secondary::SUB_PAGE_WRITE), &[VmcsField::SPP_TABLE_POINTER]),
    (secondary(Secondary::USE_TSC_SCALING), &[VmcsField::TSC_MULTIPLIER]),
    (secondary(Secondary::ENABLE_PCONFIG), &[VmcsField::PCONFIG_EXITING_BITMAP]),
    (secondary(Secondary::ENABLE_ENCLV_EXITING), &[VmcsField::ENCLV_EXITING_BITMAP]),
    (secondary(Secondary::INSTRUCTION_TIMEOUT), &[VmcsField::INSTRUCTION_TIMEOUT]),
    (tertiary(Tertiary::ENABLE_HLAT), &[VmcsField::HLAT_PREFIX_SIZE, VmcsField::HLAT_POINTER]),
    (tertiary(Tertiary::IPI_VIRTUALIZATION), &[VmcsField::LAST_PID_POINTER_INDEX, VmcsField::PID_POINTER_TABLE]),
    (tertiary(Tertiary::VIRTUALIZE_SPEC_CTRL), &[VmcsField::SPEC_CTRL_MASK, VmcsField::SPEC_CTRL_SHADOW]),
    (exit(Exit::ACTIVATE_SECONDARY_CONTROLS), &[VmcsField::SECONDARY_EXIT_CONTROLS]),
    (VmxBits { entry: Entry::LOAD_PAT, exit: Exit::SAVE_PAT, ..NONE }, &[VmcsField::GUEST_PAT]),
    (exit(Exit::LOAD_PAT), &[VmcsField::HOST_PAT]),
    (VmxBits { entry: Entry::LOAD_EFER, exit: Exit::SAVE_EFER, ..NONE }, &[VmcsField::GUEST_EFER]),
    (exit(Exit::LOAD_EFER), &[VmcsField::HOST_EFER]),
    (
        VmxBits { entry: Entry::LOAD_PERF_GLOBAL_CTRL, exit: Exit::SAVE_PERF_GLOBAL_CTRL, ..NONE },
        &[VmcsField::GUEST_PERF_GLOBAL_CTRL],
    ),
    (exit(Exit::LOAD_PERF_GLOBAL_CTRL), &[VmcsField::HOST_PERF_GLOBAL_CTRL]),
    (VmxBits { entry: Entry::LOAD_BNDCFGS, exit: Exit::CLEAR_BNDCFGS, ..NONE }, &[VmcsField::GUEST_BNDCFGS]),
    (VmxBits { entry: Entry::LOAD_RTIT_CTL, exit: Exit::CLEAR_RTIT_CTL, ..NONE }, &[VmcsField::GUEST_RTIT_CTL]),
    (VmxBits { entry: Entry::LOAD_LBR_CTL, exit: Exit::CLEAR_LBR_CTL, ..NONE }, &[VmcsField::GUEST_LBR_CTL]),
    (VmxBits { entry: Entry::LOAD_UINV, exit: Exit::CLEAR_UINV, ..NONE }, &[VmcsField::GUEST_UINV]),
    (entry(Entry::LOAD_PKRS), &[VmcsField::GUEST_PKRS]),
    (exit(Exit::LOAD_PKRS), &[VmcsField::HOST_PKRS]),
    (entry(Entry::LOAD_SPEC_CTRL), &[VmcsField::GUEST_SPEC_CTRL]),
    (VmxBits { secondary_exit: SecondaryExit::LOAD_SPEC_CTRL, ..NONE }, &[VmcsField::HOST_SPEC_CTRL]),
    (
        entry(Entry::LOAD_CET_STATE),
        &[VmcsField::GUEST_S_CET, VmcsField::GUEST_SSP, VmcsField::GUEST_INTERRUPT_SSP_TABLE],
    ),
    (exit(Exit::LOAD_CET_STATE), &[VmcsField::HOST_S_CET, VmcsField::HOST_SSP, VmcsField::HOST_INTERRUPT_SSP_TABLE]),
    (
        VmxBits { entry: Entry::LOAD_FRED, secondary_exit: SecondaryExit::SAVE_FRED, ..NONE },
        &[
            VmcsField::GUEST_FRED_CONFIG,
            VmcsField::GUEST_FRED_RSP1,
            VmcsField::GUEST_FRED_RSP2,
            VmcsField::GUEST_FRED_RSP3,
            VmcsField::GUEST_FRED_STKLVLS,
            VmcsField::GUEST_FRED_SSP1,
            VmcsField::GUEST_FRED_SSP2,
            VmcsField::GUEST_FRED_SSP3,
            VmcsField::INJECTED_EVENT_DATA,
            VmcsField::ORIGINAL_EVENT_DATA,
        ],
    ),
    (
        VmxBits { secondary_exit: SecondaryExit::LOAD_FRED, ..NONE },
        &[
            VmcsField::HOST_FRED_CONFIG,
            VmcsField::HOST_FRED_RSP1,
            VmcsField::HOST_FRED_RSP2,
            VmcsField::HOST_FRED_RSP3,
            VmcsField::HOST_FRED_STKLVLS,
            VmcsField::HOST_FRED_SSP1,
            VmcsField::HOST_FRED_SSP2,
            VmcsField::HOST_FRED_SSP3,
        ],
    ),
    // Part of Intel TDX.
    (NONE, &[VmcsField::SHARED_EPT_POINTER]),
];

/// The fields that exist where these bits can be 1.
pub fn existing(bits: VmxBits) -> FieldSet {
    let mut fields = FieldSet::default();
    for (field, _) in VmcsField::ALL {
        let exists = EXISTS_WITH
            .iter()
            .find(|(_, fields)| fields.contains(field))
            .is_none_or(|(needed, _)| bits.intersects(*needed));
        if let (true, Some(slot)) = (exists, vmcs::slot_of(*field)) {
            fields[slot / 64] |= 1 << (slot % 64);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_listed_twice() {
        let listed: Vec<VmcsField> = EXISTS_WITH.iter().flat_map(|(_, fields)| *fields).copied().collect();
        for (n, field) in listed.iter().enumerate() {
            assert!(!listed[..n].contains(field), "{field:?}");
        }
    }
}
