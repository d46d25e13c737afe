//! A bounded part of the fuzzing in every test run: the same inputs each time.

use fuzzing::generate::{Random, input};
use fuzzing::{TARGETS, Target};

/// Inputs for each target; the processor takes longer than the others, a VMCS is soon entered.
fn inputs(target: &Target) -> u64 {
    match target.name {
        "processor" => 60,
        "vmcs" => 20_000,
        "engines" => 2_000,
        _ => 400,
    }
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

/// `cargo test --release -p fuzzing --test seeded -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn a_million_vmcss_leave_the_state_that_the_manual_says() {
    let target = fuzzing::target("vmcs").expect("the target");
    let mut random = Random::new(0x5eed);
    let seeds = (target.seeds)();
    for _ in 0..1_000_000 {
        (target.run)(&input(&mut random, &seeds, target.longest));
    }
}

/// `ENGINES_SEED=2 cargo test --release -p fuzzing --test seeded engines -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn ten_million_blocks_run_alike_on_both_engines() {
    let number =
        |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, wanted) = (number("ENGINES_SEED", 1), number("ENGINES_BLOCKS", 10_000_000));
    let mut random = Random::new(seed);
    let (mut inputs, mut blocks) = (0_u64, 0);
    while blocks < wanted {
        let data: Vec<u8> = (0..256).flat_map(|_| random.draw().to_le_bytes()).collect();
        inputs += 1;
        blocks += fuzzing::engines::blocks(&data) as u64;
        if inputs.is_multiple_of(16_384) {
            println!("{blocks} blocks");
        }
    }
    println!("seed {seed}: {blocks} blocks in {inputs} inputs");
}
