//! The memory controller hub: host bridge 00:00.0 of the Intel Q35 (Intel 3 Series Express Chipset Family datasheet, 5.1).
//!
//! It decides where the ECAM window is and whether reads and writes of 0xC0000-0xFFFFF go to RAM or to the firmware. There is
//! no system management mode: the SMRAM registers can be written and read, and only `D_OPEN` has an effect.

use crate::config_space::{ConfigSpace, Identity};
use crate::memory_map::{MIB, PAM_BASE};
use devices::device::{Device, Region};
use devices::pci::{PciFunction, Window, decode, encode};
use serde::{Deserialize, Serialize};

/// PCI Express register range base address, 64 bits.
pub const PCIEXBAR: u16 = 0x60;
/// Programmable attribute map, 7 bytes.
pub const PAM0: u16 = 0x90;
/// System management RAM control.
pub const SMRAM: u16 = 0x9d;

const SMRAM_D_LCK: u8 = 1 << 4;
const SMRAM_D_OPEN: u8 = 1 << 6;
const SMRAM_G_SMRAME: u8 = 1 << 3;

/// Where accesses to one part of 0xC0000-0xFFFFF go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// Reads come from RAM; otherwise from the firmware (or nothing).
    pub read_ram: bool,
    /// Writes go to RAM; otherwise they are lost.
    pub write_ram: bool,
}

/// The host bridge.
#[derive(Debug)]
pub struct HostBridge {
    config: ConfigSpace,
}

/// Saved state of [`HostBridge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostBridgeState {
    config: ConfigSpace,
}

impl Default for HostBridge {
    fn default() -> Self {
        Self { config: Self::power_on() }
    }
}

impl HostBridge {
    fn power_on() -> ConfigSpace {
        let mut config =
            ConfigSpace::new(&Identity { vendor: 0x8086, device: 0x29c0, class: 0x06_0000, revision: 0x02 });
        config.set(0x04, &[0x06]); // memory and bus master are hardwired on
        config.set(usize::from(SMRAM), &[0x02, 0x38]);
        // Enable, length, and base bits 35:26. Bits 27:26 count only for windows smaller than 256 MiB.
        config.allow(usize::from(PCIEXBAR), &0x0000_000f_fc00_0007u64.to_le_bytes());
        config.allow(usize::from(PAM0), &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
        config.allow(usize::from(SMRAM), &[0x78, 0x87]);
        config
    }

    /// The ECAM window: first address and size (datasheet, 5.1.15). `None` when off or when the length is reserved.
    #[must_use]
    pub fn ecam(&self) -> Option<(u64, u64)> {
        let low = self.config.dword(usize::from(PCIEXBAR));
        let value = u64::from(self.config.dword(usize::from(PCIEXBAR) + 4)) << 32 | u64::from(low);
        let size = match (value >> 1) & 3 {
            _ if value & 1 == 0 => return None,
            0 => 256 * MIB,
            1 => 128 * MIB,
            2 => 64 * MIB,
            _ => return None,
        };
        Some((value & 0xf_ffff_ffff & !(size - 1), size))
    }

    /// Turns the ECAM window on at `base` (aligned to 256 MiB), as firmware does.
    pub fn enable_ecam(&mut self, base: u64) {
        self.config.write(PCIEXBAR, 4, 0);
        self.config.write(PCIEXBAR + 4, 4, (base >> 32) as u32);
        self.config.write(PCIEXBAR, 4, base as u32 | 1);
    }

    /// The thirteen parts of 0xC0000-0xFFFFF in ascending order (datasheet, 5.1.17-23).
    #[must_use]
    pub fn shadow(&self) -> [Shadow; 13] {
        std::array::from_fn(|i| {
            let (register, bits) = if i == 12 { (0, 4) } else { (1 + i / 2, 4 * (i % 2)) };
            let attributes = self.config.byte(usize::from(PAM0) + register) >> bits;
            Shadow {
                base: PAM_BASE + 0x4000 * i as u64,
                size: if i == 12 { 0x1_0000 } else { 0x4000 },
                read_ram: attributes & 1 != 0,
                write_ram: attributes & 2 != 0,
            }
        })
    }

    /// Makes all of 0xC0000-0xFFFFF plain RAM: the state that a boot without firmware starts from.
    pub fn shadow_all_ram(&mut self) {
        self.config.set(usize::from(PAM0), &[0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]);
    }

    /// Reset that leaves where 0xC0000-0xFFFFF goes: firmware that lives in the RAM there goes on after a sleep.
    pub fn reset_all_but_shadow(&mut self) {
        let shadow: [u8; 7] = std::array::from_fn(|i| self.config.byte(usize::from(PAM0) + i));
        self.reset();
        self.config.set(usize::from(PAM0), &shadow);
    }

    /// True while 0xA0000-0xBFFFF reaches the RAM behind it instead of video memory.
    #[must_use]
    pub fn smram_open(&self) -> bool {
        let smram = self.config.byte(usize::from(SMRAM));
        smram & (SMRAM_D_OPEN | SMRAM_G_SMRAME) == SMRAM_D_OPEN | SMRAM_G_SMRAME
    }

    /// Saves the registers.
    #[must_use]
    pub fn save(&self) -> HostBridgeState {
        let Self { config } = self;
        HostBridgeState { config: config.clone() }
    }

    /// Restores the registers.
    pub fn restore(&mut self, state: &HostBridgeState) {
        let HostBridgeState { config } = state;
        self.config = config.clone();
    }
}

impl Device for HostBridge {
    fn read(&mut self, _region: Region, _offset: u64, _size: u8) -> u64 {
        u64::MAX
    }

