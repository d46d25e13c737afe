//! ELF kernels entered by the x86/HVM direct boot ABI ("PVH": Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h).

use super::placement::Placement;
use super::state::{GDT_ADDRESS, flat_gdt, gpr};
use super::{BootError, DirectBoot, InitialState, elf};

const START_INFO_MAGIC: u32 = 0x336e_c578;
const START_INFO_ADDRESS: u64 = 0x6000;
const MODULE_LIST_ADDRESS: u64 = 0x6100;
const MEMORY_MAP_ADDRESS: u64 = 0x6200;
const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;
/// What fits between the command line's address and the next thing; Linux takes 2047 bytes.
const COMMAND_LINE_LIMIT: usize = 0xffff;

pub(super) fn load(
    placement: &mut Placement<'_>,
    boot: &DirectBoot<'_>,
    rsdp_address: u64,
) -> Result<InitialState, BootError> {
    let image = elf::parse(boot.kernel)?;
    let entry = image.pvh_entry.ok_or(BootError::NoEntry)?;
    let entry = u32::try_from(entry).map_err(|_| BootError::BadElf("its PVH entry point is not below 4 GiB"))?;
    if boot.command_line.len() > COMMAND_LINE_LIMIT {
        return Err(BootError::CommandLineTooLong { length: boot.command_line.len(), limit: COMMAND_LINE_LIMIT });
    }
    elf::place(placement, &image)?;
    placement.put("the GDT", GDT_ADDRESS, flat_gdt().map(u64::to_le_bytes).as_flattened())?;
    placement.put("the command line", COMMAND_LINE_ADDRESS, &[boot.command_line.as_bytes(), &[0]].concat())?;

    if let Some(initrd) = boot.initrd {
        let address = placement.highest(initrd.len() as u64, u64::MAX)?;
        placement.put("the initrd", address, initrd)?;
        let module = [address, initrd.len() as u64, 0, 0];
        placement.put("the module list", MODULE_LIST_ADDRESS, module.map(u64::to_le_bytes).as_flattened())?;
    }
    let map: Vec<u8> = placement
        .map()
        .iter()
        .flat_map(|range| {
            let mut entry = range.to_e820().to_vec();
            entry.extend([0; 4]);
            entry
        })
        .collect();
    placement.put("the memory map", MEMORY_MAP_ADDRESS, &map)?;

    let mut info = Vec::new();
    for word in [START_INFO_MAGIC, 1, 0, u32::from(boot.initrd.is_some())] {
        info.extend(word.to_le_bytes());
    }
    let module_list = if boot.initrd.is_some() { MODULE_LIST_ADDRESS } else { 0 };
    for word in [module_list, COMMAND_LINE_ADDRESS, rsdp_address, MEMORY_MAP_ADDRESS, (map.len() / 24) as u64] {
        info.extend(word.to_le_bytes());
    }
    placement.put("the start info", START_INFO_ADDRESS, &info)?;

    let mut state = InitialState::flat32(entry);
    state.gprs[gpr::RBX] = START_INFO_ADDRESS;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::super::elf::tests::image64;
    use super::super::tests::{TestMemory, abuse, acpi, boot};
    use super::super::{DirectBoot, load};
    use super::*;

    #[test]
    fn start_info_leads_to_command_line_module_map_and_rsdp() {
        let mut memory = TestMemory::new(16);
        memory.0.fill(0xee);
        let (kernel, tables) = (image64(0x10_0000, 0x1234, Some(0x10_0010), &[0x90; 100]), acpi());
        let state =
            load(&mut memory, &DirectBoot { acpi: Some(&tables), ..boot(&kernel, Some(b"initrd!"), "quiet") }).unwrap();
        assert_eq!(state.rip, 0x10_0010);
        assert_eq!(memory.0[0x10_0000..0x10_0074], [[0x90; 100].as_slice(), &[0; 16]].concat());
        let info = state.gprs[gpr::RBX];
        assert_eq!((memory.u32(info), memory.u32(info + 4), memory.u32(info + 12)), (START_INFO_MAGIC, 1, 1));
        let module = memory.u64(info + 16);
        assert_eq!(memory.0[memory.u64(module) as usize..][..memory.u64(module + 8) as usize], *b"initrd!");
        assert_eq!(memory.text(memory.u64(info + 24)), "quiet");
        assert_eq!(memory.0[memory.u64(info + 32) as usize..][..8], *b"RSD PTR ");
        let map = memory.u64(info + 40);
        assert_eq!((memory.u32(info + 48), memory.u64(map + 8), memory.u64(map + 16)), (7, 0x9_fc00, 1));
    }

    #[test]
    fn elf_without_entry_note_or_outside_memory_is_refused() {
        let kernel = image64(0x10_0000, 0, None, &[0x90; 500]);
        assert_eq!(load(&mut TestMemory::new(4), &boot(&kernel, None, "")), Err(BootError::NoEntry));
        let kernel = image64(0x4000_0000, 0, Some(0x4000_0000), &[0x90; 500]);
        let error = load(&mut TestMemory::new(4), &boot(&kernel, None, "")).unwrap_err();
        assert!(matches!(error, BootError::OutsideRam { what: "the kernel", address: 0x4000_0000, .. }));
        let kernel = image64(0x10_0000, 0, Some(0x10_0000), &[0x90; 500]);
        let error = load(&mut TestMemory::new(4), &boot(&kernel[..600], None, "")).unwrap_err();
        assert!(matches!(error, BootError::Truncated { has: 600, .. }));
    }

    #[test]
    fn damaged_kernels_never_panic() {
        abuse(&image64(0x10_0000, 0, Some(0x10_0000), &[0x90; 500]));
    }
}
