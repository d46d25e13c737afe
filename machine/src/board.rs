//! The board: its devices, who answers at which address, and what happens with what devices ask for.

pub mod state;

use crate::config::{Config, Sata};
use crate::error::Error;
use crate::interrupts::InterruptWires;
use crate::iommu::{self, HPET_REQUESTER, IO_APIC_REQUESTER, PlainAgent, RemappedDma, Units};
use crate::memory::BoardMemory;
use crate::ports::{BoardClock, BoardDma, BoardMsi, BoardPin, BoardPower, Line, PeerDma, Request, Wires};
use chipset::fw_cfg::{FwCfg, Items, REGION_DMA, REGION_SELECTOR};
use chipset::memory_map::{HPET_BASE, IO_APIC_BASE, PM_SIZE, RCBA_SIZE};
use chipset::power::{PowerManagement, REGION_APM, REGION_PM};
use chipset::root_complex::{Decoded, RootComplex, Slot};
use chipset::vtd::{Interrupt, Source};
use devices::ahci::{Ahci, AtaDisk, Drive, OpticalDrive};
use devices::debug_port::DebugPort;
use devices::device::{Device, Region};
use devices::dma_tester::DmaTester;
use devices::edu::Edu;
use devices::hpet::Hpet;
use devices::i8042::{I8042, I8042Pins};
use devices::ioapic::IoApic;
use devices::isa_debug_exit::IsaDebugExit;
use devices::pc_testdev::PcTestdev;
use devices::pci::ats::TranslationAgent;
use devices::pci::core::InterruptPorts;
use devices::pci::{PciFunction, WindowKind};
use devices::pci_testdev::PciTestdev;
use devices::pic::DualPic;
use devices::pit::Pit;
use devices::ports::{Clock, Dma, PinBox, PowerRequest, Unconnected};
use devices::rtc::Rtc;
use devices::serial::Serial;
use devices::virtio::blk::Block;
use devices::virtio::console::Console;
use devices::virtio::net::Net;
use devices::virtio::pci::{VirtioPci, VirtioPorts};
use devices::virtio::rng::Entropy;
use processor::MemoryMap;
use processor::apic::InterruptMessage;
use std::sync::Arc;

/// Ports and interrupts of COM1 to COM4.
pub const SERIAL_PORTS: [(u16, u8); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// Where the SATA controller of the ICH9 is.
const SATA: Slot = Slot { device: 0x1f, function: 2 };

/// Which device an alarm belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Pit,
    Rtc,
    Hpet,
    Power,
    Serial(usize),
    Unit(usize),
    Function(Slot),
}

/// The devices of a PC of QEMU's q35 kind.
pub struct Board {
    /// Shared with the devices' ports.
    pub wires: Arc<Wires>,
    /// RAM and firmware.
    pub memory: BoardMemory,
    /// PCI.
    pub root: RootComplex,
    /// The remapping units.
    pub units: Units,
    /// The I/O APIC's interrupts are verified by its source id.
    verify_io_apic: bool,
    decoded: Decoded,
    interrupts: InterruptWires,
    pic: DualPic,
    io_apic: IoApic,
    pit: Pit,
    rtc: Rtc,
    hpet: Hpet,
    serial: Vec<Serial>,
    keyboard: I8042,
    power: PowerManagement,
    fw_cfg: Option<FwCfg>,
    debug: DebugPort,
    /// The interval timer answers at its ports.
    has_pit: bool,
    debug_exit: Option<IsaDebugExit>,
    test: Option<PcTestdev>,
    alarms: Vec<Alarm>,
    console: Option<Slot>,
    /// Interrupt messages for the processors: sender (none for devices) and message.
    pub messages: Vec<(Option<usize>, InterruptMessage)>,
    /// The level of the 8259's output, when it has changed.
    pub pic_output: Option<bool>,
    /// What devices ask of the machine as a whole.
    pub power_requests: Vec<PowerRequest>,
    /// The processors' map of memory has changed.
    pub map_changed: bool,
}