    fn write(&mut self, _region: Region, _offset: u64, _size: u8, _value: u64) {}

    fn reset(&mut self) {
        self.config = Self::power_on();
    }
}

impl PciFunction for HostBridge {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.config.read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        let before = (self.ecam(), self.shadow(), self.smram_open());
        let locked = self.config.byte(usize::from(SMRAM)) & SMRAM_D_LCK != 0;
        let (smram, esmramc) = (self.config.byte(usize::from(SMRAM)), self.config.byte(usize::from(SMRAM) + 1));
        self.config.write(offset, size, value);
        if locked {
            // D_LCK makes the SMRAM registers read-only until reset.
            self.config.set(usize::from(SMRAM), &[smram, esmramc]);
        } else {
            // D_OPEN cannot be set together with the lock.
            let new = self.config.byte(usize::from(SMRAM));
            if new & SMRAM_D_LCK != 0 {
                self.config.set(usize::from(SMRAM), &[new & !SMRAM_D_OPEN]);
            }
        }
        before != (self.ecam(), self.shadow(), self.smram_open())
    }

    fn windows(&self) -> Vec<Window> {
        Vec::new()
    }

    fn save_encoded(&self) -> Vec<u8> {
        encode(&self.save())
    }

    fn restore_encoded(&mut self, state: &[u8]) -> bool {
        decode(state).map(|state| self.restore(&state)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pciexbar_enables_and_moves_the_ecam_window() {
        let mut mch = HostBridge::default();
        assert_eq!(mch.ecam(), None);
        assert!(!mch.config_write(PCIEXBAR + 4, 4, 0));
        assert!(mch.config_write(PCIEXBAR, 4, 0xb000_0001));
        assert_eq!(mch.ecam(), Some((0xb000_0000, 256 * MIB)));
        assert!(mch.config_write(PCIEXBAR, 1, 0x05));
        assert_eq!(mch.ecam(), Some((0xb000_0000, 64 * MIB)));
        mch.config_write(PCIEXBAR, 1, 0x07);
        assert_eq!(mch.ecam(), None, "reserved length");
    }

    #[test]
    fn pam_registers_attribute_each_part_of_the_firmware_range() {
        let mut mch = HostBridge::default();
        assert!(mch.shadow().iter().all(|s| !s.read_ram && !s.write_ram));
        assert!(mch.config_write(PAM0, 1, 0x30));
        assert!(mch.config_write(PAM0 + 1, 1, 0x21));
        let shadow = mch.shadow();
        assert_eq!(shadow[0], Shadow { base: 0xc_0000, size: 0x4000, read_ram: true, write_ram: false });
        assert_eq!(shadow[1], Shadow { base: 0xc_4000, size: 0x4000, read_ram: false, write_ram: true });
        assert_eq!(shadow[12], Shadow { base: 0xf_0000, size: 0x1_0000, read_ram: true, write_ram: true });
        assert_eq!(shadow[11].base, 0xe_c000);
    }

    #[test]
    fn smram_lock_freezes_smram_until_reset() {
        let mut mch = HostBridge::default();
        mch.config_write(SMRAM, 1, 0x4a);
        assert!(mch.smram_open());
        mch.config_write(SMRAM, 1, 0x5a);
        assert!(!mch.smram_open());
        mch.config_write(SMRAM, 1, 0x4a);
        assert_eq!(mch.config_read(SMRAM, 1) & 0x50, 0x10);
        mch.reset();
        assert_eq!(mch.config_read(SMRAM, 1), 0x02);
    }
}
