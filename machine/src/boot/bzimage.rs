//! Linux's bzImage by the 32-bit boot protocol (Linux, Documentation/arch/x86/boot.rst): the protected-mode part at its
//! preferred address, the zero page, command line and initrd, entered in flat protected mode. The 32-bit entry serves every
//! kernel, 64-bit ones too, which then build their own page tables.

use super::placement::Placement;
use super::state::{GDT_ADDRESS, flat_gdt, gpr};
use super::{BootError, DirectBoot, InitialState};
use chipset::memory_map::FOUR_GIB;

/// Offsets in the setup header, which is at the same place in the image and in the zero page.
mod header {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const SYSSIZE: usize = 0x1f4;
    pub const VID_MODE: usize = 0x1fa;
    pub const BOOT_FLAG: usize = 0x1fe;
    pub const JUMP: usize = 0x200;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const KERNEL_ALIGNMENT: usize = 0x230;
    pub const RELOCATABLE_KERNEL: usize = 0x234;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
    /// First byte after the fields used here.
    pub const END: usize = 0x264;
}

/// Offsets in the zero page besides the setup header (Documentation/arch/x86/zero-page.rst).
mod zero_page {
    pub const ACPI_RSDP: usize = 0x070;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const E820_TABLE: usize = 0x2d0;
    pub const E820_MAX: usize = 128;
    pub const SIZE: usize = 4096;
}

const LOADED_HIGH: u8 = 1 << 0;
const DEFAULT_LOAD_ADDRESS: u64 = 0x10_0000;
/// A loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
const VIDEO_NORMAL: u16 = 0xffff;
const MAX_SETUP_HEADER: usize = 0x290;

const ZERO_PAGE_ADDRESS: u64 = 0x7000;
const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;

/// True if `image` has the marks of a Linux kernel image.
pub(super) fn is_bzimage(image: &[u8]) -> bool {
    image.get(header::BOOT_FLAG..header::BOOT_FLAG + 2) == Some(&[0x55, 0xaa])
        && image.get(header::MAGIC..header::MAGIC + 4) == Some(b"HdrS")
}

/// Reads fields of the setup header; those beyond the image read 0.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).map_or([0; N], |bytes| std::array::from_fn(|i| bytes[i]))
    }
    fn u8(&self, at: usize) -> u8 {
        self.field::<1>(at)[0]
    }
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.field(at))
    }
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.field(at))
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.field(at))
    }
}

