//! The LPC bridge 00:1f.0 of the ICH9 (Intel I/O Controller Hub 9 datasheet, 13.1): where the ACPI block and the root complex
//! register block are, and how PCI interrupts reach the interrupt controllers.

use crate::config_space::{ConfigSpace, Identity};
use crate::memory_map::{PM_BASE, RCBA_BASE};
use devices::device::{Device, Region};
use devices::pci::{PciFunction, Window, decode, encode};
use serde::{Deserialize, Serialize};

/// ACPI base address.
pub const PMBASE: u16 = 0x40;
/// ACPI control.
pub const ACPI_CNTL: u16 = 0x44;
/// Routing of PIRQA-D, one byte each.
pub const PIRQA_ROUT: u16 = 0x60;
/// Routing of PIRQE-H, one byte each.
pub const PIRQE_ROUT: u16 = 0x68;
/// Root complex base address.
pub const RCBA: u16 = 0xf0;

/// ISA interrupts that firmware routes PIRQA-D (and E-H) to.
pub const PIRQ_TO_ISA: [u8; 4] = [10, 10, 11, 11];

const ROUTE_DISABLED: u8 = 0x80;
/// First of the device interrupt route registers of devices 31 to 25, in the root complex register block.
const INTERRUPT_ROUTES: [(u8, u64); 6] =
    [(31, 0x3140), (29, 0x3144), (28, 0x3146), (27, 0x3148), (26, 0x314c), (25, 0x3150)];
/// General control and status; bit 5 (no reboot) stands: the watchdog of the chip is not there.
const GCS: u64 = 0x3410;
const GCS_NO_REBOOT: u8 = 1 << 5;

/// Levels that the PCI interrupt wires give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptLevels {
    /// Bit n: PIRQ n is asserted; it drives I/O APIC input 16 + n.
    pub pirq: u8,
    /// Bit n: ISA interrupt n is asserted by a PIRQ routed to it.
    pub isa: u16,
}

/// The LPC bridge.
#[derive(Debug)]
pub struct LpcBridge {
    config: ConfigSpace,
    /// DnIR registers, in the order of [`INTERRUPT_ROUTES`].
    routes: [u16; 6],
    /// INTA-D (bits 0-3) of each device on bus 0.
    asserted: [u8; 32],
}

/// Saved state of [`LpcBridge`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LpcBridgeState {
    config: ConfigSpace,
    routes: [u16; 6],
    asserted: [u8; 32],
}

impl Default for LpcBridge {
    fn default() -> Self {
        Self { config: Self::power_on(), routes: [0x3210; 6], asserted: [0; 32] }
    }
}

impl LpcBridge {
    fn power_on() -> ConfigSpace {
        let mut config =
            ConfigSpace::new(&Identity { vendor: 0x8086, device: 0x2918, class: 0x06_0100, revision: 0x02 });
        config.set(0x04, &[0x07, 0x00, 0x10, 0x02]);
        config.set(usize::from(PMBASE), &[0x01]); // I/O space indicator
        config.allow(usize::from(PMBASE), &[0x80, 0xff]);
        config.allow(usize::from(ACPI_CNTL), &[0x87]);
        for base in [PIRQA_ROUT, PIRQE_ROUT] {
            config.set(usize::from(base), &[ROUTE_DISABLED; 4]);
            config.allow(usize::from(base), &[0x8f; 4]);
        }
        // LPC decode ranges and general power management: storage, as nothing here decodes by them.
        config.allow(0x80, &[0xff; 0x14]);
        config.allow(0xa0, &[0xff; 4]);
        config.allow(usize::from(RCBA), &0xffff_c001u32.to_le_bytes());
        config
    }

    /// First port of the ACPI block, while it is decoded.
    #[must_use]
    pub fn pm_base(&self) -> Option<u16> {
        let base = self.config.dword(usize::from(PMBASE)) as u16 & 0xff80;
        (self.config.byte(usize::from(ACPI_CNTL)) & 0x80 != 0 && base != 0).then_some(base)
    }

    /// First address of the root complex register block (region 0 of this device), while it is decoded.
    #[must_use]
    pub fn rcba(&self) -> Option<u64> {
        let value = self.config.dword(usize::from(RCBA));
        (value & 1 != 0).then_some(u64::from(value & !0x3fff))
    }

    /// Programs the bridge as firmware does: ACPI block, root complex block, PCI interrupt routing.
    pub fn configure(&mut self) {
        self.config.write(PMBASE, 4, u32::from(PM_BASE));
        self.config.write(ACPI_CNTL, 1, 0x80);
        self.config.write(RCBA, 4, RCBA_BASE as u32 | 1);
        for (i, irq) in (0u16..).zip(PIRQ_TO_ISA) {
            self.config.write(PIRQA_ROUT + i, 1, u32::from(irq));
            self.config.write(PIRQE_ROUT + i, 1, u32::from(irq));
        }
    }

    /// The PIRQ (0 = A) that interrupt pin `pin` (0 = INTA) of `device` on bus 0 is wired to: rotating over E-H for devices
    /// 0-24 and 30, by the DnIR registers (ICH9, 10.1.40-45) for the chip's own.
    #[must_use]
    pub fn pirq_of(&self, device: u8, pin: u8) -> u8 {
        let pin = pin & 3;
        match INTERRUPT_ROUTES.iter().position(|(d, _)| *d == device) {
            Some(i) => (self.routes[i] >> (4 * pin)) as u8 & 7,
            None if device == 30 => 4 + pin,
            None => 4 + (device.wrapping_add(pin) & 3),
        }
    }

