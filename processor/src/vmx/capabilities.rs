//! The capability MSRs: what this processor's VT-x can do (SDM Vol. 3D, appendix A).
//!
//! Only what `vmx/` implements is announced, and only what the CPU model has the instructions for.

use super::vmcs;
use crate::models::Model;
use spec::vmx::capability::{ControlCapability, EptVpidCap, basic, misc, vmfunc};
use spec::vmx::{
    AccessType, EntryControls as Entry, ExitControls as Exit, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, VmcsField, Width,
};
use spec::x86::cpuid::Feature;
use spec::x86::{Cr0, Cr4, msr};

/// The preemption timer counts down once in 2 to the power of this many TSC ticks.
pub const PREEMPTION_TIMER_SHIFT: u32 = 5;
/// Number of CR3-target values.
pub const CR3_TARGETS: u64 = 4;

/// Control bits with their settings implemented, apart from the default1 ones.
mod implemented {
    use super::*;

    pub const PIN: u32 = Pin::EXTERNAL_INTERRUPT_EXITING | Pin::NMI_EXITING | Pin::VIRTUAL_NMIS | Pin::PREEMPTION_TIMER;
    pub const PRIMARY: u32 = Primary::ALL & !Primary::ACTIVATE_TERTIARY_CONTROLS;
    pub const SECONDARY: u32 = Secondary::VIRTUALIZE_APIC_ACCESSES
        | Secondary::ENABLE_EPT
        | Secondary::DESCRIPTOR_TABLE_EXITING
        | Secondary::ENABLE_VPID
        | Secondary::WBINVD_EXITING
        | Secondary::UNRESTRICTED_GUEST
        | Secondary::PAUSE_LOOP_EXITING
        | Secondary::ENABLE_VM_FUNCTIONS
        | Secondary::USE_TSC_SCALING;
    /// Secondary controls that a CPU feature brings with it.
    pub const BY_FEATURE: &[(Feature, u32)] = &[
        (Feature::RDTSCP, Secondary::ENABLE_RDTSCP),
        (Feature::RDPID, Secondary::ENABLE_RDTSCP),
        (Feature::X2APIC, Secondary::VIRTUALIZE_X2APIC_MODE),
        (Feature::RDRAND, Secondary::RDRAND_EXITING),
        (Feature::RDSEED, Secondary::RDSEED_EXITING),
        (Feature::INVPCID, Secondary::ENABLE_INVPCID),
        (Feature::XSAVES, Secondary::ENABLE_XSAVES),
    ];
    pub const EXIT: u32 = Exit::SAVE_DEBUG_CONTROLS
        | Exit::HOST_ADDRESS_SPACE_SIZE
        | Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT
        | Exit::SAVE_PAT
        | Exit::LOAD_PAT
        | Exit::SAVE_EFER
        | Exit::LOAD_EFER
        | Exit::SAVE_PREEMPTION_TIMER;
    pub const ENTRY: u32 = Entry::LOAD_DEBUG_CONTROLS | Entry::IA32E_MODE_GUEST | Entry::LOAD_PAT | Entry::LOAD_EFER;
    pub const EPT_VPID: u64 = EptVpidCap::EXECUTE_ONLY
        | EptVpidCap::WALK_4
        | EptVpidCap::MEMORY_UC
        | EptVpidCap::MEMORY_WB
        | EptVpidCap::PAGES_2M
        | EptVpidCap::PAGES_1G
        | EptVpidCap::INVEPT
        | EptVpidCap::ACCESSED_DIRTY
        | EptVpidCap::INVEPT_SINGLE
        | EptVpidCap::INVEPT_ALL
        | EptVpidCap::INVVPID
        | EptVpidCap::INVVPID_ADDRESS
        | EptVpidCap::INVVPID_SINGLE
        | EptVpidCap::INVVPID_ALL
        | EptVpidCap::INVVPID_SINGLE_RETAIN_GLOBALS;
    /// Default1 controls that may be 0 nevertheless, as the "true" MSRs show.
    pub const PRIMARY_FREED: u32 = Primary::CR3_LOAD_EXITING | Primary::CR3_STORE_EXITING;
    pub const EXIT_FREED: u32 = Exit::SAVE_DEBUG_CONTROLS;
    pub const ENTRY_FREED: u32 = Entry::LOAD_DEBUG_CONTROLS;
}

