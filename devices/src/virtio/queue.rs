//! The device's side of a split virtqueue (VIRTIO 1.2 section 2.7).
//!
//! The driver owns descriptor table and available ring, so nothing in them is trusted: a chain has at most as many
//! descriptors as the queue has entries (which ends loops), at most [`MAX_CHAIN_BYTES`] bytes, and every index is
//! checked. What breaks these rules is a [`RingError`], upon which the device needs a reset.

use crate::ports::{Dma, DmaFault};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::virtio::Feature;
use spec::virtio::pci::NO_VECTOR;
use spec::virtio::ring::{self, DescriptorFlags};

/// Most bytes one chain may describe. The largest request that a driver of ours makes is 16 MiB (block); a bound keeps
/// one notification from copying without end.
pub const MAX_CHAIN_BYTES: u64 = 32 << 20;

/// What a driver did wrong with a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The ring, or a buffer, is where there is no memory.
    Fault(DmaFault),
    /// The available index is further ahead than the queue is long.
    AvailableIndex,
    /// A descriptor number is not below the size of its table.
    DescriptorIndex,
    /// A chain has more descriptors than the queue has entries; a loop has.
    ChainTooLong,
    /// A chain has more than [`MAX_CHAIN_BYTES`] bytes.
    ChainTooLarge,
    /// A buffer has no bytes.
    ZeroLength,
    /// A buffer runs over the end of the address space.
    AddressOverflow,
    /// A device-readable buffer follows a device-writable one.
    ReadableAfterWritable,
    /// An indirect table was not negotiated, is nested, continues in the outer table, or has a wrong length.
    Indirect,
    /// The device's own rules for a request's layout are broken (a missing header, say).
    Layout,
}

impl From<DmaFault> for RingError {
    fn from(fault: DmaFault) -> Self {
        Self::Fault(fault)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    address: u64,
    length: u32,
}

/// The buffers of one direction of a chain, consumed from the front.
#[derive(Clone, Debug, Default)]
pub struct Buffers {
    segments: Vec<Segment>,
    first: usize,
    remaining: u64,
}

impl Buffers {
    fn push(&mut self, address: u64, length: u32) {
        self.segments.push(Segment { address, length });
        self.remaining += u64::from(length);
    }

    /// Bytes not yet consumed.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes the next piece of at most `limit` bytes.
    fn take(&mut self, limit: usize) -> Option<(u64, usize)> {
        let segment = self.segments.get_mut(self.first)?;
        let n = u32::try_from(limit).unwrap_or(u32::MAX).min(segment.length);
        let address = segment.address;
        segment.address = segment.address.wrapping_add(u64::from(n));
        segment.length -= n;
        if segment.length == 0 {
            self.first += 1;
        }
        self.remaining -= u64::from(n);
        Some((address, n as usize))
    }

    /// Reads into `buffer` as much as there is; gives the number of bytes.
    pub fn read(&mut self, dma: &dyn Dma, buffer: &mut [u8]) -> Result<usize, RingError> {
        let mut done = 0;
        while done < buffer.len() {
            let Some((address, n)) = self.take(buffer.len() - done) else { break };
            dma.read(address, &mut buffer[done..done + n])?;
            done += n;
        }
        Ok(done)
    }

    /// Writes as much of `data` as there is room for; gives the number of bytes.
    pub fn write(&mut self, dma: &dyn Dma, data: &[u8]) -> Result<usize, RingError> {
        let mut done = 0;
        while done < data.len() {
            let Some((address, n)) = self.take(data.len() - done) else { break };
            dma.write(address, &data[done..done + n])?;
            done += n;
        }
        Ok(done)
    }

    /// Passes over `count` bytes, or what there is.
    pub fn skip(&mut self, mut count: u64) {
        while count > 0 {
            let limit = usize::try_from(count).unwrap_or(usize::MAX);
            let Some((_, n)) = self.take(limit) else { break };
            count -= n as u64;
        }
    }

