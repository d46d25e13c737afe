//! The program. the crate `image` builds it in the profile `bare`; in others, which unwind, there is nothing to run.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]

bare::program!(conformance::run, "`cargo xtask conformance` builds and runs it");
