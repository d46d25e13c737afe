//! Ports for tests: each records what the device did and lets the test decide what the device sees.

use crate::device::Device;
use crate::ports::{Clock, Dma, DmaFault, Msi, Nanoseconds, Output, Pin, Power, PowerRequest};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A value shared between a fake port and the test that made it.
#[derive(Debug, Default)]
struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Shared<T> {
    fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }

    fn get(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that the test moves by hand. Clones share the time and the alarm, so give each device its own.
#[derive(Clone, Debug, Default)]
pub struct FakeClock {
    state: Shared<(Nanoseconds, Option<Nanoseconds>)>,
}

impl FakeClock {
    /// A clock at time 0 without an alarm.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves to `now` without ringing the alarm.
    pub fn set(&self, now: Nanoseconds) {
        self.state.get().0 = now;
    }

    /// Moves forward by `by` without ringing the alarm.
    pub fn advance(&self, by: Nanoseconds) {
        let mut state = self.state.get();
        state.0 = state.0.saturating_add(by);
    }

    /// The deadline that the device asked for.
    pub fn deadline(&self) -> Option<Nanoseconds> {
        self.state.get().1
    }

    /// Runs `device` up to the time `until`, ringing each alarm at its deadline; at most `limit` alarms. Gives the number
    /// of alarms rung.
    pub fn run(&self, device: &mut dyn Device, until: Nanoseconds, limit: usize) -> usize {
        for rung in 0..limit {
            let due = {
                let mut state = self.state.get();
                match state.1 {
                    Some(deadline) if deadline <= until => {
                        state.1 = None;
                        state.0 = state.0.max(deadline);
                        state.0
                    }
                    _ => {
                        state.0 = state.0.max(until);
                        return rung;
                    }
                }
            };
            device.alarm(due);
        }
        limit
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Nanoseconds {
        self.state.get().0
    }

    fn set_alarm(&self, deadline: Option<Nanoseconds>) {
        self.state.get().1 = deadline;
    }
}

/// A wire that remembers its level and every change. Clones share the wire.
#[derive(Clone, Debug, Default)]
pub struct RecordingPin {
    state: Shared<(bool, Vec<bool>)>,
}

impl RecordingPin {
    /// A wire at low level.
    pub fn new() -> Self {
        Self::default()
    }

    /// The level now.
    pub fn level(&self) -> bool {
        self.state.get().0
    }

    /// The changes of level since the last call, oldest first.
    pub fn take_changes(&self) -> Vec<bool> {
        core::mem::take(&mut self.state.get().1)
    }

    /// The number of low-to-high transitions since the last call of this or of [`Self::take_changes`].
    pub fn take_rises(&self) -> usize {
        self.take_changes().iter().filter(|&&level| level).count()
    }
}

impl Pin for RecordingPin {
    fn set(&self, level: bool) {
        let mut state = self.state.get();
        if state.0 != level {
            state.0 = level;
            // A fuzzed device may toggle without end: keep the record bounded.
            if state.1.len() < 1 << 16 {
                state.1.push(level);
            }
        }
    }
}

/// Message-signalled interrupts, kept as (address, data). Clones share the record.
#[derive(Clone, Debug, Default)]
pub struct RecordingMsi {
    sent: Shared<Vec<(u64, u32)>>,
}

impl RecordingMsi {
    /// No message yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The messages since the last call, oldest first.
    pub fn take(&self) -> Vec<(u64, u32)> {
        core::mem::take(&mut *self.sent.get())
    }
}

impl Msi for RecordingMsi {
    fn send(&self, address: u64, data: u32) {
        let mut sent = self.sent.get();
        if sent.len() < 1 << 16 {
            sent.push((address, data));
        }
    }
}

/// Memory from address 0 upwards. Clones share the memory.
#[derive(Clone, Debug, Default)]
pub struct VecDma {
    memory: Shared<Vec<u8>>,
}

impl VecDma {
    /// `size` bytes of zero.
    pub fn new(size: usize) -> Self {
        Self { memory: Shared::new(alloc::vec![0; size]) }
    }

    /// Memory with these contents.
    pub fn with_contents(contents: Vec<u8>) -> Self {
        Self { memory: Shared::new(contents) }
    }

    /// A copy of `length` bytes at `address`; panics outside the memory.
    pub fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut buffer = alloc::vec![0; length];
        self.read(address, &mut buffer).expect("inside the test's memory");
        buffer
    }

    /// Puts `data` at `address`; panics outside the memory.
    pub fn put(&self, address: u64, data: &[u8]) {
        self.write(address, data).expect("inside the test's memory");
    }
}

/// The part of `memory` that an access touches.
fn window(length: usize, address: u64, size: usize) -> Result<core::ops::Range<usize>, DmaFault> {
    let fault = DmaFault { address };
    let start = usize::try_from(address).map_err(|_| fault)?;
    let end = start.checked_add(size).ok_or(fault)?;
    if end > length { Err(fault) } else { Ok(start..end) }
}

impl Dma for VecDma {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        let memory = self.memory.get();
        let range = window(memory.len(), address, buffer.len())?;
        buffer.copy_from_slice(&memory[range]);
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        let mut memory = self.memory.get();
        let range = window(memory.len(), address, data.len())?;
        memory[range].copy_from_slice(data);
        Ok(())
    }
}

/// Bytes that a device sent to the host. Clones share the record.
#[derive(Clone, Debug, Default)]
pub struct VecOutput {
    bytes: Shared<Vec<u8>>,
}

impl VecOutput {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written since the last call.
    pub fn take(&self) -> Vec<u8> {
        core::mem::take(&mut *self.bytes.get())
    }
}

impl Output for VecOutput {
    fn write(&mut self, bytes: &[u8]) {
        self.bytes.get().extend_from_slice(bytes);
    }
}

/// Requests to the machine as a whole. Clones share the record.
#[derive(Clone, Debug, Default)]
pub struct RecordingPower {
    requests: Shared<Vec<PowerRequest>>,
}

impl RecordingPower {
    /// No request yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The requests since the last call, oldest first.
    pub fn take(&self) -> Vec<PowerRequest> {
        core::mem::take(&mut *self.requests.get())
    }
}

impl Power for RecordingPower {
    fn request(&self, request: PowerRequest) {
        let mut requests = self.requests.get();
        if requests.len() < 1 << 16 {
            requests.push(request);
        }
    }
}