    /// Cuts off the last byte, where block devices want their status; `None` when there is none.
    pub fn split_last(&mut self) -> Option<u64> {
        if self.remaining == 0 {
            return None;
        }
        let last = self.segments.last_mut()?;
        last.length -= 1;
        self.remaining -= 1;
        let address = last.address.wrapping_add(u64::from(last.length));
        if last.length == 0 {
            self.segments.pop();
        }
        Some(address)
    }
}

/// One request: a chain of descriptors, its readable buffers before its writable ones.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The number of its first descriptor, which names it in the used ring.
    pub head: u16,
    /// What the device may read.
    pub readable: Buffers,
    /// What the device may write.
    pub writable: Buffers,
}

/// The saved state of a [`Virtqueue`]. Fields as there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VirtqueueState {
    pub size: u16,
    pub enabled: bool,
    pub vector: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub next_available: u16,
    pub next_used: u16,
    pub signalled: u16,
}

/// A split virtqueue.
#[derive(Clone, Debug)]
pub struct Virtqueue {
    /// The largest size, which is offered after reset.
    max_size: u16,
    /// Entries, a power of two.
    pub size: u16,
    /// The driver has enabled it.
    pub enabled: bool,
    /// MSI-X vector, or [`NO_VECTOR`].
    pub vector: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// Free-running index of the next available entry.
    next_available: u16,
    /// Free-running index of the next used entry.
    next_used: u16,
    /// The used index when the need for an interrupt was last considered.
    signalled: u16,
}

impl Virtqueue {
    /// A queue of at most `max_size` entries.
    ///
    /// # Panics
    /// If that is not a power of two up to 32768: a mistake in the device model.
    pub fn new(max_size: u16) -> Self {
        assert!(max_size.is_power_of_two() && max_size <= ring::MAX_QUEUE_SIZE, "a queue's size is a power of two");
        Self {
            max_size,
            size: max_size,
            enabled: false,
            vector: NO_VECTOR,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
            signalled: 0,
        }
    }

    /// The state after a device reset.
    pub fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    /// Sets the size if the driver may choose it.
    pub fn set_size(&mut self, size: u16) {
        if size.is_power_of_two() && size <= self.max_size && !self.enabled {
            self.size = size;
        }
    }

    fn read_u16(dma: &dyn Dma, address: u64) -> Result<u16, RingError> {
        let mut bytes = [0; 2];
        dma.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Address of entry `index` of the available ring; `index` == size gives `used_event`.
    fn available_entry(&self, index: u16) -> u64 {
        self.available.wrapping_add(ring::available::RING + 2 * u64::from(index))
    }

    /// Number of chains the driver has made available and the device has not taken.
    pub fn waiting(&self, dma: &dyn Dma) -> Result<u16, RingError> {
        let index = Self::read_u16(dma, self.available.wrapping_add(ring::available::INDEX))?;
        let waiting = index.wrapping_sub(self.next_available);
        if waiting > self.size { Err(RingError::AvailableIndex) } else { Ok(waiting) }
    }

    /// Takes the next chain.
    pub fn pop(&mut self, dma: &dyn Dma, features: u64) -> Result<Option<Chain>, RingError> {
        if !self.enabled || self.waiting(dma)? == 0 {
            return Ok(None);
        }
        let slot = self.next_available & (self.size - 1);
        let head = Self::read_u16(dma, self.available_entry(slot))?;
        let chain = self.walk(dma, features, head)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Gives back the last `count` chains taken, as if they had not been.
    pub fn unpop(&mut self, count: u16) {
        self.next_available = self.next_available.wrapping_sub(count);
    }

    fn walk(&self, dma: &dyn Dma, features: u64, head: u16) -> Result<Chain, RingError> {
        let mut chain = Chain { head, readable: Buffers::default(), writable: Buffers::default() };
        let (mut table, mut entries, mut indirect) = (self.descriptors, u32::from(self.size), false);
        let mut index = u32::from(head);
        let mut left = self.size;
        loop {
            if index >= entries {
                return Err(RingError::DescriptorIndex);
            }
            let mut raw = [0u8; 16];
            dma.read(table.wrapping_add(u64::from(index) * ring::DESCRIPTOR_SIZE), &mut raw)?;
            let [a @ .., _, _, _, _, _, _, _, _] = raw;
            let address = u64::from_le_bytes(a);
            let length = u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]);
            let flags = u16::from_le_bytes([raw[12], raw[13]]);
            let next = u16::from_le_bytes([raw[14], raw[15]]);
            if length == 0 {
                return Err(RingError::ZeroLength);
            }
            if address.checked_add(u64::from(length) - 1).is_none() {
                return Err(RingError::AddressOverflow);
            }
            if flags & DescriptorFlags::INDIRECT != 0 {
                let whole = u64::from(length) % ring::DESCRIPTOR_SIZE == 0;
                let allowed = features & Feature::RING_INDIRECT_DESC != 0;
                if indirect || !allowed || !whole || flags & DescriptorFlags::NEXT != 0 {
                    return Err(RingError::Indirect);
                }
                (table, entries, indirect, index) = (address, length / ring::DESCRIPTOR_SIZE as u32, true, 0);
                continue;
            }
            left = left.checked_sub(1).ok_or(RingError::ChainTooLong)?;
            if flags & DescriptorFlags::WRITE != 0 {
                chain.writable.push(address, length);
            } else if chain.writable.remaining() != 0 {
                return Err(RingError::ReadableAfterWritable);
            } else {
                chain.readable.push(address, length);
            }
            if chain.readable.remaining() + chain.writable.remaining() > MAX_CHAIN_BYTES {
                return Err(RingError::ChainTooLarge);
            }
            if flags & DescriptorFlags::NEXT == 0 {
                return Ok(chain);
            }
            index = u32::from(next);
        }
    }