impl Board {
    /// A board with the devices of `config`, which gives them away.
    pub fn new(config: &mut Config, memory: BoardMemory, items: Option<Items>) -> Result<Self, Error> {
        if config.serial.len() > SERIAL_PORTS.len() {
            return Err(Error::SerialPorts(config.serial.len()));
        }
        let wires = Arc::new(Wires::default());
        let pin = |line| -> PinBox { Box::new(BoardPin(wires.clone(), line)) };
        let mut alarms = Vec::new();
        let mut clock = |alarm| -> Box<dyn Clock> {
            let (clock, id) = BoardClock::new(&wires);
            debug_assert_eq!(id, alarms.len());
            alarms.push(alarm);
            Box::new(clock)
        };
        let mut root = RootComplex::new(Box::new(BoardPower(wires.clone())));
        let dma = BoardDma { ram: memory.ram.clone(), layout: memory.layout };
        let units = config
            .iommu
            .as_ref()
            .map_or_else(Units::default, |config| Units::new(config, &dma, &wires, |n| clock(Alarm::Unit(n))));
        let devices = PeerDma { memory: dma.clone(), wires: wires.clone() };
        let mut plugs = Plugs { root: &mut root, dma: &devices, wires: &wires, units: &units };
        let console = plug_functions(config, &mut plugs, &mut clock)?;
        let serial = std::mem::take(&mut config.serial)
            .into_iter()
            .enumerate()
            .map(|(i, output)| Serial::new(pin(Line::Isa(SERIAL_PORTS[i].1)), output, clock(Alarm::Serial(i))))
            .collect();
        let test = config
            .test_devices
            .pc
            .then(|| PcTestdev::new(|n: u8| pin(if n < 16 { Line::Isa(n) } else { Line::IoApic(n) })));
        let debug_exit = config.test_devices.debug_exit.then(|| IsaDebugExit::new(Box::new(BoardPower(wires.clone()))));
        let debug_output = std::mem::replace(&mut config.debug_port, Box::new(devices::ports::Discard));
        let mut rtc = Rtc::new(config.start_time, pin(Line::Isa(8)), clock(Alarm::Rtc));
        for (index, value) in chipset::memory_map::cmos_contents(memory.layout, config.processors as u8) {
            rtc.set_cmos(index, value);
        }
        let board = Self {
            decoded: root.decoded(),
            interrupts: InterruptWires::default(),
            pic: DualPic::new(pin(Line::PicOutput)),
            io_apic: IoApic::new(Box::new(BoardMsi(wires.clone(), IO_APIC_REQUESTER))),
            pit: Pit::new(pin(Line::Isa(0)), clock(Alarm::Pit)),
            rtc,
            hpet: Hpet::new(
                |input| pin(Line::IoApic(input)),
                [pin(Line::HpetLegacy(0)), pin(Line::HpetLegacy(8))],
                Box::new(BoardMsi(wires.clone(), HPET_REQUESTER)),
                clock(Alarm::Hpet),
            ),
            serial,
            keyboard: I8042::new(I8042Pins {
                keyboard: pin(Line::Isa(1)),
                auxiliary: pin(Line::Isa(12)),
                // Every processor that can be chosen here ignores A20 outside real-mode tricks of the 1980s: the line is not wired.
                a20: Box::new(Unconnected),
                reset: pin(Line::Reset),
            }),
            power: PowerManagement::new(
                clock(Alarm::Power),
                pin(Line::Isa(chipset::memory_map::SCI_IRQ)),
                Box::new(BoardPower(wires.clone())),
            ),
            fw_cfg: items.map(|items| FwCfg::new(items, Box::new(dma))),
            debug: DebugPort::new(debug_output),
            has_pit: config.pit,
            debug_exit,
            test,
            alarms,
            console,
            messages: Vec::new(),
            pic_output: None,
            power_requests: Vec::new(),
            map_changed: false,
            memory,
            root,
            units,
            verify_io_apic: config.iommu.as_ref().is_none_or(|iommu| iommu.verify_io_apic),
            wires,
        };
        Ok(board)
    }

    /// Does for a boot without firmware what firmware does: addresses for PCI functions, interrupt routing.
    pub fn configure(&mut self) -> Result<(), Error> {
        let unassigned = chipset::resources::assign_resources(&mut self.root, self.memory.layout);
        if let Some(bar) = unassigned.first() {
            return Err(Error::NoAddress(bar.size));
        }
        let elcr = chipset::resources::level_triggered_isa_interrupts() | 1 << chipset::memory_map::SCI_IRQ;
        self.pic.write(2, 0, 1, u64::from(elcr & 0xff));
        self.pic.write(2, 1, 1, u64::from(elcr >> 8));
        self.redecode();
        Ok(())
    }

    /// Power-on reset of everything but memory.
    pub fn reset(&mut self) {
        self.root.reset();
        for device in [&mut self.rtc as &mut dyn Device, &mut self.power] {
            device.reset();
        }
        self.reset_others();
    }

