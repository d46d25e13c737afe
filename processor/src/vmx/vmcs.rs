//! The VMCS: its fields while it is current, and its form in the VMCS region (SDM Vol. 3C, chapter 25).
//!
//! The architecture leaves the format of the region's data to the implementation. Ours: bytes 0 and 4 the revision identifier and
//! the VMX-abort indicator as the manual says, then the launch state, then each field of [`VmcsField::ALL`] as a quadword.
//! A VMCS is read into [`Vmcs`] by VMPTRLD and written back when another takes its place or VMCLEAR is executed, which is what the
//! architecture allows a processor to do; software that looks at the region of an active VMCS sees old values.

use spec::vmx::{VmcsField, Width};

/// The pointer's value when there is no current VMCS.
pub const NO_POINTER: u64 = u64::MAX;
/// The revision identifier, IA32_VMX_BASIC bits 30:0.
pub const REVISION: u32 = 0x5650_0001;
/// Offset of the VMX-abort indicator.
pub const ABORT_OFFSET: u64 = 4;
/// Offset of the launch state: 0 clear, 1 launched.
pub const LAUNCH_STATE_OFFSET: u64 = 8;
/// Offset of the first field.
pub const FIELDS_OFFSET: u64 = 64;
/// Bit 31 of a region's first four bytes: it is a shadow VMCS.
pub const SHADOW: u32 = 1 << 31;
/// Bytes in a VMCS or VMXON region.
pub const REGION_SIZE: u64 = 4096;

const _: () = assert!(FIELDS_OFFSET + 8 * VmcsField::ALL.len() as u64 <= REGION_SIZE);

/// Slots in which a [`Vmcs`] holds its fields.
pub const SLOTS: usize = 1024;

/// The slot of the field with this encoding, full or high; `None` for encodings with reserved bits or an index above 63, which no field has.
#[inline]
#[must_use]
pub const fn slot_of(field: VmcsField) -> Option<usize> {
    if field.0 & 0xffff_9380 == 0 { Some(slot(field)) } else { None }
}

/// The slot of a field: its width, type and the low 6 bits of its index.
#[inline(always)]
const fn slot(field: VmcsField) -> usize {
    ((field.0 >> 13 & 3) << 8 | (field.0 >> 10 & 3) << 6 | field.0 >> 1 & 0x3f) as usize
}

/// The places of the fields, by slot, in a VMCS region; 0 for slots without a field.
const OFFSETS: [u16; SLOTS] = {
    let mut offsets = [0; SLOTS];
    let mut n = 0;
    while n < VmcsField::ALL.len() {
        offsets[slot(VmcsField::ALL[n].0)] = FIELDS_OFFSET as u16 + 8 * n as u16;
        n += 1;
    }
    offsets
};

/// Where the region holds a field that exists, given by its full encoding.
#[inline]
#[must_use]
pub const fn offset_of(field: VmcsField) -> u64 {
    OFFSETS[slot(field)] as u64
}

/// A VMCS as the processor holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmcs {
    /// Physical address of the region, or [`NO_POINTER`].
    pub pointer: u64,
    /// VMLAUNCH has succeeded since VMCLEAR.
    pub launched: bool,
    /// It is a shadow VMCS, with which VM entries fail.
    pub shadow: bool,
    fields: Box<[u64; SLOTS]>,
}

impl Default for Vmcs {
    fn default() -> Self {
        Self { pointer: NO_POINTER, launched: false, shadow: false, fields: Box::new([0; SLOTS]) }
    }
}

impl Vmcs {
    /// The value of a field, given by its full encoding.
    #[inline(always)]
    #[must_use]
    pub const fn get(&self, field: VmcsField) -> u64 {
        self.fields[slot(field)]
    }

    /// Sets a field. The value must fit the field's width.
    #[inline(always)]
    pub const fn set(&mut self, field: VmcsField, value: u64) {
        self.fields[slot(field)] = value;
    }

    /// The value of a 32-bit or 16-bit field.
    #[inline(always)]
    #[must_use]
    pub const fn get32(&self, field: VmcsField) -> u32 {
        self.get(field) as u32
    }

    /// Whether a VMCS is current.
    #[inline]
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.pointer != NO_POINTER
    }

    /// The fields in the order of [`VmcsField::ALL`], as they stand in the region.
    pub fn values(&self) -> impl Iterator<Item = u64> + '_ {
        VmcsField::ALL.iter().map(|(field, _)| self.get(*field))
    }

    /// Takes the fields in the order of [`VmcsField::ALL`]; values are cut to their fields' widths.
    pub fn take_values(&mut self, mut next: impl FnMut() -> u64) {
        for (field, _) in VmcsField::ALL {
            self.set(*field, cut(*field, next()));
        }
    }
}

/// `value` cut to the width of `field`.
#[must_use]
pub const fn cut(field: VmcsField, value: u64) -> u64 {
    match field.width() {
        Width::Bits16 => value & 0xffff,
        Width::Bits32 => value & 0xffff_ffff,
        Width::Bits64 | Width::Natural => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_own_slot() {
        let mut vmcs = Vmcs::default();
        for (n, (field, _)) in VmcsField::ALL.iter().enumerate() {
            vmcs.set(*field, n as u64 + 1);
        }
        assert!(vmcs.values().eq(1..=VmcsField::ALL.len() as u64));
    }

    #[test]
    fn values_read_from_a_region_are_cut_to_the_fields_widths() {
        let mut vmcs = Vmcs::default();
        vmcs.take_values(|| u64::MAX);
        assert_eq!(vmcs.get(VmcsField::VPID), 0xffff);
        assert_eq!(vmcs.get(VmcsField::PIN_BASED_CONTROLS), 0xffff_ffff);
        assert_eq!(vmcs.get(VmcsField::GUEST_RIP), u64::MAX);
    }
}
