//! The remapping unit on the board: the ports that pass it.

use crate::config::Iommu;
use crate::ports::{BoardDma, Request, Wires};
use chipset::acpi::RemappingConfig;
use chipset::vtd::{self, Access, RemappedInterrupt, RemappingUnit};
use devices::ports::{Dma, DmaFault, Msi};
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
    pub fn new(config: &Iommu, memory: BoardDma, wires: &Arc<Wires>) -> Self {
        let events = Box::new(EventMessages(wires.clone()));
        Self(Arc::new(Mutex::new(RemappingUnit::new(config.unit, Box::new(memory), events))))
    }

    /// The unit.
    pub fn lock(&self) -> MutexGuard<'_, RemappingUnit> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the ACPI tables tell of it.
pub fn acpi(config: &Iommu) -> RemappingConfig {
    RemappingConfig {
        host_address_width: config.unit.host_address_width,
        interrupt_remapping: config.unit.interrupt_remapping,
        device_tlb: config.unit.device_tlb,
        io_apic: IO_APIC_REQUESTER,
        hpet: HPET_REQUESTER,
    }
}

/// The unit's own interrupts.
struct EventMessages(Arc<Wires>);

impl Msi for EventMessages {
    fn send(&self, address: u64, data: u32) {
        self.0.push(Request::UnitEvent(address, data));
    }
}

/// A device's memory behind the unit.
pub struct RemappedDma {
    /// The device.
    pub requester: u16,
    /// The unit.
    pub unit: SharedUnit,
    /// Memory.
    pub memory: BoardDma,
    /// Where interrupt requests go.
    pub wires: Arc<Wires>,
}

impl RemappedDma {
    /// Carries out an access page by page: `act` gets the physical address and the part of the access that lies there.
    fn each_page(
        &self,
        address: u64,
        length: usize,
        access: Access,
        mut act: impl FnMut(u64, std::ops::Range<usize>) -> Result<(), DmaFault>,
    ) -> Result<(), DmaFault> {
        let mut unit = self.unit.lock();
        let mut done = 0;
        while done < length {
            let at = address.wrapping_add(done as u64);
            let translation =
                unit.translate(&vtd::Request::new(self.requester, at, access)).map_err(|_| DmaFault { address: at })?;
            let part = (length - done).min(translation.length as usize);
            act(translation.address, done..done + part)?;
            done += part;
        }
        Ok(())
    }
}

impl Dma for RemappedDma {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        self.each_page(address, buffer.len(), Access::READ, |at, part| self.memory.read(at, &mut buffer[part]))
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        // A write of an aligned doubleword in the interrupt address range is an interrupt request.
        if let Ok(data) = <[u8; 4]>::try_from(data)
            && INTERRUPT_RANGE.contains(&address)
            && address & 3 == 0
        {
            self.wires.push(Request::Message(self.requester, address, u32::from_le_bytes(data)));
            return Ok(());
        }
        self.each_page(address, data.len(), Access::WRITE, |at, part| self.memory.write(at, &data[part]))
    }
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