    /// Returns chain `head` to the driver with `written` bytes in its writable buffers.
    pub fn push(&mut self, dma: &dyn Dma, head: u16, written: u32) -> Result<(), RingError> {
        let slot = self.next_used & (self.size - 1);
        let mut element = [0; 8];
        element[..4].copy_from_slice(&u32::from(head).to_le_bytes());
        element[4..].copy_from_slice(&written.to_le_bytes());
        dma.write(self.used.wrapping_add(ring::used::RING + ring::used::ENTRY_SIZE * u64::from(slot)), &element)?;
        self.next_used = self.next_used.wrapping_add(1);
        dma.write(self.used.wrapping_add(ring::used::INDEX), &self.next_used.to_le_bytes())?;
        Ok(())
    }

    /// Asks the driver to notify of the next chain it makes available (section 2.7.10). Without `EVENT_IDX` it always does.
    pub fn request_notification(&self, dma: &dyn Dma, features: u64) -> Result<(), RingError> {
        if self.enabled && features & Feature::RING_EVENT_IDX != 0 {
            let at = self.used.wrapping_add(ring::used::RING + ring::used::ENTRY_SIZE * u64::from(self.size));
            dma.write(at, &self.next_available.to_le_bytes())?;
        }
        Ok(())
    }

    /// Whether the driver wants an interrupt for what was returned since the last call (section 2.7.7).
    pub fn take_interrupt(&mut self, dma: &dyn Dma, features: u64) -> Result<bool, RingError> {
        let (old, new) = (self.signalled, self.next_used);
        if !self.enabled || old == new {
            return Ok(false);
        }
        self.signalled = new;
        if features & Feature::RING_EVENT_IDX != 0 {
            let event = Self::read_u16(dma, self.available_entry(self.size))?;
            // The event lies in [old, new).
            return Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old));
        }
        Ok(Self::read_u16(dma, self.available)? & ring::available::NO_INTERRUPT == 0)
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> VirtqueueState {
        let Self {
            max_size: _,
            size,
            enabled,
            vector,
            descriptors,
            available,
            used,
            next_available,
            next_used,
            signalled,
        } = *self;
        VirtqueueState { size, enabled, vector, descriptors, available, used, next_available, next_used, signalled }
    }

    /// Takes over a saved state; a size that this queue cannot have becomes its largest.
    pub fn restore(&mut self, state: &VirtqueueState) {
        let VirtqueueState {
            size,
            enabled,
            vector,
            descriptors,
            available,
            used,
            next_available,
            next_used,
            signalled,
        } = *state;
        let size = if size.is_power_of_two() && size <= self.max_size { size } else { self.max_size };
        let max_size = self.max_size;
        *self = Self {
            max_size,
            size,
            enabled,
            vector,
            descriptors,
            available,
            used,
            next_available,
            next_used,
            signalled,
        };
    }
}
