//! Values of VMCS fields in words, for people.

use super::controls::{
    EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls,
};
use super::ept::Eptp;
use super::events::{InterruptionInfo, InterruptionType};
use super::exit_reason::{ExitReason, exit_reason_flags};
use super::fields::VmcsField;
use super::guest_state::{ActivityState, Interruptibility, PendingDebug};
use super::instruction_error::VmInstructionError;
use super::qualification::{EptViolation, apic_access, cr_access, dr_access, io};
use crate::x86::debug::DebugCtl;
use crate::x86::decode::{Exception, Flags, Pat, memory_type};
use crate::x86::descriptors::{AccessRights, Selector};
use crate::x86::{Cr0, Cr4, Efer};
use core::fmt;

/// A field's value in words; nothing where the number says it all.
#[derive(Clone, Copy, Debug)]
pub struct Field(pub VmcsField, pub u64);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (field, value) = (self.0, self.1);
        let low = value as u32;
        match field {
            VmcsField::PIN_BASED_CONTROLS => {
                let default1 = PinBasedControls::DEFAULT1;
                write!(f, "{}", PinBasedControls(low & !(default1 & !PinBasedControls::ALL)).names())
            }
            VmcsField::PRIMARY_CONTROLS => {
                write!(f, "{}", PrimaryControls(low & !(PrimaryControls::DEFAULT1 & !PrimaryControls::ALL)).names())
            }
            VmcsField::SECONDARY_CONTROLS => write!(f, "{}", SecondaryControls(low).names()),
            VmcsField::TERTIARY_CONTROLS => write!(f, "{}", TertiaryControls(value).names()),
            VmcsField::EXIT_CONTROLS => {
                write!(f, "{}", ExitControls(low & !(ExitControls::DEFAULT1 & !ExitControls::ALL)).names())
            }
            VmcsField::SECONDARY_EXIT_CONTROLS => write!(f, "{}", SecondaryExitControls(value).names()),
            VmcsField::ENTRY_CONTROLS => {
                write!(f, "{}", EntryControls(low & !(EntryControls::DEFAULT1 & !EntryControls::ALL)).names())
            }
            VmcsField::VM_FUNCTION_CONTROLS if value == 1 => f.write_str("EPTP switching"),
            VmcsField::EPT_POINTER => eptp(f, Eptp(value)),
            VmcsField::GUEST_CR0 | VmcsField::HOST_CR0 | VmcsField::CR0_MASK | VmcsField::CR0_READ_SHADOW => {
                write!(f, "{}", Cr0(value).symbols())
            }
            VmcsField::GUEST_CR4 | VmcsField::HOST_CR4 | VmcsField::CR4_MASK | VmcsField::CR4_READ_SHADOW => {
                write!(f, "{}", Cr4(value).symbols())
            }
            VmcsField::GUEST_EFER | VmcsField::HOST_EFER => write!(f, "{}", Efer(value).symbols()),
            VmcsField::GUEST_PAT | VmcsField::HOST_PAT => write!(f, "{}", Pat(value)),
            VmcsField::GUEST_RFLAGS => write!(f, "{}", Flags(value)),
            VmcsField::GUEST_DEBUGCTL => write!(f, "{}", DebugCtl(value).symbols()),
            VmcsField::EXCEPTION_BITMAP => exceptions(f, low),
            VmcsField::ENTRY_INTERRUPTION_INFO | VmcsField::EXIT_INTERRUPTION_INFO | VmcsField::IDT_VECTORING_INFO => {
                interruption(f, field, InterruptionInfo(low))
            }
            VmcsField::GUEST_ACTIVITY_STATE => f.write_str(activity(low)),
            VmcsField::GUEST_INTERRUPTIBILITY => write!(f, "{}", Interruptibility(low).names()),
            VmcsField::GUEST_PENDING_DEBUG => write!(f, "{}", PendingDebug(value).names()),
            VmcsField::EXIT_REASON => Reason(low).fmt(f),
            VmcsField::VM_INSTRUCTION_ERROR => {
                f.write_str(VmInstructionError::from_number(low).map_or("none", VmInstructionError::text))
            }
            VmcsField::VMCS_LINK_POINTER if value == u64::MAX => f.write_str("no VMCS is linked"),
            _ if is_access_rights(field) => write!(f, "{}", AccessRights(low)),
            _ if is_selector(field) => write!(f, "{}", Selector(value as u16)),
            _ => Ok(()),
        }
    }
}

