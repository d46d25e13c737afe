//! What exactly breaks a rule: which bits, and the value that would do.

use processor::Cpu;
use processor::vmx::{FailedCheck, VmxCapabilities};
use spec::vmx::capability::{ControlCapability, EptVpidCap, misc};
use spec::vmx::ept::Eptp;
use spec::vmx::{
    EntryCheck as Check, EntryControls, ExitControls, InterruptionInfo, PinBasedControls, PrimaryControls,
    SecondaryControls, VmcsField as Field,
};
use spec::x86::descriptors::AccessRights;
use spec::x86::paging::MemoryType;
use spec::x86::{Cr0, Cr4, Efer, Rflags};

/// Sentences about the values that break the rule.
pub(super) fn findings(cpu: &Cpu, failed: FailedCheck, qualification: u64) -> Vec<String> {
    let c = &cpu.vmx.capabilities;
    let get = |field| cpu.vmx.vmcs.get(field);
    let FailedCheck { check, field, value } = failed;
    match check {
        Check::PinBasedReserved => control_bits(value, c.pin, PinBasedControls::NAMED),
        Check::PrimaryReserved => control_bits(value, c.primary, PrimaryControls::NAMED),
        Check::SecondaryReserved => control_bits(value, c.secondary, SecondaryControls::NAMED),
        Check::ExitReserved => control_bits(value, c.exit, ExitControls::NAMED),
        Check::EntryReserved => control_bits(value, c.entry, EntryControls::NAMED),
        Check::HostCr0Fixed => fixed_bits(value, c.cr0_fixed0, c.cr0_fixed1, Cr0::SYMBOLS),
        Check::HostCr4Fixed => fixed_bits(value, c.cr4_fixed0, c.cr4_fixed1, Cr4::SYMBOLS),
        Check::GuestCr0Fixed => {
            let free = if unrestricted(cpu) { Cr0::PE | Cr0::PG } else { 0 };
            fixed_bits(value, c.cr0_fixed0 & !free, c.cr0_fixed1, Cr0::SYMBOLS)
        }
        Check::GuestCr4Fixed => fixed_bits(value, c.cr4_fixed0, c.cr4_fixed1, Cr4::SYMBOLS),
        Check::GuestEferReserved | Check::HostEferReserved => fixed_bits(value, 0, c.efer, Efer::SYMBOLS),
        Check::GuestPat | Check::HostPat => pat(value),
        Check::RflagsReserved => fixed_bits(value, Rflags::FIXED1, Rflags::DEFINED, Rflags::SYMBOLS),
        Check::GuestEferLma => {
            let long = get(Field::ENTRY_CONTROLS) & u64::from(EntryControls::IA32E_MODE_GUEST) != 0;
            vec![format!("\"IA-32e mode guest\" is {}, LMA is {}", u8::from(long), bit(value, Efer::LMA))]
        }
        Check::GuestEferLme => vec![format!("LME is {}, LMA is {}", bit(value, Efer::LME), bit(value, Efer::LMA))],
        Check::HostEferMode => {
            let wide = get(Field::EXIT_CONTROLS) & u64::from(ExitControls::HOST_ADDRESS_SPACE_SIZE) != 0;
            vec![format!(
                "\"host address-space size\" is {}, LMA is {}, LME is {}",
                u8::from(wide),
                bit(value, Efer::LMA),
                bit(value, Efer::LME)
            )]
        }
        Check::EptpMemoryType => eptp_memory_type(value, c.ept_vpid),
        Check::EptpWalkLength => {
            vec![format!("bits 5:3 are {}, a walk of {} levels", value >> 3 & 7, (value >> 3 & 7) + 1)]
        }
        Check::EptpReserved => {
            let mut found = beyond_width(value, c);
            if value & Eptp::RESERVED != 0 {
                found.push(format!("bits 11:8 are {:#x}", value >> 8 & 15));
            }
            found
        }
        Check::SegmentGranularity | Check::TrGranularity | Check::LdtrGranularity => granularity(cpu, field, value),
        Check::TrType | Check::LdtrType | Check::CsType | Check::SsType | Check::DataType => {
            vec![format!("the type is {}", AccessRights(value as u32).segment_type())]
        }
        Check::SegmentReserved | Check::TrReserved | Check::LdtrReserved => {
            vec![format!("reserved bits {:#x} are set", value as u32 & AccessRights::RESERVED)]
        }
        Check::HostSelectorRplTi => vec![format!("TI is {}, RPL is {}", value >> 2 & 1, value & 3)],
        Check::ActivityStateUnsupported => vec![activities(value, c)],
        Check::LinkPointerRevision | Check::LinkPointerShadow => link(cpu, value),
        Check::InjectionVector | Check::InjectionType => {
            let info = InterruptionInfo(value as u32);
            vec![format!("the type is {}, the vector is {}", value >> 8 & 7, info.vector())]
        }
        Check::InjectionReserved => {
            vec![format!("bits {:#x} are set", value as u32 & InterruptionInfo::ENTRY_RESERVED)]
        }
        Check::InjectionErrorCode => error_code(cpu, value),
        Check::MsrLoadFsGsBase
        | Check::MsrLoadX2apic
        | Check::MsrLoadSmmOnly
        | Check::MsrLoadReserved
        | Check::MsrLoadRefused
        | Check::MsrLoadModelSpecific => vec![format!("entry {qualification} of the area, counted from 1")],
        Check::PdpteReserved => vec![format!("the PDPTE is {value:#x}")],
        _ => address(check, value, c),
    }
}

