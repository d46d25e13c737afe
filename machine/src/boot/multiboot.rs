//! Multiboot 1 images (Multiboot Specification 0.6.96), ELF of either class or with addresses in the header, loaded as QEMU
//! does: kvm-unit-tests and our own hypervisor start this way.

use super::placement::Placement;
use super::state::{GDT_ADDRESS, flat_gdt, gpr};
use super::{BootError, DirectBoot, InitialState, elf};

const HEADER_MAGIC: u32 = 0x1bad_b002;
const BOOT_MAGIC: u64 = 0x2bad_b002;
/// The header lies within the first bytes of the image, on a dword boundary.
const SEARCH: usize = 8192;

/// Bits of the header's flags.
mod want {
    /// Modules on page boundaries (they always are).
    pub const PAGE_ALIGNED_MODULES: u32 = 1 << 0;
    /// Sizes of memory.
    pub const MEMORY: u32 = 1 << 1;
    /// A video mode; there is no display, which a kernel must cope with.
    pub const VIDEO: u32 = 1 << 2;
    /// Addresses in the header are to be used instead of those of ELF.
    pub const ADDRESSES: u32 = 1 << 16;
    /// Bits that a loader must refuse if it does not know them.
    pub const MANDATORY: u32 = 0xffff;
}

/// Bits of the flags in the information structure: which fields are there.
mod given {
    pub const MEMORY: u32 = 1 << 0;
    pub const BOOT_DEVICE: u32 = 1 << 1;
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
    pub const LOADER_NAME: u32 = 1 << 9;
}

/// Above what real-mode test images take of low memory.
const INFO_ADDRESS: u64 = 0x4_0000;
const MODULES_ADDRESS: u64 = 0x4_0080;
const LOADER_NAME_ADDRESS: u64 = 0x4_00c0;
const MAP_ADDRESS: u64 = 0x4_0100;
const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;
const MODULE_STRING_ADDRESS: u64 = 0x3_0000;
/// What fits where the strings are.
const STRING_LIMIT: usize = 0xffff;
const LOADER_NAME: &[u8] = b"vanderpool\0";
/// First hard disk, no partition.
const BOOT_DEVICE: u32 = 0x8000_ffff;

/// The header: its offset in the image and its fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    offset: usize,
    flags: u32,
    /// header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr; if the flags say so and the image has them.
    addresses: Option<[u32; 5]>,
}

/// The multiboot header of `image`, if it has one.
pub(super) fn find_header(image: &[u8]) -> Option<Header> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    (0..image.len().min(SEARCH)).step_by(4).find_map(|offset| {
        let flags = word(offset + 4)?;
        let sum = HEADER_MAGIC.wrapping_add(flags).wrapping_add(word(offset + 8)?);
        if word(offset)? != HEADER_MAGIC || sum != 0 {
            return None;
        }
        let mut addresses = [0; 5];
        let all = addresses.iter_mut().enumerate().all(|(i, field)| match word(offset + 12 + 4 * i) {
            Some(value) => {
                *field = value;
                true
            }
            None => false,
        });
        Some(Header { offset, flags, addresses: (flags & want::ADDRESSES != 0 && all).then_some(addresses) })
    })
}

