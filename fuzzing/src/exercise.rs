//! Any sequence of accesses to a device, time passing, and snapshots.

use crate::input::Input;
use devices::device::{Device, Region};
use devices::ports::Clock;
use devices::testing::FakeClock;

/// A device under test.
pub trait Subject {
    /// The device's saved state.
    type State: PartialEq + core::fmt::Debug;
    /// The device.
    type Device: Device;

    /// The register windows: region and length.
    const REGIONS: &'static [(Region, u64)];

    /// A device after power-on whose alarms go to `clock`.
    fn build(clock: &FakeClock) -> Self::Device;
    /// Its state.
    fn save(device: &Self::Device) -> Self::State;
    /// Puts a state into it.
    fn restore(device: &mut Self::Device, state: &Self::State);
    /// Something that happens to it from outside.
    fn outside(device: &mut Self::Device, input: &mut Input<'_>) {
        let _ = (device, input);
    }
}

/// More alarms than this at one instant mean that the device never lets time pass.
const ALARMS_AT_ONCE: usize = 64;

/// Lets time pass to `until`: at most `limit` alarms on time, then one late.
fn pass(device: &mut dyn Device, clock: &FakeClock, until: u64, limit: usize) {
    let mut at_once = 0;
    for _ in 0..limit {
        let Some(deadline) = clock.deadline().filter(|&deadline| deadline <= until) else { break };
        at_once = if deadline <= clock.now() { at_once + 1 } else { 0 };
        assert!(at_once < ALARMS_AT_ONCE, "the alarm rings without end at {deadline} ns");
        clock.run(device, deadline, 1);
    }
    clock.set(clock.now().max(until));
    if clock.deadline().is_some_and(|deadline| deadline <= until) {
        device.alarm(until);
    }
}

/// Feeds `input` to a device of kind `S`.
pub fn exercise<S: Subject>(input: &mut Input<'_>) {
    let mut clock = FakeClock::new();
    let mut device = S::build(&clock);
    while !input.is_empty() {
        let operation = input.byte();
        match operation & 0x0f {
            0..=5 => {
                let (region, offset, size) = place(input, S::REGIONS);
                let value = input.number(size);
                device.write(region, offset, size, value);
            }
            6..=9 => {
                let (region, offset, size) = place(input, S::REGIONS);
                device.read(region, offset, size);
            }
            10 | 11 => {
                let step = input.number(2);
                let until = clock.now().saturating_add(step << (operation >> 4)).min(1 << 61);
                pass(&mut device, &clock, until, 40);
            }
            12 => {
                let step = input.number(2);
                let until = clock.now().saturating_add(step << (16 + 2 * (operation >> 4))).min(1 << 61);
                pass(&mut device, &clock, until, 8);
            }
            13 => {
                let state = S::save(&device);
                let other = FakeClock::new();
                other.set(clock.now());
                let mut copy = S::build(&other);
                S::restore(&mut copy, &state);
                assert_eq!(S::save(&copy), state, "a snapshot does not hold all of the state");
                (device, clock) = (copy, other);
            }
            14 => S::outside(&mut device, input),
            _ if operation >> 4 == 0 => device.reset(),
            _ => {}
        }
    }
}

/// Where an access goes: mostly within a region, sometimes beyond its end or in a region that does not exist.
fn place(input: &mut Input<'_>, regions: &[(Region, u64)]) -> (Region, u64, u8) {
    let choice = input.byte();
    let size = 1 << (choice >> 6);
    match regions.get(usize::from(choice & 0x3f) % (regions.len() + 1)) {
        Some(&(region, length)) => (region, input.below(length), size),
        None => (input.byte(), input.number(8), size),
    }
}
