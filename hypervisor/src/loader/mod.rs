//! What a guest boots, put into its memory.

mod elf;
mod linux;
mod mp_table;
mod multiboot;
mod real_mode;

use crate::configuration::{Boot, VmConfiguration};
use crate::memory::GuestMemory;
use alloc::string::String;

/// How the first vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// In real-address mode.
    RealMode {
        /// CS.
        segment: u16,
        /// IP.
        ip: u16,
    },
    /// In 32-bit protected mode with flat segments, without paging.
    Protected {
        /// EIP.
        entry: u32,
        /// EAX.
        eax: u32,
        /// EBX.
        ebx: u32,
        /// ESI.
        esi: u32,
    },
}

/// Loads the guest's image.
///
/// # Errors
/// What is wrong with it, in words.
pub fn load(memory: &dyn GuestMemory, configuration: &VmConfiguration) -> Result<Start, String> {
    match &configuration.boot {
        Boot::RealMode { image } => real_mode::load(memory, image),
        Boot::Multiboot { image, command_line } => multiboot::load(memory, image, command_line),
        Boot::Linux { kernel, initrd, command_line } => mp_table::write(memory, configuration.vcpus)
            .and_then(|()| linux::load(memory, kernel, initrd, command_line)),
    }
    .map_err(Into::into)
}

const NO_ROOM: &str = "its image does not fit into its memory";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Pages;
    use crate::testing::TestPages;

    fn load_boot(boot: Boot) -> (Result<Start, String>, alloc::boxed::Box<dyn GuestMemory>) {
        let memory = TestPages.guest_memory(4 << 20).unwrap();
        let configuration = VmConfiguration {
            name: "a".into(),
            vcpus: 1,
            memory: 4,
            weight: 1,
            cap: 100,
            restart: false,
            watchdog: 0,
            background: false,
            network: true,
            disks: [].into(),
            assign: [].into(),
            after: None,
            virtio_console: false,
            console_to_file: false,
            boot,
        };
        (load(&*memory, &configuration), memory)
    }

    /// An ELF file of one segment with a multiboot header at its beginning.
    fn elf(address: u32) -> alloc::vec::Vec<u8> {
        let mut file = std::vec![0u8; 0x1000];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = 62;
        file[24..28].copy_from_slice(&(address + 0x10).to_le_bytes());
        (file[32], file[54], file[56]) = (64, 56, 1);
        file[64] = 1;
        for (at, value) in [(72, 0x800u32), (80, address), (88, address), (96, 0x40), (104, 0x2000)] {
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(0x800, 0x1bad_b002u32), (0x804, 3), (0x808, 0u32.wrapping_sub(0x1bad_b005))] {
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file
    }

    #[test]
    fn a_raw_image_is_at_7c00() {
        let (start, memory) = load_boot(Boot::RealMode { image: [0xfa, 0xf4].into() });
        assert_eq!(start, Ok(Start::RealMode { segment: 0, ip: 0x7c00 }));
        assert_eq!(memory.read_number(0x7c00, 2), Ok(0xf4fa));
    }

    #[test]
    fn a_multiboot_image_gets_its_information() {
        let (start, memory) = load_boot(Boot::Multiboot { image: elf(0x10_0000), command_line: "a b".into() });
        let Ok(Start::Protected { entry, eax, ebx, .. }) = start else { panic!("{start:?}") };
        assert_eq!((entry, eax), (0x10_0010, 0x2bad_b002));
        assert_eq!(memory.read_number(0x10_0000, 4), Ok(0x1bad_b002));
        let line = memory.read_number(u64::from(ebx) + 16, 4).unwrap();
        assert_eq!(memory.read_number(line, 4), Ok(u64::from(u32::from_le_bytes(*b"a b\0"))));
    }

    #[test]
    fn images_that_are_cut_or_do_not_fit_are_refused() {
        let image = elf(0x10_0000);
        for length in 0..image.len() {
            let (start, _) = load_boot(Boot::Multiboot { image: image[..length].into(), command_line: "".into() });
            assert!(start.is_err() || length >= 0x840, "{length}");
        }
        assert!(load_boot(Boot::Multiboot { image: elf(0x40_0000), command_line: "".into() }).0.is_err());
        assert!(load_boot(Boot::RealMode { image: std::vec![0; 0xa_0000] }).0.is_err());
        assert!(load_boot(Boot::RealMode { image: [].into() }).0.is_err());
    }
}
