//! How a case's VMCS differs from the valid one, as data.

use crate::trial::{APIC_ENABLE, X2APIC_ENABLE};
use bare::vmx::state::Word;
use bare::{cpu, memory, vmx};
use spec::vmx::ept::EptEntry;
use spec::vmx::{ExitControls, PrimaryControls, VmcsField as Field};
use spec::x86::msr;

/// Scratch pages that changes name by number. They are zero when a case begins.
pub const SCRATCH_PAGES: u64 = 8;

/// One difference.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// The field becomes this.
    Set(Field, u64),
    /// These bits become 1.
    Or(Field, u64),
    /// These bits become 0.
    Clear(Field, u64),
    /// The field becomes the address of a scratch page plus an offset.
    Page(Field, u64, u64),
    /// The field's lowest bit beyond the physical-address width becomes 1.
    BeyondWidth(Field),
    /// The lowest bit becomes 1 that the processor does not let be 1: a control word, CR0 or CR4.
    Unsupported(Field),
    /// The lowest bit of a control word becomes 0 that the processor wants to be 1.
    Required(Field),
    /// The field becomes one more than the number of CR3-target values that the processor has, or that number.
    Cr3Targets(u64),
    /// 8 bytes of a scratch page: page, offset, value.
    Memory(u64, u64, u64),
    /// A scratch page begins with the revision identifier, some bits of it changed.
    Revision(u64, u32),
    /// An entry of an MSR area in a scratch page: page, index, the MSR with what is above it, value.
    Msr(u64, u64, u64, u64),
    /// The field becomes the pointer of the current VMCS.
    CurrentVmcs(Field),
    /// The local APIC is in x2APIC mode.
    X2apic,
    /// The EPT entry of the 2 MiB at [`HOLE`] becomes this, with the physical address of the scratch pages' 2 MiB. Before, it maps
    /// them with every permission.
    Hole(u64),
    /// The 2 MiB at [`HOLE`] become 4 KiB pages of a table in a scratch page, all without access but for one scratch page, whose entry has
    /// these permissions and flags: table, page, flags.
    HoleTable(u64, u64, u64),
    /// A general register of the guest: its number, and its value.
    Register(usize, u64),
    /// A general register of the guest becomes the address of a scratch page plus an offset.
    RegisterPage(usize, u64, u64),
    /// A general register of the guest becomes the address in the hole where a scratch page is, plus an offset.
    RegisterHole(usize, u64, u64),
    /// The lowest bit of IA32_XSS that the processor has becomes 1.
    Xss,
    /// The guest's page tables, in scratch pages 5 to 7, map [`HOLE`] as shadow-stack memory of supervisor mode.
    ShadowHole,
    /// Nothing; but the case needs these bits of IA32_VMX_EPT_VPID_CAP.
    EptVpid(u64, &'static str),
    /// Nothing; but the case needs a feature: CPUID leaf, subleaf, register (0 EAX to 3 EDX), bit, name.
    Feature(u32, u32, usize, u32, &'static str),
}

/// A guest-physical address that EPT maps to the 2 MiB in which the scratch pages are.
pub const HOLE: u64 = 0x3000_0000;

/// Where changes are made.
#[derive(Debug)]
pub struct Places<'a> {
    /// The first scratch page.
    pub scratch: u64,
    /// EPT's page directory of the first GiB.
    pub ept_directory: u64,
    /// The guest's general registers.
    pub registers: &'a mut [u64; 16],
}

impl Places<'_> {
    /// Sets the EPT entry at [`HOLE`]: permissions and flags.
    pub fn set_hole(&self, flags: u64) {
        memory::write(self.ept_directory + 8 * (HOLE >> 21), (self.scratch & !0x1f_ffff) | flags);
    }

    /// The address in the hole of a scratch page.
    #[must_use]
    pub fn in_hole(&self, page: u64) -> u64 {
        HOLE + (scratch(self.scratch, page) & 0x1f_ffff)
    }
}