/// Whether the field is the access rights of a segment register.
#[must_use]
pub const fn is_access_rights(field: VmcsField) -> bool {
    field.0 >= VmcsField::GUEST_ES_ACCESS_RIGHTS.0 && field.0 <= VmcsField::GUEST_TR_ACCESS_RIGHTS.0
}

/// Whether the field is a segment selector.
#[must_use]
pub const fn is_selector(field: VmcsField) -> bool {
    field.0 >= VmcsField::GUEST_ES_SELECTOR.0 && field.0 <= VmcsField::GUEST_TR_SELECTOR.0
        || field.0 >= VmcsField::HOST_ES_SELECTOR.0 && field.0 <= VmcsField::HOST_TR_SELECTOR.0
}

fn eptp(f: &mut fmt::Formatter<'_>, eptp: Eptp) -> fmt::Result {
    let kind = eptp.memory_type();
    write!(
        f,
        "memory type {kind} ({}), {} levels, top table at {:#x}",
        memory_type(kind),
        eptp.walk_length(),
        eptp.table()
    )?;
    f.write_str(if eptp.accessed_dirty() { ", accessed and dirty flags" } else { ", no accessed and dirty flags" })?;
    if eptp.0 & Eptp::SUPERVISOR_SHADOW_STACK != 0 {
        f.write_str(", supervisor shadow-stack control")?;
    }
    let reserved = eptp.0 & (Eptp::RESERVED | !0x000f_ffff_ffff_ffff);
    if reserved != 0 { write!(f, ", reserved bits {reserved:#x}") } else { Ok(()) }
}

fn exceptions(f: &mut fmt::Formatter<'_>, bitmap: u32) -> fmt::Result {
    if bitmap == 0 {
        return f.write_str("none");
    }
    let mut gap = "";
    for vector in (0..32).filter(|vector| bitmap >> vector & 1 != 0) {
        write!(f, "{gap}{}", Exception(vector))?;
        gap = " ";
    }
    Ok(())
}

/// An activity state in words.
#[must_use]
pub const fn activity(number: u32) -> &'static str {
    match ActivityState::from_number(number) {
        Some(ActivityState::Active) => "active",
        Some(ActivityState::Hlt) => "HLT",
        Some(ActivityState::Shutdown) => "shutdown",
        Some(ActivityState::WaitForSipi) => "wait for SIPI",
        None => "no activity state",
    }
}

/// The type of an event in words.
#[must_use]
pub const fn interruption_type(kind: InterruptionType) -> &'static str {
    match kind {
        InterruptionType::External => "external interrupt",
        InterruptionType::Reserved => "reserved type 1",
        InterruptionType::Nmi => "NMI",
        InterruptionType::HardwareException => "hardware exception",
        InterruptionType::SoftwareInterrupt => "software interrupt",
        InterruptionType::PrivilegedSoftwareException => "privileged software exception",
        InterruptionType::SoftwareException => "software exception",
        InterruptionType::Other => "other event",
    }
}

fn interruption(f: &mut fmt::Formatter<'_>, field: VmcsField, info: InterruptionInfo) -> fmt::Result {
    if !info.is_valid() {
        return f.write_str("not valid");
    }
    write!(f, "{}, vector {}", interruption_type(info.kind()), info.vector())?;
    if info.kind() == InterruptionType::HardwareException {
        write!(f, " ({})", Exception(info.vector()))?;
    }
    f.write_str(if info.has(InterruptionInfo::ERROR_CODE) { ", with an error code" } else { ", no error code" })?;
    let rest = info.0 & InterruptionInfo::ENTRY_RESERVED;
    if field == VmcsField::EXIT_INTERRUPTION_INFO && rest & InterruptionInfo::NMI_UNBLOCKING != 0 {
        return f.write_str(", NMI unblocking due to IRET");
    }
    if rest != 0 { write!(f, ", reserved bits {rest:#x}") } else { Ok(()) }
}

