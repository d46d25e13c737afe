//! Values of x86 structures in words, for people: each is a `Display`.

use super::descriptors::{AccessRights, Selector, system_type};
use super::exceptions::Vector;
use super::gates::Gate;
use super::msr;
use super::paging::MemoryType;
use super::rflags::Rflags;
use core::fmt;

/// The short name of a memory type: `WB`, or `reserved`.
#[must_use]
pub const fn memory_type(number: u8) -> &'static str {
    match MemoryType::from_number(number) {
        Some(MemoryType::Uncacheable) => "UC",
        Some(MemoryType::WriteCombining) => "WC",
        Some(MemoryType::WriteThrough) => "WT",
        Some(MemoryType::WriteProtected) => "WP",
        Some(MemoryType::WriteBack) => "WB",
        Some(MemoryType::UncacheableMinus) => "UC-",
        None => "reserved",
    }
}

/// The name of an MSR: `IA32_EFER`, or its number.
#[derive(Clone, Copy, Debug)]
pub struct Msr(pub u32);

impl fmt::Display for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0;
        match msr::NAMED.iter().find(|(named, _)| *named == number) {
            _ if (msr::X2APIC_FIRST..=msr::X2APIC_LAST).contains(&number) => {
                write!(f, "x2APIC register {:#x}", (number - msr::X2APIC_FIRST) << 4)
            }
            Some((_, name)) => f.write_str(name),
            None => write!(f, "MSR {number:#x}"),
        }
    }
}

/// IA32_PAT, byte by byte.
#[derive(Clone, Copy, Debug)]
pub struct Pat(pub u64);

impl fmt::Display for Pat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for n in 0..8 {
            let byte = (self.0 >> (8 * n)) as u8;
            let gap = if n == 0 { "" } else { ", " };
            match MemoryType::from_number(byte) {
                Some(_) => write!(f, "{gap}PA{n} {}", memory_type(byte))?,
                None => write!(f, "{gap}PA{n} {byte:#x} (no memory type)")?,
            }
        }
        Ok(())
    }
}

/// RFLAGS.
#[derive(Clone, Copy, Debug)]
pub struct Flags(pub u64);

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = Rflags(self.0 & !(Rflags::IOPL | Rflags::FIXED1));
        write!(f, "{}", rest.symbols())?;
        if self.0 & Rflags::IOPL != 0 {
            write!(f, " IOPL={}", Rflags(self.0).iopl())?;
        }
        if self.0 & Rflags::FIXED1 == 0 { f.write_str("; bit 1 is 0") } else { Ok(()) }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = if self.is_local() { "LDT" } else { "GDT" };
        if self.is_null() {
            return write!(f, "null, RPL {}", self.rpl());
        }
        write!(f, "entry {} of the {table} (TI {}), RPL {}", self.0 >> 3, u8::from(self.is_local()), self.rpl())
    }
}

/// The name of a system descriptor's type; 32- and 64-bit types share numbers.
#[must_use]
pub const fn system_type_name(number: u8) -> &'static str {
    match number {
        system_type::TSS_16_AVAILABLE => "available 16-bit TSS",
        system_type::LDT => "LDT",
        system_type::TSS_16_BUSY => "busy 16-bit TSS",
        system_type::CALL_GATE_16 => "16-bit call gate",
        system_type::TASK_GATE => "task gate",
        system_type::INTERRUPT_GATE_16 => "16-bit interrupt gate",
        system_type::TRAP_GATE_16 => "16-bit trap gate",
        system_type::TSS_AVAILABLE => "available TSS",
        system_type::TSS_BUSY => "busy TSS",
        system_type::CALL_GATE => "call gate",
        system_type::INTERRUPT_GATE => "interrupt gate",
        system_type::TRAP_GATE => "trap gate",
        _ => "reserved",
    }
}