/// Why a change cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The processor does not announce this.
    Missing(&'static str),
    /// VMWRITE of the field failed.
    NoField(Field),
    /// There is no bit of the kind.
    NoBit(Field),
}

impl core::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Obstacle::Missing(what) => write!(f, "not announced: {what}"),
            Obstacle::NoField(field) => write!(f, "VMWRITE of {field:?} fails"),
            Obstacle::NoBit(field) => write!(f, "no such bit in {field:?}"),
        }
    }
}

/// The address of a scratch page.
#[must_use]
pub fn scratch(first: u64, page: u64) -> u64 {
    assert!(page < SCRATCH_PAGES, "a scratch page that is there");
    first + memory::PAGE * page
}

/// The bits that must be 1 and those that may be 1 in a field that has such.
fn limits(field: Field) -> Option<(u64, u64)> {
    let read = |number| cpu::read_msr(number).unwrap_or(0);
    Some(match field {
        Field::GUEST_CR0 | Field::HOST_CR0 => (read(msr::VMX_CR0_FIXED0), read(msr::VMX_CR0_FIXED1)),
        Field::GUEST_CR4 | Field::HOST_CR4 => (read(msr::VMX_CR4_FIXED0), read(msr::VMX_CR4_FIXED1)),
        _ => Word::of(field)?.limits(),
    })
}

fn enable_x2apic() -> Result<(), Obstacle> {
    let base = cpu::read_msr(msr::APIC_BASE).unwrap_or(0);
    cpu::write_msr(msr::APIC_BASE, base | APIC_ENABLE | X2APIC_ENABLE).map_err(|_| Obstacle::Missing("x2APIC mode"))
}

/// Sets the control that brings a word of controls into force, if it has one.
fn activate(field: Field) -> Result<(), Obstacle> {
    let (field, bit) = match field {
        Field::SECONDARY_CONTROLS => (Field::PRIMARY_CONTROLS, PrimaryControls::ACTIVATE_SECONDARY_CONTROLS),
        Field::TERTIARY_CONTROLS => (Field::PRIMARY_CONTROLS, PrimaryControls::ACTIVATE_TERTIARY_CONTROLS),
        Field::SECONDARY_EXIT_CONTROLS => (Field::EXIT_CONTROLS, ExitControls::ACTIVATE_SECONDARY_CONTROLS),
        _ => return Ok(()),
    };
    if vmx::write(field, vmx::read(field) | u64::from(bit)) { Ok(()) } else { Err(Obstacle::NoField(field)) }
}

/// The name of the lowest bit of `bits` in control word `word`.
#[must_use]
pub fn control_name(word: Word, bits: u64) -> &'static str {
    crate::controls::names(word).find(|(bit, _)| bits & bit != 0).map_or("a reserved bit", |(_, name)| name)
}

