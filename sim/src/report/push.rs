//! What was counted of push.

/// Times from a change to the end of the sync that found it are kept up to so many; the longest of all always is.
const STALE_KEPT_MAX: usize = 1_000_000;

/// What was counted of notifications and channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushTally {
    /// Notifications that were accepted.
    pub accepted: u64,
    /// Forged ones that were refused.
    pub refused: u64,
    /// Questions that webhooks asked the store.
    pub questions: u64,
    /// Syncs that webhooks asked for.
    pub asked: u64,
    /// Those that did not coalesce with one that waited.
    pub added: u64,
    /// Channels that Google made.
    pub made: u64,
    /// Channels that lived when the world became well, beyond one a calendar.
    pub left_over: u64,
    /// Calendars that had no channel then.
    pub unwatched: u64,
    stale_ms: Vec<u64>,
    /// The longest time from a change to the end of the sync that found it, in milliseconds, while faults and load lasted.
    pub stale_ms_max: u64,
}

impl PushTally {
    /// A change was found so many milliseconds after it was made.
    pub(crate) fn found(&mut self, stale_ms: u64) {
        self.stale_ms_max = self.stale_ms_max.max(stale_ms);
        if self.stale_ms.len() < STALE_KEPT_MAX {
            self.stale_ms.push(stale_ms);
        }
    }

    /// Changes that were found.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.stale_ms.len()
    }

    /// Within which so many percent of the changes were found, in milliseconds.
    #[must_use]
    pub fn stale_percentile_ms(&self, percent: usize) -> u64 {
        let mut sorted = self.stale_ms.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100);
        sorted.get(place.max(1) - 1).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_found() {
        let mut tally = PushTally::default();
        assert_eq!(tally.stale_percentile_ms(50), 0);
        (1..=100).rev().for_each(|ms| tally.found(ms));
        assert_eq!(tally.stale_percentile_ms(50), 50);
        assert_eq!(tally.stale_percentile_ms(95), 95);
        assert_eq!(tally.stale_percentile_ms(100), 100);
        assert_eq!((tally.changes(), tally.stale_ms_max), (100, 100));
    }
}
