//! What a virtio device is to its transport, and its view of its queues.

use super::queue::{Chain, RingError, Virtqueue};
use crate::ports::{Dma, Nanoseconds};
use serde::{Serialize, de::DeserializeOwned};

/// A virtio device without its transport.
pub trait VirtioDevice: Send {
    /// Its saved state.
    type State: Clone + core::fmt::Debug + PartialEq + Serialize + DeserializeOwned;

    /// Its type (VIRTIO 1.2 section 5).
    fn device_type(&self) -> u16;
    /// PCI class code.
    fn class(&self) -> u32;
    /// The features it has beyond those of the transport and the rings.
    fn features(&self) -> u64;
    /// The largest size of each of its queues.
    fn queue_sizes(&self) -> &[u16];
    /// Reads device-specific configuration at `offset`; bytes that do not exist are left zero.
    fn config_read(&self, offset: usize, data: &mut [u8]);
    /// Writes device-specific configuration.
    fn config_write(&mut self, offset: usize, data: &[u8]) {
        let _ = (offset, data);
    }
    /// The driver has added buffers to `queue`, or the device may just have become able to look.
    fn notify(&mut self, queue: u16, queues: &mut Queues<'_>);
    /// Takes what the host has. Called by the machine between slices and at no other time.
    fn poll_host(&mut self, now: Nanoseconds, queues: &mut Queues<'_>) {
        let _ = (now, queues);
    }
    /// Something from the host may be on its way, so the machine should not skip idle time.
    fn waiting_for_host(&self) -> bool {
        false
    }
    /// Takes bytes typed at the host, whether or not the driver runs; gives the number taken.
    fn receive(&mut self, bytes: &[u8]) -> usize {
        let _ = bytes;
        0
    }
    /// Hands what was received to the driver, which runs.
    fn deliver(&mut self, queues: &mut Queues<'_>) {
        let _ = queues;
    }
    /// Device reset.
    fn reset(&mut self);
    /// What must be kept to continue later.
    fn save(&self) -> Self::State;
    /// Takes over a saved state.
    fn restore(&mut self, state: &Self::State);
}

/// Copies the part of `bytes` from `offset` on that `data` has room for: [`VirtioDevice::config_read`] for a fixed structure.
pub fn read_structure(bytes: &[u8], offset: usize, data: &mut [u8]) {
    for (to, from) in data.iter_mut().zip(bytes.iter().skip(offset)) {
        *to = *from;
    }
}

/// The queues of a device that is running, as the device may use them. After the first broken rule there is nothing
/// more to be had: the transport will ask for a reset.
pub struct Queues<'a> {
    /// Memory, for buffers.
    pub dma: &'a dyn Dma,
    pub(super) queues: &'a mut [Virtqueue],
    /// The features the driver accepted.
    pub features: u64,
    pub(super) error: Option<RingError>,
}

impl Queues<'_> {
    fn check<T>(&mut self, result: Result<T, RingError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// The driver has broken a rule; the device needs a reset.
    pub fn fail(&mut self, error: RingError) {
        self.error.get_or_insert(error);
    }

    /// A rule has been broken.
    pub fn failed(&self) -> bool {
        self.error.is_some()
    }

    fn queue(&mut self, queue: u16) -> Option<&mut Virtqueue> {
        if self.error.is_some() { None } else { self.queues.get_mut(usize::from(queue)) }
    }

    /// The next chain of `queue`.
    pub fn pop(&mut self, queue: u16) -> Option<Chain> {
        let (dma, features) = (self.dma, self.features);
        let result = self.queue(queue)?.pop(dma, features);
        self.check(result)?
    }

    /// Gives back the last `count` chains taken from `queue`.
    pub fn unpop(&mut self, queue: u16, count: u16) {
        if let Some(queue) = self.queue(queue) {
            queue.unpop(count);
        }
    }

    /// Chains of `queue` that wait to be taken.
    pub fn waiting(&mut self, queue: u16) -> u16 {
        let dma = self.dma;
        let Some(queue) = self.queue(queue).filter(|queue| queue.enabled) else { return 0 };
        let result = queue.waiting(dma);
        self.check(result).unwrap_or(0)
    }

    /// Returns the chain `head` of `queue` to the driver.
    pub fn push(&mut self, queue: u16, head: u16, written: u64) {
        let dma = self.dma;
        let Some(queue) = self.queue(queue) else { return };
        let result = queue.push(dma, head, u32::try_from(written).unwrap_or(u32::MAX));
        self.check(result);
    }

    /// Reads from the chain what fits in `buffer`; the number of bytes, or `None` after an error.
    pub fn read(&mut self, chain: &mut Chain, buffer: &mut [u8]) -> Option<usize> {
        let result = chain.readable.read(self.dma, buffer);
        self.check(result)
    }

    /// Writes to the chain what fits of `data`; the number of bytes, or `None` after an error.
    pub fn write(&mut self, chain: &mut Chain, data: &[u8]) -> Option<usize> {
        let result = chain.writable.write(self.dma, data);
        self.check(result)
    }

    /// Asks to be notified of the next chain of `queue`. A queue never asked for may be notified seldom.
    pub fn request_notification(&mut self, queue: u16) {
        let (dma, features) = (self.dma, self.features);
        let Some(queue) = self.queue(queue) else { return };
        let result = queue.request_notification(dma, features);
        self.check(result);
    }
}
