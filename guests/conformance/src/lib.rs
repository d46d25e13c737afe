//! VT-x conformance tests, as a program that runs on bare metal: on our machine, in Bochs, on a real processor.
//!
//! | module | is |
//! | --- | --- |
//! | `change`, `trial` | how a case's VMCS differs from the valid one, as data; one VMCS prepared, changed, entered |
//! | `checks` | for each VM-entry check, VMCSs that just pass it and VMCSs that fail it |
//! | `exits` | for each basic exit reason, guests that cause it, with what the exit says |
//! | `controls` | for each control, its effect when it is 1 and when it is 0 |
//! | `code` | the guests' instructions |
//! | `startup` | start-up IPIs from a second processor |
//!
//! Each case is one line on the console: `ok`, `FAIL` or `skip`, its name, and what was wrong or missing.
#![no_std]

pub mod change;
pub mod checks;
pub mod code;
pub mod controls;
pub mod exits;
pub mod report;
pub mod startup;
pub mod trial;

use bare::{multiboot, println};
use change::Change;
use report::Report;
use trial::Trial;

/// Runs every case and ends the run: 0 when none failed.
pub fn run() -> ! {
    // Told to who runs the machine after each entry that fails a check: tests then look which check it was.
    let mut report = Report::new(multiboot::command_line_has("signal"));
    match Trial::new() {
        Ok(mut trial) => {
            // Cases in x2APIC mode come after all others, exits last: after INIT Bochs is not what it was.
            exits::run(&mut trial, &mut report, false);
            controls::run(&mut trial, &mut report, false);
            checks::run(&mut trial, &mut report, false);
            trial.keeps_x2apic = true;
            checks::run(&mut trial, &mut report, true);
            controls::run(&mut trial, &mut report, true);
            exits::run(&mut trial, &mut report, true);
            checks::find_missing(&mut report);
            controls::find_missing(&mut report);
            exits::find_missing(&mut report);
        }
        Err(why) => println!("FAIL start: {why}"),
    }
    report.finish()
}

/// Whether a case needs x2APIC mode.
fn needs_x2apic(changes: &[Change]) -> bool {
    changes.iter().any(|change| matches!(change, Change::X2apic))
}