/// The exit-reason field in words.
#[derive(Clone, Copy, Debug)]
pub struct Reason(pub u32);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ExitReason::from_number(self.0 as u16) {
            Some(reason) => f.write_str(reason.text())?,
            None => write!(f, "reason {}", self.0 as u16)?,
        }
        let flags = [
            (exit_reason_flags::BUS_LOCK, ", after a bus lock"),
            (exit_reason_flags::ENCLAVE, ", from enclave mode"),
            (exit_reason_flags::PENDING_MTF, ", MTF pending"),
            (exit_reason_flags::FROM_ROOT, ", from VMX root operation"),
            (exit_reason_flags::ENTRY_FAILURE, " (the VM entry failed)"),
        ];
        flags.into_iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, text)| f.write_str(text))
    }
}

/// The exit qualification in words, which depend on the exit reason; nothing where it is an address or unused.
#[derive(Clone, Copy, Debug)]
pub struct Qualification(pub ExitReason, pub u64);

impl fmt::Display for Qualification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GPRS: [&str; 16] = [
            "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14",
            "R15",
        ];
        let value = self.1;
        let gpr = |shift: u32| GPRS[(value >> shift & 15) as usize];
        match self.0 {
            ExitReason::CrAccess => {
                let register = value & 15;
                match value >> cr_access::TYPE_SHIFT & 3 {
                    cr_access::MOV_TO_CR => write!(f, "MOV to CR{register} from {}", gpr(cr_access::GPR_SHIFT)),
                    cr_access::MOV_FROM_CR => write!(f, "MOV from CR{register} to {}", gpr(cr_access::GPR_SHIFT)),
                    cr_access::CLTS => f.write_str("CLTS"),
                    _ => write!(f, "LMSW of {:#x}", value >> cr_access::LMSW_SOURCE_SHIFT & 0xffff),
                }
            }
            ExitReason::DrAccess => {
                let from = value & dr_access::FROM_DR != 0;
                let (direction, other) = if from { ("from", "to") } else { ("to", "from") };
                write!(f, "MOV {direction} DR{} {other} {}", value & 7, gpr(dr_access::GPR_SHIFT))
            }
            ExitReason::Io => {
                let name = match (value & io::IN != 0, value & io::STRING != 0) {
                    (true, false) => "IN",
                    (false, false) => "OUT",
                    (true, true) => "INS",
                    (false, true) => "OUTS",
                };
                let repeated = if value & io::REP != 0 { "REP " } else { "" };
                write!(f, "{repeated}{name} of {} bytes, port {:#x}", (value & 7) + 1, value >> io::PORT_SHIFT & 0xffff)
            }
            ExitReason::EptViolation => ept_violation(f, EptViolation(value)),
            ExitReason::ApicAccess => {
                let kind = match value >> apic_access::TYPE_SHIFT & 15 {
                    apic_access::READ => "read",
                    apic_access::WRITE => "write",
                    apic_access::FETCH => "fetch",
                    apic_access::EVENT_DELIVERY => "access during event delivery",
                    apic_access::PHYSICAL_EVENT_DELIVERY => "guest-physical access during event delivery",
                    _ => "guest-physical access",
                };
                write!(f, "{kind} at offset {:#x}", value & 0xfff)
            }
            ExitReason::TaskSwitch => write!(f, "to the TSS {}", Selector(value as u16)),
            ExitReason::InvalidGuestState => f.write_str(match value {
                2 => "PDPTE loading",
                3 => "NMI with blocking by MOV SS",
                4 => "VMCS link pointer",
                _ => "",
            }),
            ExitReason::MsrLoading => write!(f, "entry {value} of the VM-entry MSR-load area, counted from 1"),
            ExitReason::Sipi => write!(f, "vector {:#x}", value & 0xff),
            _ => Ok(()),
        }
    }
}

