//! The capability MSRs: what this processor's VT-x can do (SDM Vol. 3D, appendix A).
//!
//! They follow from the VT-x features that the CPU model has ([`crate::models::VmxFeature`]).

use super::fields::{self, FieldSet};
use super::vmcs;
use crate::models::{Model, VmxBits};
use crate::performance;
use spec::vmx::capability::{ControlCapability, EptVpidCap, basic, misc};
use spec::vmx::{
    AccessType, EntryControls as Entry, ExitControls as Exit, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, SecondaryExitControls as SecondaryExit, TertiaryControls as Tertiary, VmcsField,
    Width,
};
use spec::x86::cpuid::Feature;
use spec::x86::{Cr0, Cr4, msr};

/// The preemption timer counts down once in 2 to the power of this many TSC ticks.
pub const PREEMPTION_TIMER_SHIFT: u32 = 5;
/// Number of CR3-target values.
pub const CR3_TARGETS: u64 = 4;

/// Default1 controls that may be 0 nevertheless, as the "true" MSRs show.
mod freed {
    use super::*;

    pub const PRIMARY: u32 = Primary::CR3_LOAD_EXITING | Primary::CR3_STORE_EXITING;
    pub const EXIT: u32 = Exit::SAVE_DEBUG_CONTROLS;
    pub const ENTRY: u32 = Entry::LOAD_DEBUG_CONTROLS;
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
    /// Tertiary processor-based controls that can be 1.
    pub tertiary: Tertiary,
    /// VM-exit controls.
    pub exit: ControlCapability,
    /// Secondary VM-exit controls that can be 1.
    pub secondary_exit: SecondaryExit,
    /// VM-entry controls.
    pub entry: ControlCapability,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: EptVpidCap,
    /// IA32_VMX_VMFUNC.
    pub vm_functions: u64,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// The optional bits of IA32_VMX_BASIC.
    pub basic: u64,
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
    /// Bits of IA32_DEBUGCTL that can be set.
    pub debugctl: u64,
    /// Bits of IA32_PERF_GLOBAL_CTRL that can be set.
    pub perf_global_ctrl: u64,
    /// Bits of IA32_SPEC_CTRL that can be set.
    pub spec_ctrl: u64,
    /// Bits of IA32_S_CET that can be set.
    pub cet: u64,
    /// Width of physical addresses.
    pub physical_bits: u8,
    /// Width of linear addresses.
    pub linear_bits: u8,
    fields: FieldSet,
}

impl VmxCapabilities {
    /// What VT-x is on `model`.
    #[must_use]
    pub fn new(model: &Model) -> Self {
        let bits = model.vmx_bits();
        let control = |required: u32, allowed: u32| ControlCapability { required, allowed: required | allowed };
        let has_true_controls = bits.basic & basic::TRUE_CONTROLS != 0;
        let required = |default1: u32, freed: u32| if has_true_controls { default1 & !freed } else { default1 };
        Self {
            present: model.has(Feature::VMX),
            pin: control(Pin::DEFAULT1, bits.pin),
            primary: control(required(Primary::DEFAULT1, freed::PRIMARY), bits.primary),
            secondary: control(0, bits.secondary),
            tertiary: Tertiary(bits.tertiary),
            exit: control(required(Exit::DEFAULT1, freed::EXIT), bits.exit),
            secondary_exit: SecondaryExit(bits.secondary_exit),
            entry: control(required(Entry::DEFAULT1, freed::ENTRY), bits.entry),
            ept_vpid: EptVpidCap(bits.ept_vpid),
            vm_functions: bits.vm_functions,
            misc: Self::misc(bits),
            basic: bits.basic,
            cr0_fixed0: Cr0::PE | Cr0::NE | Cr0::PG,
            cr0_fixed1: 0xffff_ffff,
            cr4_fixed0: Cr4::VMXE,
            cr4_fixed1: model.cr4_supported(),
            efer: model.efer_supported(),
            debugctl: crate::system::msrs::debugctl_writable(model),
            perf_global_ctrl: performance::global_control_bits(model),
            spec_ctrl: crate::system::msrs::spec_ctrl_writable(model),
            cet: crate::cet::control_bits(model),
            physical_bits: model.physical_bits,
            linear_bits: model.linear_bits(),
            fields: fields::existing(bits),
        }
    }

