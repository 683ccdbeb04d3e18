//! Limit: how many starts fit into every sliding window, and how a source that was closed opens again.
//!
//! A counter that is reset every minute lets through nearly twice its limit around the reset. So [`SlidingWindow`]
//! keeps a log of starts and looks back from each new one. A start at `s` counts until `s + window`; then the window
//! `[t, t + window)` holds at most `count` starts for every `t`.
//!
//! The log is kept in buckets of `granularity` milliseconds. A bucket counts until its end has left the window, so
//! that coarse buckets err by opening late (by less than one bucket), never early. With buckets of 1 ms it is exact.
//!
//! Invariants, in the time of the one clock that is passed in:
//! - whoever records at most what `available` gave keeps every sliding window within the limit
//! - a changed limit holds from the next question on, in both directions. Starts beyond the window are remembered
//!   while they are among the newest `count`, so that a window that is lengthened finds the starts it now covers.
//!   Only a window that is lengthened while its count is raised may find fewer: it holds from its first full length on
//! - a clock that stepped back neither opens the window early nor shuts it for ever: starts "in the future" are
//!   taken to have happened now
//! - memory: after a question at most `max(window / granularity + 2, count)` buckets, ever at most
//!   [`LIMIT_COUNT_MAX`] + 1
//!
//! Beside it stands the ramp: a source that was closed has gathered work, and a full window of it at once is how the
//! next closing is earned. [`ramp_allowance`] lets starts in one after another over the first window.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{DAY_MS, MINUTE_MS, SECOND_MS, Timestamp};

/// The most starts that a limit may allow in its window.
pub const LIMIT_COUNT_MAX: u32 = 100_000;
/// The longest window of a limit, in milliseconds.
pub const LIMIT_WINDOW_MS_MAX: u64 = DAY_MS;
/// How long the ramp of a source without a limit lasts, in milliseconds.
pub const RAMP_UNLIMITED_MS: u64 = 15 * SECOND_MS;
/// How many starts a source without a limit is allowed at once when it opens again.
pub const RAMP_UNLIMITED_STARTS: u64 = 10;

/// At most `count` starts in every sliding window of `window_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many starts: 1 to [`LIMIT_COUNT_MAX`].
    pub count: u32,
    /// The length of the window in milliseconds: 1 to [`LIMIT_WINDOW_MS_MAX`].
    pub window_ms: u64,
}

impl Default for Limit {
    /// 10 a minute.
    fn default() -> Self {
        Limit {
            count: 10,
            window_ms: MINUTE_MS,
        }
    }
}

/// Why a limit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitError {
    /// `count` is 0 or above [`LIMIT_COUNT_MAX`]; holds it.
    Count(u32),
    /// `window_ms` is 0 or above [`LIMIT_WINDOW_MS_MAX`]; holds it.
    Window(u64),
}

impl fmt::Display for LimitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitError::Count(count) => write!(
                formatter,
                "count is {count}; give 1 to {LIMIT_COUNT_MAX} (to stop a source, pause it; \
                 to lift the limit, leave it out)"
            ),
            LimitError::Window(window_ms) => write!(
                formatter,
                "window_ms is {window_ms}; give 1 to {LIMIT_WINDOW_MS_MAX} (one day)"
            ),
        }
    }
}

impl std::error::Error for LimitError {}

impl Limit {
    /// Checks that both figures are within their bounds.
    ///
    /// # Errors
    /// If one of them is 0 or too large.
    pub fn validate(&self) -> Result<(), LimitError> {
        if self.count == 0 || self.count > LIMIT_COUNT_MAX {
            return Err(LimitError::Count(self.count));
        }
        if self.window_ms == 0 || self.window_ms > LIMIT_WINDOW_MS_MAX {
            return Err(LimitError::Window(self.window_ms));
        }
        Ok(())
    }
}

/// The starts in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    start: Timestamp,
    count: u32,
}

/// The most buckets that are kept of starts which have left the window, where they are counted coarsely.
const BEHIND_BUCKETS_MAX: usize = 16;

/// The log of starts against which a [`Limit`] is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlidingWindow {
    /// At least 1.
    granularity_ms: u64,
    /// By start, oldest first; no two with the same start, none empty.
    buckets: VecDeque<Bucket>,
}