fn ept_violation(f: &mut fmt::Formatter<'_>, violation: EptViolation) -> fmt::Result {
    let accesses = [(EptViolation::READ, "read"), (EptViolation::WRITE, "write"), (EptViolation::FETCH, "fetch")];
    let mut gap = "";
    for (_, name) in accesses.into_iter().filter(|(bit, _)| violation.has(*bit)) {
        write!(f, "{gap}{name}")?;
        gap = " and ";
    }
    f.write_str(", the entries give ")?;
    let rights = [(EptViolation::READABLE, 'r'), (EptViolation::WRITABLE, 'w'), (EptViolation::EXECUTABLE, 'x')];
    for (bit, letter) in rights {
        write!(f, "{}", if violation.has(bit) { letter } else { '-' })?;
    }
    match (violation.has(EptViolation::LINEAR_VALID), violation.has(EptViolation::TRANSLATED)) {
        (false, _) => f.write_str(", no linear address")?,
        (true, true) => f.write_str(", of a linear address")?,
        (true, false) => f.write_str(", of a guest paging-structure entry")?,
    }
    let rest = [
        (EptViolation::NMI_UNBLOCKING, ", NMI unblocking due to IRET"),
        (EptViolation::SHADOW_STACK, ", shadow-stack access"),
        (EptViolation::GUEST_PAGING_VERIFICATION, ", guest-paging verification"),
        (EptViolation::ASYNCHRONOUS, ", asynchronous"),
    ];
    rest.into_iter().filter(|(bit, _)| violation.has(*bit)).try_for_each(|(_, text)| f.write_str(text))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn controls_by_name_without_those_that_are_always_1() {
        let text = Field(VmcsField::PIN_BASED_CONTROLS, 0x1f).to_string();
        assert_eq!(text, "external-interrupt exiting, NMI exiting");
        assert_eq!(Field(VmcsField::SECONDARY_CONTROLS, 0x82).to_string(), "enable EPT, unrestricted guest");
        assert_eq!(Field(VmcsField::PIN_BASED_CONTROLS, 0x116).to_string(), "bit 8");
    }

    #[test]
    fn the_parts_of_an_ept_pointer() {
        let text = Field(VmcsField::EPT_POINTER, 0x1000 | 2 | 3 << 3 | 1 << 6 | 1 << 9).to_string();
        assert_eq!(
            text,
            "memory type 2 (reserved), 4 levels, top table at 0x1000, accessed and dirty flags, reserved bits 0x200"
        );
    }

    #[test]
    fn an_event_to_inject() {
        let text = Field(VmcsField::ENTRY_INTERRUPTION_INFO, 0x8000_0b0e).to_string();
        assert_eq!(text, "hardware exception, vector 14 (#PF), with an error code");
        assert_eq!(Field(VmcsField::ENTRY_INTERRUPTION_INFO, 0x0b0e).to_string(), "not valid");
    }

    #[test]
    fn qualifications_by_reason() {
        assert_eq!(Qualification(ExitReason::Io, 0x03f8_0008).to_string(), "IN of 1 bytes, port 0x3f8");
        assert_eq!(Qualification(ExitReason::CrAccess, 0x203).to_string(), "MOV to CR3 from RDX");
        assert_eq!(Qualification(ExitReason::Cpuid, 0).to_string(), "");
        let violation = Qualification(ExitReason::EptViolation, 0x1aa).to_string();
        assert_eq!(violation, "write, the entries give r-x, of a linear address");
    }

    #[test]
    fn fields_that_are_plain_numbers_have_no_words() {
        assert_eq!(Field(VmcsField::GUEST_RIP, 0x1000).to_string(), "");
    }
}
