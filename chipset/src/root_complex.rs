//! The PCIe root complex: configuration space of bus 0 by the configuration ports and by ECAM, and what its functions decode.
//!
//! The board asks [`RootComplex::decoded`] for everything that configuration registers place in the memory and port maps, and
//! asks again whenever a configuration access says that it changed.

use crate::lpc::{InterruptLevels, LpcBridge, LpcBridgeState};
use crate::mch::{HostBridge, HostBridgeState, Shadow};
use crate::power::{ResetControl, ResetControlState};
use devices::device::{Device, Region};
use devices::pci::{PciFunction, Window};
use devices::ports::Power;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// First of the configuration ports: CONFIG_ADDRESS.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// Reset control, a byte inside the CONFIG_ADDRESS register.
pub const RESET_CONTROL: u16 = 0xcf9;
/// CONFIG_DATA, 4 ports.
pub const CONFIG_DATA: u16 = 0xcfc;

/// Device (0-31) and function (0-7) on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Device number.
    pub device: u8,
    /// Function number.
    pub function: u8,
}

impl Slot {
    /// The host bridge.
    pub const HOST_BRIDGE: Self = Self::new(0, 0);
    /// The LPC bridge.
    pub const LPC: Self = Self::new(31, 0);

    /// Device and function, taken modulo 32 and 8.
    #[must_use]
    pub const fn new(device: u8, function: u8) -> Self {
        Self { device: device & 31, function: function & 7 }
    }

    /// The requester id of the function: bus 0, device, function.
    #[must_use]
    pub const fn requester_id(self) -> u16 {
        (self.device as u16) << 3 | self.function as u16
    }

    /// The function with this requester id, on bus 0.
    #[must_use]
    pub const fn of_requester(id: u16) -> Option<Self> {
        if id >> 8 == 0 { Some(Self::new((id >> 3) as u8, id as u8)) } else { None }
    }
}

/// What configuration registers place in the address spaces now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// ECAM window: first address and size. Accesses go to [`RootComplex::ecam_read`] and [`RootComplex::ecam_write`].
    pub ecam: Option<(u64, u64)>,
    /// 0xC0000-0xFFFFF: RAM or firmware, in ascending order.
    pub shadow: [Shadow; 13],
    /// 0xA0000-0xBFFFF is RAM instead of video memory.
    pub smram_open: bool,
    /// First port of the ACPI block ([`crate::power::PowerManagement`] region 0).
    pub pm_base: Option<u16>,
    /// First address of the root complex register block (region 0 of the LPC bridge, 16 KiB).
    pub rcba: Option<u64>,
    /// The BARs of the functions.
    pub windows: Vec<(Slot, Window)>,
}

/// The root complex with the two functions of the chipset and whatever else is plugged into bus 0.
pub struct RootComplex {
    address: u32,
    mch: HostBridge,
    lpc: LpcBridge,
    reset_control: ResetControl,
    functions: BTreeMap<Slot, Box<dyn PciFunction>>,
}

/// Saved state of [`RootComplex`], without the functions plugged in; see [`RootComplex::save_functions`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootComplexState {
    address: u32,
    mch: HostBridgeState,
    lpc: LpcBridgeState,
    reset_control: ResetControlState,
}

impl RootComplex {
    /// A root complex with host bridge and LPC bridge only. `control` hears of resets by port 0xcf9.
    #[must_use]
    pub fn new(control: Box<dyn Power>) -> Self {
        Self {
            address: 0,
            mch: HostBridge::default(),
            lpc: LpcBridge::default(),
            reset_control: ResetControl::new(control),
            functions: BTreeMap::new(),
        }
    }

    /// Plugs `function` into `slot`.
    ///
    /// # Errors
    /// Gives the function back when the slot is taken.
    pub fn plug(&mut self, slot: Slot, function: Box<dyn PciFunction>) -> Result<(), Box<dyn PciFunction>> {
        if self.is_present(slot) {
            return Err(function);
        }
        self.functions.insert(slot, function);
        Ok(())
    }

    /// The first device number from `from` on of which no function is plugged in.
    #[must_use]
    pub fn free_device(&self, from: u8) -> Option<u8> {
        (from..32).find(|&device| (0..8).all(|function| !self.is_present(Slot { device, function })))
    }

    /// The host bridge.
    #[must_use]
    pub fn host_bridge(&self) -> &HostBridge {
        &self.mch
    }

    /// The host bridge, to be programmed by the board in place of firmware.
    pub fn host_bridge_mut(&mut self) -> &mut HostBridge {
        &mut self.mch
    }

    /// The LPC bridge.
    #[must_use]
    pub fn lpc(&self) -> &LpcBridge {
        &self.lpc
    }

    /// The LPC bridge, to be programmed by the board in place of firmware.
    pub fn lpc_mut(&mut self) -> &mut LpcBridge {
        &mut self.lpc
    }

