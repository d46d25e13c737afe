//! What the processor's VT-x has, and the reasons not to start (SDM Vol. 3D, appendix A).

use core::fmt;
use spec::vmx::capability::{ControlCapability, EptVpidCap, basic, misc};
use spec::vmx::{EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls};
use spec::x86::msr::{self, FeatureControl};

/// Reads an MSR; `None` where the processor has none of that number.
pub type ReadMsr<'a> = &'a dyn Fn(u32) -> Option<u64>;

/// Why the hypervisor does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// CPUID.1:ECX.VMX is 0.
    NoVmx,
    /// IA32_FEATURE_CONTROL is locked without VMX outside SMX.
    LockedOff,
    /// There are no secondary controls.
    NoSecondaryControls,
    /// "Enable EPT" cannot be 1.
    NoEpt,
    /// EPT cannot be what we need: a walk of 4 levels in write-back memory.
    PoorEpt,
    /// IA32_EFER is not saved and loaded.
    NoEfer,
    /// There are no MSR bitmaps.
    NoMsrBitmaps,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoVmx => "the processor has no VT-x (CPUID.1:ECX bit 5 is 0)",
            Self::LockedOff => "firmware has locked VT-x off (IA32_FEATURE_CONTROL is locked with bit 2 clear)",
            Self::NoSecondaryControls => "the processor has no secondary VM-execution controls, so no EPT",
            Self::NoEpt => "the processor has no EPT, which keeps the guests' memory apart",
            Self::PoorEpt => "the processor's EPT has no walk of 4 levels in write-back memory",
            Self::NoEfer => "VM entries and exits do not save and load IA32_EFER",
            Self::NoMsrBitmaps => "the processor has no MSR bitmaps",
        })
    }
}

/// How a guest's local APIC is virtualized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ApicVirtualization {
    /// Every access exits and is emulated.
    Emulated,
    /// The processor keeps the task priority for CR8.
    TprShadow,
    /// The processor keeps the task priority for CR8 and for the APIC's page (FlexPriority).
    FlexPriority,
    /// The processor delivers interrupts and runs the APIC's page itself (APICv), without posted interrupts.
    VirtualDelivery,
    /// APICv, and interrupts posted to a running guest do not make it exit.
    PostedInterrupts,
}

impl ApicVirtualization {
    /// Whether the processor evaluates and delivers virtual interrupts.
    #[must_use]
    pub fn delivers(self) -> bool {
        self >= Self::VirtualDelivery
    }

    /// Whether "use TPR shadow" is 1.
    #[must_use]
    pub fn shadows_tpr(self) -> bool {
        self >= Self::TprShadow
    }

    /// Whether the APIC's page is an APIC-access page.
    #[must_use]
    pub fn has_access_page(self) -> bool {
        self >= Self::FlexPriority
    }
}

impl fmt::Display for ApicVirtualization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emulated => "emulated (no TPR shadow)",
            Self::TprShadow => "emulated, with TPR shadow for CR8",
            Self::FlexPriority => "FlexPriority (TPR shadow and APIC-access page)",
            Self::VirtualDelivery => "APICv (virtual-interrupt delivery)",
            Self::PostedInterrupts => "APICv (virtual-interrupt delivery, posted interrupts)",
        })
    }
}

/// The capability MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// IA32_VMX_BASIC.
    pub basic: u64,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// Pin-based controls.
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
    /// IA32_VMX_CR0_FIXED0: the bits of CR0 that VMX operation needs to be 1.
    pub cr0_fixed: u64,
    /// IA32_VMX_CR4_FIXED0.
    pub cr4_fixed: u64,
}

impl Capabilities {
    /// Reads them. `has_vmx` is CPUID.1:ECX bit 5.
    ///
    /// # Errors
    /// When the processor lacks what no guest can do without.
    pub fn detect(has_vmx: bool, read: ReadMsr<'_>) -> Result<Self, Refusal> {
        if !has_vmx {
            return Err(Refusal::NoVmx);
        }
        let control = read(msr::FEATURE_CONTROL).unwrap_or(0);
        if control & FeatureControl::LOCK != 0 && control & FeatureControl::VMX_OUTSIDE_SMX == 0 {
            return Err(Refusal::LockedOff);
        }
        let found = Self::read(read);
        found.check()?;
        Ok(found)
    }