pub(super) fn load(placement: &mut Placement<'_>, boot: &DirectBoot<'_>) -> Result<InitialState, BootError> {
    let header = find_header(boot.kernel).ok_or(BootError::NotAKernel)?;
    let unknown = header.flags & want::MANDATORY & !(want::PAGE_ALIGNED_MODULES | want::MEMORY | want::VIDEO);
    if unknown != 0 {
        return Err(BootError::MultibootFlags(unknown));
    }
    // QEMU, and so the images made for it, takes ELF's own addresses when there are both.
    let entry = if elf::is_elf(boot.kernel) {
        let image = elf::parse(boot.kernel)?;
        elf::place(placement, &image)?;
        u32::try_from(image.entry).map_err(|_| BootError::BadElf("its entry point is not below 4 GiB"))?
    } else if let Some(addresses) = header.addresses {
        place_by_header(placement, boot.kernel, header.offset, addresses)?
    } else {
        return Err(BootError::BadMultiboot("the image is not ELF and the header has no addresses"));
    };

    placement.put("the GDT", GDT_ADDRESS, flat_gdt().map(u64::to_le_bytes).as_flattened())?;
    let command_line = string(&format!("{} {}", boot.name, boot.command_line))?;
    placement.put("the command line", COMMAND_LINE_ADDRESS, &command_line)?;
    placement.put("the loader's name", LOADER_NAME_ADDRESS, LOADER_NAME)?;
    if let Some(initrd) = boot.initrd {
        let address = placement.after_all(initrd.len() as u64)?;
        placement.put("the module", address, initrd)?;
        placement.put("the module's string", MODULE_STRING_ADDRESS, &string(boot.initrd_name)?)?;
        let module = [address as u32, (address + initrd.len() as u64) as u32, MODULE_STRING_ADDRESS as u32, 0];
        placement.put("the module list", MODULES_ADDRESS, module.map(u32::to_le_bytes).as_flattened())?;
    }
    let map: Vec<u8> = placement.map().iter().flat_map(|r| [&20u32.to_le_bytes()[..], &r.to_e820()].concat()).collect();
    placement.put("the memory map", MAP_ADDRESS, &map)?;
    let info = info(placement.conventional_and_extended_kib(), boot.initrd.is_some(), map.len() as u32);
    placement.put("the multiboot information", INFO_ADDRESS, &info)?;

    let mut state = InitialState::flat32(entry);
    state.gprs[gpr::RAX] = BOOT_MAGIC;
    state.gprs[gpr::RBX] = INFO_ADDRESS;
    Ok(state)
}

/// Loads an image by the addresses in its header (3.1.3); gives the entry point.
fn place_by_header(
    placement: &mut Placement<'_>,
    image: &[u8],
    header_offset: usize,
    [header_address, load_address, load_end, bss_end, entry]: [u32; 5],
) -> Result<u32, BootError> {
    let before =
        header_address.checked_sub(load_address).ok_or(BootError::BadMultiboot("load_addr is above header_addr"))?;
    let start = header_offset
        .checked_sub(before as usize)
        .ok_or(BootError::BadMultiboot("load_addr lies before the beginning of the file"))?;
    let length = match load_end {
        0 => image.len() - start,
        end => {
            end.checked_sub(load_address).ok_or(BootError::BadMultiboot("load_end_addr is below load_addr"))? as usize
        }
    };
    let data = image.get(start..start + length).ok_or(BootError::Truncated {
        what: "the multiboot image",
        needs: (start + length) as u64,
        has: image.len() as u64,
    })?;
    let size = match bss_end {
        0 => length as u64,
        end => u64::from(end)
            .checked_sub(load_address.into())
            .filter(|size| *size >= length as u64)
            .ok_or(BootError::BadMultiboot("bss_end_addr is below the end of the data"))?,
    };
    placement.claim("the kernel", load_address.into(), size)?;
    placement.fill(load_address.into(), data)?;
    placement.zero(u64::from(load_address) + length as u64, size - length as u64)?;
    Ok(entry)
}

fn string(text: &str) -> Result<Vec<u8>, BootError> {
    if text.len() > STRING_LIMIT {
        return Err(BootError::CommandLineTooLong { length: text.len(), limit: STRING_LIMIT });
    }
    Ok([text.as_bytes(), &[0]].concat())
}

