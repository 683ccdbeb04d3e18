//! A lane: jobs that are not active, in the order in which they may start.
//!
//! A job is *ready* from the latest of its own time, its user's gate, and the time when its user's requests fit again.
//! The lane is sorted by that time, "sync now" apart from scheduled work. So what waits and what is delayed is not
//! stored but follows from the time of the command that asks: the passing of time moves nothing, nor does a clock that
//! steps back, and nobody scans over jobs that cannot start.

use std::collections::BTreeSet;
use std::collections::btree_set::Range;

use super::command::Priority;
use super::state::JobKey;
use crate::id::ScheduleName;
use crate::time::Timestamp;

/// A job by when it is ready.
pub(super) type Entry = (Timestamp, JobKey);

/// The jobs of a source, or all fan-outs, that are not active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// "Sync now".
    hurried: BTreeSet<Entry>,
    scheduled: BTreeSet<Entry>,
}

impl Lane {
    pub(super) fn insert(&mut self, priority: Priority, entry: Entry) {
        self.part_mut(priority).insert(entry);
    }

    pub(super) fn remove(&mut self, priority: Priority, entry: &Entry) {
        self.part_mut(priority).remove(entry);
    }

    fn part_mut(&mut self, priority: Priority) -> &mut BTreeSet<Entry> {
        match priority {
            Priority::Now => &mut self.hurried,
            Priority::Scheduled => &mut self.scheduled,
        }
    }

    /// Who starts next, if anybody may at `now`.
    pub(super) fn first_waiting(&self, now: Timestamp) -> Option<&JobKey> {
        let parts = [&self.hurried, &self.scheduled];
        let mut firsts = parts.into_iter().filter_map(BTreeSet::first);
        let first = firsts.find(|(ready_at, _)| *ready_at <= now);
        first.map(|(_, key)| key)
    }

    /// When the first job is ready, if there is any.
    pub(super) fn ready_at(&self) -> Option<Timestamp> {
        let parts = [&self.hurried, &self.scheduled];
        let firsts = parts.into_iter().filter_map(BTreeSet::first);
        firsts.map(|(ready_at, _)| *ready_at).min()
    }

    /// Those that are ready at `now`, in the order in which they start.
    pub(super) fn waiting(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        let later = first_after(now);
        let hurried: Range<'_, Entry> = self.hurried.range(..later.clone());
        hurried.chain(self.scheduled.range(..later))
    }

    /// Those that are not, in the order in which they would start: "sync now" first, each by when it is ready.
    pub(super) fn delayed(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        let later = first_after(now);
        let hurried: Range<'_, Entry> = self.hurried.range(later.clone()..);
        hurried.chain(self.scheduled.range(later..))
    }
}

/// No job that is ready later than `now` sorts before this one: fan-outs sort before syncs, and no name before a blank,
/// as a name is not empty and no character below the blank may stand in it.
fn first_after(now: Timestamp) -> Entry {
    let schedule = ScheduleName::new(" ").expect("a blank is a name");
    (now.plus_ms(1), JobKey::FanOut { schedule })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SourceName, UserId};

    fn entry(ms: i64, name: &str) -> Entry {
        let source = SourceName::google_calendar();
        let user = UserId::new(name).unwrap();
        (Timestamp::from_ms(ms), JobKey::Sync { source, user })
    }

    #[test]
    fn sync_now_goes_first_and_each_part_goes_by_time_and_then_by_key() {
        let mut lane = Lane::default();
        let scheduled = [
            entry(1, "ada"),
            entry(5, "ben"),
            entry(5, "cleo"),
            entry(6, " "),
        ];
        let hurried = [entry(5, "dana"), entry(9, "eli")];
        for one in &scheduled {
            lane.insert(Priority::Scheduled, one.clone());
        }
        for one in &hurried {
            lane.insert(Priority::Now, one.clone());
        }
        let now = Timestamp::from_ms(5);
        let waiting: Vec<&Entry> = lane.waiting(now).collect();
        assert_eq!(
            waiting,
            [&hurried[0], &scheduled[0], &scheduled[1], &scheduled[2]]
        );
        let delayed: Vec<&Entry> = lane.delayed(now).collect();
        assert_eq!(delayed, [&hurried[1], &scheduled[3]]);
        assert_eq!(lane.first_waiting(now), Some(&hurried[0].1));
        assert_eq!(
            lane.first_waiting(Timestamp::from_ms(4)),
            Some(&scheduled[0].1)
        );
        assert_eq!(lane.first_waiting(Timestamp::EPOCH), None);
        assert_eq!(lane.ready_at(), Some(Timestamp::from_ms(1)));
        lane.remove(Priority::Scheduled, &scheduled[0]);
        assert_eq!(lane.ready_at(), Some(now));
    }
}