    /// Drives interrupt pin `pin` (0 = INTA) of `device` on bus 0.
    pub fn set_interrupt(&mut self, device: u8, pin: u8, level: bool) {
        let bit = 1 << (pin & 3);
        let pins = &mut self.asserted[usize::from(device & 31)];
        *pins = if level { *pins | bit } else { *pins & !bit };
    }

    /// What the interrupt wires say now.
    #[must_use]
    pub fn interrupt_levels(&self) -> InterruptLevels {
        let mut levels = InterruptLevels::default();
        for (device, pins) in (0u8..).zip(self.asserted) {
            for pin in (0..4).filter(|pin| pins & (1 << pin) != 0) {
                levels.pirq |= 1 << self.pirq_of(device, pin);
            }
        }
        for pirq in (0..8u16).filter(|pirq| levels.pirq & (1 << pirq) != 0) {
            let register = if pirq < 4 { PIRQA_ROUT + pirq } else { PIRQE_ROUT + pirq - 4 };
            let route = self.config.byte(usize::from(register));
            if route & ROUTE_DISABLED == 0 {
                levels.isa |= 1 << (route & 15);
            }
        }
        levels
    }

    /// Saves the registers and wires.
    #[must_use]
    pub fn save(&self) -> LpcBridgeState {
        let Self { config, routes, asserted } = self;
        LpcBridgeState { config: config.clone(), routes: *routes, asserted: *asserted }
    }

    /// Restores the registers and wires.
    pub fn restore(&mut self, state: &LpcBridgeState) {
        let LpcBridgeState { config, routes, asserted } = state;
        self.config = config.clone();
        self.routes = *routes;
        self.asserted = *asserted;
    }

    fn rcba_byte(&mut self, offset: u64) -> Option<(&mut u16, u32)> {
        let i = INTERRUPT_ROUTES.iter().position(|(_, at)| offset & !1 == *at)?;
        Some((&mut self.routes[i], 8 * (offset & 1) as u32))
    }
}

/// Region 0 is the root complex register block.
impl Device for LpcBridge {
    fn read(&mut self, _region: Region, offset: u64, size: u8) -> u64 {
        let mut value = 0;
        for i in 0..u64::from(size.min(8)) {
            let byte = match offset.wrapping_add(i) {
                GCS => GCS_NO_REBOOT,
                at => self.rcba_byte(at).map_or(0, |(register, shift)| (*register >> shift) as u8),
            };
            value |= u64::from(byte) << (8 * i);
        }
        value
    }

    fn write(&mut self, _region: Region, offset: u64, size: u8, value: u64) {
        for i in 0..u64::from(size.min(8)) {
            if let Some((register, shift)) = self.rcba_byte(offset.wrapping_add(i)) {
                let byte = (value >> (8 * i)) as u8 & 0x77;
                *register = *register & !(0xff << shift) | u16::from(byte) << shift;
            }
        }
    }

    fn reset(&mut self) {
        let asserted = self.asserted; // wires are driven by the devices, which reset on their own
        *self = Self { asserted, ..Self::default() };
    }
}

impl PciFunction for LpcBridge {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.config.read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        let before = (self.pm_base(), self.rcba(), self.interrupt_levels());
        self.config.write(offset, size, value);
        before != (self.pm_base(), self.rcba(), self.interrupt_levels())
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
    fn acpi_block_is_decoded_when_enabled_and_placed() {
        let mut lpc = LpcBridge::default();
        assert_eq!(lpc.pm_base(), None);
        assert!(!lpc.config_write(PMBASE, 4, 0x601));
        assert!(lpc.config_write(ACPI_CNTL, 1, 0x80));
        assert_eq!(lpc.pm_base(), Some(0x600));
    }

    #[test]
    fn device_pins_rotate_over_pirq_e_to_h() {
        let lpc = LpcBridge::default();
        assert_eq!([0, 1, 2, 3].map(|pin| lpc.pirq_of(1, pin)), [5, 6, 7, 4]);
        assert_eq!(lpc.pirq_of(31, 1), 1);
        assert_eq!(lpc.pirq_of(30, 2), 6);
    }

    #[test]
    fn shared_pirq_stays_asserted_until_its_last_source_falls() {
        let mut lpc = LpcBridge::default();
        lpc.set_interrupt(2, 0, true);
        lpc.set_interrupt(6, 0, true);
        assert_eq!(lpc.interrupt_levels(), InterruptLevels { pirq: 1 << 6, isa: 0 }, "routing to the PIC is disabled");
        assert!(lpc.config_write(PIRQE_ROUT + 2, 1, 11), "the board has to look at the levels again");
        lpc.configure();
        lpc.set_interrupt(2, 0, false);
        assert_eq!(lpc.interrupt_levels(), InterruptLevels { pirq: 1 << 6, isa: 1 << 11 });
        lpc.set_interrupt(6, 0, false);
        assert_eq!(lpc.interrupt_levels(), InterruptLevels::default());
    }

    #[test]
    fn route_registers_of_the_root_complex_block_move_the_pins_of_device_31() {
        let mut lpc = LpcBridge::default();
        lpc.write(0, 0x3140, 2, 0x3217);
        assert_eq!(lpc.pirq_of(31, 0), 7);
        assert_eq!(lpc.read(0, 0x3140, 4), 0x3217);
        assert_eq!(lpc.read(0, GCS, 4), 0x20);
    }
}
