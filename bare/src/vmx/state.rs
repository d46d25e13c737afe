//! A VMCS that passes every check: the host is this program, the guest is like it.

use super::{host_rip, page_tables, write};
use crate::boot::{self, selector};
use crate::{cpu, exceptions};
use spec::vmx::capability::{ControlCapability, basic};
use spec::vmx::{EntryControls, ExitControls, VmcsField as Field};
use spec::x86::msr;

/// The control words with capability MSRs of 32 and 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Pin-based VM-execution controls.
    Pin,
    /// Primary processor-based VM-execution controls.
    Primary,
    /// Secondary processor-based VM-execution controls.
    Secondary,
    /// Tertiary processor-based VM-execution controls.
    Tertiary,
    /// Primary VM-exit controls.
    Exit,
    /// Secondary VM-exit controls.
    SecondaryExit,
    /// VM-entry controls.
    Entry,
}

impl Word {
    /// Every word.
    pub const ALL: [Word; 7] =
        [Word::Pin, Word::Primary, Word::Secondary, Word::Tertiary, Word::Exit, Word::SecondaryExit, Word::Entry];

    /// The field.
    #[must_use]
    pub const fn field(self) -> Field {
        match self {
            Word::Pin => Field::PIN_BASED_CONTROLS,
            Word::Primary => Field::PRIMARY_CONTROLS,
            Word::Secondary => Field::SECONDARY_CONTROLS,
            Word::Tertiary => Field::TERTIARY_CONTROLS,
            Word::Exit => Field::EXIT_CONTROLS,
            Word::SecondaryExit => Field::SECONDARY_EXIT_CONTROLS,
            Word::Entry => Field::ENTRY_CONTROLS,
        }
    }

    /// The word whose field this is.
    #[must_use]
    pub fn of(field: Field) -> Option<Word> {
        Word::ALL.into_iter().find(|word| word.field() == field)
    }

    /// The bits that must be 1 and those that may be 1; none where the word does not exist.
    #[must_use]
    pub fn limits(self) -> (u64, u64) {
        use spec::vmx::{PrimaryControls as Primary, VmcsField};
        let read = |number| cpu::read_msr(number).unwrap_or(0);
        let has_true = read(msr::VMX_BASIC) & basic::TRUE_CONTROLS != 0;
        let allows = |word: Word, bit: u32| word.limits().1 & u64::from(bit) != 0;
        let number = match self {
            Word::Pin if has_true => msr::VMX_TRUE_PINBASED_CTLS,
            Word::Pin => msr::VMX_PINBASED_CTLS,
            Word::Primary if has_true => msr::VMX_TRUE_PROCBASED_CTLS,
            Word::Primary => msr::VMX_PROCBASED_CTLS,
            Word::Exit if has_true => msr::VMX_TRUE_EXIT_CTLS,
            Word::Exit => msr::VMX_EXIT_CTLS,
            Word::Entry if has_true => msr::VMX_TRUE_ENTRY_CTLS,
            Word::Entry => msr::VMX_ENTRY_CTLS,
            Word::Secondary if allows(Word::Primary, Primary::ACTIVATE_SECONDARY_CONTROLS) => msr::VMX_PROCBASED_CTLS2,
            Word::Tertiary if allows(Word::Primary, Primary::ACTIVATE_TERTIARY_CONTROLS) => {
                return (0, read(msr::VMX_PROCBASED_CTLS3));
            }
            Word::SecondaryExit if allows(Word::Exit, ExitControls::ACTIVATE_SECONDARY_CONTROLS) => {
                return (0, read(msr::VMX_EXIT_CTLS2));
            }
            Word::Secondary | Word::Tertiary | Word::SecondaryExit => return (0, 0),
        };
        let _: VmcsField = self.field();
        let capability = ControlCapability::from_msr(read(number));
        (u64::from(capability.required), u64::from(capability.allowed))
    }
}

/// Access rights of a flat 64-bit code segment at DPL 0.
pub const CODE64: u64 = 0xa09b;
/// Access rights of a flat 32-bit code segment at DPL 0.
pub const CODE32: u64 = 0xc09b;
/// Access rights of a flat data segment at DPL 0.
pub const DATA: u64 = 0xc093;
/// Access rights of a busy TSS.
pub const TSS: u64 = 0x8b;
/// Access rights of an unusable segment.
pub const UNUSABLE: u64 = 1 << 16;

/// The field `n` places after `first`: segment registers in the order ES, CS, SS, DS, FS, GS, LDTR, TR.
#[must_use]
pub const fn nth(first: Field, n: u32) -> Field {
    Field(first.0 + 2 * n)
}