    fn read(read: ReadMsr<'_>) -> Self {
        let get = |number| read(number).unwrap_or(0);
        let basic = get(msr::VMX_BASIC);
        let control = |plain, exact| {
            ControlCapability::from_msr(get(if basic & basic::TRUE_CONTROLS != 0 { exact } else { plain }))
        };
        let primary = control(msr::VMX_PROCBASED_CTLS, msr::VMX_TRUE_PROCBASED_CTLS);
        let has_secondary = primary.allowed & PrimaryControls::ACTIVATE_SECONDARY_CONTROLS != 0;
        let secondary = if has_secondary { get(msr::VMX_PROCBASED_CTLS2) } else { 0 };
        let secondary = ControlCapability::from_msr(secondary);
        let either = SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID;
        Self {
            basic,
            misc: get(msr::VMX_MISC),
            pin: control(msr::VMX_PINBASED_CTLS, msr::VMX_TRUE_PINBASED_CTLS),
            primary,
            secondary,
            exit: control(msr::VMX_EXIT_CTLS, msr::VMX_TRUE_EXIT_CTLS),
            entry: control(msr::VMX_ENTRY_CTLS, msr::VMX_TRUE_ENTRY_CTLS),
            ept_vpid: EptVpidCap(if secondary.allowed & either != 0 { get(msr::VMX_EPT_VPID_CAP) } else { 0 }),
            cr0_fixed: get(msr::VMX_CR0_FIXED0),
            cr4_fixed: get(msr::VMX_CR4_FIXED0),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.primary.allowed & PrimaryControls::ACTIVATE_SECONDARY_CONTROLS == 0 {
            return Err(Refusal::NoSecondaryControls);
        }
        if !self.has(SecondaryControls::ENABLE_EPT) {
            return Err(Refusal::NoEpt);
        }
        if !self.ept_vpid.has(EptVpidCap::WALK_4 | EptVpidCap::MEMORY_WB) {
            return Err(Refusal::PoorEpt);
        }
        let exit = ExitControls::SAVE_EFER | ExitControls::LOAD_EFER;
        if self.exit.allowed & exit != exit || self.entry.allowed & EntryControls::LOAD_EFER == 0 {
            return Err(Refusal::NoEfer);
        }
        if self.primary.allowed & PrimaryControls::USE_MSR_BITMAPS == 0 {
            return Err(Refusal::NoMsrBitmaps);
        }
        Ok(())
    }

    /// Whether these secondary controls can all be 1.
    #[must_use]
    pub fn has(&self, secondary: u32) -> bool {
        self.secondary.allowed & secondary == secondary
    }

    /// Whether guests can run in real-address mode and without paging.
    #[must_use]
    pub fn unrestricted_guest(&self) -> bool {
        self.has(SecondaryControls::UNRESTRICTED_GUEST)
    }

    /// Whether translations of guests are told apart by VPIDs.
    #[must_use]
    pub fn vpid(&self) -> bool {
        self.has(SecondaryControls::ENABLE_VPID)
    }

    /// The time-stamp counts of one count of the VMX-preemption timer, as a power of two; `None` without the timer.
    #[must_use]
    pub fn preemption_timer(&self) -> Option<u32> {
        let has = self.pin.allowed & PinBasedControls::PREEMPTION_TIMER != 0;
        has.then_some((self.misc & misc::PREEMPTION_TIMER_RATE) as u32)
    }

    /// Whether the processor delivers interrupts to a local APIC in x2APIC mode and virtualizes its registers.
    #[must_use]
    pub fn virtualizes_x2apic(&self) -> bool {
        self.apic().delivers() && self.has(SecondaryControls::VIRTUALIZE_X2APIC_MODE)
    }

    /// The best that the processor has for local APICs.
    #[must_use]
    pub fn apic(&self) -> ApicVirtualization {
        use SecondaryControls as Secondary;
        let delivery = Secondary::APIC_REGISTER_VIRTUALIZATION | Secondary::VIRTUAL_INTERRUPT_DELIVERY;
        let exit = self.exit.allowed & ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT != 0;
        if self.primary.allowed & PrimaryControls::USE_TPR_SHADOW == 0 {
            ApicVirtualization::Emulated
        } else if !self.has(Secondary::VIRTUALIZE_APIC_ACCESSES) {
            ApicVirtualization::TprShadow
        } else if !self.has(delivery) {
            ApicVirtualization::FlexPriority
        } else if self.pin.allowed & PinBasedControls::POSTED_INTERRUPTS == 0 || !exit {
            ApicVirtualization::VirtualDelivery
        } else {
            ApicVirtualization::PostedInterrupts
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |has: bool| if has { "yes" } else { "no" };
        writeln!(
            f,
            "VMCS revision {:#x}, exact controls {}",
            self.basic & basic::REVISION,
            yes(self.basic & basic::TRUE_CONTROLS != 0)
        )?;
        writeln!(
            f,
            "EPT: yes, pages of 2 MiB {}, of 1 GiB {}; VPID: {}; unrestricted guest: {}",
            yes(self.ept_vpid.has(EptVpidCap::PAGES_2M)),
            yes(self.ept_vpid.has(EptVpidCap::PAGES_1G)),
            yes(self.vpid()),
            yes(self.unrestricted_guest())
        )?;
        match self.preemption_timer() {
            Some(rate) => writeln!(f, "VMX-preemption timer: every {} counts of the TSC", 1u64 << rate)?,
            None => writeln!(f, "VMX-preemption timer: no, guests are interrupted by the local APIC's timer")?,
        }
        write!(f, "local APICs of guests: {}", self.apic())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::string::ToString;

    /// MSRs of a processor that has all that is made use of.
    pub(crate) fn everything() -> BTreeMap<u32, u64> {
        let all = u64::MAX << 32;
        let mut msrs = BTreeMap::from([(msr::FEATURE_CONTROL, 5), (msr::VMX_BASIC, 0), (msr::VMX_MISC, 5)]);
        for number in [msr::VMX_PINBASED_CTLS, msr::VMX_PROCBASED_CTLS, msr::VMX_EXIT_CTLS, msr::VMX_ENTRY_CTLS] {
            msrs.insert(number, all);
        }
        msrs.insert(msr::VMX_PROCBASED_CTLS2, all);
        msrs.insert(msr::VMX_EPT_VPID_CAP, EptVpidCap::ALL);
        msrs
    }

    pub(crate) fn detect(msrs: &BTreeMap<u32, u64>) -> Result<Capabilities, Refusal> {
        Capabilities::detect(true, &|number| msrs.get(&number).copied())
    }

    fn without(number: u32, controls: u32) -> BTreeMap<u32, u64> {
        let mut msrs = everything();
        *msrs.get_mut(&number).unwrap() &= !(u64::from(controls) << 32);
        msrs
    }

    #[test]
    fn what_no_guest_can_do_without_is_refused_by_name() {
        assert_eq!(Capabilities::detect(false, &|_| None), Err(Refusal::NoVmx));
        let mut off = everything();
        off.insert(msr::FEATURE_CONTROL, FeatureControl::LOCK);
        assert_eq!(detect(&off), Err(Refusal::LockedOff));
        off.insert(msr::FEATURE_CONTROL, 0);
        assert!(detect(&off).is_ok(), "what is not locked can be switched on");
        let ept = without(msr::VMX_PROCBASED_CTLS2, SecondaryControls::ENABLE_EPT);
        assert_eq!(detect(&ept), Err(Refusal::NoEpt));
        let secondary = without(msr::VMX_PROCBASED_CTLS, PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
        assert_eq!(detect(&secondary), Err(Refusal::NoSecondaryControls));
        assert_eq!(detect(&without(msr::VMX_EXIT_CTLS, ExitControls::SAVE_EFER)), Err(Refusal::NoEfer));
        assert!(Refusal::NoEpt.to_string().contains("EPT"));
    }

    #[test]
    fn the_apic_is_virtualized_by_what_there_is() {
        let with = |number, controls| detect(&without(number, controls)).unwrap().apic();
        assert_eq!(detect(&everything()).unwrap().apic(), ApicVirtualization::PostedInterrupts);
        let pin = PinBasedControls::POSTED_INTERRUPTS;
        assert_eq!(with(msr::VMX_PINBASED_CTLS, pin), ApicVirtualization::VirtualDelivery);
        let delivery = SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY;
        assert_eq!(with(msr::VMX_PROCBASED_CTLS2, delivery), ApicVirtualization::FlexPriority);
        let accesses = SecondaryControls::VIRTUALIZE_APIC_ACCESSES;
        assert_eq!(with(msr::VMX_PROCBASED_CTLS2, accesses), ApicVirtualization::TprShadow);
        let tpr = PrimaryControls::USE_TPR_SHADOW;
        assert_eq!(with(msr::VMX_PROCBASED_CTLS, tpr), ApicVirtualization::Emulated);
    }
}
