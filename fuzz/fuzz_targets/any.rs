//! Every target of the crate `fuzzing` in one program: the environment variable `FUZZ_TARGET` names the one to run.
#![no_main]

use fuzzing::Target;
use std::sync::OnceLock;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    fuzzing::target(&name).unwrap_or_else(|| {
        let names: Vec<_> = fuzzing::TARGETS.iter().map(|target| target.name).collect();
        eprintln!("set FUZZ_TARGET to one of {}", names.join(", "));
        std::process::exit(2);
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.get_or_init(choose).run)(data));