pub(super) fn load(
    placement: &mut Placement<'_>,
    boot: &DirectBoot<'_>,
    rsdp_address: u64,
) -> Result<InitialState, BootError> {
    let image = boot.kernel;
    let fields = Header(image);
    let truncated =
        |needs: usize| BootError::Truncated { what: "the Linux kernel", needs: needs as u64, has: image.len() as u64 };
    if image.len() < header::END {
        return Err(truncated(header::END));
    }
    let version = fields.u16(header::VERSION);
    if version < 0x206 || fields.u8(header::LOADFLAGS) & LOADED_HIGH == 0 {
        return Err(BootError::OldLinux { version });
    }
    let setup_sectors = match fields.u8(header::SETUP_SECTS) {
        0 => 4,
        n => usize::from(n),
    };
    let setup_size = (setup_sectors + 1) * 512;
    let code_size = fields.u32(header::SYSSIZE) as usize * 16;
    let code =
        image.get(setup_size..).filter(|code| !code.is_empty()).ok_or_else(|| truncated(setup_size + code_size))?;
    // The size is told in paragraphs; the last may be short.
    if code.len() + 15 < code_size {
        return Err(truncated(setup_size + code_size));
    }
    let limit = fields.u32(header::CMDLINE_SIZE) as usize;
    let limit = if limit == 0 { 255 } else { limit.min(0xffff) };
    if boot.command_line.len() > limit {
        return Err(BootError::CommandLineTooLong { length: boot.command_line.len(), limit });
    }

    let (address, size) = load_range(&fields, version, code.len() as u64, placement.top());
    if address >= FOUR_GIB {
        return Err(BootError::OutsideRam { what: "the kernel", address, length: size, ram: placement.top() });
    }
    placement.claim("the kernel", address, size)?;
    placement.fill(address, code)?;
    placement.put("the GDT", GDT_ADDRESS, flat_gdt().map(u64::to_le_bytes).as_flattened())?;
    placement.put("the command line", COMMAND_LINE_ADDRESS, &[boot.command_line.as_bytes(), &[0]].concat())?;
    let mut initrd_address = 0;
    if let Some(initrd) = boot.initrd {
        let highest = u64::from(fields.u32(header::INITRD_ADDR_MAX)) + 1;
        initrd_address = placement.highest(initrd.len() as u64, highest)?;
        placement.put("the initrd", initrd_address, initrd)?;
    }

    let mut page = [0; zero_page::SIZE];
    // The setup header ends where the jump instruction at 0x200 goes.
    let header_end = (header::MAGIC + usize::from(fields.u8(header::JUMP + 1))).clamp(header::END, MAX_SETUP_HEADER);
    let header_end = header_end.min(image.len());
    page[header::SETUP_SECTS..header_end].copy_from_slice(&image[header::SETUP_SECTS..header_end]);
    let mut set = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    set(header::VID_MODE, &VIDEO_NORMAL.to_le_bytes());
    set(header::TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    set(header::CODE32_START, &(address as u32).to_le_bytes());
    set(header::CMD_LINE_PTR, &(COMMAND_LINE_ADDRESS as u32).to_le_bytes());
    set(header::RAMDISK_IMAGE, &(initrd_address as u32).to_le_bytes());
    set(header::RAMDISK_SIZE, &(boot.initrd.map_or(0, <[u8]>::len) as u32).to_le_bytes());
    set(zero_page::ACPI_RSDP, &rsdp_address.to_le_bytes());
    let ranges = placement.map();
    let count = ranges.len().min(zero_page::E820_MAX);
    set(zero_page::E820_ENTRIES, &[count as u8]);
    for (i, range) in ranges[..count].iter().enumerate() {
        set(zero_page::E820_TABLE + 20 * i, &range.to_e820());
    }
    placement.put("the zero page", ZERO_PAGE_ADDRESS, &page)?;

    let mut state = InitialState::flat32(address as u32);
    state.gprs[gpr::RSI] = ZERO_PAGE_ADDRESS;
    Ok(state)
}

/// Where the kernel goes, and how many bytes from there it uses until it reads the memory map.
fn load_range(fields: &Header<'_>, version: u16, code_size: u64, top: u64) -> (u64, u64) {
    if version < 0x20a {
        return (DEFAULT_LOAD_ADDRESS, code_size);
    }
    let size = u64::from(fields.u32(header::INIT_SIZE)).max(code_size);
    let preferred = fields.u64(header::PREF_ADDRESS);
    let alignment = u64::from(fields.u32(header::KERNEL_ALIGNMENT)).max(1);
    let fits = preferred.checked_add(size).is_some_and(|end| end <= top);
    if fits || fields.u8(header::RELOCATABLE_KERNEL) == 0 {
        (preferred, size)
    } else {
        // A relocatable kernel takes any aligned address on a machine too small for the preferred one.
        (DEFAULT_LOAD_ADDRESS.next_multiple_of(alignment), size)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tests::{TestMemory, abuse, acpi, boot};
    use super::super::{DirectBoot, load};
    use super::*;

    /// A kernel image with `code` bytes of protected-mode code.
    pub(in super::super) fn image(code: usize) -> Vec<u8> {
        let mut image = vec![0; 1024 * 3];
        let mut set = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        set(header::SETUP_SECTS, &[5]);
        set(header::SYSSIZE, &(code as u32 / 16).to_le_bytes());
        set(header::BOOT_FLAG, &[0x55, 0xaa, 0xeb, 0x66]);
        set(header::MAGIC, b"HdrS");
        set(header::VERSION, &0x20fu16.to_le_bytes());
        set(header::LOADFLAGS, &[1]);
        set(header::INITRD_ADDR_MAX, &0x7fff_ffffu32.to_le_bytes());
        set(header::KERNEL_ALIGNMENT, &0x20_0000u32.to_le_bytes());
        set(header::RELOCATABLE_KERNEL, &[1]);
        set(header::CMDLINE_SIZE, &2047u32.to_le_bytes());
        set(header::PREF_ADDRESS, &0x40_0000u64.to_le_bytes());
        set(header::INIT_SIZE, &0x10_0000u32.to_le_bytes());
        image.extend((0..code).map(|i| i as u8 | 1));
        image
    }

    #[test]
    fn kernel_command_line_initrd_and_map_are_where_the_zero_page_says() {
        let mut memory = TestMemory::new(16);
        let (kernel, initrd, tables) = (image(0x4000), vec![0x77; 5000], acpi());
        let state =
            load(&mut memory, &DirectBoot { acpi: Some(&tables), ..boot(&kernel, Some(&initrd), "console=ttyS0") })
                .unwrap();
        assert_eq!((state.rip, state.gprs[gpr::RSI]), (0x40_0000, ZERO_PAGE_ADDRESS));
        assert_eq!(memory.0[0x40_0000..0x40_4000], kernel[3072..]);
        let page = state.gprs[gpr::RSI];
        assert_eq!(memory.text(memory.u32(page + 0x228).into()), "console=ttyS0");
        let (at, size) = (memory.u32(page + 0x218) as usize, memory.u32(page + 0x21c) as usize);
        assert_eq!(memory.0[at..at + size], initrd);
        assert_eq!(at % 4096, 0);
        assert_eq!(memory.0[memory.u64(page + 0x70) as usize..][..8], *b"RSD PTR ");
        assert_eq!(memory.0[page as usize + 0x1e8], 7, "conventional, 2 reserved, RAM, ACPI, ECAM, RCBA");
        assert_eq!(memory.u64(page + 0x2d0 + 8), 0x9_fc00);
        assert!(at as u64 + size as u64 <= memory.u64(page + 0x2d0 + 20 * 4), "below the ACPI tables");
    }

    #[test]
    fn relocatable_kernel_moves_down_on_a_small_machine() {
        let mut memory = TestMemory::new(4);
        assert_eq!(load(&mut memory, &boot(&image(0x4000), None, "")).unwrap().rip, 0x20_0000);
    }

    #[test]
    fn initrd_and_command_line_that_do_not_fit_are_refused() {
        let (kernel, initrd) = (image(0x4000), vec![0; 12 << 20]);
        let too_large = load(&mut TestMemory::new(16), &boot(&kernel, Some(&initrd), "")).unwrap_err();
        assert_eq!(too_large, BootError::InitrdTooLarge { size: 12 << 20, free: 11 << 20 });
        let line = "x".repeat(2048);
        let too_long = load(&mut TestMemory::new(16), &boot(&kernel, None, &line)).unwrap_err();
        assert_eq!(too_long, BootError::CommandLineTooLong { length: 2048, limit: 2047 });
    }

    #[test]
    fn truncated_and_old_kernels_are_refused() {
        let kernel = image(0x4000);
        let cut = load(&mut TestMemory::new(16), &boot(&kernel[..0x2000], None, "")).unwrap_err();
        assert_eq!(cut, BootError::Truncated { what: "the Linux kernel", needs: 0x4c00, has: 0x2000 });
        let mut old = kernel.clone();
        old[header::VERSION] = 4;
        assert_eq!(load(&mut TestMemory::new(16), &boot(&old, None, "")), Err(BootError::OldLinux { version: 0x204 }));
    }

    #[test]
    fn damaged_kernels_never_panic() {
        abuse(&image(0x1000));
    }
}