impl Default for SlidingWindow {
    /// An empty, exact log.
    fn default() -> Self {
        SlidingWindow::new(1)
    }
}

impl SlidingWindow {
    /// An empty log in buckets of `granularity_ms`; 1 is exact, 0 counts as 1.
    #[must_use]
    pub fn new(granularity_ms: u64) -> Self {
        SlidingWindow {
            granularity_ms: granularity_ms.max(1),
            buckets: VecDeque::new(),
        }
    }

    /// How many more may start at `now`.
    #[must_use]
    pub fn available(&mut self, now: Timestamp, limit: &Limit) -> u32 {
        self.tidy(now, limit);
        limit.count.saturating_sub(self.used(now, limit))
    }

    /// Records that `starts` started at `now`.
    pub fn record(&mut self, now: Timestamp, starts: u32) {
        self.restamp(now);
        if starts == 0 {
            return;
        }
        self.add_newest(self.bucket_start(now), starts);
        // No limit is larger than LIMIT_COUNT_MAX, so what lies behind that many newer starts can never matter.
        self.forget_behind(LIMIT_COUNT_MAX, |_| true);
    }

    /// The first time, from `now` on, at which `wanted` more may start if nothing else does.
    ///
    /// More than the limit's count never fit at once: `wanted` is cut to it, so that whoever waits is woken to take
    /// what there is. [`Timestamp::MAX`] for a limit of 0, which [`Limit::validate`] refuses.
    #[must_use]
    pub fn opens_at(&mut self, now: Timestamp, limit: &Limit, wanted: u32) -> Timestamp {
        if wanted == 0 {
            return now;
        }
        if limit.count == 0 {
            return Timestamp::MAX;
        }
        self.tidy(now, limit);
        let room_for = limit.count - wanted.min(limit.count);
        let mut used = self.used(now, limit);
        let mut opens_at = now;
        for bucket in &self.buckets {
            if used <= room_for {
                break;
            }
            let leaves_at = self.leaves_at(bucket, limit);
            if leaves_at > now {
                used = used.saturating_sub(bucket.count);
                opens_at = leaves_at;
            }
        }
        opens_at
    }

    fn bucket_start(&self, at: Timestamp) -> Timestamp {
        let granularity_ms = i64::try_from(self.granularity_ms.max(1)).unwrap_or(i64::MAX);
        at.minus_ms(at.as_ms().rem_euclid(granularity_ms).unsigned_abs())
    }

    /// When the last start that the bucket may hold leaves the window.
    fn leaves_at(&self, bucket: &Bucket, limit: &Limit) -> Timestamp {
        bucket
            .start
            .plus_ms(self.granularity_ms.max(1) - 1)
            .plus_ms(limit.window_ms)
    }

    fn used(&self, now: Timestamp, limit: &Limit) -> u32 {
        self.buckets
            .iter()
            .rev()
            .take_while(|bucket| self.leaves_at(bucket, limit) > now)
            .fold(0, |sum: u32, bucket| sum.saturating_add(bucket.count))
    }

    fn add_newest(&mut self, start: Timestamp, count: u32) {
        match self.buckets.back_mut() {
            Some(newest) if newest.start == start => {
                newest.count = newest.count.saturating_add(count);
            }
            _ => self.buckets.push_back(Bucket { start, count }),
        }
    }

    /// Moves starts that lie after `now` to `now`.
    fn restamp(&mut self, now: Timestamp) {
        let start_max = self.bucket_start(now);
        let mut moved: u32 = 0;
        while let Some(newest) = self.buckets.back()
            && newest.start > start_max
        {
            moved = moved.saturating_add(newest.count);
            self.buckets.pop_back();
        }
        if moved > 0 {
            self.add_newest(start_max, moved);
        }
    }

    fn tidy(&mut self, now: Timestamp, limit: &Limit) {
        self.restamp(now);
        let granularity_ms = self.granularity_ms.max(1);
        let left = |window_ms: u64, bucket: &Bucket| {
            bucket.start.plus_ms(granularity_ms - 1).plus_ms(window_ms) <= now
        };
        self.forget_behind(0, |bucket| {
            left(limit.window_ms.max(LIMIT_WINDOW_MS_MAX), bucket)
        });
        self.forget_behind(limit.count, |bucket| left(limit.window_ms, bucket));
        if granularity_ms > 1 {
            self.join_behind(|bucket| left(limit.window_ms, bucket));
        }
    }