    /// The function in `slot`.
    pub fn function(&mut self, slot: Slot) -> Option<&mut dyn PciFunction> {
        match slot {
            Slot::HOST_BRIDGE => Some(&mut self.mch),
            Slot::LPC => Some(&mut self.lpc),
            _ => self.functions.get_mut(&slot).map(|f| &mut **f as &mut dyn PciFunction),
        }
    }

    /// All functions on bus 0, in ascending order.
    #[must_use]
    pub fn slots(&self) -> Vec<Slot> {
        let mut slots: Vec<Slot> = self.functions.keys().copied().collect();
        slots.extend([Slot::HOST_BRIDGE, Slot::LPC]);
        slots.sort_unstable();
        slots
    }

    /// Reads region `region` (a BAR) of the function in `slot`; all ones if there is none.
    pub fn read(&mut self, slot: Slot, region: Region, offset: u64, size: u8) -> u64 {
        self.function(slot).map_or(u64::MAX, |f| f.read(region, offset, size))
    }

    /// Writes region `region` (a BAR) of the function in `slot`.
    pub fn write(&mut self, slot: Slot, region: Region, offset: u64, size: u8, value: u64) {
        if let Some(function) = self.function(slot) {
            function.write(region, offset, size, value);
        }
    }

    /// What the configuration registers place in the address spaces now.
    #[must_use]
    pub fn decoded(&self) -> Decoded {
        let windows = self.functions.iter().flat_map(|(slot, f)| f.windows().into_iter().map(|w| (*slot, w)));
        Decoded {
            ecam: self.mch.ecam(),
            shadow: self.mch.shadow(),
            smram_open: self.mch.smram_open(),
            pm_base: self.lpc.pm_base(),
            rcba: self.lpc.rcba(),
            windows: windows.collect(),
        }
    }

    /// Drives interrupt pin `pin` (0 = INTA) of `device`; gives the levels that result.
    pub fn set_interrupt(&mut self, device: u8, pin: u8, level: bool) -> InterruptLevels {
        self.lpc.set_interrupt(device, pin, level);
        self.lpc.interrupt_levels()
    }

    /// What the PCI interrupt wires say now; it can change with any configuration write to the LPC bridge.
    #[must_use]
    pub fn interrupt_levels(&self) -> InterruptLevels {
        self.lpc.interrupt_levels()
    }

    /// Reads ports 0xcf8-0xcff.
    pub fn port_read(&mut self, port: u16, size: u8) -> u32 {
        match port {
            CONFIG_ADDRESS if size == 4 => self.address,
            RESET_CONTROL if size == 1 => u32::from(self.reset_control.read()),
            CONFIG_DATA..0xd00 => match self.data_target(port, size) {
                Some((slot, offset)) => self.config_read(slot, offset, size),
                None => all_ones(size),
            },
            _ => all_ones(size),
        }
    }

    /// Writes ports 0xcf8-0xcff. True when [`decoded`](Self::decoded) or the interrupt levels may have
    /// changed.
    pub fn port_write(&mut self, port: u16, size: u8, value: u32) -> bool {
        match port {
            CONFIG_ADDRESS if size == 4 => self.address = value & 0x80ff_ffff,
            RESET_CONTROL if size == 1 => self.reset_control.write(value as u8),
            CONFIG_DATA..0xd00 => {
                if let Some((slot, offset)) = self.data_target(port, size) {
                    return self.config_write(slot, offset, size, value);
                }
            }
            _ => {}
        }
        false
    }

    /// Reads `size` bytes at `offset` in the ECAM window.
    pub fn ecam_read(&mut self, offset: u64, size: u8) -> u64 {
        if size == 8 {
            return self.ecam_read(offset, 4) | self.ecam_read(offset.wrapping_add(4), 4) << 32;
        }
        match ecam_target(offset) {
            Some((slot, register)) => u64::from(self.config_read(slot, register, size)),
            None => u64::from(all_ones(size)),
        }
    }

    /// Writes `size` bytes at `offset` in the ECAM window. True when [`decoded`](Self::decoded) or the interrupt levels may have
    /// changed.
    pub fn ecam_write(&mut self, offset: u64, size: u8, value: u64) -> bool {
        if size == 8 {
            let low = self.ecam_write(offset, 4, value & 0xffff_ffff);
            return self.ecam_write(offset.wrapping_add(4), 4, value >> 32) || low;
        }
        match ecam_target(offset) {
            Some((slot, register)) => self.config_write(slot, register, size, value as u32),
            None => false,
        }
    }

