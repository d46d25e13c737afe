//! The remapping unit on the board: the ports that pass it.

use crate::config::{Iommu, ReservedMemory};
use crate::error::Error;
use crate::ports::{BoardDma, PeerDma, Request, Wires};
use chipset::acpi::{self, RemappingConfig};
use chipset::memory_map::{FOUR_GIB, IOMMU_BASE, IOMMU_SIZE, RamLayout};
use chipset::root_complex::Slot;
use chipset::vtd::{self, Access, DeviceMessages, RemappedInterrupt, RemappingUnit, RequestKind, UnitPorts};
use devices::pci::ats::{
    Attributes, Message, PageRequest, TranslationAgent, TranslationCompletion, TranslationError, TranslationRequest,
};
use devices::ports::{Clock, Dma, DmaFault, Msi};
use processor::apic::InterruptMessage;
use spec::apic::local_apic::{DeliveryMode, Shorthand};
use spec::vtd::tables::INTERRUPT_RANGE;
use std::sync::{Arc, Mutex, MutexGuard};

/// Requester id of the I/O APIC: a function that is not on the bus, as chipsets have it.
pub const IO_APIC_REQUESTER: u16 = 0xff << 8;
/// Requester id of the HPET.
pub const HPET_REQUESTER: u16 = 0xff << 8 | 1;

/// The unit, shared by the board and the devices' ports. Nothing that the unit does calls back: it is never found locked.
#[derive(Clone)]
pub struct SharedUnit(Arc<Mutex<RemappingUnit>>);

impl SharedUnit {
    /// A unit of this configuration before `memory`.
    pub fn new(config: &Iommu, memory: BoardDma, wires: &Arc<Wires>, clock: Box<dyn Clock>) -> Self {
        let ports = UnitPorts {
            memory: Box::new(memory),
            events: Box::new(UnitMessages(wires.clone())),
            clock,
            messages: Box::new(UnitMessages(wires.clone())),
        };
        Self(Arc::new(Mutex::new(RemappingUnit::new(config.unit, ports))))
    }

    /// The unit.
    pub fn lock(&self) -> MutexGuard<'_, RemappingUnit> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The units of a board. The first one is for every function that no other is for.
#[derive(Clone, Default)]
pub struct Units {
    units: Vec<SharedUnit>,
    /// The functions of each of the others.
    scopes: Vec<Vec<Slot>>,
}

impl Units {
    /// How many there can be.
    const MOST: usize = 8;

    /// The units of this configuration; `clock` makes that of the unit with a number.
    pub fn new(
        config: &Iommu,
        memory: &BoardDma,
        wires: &Arc<Wires>,
        mut clock: impl FnMut(usize) -> Box<dyn Clock>,
    ) -> Self {
        let units = (0..=config.scopes.len()).map(|n| SharedUnit::new(config, memory.clone(), wires, clock(n)));
        Self { units: units.collect(), scopes: config.scopes.clone() }
    }

    /// The unit that the requests of a requester pass.
    pub fn of(&self, requester: u16) -> Option<&SharedUnit> {
        let slot = Slot::of_requester(requester);
        let own = self.scopes.iter().position(|functions| slot.is_some_and(|slot| functions.contains(&slot)));
        self.units.get(own.map_or(0, |n| n + 1))
    }

    /// The unit whose registers are at `address`, and the offset in them.
    pub fn at(&self, address: u64) -> Option<(&SharedUnit, u64)> {
        let offset = address.checked_sub(IOMMU_BASE)?;
        Some((self.units.get(usize::try_from(offset / IOMMU_SIZE).ok()?)?, offset % IOMMU_SIZE))
    }

    /// Every unit.
    pub fn iter(&self) -> impl Iterator<Item = &SharedUnit> {
        self.units.iter()
    }

