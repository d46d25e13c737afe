//! Which of a processor's vCPUs runs next, and for how long: each gets time in proportion to its weight, and no more than its cap. A vCPU that
//! waits for the processor while another processor idles is given away.

use crate::host::Nanoseconds;

/// The longest that a vCPU runs while another waits.
pub const SLICE: Nanoseconds = 5_000_000;
/// The time over which caps are kept.
pub const PERIOD: Nanoseconds = 100_000_000;
/// How long a vCPU waits for its processor before it goes to one that idles.
pub const PATIENCE: Nanoseconds = 1_000_000;
/// What a weight of 1 makes of a nanosecond.
const SCALE: u64 = 1 << 10;

/// A vCPU's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    weight: u64,
    /// The most time in a period.
    allowance: Nanoseconds,
    /// Time had, divided by weight: the vCPU with the least is next.
    virtual_time: u64,
    period: u64,
    used: Nanoseconds,
    /// Since when it could run and did not.
    waits_since: Option<Nanoseconds>,
}

impl Account {
    /// An account with nothing used. `cap` is in percent of a processor; a weight of 0 counts as 1.
    #[must_use]
    pub fn new(weight: u32, cap: u8) -> Self {
        let allowance = if cap >= 100 { Nanoseconds::MAX } else { PERIOD / 100 * u64::from(cap.max(1)) };
        Self { weight: u64::from(weight.max(1)), allowance, virtual_time: 0, period: 0, used: 0, waits_since: None }
    }

    /// The time that it may have at `now` before its cap stops it.
    #[must_use]
    pub fn allowed(&self, now: Nanoseconds) -> Nanoseconds {
        let used = if now / PERIOD == self.period { self.used } else { 0 };
        self.allowance.saturating_sub(used)
    }

    /// When a vCPU that its cap has stopped may go on.
    #[must_use]
    pub fn resumes(&self) -> Nanoseconds {
        (self.period + 1) * PERIOD
    }

    /// Charges the time from `from` to `to`.
    fn charge(&mut self, from: Nanoseconds, to: Nanoseconds) {
        let time = to.saturating_sub(from);
        self.virtual_time += time * SCALE / self.weight;
        self.waits_since = None;
        if to / PERIOD != self.period {
            (self.period, self.used) = (to / PERIOD, 0);
        }
        self.used += time;
    }
}

/// What a processor is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Run the vCPU of this place until this time at the latest.
    Run(usize, Nanoseconds),
    /// Nothing can run; something may at this time.
    Idle(Option<Nanoseconds>),
}

/// The accounts of a processor's vCPUs, by their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    accounts: alloc::vec::Vec<Account>,
    /// The least virtual time of those that ran last: who comes back from waiting has not saved up more than that.
    floor: u64,
    /// The place of a vCPU that spins: others go before it once.
    passes: Option<usize>,
    /// How long the one chosen last had waited.
    waited: Nanoseconds,
}

impl Scheduler {
    /// Adds a vCPU; its place is the number of those before it.
    pub fn add(&mut self, account: Account) {
        self.accounts.push(account);
    }

    /// Takes out the vCPU of this place, with its account; those after it move up.
    pub fn remove(&mut self, place: usize) -> Account {
        self.passes = None;
        let account = self.accounts.remove(place);
        // What it has had counts from here on as what others have had where it goes.
        Account { virtual_time: 0, waits_since: None, ..account }
    }

    /// The vCPU of this place spins (PAUSE-loop exiting): the next choice is another, if one can run.
    pub fn pass(&mut self, place: usize) {
        self.passes = Some(place);
    }

    /// A vCPU for a processor that idles: one that can run and was not chosen, when the chosen one had waited for too long.
    #[must_use]
    pub fn surplus(&self, chosen: usize) -> Option<usize> {
        if self.waited < PATIENCE {
            return None;
        }
        (0..self.accounts.len()).find(|place| *place != chosen && self.accounts[*place].waits_since.is_some())
    }

