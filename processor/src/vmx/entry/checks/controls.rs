//! Checks on the VMX controls (SDM Vol. 3C, 27.2.1).

use super::{Checked, View};
use crate::vmx::FailedCheck;
use crate::vmx::capabilities::CR3_TARGETS;
use spec::vmx::capability::{ControlCapability, EptVpidCap, basic, misc, vmfunc};
use spec::vmx::ept::Eptp;
use spec::vmx::{
    EntryCheck as Check, EntryControls as Entry, ExitControls as Exit, InterruptionInfo, InterruptionType,
    PinBasedControls as Pin, PrimaryControls as Primary, SecondaryControls as Secondary, TertiaryControls as Tertiary,
    VmcsField as Field,
};
use spec::x86::Cr0;
use spec::x86::exceptions::{Vector, has_error_code};

impl View<'_> {
    fn permitted(&self, value: u32, capability: ControlCapability, check: Check, field: Field) -> Checked {
        self.require(capability.permits(value), check, field)
    }

    /// 27.2.1.1.
    pub(super) fn execution_controls(&self) -> Checked {
        let c = self.capabilities;
        let (pin, primary, secondary) = (self.pin, self.primary, self.secondary);
        self.permitted(pin.0, c.pin, Check::PinBasedReserved, Field::PIN_BASED_CONTROLS)?;
        self.permitted(primary.0, c.primary, Check::PrimaryReserved, Field::PRIMARY_CONTROLS)?;
        self.permitted(secondary.0, c.secondary, Check::SecondaryReserved, Field::SECONDARY_CONTROLS)?;
        let tertiary = self.tertiary.0 & !c.tertiary.0 == 0;
        self.require(tertiary, Check::TertiaryReserved, Field::TERTIARY_CONTROLS)?;
        let targets = self.get(Field::CR3_TARGET_COUNT);
        self.require(targets <= CR3_TARGETS, Check::Cr3TargetCount, Field::CR3_TARGET_COUNT)?;
        if primary.has(Primary::USE_IO_BITMAPS) {
            for field in [Field::IO_BITMAP_A, Field::IO_BITMAP_B] {
                self.require(self.is_page(field), Check::IoBitmapAddress, field)?;
            }
        }
        if primary.has(Primary::USE_MSR_BITMAPS) {
            self.require(self.is_page(Field::MSR_BITMAPS), Check::MsrBitmapAddress, Field::MSR_BITMAPS)?;
        }
        let tpr_shadow = primary.has(Primary::USE_TPR_SHADOW);
        let apic_accesses = secondary.has(Secondary::VIRTUALIZE_APIC_ACCESSES);
        let delivery = secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY);
        if tpr_shadow {
            let address = Field::VIRTUAL_APIC_ADDRESS;
            self.require(self.is_page(address), Check::VirtualApicAddress, address)?;
            let threshold = self.get(Field::TPR_THRESHOLD);
            self.require(delivery || threshold <= 15, Check::TprThresholdReserved, Field::TPR_THRESHOLD)?;
            let above = threshold & 15 > u64::from(self.context.virtual_tpr >> 4 & 15);
            let matters = !apic_accesses && !delivery;
            self.require(!(matters && above), Check::TprThresholdAboveVtpr, Field::TPR_THRESHOLD)?;
        }
        let nmi = |bit| pin.has(bit);
        self.require(
            nmi(Pin::NMI_EXITING) || !nmi(Pin::VIRTUAL_NMIS),
            Check::VirtualNmisNeedNmiExiting,
            Field::PIN_BASED_CONTROLS,
        )?;
        self.require(
            nmi(Pin::VIRTUAL_NMIS) || !primary.has(Primary::NMI_WINDOW_EXITING),
            Check::NmiWindowNeedsVirtualNmis,
            Field::PRIMARY_CONTROLS,
        )?;
        if apic_accesses {
            let address = Field::APIC_ACCESS_ADDRESS;
            self.require(self.is_page(address), Check::ApicAccessAddress, address)?;
        }
        let x2apic = secondary.has(Secondary::VIRTUALIZE_X2APIC_MODE);
        let registers = secondary.has(Secondary::APIC_REGISTER_VIRTUALIZATION);
        let needs_shadow = x2apic || registers || delivery;
        self.require(tpr_shadow || !needs_shadow, Check::ApicVirtualizationNeedsTprShadow, Field::SECONDARY_CONTROLS)?;
        let ipis = self.tertiary.has(Tertiary::IPI_VIRTUALIZATION);
        self.require(tpr_shadow || !ipis, Check::ApicVirtualizationNeedsTprShadow, Field::TERTIARY_CONTROLS)?;
        self.require(!(x2apic && apic_accesses), Check::X2apicModeExcludesApicAccesses, Field::SECONDARY_CONTROLS)?;
        self.require(
            pin.has(Pin::EXTERNAL_INTERRUPT_EXITING) || !delivery,
            Check::VirtualInterruptDeliveryNeedsInterruptExiting,
            Field::PIN_BASED_CONTROLS,
        )?;
        if pin.has(Pin::POSTED_INTERRUPTS) {
            self.posted_interrupts(delivery)?;
        }
        if ipis {
            let table = self.get(Field::PID_POINTER_TABLE);
            let last = table.checked_add(self.get(Field::LAST_PID_POINTER_INDEX) << 3);
            let fits = table & 7 == 0 && last.is_some_and(|last| self.in_width(last));
            self.require(fits, Check::PidPointerTable, Field::PID_POINTER_TABLE)?;
        }
        if secondary.has(Secondary::ENABLE_VPID) {
            self.require(self.get(Field::VPID) != 0, Check::VpidZero, Field::VPID)?;
        }
        let ept = secondary.has(Secondary::ENABLE_EPT);
        if ept {
            self.ept_pointer(self.get(Field::EPT_POINTER))?;
        }
        let needs_ept =
            |control: u32, check: Check| self.require(ept || !secondary.has(control), check, Field::SECONDARY_CONTROLS);
        needs_ept(Secondary::ENABLE_PML, Check::PmlNeedsEpt)?;
        self.page_if(secondary.has(Secondary::ENABLE_PML), Field::PML_ADDRESS, Check::PmlAddress)?;
        needs_ept(Secondary::UNRESTRICTED_GUEST, Check::UnrestrictedGuestNeedsEpt)?;
        needs_ept(Secondary::MODE_BASED_EXECUTE, Check::ModeBasedExecuteNeedsEpt)?;
        needs_ept(Secondary::SUB_PAGE_WRITE, Check::SubPageWriteNeedsEpt)?;
        let sub_pages = secondary.has(Secondary::SUB_PAGE_WRITE);
        self.page_if(sub_pages, Field::SPP_TABLE_POINTER, Check::SubPageTablePointer)?;
        if secondary.has(Secondary::ENABLE_VM_FUNCTIONS) {
            let functions = self.get(Field::VM_FUNCTION_CONTROLS);
            self.require(functions & !c.vm_functions == 0, Check::VmFunctionReserved, Field::VM_FUNCTION_CONTROLS)?;
            if functions & vmfunc::EPTP_SWITCHING != 0 {
                self.require(ept, Check::EptpSwitchingNeedsEpt, Field::SECONDARY_CONTROLS)?;
                let list = Field::EPTP_LIST_ADDRESS;
                self.require(self.is_page(list), Check::EptpListAddress, list)?;
            }
        }
        let shadowing = secondary.has(Secondary::VMCS_SHADOWING);
        self.page_if(shadowing, Field::VMREAD_BITMAP, Check::VmreadBitmapAddress)?;
        self.page_if(shadowing, Field::VMWRITE_BITMAP, Check::VmwriteBitmapAddress)?;
        let exceptions = secondary.has(Secondary::EPT_VIOLATION_VE);
        self.page_if(exceptions, Field::VE_INFORMATION_ADDRESS, Check::VeInformationAddress)?;
        if secondary.has(Secondary::USE_TSC_SCALING) {
            self.require(self.get(Field::TSC_MULTIPLIER) != 0, Check::TscMultiplierZero, Field::TSC_MULTIPLIER)?;
        }
        self.hlat(ept)
    }

    /// "Enable HLAT", "EPT paging-write control" and "guest-paging verification".
    fn hlat(&self, ept: bool) -> Checked {
        const NEED_EPT: u64 = Tertiary::ENABLE_HLAT | Tertiary::EPT_PAGING_WRITE | Tertiary::GUEST_PAGING_VERIFICATION;
        self.require(ept || self.tertiary.0 & NEED_EPT == 0, Check::HlatNeedsEpt, Field::TERTIARY_CONTROLS)?;
        if self.tertiary.has(Tertiary::ENABLE_HLAT) {
            let pointer = self.get(Field::HLAT_POINTER);
            // Bits 4:3 are PCD and PWT.
            let valid = pointer & 0xfe7 == 0 && self.in_width(pointer);
            self.require(valid, Check::HlatPointer, Field::HLAT_POINTER)?;
        }
        Ok(())
    }

    fn posted_interrupts(&self, virtual_interrupt_delivery: bool) -> Checked {
        self.require(
            virtual_interrupt_delivery,
            Check::PostedInterruptsNeedVirtualInterruptDelivery,
            Field::SECONDARY_CONTROLS,
        )?;
        self.require(
            self.exit.has(Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
            Check::PostedInterruptsNeedAcknowledge,
            Field::EXIT_CONTROLS,
        )?;
        let vector = Field::POSTED_INTERRUPT_NOTIFICATION_VECTOR;
        self.require(self.get(vector) <= 255, Check::PostedInterruptVector, vector)?;
        let descriptor = Field::POSTED_INTERRUPT_DESCRIPTOR;
        let address = self.get(descriptor);
        let fits = address & 0x3f == 0 && self.in_width(address);
        self.require(fits, Check::PostedInterruptDescriptor, descriptor)
    }

    /// If a control is 1, `field` must be the address of a 4-KiB page.
    fn page_if(&self, control: bool, field: Field, check: Check) -> Checked {
        self.require(!control || self.is_page(field), check, field)
    }

    fn ept_pointer(&self, value: u64) -> Checked {
        match bad_ept_pointer(value, self.capabilities.ept_vpid, self.capabilities.physical_bits) {
            None => Ok(()),
            Some(check) => Err(FailedCheck { check, field: Some(Field::EPT_POINTER), value }),
        }
    }

    /// Whether an MSR area of `count` entries of 16 bytes at `address` is aligned and ends within the physical-address width.
    fn msr_area(&self, count: Field, address: Field, check: Check) -> Checked {
        let entries = self.get(count);
        let start = self.get(address);
        let fits = start & 0xf == 0
            && self.in_width(start)
            && start.checked_add(entries.wrapping_mul(16).wrapping_sub(1)).is_some_and(|last| self.in_width(last));
        self.require(entries == 0 || fits, check, address)
    }

    /// 27.2.1.2.
    pub(super) fn exit_controls(&self) -> Checked {
        let c = self.capabilities;
        self.permitted(self.exit.0, c.exit, Check::ExitReserved, Field::EXIT_CONTROLS)?;
        let secondary = self.secondary_exit.0 & !c.secondary_exit.0 == 0;
        self.require(secondary, Check::SecondaryExitReserved, Field::SECONDARY_EXIT_CONTROLS)?;
        self.require(
            self.pin.has(Pin::PREEMPTION_TIMER) || !self.exit.has(Exit::SAVE_PREEMPTION_TIMER),
            Check::SaveTimerNeedsTimer,
            Field::EXIT_CONTROLS,
        )?;
        self.msr_area(Field::EXIT_MSR_STORE_COUNT, Field::EXIT_MSR_STORE_ADDRESS, Check::ExitMsrStoreArea)?;
        self.msr_area(Field::EXIT_MSR_LOAD_COUNT, Field::EXIT_MSR_LOAD_ADDRESS, Check::ExitMsrLoadArea)
    }

    /// 27.2.1.3.
    pub(super) fn entry_controls(&self) -> Checked {
        // No dual-monitor treatment: "entry to SMM" and "deactivate dual-monitor treatment" are among the bits that cannot be 1.
        self.permitted(self.entry.0, self.capabilities.entry, Check::EntryReserved, Field::ENTRY_CONTROLS)?;
        let info = InterruptionInfo(self.vmcs.get32(Field::ENTRY_INTERRUPTION_INFO));
        if info.is_valid() {
            self.injection(info)?;
        }
        self.msr_area(Field::ENTRY_MSR_LOAD_COUNT, Field::ENTRY_MSR_LOAD_ADDRESS, Check::EntryMsrLoadArea)?;
        let smm = self.entry.0 & (Entry::ENTRY_TO_SMM | Entry::DEACTIVATE_DUAL_MONITOR);
        self.require(smm == 0, Check::SmmControlsOutsideSmm, Field::ENTRY_CONTROLS)
    }

    fn injection(&self, info: InterruptionInfo) -> Checked {
        let field = Field::ENTRY_INTERRUPTION_INFO;
        let (kind, vector) = (info.kind(), info.vector());
        let mtf = self.capabilities.primary.allowed & Primary::MONITOR_TRAP_FLAG != 0;
        let reserved = kind == InterruptionType::Reserved || kind == InterruptionType::Other && !mtf;
        self.require(!reserved, Check::InjectionType, field)?;
        let vector_suits = match kind {
            InterruptionType::Nmi => vector == 2,
            InterruptionType::HardwareException => vector <= 31,
            InterruptionType::Other => vector == 0,
            _ => true,
        };
        self.require(vector_suits, Check::InjectionVector, field)?;
        let protected = !self.secondary.has(Secondary::UNRESTRICTED_GUEST) || self.get(Field::GUEST_CR0) & Cr0::PE != 0;
        let may_have_code = protected && kind == InterruptionType::HardwareException;
        let delivers = info.has(InterruptionInfo::ERROR_CODE);
        let right = if self.capabilities.basic & basic::ANY_ERROR_CODE != 0 {
            may_have_code || !delivers
        } else {
            // #CP is younger than the processors that check for it.
            let has_code = has_error_code(vector) && vector != Vector::ControlProtection as u8;
            delivers == (may_have_code && has_code)
        };
        self.require(right, Check::InjectionErrorCode, field)?;
        self.require(info.0 & InterruptionInfo::ENTRY_RESERVED == 0, Check::InjectionReserved, field)?;
        if delivers {
            let code = Field::ENTRY_EXCEPTION_ERROR_CODE;
            self.require(self.get(code) >> 16 == 0, Check::InjectionErrorCodeReserved, code)?;
        }
        if kind.is_software() {
            let length = Field::ENTRY_INSTRUCTION_LENGTH;
            let least = if self.capabilities.misc & misc::INJECT_LENGTH_0 != 0 { 0 } else { 1 };
            let fits = (least..=15).contains(&self.get(length));
            self.require(fits, Check::InjectionInstructionLength, length)?;
        }
        Ok(())
    }
}

