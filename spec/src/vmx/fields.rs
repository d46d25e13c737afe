//! The fields of a VMCS and their encodings (SDM Vol. 3C, 25.11.2; Vol. 3D, appendix B).

/// A VMCS component encoding, as VMREAD and VMWRITE take it (SDM Vol. 3C, table 25-21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmcsField(pub u32);

/// The width of a field: encoding bits 14:13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits; 32-bit software reads and writes it in two halves.
    Bits64,
    /// 32 bits.
    Bits32,
    /// 64 bits on processors with Intel 64, 32 on others.
    Natural,
}

/// The type of a field: encoding bits 11:10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// Control.
    Control,
    /// VM-exit information, read-only unless IA32_VMX_MISC bit 29 is 1.
    ExitInformation,
    /// Guest state.
    GuestState,
    /// Host state.
    HostState,
}

/// Which part of a field an encoding accesses: bit 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessType {
    /// The field.
    Full,
    /// Bits 63:32 of a 64-bit field.
    High,
}

impl VmcsField {
    /// The width.
    #[inline]
    #[must_use]
    pub const fn width(self) -> Width {
        match self.0 >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    /// The type.
    #[inline]
    #[must_use]
    pub const fn field_type(self) -> FieldType {
        match self.0 >> 10 & 3 {
            0 => FieldType::Control,
            1 => FieldType::ExitInformation,
            2 => FieldType::GuestState,
            _ => FieldType::HostState,
        }
    }

    /// Full or high access.
    #[inline]
    #[must_use]
    pub const fn access_type(self) -> AccessType {
        if self.0 & 1 == 0 { AccessType::Full } else { AccessType::High }
    }

    /// The index among the fields of the same width and type, bits 9:1.
    #[inline]
    #[must_use]
    pub const fn index(self) -> u16 {
        (self.0 >> 1 & 0x1ff) as u16
    }

    /// The encoding of the field's upper half. Only 64-bit fields have one.
    #[inline]
    #[must_use]
    pub const fn high(self) -> VmcsField {
        VmcsField(self.0 | 1)
    }

    /// The encoding of the whole field.
    #[inline]
    #[must_use]
    pub const fn full(self) -> VmcsField {
        VmcsField(self.0 & !1)
    }

    /// The name in the manual, of the full field; `None` for encodings that are not defined.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        let full = self.full();
        if self.access_type() == AccessType::High && self.width() != Width::Bits64 {
            return None;
        }
        Self::ALL.binary_search_by_key(&full.0, |(f, _)| f.0).ok().map(|i| Self::ALL[i].1)
    }
}

impl core::fmt::Debug for VmcsField {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.name() {
            Some(name) if self.access_type() == AccessType::High => write!(f, "{name} (high)"),
            Some(name) => f.write_str(name),
            None => write!(f, "VMCS field {:#06x}", self.0),
        }
    }
}

macro_rules! fields {
    ($($encoding:literal $name:ident $text:literal;)*) => {
        impl VmcsField {
            $(#[doc = concat!($text, ".")] pub const $name: VmcsField = VmcsField($encoding);)*

            /// Every field's full encoding and name, in ascending order of encodings.
            pub const ALL: &'static [(VmcsField, &'static str)] = &[$((VmcsField::$name, $text)),*];
        }
    };
}