/// Fields of features that are not implemented: VMREAD and VMWRITE of them fail.
const ABSENT_FIELDS: &[VmcsField] = &[
    VmcsField::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
    VmcsField::HLAT_PREFIX_SIZE,
    VmcsField::LAST_PID_POINTER_INDEX,
    VmcsField::GUEST_INTERRUPT_STATUS,
    VmcsField::PML_INDEX,
    VmcsField::GUEST_UINV,
    VmcsField::PML_ADDRESS,
    VmcsField::POSTED_INTERRUPT_DESCRIPTOR,
    VmcsField::EOI_EXIT_BITMAP_0,
    VmcsField::EOI_EXIT_BITMAP_1,
    VmcsField::EOI_EXIT_BITMAP_2,
    VmcsField::EOI_EXIT_BITMAP_3,
    VmcsField::VMREAD_BITMAP,
    VmcsField::VMWRITE_BITMAP,
    VmcsField::VE_INFORMATION_ADDRESS,
    VmcsField::EPTP_INDEX,
    VmcsField::ENCLS_EXITING_BITMAP,
    VmcsField::SPP_TABLE_POINTER,
    VmcsField::TERTIARY_CONTROLS,
    VmcsField::ENCLV_EXITING_BITMAP,
    VmcsField::LOW_PASID_DIRECTORY,
    VmcsField::HIGH_PASID_DIRECTORY,
    VmcsField::SHARED_EPT_POINTER,
    VmcsField::PCONFIG_EXITING_BITMAP,
    VmcsField::HLAT_POINTER,
    VmcsField::PID_POINTER_TABLE,
    VmcsField::SECONDARY_EXIT_CONTROLS,
    VmcsField::SPEC_CTRL_MASK,
    VmcsField::SPEC_CTRL_SHADOW,
    VmcsField::INJECTED_EVENT_DATA,
    VmcsField::ORIGINAL_EVENT_DATA,
    VmcsField::GUEST_PERF_GLOBAL_CTRL,
    VmcsField::GUEST_BNDCFGS,
    VmcsField::GUEST_RTIT_CTL,
    VmcsField::GUEST_LBR_CTL,
    VmcsField::GUEST_PKRS,
    VmcsField::GUEST_FRED_CONFIG,
    VmcsField::GUEST_FRED_RSP1,
    VmcsField::GUEST_FRED_RSP2,
    VmcsField::GUEST_FRED_RSP3,
    VmcsField::GUEST_FRED_STKLVLS,
    VmcsField::GUEST_FRED_SSP1,
    VmcsField::GUEST_FRED_SSP2,
    VmcsField::GUEST_FRED_SSP3,
    VmcsField::HOST_PERF_GLOBAL_CTRL,
    VmcsField::HOST_PKRS,
    VmcsField::HOST_FRED_CONFIG,
    VmcsField::HOST_FRED_RSP1,
    VmcsField::HOST_FRED_RSP2,
    VmcsField::HOST_FRED_RSP3,
    VmcsField::HOST_FRED_STKLVLS,
    VmcsField::HOST_FRED_SSP1,
    VmcsField::HOST_FRED_SSP2,
    VmcsField::HOST_FRED_SSP3,
    VmcsField::INSTRUCTION_TIMEOUT,
    VmcsField::GUEST_S_CET,
    VmcsField::GUEST_SSP,
    VmcsField::GUEST_INTERRUPT_SSP_TABLE,
    VmcsField::HOST_S_CET,
    VmcsField::HOST_SSP,
    VmcsField::HOST_INTERRUPT_SSP_TABLE,
];

fn existing_fields() -> [u64; vmcs::SLOTS / 64] {
    let mut fields = [0; vmcs::SLOTS / 64];
    for (field, _) in VmcsField::ALL.iter().filter(|(field, _)| !ABSENT_FIELDS.contains(field)) {
        if let Some(slot) = vmcs::slot_of(*field) {
            fields[slot / 64] |= 1 << (slot % 64);
        }
    }
    fields
}

