//! Since when each user is fresh, in true time: since the first reading of the last round of syncing that succeeded.
//!
//! A round that was broken off goes on under a later lease with what is left of it, so what it read first is older than
//! that lease: the round began when its first lease was granted.

use kalends_core::sync::cursor::SyncCursor;
use kalends_core::time::Timestamp;

use super::JobNumber;

/// A sync that has not begun since the last one.
const NEVER: Timestamp = Timestamp::from_ms(i64::MIN);

/// What the ledger knows of it.
#[derive(Clone, Debug)]
pub(super) struct Freshness {
    /// When each job's last lease was granted.
    claimed_at: Vec<Timestamp>,
    /// When the round began with which that lease goes on.
    round_at: Vec<Timestamp>,
    /// When the last round that succeeded began, for each user.
    since: Vec<Timestamp>,
    /// How many users began one at or after `from`.
    fresh: usize,
    from: Timestamp,
}

/// What a success told.
pub(super) struct Success {
    pub(super) claimed_at: Timestamp,
    /// From the start of the round before to that of this one, in milliseconds, if there was one.
    pub(super) gap_ms: Option<u64>,
}

impl Freshness {
    pub(super) fn new(users: usize, jobs: usize) -> Self {
        Freshness {
            claimed_at: vec![NEVER; jobs],
            round_at: vec![NEVER; jobs],
            since: vec![NEVER; users],
            fresh: 0,
            from: Timestamp::MAX,
        }
    }

    /// A lease was granted with this cursor.
    pub(super) fn claimed(&mut self, job: JobNumber, now: Timestamp, cursor: Option<&str>) {
        self.claimed_at[job] = now;
        if self.round_at[job] == NEVER || !cursor.is_some_and(is_under_way) {
            self.round_at[job] = now;
        }
    }

    /// The user's round under way succeeded.
    pub(super) fn synced(&mut self, user: JobNumber) -> Success {
        let begun_at = self.round_at[user];
        let before = std::mem::replace(&mut self.since[user], begun_at);
        self.fresh += usize::from(begun_at >= self.from && before < self.from);
        Success {
            claimed_at: self.claimed_at[user],
            gap_ms: (before != NEVER).then(|| begun_at.since_ms(before)),
        }
    }

    pub(super) fn count_from(&mut self, from: Timestamp) {
        self.from = from;
        self.fresh = self.since.iter().filter(|at| **at >= from).count();
    }

    pub(super) fn fresh(&self) -> usize {
        self.fresh
    }

    pub(super) fn since(&self, user: JobNumber) -> Timestamp {
        self.since[user]
    }

    /// A copy from when a replica fell behind is the truth now; it is counted from when `lost` was.
    pub(super) fn outlive(&mut self, lost: &Freshness) {
        self.count_from(lost.from);
    }

    /// The store was emptied: what is under way is forgotten, and who was synced when is not.
    pub(super) fn emptied(&self) -> Self {
        let mut anew = Freshness::new(self.since.len(), self.round_at.len());
        anew.since.clone_from(&self.since);
        anew.count_from(self.from);
        anew
    }
}

/// Whether a round or the traversal of a calendar is under way. Few cursors have one, and looking for the names is much
/// cheaper than reading the rest.
fn is_under_way(cursor: &str) -> bool {
    if !cursor.contains("\"round\"") && !cursor.contains("\"pass\"") {
        return false;
    }
    let cursor = SyncCursor::read(Some(cursor));
    let mut calendars = cursor.calendars.values();
    !cursor.round.is_empty() || calendars.any(|calendar| calendar.pass.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::id::CalendarId;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_ms(second * 1_000)
    }

    /// Found as seed 3713: two of a user's calendars were read before the world healed and one after it, under another
    /// lease, and the user counted as fresh.
    #[test]
    fn a_round_that_goes_on_under_another_lease_began_under_the_first() {
        let under_way = SyncCursor {
            round: vec![CalendarId::new("work").unwrap()],
            ..SyncCursor::default()
        };
        let under_way = under_way.write();
        let mut freshness = Freshness::new(1, 2);
        freshness.count_from(at(5));
        freshness.claimed(0, at(1), Some("{\"calendars\":{}}"));
        freshness.claimed(0, at(6), Some(&under_way));
        assert_eq!(freshness.synced(0).claimed_at, at(6));
        assert_eq!((freshness.since(0), freshness.fresh()), (at(1), 0));
        freshness.claimed(0, at(9), Some("{\"calendars\":{}}"));
        assert_eq!(freshness.synced(0).gap_ms, Some(8_000));
        assert_eq!((freshness.since(0), freshness.fresh()), (at(9), 1));
        assert_eq!(freshness.emptied().fresh(), 1);
    }
}
