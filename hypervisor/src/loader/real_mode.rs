//! Real-mode images, as a PC's firmware leaves a boot sector: at 0000:7C00.

use super::{NO_ROOM, Start, elf};
use crate::memory::GuestMemory;

const BOOT_SECTOR: u16 = 0x7c00;
/// Conventional memory.
const LIMIT: u64 = 0xa_0000;

pub fn load(memory: &dyn GuestMemory, image: &[u8]) -> Result<Start, &'static str> {
    if elf::is_elf(image) {
        let entry = elf::load(memory, image)?;
        let ip = u16::try_from(entry).map_err(|_| "its entry point is not below 64 KiB")?;
        return Ok(Start::RealMode { segment: 0, ip });
    }
    if image.is_empty() {
        return Err("its image is empty");
    }
    if u64::from(BOOT_SECTOR) + image.len() as u64 > LIMIT {
        return Err(NO_ROOM);
    }
    memory.write(BOOT_SECTOR.into(), image).map_err(|_| NO_ROOM)?;
    Ok(Start::RealMode { segment: 0, ip: BOOT_SECTOR })
}
