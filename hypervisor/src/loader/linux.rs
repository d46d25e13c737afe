//! Linux kernels by the 32-bit boot protocol (Linux: Documentation/arch/x86/boot.rst).

use super::{NO_ROOM, Start};
use crate::memory::{GuestMemory, PAGE, ranges};

const BOOT_PARAMETERS: u32 = 0x9_0000;
const COMMAND_LINE: u32 = 0x9_1000;
const LONGEST: usize = 2047;
const KERNEL: u64 = 0x10_0000;
/// End of conventional memory, below the BIOS's extended data area.
const CONVENTIONAL: u64 = 0x9_fc00;

/// Offsets in the setup header, which the file and the boot parameters have at the same place.
mod header {
    pub const START: usize = 0x1f1;
    pub const SETUP_SECTORS: usize = 0x1f1;
    pub const LENGTH: usize = 0x201;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const LOADER: usize = 0x210;
    pub const FLAGS: usize = 0x211;
    pub const RAMDISK: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const COMMAND_LINE: usize = 0x228;
    pub const INIT_SIZE: usize = 0x260;
    pub const PREFERRED: usize = 0x258;
}

/// Offsets in the boot parameters.
mod parameter {
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const E820: usize = 0x2d0;
}

const LOADED_HIGH: u8 = 1;

pub fn load(memory: &dyn GuestMemory, kernel: &[u8], initrd: &[u8], command_line: &str) -> Result<Start, &'static str> {
    const NOT_ONE: &str = "its kernel is no bzImage";
    let word = |at: usize| kernel.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if word(header::MAGIC) != Some(u32::from_le_bytes(*b"HdrS"))
        || kernel.get(header::FLAGS).unwrap_or(&0) & LOADED_HIGH == 0
    {
        return Err(NOT_ONE);
    }
    if (word(header::VERSION).unwrap_or(0) & 0xffff) < 0x20a {
        return Err("its kernel has a boot protocol older than 2.10");
    }
    if command_line.len() > LONGEST {
        return Err("its command line is too long");
    }
    let sectors = match kernel[header::SETUP_SECTORS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let code = kernel.get((sectors + 1) * 512..).ok_or(NOT_ONE)?;
    let end = header::MAGIC + usize::from(kernel[header::LENGTH]);
    let mut parameters = [0u8; PAGE as usize];
    let setup = kernel.get(header::START..end).ok_or(NOT_ONE)?;
    parameters[header::START..end].copy_from_slice(setup);

    let preferred = u64::from(word(header::PREFERRED).unwrap_or(0));
    let needed = preferred.max(KERNEL) + u64::from(word(header::INIT_SIZE).unwrap_or(0));
    let [(_, below), high] = ranges(memory.size());
    let ramdisk = below.checked_sub(initrd.len() as u64).ok_or(NO_ROOM)? & !(PAGE - 1);
    if ramdisk < needed.max(KERNEL + code.len() as u64) {
        return Err(NO_ROOM);
    }
    let mut set = |at: usize, value: &[u8]| parameters[at..at + value.len()].copy_from_slice(value);
    set(header::LOADER, &[0xff]);
    set(header::COMMAND_LINE, &COMMAND_LINE.to_le_bytes());
    if !initrd.is_empty() {
        set(header::RAMDISK, &(ramdisk as u32).to_le_bytes());
        set(header::RAMDISK_SIZE, &(initrd.len() as u32).to_le_bytes());
    }
    let map = [(0, CONVENTIONAL), (KERNEL, below - KERNEL), high];
    let map = if high.1 == 0 { &map[..2] } else { &map[..] };
    set(parameter::E820_ENTRIES, &[map.len() as u8]);
    for (n, (base, length)) in map.iter().copied().enumerate() {
        let at = parameter::E820 + 20 * n;
        set(at, &u64::to_le_bytes(base));
        set(at + 8, &u64::to_le_bytes(length));
        set(at + 16, &1u32.to_le_bytes());
    }
    let line = [command_line.as_bytes(), &[0]].concat();
    let parts =
        [(BOOT_PARAMETERS.into(), &parameters[..]), (COMMAND_LINE.into(), &line), (KERNEL, code), (ramdisk, initrd)];
    for (address, data) in parts {
        memory.write(address, data).map_err(|_| NO_ROOM)?;
    }
    Ok(Start::Protected { entry: KERNEL as u32, eax: 0, ebx: 0, esi: BOOT_PARAMETERS })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pages;
    use crate::testing::TestPages;
    use std::vec::Vec;

    fn image() -> Vec<u8> {
        let mut file = std::vec![0; 0x1000];
        file[header::SETUP_SECTORS] = 1;
        file[header::LENGTH] = 0x66;
        file[header::MAGIC..header::MAGIC + 4].copy_from_slice(b"HdrS");
        file[header::VERSION..header::VERSION + 2].copy_from_slice(&0x20fu16.to_le_bytes());
        file[header::FLAGS] = LOADED_HIGH;
        file[0x400..0x404].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
        file
    }

    #[test]
    fn a_kernel_gets_its_parameters_its_ramdisk_and_its_memory_map() {
        let memory = TestPages.guest_memory(4 << 20).unwrap();
        let start = load(&*memory, &image(), &[7; 5000], "quiet");
        assert_eq!(start, Ok(Start::Protected { entry: 0x10_0000, eax: 0, ebx: 0, esi: BOOT_PARAMETERS }));
        let at = |offset: usize| memory.read_number(u64::from(BOOT_PARAMETERS) + offset as u64, 4).unwrap();
        assert_eq!(memory.read_number(KERNEL, 4), Ok(0xfdeb_f4fa));
        assert_eq!((at(header::RAMDISK_SIZE), at(header::RAMDISK) % PAGE), (5000, 0));
        assert_eq!(memory.read_number(at(header::RAMDISK) + 4999, 1), Ok(7));
        assert_eq!(at(parameter::E820_ENTRIES) as u8, 2);
        assert_eq!(memory.read_number(at(header::COMMAND_LINE), 6), Ok(0x74_6569_7571));
    }

    #[test]
    fn what_is_cut_or_does_not_fit_is_refused() {
        let memory = TestPages.guest_memory(2 << 20).unwrap();
        let image = image();
        for length in 0..image.len() {
            let _ = load(&*memory, &image[..length], &[], "");
        }
        assert!(load(&*memory, &image[..0x300], &[], "").is_err());
        assert_eq!(load(&*memory, &image, &std::vec![0; 2 << 20], ""), Err(NO_ROOM));
    }
}