/// The information structure (3.3).
fn info((conventional, extended): (u32, u32), has_module: bool, map_length: u32) -> [u8; 120] {
    let modules = if has_module { given::MODULES } else { 0 };
    let flags =
        given::MEMORY | given::BOOT_DEVICE | given::COMMAND_LINE | given::MEMORY_MAP | given::LOADER_NAME | modules;
    let mut info = [0; 120];
    let mut set = |at: usize, value: u32| info[at..at + 4].copy_from_slice(&value.to_le_bytes());
    set(0, flags);
    set(4, conventional);
    set(8, extended);
    set(12, BOOT_DEVICE);
    set(16, COMMAND_LINE_ADDRESS as u32);
    set(20, has_module.into());
    set(24, if has_module { MODULES_ADDRESS as u32 } else { 0 });
    set(44, map_length);
    set(48, MAP_ADDRESS as u32);
    set(64, LOADER_NAME_ADDRESS as u32);
    info
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::{image32, image64};
    use super::super::tests::{TestMemory, abuse, boot};
    use super::super::{KernelKind, detect, load};
    use super::*;

    fn header(flags: u32, addresses: &[u32]) -> Vec<u8> {
        let checksum = 0u32.wrapping_sub(HEADER_MAGIC).wrapping_sub(flags);
        [HEADER_MAGIC, flags, checksum].iter().chain(addresses).flat_map(|w| w.to_le_bytes()).collect()
    }

    fn code(flags: u32) -> Vec<u8> {
        [header(flags, &[]), vec![0xf4; 600]].concat()
    }

    #[test]
    fn elf_of_both_classes_starts_at_its_entry_with_the_information() {
        for kernel in
            [image32(0x40_0000, 0x40_0020, &code(3)), image64(0x40_0000, 0xffff_ffff_8040_0020, None, &code(3))]
        {
            let mut memory = TestMemory::new(16);
            assert_eq!(detect(&kernel), Ok(KernelKind::Multiboot));
            let state = load(&mut memory, &boot(&kernel, Some(b"NR_CPUS=1"), "a b")).unwrap();
            assert_eq!((state.rip, state.gprs[gpr::RAX]), (0x40_0020, BOOT_MAGIC));
            let info = state.gprs[gpr::RBX];
            assert_eq!(memory.u32(info), 0b10_0100_1111);
            assert_eq!((memory.u32(info + 4), memory.u32(info + 8)), (639, 15 << 10));
            assert_eq!(memory.text(memory.u32(info + 16).into()), "kernel a b");
            let module = memory.u32(info + 24).into();
            let (from, to) = (memory.u32(module) as usize, memory.u32(module + 4) as usize);
            assert_eq!((&memory.0[from..to], from % 4096), (&b"NR_CPUS=1"[..], 0));
            assert_eq!(memory.text(memory.u32(module + 8).into()), "initrd");
            let map = memory.u32(info + 48).into();
            assert_eq!((memory.u32(map), memory.u64(map + 12), memory.u32(map + 20)), (20, 0x9_fc00, 1));
            assert_eq!(memory.u32(info + 44) % 24, 0);
        }
    }

    #[test]
    fn image_with_addresses_in_its_header_is_loaded_by_them() {
        let addresses = [0x20_0008, 0x20_0000, 0x20_0100, 0x20_0200, 0x20_0040];
        let kernel = [vec![0x11; 8], header(1 << 16, &addresses), vec![0xf4; 0x400]].concat();
        let mut memory = TestMemory::new(4);
        memory.0.fill(0xee);
        let state = load(&mut memory, &boot(&kernel, None, "")).unwrap();
        assert_eq!(state.rip, 0x20_0040);
        assert_eq!(memory.0[0x20_0000..0x20_0100], kernel[..0x100]);
        assert_eq!(memory.0[0x20_0100..0x20_0201], [[0; 0x100].as_slice(), &[0xee]].concat());
    }

    #[test]
    fn impossible_headers_are_refused() {
        let load = |flags, addresses: &[u32]| {
            let kernel = [header(flags, addresses), vec![0xf4; 0x400]].concat();
            load(&mut TestMemory::new(4), &boot(&kernel, None, "")).unwrap_err()
        };
        assert_eq!(load(1 << 7, &[]), BootError::MultibootFlags(1 << 7));
        assert!(matches!(load(0, &[]), BootError::BadMultiboot(_)));
        assert!(matches!(load(1 << 16, &[0x10_0000, 0x10_0004, 0, 0, 0]), BootError::BadMultiboot(_)));
        assert!(matches!(load(1 << 16, &[0x10_0004, 0x10_0000, 0, 0, 0]), BootError::BadMultiboot(_)));
        assert!(matches!(load(1 << 16, &[0x10_0000, 0x10_0000, 0x20_0000, 0, 0]), BootError::Truncated { .. }));
        assert!(matches!(
            load(1 << 16, &[0x10_0000, 0x10_0000, 0x10_0100, 0xfff0_0000, 0]),
            BootError::OutsideRam { .. }
        ));
        let info = INFO_ADDRESS as u32;
        assert!(matches!(load(1 << 16, &[info, info, info + 0x400, 0, 0]), BootError::Overlap { .. }));
    }

    #[test]
    fn damaged_kernels_never_panic() {
        abuse(&image32(0x10_0000, 0x10_0000, &code(0)));
        abuse(&[header(1 << 16, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0000]), vec![0xf4; 0x400]].concat());
    }
}
