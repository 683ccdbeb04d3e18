//! A process's clock: true time, seen through skew, drift, steps and standstill.
//!
//! A driver's clock is steady (`runtime/src/clock.rs`): it may start wrong, run fast or slow, jump ahead while a machine
//! sleeps, or stand still. It never goes back while the process lives; the store's clock does.

use kalends_core::time::Timestamp;

const MILLION: i128 = 1_000_000;

/// Maps true time to a process's and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalClock {
    base_true: Timestamp,
    base_local: Timestamp,
    drift_ppm: i32,
    frozen: bool,
}

impl LocalClock {
    /// A clock that is off by `skew_ms` and runs right from now on.
    pub(crate) fn new(now: Timestamp, skew_ms: i64) -> Self {
        LocalClock {
            base_true: now,
            base_local: Timestamp::from_ms(now.as_ms() + skew_ms),
            drift_ppm: 0,
            frozen: false,
        }
    }

    /// What it shows.
    pub(crate) fn local(&self, now: Timestamp) -> Timestamp {
        if self.frozen {
            return self.base_local;
        }
        let passed_ms = now.since_ms(self.base_true);
        if self.drift_ppm == 0 {
            return self.base_local.plus_ms(passed_ms);
        }
        let passed_ms = i128::from(passed_ms) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        self.base_local
            .plus_ms(u64::try_from(passed_ms).expect("a clock never runs backwards"))
    }

    /// When it will show `local`; never, while it stands still.
    pub(crate) fn true_at(&self, local: Timestamp) -> Timestamp {
        if self.frozen || local == Timestamp::MAX {
            return Timestamp::MAX;
        }
        let ahead_ms = local.since_ms(self.base_local);
        if self.drift_ppm == 0 {
            return self.base_true.plus_ms(ahead_ms);
        }
        let speed = MILLION + i128::from(self.drift_ppm);
        let true_ms = (i128::from(ahead_ms) * MILLION + speed - 1) / speed;
        self.base_true
            .plus_ms(u64::try_from(true_ms).unwrap_or(u64::MAX))
    }

    /// From now on it runs so fast or slow.
    pub(crate) fn drift(&mut self, now: Timestamp, drift_ppm: i32) {
        self.rebase(now);
        self.drift_ppm = drift_ppm;
    }

    /// It jumps ahead.
    pub(crate) fn step(&mut self, now: Timestamp, by_ms: u64) {
        self.rebase(now);
        self.base_local = self.base_local.plus_ms(by_ms);
    }

    /// It stands still, or goes on.
    pub(crate) fn freeze(&mut self, now: Timestamp, frozen: bool) {
        self.rebase(now);
        self.frozen = frozen;
    }

    fn rebase(&mut self, now: Timestamp) {
        self.base_local = self.local(now);
        self.base_true = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_there_and_back_whatever_was_done_to_it() {
        let now = Timestamp::from_ms(1_000_000);
        let mut clock = LocalClock::new(now, -500);
        clock.drift(now, 5_000);
        let later = now.plus_ms(1_000_000);
        assert_eq!(clock.local(later).as_ms(), 1_000_000 - 500 + 1_005_000);
        clock.drift(later, -5_000);
        clock.step(later, 77);
        for ahead in [0, 1, 999, 1_000_001] {
            let wanted = clock.local(later).plus_ms(ahead);
            let at = clock.true_at(wanted);
            assert!(clock.local(at) >= wanted);
            assert!(clock.local(at.minus_ms(2)) <= wanted);
        }
        clock.freeze(later, true);
        assert_eq!(clock.local(later.plus_ms(5)), clock.local(later));
        assert_eq!(clock.true_at(Timestamp::MAX), Timestamp::MAX);
    }
}
