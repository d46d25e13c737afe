//! From a guest's linear address to its physical one, by its own page tables (SDM Vol. 3A, chapter 4): for the operands and instructions
//! that the hypervisor has to look at. The access itself was allowed, or there would have been a fault.

use crate::memory::{GuestMemory, PAGE};
use crate::vmcs::{Vmcs, field};
use core::ops::Range;
use spec::x86::{Cr0, Cr4, Efer};

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The guest-physical address, if the page is mapped.
#[must_use]
pub fn translate(vmcs: &dyn Vmcs, memory: &dyn GuestMemory, linear: u64) -> Option<u64> {
    let (cr0, cr4) = (vmcs.get(field::GUEST_CR0), vmcs.get(field::GUEST_CR4));
    let cr3 = vmcs.get(field::GUEST_CR3);
    if !cr0.has(Cr0::PG) || cr3 == crate::vcpu::modes::IDENTITY {
        Some(linear)
    } else if vmcs.get(field::GUEST_EFER).has(Efer::LMA) {
        walk(memory, cr3 & ADDRESS, linear, 4, 8)
    } else if cr4.has(Cr4::PAE) {
        let entry = memory.read_number((cr3 & 0xffff_ffe0) + 8 * (linear >> 30 & 3), 8).ok()?;
        if entry & PRESENT == 0 { None } else { walk(memory, entry & ADDRESS, linear & 0x3fff_ffff, 2, 8) }
    } else {
        walk(memory, cr3 & 0xffff_f000, linear & 0xffff_ffff, 2, 4)
    }
}

/// Walks `levels` tables of entries of `size` bytes.
fn walk(memory: &dyn GuestMemory, mut table: u64, linear: u64, levels: u32, size: u64) -> Option<u64> {
    let bits = if size == 8 { 9 } else { 10 };
    for level in (0..levels).rev() {
        let shift = 12 + bits * level;
        let index = linear >> shift & ((1 << bits) - 1);
        let entry = memory.read_number(table + size * index, size as usize).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        let low = (1u64 << shift) - 1;
        let address = entry & ADDRESS;
        if level == 0 || entry & LARGE != 0 && level < 3 {
            return Some(address & !low | linear & low);
        }
        table = address;
    }
    None
}

/// Calls `access` with the guest-physical address and the place in the buffer of each part of `length` bytes at `linear` that is in one
/// page; false as soon as a page is not mapped or `access` says so.
fn by_pages(
    vmcs: &dyn Vmcs,
    memory: &dyn GuestMemory,
    linear: u64,
    length: usize,
    mut access: impl FnMut(u64, Range<usize>) -> bool,
) -> bool {
    let mut done = 0;
    while done < length {
        let at = linear.wrapping_add(done as u64);
        let part = (length - done).min((PAGE - at % PAGE) as usize);
        if !translate(vmcs, memory, at).is_some_and(|physical| access(physical, done..done + part)) {
            return false;
        }
        done += part;
    }
    true
}

/// Reads guest memory at a linear address, over page boundaries; false when not all of it is mapped.
pub fn read(vmcs: &dyn Vmcs, memory: &dyn GuestMemory, linear: u64, buffer: &mut [u8]) -> bool {
    by_pages(vmcs, memory, linear, buffer.len(), |at, part| memory.read(at, &mut buffer[part]).is_ok())
}

/// Writes guest memory at a linear address; false when not all of it is mapped.
pub fn write(vmcs: &dyn Vmcs, memory: &dyn GuestMemory, linear: u64, data: &[u8]) -> bool {
    by_pages(vmcs, memory, linear, data.len(), |at, part| memory.write(at, &data[part]).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pages;
    use crate::testing::{TestPages, TestVmcs};

    fn put(memory: &dyn GuestMemory, at: u64, value: u64, size: usize) {
        memory.write(at, &value.to_le_bytes()[..size]).unwrap();
    }

    #[test]
    fn each_kind_of_paging_is_walked() {
        let memory = TestPages.guest_memory(2 << 20).unwrap();
        let mut vmcs = TestVmcs::default();
        let at = |vmcs: &TestVmcs, linear| translate(vmcs, &*memory, linear);
        assert_eq!(at(&vmcs, 0x1234), Some(0x1234));
        let set = |vmcs: &mut TestVmcs, cr4, efer| {
            let vmcs: &mut dyn Vmcs = vmcs;
            vmcs.set(field::GUEST_CR0, Cr0(Cr0::PG | Cr0::PE));
            vmcs.set(field::GUEST_CR4, Cr4(cr4));
            vmcs.set(field::GUEST_EFER, Efer(efer));
            vmcs.set(field::GUEST_CR3, 0x1000);
        };
        // 32-bit: a table, and a page of 4 MiB.
        put(&*memory, 0x1004, 0x2001, 4);
        put(&*memory, 0x2008, 0x5001, 4);
        put(&*memory, 0x1008, 0x0080_0081, 4);
        set(&mut vmcs, Cr4::PSE, 0);
        assert_eq!(at(&vmcs, 0x40_2345), Some(0x5345));
        assert_eq!(at(&vmcs, 0x81_2345), Some(0x81_2345));
        assert_eq!(at(&vmcs, 0x40_1000), None);
        // 4 levels: a page of 2 MiB.
        memory.clear();
        put(&*memory, 0x1000, 0x2003, 8);
        put(&*memory, 0x2000, 0x3003, 8);
        put(&*memory, 0x3008, 0x0060_0083, 8);
        set(&mut vmcs, Cr4::PAE, Efer::LME | Efer::LMA);
        assert_eq!(at(&vmcs, 0x20_1234), Some(0x60_1234));
        // PAE: the same tables from the second level on.
        put(&*memory, 0x1000, 0x3001, 8);
        set(&mut vmcs, Cr4::PAE, 0);
        assert_eq!(at(&vmcs, 0x20_1234), Some(0x60_1234));
        assert_eq!(at(&vmcs, 0x4000_0000), None);
    }
}
