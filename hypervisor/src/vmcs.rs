//! The VMCS as a typed thing: each field is read and written with its own type.

use core::marker::PhantomData;
use spec::vmx::{ActivityState, Interruptibility, InterruptionInfo, VmcsField};
use spec::vmx::{EntryControls, PinBasedControls, PrimaryControls, SecondaryControls};
use spec::x86::{Cr0, Cr4, Efer, Rflags};

/// The current VMCS, by VMREAD and VMWRITE.
pub trait Vmcs {
    /// Reads a field that exists.
    fn read(&self, field: VmcsField) -> u64;
    /// Writes a field that exists.
    fn write(&mut self, field: VmcsField, value: u64);
}

/// What a field can hold.
pub trait Value {
    /// From the field's bits.
    fn from_bits(bits: u64) -> Self;
    /// The field's bits.
    fn bits(self) -> u64;
}

/// A field with its type.
#[derive(Debug)]
pub struct Field<T>(VmcsField, PhantomData<fn() -> T>);

impl<T> Clone for Field<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> Field<T> {
    const fn new(field: VmcsField) -> Self {
        Self(field, PhantomData)
    }
}

impl dyn Vmcs + '_ {
    /// Reads a field.
    #[must_use]
    pub fn get<T: Value>(&self, field: Field<T>) -> T {
        T::from_bits(self.read(field.0))
    }

    /// Writes a field.
    pub fn set<T: Value>(&mut self, field: Field<T>, value: T) {
        self.write(field.0, value.bits());
    }

    /// Changes a field.
    pub fn update<T: Value>(&mut self, field: Field<T>, change: impl FnOnce(T) -> T) {
        let value = change(self.get(field));
        self.set(field, value);
    }
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Value for $type {
            fn from_bits(bits: u64) -> Self {
                bits as $type
            }
            fn bits(self) -> u64 {
                u64::from(self)
            }
        })*
    };
}

macro_rules! registers {
    ($($type:ident)*) => {
        $(impl Value for $type {
            fn from_bits(bits: u64) -> Self {
                $type(bits as _)
            }
            fn bits(self) -> u64 {
                self.0 as u64
            }
        })*
    };
}

integers!(u16 u32 u64);
registers!(Cr0 Cr4 Efer Rflags InterruptionInfo Interruptibility);
registers!(EntryControls PinBasedControls PrimaryControls SecondaryControls);

impl Value for ActivityState {
    fn from_bits(bits: u64) -> Self {
        ActivityState::from_number(bits as u32).unwrap_or(ActivityState::Active)
    }
    fn bits(self) -> u64 {
        self as u64
    }
}

/// The guest's interrupt status: RVI and SVI (SDM Vol. 3C, 25.4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterruptStatus {
    /// The highest requested virtual interrupt, 0 for none.
    pub requesting: u8,
    /// The highest virtual interrupt in service, 0 for none.
    pub servicing: u8,
}

impl Value for InterruptStatus {
    fn from_bits(bits: u64) -> Self {
        Self { requesting: bits as u8, servicing: (bits >> 8) as u8 }
    }
    fn bits(self) -> u64 {
        u64::from(self.requesting) | u64::from(self.servicing) << 8
    }
}

macro_rules! fields {
    ($($name:ident: $type:ty;)*) => {
        $(
            #[doc = concat!("[`VmcsField::", stringify!($name), "`].")]
            pub const $name: Field<$type> = Field::new(VmcsField::$name);
        )*
    };
}

/// The fields in use here.
pub mod field {
    use super::*;

