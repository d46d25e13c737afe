//! The console (VIRTIO 1.2 section 5.3), one port.

use super::device::{Queues, VirtioDevice, read_structure};
use crate::ports::Output;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::virtio::console::{Feature, QUEUE_RECEIVE, QUEUE_TRANSMIT, config};
use spec::virtio::device_type;

/// Bytes from the host that may wait for the guest.
const PENDING_MAX: usize = 4096;

/// The saved state of a [`Console`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Bytes from the host that wait for the guest.
    pub pending: Vec<u8>,
}

/// A virtio console with one port.
pub struct Console {
    output: Box<dyn Output>,
    /// Columns and rows.
    size: (u16, u16),
    pending: VecDeque<u8>,
}

impl Console {
    /// A console of `size` (columns, rows) whose output goes to `output`.
    pub fn new(output: Box<dyn Output>, size: (u16, u16)) -> Self {
        Self { output, size, pending: VecDeque::new() }
    }
}

impl VirtioDevice for Console {
    type State = ConsoleState;

    fn device_type(&self) -> u16 {
        device_type::CONSOLE
    }

    fn class(&self) -> u32 {
        // Other communication device.
        0x07_80_00
    }

    fn features(&self) -> u64 {
        Feature::SIZE | Feature::EMERG_WRITE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[64, 64]
    }

    fn config_read(&self, offset: usize, data: &mut [u8]) {
        let mut bytes = [0; config::LENGTH as usize];
        bytes[..2].copy_from_slice(&self.size.0.to_le_bytes());
        bytes[2..4].copy_from_slice(&self.size.1.to_le_bytes());
        read_structure(&bytes, offset, data);
    }

    fn config_write(&mut self, offset: usize, data: &[u8]) {
        // Emergency write: one character, without any queue set up.
        if offset == config::EMERGENCY_WRITE as usize
            && let Some(character) = data.first()
        {
            self.output.write(&[*character]);
        }
    }

    fn notify(&mut self, queue: u16, queues: &mut Queues<'_>) {
        if queue == QUEUE_RECEIVE {
            self.deliver(queues);
            queues.request_notification(queue);
            return;
        }
        while let Some(mut chain) = queues.pop(QUEUE_TRANSMIT) {
            let mut buffer = [0; 1024];
            loop {
                match queues.read(&mut chain, &mut buffer) {
                    None => return,
                    Some(0) => break,
                    Some(n) => self.output.write(&buffer[..n]),
                }
            }
            queues.push(QUEUE_TRANSMIT, chain.head, 0);
        }
        queues.request_notification(QUEUE_TRANSMIT);
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(PENDING_MAX - self.pending.len());
        self.pending.extend(&bytes[..n]);
        n
    }

    fn deliver(&mut self, queues: &mut Queues<'_>) {
        while !self.pending.is_empty() {
            let Some(mut chain) = queues.pop(QUEUE_RECEIVE) else { return };
            let Some(n) = queues.write(&mut chain, self.pending.make_contiguous()) else { return };
            self.pending.drain(..n);
            queues.push(QUEUE_RECEIVE, chain.head, n as u64);
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> ConsoleState {
        let Self { output: _, size: _, pending } = self;
        ConsoleState { pending: pending.iter().copied().collect() }
    }

    fn restore(&mut self, state: &ConsoleState) {
        let ConsoleState { pending } = state;
        self.pending = pending.iter().copied().take(PENDING_MAX).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DATA, Driver, fuzz};
    use super::*;
    use crate::device::Device;
    use crate::testing::VecOutput;

    #[test]
    fn output_and_input_pass() {
        let output = VecOutput::new();
        let mut driver = Driver::running(Console::new(Box::new(output.clone()), (80, 25)), 0);
        driver.memory.put(DATA, &[b'x'; 3000]);
        driver.add(1, &[(DATA, 3000)], &[]);
        driver.kick(1);
        assert_eq!(output.take().len(), 3000);
        assert_eq!(driver.function.receive(b"before any buffer"), 17);
        driver.add(0, &[], &[(DATA, 10)]);
        driver.kick(0);
        assert_eq!(driver.used(0)[0].1, 10);
        driver.add(0, &[], &[(DATA + 10, 10)]);
        driver.kick(0);
        assert_eq!(driver.memory.bytes(DATA, 17), b"before any buffer");
        driver.add(0, &[], &[(DATA, 10)]);
        driver.kick(0);
        assert_eq!(driver.used(0).len(), 1, "only the second: a buffer without bytes is kept");
        driver.function.receive(b"!");
        assert_eq!(driver.used(0)[0].1, 1);
    }

    #[test]
    fn input_that_the_guest_does_not_take_is_bounded() {
        let mut driver = Driver::running(Console::new(Box::new(VecOutput::new()), (80, 25)), 0);
        assert_eq!(driver.function.receive(&[0; 5000]), PENDING_MAX);
        assert_eq!(driver.function.receive(&[0; 5000]), 0);
    }

    #[test]
    fn emergency_writes_need_no_queue() {
        let output = VecOutput::new();
        let mut driver = Driver::cold(Console::new(Box::new(output.clone()), (80, 25)));
        driver.set_common(0x2000 + config::EMERGENCY_WRITE, 4, u64::from(b'!'));
        assert_eq!(output.take(), b"!");
        assert_eq!(driver.common(0x2000, 4), 25 << 16 | 80);
    }

    #[test]
    fn random_rings_do_no_harm() {
        fuzz(|| Console::new(Box::new(crate::ports::Discard), (80, 25)), 4, 2000);
    }
}