fields! {
    // 16-bit control fields (SDM Vol. 3D, B.1.1)
    0x0000 VPID "Virtual-processor identifier";
    0x0002 POSTED_INTERRUPT_NOTIFICATION_VECTOR "Posted-interrupt notification vector";
    0x0004 EPTP_INDEX "EPTP index";
    0x0006 HLAT_PREFIX_SIZE "HLAT prefix size";
    0x0008 LAST_PID_POINTER_INDEX "Last PID-pointer index";
    // 16-bit guest-state fields (B.1.2)
    0x0800 GUEST_ES_SELECTOR "Guest ES selector";
    0x0802 GUEST_CS_SELECTOR "Guest CS selector";
    0x0804 GUEST_SS_SELECTOR "Guest SS selector";
    0x0806 GUEST_DS_SELECTOR "Guest DS selector";
    0x0808 GUEST_FS_SELECTOR "Guest FS selector";
    0x080A GUEST_GS_SELECTOR "Guest GS selector";
    0x080C GUEST_LDTR_SELECTOR "Guest LDTR selector";
    0x080E GUEST_TR_SELECTOR "Guest TR selector";
    0x0810 GUEST_INTERRUPT_STATUS "Guest interrupt status";
    0x0812 PML_INDEX "PML index";
    0x0814 GUEST_UINV "Guest UINV";
    // 16-bit host-state fields (B.1.3)
    0x0C00 HOST_ES_SELECTOR "Host ES selector";
    0x0C02 HOST_CS_SELECTOR "Host CS selector";
    0x0C04 HOST_SS_SELECTOR "Host SS selector";
    0x0C06 HOST_DS_SELECTOR "Host DS selector";
    0x0C08 HOST_FS_SELECTOR "Host FS selector";
    0x0C0A HOST_GS_SELECTOR "Host GS selector";
    0x0C0C HOST_TR_SELECTOR "Host TR selector";
    // 64-bit control fields (B.2.1)
    0x2000 IO_BITMAP_A "Address of I/O bitmap A";
    0x2002 IO_BITMAP_B "Address of I/O bitmap B";
    0x2004 MSR_BITMAPS "Address of MSR bitmaps";
    0x2006 EXIT_MSR_STORE_ADDRESS "VM-exit MSR-store address";
    0x2008 EXIT_MSR_LOAD_ADDRESS "VM-exit MSR-load address";
    0x200A ENTRY_MSR_LOAD_ADDRESS "VM-entry MSR-load address";
    0x200C EXECUTIVE_VMCS_POINTER "Executive-VMCS pointer";
    0x200E PML_ADDRESS "PML address";
    0x2010 TSC_OFFSET "TSC offset";
    0x2012 VIRTUAL_APIC_ADDRESS "Virtual-APIC address";
    0x2014 APIC_ACCESS_ADDRESS "APIC-access address";
    0x2016 POSTED_INTERRUPT_DESCRIPTOR "Posted-interrupt descriptor address";
    0x2018 VM_FUNCTION_CONTROLS "VM-function controls";
    0x201A EPT_POINTER "EPT pointer";
    0x201C EOI_EXIT_BITMAP_0 "EOI-exit bitmap 0";
    0x201E EOI_EXIT_BITMAP_1 "EOI-exit bitmap 1";
    0x2020 EOI_EXIT_BITMAP_2 "EOI-exit bitmap 2";
    0x2022 EOI_EXIT_BITMAP_3 "EOI-exit bitmap 3";
    0x2024 EPTP_LIST_ADDRESS "EPTP-list address";
    0x2026 VMREAD_BITMAP "VMREAD-bitmap address";
    0x2028 VMWRITE_BITMAP "VMWRITE-bitmap address";
    0x202A VE_INFORMATION_ADDRESS "Virtualization-exception information address";
    0x202C XSS_EXITING_BITMAP "XSS-exiting bitmap";
    0x202E ENCLS_EXITING_BITMAP "ENCLS-exiting bitmap";
    0x2030 SPP_TABLE_POINTER "Sub-page-permission-table pointer";
    0x2032 TSC_MULTIPLIER "TSC multiplier";
    0x2034 TERTIARY_CONTROLS "Tertiary processor-based VM-execution controls";
    0x2036 ENCLV_EXITING_BITMAP "ENCLV-exiting bitmap";
    0x2038 LOW_PASID_DIRECTORY "Low PASID directory address";
    0x203A HIGH_PASID_DIRECTORY "High PASID directory address";
    0x203C SHARED_EPT_POINTER "Shared EPT pointer";
    0x203E PCONFIG_EXITING_BITMAP "PCONFIG-exiting bitmap";
    0x2040 HLAT_POINTER "Hypervisor-managed linear-address translation pointer";
    0x2042 PID_POINTER_TABLE "PID-pointer table address";
    0x2044 SECONDARY_EXIT_CONTROLS "Secondary VM-exit controls";
    0x204A SPEC_CTRL_MASK "IA32_SPEC_CTRL mask";
    0x204C SPEC_CTRL_SHADOW "IA32_SPEC_CTRL shadow";
    0x2052 INJECTED_EVENT_DATA "Injected-event data";
    // 64-bit read-only data fields (B.2.2)
    0x2400 GUEST_PHYSICAL_ADDRESS "Guest-physical address";
    0x2404 ORIGINAL_EVENT_DATA "Original-event data";
    // 64-bit guest-state fields (B.2.3)
    0x2800 VMCS_LINK_POINTER "VMCS link pointer";
    0x2802 GUEST_DEBUGCTL "Guest IA32_DEBUGCTL";
    0x2804 GUEST_PAT "Guest IA32_PAT";
    0x2806 GUEST_EFER "Guest IA32_EFER";
    0x2808 GUEST_PERF_GLOBAL_CTRL "Guest IA32_PERF_GLOBAL_CTRL";
    0x280A GUEST_PDPTE0 "Guest PDPTE0";
    0x280C GUEST_PDPTE1 "Guest PDPTE1";
    0x280E GUEST_PDPTE2 "Guest PDPTE2";
    0x2810 GUEST_PDPTE3 "Guest PDPTE3";
    0x2812 GUEST_BNDCFGS "Guest IA32_BNDCFGS";
    0x2814 GUEST_RTIT_CTL "Guest IA32_RTIT_CTL";
    0x2816 GUEST_LBR_CTL "Guest IA32_LBR_CTL";
    0x2818 GUEST_PKRS "Guest IA32_PKRS";
    0x281A GUEST_FRED_CONFIG "Guest IA32_FRED_CONFIG";
    0x281C GUEST_FRED_RSP1 "Guest IA32_FRED_RSP1";
    0x281E GUEST_FRED_RSP2 "Guest IA32_FRED_RSP2";
    0x2820 GUEST_FRED_RSP3 "Guest IA32_FRED_RSP3";
    0x2822 GUEST_FRED_STKLVLS "Guest IA32_FRED_STKLVLS";
    0x2824 GUEST_FRED_SSP1 "Guest IA32_FRED_SSP1";
    0x2826 GUEST_FRED_SSP2 "Guest IA32_FRED_SSP2";
    0x2828 GUEST_FRED_SSP3 "Guest IA32_FRED_SSP3";
    0x282E GUEST_SPEC_CTRL "Guest IA32_SPEC_CTRL";
    // 64-bit host-state fields (B.2.4)
    0x2C00 HOST_PAT "Host IA32_PAT";
    0x2C02 HOST_EFER "Host IA32_EFER";
    0x2C04 HOST_PERF_GLOBAL_CTRL "Host IA32_PERF_GLOBAL_CTRL";
    0x2C06 HOST_PKRS "Host IA32_PKRS";
    0x2C08 HOST_FRED_CONFIG "Host IA32_FRED_CONFIG";
    0x2C0A HOST_FRED_RSP1 "Host IA32_FRED_RSP1";
    0x2C0C HOST_FRED_RSP2 "Host IA32_FRED_RSP2";
    0x2C0E HOST_FRED_RSP3 "Host IA32_FRED_RSP3";
    0x2C10 HOST_FRED_STKLVLS "Host IA32_FRED_STKLVLS";
    0x2C12 HOST_FRED_SSP1 "Host IA32_FRED_SSP1";
    0x2C14 HOST_FRED_SSP2 "Host IA32_FRED_SSP2";
    0x2C16 HOST_FRED_SSP3 "Host IA32_FRED_SSP3";
    0x2C1A HOST_SPEC_CTRL "Host IA32_SPEC_CTRL";
    // 32-bit control fields (B.3.1)
    0x4000 PIN_BASED_CONTROLS "Pin-based VM-execution controls";
    0x4002 PRIMARY_CONTROLS "Primary processor-based VM-execution controls";
    0x4004 EXCEPTION_BITMAP "Exception bitmap";
    0x4006 PAGE_FAULT_ERROR_CODE_MASK "Page-fault error-code mask";
    0x4008 PAGE_FAULT_ERROR_CODE_MATCH "Page-fault error-code match";
    0x400A CR3_TARGET_COUNT "CR3-target count";
    0x400C EXIT_CONTROLS "Primary VM-exit controls";
    0x400E EXIT_MSR_STORE_COUNT "VM-exit MSR-store count";
    0x4010 EXIT_MSR_LOAD_COUNT "VM-exit MSR-load count";
    0x4012 ENTRY_CONTROLS "VM-entry controls";
    0x4014 ENTRY_MSR_LOAD_COUNT "VM-entry MSR-load count";
    0x4016 ENTRY_INTERRUPTION_INFO "VM-entry interruption-information field";
    0x4018 ENTRY_EXCEPTION_ERROR_CODE "VM-entry exception error code";
    0x401A ENTRY_INSTRUCTION_LENGTH "VM-entry instruction length";
    0x401C TPR_THRESHOLD "TPR threshold";
    0x401E SECONDARY_CONTROLS "Secondary processor-based VM-execution controls";
    0x4020 PLE_GAP "PLE_Gap";
    0x4022 PLE_WINDOW "PLE_Window";
    0x4024 INSTRUCTION_TIMEOUT "Instruction-timeout control";
    // 32-bit read-only data fields (B.3.2)
    0x4400 VM_INSTRUCTION_ERROR "VM-instruction error";
    0x4402 EXIT_REASON "Exit reason";
    0x4404 EXIT_INTERRUPTION_INFO "VM-exit interruption information";
    0x4406 EXIT_INTERRUPTION_ERROR_CODE "VM-exit interruption error code";
    0x4408 IDT_VECTORING_INFO "IDT-vectoring information field";
    0x440A IDT_VECTORING_ERROR_CODE "IDT-vectoring error code";
    0x440C EXIT_INSTRUCTION_LENGTH "VM-exit instruction length";
    0x440E EXIT_INSTRUCTION_INFO "VM-exit instruction information";
    // 32-bit guest-state fields (B.3.3)
    0x4800 GUEST_ES_LIMIT "Guest ES limit";
    0x4802 GUEST_CS_LIMIT "Guest CS limit";
    0x4804 GUEST_SS_LIMIT "Guest SS limit";
    0x4806 GUEST_DS_LIMIT "Guest DS limit";
    0x4808 GUEST_FS_LIMIT "Guest FS limit";
    0x480A GUEST_GS_LIMIT "Guest GS limit";
    0x480C GUEST_LDTR_LIMIT "Guest LDTR limit";
    0x480E GUEST_TR_LIMIT "Guest TR limit";
    0x4810 GUEST_GDTR_LIMIT "Guest GDTR limit";
    0x4812 GUEST_IDTR_LIMIT "Guest IDTR limit";
    0x4814 GUEST_ES_ACCESS_RIGHTS "Guest ES access rights";
    0x4816 GUEST_CS_ACCESS_RIGHTS "Guest CS access rights";
    0x4818 GUEST_SS_ACCESS_RIGHTS "Guest SS access rights";
    0x481A GUEST_DS_ACCESS_RIGHTS "Guest DS access rights";
    0x481C GUEST_FS_ACCESS_RIGHTS "Guest FS access rights";
    0x481E GUEST_GS_ACCESS_RIGHTS "Guest GS access rights";
    0x4820 GUEST_LDTR_ACCESS_RIGHTS "Guest LDTR access rights";
    0x4822 GUEST_TR_ACCESS_RIGHTS "Guest TR access rights";
    0x4824 GUEST_INTERRUPTIBILITY "Guest interruptibility state";
    0x4826 GUEST_ACTIVITY_STATE "Guest activity state";
    0x4828 GUEST_SMBASE "Guest SMBASE";
    0x482A GUEST_SYSENTER_CS "Guest IA32_SYSENTER_CS";
    0x482E PREEMPTION_TIMER "VMX-preemption timer value";
    // 32-bit host-state field (B.3.4)
    0x4C00 HOST_SYSENTER_CS "Host IA32_SYSENTER_CS";
    // Natural-width control fields (B.4.1)
    0x6000 CR0_MASK "CR0 guest/host mask";
    0x6002 CR4_MASK "CR4 guest/host mask";
    0x6004 CR0_READ_SHADOW "CR0 read shadow";
    0x6006 CR4_READ_SHADOW "CR4 read shadow";
    0x6008 CR3_TARGET_0 "CR3-target value 0";
    0x600A CR3_TARGET_1 "CR3-target value 1";
    0x600C CR3_TARGET_2 "CR3-target value 2";
    0x600E CR3_TARGET_3 "CR3-target value 3";
    // Natural-width read-only data fields (B.4.2)
    0x6400 EXIT_QUALIFICATION "Exit qualification";
    0x6402 IO_RCX "I/O RCX";
    0x6404 IO_RSI "I/O RSI";
    0x6406 IO_RDI "I/O RDI";
    0x6408 IO_RIP "I/O RIP";
    0x640A GUEST_LINEAR_ADDRESS "Guest-linear address";
    // Natural-width guest-state fields (B.4.3)
    0x6800 GUEST_CR0 "Guest CR0";
    0x6802 GUEST_CR3 "Guest CR3";
    0x6804 GUEST_CR4 "Guest CR4";
    0x6806 GUEST_ES_BASE "Guest ES base";
    0x6808 GUEST_CS_BASE "Guest CS base";
    0x680A GUEST_SS_BASE "Guest SS base";
    0x680C GUEST_DS_BASE "Guest DS base";
    0x680E GUEST_FS_BASE "Guest FS base";
    0x6810 GUEST_GS_BASE "Guest GS base";
    0x6812 GUEST_LDTR_BASE "Guest LDTR base";
    0x6814 GUEST_TR_BASE "Guest TR base";
    0x6816 GUEST_GDTR_BASE "Guest GDTR base";
    0x6818 GUEST_IDTR_BASE "Guest IDTR base";
    0x681A GUEST_DR7 "Guest DR7";
    0x681C GUEST_RSP "Guest RSP";
    0x681E GUEST_RIP "Guest RIP";
    0x6820 GUEST_RFLAGS "Guest RFLAGS";
    0x6822 GUEST_PENDING_DEBUG "Guest pending debug exceptions";
    0x6824 GUEST_SYSENTER_ESP "Guest IA32_SYSENTER_ESP";
    0x6826 GUEST_SYSENTER_EIP "Guest IA32_SYSENTER_EIP";
    0x6828 GUEST_S_CET "Guest IA32_S_CET";
    0x682A GUEST_SSP "Guest SSP";
    0x682C GUEST_INTERRUPT_SSP_TABLE "Guest IA32_INTERRUPT_SSP_TABLE_ADDR";
    // Natural-width host-state fields (B.4.4)
    0x6C00 HOST_CR0 "Host CR0";
    0x6C02 HOST_CR3 "Host CR3";
    0x6C04 HOST_CR4 "Host CR4";
    0x6C06 HOST_FS_BASE "Host FS base";
    0x6C08 HOST_GS_BASE "Host GS base";
    0x6C0A HOST_TR_BASE "Host TR base";
    0x6C0C HOST_GDTR_BASE "Host GDTR base";
    0x6C0E HOST_IDTR_BASE "Host IDTR base";
    0x6C10 HOST_SYSENTER_ESP "Host IA32_SYSENTER_ESP";
    0x6C12 HOST_SYSENTER_EIP "Host IA32_SYSENTER_EIP";
    0x6C14 HOST_RSP "Host RSP";
    0x6C16 HOST_RIP "Host RIP";
    0x6C18 HOST_S_CET "Host IA32_S_CET";
    0x6C1A HOST_SSP "Host SSP";
    0x6C1C HOST_INTERRUPT_SSP_TABLE "Host IA32_INTERRUPT_SSP_TABLE_ADDR";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_ascend_and_have_no_reserved_bit() {
        assert!(VmcsField::ALL.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(VmcsField::ALL.iter().all(|(f, _)| f.0 & 0xffff_9001 == 0));
    }

    #[test]
    fn width_and_type_follow_from_names() {
        for (field, name) in VmcsField::ALL {
            match field.width() {
                Width::Bits16 => assert!(field.0 < 0x2000, "{name}"),
                Width::Bits64 => assert!((0x2000..0x4000).contains(&field.0), "{name}"),
                Width::Bits32 => assert!((0x4000..0x6000).contains(&field.0), "{name}"),
                Width::Natural => assert!(field.0 >= 0x6000, "{name}"),
            }
            assert_eq!(name.starts_with("Host"), field.field_type() == FieldType::HostState, "{name}");
            if name.starts_with("Guest ") {
                assert!(matches!(field.field_type(), FieldType::GuestState), "{name}");
            }
            if name.ends_with("selector") {
                assert_eq!(field.width(), Width::Bits16, "{name}");
            }
            if name.ends_with(" base") {
                assert_eq!(field.width(), Width::Natural, "{name}");
            }
            if name.ends_with(" limit") || name.ends_with("access rights") {
                assert_eq!(field.width(), Width::Bits32, "{name}");
            }
        }
    }

    #[test]
    fn only_64_bit_fields_have_a_high_half() {
        assert_eq!(VmcsField::EPT_POINTER.high().name(), Some("EPT pointer"));
        assert_eq!(VmcsField::GUEST_CR0.high().name(), None);
        assert_eq!(VmcsField(0x6ffe).name(), None);
    }
}