    fields! {
        PIN_BASED_CONTROLS: PinBasedControls;
        PRIMARY_CONTROLS: PrimaryControls;
        SECONDARY_CONTROLS: SecondaryControls;
        ENTRY_CONTROLS: EntryControls;
        EXIT_CONTROLS: u32;
        EXCEPTION_BITMAP: u32;
        VPID: u16;
        POSTED_INTERRUPT_NOTIFICATION_VECTOR: u16;
        POSTED_INTERRUPT_DESCRIPTOR: u64;
        EPT_POINTER: u64;
        MSR_BITMAPS: u64;
        VIRTUAL_APIC_ADDRESS: u64;
        APIC_ACCESS_ADDRESS: u64;
        EOI_EXIT_BITMAP_0: u64;
        EOI_EXIT_BITMAP_1: u64;
        EOI_EXIT_BITMAP_2: u64;
        EOI_EXIT_BITMAP_3: u64;
        TPR_THRESHOLD: u32;
        PREEMPTION_TIMER: u32;
        VMCS_LINK_POINTER: u64;
        CR0_MASK: Cr0;
        CR4_MASK: Cr4;
        CR0_READ_SHADOW: Cr0;
        CR4_READ_SHADOW: Cr4;
        ENTRY_INTERRUPTION_INFO: InterruptionInfo;
        ENTRY_EXCEPTION_ERROR_CODE: u32;
        ENTRY_INSTRUCTION_LENGTH: u32;
        EXIT_REASON: u32;
        EXIT_QUALIFICATION: u64;
        EXIT_INSTRUCTION_LENGTH: u32;
        EXIT_INTERRUPTION_INFO: InterruptionInfo;
        IDT_VECTORING_INFO: InterruptionInfo;
        IDT_VECTORING_ERROR_CODE: u32;
        GUEST_PHYSICAL_ADDRESS: u64;
        GUEST_LINEAR_ADDRESS: u64;
        GUEST_CR0: Cr0;
        GUEST_CR3: u64;
        GUEST_CR4: Cr4;
        GUEST_EFER: Efer;
        GUEST_PAT: u64;
        GUEST_RIP: u64;
        GUEST_RSP: u64;
        GUEST_RFLAGS: Rflags;
        GUEST_DR7: u64;
        GUEST_INTERRUPTIBILITY: Interruptibility;
        GUEST_ACTIVITY_STATE: ActivityState;
        GUEST_INTERRUPT_STATUS: InterruptStatus;
        GUEST_CS_SELECTOR: u16;
        GUEST_CS_BASE: u64;
        GUEST_CS_ACCESS_RIGHTS: u32;
        GUEST_GDTR_BASE: u64;
        GUEST_GDTR_LIMIT: u32;
        GUEST_IDTR_BASE: u64;
        GUEST_IDTR_LIMIT: u32;
        GUEST_PDPTE0: u64;
        GUEST_PDPTE1: u64;
        GUEST_PDPTE2: u64;
        GUEST_PDPTE3: u64;
    }
}

/// A segment register of the guest, in the order of the VMCS's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Segment {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// LDTR.
    Ldtr,
    /// TR.
    Tr,
}

/// What a segment register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentValue {
    /// The selector.
    pub selector: u16,
    /// The base.
    pub base: u64,
    /// The limit.
    pub limit: u32,
    /// The access rights (SDM Vol. 3C, table 25-2).
    pub rights: u32,
}

impl Segment {
    /// Every segment register.
    pub const ALL: [Segment; 8] =
        [Segment::Es, Segment::Cs, Segment::Ss, Segment::Ds, Segment::Fs, Segment::Gs, Segment::Ldtr, Segment::Tr];

    /// The base of the guest's register.
    #[must_use]
    pub fn base(self, vmcs: &dyn Vmcs) -> u64 {
        vmcs.read(VmcsField(VmcsField::GUEST_ES_BASE.0 + 2 * self as u32))
    }

    /// Writes the guest's register.
    pub fn set(self, vmcs: &mut dyn Vmcs, value: SegmentValue) {
        let nth = |first: VmcsField| VmcsField(first.0 + 2 * self as u32);
        vmcs.write(nth(VmcsField::GUEST_ES_SELECTOR), value.selector.into());
        vmcs.write(nth(VmcsField::GUEST_ES_BASE), value.base);
        vmcs.write(nth(VmcsField::GUEST_ES_LIMIT), value.limit.into());
        vmcs.write(nth(VmcsField::GUEST_ES_ACCESS_RIGHTS), value.rights.into());
    }
}