/// What a processor's VT-x can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmxCapabilities {
    /// VT-x exists.
    pub present: bool,
    /// Pin-based controls, as the "true" MSR shows them.
    pub pin: ControlCapability,
    /// Primary processor-based controls.
    pub primary: ControlCapability,
    /// Secondary processor-based controls.
    pub secondary: ControlCapability,
    /// VM-exit controls.
    pub exit: ControlCapability,
    /// VM-entry controls.
    pub entry: ControlCapability,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: EptVpidCap,
    /// IA32_VMX_VMFUNC.
    pub vm_functions: u64,
    /// Bits that CR0 must have in VMX operation.
    pub cr0_fixed0: u64,
    /// Bits that CR0 can have in VMX operation.
    pub cr0_fixed1: u64,
    /// Bits that CR4 must have in VMX operation.
    pub cr4_fixed0: u64,
    /// Bits that CR4 can have in VMX operation.
    pub cr4_fixed1: u64,
    /// Bits of IA32_EFER that can be set.
    pub efer: u64,
    /// Width of physical addresses.
    pub physical_bits: u8,
    /// Width of linear addresses.
    pub linear_bits: u8,
    /// Which fields exist, a bit for each slot of [`vmcs::slot_of`].
    fields: [u64; vmcs::SLOTS / 64],
}

