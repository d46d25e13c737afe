//! VT-x conformance tests, as a program that runs on bare metal: on our machine, in Bochs, on a real processor.
//!
//! | module | is |
//! | --- | --- |
//! | `change`, `trial` | how a case's VMCS differs from the valid one, as data; one VMCS prepared, changed, entered |
//! | `checks` | for each VM-entry check, VMCSs that just pass it and VMCSs that fail it |
//! | `exits` | for each basic exit reason, guests that cause it, with what the exit says |
//! | `controls` | for each control, its effect when it is 1 and when it is 0 |
//! | `code` | the guests' instructions |
//! | `complete` | that nothing of `spec` has no case |
//!
//! Each case is one line on the console: `ok`, `FAIL` or `skip`, its name, and what was wrong or missing.
#![no_std]

pub mod change;
pub mod checks;
pub mod code;
pub mod controls;
pub mod report;
pub mod trial;

use bare::{multiboot, println};
use report::Report;
use trial::Trial;

/// Runs every case and ends the run: 0 when none failed.
pub fn run() -> ! {
    // Told to who runs the machine after each entry that fails a check: tests then look which check it was.
    let mut report = Report::new(multiboot::command_line_has("signal"));
    match Trial::new() {
        Ok(mut trial) => {
            checks::run(&mut trial, &mut report);
        }
        Err(why) => println!("FAIL start: {why}"),
    }
    report.finish()
}