impl Change {
    /// Makes the change to the current VMCS, or where `places` say.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn apply(self, places: &mut Places<'_>) -> Result<(), Obstacle> {
        let first = places.scratch;
        let page = |page| scratch(first, page);
        let read = |field| bare::vmx::instructions::vmread(field).map_err(|_| Obstacle::NoField(field));
        let write = |field, value| if vmx::write(field, value) { Ok(()) } else { Err(Obstacle::NoField(field)) };
        match self {
            Change::Set(field, value) => write(field, value),
            Change::Or(field, bits) => {
                // A control that the processor does not let be 1 is a case for other processors.
                if let Some(word) = Word::of(field) {
                    let missing = bits & !word.limits().1;
                    if missing != 0 {
                        return Err(Obstacle::Missing(control_name(word, missing)));
                    }
                }
                if let (None, Some((_, allowed))) = (Word::of(field), limits(field))
                    && bits & !allowed != 0
                {
                    return Err(Obstacle::Missing("a bit of CR0 or CR4"));
                }
                activate(field)?;
                write(field, read(field)? | bits)
            }
            Change::Clear(field, bits) => {
                if let Some(word) = Word::of(field) {
                    let fixed = bits & word.limits().0;
                    if fixed != 0 {
                        return Err(Obstacle::Missing("a control that may be 0"));
                    }
                }
                write(field, read(field)? & !bits)
            }
            Change::Page(field, n, offset) => write(field, page(n) + offset),
            Change::BeyondWidth(field) => write(field, read(field)? | 1 << cpu::physical_bits()),
            Change::Unsupported(field) => {
                let allowed = limits(field).map_or(u64::MAX, |(_, allowed)| allowed);
                let width = if field.0 >> 13 & 3 == 2 { 32 } else { 64 };
                let bit = (!allowed).trailing_zeros();
                if bit >= width { Err(Obstacle::NoBit(field)) } else { write(field, read(field)? | 1 << bit) }
            }
            Change::Required(field) => {
                let required = limits(field).map_or(0, |(required, _)| required);
                if required == 0 {
                    return Err(Obstacle::NoBit(field));
                }
                write(field, read(field)? & !(required & required.wrapping_neg()))
            }
            Change::Cr3Targets(more) => {
                let misc = cpu::read_msr(msr::VMX_MISC).unwrap_or(0);
                write(Field::CR3_TARGET_COUNT, (misc >> 16 & 0x1ff) + more)
            }
            Change::Memory(n, offset, value) => {
                memory::write(page(n) + offset, value);
                Ok(())
            }
            Change::Revision(n, xor) => {
                memory::write32(page(n), vmx::revision() ^ xor);
                Ok(())
            }
            Change::Msr(n, index, number, value) => {
                memory::write(page(n) + 16 * index, number);
                memory::write(page(n) + 16 * index + 8, value);
                Ok(())
            }
            Change::X2apic => enable_x2apic(),
            Change::Hole(flags) => {
                places.set_hole(flags);
                Ok(())
            }
            Change::HoleTable(table, n, flags) => {
                memory::write(page(table) + (page(n) >> 12 & 0x1ff) * 8, page(n) | flags);
                memory::write(places.ept_directory + 8 * (HOLE >> 21), page(table) | EptEntry::PERMISSIONS);
                Ok(())
            }
            Change::Register(number, value) => {
                places.registers[number] = value;
                Ok(())
            }
            Change::RegisterPage(number, n, offset) => {
                places.registers[number] = page(n) + offset;
                Ok(())
            }
            Change::RegisterHole(number, n, offset) => {
                places.registers[number] = places.in_hole(n) + offset;
                Ok(())
            }
            Change::Xss => {
                let [_, _, supported, _] = cpu::cpuid(0xd, 1);
                let bit = u64::from(supported & supported.wrapping_neg());
                if bit != 0 && cpu::write_msr(msr::XSS, bit).is_ok() {
                    Ok(())
                } else {
                    Err(Obstacle::Missing("a component of IA32_XSS"))
                }
            }
            Change::ShadowHole => {
                for table in 0..3 {
                    memory::copy_code(page(5 + table), vmx::page_tables() + memory::PAGE * table, memory::PAGE);
                }
                memory::write(page(5), page(6) | 7);
                memory::write(page(6), page(7) | 7);
                // Present, read-only, accessed, dirty, 2 MiB.
                memory::write(page(7) + 8 * (HOLE >> 21), HOLE | 0xe1);
                write(Field::GUEST_CR3, page(5))
            }
            Change::EptVpid(bits, name) => {
                let has = cpu::read_msr(msr::VMX_EPT_VPID_CAP).unwrap_or(0) & bits == bits;
                if has { Ok(()) } else { Err(Obstacle::Missing(name)) }
            }
            Change::Feature(leaf, subleaf, register, bit, name) => {
                let has = cpu::cpuid(0, 0)[0] >= leaf & 0xffff && cpu::cpuid(leaf, subleaf)[register] >> bit & 1 != 0;
                if has { Ok(()) } else { Err(Obstacle::Missing(name)) }
            }
            Change::CurrentVmcs(field) => write(field, vmx::instructions::current_vmcs()),
        }
    }
}