    /// Reads 1, 2 or 4 bytes of configuration space at `offset` (0..4096); a function that is not there reads all ones.
    pub fn config_read(&mut self, slot: Slot, offset: u16, size: u8) -> u32 {
        if size > 1 && offset & u16::from(size - 1) != 0 {
            // An access that is not aligned is done byte by byte; bytes beyond the function's space read all ones.
            return (0..u16::from(size))
                .map(|i| match offset + i {
                    at @ 0..0x1000 => self.config_read(slot, at, 1) << (8 * i),
                    _ => 0xff << (8 * i),
                })
                .fold(0, |a, b| a | b);
        }
        let multifunction = slot.function == 0 && (1..8).any(|f| self.is_present(Slot { function: f, ..slot }));
        let Some(function) = self.function(slot) else { return all_ones(size) };
        let mut value = function.config_read(offset, size);
        // Header type, bit 7: set on function 0 when the device has others.
        if multifunction && offset <= 0x0e && 0x0e < offset + u16::from(size) {
            value |= 0x80 << (8 * (0x0e - offset));
        }
        value & all_ones(size)
    }

    /// Writes 1, 2 or 4 bytes of configuration space. True when [`decoded`](Self::decoded) or the interrupt levels may have
    /// changed.
    pub fn config_write(&mut self, slot: Slot, offset: u16, size: u8, value: u32) -> bool {
        if size > 1 && offset & u16::from(size - 1) != 0 {
            let mut changed = false;
            for i in (0..u16::from(size)).filter(|i| offset + i < 0x1000) {
                changed |= self.config_write(slot, offset + i, 1, value >> (8 * i) & 0xff);
            }
            return changed;
        }
        self.function(slot).is_some_and(|f| f.config_write(offset, size, value & all_ones(size)))
    }

    /// Power-on reset of the root complex and everything plugged in.
    pub fn reset(&mut self) {
        self.mch.reset();
        self.lpc.reset();
        self.reset_others();
    }

    /// As [`RootComplex::reset`], for a sleep that memory survives: it stays where the processors see it, and power management where software finds
    /// it, for SeaBIOS does not put it there again when it wakes.
    pub fn reset_for_sleep(&mut self) {
        self.mch.reset_all_but_shadow();
        self.reset_others();
    }

    fn reset_others(&mut self) {
        self.address = 0;
        self.reset_control.reset();
        for function in self.functions.values_mut() {
            function.reset();
        }
    }

    /// Saves everything but the functions plugged in.
    #[must_use]
    pub fn save(&self) -> RootComplexState {
        let Self { address, mch, lpc, reset_control, functions: _ } = self;
        RootComplexState { address: *address, mch: mch.save(), lpc: lpc.save(), reset_control: reset_control.save() }
    }

    /// The saved states of the functions plugged in, in ascending order of their slots.
    #[must_use]
    pub fn save_functions(&self) -> Vec<(Slot, Vec<u8>)> {
        self.functions.iter().map(|(slot, function)| (*slot, function.save_encoded())).collect()
    }

    /// Gives the functions plugged in their states. `None`: those of `states` are others.
    #[must_use]
    pub fn restore_functions(&mut self, states: &[(Slot, Vec<u8>)]) -> Option<()> {
        if states.len() != self.functions.len() {
            return None;
        }
        for ((slot, function), (saved_slot, state)) in self.functions.iter_mut().zip(states) {
            if slot != saved_slot || !function.restore_encoded(state) {
                return None;
            }
        }
        Some(())
    }

    /// Restores everything but the functions plugged in.
    pub fn restore(&mut self, state: &RootComplexState) {
        let RootComplexState { address, mch, lpc, reset_control } = state;
        self.address = *address;
        self.mch.restore(mch);
        self.lpc.restore(lpc);
        self.reset_control.restore(reset_control);
    }

    fn is_present(&self, slot: Slot) -> bool {
        matches!(slot, Slot::HOST_BRIDGE | Slot::LPC) || self.functions.contains_key(&slot)
    }

    /// The function and register that an access to CONFIG_DATA reaches; `None` while disabled or on another bus.
    fn data_target(&self, port: u16, size: u8) -> Option<(Slot, u16)> {
        let within = port - CONFIG_DATA;
        if self.address & 0x80ff_0000 != 0x8000_0000 || within + u16::from(size) > 4 {
            return None;
        }
        let slot = Slot::new((self.address >> 11) as u8, (self.address >> 8) as u8);
        // As on QEMU's boards the low two bits count too; kvm-unit-tests reads words through port 0xcfc with them.
        Some((slot, (self.address & 0xff) as u16 | within))
    }
}

/// The function and register at `offset` in the ECAM window; `None` on a bus that is not there.
fn ecam_target(offset: u64) -> Option<(Slot, u16)> {
    (offset >> 20 == 0).then(|| (Slot::new((offset >> 15) as u8, (offset >> 12) as u8), (offset & 0xfff) as u16))
}

