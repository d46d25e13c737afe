//! The modern PCI transport (VIRTIO 1.2 section 4.1), without the legacy interface.
//!
//! BAR 1 holds the MSI-X table, BAR 4 (64-bit) the four structures, one page each: common configuration, ISR, device
//! configuration, notifications. A fifth capability reaches the same structures from configuration space.

use super::device::{Queues, VirtioDevice};
use super::queue::{Virtqueue, VirtqueueState};
use crate::device::{Device, Region};
use crate::pci::{
    BarKind, ConfigSpace, FunctionCore, FunctionCoreState, Identity, InterruptPorts, Msix, PciFunction, Window, decode,
    encode,
};
use crate::ports::{Dma, Nanoseconds};
use alloc::boxed::Box;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::capability::id;
use spec::virtio::pci::{self as facts, Isr, NO_VECTOR, capability, capability_type, common};
use spec::virtio::{DeviceStatus, Feature};

/// The BAR of the MSI-X table.
pub const MSIX_BAR: Region = 1;
/// The BAR of the virtio structures.
pub const VIRTIO_BAR: Region = 4;

const COMMON_AT: u64 = 0x0000;
const ISR_AT: u64 = 0x1000;
const DEVICE_AT: u64 = 0x2000;
const NOTIFY_AT: u64 = 0x3000;
const PAGE: u64 = 0x1000;
const BAR_SIZE: u64 = 0x4000;
/// Bytes between the notification addresses of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;
/// The common configuration up to and without `queue_notify_data`, which belongs to features not offered.
const COMMON_LENGTH: usize = common::QUEUE_NOTIFY_DATA as usize;
/// The features of transport and rings, offered by every device.
///
/// `ACCESS_PLATFORM` is the truth: every access goes through the DMA port and so through the IOMMU, if the board has one.
const COMMON_FEATURES: u64 =
    Feature::VERSION_1 | Feature::ACCESS_PLATFORM | Feature::RING_INDIRECT_DESC | Feature::RING_EVENT_IDX;

/// The ports of a virtio function.
pub struct VirtioPorts {
    /// Memory.
    pub dma: Box<dyn Dma>,
    /// Interrupts.
    pub interrupts: InterruptPorts,
}

/// The saved state of a [`VirtioPci`] whose device saves an `S`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VirtioPciState<S> {
    pub core: FunctionCoreState,
    pub queues: Vec<VirtqueueState>,
    pub device: S,
    pub status: u8,
    pub isr: u8,
    pub config_generation: u8,
    pub config_vector: u16,
    pub device_feature_select: u32,
    pub driver_feature_select: u32,
    pub driver_features: u64,
    pub queue_select: u16,
}

