//! Limit: how many starts fit into every sliding window, and how a source that was closed opens again.
//!
//! A counter that is reset every minute lets through nearly twice its limit around the reset. So [`SlidingWindow`]
//! keeps a log of starts and looks back from each new one. A start at `s` counts until `s + window`; then the window
//! `[t, t + window)` holds at most `count` starts for every `t`.
//!
//! The log must stay small whatever the limit, and its rules must be simple enough to be written once more as a script
//! that a shared store runs. So starts are gathered in at most [`BUCKETS_MAX`] buckets. A bucket knows how many starts
//! it holds and the last millisecond in which they may have happened, and counts until that has left the window. Every
//! imprecision dates starts later than they were: a log errs by opening late, never early.
//!
//! The rules:
//! - the limit sets the granularity ([`Limit::granularity_ms`]): 1 ms, which is exact, for up to
//!   [`EXACT_COUNT_MAX`] starts; for more, a 64th of the window
//! - only what is recorded changes the log; a question never does
//! - starts are recorded in the newest bucket if that ends at `now` or later, else in a new one that ends with the slot
//!   of `now` on the grid of the granularity
//! - no start happened later than now. So buckets that end after the slot of `now` (the clock stepped back, or the
//!   granularity became finer) are gathered into the one that is recorded in
//! - then the oldest buckets behind the window are forgotten, if they are older than a day, which is the longest
//!   window, or if at least `count` starts are newer
//! - then the oldest bucket is joined into the next newer one until at most [`BUCKETS_MAX`] are left
//!
//! Invariants, in the time of the one clock that is passed in:
//! - whoever records at most what `available` gave keeps every sliding window within the limit
//! - while the limit is unchanged and the clock goes forward it opens later than an exact log by less than the
//!   granularity: at most 65 buckets then stand in the window, so that those which are joined are all behind it
//! - a changed limit holds from the next question on, in both directions. Starts beyond the window are remembered
//!   while they are among the newest `count`, so that a window that is lengthened finds the starts it now covers.
//!   Only a window that is lengthened while its count is raised may find fewer: it holds from its first full length on
//! - a clock that stepped back neither opens the window early nor, if its keeper says so with
//!   [`SlidingWindow::restamp`], shuts it for longer than one window
//! - memory: at most [`BUCKETS_MAX`] buckets, always
//!
//! Beside it stands the ramp: a source that was closed has gathered work, and a full window of it at once is how the
//! next closing is earned. [`ramp_allowance`] lets starts in one after another over the first window.

use std::collections::VecDeque;
use std::collections::vec_deque::Iter;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, planted};
use crate::time::{DAY_MS, MINUTE_MS, SECOND_MS, Timestamp};

/// The most starts that a limit may allow in its window.
pub const LIMIT_COUNT_MAX: u32 = 100_000;
/// The longest window of a limit, in milliseconds.
pub const LIMIT_WINDOW_MS_MAX: u64 = DAY_MS;
/// The most starts of a limit that are logged to the millisecond.
pub const EXACT_COUNT_MAX: u32 = 64;
/// How many slots the window of a larger limit is divided into.
const SLOTS: u64 = 64;
/// The most buckets of a log: one for every slot, the two at the ends of the window, and 16 of starts that have left it.
pub const BUCKETS_MAX: usize = SLOTS as usize + 2 + 16;
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

    /// How precisely starts under this limit are dated, in milliseconds, at least 1: how late, and never early, the
    /// window opens is less than this.
    #[must_use]
    pub fn granularity_ms(&self) -> u64 {
        if self.count <= EXACT_COUNT_MAX {
            return 1;
        }
        self.window_ms.div_ceil(SLOTS).max(1)
    }
}

/// Some starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    /// The last millisecond in which they may have happened.
    last: Timestamp,
    /// How many they are, at least 1.
    count: u32,
}

impl Bucket {
    /// When none of its starts counts any more.
    fn leaves_at(&self, limit: &Limit) -> Timestamp {
        self.last.plus_ms(limit.window_ms)
    }
}

