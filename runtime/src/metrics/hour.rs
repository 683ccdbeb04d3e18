//! Requests to Google over the last hour, counted in slots of ten seconds: for the page, which keeps no history itself.

use std::time::{Duration, Instant};

/// How long a slot is, in seconds.
pub const SLOT_S: u64 = 10;
/// How many slots are kept: an hour.
pub(super) const SLOTS: usize = 360;

/// A ring of counts.
#[derive(Debug)]
pub(super) struct Hour {
    begun: Instant,
    /// The slot that is counted in, from 0 at the start.
    slot: u64,
    counts: [u32; SLOTS],
}

impl Hour {
    pub(super) fn new(begun: Instant) -> Self {
        Hour {
            begun,
            slot: 0,
            counts: [0; SLOTS],
        }
    }

    pub(super) fn count(&mut self, now: Instant) {
        self.go_to(now);
        let place = place(self.slot);
        self.counts[place] = self.counts[place].saturating_add(1);
    }

    /// The counts of whole slots, the oldest first: fewer than [`SLOTS`] of a process that is younger than an hour.
    pub(super) fn whole_slots(&mut self, now: Instant) -> Vec<u32> {
        self.go_to(now);
        let first = self.slot.saturating_sub(SLOTS as u64 - 1);
        (first..self.slot)
            .map(|slot| self.counts[place(slot)])
            .collect()
    }

    /// Empties what a slot held an hour ago before it is counted in again.
    fn go_to(&mut self, now: Instant) {
        let since: Duration = now.saturating_duration_since(self.begun);
        let slot = since.as_secs() / SLOT_S;
        let from = (self.slot + 1).max(slot.saturating_sub(SLOTS as u64 - 1));
        for passed in from..=slot {
            self.counts[place(passed)] = 0;
        }
        self.slot = self.slot.max(slot);
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).expect("below the number of slots")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_remembered_and_no_more() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut hour = Hour::new(begun);
        hour.count(at(0));
        hour.count(at(9));
        assert!(hour.whole_slots(at(9)).is_empty());
        hour.count(at(25));
        assert_eq!(hour.whole_slots(at(30)), [2, 0, 1]);
        let full = hour.whole_slots(at(3_590));
        assert_eq!((full.len(), full[0]), (SLOTS - 1, 2));
        let later = hour.whole_slots(at(3_600));
        assert_eq!((later.len(), later[0], later[1]), (SLOTS - 1, 0, 1));
        assert_eq!(hour.whole_slots(at(1_000_000)), [0; SLOTS - 1]);
    }
}