const fn all_ones(size: u8) -> u32 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::power::NoPower;

    struct Stub(Vec<u8>);

    impl Device for Stub {
        fn read(&mut self, _: Region, _: u64, _: u8) -> u64 {
            0
        }
        fn write(&mut self, _: Region, _: u64, _: u8, _: u64) {}
        fn reset(&mut self) {}
    }

    impl PciFunction for Stub {
        fn config_read(&mut self, offset: u16, size: u8) -> u32 {
            (0..usize::from(size)).map(|i| u32::from(self.0[usize::from(offset) + i]) << (8 * i)).sum()
        }
        fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
            for i in 0..usize::from(size) {
                self.0[usize::from(offset) + i] = (value >> (8 * i)) as u8;
            }
            false
        }
        fn windows(&self) -> Vec<Window> {
            Vec::new()
        }
        fn save_encoded(&self) -> Vec<u8> {
            Vec::new()
        }
        fn restore_encoded(&mut self, _: &[u8]) -> bool {
            true
        }
    }

    fn complex() -> RootComplex {
        let mut root = RootComplex::new(Box::new(NoPower));
        for function in [0, 3] {
            assert!(root.plug(Slot::new(2, function), Box::new(Stub(vec![function; 4096]))).is_ok());
        }
        root
    }

    fn read(root: &mut RootComplex, address: u32) -> u32 {
        root.port_write(CONFIG_ADDRESS, 4, address);
        root.port_read(CONFIG_DATA, 4)
    }

    #[test]
    fn configuration_ports_reach_the_chipset_functions() {
        let mut root = complex();
        assert_eq!(read(&mut root, 0x8000_0000), 0x29c0_8086);
        assert_eq!(read(&mut root, 0x8000_f800), 0x2918_8086);
        assert_eq!(root.port_read(CONFIG_DATA + 2, 2), 0x2918);
        assert_eq!(read(&mut root, 0x0000_0000), u32::MAX, "disabled");
        assert_eq!(read(&mut root, 0x8001_0000), u32::MAX, "bus 1");
        assert_eq!(read(&mut root, 0x8000_0800), u32::MAX, "empty slot");
    }

    #[test]
    fn byte_access_at_cf9_is_not_the_address_register() {
        let mut root = complex();
        root.port_write(CONFIG_ADDRESS, 4, 0x8000_f800);
        root.port_write(RESET_CONTROL, 1, 0x02);
        assert_eq!(root.port_read(CONFIG_ADDRESS, 4), 0x8000_f800);
        assert_eq!(root.port_read(RESET_CONTROL, 1), 0x02);
    }

    #[test]
    fn ecam_reaches_extended_space_and_other_buses_are_empty() {
        let mut root = complex();
        assert_eq!(root.ecam_read(2 << 15 | 3 << 12 | 0x800, 4), 0x0303_0303);
        assert_eq!(root.ecam_read(0, 8) as u32, 0x29c0_8086);
        assert_eq!(root.ecam_read(1 << 20, 2), 0xffff);
        root.ecam_write(2 << 15 | 3 << 12 | 0xffd, 4, 0x1122_3344);
        assert_eq!(root.ecam_read(2 << 15 | 3 << 12 | 0xffc, 4), 0x2233_4403);
        assert_eq!(root.ecam_read(2 << 15 | 3 << 12 | 0xffd, 4), 0xff22_3344);
    }

    #[test]
    fn function_0_of_a_device_with_several_says_multifunction() {
        let mut root = complex();
        assert_eq!(root.config_read(Slot::new(2, 0), 0x0e, 1), 0x80);
        assert_eq!(root.config_read(Slot::new(2, 0), 0x0c, 4), 0x0080_0000);
        assert_eq!(root.config_read(Slot::new(2, 3), 0x0e, 1), 3);
        assert_eq!(root.config_read(Slot::LPC, 0x0e, 1), 0);
    }

    #[test]
    fn taken_slot_gives_the_function_back() {
        let mut root = complex();
        assert!(root.plug(Slot::new(2, 3), Box::new(Stub(vec![0; 4096]))).is_err());
        assert!(root.plug(Slot::LPC, Box::new(Stub(vec![0; 4096]))).is_err());
        assert_eq!(root.free_device(1), Some(1));
        assert_eq!(root.free_device(2), Some(3));
    }

    #[test]
    fn configuration_write_that_moves_a_window_says_so() {
        let mut root = complex();
        root.port_write(CONFIG_ADDRESS, 4, 0x8000_0060);
        assert!(root.port_write(CONFIG_DATA, 4, 0xb000_0001));
        assert_eq!(root.decoded().ecam, Some((0xb000_0000, 0x1000_0000)));
        let state = root.save();
        root.reset();
        assert_eq!(root.decoded().ecam, None);
        root.restore(&state);
        assert_eq!(root.save(), state);
        assert!(root.decoded().ecam.is_some());
    }
}
