//! Basic exit reasons and the layout of the exit-reason field (SDM Vol. 3C, 25.9.1; Vol. 3D, appendix C).

/// The exit-reason field's flags. Bits 15:0 are the basic exit reason.
pub mod exit_reason_flags {
    /// Bit 25: a shadow stack was left prematurely busy.
    pub const PREMATURELY_BUSY_SHADOW_STACK: u32 = 1 << 25;
    /// Bit 26: a bus lock was asserted.
    pub const BUS_LOCK: u32 = 1 << 26;
    /// Bit 27: the exit came from enclave mode.
    pub const ENCLAVE: u32 = 1 << 27;
    /// Bit 28: a monitor-trap-flag exit was pending.
    pub const PENDING_MTF: u32 = 1 << 28;
    /// Bit 29: the exit came from VMX root operation.
    pub const FROM_ROOT: u32 = 1 << 29;
    /// Bit 31: a failed VM entry.
    pub const ENTRY_FAILURE: u32 = 1 << 31;
}

macro_rules! exit_reasons {
    ($($number:literal $name:ident $text:literal;)*) => {
        /// A basic exit reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ExitReason {
            $(#[doc = concat!($text, ".")] $name = $number,)*
        }

        impl ExitReason {
            /// Every basic exit reason, in ascending order.
            pub const ALL: &'static [ExitReason] = &[$(ExitReason::$name),*];

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<ExitReason> {
                match number {
                    $($number => Some(ExitReason::$name),)*
                    _ => None,
                }
            }

            /// The reason in the manual's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(ExitReason::$name => $text,)*
                }
            }
        }
    };
}

exit_reasons! {
    0 ExceptionOrNmi "exception or non-maskable interrupt";
    1 ExternalInterrupt "external interrupt";
    2 TripleFault "triple fault";
    3 Init "INIT signal";
    4 Sipi "start-up IPI";
    5 IoSmi "I/O system-management interrupt";
    6 OtherSmi "other system-management interrupt";
    7 InterruptWindow "interrupt window";
    8 NmiWindow "NMI window";
    9 TaskSwitch "task switch";
    10 Cpuid "CPUID";
    11 Getsec "GETSEC";
    12 Hlt "HLT";
    13 Invd "INVD";
    14 Invlpg "INVLPG";
    15 Rdpmc "RDPMC";
    16 Rdtsc "RDTSC";
    17 Rsm "RSM";
    18 Vmcall "VMCALL";
    19 Vmclear "VMCLEAR";
    20 Vmlaunch "VMLAUNCH";
    21 Vmptrld "VMPTRLD";
    22 Vmptrst "VMPTRST";
    23 Vmread "VMREAD";
    24 Vmresume "VMRESUME";
    25 Vmwrite "VMWRITE";
    26 Vmxoff "VMXOFF";
    27 Vmxon "VMXON";
    28 CrAccess "control-register access";
    29 DrAccess "MOV DR";
    30 Io "I/O instruction";
    31 Rdmsr "RDMSR";
    32 Wrmsr "WRMSR";
    33 InvalidGuestState "VM-entry failure due to invalid guest state";
    34 MsrLoading "VM-entry failure due to MSR loading";
    36 Mwait "MWAIT";
    37 MonitorTrapFlag "monitor trap flag";
    39 Monitor "MONITOR";
    40 Pause "PAUSE";
    41 EntryMachineCheck "VM-entry failure due to machine-check event";
    43 TprBelowThreshold "TPR below threshold";
    44 ApicAccess "APIC access";
    45 VirtualizedEoi "virtualized EOI";
    46 GdtrIdtr "access to GDTR or IDTR";
    47 LdtrTr "access to LDTR or TR";
    48 EptViolation "EPT violation";
    49 EptMisconfiguration "EPT misconfiguration";
    50 Invept "INVEPT";
    51 Rdtscp "RDTSCP";
    52 PreemptionTimer "VMX-preemption timer expired";
    53 Invvpid "INVVPID";
    54 Wbinvd "WBINVD or WBNOINVD";
    55 Xsetbv "XSETBV";
    56 ApicWrite "APIC write";
    57 Rdrand "RDRAND";
    58 Invpcid "INVPCID";
    59 Vmfunc "VMFUNC";
    60 Encls "ENCLS";
    61 Rdseed "RDSEED";
    62 PmlFull "page-modification log full";
    63 Xsaves "XSAVES";
    64 Xrstors "XRSTORS";
    65 Pconfig "PCONFIG";
    66 SppEvent "SPP-related event";
    67 Umwait "UMWAIT";
    68 Tpause "TPAUSE";
    69 Loadiwkey "LOADIWKEY";
    70 Enclv "ENCLV";
    72 EnqcmdPasid "ENQCMD PASID translation failure";
    73 EnqcmdsPasid "ENQCMDS PASID translation failure";
    74 BusLock "bus lock";
    75 InstructionTimeout "instruction timeout";
    76 Seamcall "SEAMCALL";
    77 Tdcall "TDCALL";
    78 Rdmsrlist "RDMSRLIST";
    79 Wrmsrlist "WRMSRLIST";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_convert_back() {
        assert!(ExitReason::ALL.windows(2).all(|w| (w[0] as u16) < w[1] as u16));
        assert!(ExitReason::ALL.iter().all(|r| ExitReason::from_number(*r as u16) == Some(*r)));
        assert_eq!(ExitReason::from_number(35), None);
    }
}
