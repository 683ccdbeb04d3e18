//! The history: the newest completed jobs and dead letters of each source, numbered in one sequence.

use super::command::{BATCH_MAX, Priority, Reply};
use super::index::{Ring, by_source, ring_of};
use super::rows::{FinishedRow, Wish};
use super::state::JobKey;
use super::{FAN_OUTS_KEEP_COMPLETED, FAN_OUTS_KEEP_FAILED, Queue};
use crate::mutant::{Mutant, planted};
use crate::time::Timestamp;

impl Queue {
    pub(super) fn file_completed(&mut self, row: FinishedRow) {
        let number = self.edit_meta(|meta| {
            meta.completed_total += 1;
            meta.last_number += 1;
            meta.last_number
        });
        let ring = ring_of(&row);
        let numbers = self.index.completed.entry(ring.clone()).or_default();
        numbers.insert(number);
        self.completed.insert(&number, row);
        self.trim_history(&ring);
    }

    pub(super) fn file_failed(&mut self, row: FinishedRow) {
        let number = self.edit_meta(|meta| {
            meta.failed_total += 1;
            meta.last_number += 1;
            meta.last_number
        });
        let ring = ring_of(&row);
        let numbers = self.index.failed.entry(ring.clone()).or_default();
        numbers.insert(number);
        self.failed.insert(&number, row);
        self.trim_history(&ring);
    }

    /// Drops the oldest until no more are kept than the settings say.
    pub(super) fn trim_history(&mut self, ring: &Ring) {
        if planted(Mutant::HistoryUnbounded) {
            return;
        }
        let (keep_completed, keep_failed) = match ring {
            None => (FAN_OUTS_KEEP_COMPLETED, FAN_OUTS_KEEP_FAILED),
            Some(source) => {
                let settings = self.settings(source);
                (settings.keep_completed, settings.keep_failed)
            }
        };
        if let Some(numbers) = self.index.completed.get_mut(ring) {
            while numbers.len() > keep_completed as usize {
                let oldest = numbers.pop_first().expect("it is not empty");
                self.completed.remove(&oldest);
            }
            if numbers.is_empty() {
                self.index.completed.remove(ring);
            }
        }
        if let Some(numbers) = self.index.failed.get_mut(ring) {
            while numbers.len() > keep_failed as usize {
                let oldest = numbers.pop_first().expect("it is not empty");
                self.failed.remove(&oldest);
            }
            if numbers.is_empty() {
                self.index.failed.remove(ring);
            }
        }
    }

    /// Enqueues dead letters again: source by source by their names, then the fan-outs', the oldest of each first. One whose user is parked or not enrolled, or whose schedule is
    /// gone, stays where it is.
    pub(super) fn retry_failed(&mut self, now: Timestamp, number: Option<u64>) -> Reply {
        let mut count = 0;
        for number in self.failed_numbers(number) {
            if count == BATCH_MAX as u64 {
                break;
            }
            let Some(row) = self.failed.get(&number) else {
                continue;
            };
            let welcome = match &row.key {
                JobKey::FanOut { schedule } => self.schedules.contains(schedule),
                JobKey::Sync { .. } => self
                    .user_of(&row.key)
                    .is_some_and(|user| user.parked.is_none()),
            };
            if !welcome {
                continue;
            }
            let row = self.forget_failed(number).expect("it was just read");
            let wish = Wish {
                run_at: now,
                priority: Priority::Scheduled,
                nominal_at: row.nominal_at,
            };
            self.want(&row.key, wish, true);
            count += 1;
        }
        Reply::Count { count }
    }

    /// Forgets dead letters, in the order in which they would be enqueued again.
    pub(super) fn discard_failed(&mut self, number: Option<u64>) -> Reply {
        let mut count = 0;
        for number in self.failed_numbers(number) {
            if count == BATCH_MAX as u64 {
                break;
            }
            count += u64::from(self.forget_failed(number).is_some());
        }
        Reply::Count { count }
    }

    fn failed_numbers(&self, number: Option<u64>) -> Vec<u64> {
        match number {
            Some(number) => vec![number],
            None => by_source(&self.index.failed).flatten().copied().collect(),
        }
    }

    fn forget_failed(&mut self, number: u64) -> Option<FinishedRow> {
        let row = self.failed.remove(&number)?;
        let ring = ring_of(&row);
        if let Some(numbers) = self.index.failed.get_mut(&ring) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.index.failed.remove(&ring);
            }
        }
        Some(row)
    }
}