/// A virtio device as a PCI function.
pub struct VirtioPci<D: VirtioDevice> {
    core: FunctionCore,
    dma: Box<dyn Dma>,
    queues: Vec<Virtqueue>,
    device: D,
    /// Offset of the capability that reaches the BARs from configuration space.
    access_at: u16,
    status: u8,
    isr: u8,
    config_generation: u8,
    config_vector: u16,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Puts `device` on PCI with one MSI-X vector for each queue and one for configuration changes. Its pin is INTA#.
    pub fn new(device: D, ports: VirtioPorts) -> Self {
        let kind = device.device_type();
        let mut config = ConfigSpace::integrated_endpoint(
            Identity {
                vendor: facts::VENDOR_ID,
                device: facts::DEVICE_ID_BASE + kind,
                subsystem_vendor: facts::VENDOR_ID,
                // 0x40 or higher tells drivers that there is no legacy interface (section 4.1.2.1).
                subsystem: 0x1100,
                revision: facts::REVISION_MODERN,
                class: device.class(),
                multifunction: false,
            },
            true,
        );
        config.set_interrupt_pin(1);
        let queues: Vec<_> = device.queue_sizes().iter().map(|size| Virtqueue::new(*size)).collect();
        let vectors = queues.len() as u16 + 1;
        config.add_bar(MSIX_BAR, BarKind::Memory32 { prefetchable: false }, Msix::window_size(vectors));
        config.add_bar(VIRTIO_BAR, BarKind::Memory64 { prefetchable: true }, BAR_SIZE);
        for (kind, at) in [
            (capability_type::COMMON, COMMON_AT),
            (capability_type::ISR, ISR_AT),
            (capability_type::DEVICE, DEVICE_AT),
            (capability_type::NOTIFY, NOTIFY_AT),
        ] {
            add_structure(&mut config, kind, at, (kind == capability_type::NOTIFY).then_some(NOTIFY_MULTIPLIER));
        }
        let access_at = add_structure(&mut config, capability_type::PCI, 0, Some(0));
        config.set_u8(access_at + capability::BAR, 0);
        config.set_u32(access_at + capability::BAR_LENGTH, 0);
        config.set_writable(access_at + capability::BAR, &[0xff]);
        config.set_writable(access_at + capability::OFFSET, &[0xff; 8]);
        config.freeze();
        let mut core = FunctionCore::new(config, ports.interrupts);
        core.add_msix(vectors, MSIX_BAR);
        Self {
            core,
            dma: ports.dma,
            queues,
            device,
            access_at,
            status: 0,
            isr: 0,
            config_generation: 0,
            config_vector: NO_VECTOR,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
        }
    }

