//! Every fault reason by name (VT-d, 7.1 for interrupt requests, 7.2 for address translation).
//!
//! The names are ours, made from what the reason says; the specification names conditions (`LCT.2`), some of which share a reason.

use super::registers::fault_record;
use core::fmt;

macro_rules! fault_reasons {
    ($($name:ident = $code:literal, $condition:literal, $qualified:literal, $text:literal;)*) => {
        /// Why a request was blocked, as recorded in a fault recording register.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum FaultReason {
            $(#[doc = concat!($condition, ": ", $text, ".")] $name = $code,)*
        }

        impl FaultReason {
            /// Every reason, by rising code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// The fault condition in the specification's own terms.
            #[must_use]
            pub const fn condition(self) -> &'static str {
                match self { $(Self::$name => $condition,)* }
            }

            /// Whether the table entry involved can keep the fault from being recorded (fault processing disable).
            #[must_use]
            pub const fn is_qualified(self) -> bool {
                match self { $(Self::$name => $qualified,)* }
            }

            /// What is wrong, in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

fault_reasons! {
    RootEntryNotPresent = 0x01, "LRT.2", false, "the present bit of the root entry is 0";
    ContextEntryNotPresent = 0x02, "LCT.2", true, "the present bit of the context entry is 0";
    InvalidContextEntry = 0x03, "LCT.4", true, "the context entry has a translation type or address width that is reserved or not supported";
    AddressBeyondWidth = 0x04, "LGN.1", true, "the address is beyond what the unit, or the context entry's address width, can translate";
    WriteNotPermitted = 0x05, "LGN.2", true, "no write permission in some paging entry";
    ReadNotPermitted = 0x06, "LGN.3", true, "no read permission in some paging entry";
    PagingEntryAccess = 0x07, "LSL.1", true, "a second-stage paging entry could not be read: a table's address is wrong";
    RootEntryAccess = 0x08, "LRT.1", false, "the root entry could not be read: the root table's address is wrong";
    ContextEntryAccess = 0x09, "LCT.1", false, "the context entry could not be read: the context table's address is wrong";
    RootEntryReserved = 0x0a, "LRT.3", false, "a reserved field of the present root entry is not 0";
    ContextEntryReserved = 0x0b, "LCT.3", true, "a reserved field of the present context entry is not 0";
    PagingEntryReserved = 0x0c, "LSL.2", true, "a reserved field of a present second-stage paging entry is not 0";
    RequestTypeBlocked = 0x0d, "LCT.5", true, "the context entry's translation type blocks translation and translated requests";
    ToInterruptRange = 0x0e, "LGN.4", true, "the translation leads into the interrupt address range";
    InterruptRequestReserved = 0x20, "7.1", false, "a reserved field of the remappable interrupt request is not 0";
    InterruptIndexBeyondTable = 0x21, "7.1", false, "the interrupt index is beyond the interrupt-remapping table";
    InterruptEntryNotPresent = 0x22, "7.1", true, "the present bit of the interrupt-remapping entry is 0";
    InterruptEntryAccess = 0x23, "7.1", false, "the interrupt-remapping entry could not be read: the table's address is wrong";
    InterruptEntryReserved = 0x24, "7.1", true, "a reserved field of the present interrupt-remapping entry is not 0";
    CompatibilityFormatBlocked = 0x25, "7.1", false, "interrupt requests of compatibility format are blocked";
    InterruptSourceInvalid = 0x26, "7.1", true, "the requester is not the one that the interrupt-remapping entry verifies";
    PostedDescriptorAccess = 0x27, "7.1", true, "the posted-interrupt descriptor could not be read or written";
    PostedDescriptorReserved = 0x28, "7.1", true, "a reserved field of the posted-interrupt descriptor is not 0";
    InvalidInterruptRequest = 0x29, "7.1", false, "a request to the interrupt address range is not a write of a doubleword";
    InvalidRootTableMode = 0x30, "RTA.1", false, "the root table address register has a translation mode that is reserved or not supported";
    PasidInLegacyMode = 0x31, "RTA.2", false, "a request with PASID in legacy mode";
    PageRequestInLegacyMode = 0x32, "RTA.3", false, "a page request in legacy mode";
    ScalableRootEntryAccess = 0x38, "SRT.1", false, "the root entry could not be read: the root table's address is wrong";
    ScalableRootEntryNotPresent = 0x39, "SRT.2", false, "the present bit of the root entry's half is 0";
    ScalableRootEntryReserved = 0x3a, "SRT.3", false, "a reserved field of the present root entry's half is not 0";
    ScalableContextEntryAccess = 0x40, "SCT.1", false, "the context entry could not be read: the context table's address is wrong";
    ScalableContextEntryNotPresent = 0x41, "SCT.2", true, "the present bit of the context entry is 0";
    ScalableContextEntryReserved = 0x42, "SCT.3", true, "a reserved field of the present context entry is not 0";
    InvalidScalableContextEntry = 0x43, "SCT.4", true, "the context entry asks for something that is not supported";
    DeviceTlbNotEnabled = 0x44, "SCT.5", true, "a translation or translated request, and the context entry's device-TLB enable is 0";
    PasidNotEnabled = 0x45, "SCT.6", true, "a request with PASID, and the context entry's PASID enable is 0";
    PasidBeyondDirectory = 0x46, "SCT.7", true, "the PASID is beyond the PASID directory";
    PageRequestNotEnabled = 0x47, "SCT.8", true, "a page request, and the context entry's page-request enable is 0";
    RidPasidInvalid = 0x48, "SCT.9", true, "the context entry's RID_PASID is beyond the PASID directory";
    PasidDirectoryAccess = 0x50, "SPD.1", true, "the PASID directory entry could not be read: the directory's address is wrong";
    PasidDirectoryNotPresent = 0x51, "SPD.2", true, "the present bit of the PASID directory entry is 0";
    PasidDirectoryReserved = 0x52, "SPD.3", true, "a reserved field of the present PASID directory entry is not 0";
    PasidEntryAccess = 0x58, "SPT.1", true, "the PASID table entry could not be read: the table's address is wrong";
    PasidEntryNotPresent = 0x59, "SPT.2", true, "the present bit of the PASID table entry is 0";
    PasidEntryReserved = 0x5a, "SPT.3", true, "a reserved field of the present PASID table entry is not 0";
    InvalidPasidEntry = 0x5b, "SPT.4", true, "the PASID table entry has a translation type, address width or paging mode that is reserved or not supported";
    ExecuteRequestNotEnabled = 0x5c, "SPT.5", true, "an execute request, and the PASID table entry's execute-request enable is 0";
    SupervisorRequestNotEnabled = 0x5d, "SPT.6", true, "a supervisor request, and the PASID table entry's supervisor-request enable is 0";
    FirstStageAccess = 0x70, "SFS.1", true, "a first-stage paging entry could not be read: a table's address is wrong";
    FirstStageNotPresent = 0x71, "SFS.2", true, "the present bit of a first-stage paging entry is 0";
    FirstStageReserved = 0x72, "SFS.3", true, "a reserved field of a present first-stage paging entry is not 0";
    FirstStageRootAccess = 0x73, "SFS.4", true, "the first stage's top entry could not be read: the PASID table entry's pointer is wrong";
    FirstStageTableBeyondWidth = 0x74, "SFS.5", true, "nested: the address of a first-stage table is beyond what the second stage can translate";
    FirstStageRootNotReadable = 0x75, "SFS.6", true, "nested: no read permission in the second stage for the first stage's top table";
    FirstStageTableNotReadable = 0x76, "SFS.7", true, "nested: no read permission in the second stage for a first-stage table";
    FirstStageTableNotWritable = 0x77, "SFS.8", true, "nested: no write permission in the second stage for the flags of a first-stage entry";
    SecondStageAccess = 0x78, "SSS.1", true, "a second-stage paging entry could not be read: a table's address is wrong";
    SecondStageNotPresent = 0x79, "SSS.2", true, "a second-stage paging entry is not present: neither read nor write permission";
    SecondStageReserved = 0x7a, "SSS.3", true, "a reserved field of a present second-stage paging entry is not 0";
    SecondStageRootAccess = 0x7b, "SSS.4", true, "the second stage's top entry could not be read: the PASID table entry's pointer is wrong";
    SecondStageFlagsNoSnoop = 0x7c, "SSS.5", true, "a flag of a second-stage entry needs to be set, and its table is not coherent";
    SecondStageFlagsFailed = 0x7d, "SSS.6", true, "a flag of a second-stage entry could not be set";
    NotCanonical = 0x80, "SGN.1", true, "the address is not canonical for the first stage's paging mode";
    UserRequestToSupervisorPage = 0x81, "SGN.2", true, "a user request to a page of the supervisor";
    ExecuteNotPermitted = 0x82, "SGN.3", true, "no execute permission in some first-stage entry";
    ScalableAddressBeyondHost = 0x83, "SGN.4", true, "the address is beyond the host address width in pass-through";
    ScalableAddressBeyondWidth = 0x84, "SGN.5", true, "the address is beyond what the second stage can translate";
    ScalableWriteNotPermitted = 0x85, "SGN.6", true, "no write permission in some paging entry";
    ScalableReadNotPermitted = 0x86, "SGN.7", true, "no read permission in some paging entry";
    ScalableToInterruptRange = 0x87, "SGN.8", true, "the translation leads into the interrupt address range";
    FirstStageFlagsNoSnoop = 0x90, "SFS.9", true, "a flag of a first-stage entry needs to be set, and its table is not coherent";
    FirstStageFlagsFailed = 0x91, "SFS.10", true, "a flag of a first-stage entry could not be set";
}

impl FaultReason {
    /// The reason with this code.
    #[must_use]
    pub fn of(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == code)
    }

    /// A fault that a function with a device TLB recovers from: its translation request is completed without the permission asked for, nothing
    /// is recorded, and a page request may follow (VT-d, 7.2.2).
    #[must_use]
    pub const fn is_recoverable(self) -> bool {
        matches!(
            self,
            Self::ReadNotPermitted
                | Self::WriteNotPermitted
                | Self::FirstStageNotPresent
                | Self::FirstStageRootNotReadable
                | Self::FirstStageTableNotReadable
                | Self::FirstStageTableNotWritable
                | Self::SecondStageNotPresent
                | Self::UserRequestToSupervisorPage
                | Self::ExecuteNotPermitted
                | Self::ScalableWriteNotPermitted
                | Self::ScalableReadNotPermitted
        )
    }

    /// The entry of a table could not be read or written: where a function asks for a translation, it gets Completer Abort instead of
    /// Unsupported Request.
    #[must_use]
    pub const fn is_of_unreadable_entry(self) -> bool {
        matches!(
            self,
            Self::RootEntryAccess
                | Self::ContextEntryAccess
                | Self::PagingEntryAccess
                | Self::ScalableRootEntryAccess
                | Self::ScalableContextEntryAccess
                | Self::PasidDirectoryAccess
                | Self::PasidEntryAccess
                | Self::FirstStageAccess
                | Self::FirstStageRootAccess
                | Self::SecondStageAccess
                | Self::SecondStageRootAccess
                | Self::FirstStageFlagsFailed
                | Self::SecondStageFlagsFailed
        )
    }

    /// A fault of an interrupt request rather than of address translation.
    #[must_use]
    pub const fn is_of_interrupt(self) -> bool {
        self as u8 >= 0x20 && (self as u8) < 0x30
    }
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#04x}, {}): {}", self.name(), *self as u8, self.condition(), self.text())
    }
}

