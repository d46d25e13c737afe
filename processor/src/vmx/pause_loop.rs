//! PAUSE-loop exiting (SDM Vol. 3C, 26.1.3).

/// When the guest executed PAUSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PauseLoop {
    /// Time at which the last PAUSE was over, in TSC ticks; 0 for none since the VM entry.
    last: u64,
    /// Time of the first PAUSE of the present loop.
    first: u64,
}

impl PauseLoop {
    /// A PAUSE that begins at time `now` and takes `duration`. True when it is to exit: the loop has gone on for longer than `window`.
    pub fn pause(&mut self, now: u64, duration: u64, gap: u64, window: u64) -> bool {
        if self.last == 0 || now.saturating_sub(self.last) > gap {
            self.first = now;
        }
        self.last = now.wrapping_add(duration);
        now.wrapping_sub(self.first) > window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_longer_than_the_window_exits() {
        let mut pauses = PauseLoop::default();
        let exits: Vec<bool> = (0..5).map(|n| pauses.pause(100 + n * 10, 5, 20, 25)).collect();
        assert_eq!(exits, [false, false, false, true, true]);
    }

    #[test]
    fn a_gap_begins_a_new_loop() {
        let mut pauses = PauseLoop::default();
        assert!(!pauses.pause(100, 5, 20, 25));
        assert!(!pauses.pause(200, 5, 20, 25));
        assert!(!pauses.pause(225, 5, 20, 25));
    }
}
