//! VM-instruction error numbers (SDM Vol. 3C, 31.4).

macro_rules! errors {
    ($($number:literal $name:ident $text:literal;)*) => {
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
    1 VmcallInRoot "VMCALL executed in VMX root operation";
    2 VmclearInvalidAddress "VMCLEAR with invalid physical address";
    3 VmclearVmxonPointer "VMCLEAR with VMXON pointer";
    4 VmlaunchNotClear "VMLAUNCH with non-clear VMCS";
    5 VmresumeNotLaunched "VMRESUME with non-launched VMCS";
    6 VmresumeAfterVmxoff "VMRESUME after VMXOFF (VMXOFF and VMXON between VMLAUNCH and VMRESUME)";
    7 InvalidControls "VM entry with invalid control field(s)";
    8 InvalidHostState "VM entry with invalid host-state field(s)";
    9 VmptrldInvalidAddress "VMPTRLD with invalid physical address";
    10 VmptrldVmxonPointer "VMPTRLD with VMXON pointer";
    11 VmptrldRevision "VMPTRLD with incorrect VMCS revision identifier";
    12 UnsupportedComponent "VMREAD/VMWRITE from/to unsupported VMCS component";
    13 VmwriteReadOnly "VMWRITE to read-only VMCS component";
    15 VmxonInRoot "VMXON executed in VMX root operation";
    16 EntryExecutivePointer "VM entry with invalid executive-VMCS pointer";
    17 EntryExecutiveNotLaunched "VM entry with non-launched executive VMCS";
    18 EntryExecutiveNotVmxon "VM entry with executive-VMCS pointer not VMXON pointer (when attempting to deactivate the dual-monitor treatment of SMIs and SMM)";
    19 VmcallNotClear "VMCALL with non-clear VMCS (when attempting to activate the dual-monitor treatment of SMIs and SMM)";
    20 VmcallInvalidExitControls "VMCALL with invalid VM-exit control fields";
    22 VmcallMsegRevision "VMCALL with incorrect MSEG revision identifier (when attempting to activate the dual-monitor treatment of SMIs and SMM)";
    23 VmxoffDualMonitor "VMXOFF under dual-monitor treatment of SMIs and SMM";
    24 VmcallSmmFeatures "VMCALL with invalid SMM-monitor features (when attempting to activate the dual-monitor treatment of SMIs and SMM)";
    25 EntryExecutiveControls "VM entry with invalid VM-execution control fields in executive VMCS (when attempting to return from SMM)";
    26 EntryMovSsBlocking "VM entry with events blocked by MOV SS";
    28 InvalidOperand "invalid operand to INVEPT/INVVPID";
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