    /// Sleep state S3: the clock, power management and memory stay as they are, memory also in where the processors see it.
    pub fn power_down(&mut self) {
        self.root.reset_for_sleep();
        self.reset_others();
    }

    /// Power management, which is awake when nothing else is.
    pub fn power(&mut self) -> &mut PowerManagement {
        &mut self.power
    }

    /// Sets a byte of the CMOS memory.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        self.rtc.set_cmos(index, value);
    }

    fn reset_others(&mut self) {
        for unit in self.units.iter() {
            unit.lock().reset();
        }
        for device in [&mut self.pic as &mut dyn Device, &mut self.io_apic, &mut self.pit, &mut self.hpet] {
            device.reset();
        }
        for serial in &mut self.serial {
            serial.reset();
        }
        for device in [&mut self.keyboard as &mut dyn Device, &mut self.debug] {
            device.reset();
        }
        if let Some(fw_cfg) = &mut self.fw_cfg {
            fw_cfg.reset();
        }
        if let Some(test) = &mut self.test {
            test.reset();
        }
        self.memory.load_firmware();
        self.redecode();
    }

    fn redecode(&mut self) {
        let decoded = self.root.decoded();
        if (decoded.shadow, decoded.smram_open) != (self.decoded.shadow, self.decoded.smram_open) {
            self.map_changed = true;
            self.wires.raise();
        }
        self.decoded = decoded;
        self.interrupts.set_pci(self.root.interrupt_levels());
        self.drive();
    }

    /// The processors' map of memory.
    pub fn memory_map(&self) -> MemoryMap {
        self.memory.map(&self.decoded)
    }

    fn drive(&mut self) {
        self.interrupts.set_hpet_replaces(self.hpet.legacy_replacement());
        self.interrupts.drive(&mut self.pic, &mut self.io_apic);
    }

    /// Carries out what devices have asked for, until nothing is left.
    pub fn settle(&mut self) {
        while self.wires.pending() {
            for request in self.wires.take() {
                match request {
                    Request::Line(Line::Pci(device, pin), level) => {
                        let levels = self.root.set_interrupt(device, pin, level);
                        self.interrupts.set_pci(levels);
                        self.drive();
                    }
                    Request::Line(Line::PicOutput, level) => self.pic_output = Some(level),
                    Request::Line(Line::Reset, level) => {
                        if level {
                            self.power_requests.push(PowerRequest::Reset);
                        }
                    }
                    Request::Line(line, level) => {
                        if line == Line::Isa(8) {
                            self.power.set_rtc_interrupt(level);
                        }
                        self.interrupts.set(line, level);
                        self.drive();
                    }
                    Request::Message(requester, address, data) => {
                        let message = self.remap(requester, address, data);
                        self.messages.extend(message.map(|message| (None, message)));
                    }
                    Request::UnitEvent(address, data) => {
                        let message = iommu::event_message(address, data);
                        self.messages.extend(message.map(|message| (None, message)));
                    }
                    Request::ToFunction(source, message) => {
                        let function = Slot::of_requester(source).and_then(|slot| self.root.function(slot));
                        // What is not there does not answer.
                        if let Some(function) = function {
                            function.message(&message);
                        }
                    }
                    Request::Peer(address, data) => self.peer_write(address, &data),
                    Request::Power(request) => self.power_requests.push(request),
                }
            }
        }
    }

    /// Writes to registers of PCI functions, which one of them wants to write.
    fn peer_write(&mut self, mut address: u64, mut data: &[u8]) {
        while !data.is_empty() {
            let is_aligned = address.is_multiple_of(4) && data.len() >= 4;
            let (part, rest) = data.split_at(if is_aligned { 4 } else { 1 });
            if let Some((slot, bar, base)) = self.find_window(WindowKind::Memory, address)
                && let Some(function) = self.root.function(slot)
            {
                let value = part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                function.write(bar, address - base, part.len() as u8, value);
            }
            address = address.wrapping_add(part.len() as u64);
            data = rest;
        }
    }

    /// What becomes of an interrupt message of `requester`.
    fn remap(&self, requester: u16, address: u64, data: u32) -> Option<InterruptMessage> {
        let remapped = match self.units.of(requester) {
            None => Interrupt::Unchanged,
            Some(unit) => {
                let is_known = self.verify_io_apic || requester != IO_APIC_REQUESTER;
                let source = if is_known { Source::Verified(requester) } else { Source::Unverified(requester) };
                unit.lock().interrupt(source, address, data)
            }
        };
        match remapped {
            Interrupt::Unchanged => InterruptMessage::from_msi(address, data),
            Interrupt::Remapped(interrupt) => iommu::message(&interrupt),
            Interrupt::Noted | Interrupt::Blocked(_) => None,
        }
    }

    /// Lets the alarms act that are due at `now`.
    pub fn run_alarms(&mut self, now: u64) {
        self.wires.set_now(now);
        while let Some((_, id)) = self.wires.next_alarm().filter(|(at, _)| *at <= now) {
            self.wires.clear_alarm(id);
            match self.alarms[id] {
                Alarm::Pit => self.pit.alarm(now),
                Alarm::Rtc => self.rtc.alarm(now),
                Alarm::Hpet => self.hpet.alarm(now),
                Alarm::Power => self.power.alarm(now),
                Alarm::Serial(n) => self.serial[n].alarm(now),
                Alarm::Unit(n) => {
                    if let Some(unit) = self.units.get(n) {
                        unit.lock().alarm(now);
                    }
                }
                Alarm::Function(slot) => {
                    if let Some(function) = self.root.function(slot) {
                        function.alarm(now);
                    }
                }
            }
            self.settle();
        }
    }

    /// The earliest alarm.
    pub fn next_alarm(&self) -> u64 {
        self.wires.next_alarm().map_or(u64::MAX, |(at, _)| at)
    }

    /// Lets PCI functions take what the host has for them.
    pub fn poll_host(&mut self, now: u64) {
        self.wires.set_now(now);
        for slot in self.root.slots() {
            if let Some(function) = self.root.function(slot) {
                function.poll_host(now);
            }
        }
        self.settle();
    }

    /// Some device waits for the host.
    pub fn waiting_for_host(&mut self) -> bool {
        self.root
            .slots()
            .into_iter()
            .any(|slot| self.root.function(slot).is_some_and(|function| function.waiting_for_host()))
    }

    /// Gives typed bytes to COM1, and to the virtio console if there is no serial port; the number taken.
    pub fn type_bytes(&mut self, bytes: &[u8]) -> usize {
        let taken = match (self.serial.first_mut(), self.console) {
            (Some(serial), _) => serial.receive(bytes),
            (None, Some(slot)) => self.root.function(slot).map_or(0, |function| function.receive(bytes)),
            (None, None) => bytes.len(),
        };
        self.settle();
        taken
    }

    /// INTA: the vector of the 8259 pair.
    pub fn acknowledge(&mut self) -> u8 {
        self.pic.acknowledge()
    }

    /// An end of interrupt for the I/O APIC.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.io_apic.eoi(vector);
    }

    /// FERR#: interrupt 13.
    pub fn floating_point_error(&mut self) {
        self.interrupts.set(Line::Isa(13), true);
        self.drive();
    }

    fn port_device(&mut self, port: u16) -> Option<(&mut dyn Device, Region, u16)> {
        Some(match port {
            0x20..=0x21 => (&mut self.pic, 0, 0x20),
            0xa0..=0xa1 => (&mut self.pic, 1, 0xa0),
            0x4d0..=0x4d1 => (&mut self.pic, 2, 0x4d0),
            0x40..=0x43 if self.has_pit => (&mut self.pit, 0, 0x40),
            0x61 if self.has_pit => (&mut self.pit, 1, 0x61),
            0x60 => (&mut self.keyboard, 0, 0x60),
            0x64 => (&mut self.keyboard, 1, 0x64),
            0x92 => (&mut self.keyboard, 2, 0x92),
            0x70..=0x73 => (&mut self.rtc, 0, 0x70),
            0x402 => (&mut self.debug, 0, 0x402),
            0x80 => (&mut self.debug, 1, 0x80),
            0xb2..=0xb3 => (&mut self.power, REGION_APM, 0xb2),
            0x510..=0x511 => (self.fw_cfg.as_mut()?, REGION_SELECTOR, 0x510),
            0x514..=0x51b => (self.fw_cfg.as_mut()?, REGION_DMA, 0x514),
            0xf4..=0xf7 => (self.debug_exit.as_mut()?, 0, 0xf4),
            0xe0..=0xe3 => (self.test.as_mut()?, 0, 0xe0),
            0xe4..=0xe7 => (self.test.as_mut()?, 1, 0xe4),
            0xe8..=0xeb => (self.test.as_mut()?, 2, 0xe8),
            0x2000..=0x2017 if self.test.is_some() => (self.test.as_mut()?, 3, 0x2000),
            _ => {
                if let Some(n) = (0..self.serial.len()).find(|&n| port & !7 == SERIAL_PORTS[n].0) {
                    return Some((&mut self.serial[n], 0, SERIAL_PORTS[n].0));
                }
                if let Some(base) = self.decoded.pm_base.filter(|base| port.wrapping_sub(*base) < PM_SIZE) {
                    return Some((&mut self.power, REGION_PM, base));
                }
                let (slot, bar, base) = self.find_window(WindowKind::Io, port.into())?;
                (self.root.function(slot)? as &mut dyn Device, bar, base as u16)
            }
        })
    }

    fn find_window(&self, kind: WindowKind, address: u64) -> Option<(Slot, Region, u64)> {
        self.decoded
            .windows
            .iter()
            .find(|(_, window)| window.kind == kind && address.wrapping_sub(window.base) < window.size)
            .map(|(slot, window)| (*slot, window.bar, window.base))
    }

    /// Reads a port.
    pub fn io_read(&mut self, port: u16, size: u8) -> u32 {
        if (0xcf8..0xd00).contains(&port) {
            return self.root.port_read(port, size);
        }
        match self.port_device(port) {
            Some((device, region, base)) => device.read(region, (port - base).into(), size) as u32,
            None => u32::MAX >> (32 - 8 * u32::from(size)),
        }
    }

    /// Writes a port.
    pub fn io_write(&mut self, port: u16, size: u8, value: u32) {
        if (0xcf8..0xd00).contains(&port) {
            if self.root.port_write(port, size, value) {
                self.redecode();
            }
        } else if let Some((device, region, base)) = self.port_device(port) {
            device.write(region, (port - base).into(), size, value.into());
        }
    }

    fn memory_device(&mut self, address: u64) -> Option<(&mut dyn Device, Region, u64)> {
        const TEST_MEMORY: u64 = 0xff00_0000;
        let within = |base: u64, size: u64| address.wrapping_sub(base) < size;
        if within(IO_APIC_BASE, 0x1000) {
            return Some((&mut self.io_apic, 0, IO_APIC_BASE));
        }
        if within(HPET_BASE, 0x400) {
            return Some((&mut self.hpet, 0, HPET_BASE));
        }
        if let Some(base) = self.decoded.rcba.filter(|base| within(*base, RCBA_SIZE)) {
            return Some((self.root.function(Slot::LPC)? as &mut dyn Device, 0, base));
        }
        if self.test.is_some() && within(TEST_MEMORY, devices::pc_testdev::MEMORY as u64) {
            return Some((self.test.as_mut()?, 4, TEST_MEMORY));
        }
        let (slot, bar, base) = self.find_window(WindowKind::Memory, address)?;
        Some((self.root.function(slot)? as &mut dyn Device, bar, base))
    }

    /// Reads memory-mapped I/O.
    pub fn memory_read(&mut self, address: u64, size: u8) -> u64 {
        if let Some((base, length)) = self.decoded.ecam
            && address.wrapping_sub(base) < length
        {
            return self.root.ecam_read(address - base, size);
        }
        if let Some((unit, offset)) = self.units.at(address) {
            return unit.lock().read(0, offset, size);
        }
        match self.memory_device(address) {
            Some((device, region, base)) => device.read(region, address - base, size),
            None => u64::MAX >> (64 - 8 * u32::from(size)),
        }
    }

    /// Writes memory-mapped I/O.
    pub fn memory_write(&mut self, address: u64, size: u8, value: u64) {
        if let Some((base, length)) = self.decoded.ecam
            && address.wrapping_sub(base) < length
        {
            if self.root.ecam_write(address - base, size, value) {
                self.redecode();
            }
            return;
        }
        if let Some((unit, offset)) = self.units.at(address) {
            unit.lock().write(0, offset, size, value);
        } else if let Some((device, region, base)) = self.memory_device(address) {
            device.write(region, address - base, size, value);
        } else if let Some(shadow) =
            self.decoded.shadow.iter().find(|shadow| address.wrapping_sub(shadow.base) < shadow.size)
            && shadow.write_ram
            && !shadow.read_ram
        {
            // Reads come from the firmware, writes go to the RAM behind it.
            self.memory.ram.write(address, &value.to_le_bytes()[..usize::from(size.min(8))]);
        }
    }
}

