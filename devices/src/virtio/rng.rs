//! The entropy device (VIRTIO 1.2 section 5.4). Its entropy is a seeded generator, so that a run can be repeated.

use super::device::{Queues, VirtioDevice};
use serde::{Deserialize, Serialize};
use spec::virtio::device_type;

/// Most bytes given to one request; a driver that wants more asks again.
const REQUEST_MAX: usize = 4096;

/// The saved state of an [`Entropy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntropyState {
    /// The generator's state.
    pub generator: u64,
}

/// A virtio entropy source.
#[derive(Clone, Debug)]
pub struct Entropy {
    generator: u64,
}

impl Entropy {
    /// A source whose output is determined by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { generator: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", 2014).
    fn next(&mut self) -> u64 {
        self.generator = self.generator.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.generator;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

impl VirtioDevice for Entropy {
    type State = EntropyState;

    fn device_type(&self) -> u16 {
        device_type::RNG
    }

    fn class(&self) -> u32 {
        // Unassigned: no class has entropy sources.
        0xff_00_00
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[8]
    }

    fn config_read(&self, _offset: usize, _data: &mut [u8]) {}

    fn notify(&mut self, queue: u16, queues: &mut Queues<'_>) {
        while let Some(mut chain) = queues.pop(queue) {
            let mut bytes = [0; REQUEST_MAX];
            let n = chain.writable.remaining().min(REQUEST_MAX as u64) as usize;
            for piece in bytes[..n].chunks_mut(8) {
                piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
            }
            let Some(written) = queues.write(&mut chain, &bytes[..n]) else { return };
            queues.push(queue, chain.head, written as u64);
        }
        queues.request_notification(queue);
    }

    fn reset(&mut self) {
        // The generator goes on: a driver that resets must not get the same numbers again.
    }

    fn save(&self) -> EntropyState {
        let Self { generator } = *self;
        EntropyState { generator }
    }

    fn restore(&mut self, state: &EntropyState) {
        let EntropyState { generator } = *state;
        self.generator = generator;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DATA, Driver, fuzz};
    use super::*;

    #[test]
    fn the_seed_determines_the_bytes_and_they_go_on_after_a_reset() {
        let mut driver = Driver::running(Entropy::new(1), 0);
        driver.add(0, &[], &[(DATA, 64)]);
        driver.kick(0);
        assert_eq!(driver.used(0)[0].1, 64);
        let first = driver.memory.bytes(DATA, 64);
        driver.start(0);
        driver.add(0, &[], &[(DATA, 64)]);
        driver.kick(0);
        assert_ne!(driver.memory.bytes(DATA, 64), first);
        let mut same = Driver::running(Entropy::new(1), 0);
        same.add(0, &[], &[(DATA, 64)]);
        same.kick(0);
        assert_eq!(same.memory.bytes(DATA, 64), first);
    }

    #[test]
    fn a_huge_request_is_answered_in_part() {
        let mut driver = Driver::running(Entropy::new(1), 0);
        driver.add(0, &[], &[(DATA, 1 << 20)]);
        driver.kick(0);
        assert_eq!(driver.used(0)[0].1, REQUEST_MAX as u32);
    }

    #[test]
    fn random_rings_do_no_harm() {
        fuzz(|| Entropy::new(3), 3, 2000);
    }
}
