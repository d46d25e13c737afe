//! A bounded, seeded part of the differential test.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use hostcheck::campaign::{Plan, run};

/// A host that is too old to be compared with: the tests then say nothing.
fn unusable() -> bool {
    !is_x86_feature_detected!("avx2")
}

#[test]
fn no_unexplained_difference() {
    if unusable() {
        return;
    }
    let plan = Plan { cases: 60_000, seed: 7, only: None, show: 2 };
    let report = run(&plan).expect("the host can be used");
    let different: u64 = report.tallies.values().map(|tally| tally.different).sum();
    assert_eq!(different, 0, "{}", report.descriptions.join("\n"));
    assert!(report.tallies.len() > 700, "only {} mnemonics were checked", report.tallies.len());
}

#[test]
fn blocks_do_what_single_instructions_do() {
    if unusable() {
        return;
    }
    let report = hostcheck::sequence::run(100_000, 7, 2).expect("the host can be used");
    assert_eq!(report.different, 0, "{}", report.descriptions.join("\n"));
    assert!(report.faults > 100, "only {} runs met exceptions", report.faults);
}