impl VmxCapabilities {
    /// What VT-x is on `model`.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        let by_feature = implemented::BY_FEATURE
            .iter()
            .filter(|(feature, _)| model.has(*feature))
            .fold(0, |bits, (_, bit)| bits | bit);
        let control = |required: u32, allowed: u32| ControlCapability { required, allowed: required | allowed };
        Self {
            present: model.has(Feature::VMX),
            pin: control(Pin::DEFAULT1, implemented::PIN),
            primary: control(Primary::DEFAULT1 & !implemented::PRIMARY_FREED, implemented::PRIMARY),
            secondary: control(0, implemented::SECONDARY | by_feature),
            exit: control(Exit::DEFAULT1 & !implemented::EXIT_FREED, implemented::EXIT),
            entry: control(Entry::DEFAULT1 & !implemented::ENTRY_FREED, implemented::ENTRY),
            ept_vpid: EptVpidCap(implemented::EPT_VPID),
            vm_functions: vmfunc::EPTP_SWITCHING,
            cr0_fixed0: Cr0::PE | Cr0::NE | Cr0::PG,
            cr0_fixed1: 0xffff_ffff,
            cr4_fixed0: Cr4::VMXE,
            cr4_fixed1: model.cr4_supported(),
            efer: model.efer_supported(),
            physical_bits: model.physical_bits,
            linear_bits: model.linear_bits(),
            fields: existing_fields(),
        }
    }

    /// IA32_VMX_MISC.
    #[must_use]
    pub const fn misc(&self) -> u64 {
        PREEMPTION_TIMER_SHIFT as u64
            | misc::STORE_LMA
            | misc::ACTIVITY_HLT
            | misc::ACTIVITY_SHUTDOWN
            | misc::ACTIVITY_WAIT_FOR_SIPI
            | CR3_TARGETS << misc::CR3_TARGETS_SHIFT
            | misc::VMWRITE_ANY
            | misc::INJECT_LENGTH_0
    }

    /// Whether VMREAD and VMWRITE know the field with this encoding.
    #[inline]
    #[must_use]
    pub fn has_field(&self, field: VmcsField) -> bool {
        let possible = field.access_type() == AccessType::Full || field.width() == Width::Bits64;
        possible && vmcs::slot_of(field).is_some_and(|slot| self.fields[slot / 64] >> (slot % 64) & 1 != 0)
    }

    /// Whether VMWRITE can write the VM-exit information fields.
    #[inline]
    #[must_use]
    pub const fn writes_any_field(&self) -> bool {
        self.misc() & misc::VMWRITE_ANY != 0
    }

    /// The value of capability MSR `number`; `None` if it does not exist.
    #[must_use]
    pub fn read_msr(&self, number: u32) -> Option<u64> {
        let with_default1 = |capability: ControlCapability, default1: u32| {
            ControlCapability { required: capability.required | default1, ..capability }.to_msr()
        };
        if !self.present {
            return None;
        }
        Some(match number {
            msr::VMX_BASIC => {
                u64::from(vmcs::REVISION)
                    | vmcs::REGION_SIZE << basic::REGION_SIZE_SHIFT
                    | 6 << basic::MEMORY_TYPE_SHIFT
                    | basic::INS_OUTS_INFO
                    | basic::TRUE_CONTROLS
            }
            msr::VMX_PINBASED_CTLS => with_default1(self.pin, Pin::DEFAULT1),
            msr::VMX_PROCBASED_CTLS => with_default1(self.primary, Primary::DEFAULT1),
            msr::VMX_EXIT_CTLS => with_default1(self.exit, Exit::DEFAULT1),
            msr::VMX_ENTRY_CTLS => with_default1(self.entry, Entry::DEFAULT1),
            msr::VMX_MISC => self.misc(),
            msr::VMX_CR0_FIXED0 => self.cr0_fixed0,
            msr::VMX_CR0_FIXED1 => self.cr0_fixed1,
            msr::VMX_CR4_FIXED0 => self.cr4_fixed0,
            msr::VMX_CR4_FIXED1 => self.cr4_fixed1,
            msr::VMX_VMCS_ENUM => {
                let fields = VmcsField::ALL.iter().filter(|(field, _)| self.has_field(*field));
                u64::from(fields.map(|(field, _)| field.index()).max().unwrap_or(0)) << 1
            }
            msr::VMX_PROCBASED_CTLS2 => self.secondary.to_msr(),
            msr::VMX_EPT_VPID_CAP => self.ept_vpid.0,
            msr::VMX_TRUE_PINBASED_CTLS => self.pin.to_msr(),
            msr::VMX_TRUE_PROCBASED_CTLS => self.primary.to_msr(),
            msr::VMX_TRUE_EXIT_CTLS => self.exit.to_msr(),
            msr::VMX_TRUE_ENTRY_CTLS => self.entry.to_msr(),
            msr::VMX_VMFUNC => self.vm_functions,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_model() -> VmxCapabilities {
        VmxCapabilities::new(&Model::default_model())
    }

    #[test]
    fn default1_bits_read_as_required_in_the_old_msrs_only() {
        let c = default_model();
        let required = |number| c.read_msr(number).unwrap() as u32;
        assert_eq!(required(msr::VMX_PROCBASED_CTLS) & Primary::DEFAULT1, Primary::DEFAULT1);
        assert_eq!(required(msr::VMX_TRUE_PROCBASED_CTLS) & Primary::CR3_LOAD_EXITING, 0);
        for number in [msr::VMX_PINBASED_CTLS, msr::VMX_PROCBASED_CTLS, msr::VMX_EXIT_CTLS, msr::VMX_ENTRY_CTLS] {
            let value = c.read_msr(number).unwrap();
            assert_eq!(value as u32 & !(value >> 32) as u32, 0, "{number:#x}: what is required is allowed");
        }
    }

    #[test]
    fn a_model_without_vmx_has_no_capability_msrs() {
        let c = VmxCapabilities::new(&Model::named("basic64").unwrap());
        assert!((msr::VMX_BASIC..=msr::VMX_EXIT_CTLS2).all(|number| c.read_msr(number).is_none()));
    }

    #[test]
    fn controls_follow_the_models_features() {
        let small = VmxCapabilities::new(&Model::named("vmx64").unwrap());
        assert_eq!(small.secondary.allowed & (Secondary::ENABLE_INVPCID | Secondary::ENABLE_XSAVES), 0);
        assert_ne!(default_model().secondary.allowed & Secondary::ENABLE_INVPCID, 0);
    }

    #[test]
    fn fields_of_features_left_out_do_not_exist() {
        let c = default_model();
        assert!(c.has_field(VmcsField::EPT_POINTER) && c.has_field(VmcsField::EPT_POINTER.high()));
        assert!(!c.has_field(VmcsField::PML_ADDRESS) && !c.has_field(VmcsField::GUEST_CR0.high()));
        assert!(!c.has_field(VmcsField(0x1_0000_u32)) && !c.has_field(VmcsField(0x6ffe)));
    }
}