    /// Joins the oldest buckets into the next newer ones, so that few stand behind the window. A start that is dated
    /// later than it was only counts longer, should the window ever be lengthened.
    fn join_behind(&mut self, is_behind: impl Fn(&Bucket) -> bool) {
        let behind = self
            .buckets
            .iter()
            .take_while(|bucket| is_behind(bucket))
            .count();
        for _ in BEHIND_BUCKETS_MAX..behind {
            let oldest = self.buckets.pop_front().expect("they were counted");
            let next = self.buckets.front_mut().expect("they were counted");
            next.count = next.count.saturating_add(oldest.count);
        }
    }

    /// Drops the oldest buckets that may go, as long as at least `newer_min` starts are newer than each.
    fn forget_behind(&mut self, newer_min: u32, may_go: impl Fn(&Bucket) -> bool) {
        if !self.buckets.front().is_some_and(&may_go) {
            return;
        }
        let mut newer: u64 = self
            .buckets
            .iter()
            .map(|bucket| u64::from(bucket.count))
            .sum();
        while let Some(oldest) = self.buckets.front() {
            newer -= u64::from(oldest.count);
            if newer < u64::from(newer_min) || !may_go(oldest) {
                break;
            }
            self.buckets.pop_front();
        }
    }
}

/// How many starts in all are allowed `elapsed_ms` after a source opened again; `None` once the ramp is over.
///
/// With a limit: one at once, then evenly up to the limit over one window. Without: [`RAMP_UNLIMITED_STARTS`],
/// doubled every second, for [`RAMP_UNLIMITED_MS`].
#[must_use]
pub fn ramp_allowance(limit: Option<&Limit>, elapsed_ms_since_reopen: u64) -> Option<u64> {
    match limit {
        Some(limit) => {
            if elapsed_ms_since_reopen >= limit.window_ms {
                return None;
            }
            let share = u128::from(limit.count) * u128::from(elapsed_ms_since_reopen)
                / u128::from(limit.window_ms);
            Some(1 + u64::try_from(share).expect("elapsed < window, so this is below count"))
        }
        None => (elapsed_ms_since_reopen < RAMP_UNLIMITED_MS)
            .then(|| RAMP_UNLIMITED_STARTS << (elapsed_ms_since_reopen / SECOND_MS)),
    }
}

