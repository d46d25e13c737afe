//! The exit status of `vanderpool boot` and `vanderpool run`. What a guest reports through isa-debug-exit is odd; ours are even, so that the two do not mix.

/// The guest powered the machine off, or the user left with Ctrl-A x.
pub const POWER_OFF: u8 = 0;
/// A file, an argument or a tool is not right; one line on standard error says what.
pub const BAD_INPUT: u8 = 2;
/// A processor shut down after a triple fault; a dump of its state is on standard error.
pub const TRIPLE_FAULT: u8 = 4;
/// `--max-instructions` was reached.
pub const INSTRUCTION_LIMIT: u8 = 6;
/// Every processor is halted and nothing can wake one.
pub const IDLE: u8 = 8;
/// The guest asked for a reset, and `--no-reboot` was given.
pub const RESET: u8 = 10;
/// `vanderpool run`: the hypervisor did not start; its console says why.
pub const REFUSED: u8 = 12;
/// `vanderpool run`: a guest did not end by itself, or was refused; the console says which.
pub const GUEST_FAILED: u8 = 14;
/// Added to a signal's number when it ended the run.
pub const SIGNAL: u8 = 128;

/// The status for `value` written to the isa-debug-exit port: `(value << 1) | 1`, cut to the 8 bits that a process has.
#[must_use]
pub fn debug_exit(value: u8) -> u8 {
    value << 1 | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_exit_port_gives_odd_statuses() {
        assert_eq!(debug_exit(0), 1);
        assert_eq!(debug_exit(0x10), 0x21);
        assert_eq!(debug_exit(0xff), 0xff);
    }
}
