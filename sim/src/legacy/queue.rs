//! The replaced service's queue, as far as its rules decide when somebody is synced: a value, without a Redis.
//!
//! It is what BullMQ does with the options that the service gave it. One list holds everything, first in, first out; what
//! is for later stands in a delayed set and joins the list's end when its time comes. A fixed window lets through so many
//! jobs a minute, over all processes and all kinds of jobs: it begins with the first job after the last one has ended. A
//! repeatable is a key and one delayed job; the next one is made when a worker takes the one before, for the next
//! multiple of the period after that moment. So a fan-out that waits has no successor, and what it misses is gone.
//!
//! There are no leases here: a job that its process takes along when it dies is not run again. (BullMQ would give it to
//! another worker after half a minute, who would find the user "syncing" and leave: the same thing.)

use std::collections::{BTreeMap, VecDeque};

use kalends_core::time::Timestamp;

use super::{JOBS_A_WINDOW, PERIOD_MS, WINDOW_MS};

/// The most jobs that may stand in the queue, waiting and delayed together: more is a model gone wrong.
const JOBS_MAX: usize = 2_000_000;

/// What a job is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Find the users that are due, and make a job for each.
    FanOut,
    /// Sync this user, counted from 0.
    Sync(u32),
}

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it is to do.
    pub work: Work,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// The queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    waiting: VecDeque<Job>,
    delayed: BTreeMap<(Timestamp, u64), Job>,
    sequence: u64,
    window_ends_at: Timestamp,
    taken_in_window: u32,
    repeatable: bool,
}

impl Queue {
    /// Upserts the repeatable: the fan-out, at every multiple of the period. One that is there already stays as it is.
    pub fn define_repeatable(&mut self, now: Timestamp) {
        if !self.repeatable {
            self.repeatable = true;
            self.add_fan_out(next_multiple(now));
        }
    }

    /// Removes the repeatable: whose it was is not asked.
    pub fn remove_repeatable(&mut self) {
        self.repeatable = false;
        self.delayed.retain(|_, job| job.work != Work::FanOut);
    }

    /// Adds a job to be run at `at`, or as soon as all before it have been.
    ///
    /// # Panics
    /// If more stands here than any run can need.
    pub fn add(&mut self, job: Job, at: Timestamp) {
        let jobs = self.waiting.len() + self.delayed.len();
        assert!(jobs < JOBS_MAX, "the legacy queue overflows");
        self.sequence += 1;
        self.delayed.insert((at, self.sequence), job);
    }

    /// Takes the next job, if there is one that the window lets through.
    pub fn take(&mut self, now: Timestamp) -> Option<Job> {
        self.promote(now);
        if self.waiting.is_empty() {
            return None;
        }
        if now >= self.window_ends_at {
            self.window_ends_at = now.plus_ms(WINDOW_MS);
            self.taken_in_window = 0;
        }
        if self.taken_in_window >= JOBS_A_WINDOW {
            return None;
        }
        self.taken_in_window += 1;
        let job = self.waiting.pop_front()?;
        if job.work == Work::FanOut && self.repeatable {
            self.add_fan_out(next_multiple(now.plus_ms(1)));
        }
        Some(job)
    }

    /// When [`take`](Self::take) may give something, if nothing is added before.
    #[must_use]
    pub fn next_take_at(&self, now: Timestamp) -> Option<Timestamp> {
        let first = match self.delayed.first_key_value() {
            _ if !self.waiting.is_empty() => now,
            Some(((at, _), _)) => now.max(*at),
            None => return None,
        };
        let is_closed = self.taken_in_window >= JOBS_A_WINDOW && first < self.window_ends_at;
        Some(if is_closed {
            self.window_ends_at
        } else {
            first
        })
    }

    /// Jobs that wait for nothing but their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn add_fan_out(&mut self, at: Timestamp) {
        let (work, attempt) = (Work::FanOut, 1);
        self.add(Job { work, attempt }, at);
    }

    /// What was delayed until now joins the end of the list.
    fn promote(&mut self, now: Timestamp) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            self.waiting.push_back(entry.remove());
        }
    }
}

/// The next multiple of the period, `now` included.
fn next_multiple(now: Timestamp) -> Timestamp {
    let period_ms = PERIOD_MS.cast_signed();
    let beyond_ms = now.as_ms().rem_euclid(period_ms);
    Timestamp::from_ms(now.as_ms() + (period_ms - beyond_ms) % period_ms)
}

#[cfg(test)]
mod tests {
    use kalends_core::time::{MINUTE_MS, SECOND_MS};

    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::EPOCH.plus_ms(minutes * MINUTE_MS)
    }

    fn sync(user: u32) -> Job {
        let work = Work::Sync(user);
        Job { work, attempt: 1 }
    }

    #[test]
    fn a_fixed_window_lets_through_ten_a_minute_of_all_kinds() {
        let mut queue = Queue::default();
        queue.define_repeatable(at(0));
        (0..30).for_each(|user| queue.add(sync(user), at(0)));
        let taken: Vec<Job> = std::iter::from_fn(|| queue.take(at(0))).collect();
        assert_eq!(taken.len(), 10);
        assert_eq!(taken[0].work, Work::FanOut, "it counts as one of the ten");
        assert_eq!(queue.next_take_at(at(0)), Some(at(1)));
        assert_eq!(std::iter::from_fn(|| queue.take(at(1))).count(), 10);
    }

    #[test]
    fn twenty_start_within_seconds_at_the_edge_of_two_windows() {
        let mut queue = Queue::default();
        queue.add(sync(0), at(0));
        let late = at(0).plus_ms(59 * SECOND_MS);
        (1..40).for_each(|user| queue.add(sync(user), late));
        assert!(queue.take(at(0)).is_some());
        let before = std::iter::from_fn(|| queue.take(late)).count();
        let after = std::iter::from_fn(|| queue.take(at(1))).count();
        assert_eq!((before, after), (9, 10), "19 within one second");
    }

    #[test]
    fn a_fan_out_waits_behind_its_own_children_and_has_no_successor_meanwhile() {
        let mut queue = Queue::default();
        queue.define_repeatable(at(0));
        assert_eq!(queue.take(at(0)).unwrap().work, Work::FanOut);
        (0..500).for_each(|user| queue.add(sync(user), at(0)));
        let mut fan_outs = 0;
        for minute in 1..=50 {
            while let Some(job) = queue.take(at(minute)) {
                fan_outs += u32::from(job.work == Work::FanOut);
            }
        }
        assert_eq!(fan_outs, 0, "500 jobs stand before it, ten a minute");
        assert_eq!(queue.take(at(51)).unwrap().work, Work::FanOut);
        assert_eq!(queue.next_take_at(at(51)), Some(at(60)));
    }

    #[test]
    fn a_repeatable_that_one_removes_is_gone_for_all() {
        let mut queue = Queue::default();
        queue.define_repeatable(at(1));
        queue.define_repeatable(at(2));
        assert_eq!(
            queue.next_take_at(at(2)),
            Some(at(15)),
            "upserted, not doubled"
        );
        queue.remove_repeatable();
        assert_eq!(queue.next_take_at(at(2)), None);
    }
}