    /// The unit with a number.
    pub fn get(&self, n: usize) -> Option<&SharedUnit> {
        self.units.get(n)
    }
}

/// Looks whether there can be such units, with `ram`.
///
/// # Errors
/// When there cannot.
pub fn check(config: &Iommu, ram: RamLayout) -> Result<(), Error> {
    let mut slots: Vec<Slot> = config.scopes.concat();
    let count = slots.len();
    slots.sort_unstable();
    slots.dedup();
    if slots.len() < count || config.scopes.len() >= Units::MOST {
        return Err(Error::Scopes);
    }
    for ReservedMemory { first, last, functions: _ } in &config.reserved {
        let is_low = *last < ram.low;
        let is_high = *first >= FOUR_GIB && *last < FOUR_GIB + ram.high;
        if first > last || first & 0xfff != 0 || last & 0xfff != 0xfff || !(is_low || is_high) {
            return Err(Error::Reserved(*first, *last));
        }
    }
    Ok(())
}

/// What the ACPI tables tell of them.
pub fn acpi(config: &Iommu) -> RemappingConfig {
    let ids = |slots: &[Slot]| slots.iter().map(|slot| slot.requester_id()).collect();
    let reserved = config.reserved.iter().map(|memory| acpi::ReservedMemory {
        first: memory.first,
        last: memory.last,
        functions: ids(&memory.functions),
    });
    RemappingConfig {
        scopes: config.scopes.iter().map(|slots| ids(slots)).collect(),
        reserved: reserved.collect(),
        host_address_width: config.unit.host_address_width,
        interrupt_remapping: config.unit.interrupt_remapping,
        device_tlb: config.unit.device_tlb,
        io_apic: IO_APIC_REQUESTER,
        hpet: HPET_REQUESTER,
    }
}

/// What leaves the unit: its own interrupts, and messages to functions.
struct UnitMessages(Arc<Wires>);

impl Msi for UnitMessages {
    fn send(&self, address: u64, data: u32) {
        self.0.push(Request::UnitEvent(address, data));
    }
}

impl DeviceMessages for UnitMessages {
    fn send(&self, source: u16, message: Message) {
        self.0.push(Request::ToFunction(source, message));
    }
}

/// A device's memory behind the unit.
#[derive(Clone)]
pub struct RemappedDma {
    /// The device.
    pub requester: u16,
    /// The unit.
    pub unit: SharedUnit,
    /// Memory, and where interrupt requests go.
    pub memory: PeerDma,
}

impl RemappedDma {
    /// Carries out an access page by page: `act` gets the physical address and the part of the access that lies there.
    fn each_page(
        &self,
        address: u64,
        length: usize,
        access: Access,
        attributes: Attributes,
        mut act: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), DmaFault>,
    ) -> Result<(), DmaFault> {
        let mut unit = self.unit.lock();
        let mut done = 0;
        while done < length {
            let at = address.wrapping_add(done as u64);
            let request = vtd::Request {
                kind: if attributes.translated { RequestKind::Translated } else { RequestKind::Untranslated },
                pasid: attributes.pasid,
                privileged: attributes.privileged,
                ..vtd::Request::new(self.requester, at, access)
            };
            let translation = unit.translate(&request).map_err(|_| DmaFault { address: at })?;
            let part = (length - done).min(translation.length as usize);
            act(translation.address, done..done + part)?;
            done += part;
        }
        Ok(())
    }
}

impl Dma for RemappedDma {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        TranslationAgent::read(self, Attributes::default(), address, buffer)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        TranslationAgent::write(self, Attributes::default(), address, data)
    }
}

impl TranslationAgent for RemappedDma {
    fn read(&self, attributes: Attributes, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        let access = Access { execute: attributes.execute, ..Access::READ };
        let length = buffer.len();
        self.each_page(address, length, access, attributes, |at, part| self.memory.read(at, &mut buffer[part]))
    }

    fn write(&self, attributes: Attributes, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        // A write of an aligned doubleword in the interrupt address range is an interrupt request; with PASID it is an address like others.
        if let Ok(data) = <[u8; 4]>::try_from(data)
            && attributes.pasid.is_none()
            && INTERRUPT_RANGE.contains(&address)
            && address & 3 == 0
        {
            self.memory.wires.push(Request::Message(self.requester, address, u32::from_le_bytes(data)));
            return Ok(());
        }
        let length = data.len();
        self.each_page(address, length, Access::WRITE, attributes, |at, part| self.memory.write(at, &data[part]))
    }

    fn translate(&self, request: &TranslationRequest) -> Result<TranslationCompletion, TranslationError> {
        self.unit.lock().translation_request(self.requester, request)
    }

    fn request_page(&self, request: &PageRequest) {
        self.unit.lock().page_request(self.requester, request);
    }

    fn invalidated(&self, tag: u8) {
        self.unit.lock().invalidated(self.requester, tag);
    }
}

/// A function's memory where there is no remapping unit: a root complex that knows neither PASIDs nor translation.
pub struct PlainAgent(pub PeerDma);

impl PlainAgent {
    fn check(attributes: Attributes, address: u64) -> Result<(), DmaFault> {
        if attributes.pasid.is_some() || attributes.translated { Err(DmaFault { address }) } else { Ok(()) }
    }
}

impl TranslationAgent for PlainAgent {
    fn read(&self, attributes: Attributes, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        Self::check(attributes, address)?;
        self.0.read(address, buffer)
    }

    fn write(&self, attributes: Attributes, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        Self::check(attributes, address)?;
        self.0.write(address, data)
    }

