//! The controls that a guest runs with: the one place where what we want meets what the processor can do.

use crate::capabilities::{ApicVirtualization, Capabilities};
use spec::vmx::capability::ControlCapability;
use spec::vmx::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};

/// The control words of a guest whose processor is in real-address or 32-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Pin-based VM-execution controls.
    pub pin: u32,
    /// Primary processor-based VM-execution controls.
    pub primary: u32,
    /// Secondary processor-based VM-execution controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls.
    pub entry: u32,
}

/// `needed` with what the processor requires and those of `wished` that it allows.
fn adjust(capability: ControlCapability, needed: u32, wished: u32) -> u32 {
    (needed | wished) & capability.allowed | capability.required
}

impl Controls {
    /// The best that the processor can do.
    #[must_use]
    pub fn new(has: &Capabilities) -> Self {
        use {PinBasedControls as Pin, PrimaryControls as Primary, SecondaryControls as Secondary};
        let apic = has.apic();
        let mut pin = Pin::EXTERNAL_INTERRUPT_EXITING | Pin::NMI_EXITING | Pin::PREEMPTION_TIMER;
        let mut primary = Primary::HLT_EXITING
            | Primary::UNCONDITIONAL_IO_EXITING
            | Primary::USE_MSR_BITMAPS
            | Primary::MWAIT_EXITING
            | Primary::MONITOR_EXITING
            | Primary::RDPMC_EXITING
            | Primary::ACTIVATE_SECONDARY_CONTROLS;
        let mut secondary = Secondary::ENABLE_EPT
            | Secondary::ENABLE_VPID
            | Secondary::UNRESTRICTED_GUEST
            | Secondary::ENABLE_RDTSCP
            | Secondary::ENABLE_INVPCID
            | Secondary::WBINVD_EXITING
            | Secondary::PAUSE_LOOP_EXITING;
        if apic.shadows_tpr() {
            primary |= Primary::USE_TPR_SHADOW;
        } else {
            primary |= Primary::CR8_LOAD_EXITING | Primary::CR8_STORE_EXITING;
        }
        if apic.has_access_page() {
            secondary |= Secondary::VIRTUALIZE_APIC_ACCESSES;
        }
        if apic.delivers() {
            secondary |= Secondary::APIC_REGISTER_VIRTUALIZATION | Secondary::VIRTUAL_INTERRUPT_DELIVERY;
        }
        if apic == ApicVirtualization::PostedInterrupts {
            pin |= Pin::POSTED_INTERRUPTS;
        }
        // With EPT a guest's CR3 is its own: exits by the default1 class go where they can.
        let exit = ExitControls::HOST_ADDRESS_SPACE_SIZE
            | ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT
            | ExitControls::SAVE_EFER
            | ExitControls::LOAD_EFER
            | ExitControls::SAVE_DEBUG_CONTROLS;
        let pat = ExitControls::SAVE_PAT | ExitControls::LOAD_PAT;
        let entry = EntryControls::LOAD_EFER | EntryControls::LOAD_DEBUG_CONTROLS;
        Self {
            pin: adjust(has.pin, 0, pin),
            primary: adjust(has.primary, primary, 0),
            secondary: adjust(has.secondary, 0, secondary),
            exit: adjust(has.exit, exit, pat),
            entry: adjust(has.entry, entry, EntryControls::LOAD_PAT),
        }
    }

    /// Whether these secondary controls are all 1.
    #[must_use]
    pub fn has(&self, secondary: u32) -> bool {
        self.secondary & secondary == secondary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::tests::{detect, everything};
    use spec::x86::msr;

    #[test]
    fn every_word_is_one_that_the_processor_permits() {
        let mut msrs = everything();
        // The default1 class, as on a processor without the exact controls, and no preemption timer.
        msrs.insert(msr::VMX_PINBASED_CTLS, 0x3f_0000_0016);
        msrs.insert(msr::VMX_PROCBASED_CTLS, 0xfff9_fffe_0401_e172);
        msrs.insert(msr::VMX_PROCBASED_CTLS2, 0xff_0000_0000);
        let has = detect(&msrs).unwrap();
        let controls = Controls::new(&has);
        assert!(has.pin.permits(controls.pin) && has.primary.permits(controls.primary));
        assert!(has.secondary.permits(controls.secondary));
        assert!(has.exit.permits(controls.exit) && has.entry.permits(controls.entry));
        assert_eq!(controls.pin & PinBasedControls::PREEMPTION_TIMER, 0);
        assert_eq!(controls.primary & PrimaryControls::CR3_LOAD_EXITING, PrimaryControls::CR3_LOAD_EXITING);
    }

    #[test]
    fn cr8_exits_exactly_where_there_is_no_tpr_shadow() {
        let mut msrs = everything();
        let cr8 = PrimaryControls::CR8_LOAD_EXITING | PrimaryControls::CR8_STORE_EXITING;
        assert_eq!(Controls::new(&detect(&msrs).unwrap()).primary & cr8, 0);
        *msrs.get_mut(&msr::VMX_PROCBASED_CTLS).unwrap() &= !(u64::from(PrimaryControls::USE_TPR_SHADOW) << 32);
        let without = Controls::new(&detect(&msrs).unwrap());
        assert_eq!(without.primary & (cr8 | PrimaryControls::USE_TPR_SHADOW), cr8);
        assert!(!without.has(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY));
    }
}