/// What a fault recording register tells of a request (VT-d, 11.4.7.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// The reason's code.
    pub code: u8,
    /// The source id of the requester.
    pub source: u16,
    /// The page; of an interrupt request its index.
    pub address: u64,
    /// The request would have written.
    pub write: bool,
}

impl FaultRecord {
    /// From the two quadwords.
    #[must_use]
    pub fn of(low: u64, high: u64) -> Self {
        let code = (high >> fault_record::REASON_SHIFT) as u8;
        let is_of_interrupt = FaultReason::of(code).is_some_and(FaultReason::is_of_interrupt);
        let write = high & (fault_record::READ | fault_record::PAGE_REQUEST) == 0;
        Self { code, source: high as u16, address: if is_of_interrupt { low >> 48 } else { low & !0xfff }, write }
    }

    /// Why, if the code is one that the specification has.
    #[must_use]
    pub fn reason(&self) -> Option<FaultReason> {
        FaultReason::of(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_who_where_and_why() {
        let record = FaultRecord::of(0x1234_5000, fault_record::FAULT | 5 << fault_record::REASON_SHIFT | 0x28);
        assert_eq!(record.reason(), Some(FaultReason::WriteNotPermitted));
        assert_eq!((record.source, record.address, record.write), (0x28, 0x1234_5000, true));
        let record = FaultRecord::of(7 << 48, fault_record::FAULT | 0x22 << fault_record::REASON_SHIFT | 0x28);
        assert_eq!((record.reason(), record.address), (Some(FaultReason::InterruptEntryNotPresent), 7));
    }

    #[test]
    fn codes_rise_and_lead_back_to_their_reasons() {
        assert!(FaultReason::ALL.windows(2).all(|pair| (pair[0] as u8) < pair[1] as u8));
        assert!(FaultReason::ALL.iter().all(|reason| FaultReason::of(*reason as u8) == Some(*reason)));
        assert_eq!(FaultReason::of(0), None);
    }
}
