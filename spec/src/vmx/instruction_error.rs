//! VM-instruction error numbers (SDM Vol. 3C, 31.4).

macro_rules! errors {
    ($($number:literal $name:ident $text:literal $remedy:literal;)*) => {
        /// What VMfailValid stores into the VM-instruction error field.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum VmInstructionError {
            $(#[doc = concat!($text, ".")] $name = $number,)*
        }

        impl VmInstructionError {
            /// Every error, in ascending order.
            pub const ALL: &'static [VmInstructionError] = &[$(VmInstructionError::$name),*];

            /// The error with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<VmInstructionError> {
                match number {
                    $($number => Some(VmInstructionError::$name),)*
                    _ => None,
                }
            }

            /// What would satisfy the instruction, in a sentence or two.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(VmInstructionError::$name => $remedy,)*
                }
            }

            /// The error in the manual's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(VmInstructionError::$name => $text,)*
                }
            }
        }
    };
}

errors! {
    1 VmcallInRoot "VMCALL executed in VMX root operation"
        "VMCALL belongs to guests: in VMX root operation it has no meaning without a dual-monitor SMM.";
    2 VmclearInvalidAddress "VMCLEAR with invalid physical address"
        "Give VMCLEAR a 4-KiB aligned physical address within the physical-address width.";
    3 VmclearVmxonPointer "VMCLEAR with VMXON pointer"
        "Give the VMCS a region of its own: the VMXON region is the processor's.";
    4 VmlaunchNotClear "VMLAUNCH with non-clear VMCS"
        "Enter a VMCS that has been launched by VMRESUME, or make it clear again by VMCLEAR.";
    5 VmresumeNotLaunched "VMRESUME with non-launched VMCS"
        "Enter a clear VMCS by VMLAUNCH first. VMCLEAR, which moving a VMCS to another processor needs, makes it clear again.";
    6 VmresumeAfterVmxoff "VMRESUME after VMXOFF (VMXOFF and VMXON between VMLAUNCH and VMRESUME)"
        "Make the VMCS current again by VMCLEAR and VMPTRLD, and enter it by VMLAUNCH.";
    7 InvalidControls "VM entry with invalid control field(s)"
        "The explanation of the VM entry names the check that failed.";
    8 InvalidHostState "VM entry with invalid host-state field(s)"
        "The explanation of the VM entry names the check that failed.";
    9 VmptrldInvalidAddress "VMPTRLD with invalid physical address"
        "Give VMPTRLD a 4-KiB aligned physical address within the physical-address width.";
    10 VmptrldVmxonPointer "VMPTRLD with VMXON pointer"
        "Give the VMCS a region of its own: the VMXON region is the processor's.";
    11 VmptrldRevision "VMPTRLD with incorrect VMCS revision identifier"
        "Write IA32_VMX_BASIC bits 30:0 into the first four bytes of the region before VMPTRLD, with bit 31 clear (a shadow VMCS needs \"VMCS shadowing\").";
    12 UnsupportedComponent "VMREAD/VMWRITE from/to unsupported VMCS component"
        "Use an encoding of SDM Vol. 3D, appendix B, of a field whose feature this processor has; 64-bit fields alone have an odd encoding for their high half.";
    13 VmwriteReadOnly "VMWRITE to read-only VMCS component"
        "Leave out the VMWRITE: VM-exit information is read-only unless IA32_VMX_MISC bit 29 is 1.";
    15 VmxonInRoot "VMXON executed in VMX root operation"
        "Leave out the VMXON: the processor is in VMX operation already.";
    16 EntryExecutivePointer "VM entry with invalid executive-VMCS pointer"
        "Use the VMXON pointer or the address of a launched VMCS as executive-VMCS pointer.";
    17 EntryExecutiveNotLaunched "VM entry with non-launched executive VMCS"
        "Launch the executive VMCS first.";
    18 EntryExecutiveNotVmxon "VM entry with executive-VMCS pointer not VMXON pointer (when attempting to deactivate the dual-monitor treatment of SMIs and SMM)"
        "Write the VMXON pointer into the executive-VMCS pointer.";
    19 VmcallNotClear "VMCALL with non-clear VMCS (when attempting to activate the dual-monitor treatment of SMIs and SMM)"
        "Clear the VMCS by VMCLEAR first.";
    20 VmcallInvalidExitControls "VMCALL with invalid VM-exit control fields"
        "Correct the VM-exit controls that the capability MSRs do not allow.";
    22 VmcallMsegRevision "VMCALL with incorrect MSEG revision identifier (when attempting to activate the dual-monitor treatment of SMIs and SMM)"
        "Write the processor's MSEG revision identifier into the MSEG header.";
    23 VmxoffDualMonitor "VMXOFF under dual-monitor treatment of SMIs and SMM"
        "Deactivate the dual-monitor treatment first.";
    24 VmcallSmmFeatures "VMCALL with invalid SMM-monitor features (when attempting to activate the dual-monitor treatment of SMIs and SMM)"
        "Correct the SMM-monitor features field of the MSEG header.";
    25 EntryExecutiveControls "VM entry with invalid VM-execution control fields in executive VMCS (when attempting to return from SMM)"
        "Correct the VM-execution controls of the executive VMCS.";
    26 EntryMovSsBlocking "VM entry with events blocked by MOV SS"
        "Put no MOV SS or POP SS directly before the VM entry.";
    28 InvalidOperand "invalid operand to INVEPT/INVVPID"
        "Use a type that IA32_VMX_EPT_VPID_CAP reports; INVEPT wants an EPT pointer that a VM entry would accept, INVVPID a descriptor with bits 63:16 clear, a VPID other than 0 and a canonical address.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_convert_back() {
        assert!(VmInstructionError::ALL.windows(2).all(|w| (w[0] as u32) < w[1] as u32));
        assert!(VmInstructionError::ALL.iter().all(|e| VmInstructionError::from_number(*e as u32) == Some(*e)));
    }
}