    /// The device behind the transport.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Calls `f` with the device and its queues, if the driver has it running, and signals what came of it.
    fn with_queues(&mut self, f: impl FnOnce(&mut D, &mut Queues<'_>)) {
        if !self.running() {
            return;
        }
        let mut queues =
            Queues { dma: &*self.dma, queues: &mut self.queues, features: self.driver_features, error: None };
        f(&mut self.device, &mut queues);
        let mut error = queues.error;
        let mut signal_pin = false;
        for queue in &mut self.queues {
            match queue.take_interrupt(&*self.dma, self.driver_features) {
                Ok(false) => {}
                Ok(true) => {
                    // With MSI-X on, a queue without a vector interrupts not at all.
                    if !self.core.signal(queue.vector) {
                        signal_pin = true;
                    }
                }
                Err(e) => error = error.or(Some(e)),
            }
        }
        if signal_pin {
            self.isr |= Isr::QUEUE;
            self.core.set_intx(true);
        }
        if error.is_some() {
            self.needs_reset();
        }
    }

    fn running(&self) -> bool {
        let status = DeviceStatus(self.status);
        status.has(DeviceStatus::DRIVER_OK)
            && self.status & DeviceStatus::NEEDS_RESET == 0
            && self.core.config.bus_master()
    }

    /// The driver broke the rules: nothing happens any more until it resets the device.
    fn needs_reset(&mut self) {
        self.status |= DeviceStatus::NEEDS_RESET;
        if self.status & DeviceStatus::DRIVER_OK != 0 {
            self.configuration_changed();
        }
    }

    fn configuration_changed(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
        if !self.core.signal(self.config_vector) {
            self.isr |= Isr::CONFIG;
            self.core.set_intx(true);
        }
    }

    fn notify_all(&mut self) {
        for queue in 0..self.queues.len() as u16 {
            self.with_queues(|device, queues| device.notify(queue, queues));
        }
    }

    /// Device reset (section 2.4): what writing zero to the status does.
    fn device_reset(&mut self) {
        self.status = 0;
        self.isr = 0;
        self.config_generation = 0;
        self.config_vector = NO_VECTOR;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.queues.iter_mut().for_each(Virtqueue::reset);
        self.device.reset();
        self.core.set_intx(false);
    }

    fn offered(&self) -> u64 {
        COMMON_FEATURES | self.device.features()
    }

    fn common_bytes(&self) -> [u8; COMMON_LENGTH] {
        let mut bytes = [0; COMMON_LENGTH];
        let mut put = |at: u64, value: u64, size: usize| {
            bytes[at as usize..at as usize + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        let half = |features: u64, select: u32| match select {
            0 => features & 0xffff_ffff,
            1 => features >> 32,
            _ => 0,
        };
        put(common::DEVICE_FEATURE_SELECT, self.device_feature_select.into(), 4);
        put(common::DEVICE_FEATURE, half(self.offered(), self.device_feature_select), 4);
        put(common::DRIVER_FEATURE_SELECT, self.driver_feature_select.into(), 4);
        put(common::DRIVER_FEATURE, half(self.driver_features, self.driver_feature_select), 4);
        put(common::CONFIG_MSIX_VECTOR, self.config_vector.into(), 2);
        put(common::NUM_QUEUES, self.queues.len() as u64, 2);
        put(common::DEVICE_STATUS, self.status.into(), 1);
        put(common::CONFIG_GENERATION, self.config_generation.into(), 1);
        put(common::QUEUE_SELECT, self.queue_select.into(), 2);
        // A queue that does not exist has size zero.
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(common::QUEUE_SIZE, queue.size.into(), 2);
            put(common::QUEUE_MSIX_VECTOR, queue.vector.into(), 2);
            put(common::QUEUE_ENABLE, queue.enabled.into(), 2);
            put(common::QUEUE_NOTIFY_OFF, self.queue_select.into(), 2);
            put(common::QUEUE_DESC, queue.descriptors, 8);
            put(common::QUEUE_DRIVER, queue.available, 8);
            put(common::QUEUE_DEVICE, queue.used, 8);
        }
        bytes
    }

    /// A vector number as the driver reads it back: none if the table has no such entry (section 4.1.5.1.2.1).
    fn vector(&self, value: u16) -> u16 {
        if value < self.core.msix_vectors() { value } else { NO_VECTOR }
    }

    fn common_write(&mut self, offset: u64, size: u8, value: u64) {
        if size == 8 {
            self.common_write(offset, 4, value & 0xffff_ffff);
            self.common_write(offset.wrapping_add(4), 4, value >> 32);
            return;
        }
        let (word, half) = (value as u32, value as u16);
        match offset {
            common::DEVICE_FEATURE_SELECT => self.device_feature_select = word,
            common::DRIVER_FEATURE_SELECT => self.driver_feature_select = word,
            common::DRIVER_FEATURE if self.status & DeviceStatus::FEATURES_OK == 0 => {
                let old = self.driver_features;
                self.driver_features = match self.driver_feature_select {
                    0 => old & !0xffff_ffff | u64::from(word),
                    1 => old & 0xffff_ffff | u64::from(word) << 32,
                    _ => old,
                };
            }
            common::CONFIG_MSIX_VECTOR => self.config_vector = self.vector(half),
            common::DEVICE_STATUS => self.write_status(value as u8),
            common::QUEUE_SELECT => self.queue_select = half,
            _ => self.queue_write(offset, size, value),
        }
    }

    fn queue_write(&mut self, offset: u64, size: u8, value: u64) {
        let vector = self.vector(value as u16);
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else { return };
        if offset == common::QUEUE_MSIX_VECTOR {
            queue.vector = vector;
        }
        if queue.enabled {
            return;
        }
        let low = |old: u64| old & !0xffff_ffff | value & 0xffff_ffff;
        let high = |old: u64| old & 0xffff_ffff | value << 32;
        const DESC_HIGH: u64 = common::QUEUE_DESC + 4;
        const DRIVER_HIGH: u64 = common::QUEUE_DRIVER + 4;
        const DEVICE_HIGH: u64 = common::QUEUE_DEVICE + 4;
        match (offset, size) {
            (common::QUEUE_SIZE, _) => queue.set_size(value as u16),
            (common::QUEUE_ENABLE, _) => queue.enabled = value as u16 == 1,
            (common::QUEUE_DESC, 4) => queue.descriptors = low(queue.descriptors),
            (DESC_HIGH, 4) => queue.descriptors = high(queue.descriptors),
            (common::QUEUE_DRIVER, 4) => queue.available = low(queue.available),
            (DRIVER_HIGH, 4) => queue.available = high(queue.available),
            (common::QUEUE_DEVICE, 4) => queue.used = low(queue.used),
            (DEVICE_HIGH, 4) => queue.used = high(queue.used),
            _ => {}
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            self.device_reset();
            return;
        }
        let old = self.status;
        // The driver sets bits and clears none; the device's own bit is not its to set.
        let mut new = old | value & !DeviceStatus::NEEDS_RESET;
        let newly = new & !old;
        if newly & DeviceStatus::FEATURES_OK != 0 {
            let accepted = self.driver_features;
            if accepted & !self.offered() != 0 || accepted & Feature::VERSION_1 == 0 {
                new &= !DeviceStatus::FEATURES_OK;
            }
        }
        if new & DeviceStatus::FEATURES_OK == 0 {
            // Without accepted features there is no operation (section 3.1.1).
            new &= !DeviceStatus::DRIVER_OK;
        }
        self.status = new;
        if newly & new & DeviceStatus::DRIVER_OK != 0 {
            self.notify_all();
        }
    }

    fn structure_read(&mut self, offset: u64, size: u8) -> u64 {
        let size = usize::from(size.min(8));
        let mut bytes = [0; 8];
        let within = offset % PAGE;
        match offset - within {
            COMMON_AT => super::device::read_structure(&self.common_bytes(), within as usize, &mut bytes[..size]),
            ISR_AT if within == 0 => {
                bytes[0] = core::mem::take(&mut self.isr);
                self.core.set_intx(false);
            }
            DEVICE_AT => self.device.config_read(within as usize, &mut bytes[..size]),
            _ => {}
        }
        u64::from_le_bytes(bytes)
    }

    fn structure_write(&mut self, offset: u64, size: u8, value: u64) {
        let within = offset % PAGE;
        match offset - within {
            COMMON_AT => self.common_write(within, size, value),
            DEVICE_AT => {
                let bytes = value.to_le_bytes();
                self.device.config_write(within as usize, &bytes[..usize::from(size.min(8))]);
            }
            NOTIFY_AT => {
                // The address names the queue; the value repeats it.
                let queue = within / u64::from(NOTIFY_MULTIPLIER);
                if queue < self.queues.len() as u64 {
                    self.with_queues(|device, queues| device.notify(queue as u16, queues));
                }
            }
            _ => {}
        }
    }

    /// What the configuration access capability is set to, if it names an access that exists (section 4.1.4.9).
    fn config_access(&self) -> Option<(Region, u64, u8)> {
        let config = &self.core.config;
        let bar = config.u8_at(self.access_at + capability::BAR);
        let offset = config.u32_at(self.access_at + capability::OFFSET);
        let length = config.u32_at(self.access_at + capability::BAR_LENGTH);
        let whole = matches!(length, 1 | 2 | 4) && offset.is_multiple_of(length);
        whole.then_some((bar, offset.into(), length as u8))
    }

    fn touches_access_data(&self, offset: u16, size: u8) -> bool {
        let at = self.access_at + capability::PCI_DATA;
        offset < at + 4 && offset.saturating_add(u16::from(size)) > at
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> VirtioPciState<D::State> {
        let Self {
            core,
            dma: _,
            queues,
            device,
            access_at: _,
            status,
            isr,
            config_generation,
            config_vector,
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
        } = self;
        VirtioPciState {
            core: core.save(),
            queues: queues.iter().map(Virtqueue::save).collect(),
            device: device.save(),
            status: *status,
            isr: *isr,
            config_generation: *config_generation,
            config_vector: *config_vector,
            device_feature_select: *device_feature_select,
            driver_feature_select: *driver_feature_select,
            driver_features: *driver_features,
            queue_select: *queue_select,
        }
    }

    /// Takes over a saved state of the same device.
    pub fn restore(&mut self, state: &VirtioPciState<D::State>) {
        let VirtioPciState {
            core,
            queues,
            device,
            status,
            isr,
            config_generation,
            config_vector,
            device_feature_select,
            driver_feature_select,
            driver_features,
            queue_select,
        } = state;
        self.core.restore(core);
        for (mine, saved) in self.queues.iter_mut().zip(queues) {
            mine.restore(saved);
        }
        self.device.restore(device);
        self.status = *status;
        self.isr = *isr;
        self.config_generation = *config_generation;
        self.config_vector = *config_vector;
        self.device_feature_select = *device_feature_select;
        self.driver_feature_select = *driver_feature_select;
        self.driver_features = *driver_features;
        self.queue_select = *queue_select;
    }
}

/// Adds one of virtio's vendor capabilities (section 4.1.4), with a further word where the type has one.
fn add_structure(config: &mut ConfigSpace, kind: u8, at: u64, extra: Option<u32>) -> u16 {
    let mut body = Vec::new();
    body.extend_from_slice(&[if extra.is_some() { 20 } else { 16 }, kind, VIRTIO_BAR, 0, 0, 0]);
    body.extend_from_slice(&(at as u32).to_le_bytes());
    body.extend_from_slice(&(PAGE as u32).to_le_bytes());
    if let Some(extra) = extra {
        body.extend_from_slice(&extra.to_le_bytes());
    }
    config.add_capability(id::VENDOR, &body)
}

impl<D: VirtioDevice> Device for VirtioPci<D> {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        match region {
            MSIX_BAR => self.core.msix_read(offset, size),
            VIRTIO_BAR if offset < BAR_SIZE => self.structure_read(offset, size),
            _ => 0,
        }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        match region {
            MSIX_BAR => self.core.msix_write(offset, size, value),
            VIRTIO_BAR if offset < BAR_SIZE => self.structure_write(offset, size, value),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.device_reset();
        self.core.reset();
    }

    fn poll_host(&mut self, now: Nanoseconds) {
        self.with_queues(|device, queues| device.poll_host(now, queues));
    }

    fn waiting_for_host(&self) -> bool {
        self.device.waiting_for_host()
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = self.device.receive(bytes);
        self.with_queues(|device, queues| device.deliver(queues));
        taken
    }
}

impl<D: VirtioDevice> PciFunction for VirtioPci<D> {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        if self.touches_access_data(offset, size)
            && let Some((bar, at, length)) = self.config_access()
        {
            let value = self.read(bar, at, length) as u32;
            self.core.config.set_u32(self.access_at + capability::PCI_DATA, value);
        }
        self.core.config_read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        let data_at = self.access_at + capability::PCI_DATA;
        if self.touches_access_data(offset, size) && offset >= data_at {
            if let Some((bar, at, length)) = self.config_access() {
                let shifted = value.wrapping_shl(8 * u32::from(offset - data_at));
                let mask = if length == 4 { u32::MAX } else { (1 << (8 * u32::from(length))) - 1 };
                self.write(bar, at, length, u64::from(shifted & mask));
            }
            return false;
        }
        let change = self.core.config_write(offset, size, value);
        if change.function_level_reset {
            self.reset();
            return true;
        }
        if change.became_bus_master {
            self.notify_all();
        }
        change.windows
    }

    fn windows(&self) -> Vec<Window> {
        self.core.windows()
    }

    fn save_encoded(&self) -> Vec<u8> {
        encode(&self.save())
    }

    fn restore_encoded(&mut self, state: &[u8]) -> bool {
        decode(state).map(|state| self.restore(&state)).is_some()
    }
}