impl fmt::Display for AccessRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.segment_type();
        write!(f, "type {kind} (")?;
        if !self.is_code_or_data() {
            f.write_str(system_type_name(kind))?;
        } else if self.is_code() {
            let bits = u32::from(kind);
            f.write_str(if bits & AccessRights::RW != 0 { "execute/read" } else { "execute-only" })?;
            f.write_str(if bits & AccessRights::DC != 0 { ", conforming code" } else { ", code" })?;
            f.write_str(if bits & AccessRights::ACCESSED != 0 { ", accessed" } else { ", not accessed" })?;
        } else {
            let bits = u32::from(kind);
            f.write_str(if bits & AccessRights::RW != 0 { "read/write" } else { "read-only" })?;
            f.write_str(if bits & AccessRights::DC != 0 { ", expand-down data" } else { ", data" })?;
            f.write_str(if bits & AccessRights::ACCESSED != 0 { ", accessed" } else { ", not accessed" })?;
        }
        write!(f, "), S {}, DPL {}", u8::from(self.has(Self::S)), self.dpl())?;
        for (bit, name) in [(Self::P, "P"), (Self::L, "L"), (Self::DB, "D/B"), (Self::G, "G")] {
            write!(f, ", {name} {}", u8::from(self.has(bit)))?;
        }
        if self.has(Self::UNUSABLE) {
            f.write_str(", unusable")?;
        }
        let reserved = self.0 & Self::RESERVED;
        if reserved != 0 { write!(f, ", reserved bits {reserved:#x}") } else { Ok(()) }
    }
}

/// The short name of an exception, `#PF`; interrupt vectors by number.
#[derive(Clone, Copy, Debug)]
pub struct Exception(pub u8);

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match Vector::from_number(self.0) {
            Some(Vector::DivideError) => "#DE",
            Some(Vector::Debug) => "#DB",
            Some(Vector::Nmi) => "NMI",
            Some(Vector::Breakpoint) => "#BP",
            Some(Vector::Overflow) => "#OF",
            Some(Vector::BoundRange) => "#BR",
            Some(Vector::InvalidOpcode) => "#UD",
            Some(Vector::DeviceNotAvailable) => "#NM",
            Some(Vector::DoubleFault) => "#DF",
            Some(Vector::InvalidTss) => "#TS",
            Some(Vector::SegmentNotPresent) => "#NP",
            Some(Vector::StackFault) => "#SS",
            Some(Vector::GeneralProtection) => "#GP",
            Some(Vector::PageFault) => "#PF",
            Some(Vector::X87FloatingPoint) => "#MF",
            Some(Vector::AlignmentCheck) => "#AC",
            Some(Vector::MachineCheck) => "#MC",
            Some(Vector::SimdFloatingPoint) => "#XM",
            Some(Vector::Virtualization) => "#VE",
            Some(Vector::ControlProtection) => "#CP",
            Some(Vector::CoprocessorSegmentOverrun) | None => return write!(f, "vector {:#04x}", self.0),
        };
        f.write_str(name)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == 0 && self.high == 0 {
            return f.write_str("all zero: not present");
        }
        let kind = if self.is_system() { system_type_name(self.gate_type()) } else { "no gate (S is 1)" };
        write!(f, "{kind}, P {}, DPL {}", u8::from(self.is_present()), self.dpl())?;
        if self.ist() != 0 {
            write!(f, ", IST {}", self.ist())?;
        }
        write!(f, ", to {:#x}:{:#x}", self.selector(), self.offset_64())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn access_rights_in_words() {
        let text = AccessRights(0xa09b).to_string();
        assert_eq!(text, "type 11 (execute/read, code, accessed), S 1, DPL 0, P 1, L 1, D/B 0, G 1");
        assert!(AccessRights(0x89).to_string().starts_with("type 9 (available TSS), S 0"));
        assert!(AccessRights(0x1_0000).to_string().ends_with(", unusable"));
        assert!(AccessRights(0x193).to_string().ends_with(", reserved bits 0x100"));
    }

    #[test]
    fn flags_tell_a_missing_bit_1() {
        assert_eq!(Flags(0x202).to_string(), "IF");
        assert_eq!(Flags(0x3000).to_string(), "none IOPL=3; bit 1 is 0");
    }

    #[test]
    fn bits_without_a_name_are_told_by_number() {
        assert_eq!(super::super::Cr0(0x8000_0081).symbols().to_string(), "PE PG bit 7");
        assert_eq!(super::super::Cr0(0).symbols().to_string(), "none");
    }

    #[test]
    fn msrs_by_name_range_or_number() {
        assert_eq!(Msr(0xc000_0080).to_string(), "EFER");
        assert_eq!(Msr(0x80b).to_string(), "x2APIC register 0xb0");
        assert_eq!(Msr(0x1234).to_string(), "MSR 0x1234");
    }
}