    fn misc(bits: VmxBits) -> u64 {
        let rate = if bits.pin & Pin::PREEMPTION_TIMER != 0 { u64::from(PREEMPTION_TIMER_SHIFT) } else { 0 };
        bits.misc | rate | CR3_TARGETS << misc::CR3_TARGETS_SHIFT
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
        self.misc & misc::VMWRITE_ANY != 0
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
        let primary = |bit: u32| self.primary.allowed & bit != 0;
        let secondary = |bit: u32| self.secondary.allowed & bit != 0;
        let has_true_controls = self.basic & basic::TRUE_CONTROLS != 0;
        Some(match number {
            msr::VMX_BASIC => {
                u64::from(vmcs::REVISION)
                    | vmcs::REGION_SIZE << basic::REGION_SIZE_SHIFT
                    | 6 << basic::MEMORY_TYPE_SHIFT
                    | self.basic
            }
            msr::VMX_PINBASED_CTLS => with_default1(self.pin, Pin::DEFAULT1),
            msr::VMX_PROCBASED_CTLS => with_default1(self.primary, Primary::DEFAULT1),
            msr::VMX_EXIT_CTLS => with_default1(self.exit, Exit::DEFAULT1),
            msr::VMX_ENTRY_CTLS => with_default1(self.entry, Entry::DEFAULT1),
            msr::VMX_MISC => self.misc,
            msr::VMX_CR0_FIXED0 => self.cr0_fixed0,
            msr::VMX_CR0_FIXED1 => self.cr0_fixed1,
            msr::VMX_CR4_FIXED0 => self.cr4_fixed0,
            msr::VMX_CR4_FIXED1 => self.cr4_fixed1,
            msr::VMX_VMCS_ENUM => {
                let fields = VmcsField::ALL.iter().filter(|(field, _)| self.has_field(*field));
                u64::from(fields.map(|(field, _)| field.index()).max().unwrap_or(0)) << 1
            }
            msr::VMX_PROCBASED_CTLS2 if primary(Primary::ACTIVATE_SECONDARY_CONTROLS) => self.secondary.to_msr(),
            msr::VMX_EPT_VPID_CAP if secondary(Secondary::ENABLE_EPT) || secondary(Secondary::ENABLE_VPID) => {
                self.ept_vpid.0
            }
            msr::VMX_TRUE_PINBASED_CTLS if has_true_controls => self.pin.to_msr(),
            msr::VMX_TRUE_PROCBASED_CTLS if has_true_controls => self.primary.to_msr(),
            msr::VMX_TRUE_EXIT_CTLS if has_true_controls => self.exit.to_msr(),
            msr::VMX_TRUE_ENTRY_CTLS if has_true_controls => self.entry.to_msr(),
            msr::VMX_VMFUNC if secondary(Secondary::ENABLE_VM_FUNCTIONS) => self.vm_functions,
            msr::VMX_PROCBASED_CTLS3 if primary(Primary::ACTIVATE_TERTIARY_CONTROLS) => self.tertiary.0,
            msr::VMX_EXIT_CTLS2 if self.exit.allowed & Exit::ACTIVATE_SECONDARY_CONTROLS != 0 => self.secondary_exit.0,
            _ => return None,
        })
    }
}

impl VmxCapabilities {
    /// The capability MSRs that exist: number, name, value.
    #[must_use]
    pub fn msrs(&self) -> Vec<(u32, String, u64)> {
        let named = msr::NAMED.iter().filter(|(number, _)| (msr::VMX_BASIC..=msr::VMX_EXIT_CTLS2).contains(number));
        named.filter_map(|(number, name)| Some((*number, format!("IA32_{name}"), self.read_msr(*number)?))).collect()
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
        let with = |choice| VmxCapabilities::new(&Model::named(choice).unwrap());
        assert_ne!(default_model().secondary.allowed & Secondary::ENABLE_INVPCID, 0);
        let small = with("icelake-server,-invpcid,-xsaves,-ept,-vpid");
        let gone = Secondary::ENABLE_INVPCID | Secondary::ENABLE_XSAVES | Secondary::ENABLE_EPT;
        assert_eq!(small.secondary.allowed & gone, 0);
        assert_eq!(small.read_msr(msr::VMX_EPT_VPID_CAP), None);
        assert_eq!(with("icelake-server,-eptp-switching").read_msr(msr::VMX_VMFUNC), None);
        assert_eq!(with("icelake-server,-preemption-timer").read_msr(msr::VMX_MISC).unwrap() & 0x1f, 0);
    }

    #[test]
    fn without_true_controls_all_of_default1_is_required() {
        let c = VmxCapabilities::new(&Model::named("icelake-server,-true-controls").unwrap());
        assert_eq!(c.read_msr(msr::VMX_TRUE_PROCBASED_CTLS), None);
        assert_eq!(c.read_msr(msr::VMX_BASIC).unwrap() & basic::TRUE_CONTROLS, 0);
        assert_eq!(c.primary.required, Primary::DEFAULT1);
    }

    #[test]
    fn secondary_controls_exist_with_their_activation_only() {
        let c = VmxCapabilities::new(&Model::named("icelake-server,-primary.31").unwrap());
        assert_eq!((c.secondary.allowed, c.read_msr(msr::VMX_PROCBASED_CTLS2)), (0, None));
        assert!(!c.has_field(VmcsField::SECONDARY_CONTROLS));
    }

    #[test]
    fn fields_of_features_left_out_do_not_exist() {
        let c = default_model();
        assert!(c.has_field(VmcsField::EPT_POINTER) && c.has_field(VmcsField::EPT_POINTER.high()));
        assert!(!c.has_field(VmcsField::SHARED_EPT_POINTER) && !c.has_field(VmcsField::GUEST_CR0.high()));
        assert!(!c.has_field(VmcsField(0x1_0000_u32)) && !c.has_field(VmcsField(0x6ffe)));
        let c = VmxCapabilities::new(&Model::named("icelake-server,-ept,-tpr-shadow").unwrap());
        assert!(!c.has_field(VmcsField::EPT_POINTER) && !c.has_field(VmcsField::TPR_THRESHOLD));
    }
}
