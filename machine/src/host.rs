//! The one door by which the host reaches a running machine.

use std::time::Duration;

/// Something from the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// Bytes for the first serial port.
    Serial(Vec<u8>),
    /// End the run.
    Stop,
}

/// The host's side of a running machine.
pub trait Host {
    /// What has come, without waiting.
    fn poll(&mut self) -> Option<HostEvent>;
    /// What comes within `limit` of real time.
    fn wait(&mut self, limit: Duration) -> Option<HostEvent>;
    /// The run is to end now, also while bytes wait that the guest does not take.
    fn interrupts(&mut self) -> bool {
        false
    }
    /// Somebody sits there: idle time passes as it does for people, and a machine where nothing can happen waits for input.
    fn interactive(&self) -> bool;
}

/// A host that never says anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHost;

impl Host for NoHost {
    fn poll(&mut self) -> Option<HostEvent> {
        None
    }
    fn wait(&mut self, limit: Duration) -> Option<HostEvent> {
        std::thread::sleep(limit);
        None
    }
    fn interactive(&self) -> bool {
        false
    }
}