    fn translate(&self, _request: &TranslationRequest) -> Result<TranslationCompletion, TranslationError> {
        Err(TranslationError::Unsupported)
    }

    fn request_page(&self, _request: &PageRequest) {}

    fn invalidated(&self, _tag: u8) {}
}

/// A remapped interrupt as a message to the local APICs.
pub fn message(interrupt: &RemappedInterrupt) -> Option<InterruptMessage> {
    let RemappedInterrupt { destination, extended, logical, redirection_hint, delivery, vector, level } = *interrupt;
    let delivery = match delivery {
        DeliveryMode::Reserved3 => return None,
        DeliveryMode::Fixed if redirection_hint => DeliveryMode::LowestPriority,
        other => other,
    };
    Some(InterruptMessage {
        destination: if extended { destination } else { InterruptMessage::widen(destination as u8) },
        logical,
        delivery,
        vector,
        level_triggered: level,
        shorthand: Shorthand::None,
    })
}

/// An event of the unit as a message. The upper address has bits 31:8 of the destination.
pub fn event_message(address: u64, data: u32) -> Option<InterruptMessage> {
    let mut message = InterruptMessage::from_msi(address, data)?;
    let upper = (address >> 32) as u32 & !0xff;
    if upper != 0 {
        message.destination = upper | (address >> 12) as u32 & 0xff;
    }
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::firmware::Firmware;
    use crate::explain::{Explainer, Kinds};
    use crate::processors::lock;
    use crate::{Boot, Config, Machine, NoHost, Watchers};
    use devices::edu::{BUFFER, register};
    use spec::vtd::registers::{self as unit_register, GlobalCommand};

    const ROOT: u64 = 0x10_0000;
    const CONTEXTS: u64 = 0x10_1000;
    /// Three tables of the second stage, one after the other.
    const TABLES: u64 = 0x10_2000;
    /// The page that the domain may reach, and what it must not reach.
    const BUFFER_PAGE: u64 = 0x20_0000;
    const KERNEL: u64 = 0x30_0000;
    /// Where software puts `edu`'s registers.
    const EDU: u64 = 0xc000_0000;

    /// A machine that does nothing, with `edu` in a domain whose page 0 is [`BUFFER_PAGE`], and what is explained.
    fn machine() -> (Machine, Arc<Mutex<String>>) {
        machine_with(Vec::new(), 0)
    }

    /// The same with units for `scopes`; unit `n` is set up.
    fn machine_with(scopes: Vec<Vec<Slot>>, n: u64) -> (Machine, Arc<Mutex<String>>) {
        let mut image = vec![0xf4; 0x1_0000];
        image[0xfff0] = 0xf4;
        let mut config = Config::new(Boot::Firmware(Firmware::new(image).expect("64 KiB are an image")));
        config.memory = 16 << 20;
        config.entropy = None;
        config.edu = vec![u64::MAX];
        config.iommu = Some(Iommu { scopes, ..Iommu::default() });
        let mut machine = Machine::new(config).expect("a machine");
        let text = Arc::new(Mutex::new(String::new()));
        let sink = text.clone();
        let explainer = Explainer::new(
            Kinds::usual(),
            Box::new(move |explanation| {
                sink.lock().expect("nobody panicked").push_str(&explanation.to_string());
            }),
        );
        machine.watch(Watchers { explainer: Some(explainer), ..Watchers::default() });
        {
            let mut board = lock(&machine.board);
            let ram = board.memory.ram.clone();
            let put = |at: u64, quadword: u64| ram.write(at, &quadword.to_le_bytes());
            let slot = chipset::root_complex::Slot::new(1, 0);
            put(ROOT, CONTEXTS | 1);
            put(CONTEXTS + u64::from(slot.requester_id()) * 16, TABLES | 1);
            put(CONTEXTS + u64::from(slot.requester_id()) * 16 + 8, 5 << 8 | 1);
            put(TABLES, (TABLES + 0x1000) | 3);
            put(TABLES + 0x1000, (TABLES + 0x2000) | 3);
            put(TABLES + 0x2000, BUFFER_PAGE | 3);
            ram.write(KERNEL, b"kernel");
            for (at, value) in [(0x10, EDU as u32), (0x04, 6)] {
                board.io_write(0xcf8, 4, 0x8000_0800 | at);
                board.io_write(0xcfc, 4, value);
            }
            let base = IOMMU_BASE + n * IOMMU_SIZE;
            board.memory_write(base + unit_register::ROOT_TABLE_ADDRESS, 8, ROOT);
            board.memory_write(base + unit_register::GLOBAL_COMMAND, 4, GlobalCommand::SET_ROOT_TABLE.into());
            board.memory_write(base + unit_register::GLOBAL_COMMAND, 4, GlobalCommand::TRANSLATION.into());
        }
        (machine, text)
    }

    /// Has `edu` write its buffer, whose first bytes it reads from `from`, to `to`.
    fn copy(machine: &mut Machine, from: u64, to: u64) {
        const TO_MEMORY: u64 = 3;
        for (source, destination, command) in [(from, BUFFER, 1), (BUFFER, to, TO_MEMORY)] {
            {
                let mut board = lock(&machine.board);
                board.memory_write(EDU + register::DMA_SOURCE, 8, source);
                board.memory_write(EDU + register::DMA_DESTINATION, 8, destination);
                board.memory_write(EDU + register::DMA_COUNT, 8, 6);
                board.memory_write(EDU + register::DMA_COMMAND, 8, command);
            }
            machine.run(&mut NoHost, None);
        }
    }

    fn bytes(machine: &Machine, at: u64) -> [u8; 6] {
        let mut bytes = [0; 6];
        lock(&machine.board).memory.ram.read(at, &mut bytes);
        bytes
    }

    #[test]
    fn a_device_reaches_what_its_domain_maps() {
        let (mut machine, text) = machine();
        lock(&machine.board).memory.ram.write(BUFFER_PAGE, b"inside");
        copy(&mut machine, 0, 0x800);
        assert_eq!(&bytes(&machine, BUFFER_PAGE + 0x800), b"inside");
        assert_eq!(*text.lock().unwrap(), "");
    }

    #[test]
    fn a_function_passes_its_own_unit_and_no_other() {
        let scopes = || vec![vec![Slot::new(9, 0)], vec![Slot::new(1, 0)]];
        for (n, is_stopped) in [(0, false), (1, false), (2, true)] {
            let (mut machine, text) = machine_with(scopes(), n);
            let from = if is_stopped { 0 } else { BUFFER_PAGE };
            lock(&machine.board).memory.ram.write(BUFFER_PAGE, b"inside");
            copy(&mut machine, from, KERNEL);
            assert_eq!(&bytes(&machine, KERNEL) == b"kernel", is_stopped, "unit {n}");
            assert_eq!(!text.lock().unwrap().is_empty(), is_stopped, "unit {n}");
            let picture = machine.dump("iommu").unwrap();
            assert!(picture.contains("unit 2, for functions of its own:"), "{picture}");
        }
    }

    #[test]
    fn units_and_reserved_memory_that_cannot_be_are_refused() {
        let ram = RamLayout::new(1 << 30);
        let twice = vec![vec![Slot::new(1, 0)], vec![Slot::new(2, 0), Slot::new(1, 0)]];
        let many = (0..8).map(|n| vec![Slot::new(n + 1, 0)]).collect();
        for scopes in [twice, many] {
            assert!(matches!(check(&Iommu { scopes, ..Iommu::default() }, ram), Err(Error::Scopes)));
        }
        for (first, last, is_right) in [
            (0x7_0000, 0x7_ffff, true),
            (0x7_0000, 0x7_fffe, false),
            (0x7_0001, 0x7_ffff, false),
            (0x8_0000, 0x7_ffff, false),
            (0x3fff_f000, 0x4000_0fff, false),
        ] {
            let reserved = vec![ReservedMemory { first, last, functions: Vec::new() }];
            assert_eq!(check(&Iommu { reserved, ..Iommu::default() }, ram).is_ok(), is_right, "{first:#x}");
        }
    }

    #[test]
    fn a_device_told_to_write_over_the_kernel_is_stopped_and_reported() {
        let (mut machine, text) = machine();
        lock(&machine.board).memory.ram.write(BUFFER_PAGE, b"inside");
        copy(&mut machine, 0, KERNEL);
        assert_eq!(&bytes(&machine, KERNEL), b"kernel");
        let text = text.lock().unwrap();
        for part in [
            "DMA write of 00:01.0 at 0x300000 was blocked",
            "check    WriteNotPermitted (VT-d, LGN.2)",
            "stopped by the second-stage PDE at 0x103008",
            "context entry from a cache: 0x102001 0x501  second stage, 3 levels, domain 5",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        let picture = machine.dump("iommu").unwrap();
        assert!(picture.contains("00:01.0  domain 5, second stage 0x102000 with 3 levels"), "{picture}");
        assert!(picture.contains("write 0x300000: WriteNotPermitted"), "{picture}");
        assert!(picture.contains("domain 5 PASID 0: 0x0 -> 0x200000, 4 KiB, rw"), "{picture}");
    }
}