/// What is said of a check whose answer depends on a control that is not active.
pub(super) fn shadowed_by(cpu: &Cpu, check: Check) -> Option<String> {
    let primary = PrimaryControls(cpu.vmx.vmcs.get32(Field::PRIMARY_CONTROLS));
    let secondary = cpu.vmx.vmcs.get32(Field::SECONDARY_CONTROLS);
    let ignored = secondary != 0 && !primary.has(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
    let matters = matches!(
        check,
        Check::GuestCr0Fixed | Check::CsType | Check::SsRplNotCsRpl | Check::SsDplNotRpl | Check::DataDplBelowRpl
    );
    (ignored && matters).then(|| {
        "\"activate secondary controls\" is 0: the secondary controls, \"unrestricted guest\" among them, count as 0".to_owned()
    })
}

fn unrestricted(cpu: &Cpu) -> bool {
    let primary = PrimaryControls(cpu.vmx.vmcs.get32(Field::PRIMARY_CONTROLS));
    let secondary = SecondaryControls(cpu.vmx.vmcs.get32(Field::SECONDARY_CONTROLS));
    primary.has(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS) && secondary.has(SecondaryControls::UNRESTRICTED_GUEST)
}

fn bit(value: u64, mask: u64) -> u8 {
    u8::from(value & mask != 0)
}

fn control_bits(value: u64, capability: ControlCapability, names: &[(u32, &'static str)]) -> Vec<String> {
    let names: Vec<_> = names.iter().map(|(mask, name)| (u64::from(*mask), *name)).collect();
    bits(value, u64::from(capability.required), u64::from(capability.allowed), &names, "\"")
}

fn fixed_bits(value: u64, must: u64, may: u64, names: &[(u64, &'static str)]) -> Vec<String> {
    bits(value, must, may, names, "")
}

/// The bits of `value` that are 0 and must be 1, and that are 1 and must be 0; and the nearest value that is right.
fn bits(value: u64, must: u64, may: u64, names: &[(u64, &'static str)], quote: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (wrong, demand) in [(must & !value, "1"), (value & !may, "0")] {
        for number in (0..64).filter(|number| wrong >> number & 1 != 0) {
            let name = names.iter().find(|(mask, _)| *mask == 1 << number);
            let name = name.map_or_else(String::new, |(_, name)| format!(" ({quote}{name}{quote})"));
            found.push(format!("bit {number}{name} must be {demand}"));
        }
    }
    found.push(format!("{:#x} would do", (value | must) & may));
    found
}

fn pat(value: u64) -> Vec<String> {
    (0..8)
        .map(|n| (n, (value >> (8 * n)) as u8))
        .filter(|(_, byte)| MemoryType::from_number(*byte).is_none())
        .map(|(n, byte)| format!("byte {n} (PA{n}) is {byte:#04x}, which is no memory type"))
        .collect()
}

fn eptp_memory_type(value: u64, capabilities: EptVpidCap) -> Vec<String> {
    let kinds = [(EptVpidCap::MEMORY_UC, "0 (UC)"), (EptVpidCap::MEMORY_WB, "6 (WB)")];
    let known: Vec<&str> = kinds.into_iter().filter(|(bit, _)| capabilities.has(*bit)).map(|(_, name)| name).collect();
    vec![
        format!("bits 2:0 are {}; this processor takes {}", value & 7, known.join(" and ")),
        format!("{:#x} would do", value & !7 | 6),
    ]
}

fn granularity(cpu: &Cpu, field: Option<Field>, rights: u64) -> Vec<String> {
    let Some(field) = field else { return Vec::new() };
    let limit_field = Field(field.0 - Field::GUEST_ES_ACCESS_RIGHTS.0 + Field::GUEST_ES_LIMIT.0);
    let limit = cpu.vmx.vmcs.get(limit_field);
    let pages = AccessRights(rights as u32).has(AccessRights::G);
    vec![if pages {
        format!("G is 1 and bits 11:0 of the limit {limit:#x} are not all 1")
    } else {
        format!("G is 0 and the limit {limit:#x} has bits above 19")
    }]
}

fn activities(value: u64, c: &VmxCapabilities) -> String {
    let known = [
        (misc::ACTIVITY_HLT, "1 HLT"),
        (misc::ACTIVITY_SHUTDOWN, "2 shutdown"),
        (misc::ACTIVITY_WAIT_FOR_SIPI, "3 wait for SIPI"),
    ];
    let names = known.into_iter().filter(|(bit, _)| c.misc & bit != 0).map(|(_, name)| name);
    let names: Vec<&str> = std::iter::once("0 active").chain(names).collect();
    format!("the activity state is {value}; this processor has {}", names.join(", "))
}

fn link(cpu: &Cpu, pointer: u64) -> Vec<String> {
    let revision = processor::vmx::vmcs::REVISION;
    match cpu.peek_physical::<4>(pointer & !3) {
        Some(found) => vec![format!(
            "the first four bytes at {pointer:#x} are {found:#x}; the revision identifier is {revision:#x}"
        )],
        None => vec![format!("there is no memory at {pointer:#x}; the revision identifier is {revision:#x}")],
    }
}

fn error_code(cpu: &Cpu, value: u64) -> Vec<String> {
    let info = InterruptionInfo(value as u32);
    let delivers = info.has(InterruptionInfo::ERROR_CODE);
    let protected = cpu.vmx.vmcs.get(Field::GUEST_CR0) & Cr0::PE != 0;
    let event = spec::vmx::decode::Field(Field::ENTRY_INTERRUPTION_INFO, value);
    let what = if delivers { "bit 11 is 1" } else { "bit 11 is 0" };
    vec![format!("{what} for this event: {event}; the guest's CR0.PE is {}", u8::from(protected))]
}

fn beyond_width(value: u64, c: &VmxCapabilities) -> Vec<String> {
    let width = c.physical_bits;
    match value >> width << width {
        0 => Vec::new(),
        high => vec![format!("bits {high:#x} lie beyond the physical-address width of {width} bits")],
    }
}

/// For the rules on addresses: alignment, width, canonical form.
fn address(check: Check, value: u64, c: &VmxCapabilities) -> Vec<String> {
    let rule = check.rule();
    let mut found = Vec::new();
    if rule.contains("canonical") {
        let unused = 64 - u32::from(c.linear_bits);
        let canonical = ((value << unused) as i64 >> unused) as u64;
        if canonical != value {
            found.push(format!(
                "with {} bits of linear address, the canonical address next to it is {canonical:#x}",
                c.linear_bits
            ));
        }
    }
    for (words, mask) in [("4-KiB aligned", 0xfff), ("16-byte aligned", 0xf), ("64-byte aligned", 0x3f)] {
        if rule.contains(words) && value & mask != 0 {
            found.push(format!("bits {}:0 are {:#x}", mask.count_ones() - 1, value & mask));
        }
    }
    if rule.contains("physical-address width") {
        found.extend(beyond_width(value, c));
    }
    found
}