/// The rule that the EPT pointer `value` breaks, if it breaks one. VM entry and EPTP switching make the same checks.
pub fn bad_ept_pointer(value: u64, capabilities: EptVpidCap, physical_bits: u8) -> Option<Check> {
    let eptp = Eptp(value);
    let type_is_known = match eptp.memory_type() {
        0 => capabilities.has(EptVpidCap::MEMORY_UC),
        6 => capabilities.has(EptVpidCap::MEMORY_WB),
        _ => false,
    };
    let length_is_known = match eptp.walk_length() {
        4 => capabilities.has(EptVpidCap::WALK_4),
        5 => capabilities.has(EptVpidCap::WALK_5),
        _ => false,
    };
    if !type_is_known {
        return Some(Check::EptpMemoryType);
    }
    if !length_is_known {
        return Some(Check::EptpWalkLength);
    }
    if eptp.accessed_dirty() && !capabilities.has(EptVpidCap::ACCESSED_DIRTY) {
        return Some(Check::EptpAccessedDirty);
    }
    if value & Eptp::SUPERVISOR_SHADOW_STACK != 0 && !capabilities.has(EptVpidCap::SUPERVISOR_SHADOW_STACK) {
        return Some(Check::EptpSupervisorShadowStack);
    }
    if value & Eptp::RESERVED != 0 || value >> physical_bits != 0 {
        return Some(Check::EptpReserved);
    }
    None
}