/// Writes all of the current VMCS: the controls are those that the processor requires and what a 64-bit host with a 64-bit guest needs,
/// no event is injected, and the guest is at `rip` with its stack at `rsp`.
pub fn write_valid(rip: u64, rsp: u64) {
    write_controls();
    write_host();
    write_guest(rip, rsp);
}

/// The controls.
fn write_controls() {
    for word in Word::ALL {
        let bits = match word {
            Word::Exit => u64::from(ExitControls::HOST_ADDRESS_SPACE_SIZE),
            Word::Entry => u64::from(EntryControls::IA32E_MODE_GUEST),
            _ => 0,
        };
        write(word.field(), word.limits().0 | bits);
    }
    // Every other control field is 0; those that do not exist are not written.
    for (field, _) in Field::ALL {
        if field.field_type() == spec::vmx::FieldType::Control && Word::of(*field).is_none() {
            write(*field, 0);
        }
    }
}

/// The host-state area: this program as it is now.
fn write_host() {
    write(Field::HOST_CR0, cpu::read_cr0());
    write(Field::HOST_CR3, cpu::read_cr3());
    write(Field::HOST_CR4, cpu::read_cr4());
    for n in 0..6 {
        let value = if n == 1 {
            selector::CODE
        } else if n < 4 {
            selector::DATA
        } else {
            0
        };
        write(nth(Field::HOST_ES_SELECTOR, n), u64::from(value));
    }
    write(Field::HOST_TR_SELECTOR, u64::from(selector::TSS));
    write(Field::HOST_FS_BASE, 0);
    write(Field::HOST_GS_BASE, 0);
    write(Field::HOST_TR_BASE, boot::tss());
    write(Field::HOST_GDTR_BASE, boot::gdt());
    write(Field::HOST_IDTR_BASE, exceptions::idt());
    for field in [Field::HOST_SYSENTER_CS, Field::HOST_SYSENTER_ESP, Field::HOST_SYSENTER_EIP] {
        write(field, 0);
    }
    write(Field::HOST_EFER, cpu::read_msr(msr::EFER).unwrap_or(0));
    write(Field::HOST_PAT, cpu::read_msr(msr::PAT).unwrap_or(0));
    write(Field::HOST_RSP, HOST_RSP);
    write(Field::HOST_RIP, host_rip());
    for field in [Field::HOST_PERF_GLOBAL_CTRL, Field::HOST_PKRS, Field::HOST_S_CET, Field::HOST_SSP] {
        write(field, 0);
    }
    write(Field::HOST_INTERRUPT_SSP_TABLE, 0);
}

/// The host's RSP in the VMCS. The stub that an exit leads to notes it and takes the stack that it had.
pub const HOST_RSP: u64 = 0x1234_5678_9ab0;

/// The guest-state area: a 64-bit guest with the host's page tables and GDT and an IDT whose handlers are VMCALL.
fn write_guest(rip: u64, rsp: u64) {
    for (field, _) in Field::ALL {
        if field.field_type() == spec::vmx::FieldType::GuestState {
            write(*field, 0);
        }
    }
    write(Field::VMCS_LINK_POINTER, u64::MAX);
    write(Field::GUEST_CR0, cpu::read_cr0());
    write(Field::GUEST_CR3, page_tables());
    write(Field::GUEST_CR4, cpu::read_cr4());
    for n in 0..6 {
        let (value, rights) = if n == 1 { (selector::CODE, CODE64) } else { (selector::DATA, DATA) };
        write(nth(Field::GUEST_ES_SELECTOR, n), u64::from(value));
        write(nth(Field::GUEST_ES_LIMIT, n), 0xffff_ffff);
        write(nth(Field::GUEST_ES_ACCESS_RIGHTS, n), rights);
    }
    write(Field::GUEST_LDTR_ACCESS_RIGHTS, UNUSABLE);
    write(Field::GUEST_TR_SELECTOR, u64::from(selector::TSS));
    write(Field::GUEST_TR_BASE, boot::tss());
    write(Field::GUEST_TR_LIMIT, 0x67);
    write(Field::GUEST_TR_ACCESS_RIGHTS, TSS);
    write(Field::GUEST_GDTR_BASE, boot::gdt());
    write(Field::GUEST_GDTR_LIMIT, u64::from(boot::GDT_LIMIT));
    write(Field::GUEST_IDTR_BASE, exceptions::guest_idt());
    write(Field::GUEST_IDTR_LIMIT, 0xfff);
    write(Field::GUEST_DR7, 0x400);
    write(Field::GUEST_RSP, rsp);
    write(Field::GUEST_RIP, rip);
    write(Field::GUEST_RFLAGS, 2);
    write(Field::GUEST_EFER, cpu::read_msr(msr::EFER).unwrap_or(0));
    write(Field::GUEST_PAT, cpu::read_msr(msr::PAT).unwrap_or(0));
}