/// The log of starts against which a [`Limit`] is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredWindow")]
pub struct SlidingWindow {
    /// By their last millisecond, oldest first; no two with the same; at most [`BUCKETS_MAX`].
    buckets: VecDeque<Bucket>,
    /// How many starts they hold in all: every claim asks, and mostly this alone says that there is room.
    #[serde(skip)]
    total: u64,
}

/// The log as it is written down.
#[derive(Deserialize)]
struct StoredWindow {
    buckets: VecDeque<Bucket>,
}

impl From<StoredWindow> for SlidingWindow {
    fn from(StoredWindow { buckets }: StoredWindow) -> Self {
        SlidingWindow {
            total: total(&buckets),
            buckets,
        }
    }
}

/// See [`SlidingWindow::outline`].
#[derive(Serialize)]
pub(crate) struct Outline {
    buckets: usize,
    total: u64,
    oldest: Option<(Timestamp, u32)>,
    newest: Option<(Timestamp, u32)>,
}

fn total(buckets: &VecDeque<Bucket>) -> u64 {
    buckets.iter().map(|bucket| u64::from(bucket.count)).sum()
}

impl SlidingWindow {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        SlidingWindow::default()
    }

    /// The log with these buckets, each the last millisecond in which its starts may have happened and their number,
    /// as [`SlidingWindow::buckets`] gave them; `None` if no log has such buckets: they are out of order, empty or
    /// more than [`BUCKETS_MAX`].
    #[must_use]
    pub fn from_buckets(buckets: impl IntoIterator<Item = (Timestamp, u32)>) -> Option<Self> {
        let buckets: VecDeque<Bucket> = buckets
            .into_iter()
            .take(BUCKETS_MAX + 1)
            .map(|(last, count)| Bucket { last, count })
            .collect();
        let valid = buckets.len() <= BUCKETS_MAX
            && buckets.iter().all(|bucket| bucket.count > 0)
            && buckets
                .iter()
                .is_sorted_by(|left, right| left.last < right.last);
        valid.then(|| StoredWindow { buckets }.into())
    }

    /// The buckets, oldest first: the last millisecond in which the starts of each may have happened, and their number.
    pub fn buckets(&self) -> impl ExactSizeIterator<Item = (Timestamp, u32)> {
        self.buckets
            .iter()
            .map(|bucket| (bucket.last, bucket.count))
    }

    /// What tells two states of a log apart that began alike: every change of it is at its ends or in its sum.
    pub(crate) fn outline(&self) -> Outline {
        let bucket = |bucket: &Bucket| (bucket.last, bucket.count);
        Outline {
            buckets: self.buckets.len(),
            total: self.total,
            oldest: self.buckets.front().map(bucket),
            newest: self.buckets.back().map(bucket),
        }
    }

    /// How many more may start at `now`.
    #[must_use]
    pub fn available(&self, now: Timestamp, limit: &Limit) -> u32 {
        limit.count.saturating_sub(self.used(now, limit))
    }

    /// The first time, from `now` on, at which `wanted` more may start if nothing else does.
    ///
    /// More than the limit's count never fit at once: `wanted` is cut to it, so that whoever waits is woken to take
    /// what there is. [`Timestamp::MAX`] for a limit of 0, which [`Limit::validate`] refuses.
    #[must_use]
    pub fn opens_at(&self, now: Timestamp, limit: &Limit, wanted: u32) -> Timestamp {
        if wanted == 0 {
            return now;
        }
        if limit.count == 0 {
            return Timestamp::MAX;
        }
        let room_for = limit.count - wanted.min(limit.count);
        if self.total <= u64::from(room_for) {
            return now;
        }
        let first = self.first_inside(now, limit);
        let mut used = self.used_from(first);
        let mut opens_at = now;
        for bucket in self.buckets.range(first..) {
            if used <= room_for {
                break;
            }
            used = used.saturating_sub(bucket.count);
            opens_at = bucket.leaves_at(limit);
        }
        opens_at
    }

    /// Records that `starts` started at `now` under the limit that is in force.
    pub fn record(&mut self, now: Timestamp, starts: u32, limit: &Limit) {
        if starts == 0 {
            return;
        }
        self.gather(now, slot_end(now, limit.granularity_ms()), starts);
        self.forget(now, limit);
        while self.buckets.len() > BUCKETS_MAX {
            self.join_oldest();
        }
    }

    /// Takes starts that lie after `now` to have happened now. To be called when the clock is seen to have stepped
    /// back, as no question does it: from then on the window is shut by them for its length and no longer.
    pub fn restamp(&mut self, now: Timestamp) {
        self.gather(now, now, 0);
    }

    fn used(&self, now: Timestamp, limit: &Limit) -> u32 {
        self.used_from(self.first_inside(now, limit))
    }

    /// The first bucket that still counts. The older one is the sooner it leaves: those that have left stand before it.
    fn first_inside(&self, now: Timestamp, limit: &Limit) -> usize {
        self.buckets.partition_point(|bucket| {
            bucket.leaves_at(limit) <= now
                || planted(Mutant::FixedWindow) && bucket.last < window_begin(now, limit)
        })
    }

    /// The starts in the buckets from `first` on, added up on the shorter side of it.
    fn used_from(&self, first: usize) -> u32 {
        let sum = |buckets: Iter<'_, Bucket>| -> u64 {
            buckets.map(|bucket| u64::from(bucket.count)).sum()
        };
        let used = if first < self.buckets.len() / 2 {
            self.total - sum(self.buckets.range(..first))
        } else {
            sum(self.buckets.range(first..))
        };
        u32::try_from(used).unwrap_or(u32::MAX)
    }

    /// Puts `starts` more, with all that stand in buckets after `last_max`, into the newest bucket that ends in `now`
    /// to `last_max`, or into a new one at `last_max`.
    fn gather(&mut self, now: Timestamp, last_max: Timestamp, starts: u32) {
        let mut count = starts;
        while let Some(newest) = self.buckets.back()
            && newest.last > last_max
        {
            count = count.saturating_add(newest.count);
            self.total -= u64::from(newest.count);
            self.buckets.pop_back();
        }
        if count == 0 {
            return;
        }
        match self.buckets.back_mut() {
            Some(newest) if newest.last >= now => {
                self.total -= u64::from(newest.count);
                newest.count = newest.count.saturating_add(count);
                self.total += u64::from(newest.count);
            }
            _ => {
                self.total += u64::from(count);
                self.buckets.push_back(Bucket {
                    last: last_max,
                    count,
                });
            }
        }
    }

    /// Drops the oldest buckets that have left the window and cannot matter if it is lengthened.
    fn forget(&mut self, now: Timestamp, limit: &Limit) {
        while let Some(oldest) = self.buckets.front() {
            let newer = self.total - u64::from(oldest.count);
            let is_behind = oldest.leaves_at(limit) <= now;
            let is_ancient = oldest.last.plus_ms(LIMIT_WINDOW_MS_MAX) <= now;
            if !is_behind || newer < u64::from(limit.count) && !is_ancient {
                break;
            }
            self.total = newer;
            self.buckets.pop_front();
        }
    }

    fn join_oldest(&mut self) {
        let oldest = self.buckets.pop_front().expect("there are many");
        let next = self.buckets.front_mut().expect("there are many");
        self.total -= u64::from(oldest.count) + u64::from(next.count);
        next.count = next.count.saturating_add(oldest.count);
        self.total += u64::from(next.count);
    }
}

/// The last millisecond of the slot that `now` lies in, where slots of `granularity_ms` follow one another.
fn slot_end(now: Timestamp, granularity_ms: u64) -> Timestamp {
    let granularity_ms = i64::try_from(granularity_ms).unwrap_or(i64::MAX);
    let passed_ms = now.as_ms().rem_euclid(granularity_ms);
    now.plus_ms((granularity_ms - 1 - passed_ms).unsigned_abs())
}

/// When the fixed window began that `now` lies in: what a sliding one does not have.
fn window_begin(now: Timestamp, limit: &Limit) -> Timestamp {
    now.minus_ms(now.since_ms(Timestamp::EPOCH) % limit.window_ms.max(1))
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
mod tests;