    /// Chooses among those for which `ready` says true. With others ready a turn is a slice, alone it ends only at a cap.
    pub fn choose(&mut self, now: Nanoseconds, ready: impl Fn(usize) -> bool) -> Decision {
        let mut best: Option<usize> = None;
        let (mut count, mut resumes) = (0, None::<Nanoseconds>);
        let passes = self.passes.take();
        for place in 0..self.accounts.len() {
            let account = &mut self.accounts[place];
            if !ready(place) {
                account.waits_since = None;
                continue;
            }
            account.virtual_time = account.virtual_time.max(self.floor);
            if account.allowed(now) == 0 {
                account.waits_since = None;
                resumes = Some(resumes.map_or(account.resumes(), |at| at.min(account.resumes())));
                continue;
            }
            account.waits_since.get_or_insert(now);
            count += 1;
            let order = |place: usize| (passes == Some(place), self.accounts[place].virtual_time);
            if best.is_none_or(|best| order(place) < order(best)) {
                best = Some(place);
            }
        }
        let Some(place) = best else { return Decision::Idle(resumes) };
        let account = &mut self.accounts[place];
        self.waited = account.waits_since.take().map_or(0, |since| now.saturating_sub(since));
        self.floor = account.virtual_time;
        let longest = if count > 1 { SLICE } else { PERIOD };
        Decision::Run(place, now + longest.min(account.allowed(now)))
    }

    /// The vCPU of this place has run.
    pub fn ran(&mut self, place: usize, from: Nanoseconds, to: Nanoseconds) {
        if let Some(account) = self.accounts.get_mut(place) {
            account.charge(from, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `accounts` compete for a second; the time of each.
    fn compete(accounts: &[Account], ready: impl Fn(usize) -> bool + Copy) -> std::vec::Vec<Nanoseconds> {
        let mut scheduler = Scheduler::default();
        accounts.iter().for_each(|account| scheduler.add(*account));
        let mut had = std::vec![0; accounts.len()];
        let mut now = 0;
        while now < 10 * PERIOD {
            match scheduler.choose(now, ready) {
                Decision::Run(place, until) => {
                    scheduler.ran(place, now, until);
                    had[place] += until - now;
                    now = until;
                }
                Decision::Idle(until) => now = until.unwrap(),
            }
        }
        had
    }

    #[test]
    fn time_is_in_proportion_to_weight() {
        let had = compete(&[Account::new(1, 100), Account::new(3, 100)], |_| true);
        let ratio = had[1] as f64 / had[0] as f64;
        assert!((2.9..3.1).contains(&ratio), "{had:?}");
    }

    #[test]
    fn a_cap_holds_even_alone() {
        let had = compete(&[Account::new(1, 25)], |_| true);
        assert_eq!(had[0], 10 * PERIOD / 4);
    }

    #[test]
    fn who_spins_lets_another_go_first_and_runs_when_there_is_none() {
        let mut scheduler = Scheduler::default();
        (0..2).for_each(|_| scheduler.add(Account::new(1, 100)));
        scheduler.ran(1, 0, SLICE);
        scheduler.pass(0);
        assert!(matches!(scheduler.choose(SLICE, |_| true), Decision::Run(1, _)));
        assert!(matches!(scheduler.choose(SLICE, |_| true), Decision::Run(0, _)));
        scheduler.pass(0);
        assert!(matches!(scheduler.choose(SLICE, |place| place == 0), Decision::Run(0, _)));
    }

    #[test]
    fn where_one_waits_for_too_long_another_is_surplus() {
        let mut scheduler = Scheduler::default();
        (0..3).for_each(|_| scheduler.add(Account::new(1, 100)));
        let ready = |place: usize| place != 2;
        assert!(matches!(scheduler.choose(0, ready), Decision::Run(0, _)));
        assert_eq!(scheduler.surplus(0), None);
        scheduler.ran(0, 0, PATIENCE);
        assert!(matches!(scheduler.choose(PATIENCE, ready), Decision::Run(1, _)));
        assert_eq!(scheduler.surplus(1), Some(0));
        let account = scheduler.remove(0);
        assert_eq!((account.waits_since, scheduler.surplus(0)), (None, None));
        scheduler.add(account);
        assert!(matches!(scheduler.choose(PATIENCE, |place| place == 2), Decision::Run(2, _)));
    }

    #[test]
    fn who_waits_gets_nothing_and_saves_nothing_up() {
        let mut scheduler = Scheduler::default();
        (0..2).for_each(|_| scheduler.add(Account::new(1, 100)));
        for turn in 0..100 {
            assert_eq!(scheduler.choose(turn * SLICE, |place| place == 0), Decision::Run(0, turn * SLICE + PERIOD));
            scheduler.ran(0, turn * SLICE, (turn + 1) * SLICE);
        }
        let mut first = 0;
        for turn in 100..120 {
            let Decision::Run(place, until) = scheduler.choose(turn * SLICE, |_| true) else { panic!() };
            scheduler.ran(place, turn * SLICE, until);
            first += u64::from(place == 0);
        }
        assert!((9..=11).contains(&first), "{first} of 20");
    }
}
