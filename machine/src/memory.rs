//! RAM and firmware of the board, and the processors' view of them.

use crate::boot::firmware::Firmware;
use crate::boot::{GuestMemory, OutsideMemory};
use crate::error::Error;
use chipset::memory_map::{FOUR_GIB, MIB, PAM_BASE, RamLayout, VGA_BASE};
use chipset::root_complex::Decoded;
use processor::{GuestRam, MemoryMap, MemoryRegion};
use std::sync::Arc;

/// RAM, with the firmware's image behind it in the same allocation.
pub struct BoardMemory {
    /// The bytes.
    pub ram: Arc<GuestRam>,
    /// Where RAM is.
    pub layout: RamLayout,
    /// Offset in `ram`, length and address of the firmware.
    firmware: Option<FirmwarePlace>,
}

struct FirmwarePlace {
    offset: u64,
    length: u64,
    base: u64,
    legacy_base: u64,
    image: Vec<u8>,
}

impl BoardMemory {
    /// `size` bytes of RAM, and the firmware.
    pub fn new(size: u64, firmware: Option<&Firmware>) -> Result<Self, Error> {
        let extra = firmware.map_or(0, |firmware| firmware.image().len() as u64);
        let memory = Self {
            ram: Arc::new(GuestRam::try_new(size + extra).map_err(|_| Error::HostMemory(size))?),
            layout: RamLayout::new(size),
            firmware: firmware.map(|firmware| FirmwarePlace {
                offset: size,
                length: extra,
                base: firmware.base(),
                legacy_base: firmware.legacy_base(),
                image: firmware.image().to_vec(),
            }),
        };
        memory.load_firmware();
        Ok(memory)
    }

    /// Puts the firmware's image back (it is read-only to the guest, but a reset is a reset).
    pub fn load_firmware(&self) {
        if let Some(place) = &self.firmware {
            self.ram.write(place.offset, &place.image);
        }
    }

    /// The processors' map: RAM, shadowed parts as the PAM registers say, firmware.
    pub fn map(&self, decoded: &Decoded) -> MemoryMap {
        let RamLayout { low, high } = self.layout;
        let ram = |base: u64, end: u64, offset: u64, writable| {
            let end = end.min(low.max(FOUR_GIB + high));
            MemoryRegion { base, length: end.saturating_sub(base), offset, writable }
        };
        let mut regions = vec![ram(MIB, low, MIB, true), ram(0, VGA_BASE.min(low), 0, true)];
        if high > 0 {
            regions.push(MemoryRegion { base: FOUR_GIB, length: high, offset: low, writable: true });
        }
        if decoded.smram_open {
            regions.push(ram(VGA_BASE, PAM_BASE.min(low), VGA_BASE, true));
        }
        for shadow in &decoded.shadow {
            let end = shadow.base + shadow.size;
            if shadow.read_ram {
                regions.push(ram(shadow.base, end.min(low), shadow.base, shadow.write_ram));
            } else if let Some(place) = self.firmware.as_ref().filter(|place| shadow.base >= place.legacy_base) {
                let offset = place.offset + place.length - (MIB - shadow.base);
                regions.push(MemoryRegion { base: shadow.base, length: shadow.size, offset, writable: false });
            }
        }
        if let Some(place) = &self.firmware {
            regions.push(MemoryRegion {
                base: place.base,
                length: place.length,
                offset: place.offset,
                writable: false,
            });
        }
        regions.retain(|region| region.length > 0);
        MemoryMap { regions: join(regions) }
    }
}

/// Joins neighbours, so that the list that every TLB miss searches stays short.
fn join(regions: Vec<MemoryRegion>) -> Vec<MemoryRegion> {
    let mut joined: Vec<MemoryRegion> = Vec::new();
    for region in regions {
        match joined.iter_mut().find(|other| {
            other.base + other.length == region.base
                && other.offset + other.length == region.offset
                && other.writable == region.writable
        }) {
            Some(other) => other.length += region.length,
            None => joined.push(region),
        }
    }
    joined
}

impl GuestMemory for BoardMemory {
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideMemory> {
        let outside = OutsideMemory { address, length: data.len() as u64 };
        let end = address.checked_add(data.len() as u64).ok_or(outside)?;
        let RamLayout { low, high } = self.layout;
        if end <= low {
            self.ram.write(address, data);
        } else if address >= FOUR_GIB && end <= FOUR_GIB + high {
            self.ram.write(address - FOUR_GIB + low, data);
        } else {
            return Err(outside);
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.layout.size()
    }
}