/// Puts functions into the free slots of the bus.
struct Plugs<'a> {
    root: &'a mut RootComplex,
    dma: &'a PeerDma,
    wires: &'a Arc<Wires>,
    units: &'a Units,
}

impl Plugs<'_> {
    /// Puts a function into the first free slot.
    fn plug<F: PciFunction + 'static>(&mut self, make: impl FnOnce(VirtioPorts) -> F) -> Result<Slot, Error> {
        let slot = self.free()?;
        self.plug_at(slot, make)
    }

    fn free(&self) -> Result<Slot, Error> {
        let device = self.root.free_device(1).ok_or(Error::BusFull)?;
        Ok(Slot { device, function: 0 })
    }

    /// A function's way to memory through its remapping unit.
    fn remapped(&self, slot: Slot) -> Option<RemappedDma> {
        let requester = slot.requester_id();
        let unit = self.units.of(requester)?.clone();
        Some(RemappedDma { requester, unit, memory: self.dma.clone() })
    }

    /// The same for a function that knows of the unit.
    fn agent(&self, slot: Slot) -> Box<dyn TranslationAgent> {
        match self.remapped(slot) {
            None => Box::new(PlainAgent(self.dma.clone())),
            Some(remapped) => Box::new(remapped),
        }
    }

    fn plug_at<F: PciFunction + 'static>(
        &mut self,
        slot: Slot,
        make: impl FnOnce(VirtioPorts) -> F,
    ) -> Result<Slot, Error> {
        let requester = slot.requester_id();
        let dma: Box<dyn Dma> = match self.remapped(slot) {
            None => Box::new(self.dma.clone()),
            Some(remapped) => Box::new(remapped),
        };
        let ports = VirtioPorts {
            dma,
            interrupts: InterruptPorts {
                pin: Box::new(BoardPin(self.wires.clone(), Line::Pci(slot.device, 0))),
                msi: Box::new(BoardMsi(self.wires.clone(), requester)),
            },
        };
        self.root.plug(slot, Box::new(make(ports))).map_err(|_| Error::BusFull)?;
        Ok(slot)
    }
}

