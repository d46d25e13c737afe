//! A bounded part of the fuzzing in every test run: the same inputs each time.

use fuzzing::generate::{Random, input};
use fuzzing::{TARGETS, Target};

/// Inputs for each target.
const INPUTS: u64 = 400;

fn check(target: &Target) {
    let mut random = Random::new(0x5eed);
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    for _ in 0..INPUTS {
        (target.run)(&input(&mut random, &seeds, 2048));
    }
}

#[test]
fn no_seeded_input_breaks_a_target() {
    for target in TARGETS {
        check(target);
    }
}
