//! A bounded part of the fuzzing in every test run: the same inputs each time.

use fuzzing::generate::{Random, input};
use fuzzing::{TARGETS, Target};

/// Inputs for each target; the processor takes longer than the others.
fn inputs(target: &Target) -> u64 {
    if target.name == "processor" { 60 } else { 400 }
}

fn check(target: &Target) {
    let mut random = Random::new(0x5eed);
    let seeds = (target.seeds)();
    for seed in &seeds {
        (target.run)(seed);
    }
    for _ in 0..inputs(target) {
        (target.run)(&input(&mut random, &seeds, 2048));
    }
}

#[test]
fn no_seeded_input_breaks_a_target() {
    for target in TARGETS {
        check(target);
    }
}