/// Plugs in the PCI functions of `config`; gives the slot of the virtio console.
fn plug_functions(
    config: &mut Config,
    plugs: &mut Plugs<'_>,
    clock: &mut dyn FnMut(Alarm) -> Box<dyn Clock>,
) -> Result<Option<Slot>, Error> {
    if let Some(backend) = config.network.take() {
        let mac = config.mac;
        plugs.plug(|ports| VirtioPci::new(Net::new(backend, mac), ports))?;
    }
    for disk in std::mem::take(&mut config.disks) {
        plugs.plug(|ports| VirtioPci::new(Block::new(disk.storage, &disk.serial), ports))?;
    }
    let drives: Vec<_> = std::mem::take(&mut config.sata)
        .into_iter()
        .map(|drive| match drive {
            Sata::Disk(disk) => Drive::Disk(AtaDisk::new(disk.storage, &disk.serial)),
            Sata::Optical(disk) => Drive::Optical(OpticalDrive::new(disk.storage, &disk.serial)),
        })
        .collect();
    if drives.len() > devices::ahci::PORTS {
        return Err(Error::SataPorts(drives.len()));
    }
    if !drives.is_empty() {
        plugs.plug_at(SATA, |ports| Ahci::new(drives, ports.dma, ports.interrupts))?;
    }
    let mut slot = None;
    if let Some(console) = config.console.take() {
        slot = Some(plugs.plug(|ports| VirtioPci::new(Console::new(console.output, console.size), ports))?);
    }
    if let Some(seed) = config.entropy {
        plugs.plug(|ports| VirtioPci::new(Entropy::new(seed), ports))?;
    }
    if config.test_devices.pci {
        plugs.plug(|ports| PciTestdev::new(ports.interrupts))?;
    }
    for mask in std::mem::take(&mut config.edu) {
        let slot = plugs.free()?;
        let clock = clock(Alarm::Function(slot));
        plugs.plug_at(slot, |ports| Edu::new(mask, ports.dma, clock, ports.interrupts))?;
    }
    for _ in 0..config.dma_testers {
        let slot = plugs.free()?;
        let (clock, agent) = (clock(Alarm::Function(slot)), plugs.agent(slot));
        plugs.plug_at(slot, |ports| DmaTester::new(agent, clock, ports.interrupts))?;
    }
    Ok(slot)
}