/// How many milliseconds after it opened again a source allows one start more than `starts_so_far`: the inverse of
/// [`ramp_allowance`]. At most the length of the ramp.
#[must_use]
pub fn ramp_opens_after_ms(limit: Option<&Limit>, starts_so_far: u64) -> u64 {
    match limit {
        Some(limit) => {
            let after = (u128::from(starts_so_far) * u128::from(limit.window_ms))
                .div_ceil(u128::from(limit.count.max(1)));
            u64::try_from(after).map_or(limit.window_ms, |after| after.min(limit.window_ms))
        }
        None => (0..RAMP_UNLIMITED_MS / SECOND_MS)
            .find(|second| RAMP_UNLIMITED_STARTS << second > starts_so_far)
            .map_or(RAMP_UNLIMITED_MS, |second| second * SECOND_MS),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    const TEN_A_MINUTE: Limit = Limit {
        count: 10,
        window_ms: 60_000,
    };

    #[test]
    fn the_boundary_of_a_minute_lets_nothing_extra_through() {
        let mut window = SlidingWindow::default();
        assert_eq!(window.available(at(59_000), &TEN_A_MINUTE), 10);
        window.record(at(59_000), 10);
        assert_eq!(window.available(at(61_000), &TEN_A_MINUTE), 0);
        assert_eq!(window.available(at(118_999), &TEN_A_MINUTE), 0);
        assert_eq!(window.opens_at(at(61_000), &TEN_A_MINUTE, 1), at(119_000));
        assert_eq!(window.available(at(119_000), &TEN_A_MINUTE), 10);
    }

    #[test]
    fn opens_when_enough_have_left() {
        let mut window = SlidingWindow::default();
        window.record(at(0), 4);
        window.record(at(5_000), 6);
        assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 0), at(6_000));
        assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 4), at(60_000));
        assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 5), at(65_000));
        assert_eq!(window.opens_at(at(6_000), &TEN_A_MINUTE, 99), at(65_000));
        assert_eq!(window.opens_at(at(70_000), &TEN_A_MINUTE, 10), at(70_000));
    }

    #[test]
    fn a_coarse_bucket_counts_until_its_end_has_left() {
        let mut window = SlidingWindow::new(1_000);
        window.record(at(1_999), 10);
        assert_eq!(window.available(at(61_998), &TEN_A_MINUTE), 0);
        assert_eq!(window.available(at(61_999), &TEN_A_MINUTE), 10);
    }

    #[test]
    fn a_changed_limit_holds_at_once_both_ways() {
        let mut window = SlidingWindow::default();
        window.record(at(0), 10);
        let lower = Limit {
            count: 3,
            ..TEN_A_MINUTE
        };
        let higher = Limit {
            count: 25,
            ..TEN_A_MINUTE
        };
        assert_eq!(window.available(at(1), &lower), 0);
        assert_eq!(window.available(at(2), &higher), 15);
        assert_eq!(window.available(at(3), &TEN_A_MINUTE), 0);
        let shorter = Limit {
            count: 10,
            window_ms: 10,
        };
        assert_eq!(window.available(at(10), &shorter), 10);
    }

    #[test]
    fn a_lengthened_window_finds_the_starts_it_now_covers() {
        let second = Limit {
            count: 10,
            window_ms: 1_000,
        };
        let mut window = SlidingWindow::default();
        for number in 0..30 {
            assert_eq!(window.available(at(number * 1_000), &second), 10);
            window.record(at(number * 1_000), 10);
        }
        assert_eq!(window.available(at(30_000), &second), 10);
        assert_eq!(window.available(at(30_000), &TEN_A_MINUTE), 0);
        assert_eq!(window.opens_at(at(30_000), &TEN_A_MINUTE, 1), at(89_000));
    }

    #[test]
    fn a_clock_that_stepped_back_a_day_shuts_for_one_window_only() {
        let mut window = SlidingWindow::default();
        let day_ms = i64::try_from(DAY_MS).unwrap();
        window.record(at(day_ms), 10);
        assert_eq!(window.available(at(0), &TEN_A_MINUTE), 0);
        assert_eq!(window.opens_at(at(0), &TEN_A_MINUTE, 10), at(60_000));
        assert_eq!(window.available(at(60_000), &TEN_A_MINUTE), 10);
    }

    #[test]
    fn memory_is_bounded_even_if_nobody_asks() {
        let mut window = SlidingWindow::default();
        for number in 0..i64::from(LIMIT_COUNT_MAX) + 500 {
            window.record(at(number), 1);
            if number == 1_000 {
                assert_eq!(window.buckets.len(), 1_001);
            }
            if number > 1_100 {
                // Large records push out the small ones: the log stays at the largest possible limit.
                window.record(at(number), LIMIT_COUNT_MAX / 100);
            }
        }
        assert!(window.buckets.len() <= 101, "{}", window.buckets.len());
    }

    #[test]
    fn bad_limits_are_refused() {
        assert_eq!(Limit::default().validate(), Ok(()));
        for (count, window_ms) in [(0, 1), (LIMIT_COUNT_MAX + 1, 1), (1, 0), (1, DAY_MS + 1)] {
            assert!(Limit { count, window_ms }.validate().is_err());
        }
    }

    #[test]
    fn the_ramp_opens_one_after_another() {
        let limited = Some(&TEN_A_MINUTE);
        assert_eq!(ramp_allowance(limited, 0), Some(1));
        assert_eq!(ramp_allowance(limited, 6_000), Some(2));
        assert_eq!(ramp_allowance(limited, 59_999), Some(10));
        assert_eq!(ramp_allowance(limited, 60_000), None);
        assert_eq!(ramp_allowance(None, 0), Some(10));
        assert_eq!(ramp_allowance(None, 999), Some(10));
        assert_eq!(ramp_allowance(None, 3_000), Some(80));
        assert_eq!(ramp_allowance(None, 14_999), Some(163_840));
        assert_eq!(ramp_allowance(None, 15_000), None);
        assert_eq!(ramp_opens_after_ms(None, u64::MAX), RAMP_UNLIMITED_MS);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Forward(u64),
        Back(u64),
        Change(Limit),
        Start(u32),
    }

    fn any_limit() -> impl Strategy<Value = Limit> {
        (1_u32..12, 1_u64..300).prop_map(|(count, window_ms)| Limit { count, window_ms })
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..120).prop_map(Step::Forward),
            1 => (0_u64..500).prop_map(Step::Back),
            1 => any_limit().prop_map(Step::Change),
            5 => (1_u32..6).prop_map(Step::Start),
        ]
    }

    proptest! {
        // Time that really passed only grows; the clock falls behind it by each step back. Counted in real time,
        // every sliding window holds under the limit of its last start. A longer window together with a higher
        // count is left out: for that the log remembers too little (see the head of this file).
        #[test]
        fn no_sliding_window_is_ever_exceeded(
            granularity_ms in 1_u64..40, first in any_limit(), steps in prop::collection::vec(any_step(), 1..120),
            counts_fixed: bool,
        ) {
            let mut limit = first;
            let mut longest_ms = limit.window_ms;
            let (mut real, mut clock) = (0_i64, 0_i64);
            let mut window = SlidingWindow::new(granularity_ms);
            let mut starts: Vec<i64> = Vec::new();
            for step in steps {
                match step {
                    Step::Forward(ms) => { real += ms.cast_signed(); clock += ms.cast_signed(); }
                    Step::Back(ms) => clock -= ms.cast_signed(),
                    Step::Change(to) if counts_fixed => limit.window_ms = to.window_ms,
                    Step::Change(to) => limit = Limit { count: to.count, window_ms: limit.window_ms },
                    Step::Start(wanted) => {
                        longest_ms = longest_ms.max(limit.window_ms);
                        let given = window.available(at(clock), &limit).min(wanted);
                        window.record(at(clock), given);
                        starts.extend(std::iter::repeat_n(real, given as usize));
                        let inside = starts.iter().filter(|start| real - **start < limit.window_ms.cast_signed()).count();
                        prop_assert!(given == 0 || inside <= limit.count as usize, "{inside} starts under {limit:?}");
                        let buckets_max = (longest_ms / granularity_ms + 2).max(12);
                        prop_assert!(window.buckets.len() as u64 <= buckets_max);
                        prop_assert!(window.buckets.iter().is_sorted_by(|left, right| left.start < right.start));
                        prop_assert!(window.buckets.iter().all(|bucket| bucket.count > 0));
                    }
                }
            }
            // Never shut for ever: one window and one bucket later all of it is free.
            let _ = window.available(at(clock), &limit);
            let later = at(clock).plus_ms(limit.window_ms + granularity_ms);
            prop_assert_eq!(window.available(later, &limit), limit.count);
        }

        #[test]
        fn opens_exactly_when_it_says(
            granularity_ms in 1_u64..40, limit in any_limit(), wanted in 1_u32..12,
            gaps in prop::collection::vec((0_u64..60, 1_u32..4), 0..30),
        ) {
            let mut window = SlidingWindow::new(granularity_ms);
            let mut now = at(-100);
            for (gap_ms, starts) in gaps {
                now = now.plus_ms(gap_ms);
                window.record(now, starts);
            }
            let wanted = wanted.min(limit.count);
            let opens_at = window.opens_at(now, &limit, wanted);
            prop_assert!(opens_at >= now);
            prop_assert!(opens_at == now || window.clone().available(opens_at.minus_ms(1), &limit) < wanted);
            prop_assert!(window.available(opens_at, &limit) >= wanted);
        }

        #[test]
        fn the_ramp_and_its_inverse_agree(
            limit in prop::option::of((1_u32..2_000, 1_u64..100_000).prop_map(|(count, window_ms)| Limit { count, window_ms })),
            starts in 0_u64..200_000,
        ) {
            let allows = |elapsed_ms: u64| ramp_allowance(limit.as_ref(), elapsed_ms).is_none_or(|allowed| allowed > starts);
            let after_ms = ramp_opens_after_ms(limit.as_ref(), starts);
            prop_assert!(allows(after_ms));
            prop_assert!(after_ms == 0 || !allows(after_ms - 1));
        }
    }
}
