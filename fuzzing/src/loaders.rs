//! The boot loaders: any bytes for a kernel, an initrd and a command line.

use crate::input::Input;
use machine::boot::{DirectBoot, GuestMemory, OutsideMemory, load};

/// Memory that forgets: loaders do not read back.
struct Sink {
    size: u64,
    written: u64,
}

impl GuestMemory for Sink {
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideMemory> {
        let length = data.len() as u64;
        let end = address.checked_add(length);
        if end.is_none_or(|end| end > self.size) {
            return Err(OutsideMemory { address, length });
        }
        self.written = self.written.saturating_add(length);
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// Two bytes of memory size in 64 KiB and lengths of initrd and command line, then those, then the kernel.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let size = input.number(2) << 16;
    let initrd_length = usize::from(input.byte());
    let command_line_length = usize::from(input.byte());
    let initrd = input.bytes(initrd_length);
    let command_line = String::from_utf8_lossy(input.bytes(command_line_length)).into_owned();
    let kernel = input.rest();
    let mut memory = Sink { size, written: 0 };
    let boot = DirectBoot {
        name: "kernel",
        kernel,
        initrd: (initrd_length > 0).then_some(initrd),
        initrd_name: "initrd",
        command_line: &command_line,
        acpi: None,
    };
    if let Ok(state) = load(&mut memory, &boot) {
        assert!(state.rip < 1 << 32, "the entry point of a kernel for flat 32-bit mode lies above 4 GiB");
    }
    // What an image makes the loader write is bounded by the machine's memory, a few times over for zeroing.
    assert!(memory.written <= 4 * size + (1 << 20), "more written than there is memory");
}

/// An input with `kernel` on a machine of 16 MiB with a short initrd and command line.
fn seed(kernel: &[u8]) -> Vec<u8> {
    let mut data = vec![0, 1, 4, 5];
    data.extend(b"init");
    data.extend(b"quiet");
    data.extend(kernel);
    data
}

fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 0x600];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1f4, &0x20_u32.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1, 0x15]);
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x10_0000_u64.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image
}

/// A multiboot header with addresses, which may stand in any kind of image.
fn multiboot_header(flags: u32) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    [magic, flags, 0_u32.wrapping_sub(magic).wrapping_sub(flags), 0x10_0000, 0x10_0000, 0x10_0200, 0x10_0400, 0x10_0020]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn elf32() -> Vec<u8> {
    let mut image = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 3] {
        image.extend(half.to_le_bytes());
    }
    for word in [1_u32, 0x10_0000, 52, 0, 0] {
        image.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    for word in [1_u32, 0, 0x10_0000, 0x10_0000, 0x100, 0x200, 7, 0x1000] {
        image.extend(word.to_le_bytes());
    }
    image.resize(96, 0x90);
    image.extend(multiboot_header(3));
    image.resize(0x400, 0x90);
    image
}

/// A 64-bit ELF image with one segment and the note of a PVH entry point.
fn elf64() -> Vec<u8> {
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        image.extend(half.to_le_bytes());
    }
    image.extend(1_u32.to_le_bytes());
    for word in [0x10_0000_u64, 64, 0] {
        image.extend(word.to_le_bytes());
    }
    image.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 64, 0, 0] {
        image.extend(half.to_le_bytes());
    }
    for (kind, offset, length) in [(1_u32, 0x100_u64, 0x200_u64), (4, 0xc0, 20)] {
        for word in [kind, 7] {
            image.extend(word.to_le_bytes());
        }
        for word in [offset, 0x10_0000, 0x10_0000, length, length + 0x100, 4] {
            image.extend(word.to_le_bytes());
        }
    }
    image.resize(0xc0, 0);
    for word in [4_u32, 4, 18] {
        image.extend(word.to_le_bytes());
    }
    image.extend(b"Xen\0");
    image.extend(0x10_0010_u32.to_le_bytes());
    image.resize(0x300, 0x90);
    image
}

/// One image of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut by_addresses = multiboot_header(0x1_0003);
    by_addresses.resize(0x300, 0x90);
    [bzimage(), elf32(), elf64(), by_addresses].iter().map(|image| seed(image)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_a_kernel() {
        for data in seeds() {
            let boot = DirectBoot {
                name: "kernel",
                kernel: &data[13..],
                initrd: None,
                initrd_name: "",
                command_line: "",
                acpi: None,
            };
            assert!(load(&mut Sink { size: 16 << 20, written: 0 }, &boot).is_ok());
        }
    }
}
