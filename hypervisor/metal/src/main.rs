//! The program. `image::build` builds it in the profile `bare`; in others, which unwind, there is nothing to run.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]

bare::program!(metal::run, "`vanderpool run` runs it");
