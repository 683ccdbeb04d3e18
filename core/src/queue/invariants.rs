//! What must be true of the queue after every command. A state that contradicts itself is a bug, and panics.

use std::collections::BTreeSet;

use super::index::Index;
use super::records::user_key;
use super::state::JobKey;
use super::{FAN_OUTS_KEEP_COMPLETED, FAN_OUTS_KEEP_FAILED, Queue, SCHEDULES_MAX, SOURCES_MAX};

impl Queue {
    /// Checks that rows and indexes agree, that every job has its owner, that tokens and numbers only grew and that
    /// every bound holds. Takes time in the order of the whole queue: for tests and simulations.
    ///
    /// # Panics
    /// If the state contradicts itself.
    pub fn check_invariants(&self) {
        let built = Index::build(self);
        assert!(
            self.index == built,
            "the indexes do not follow from the rows"
        );
        let meta = self.meta();
        let mut tokens = BTreeSet::new();
        for (key, row) in self.jobs.iter() {
            match key {
                JobKey::FanOut { schedule } => {
                    assert!(self.schedules.contains(schedule), "{key}: no schedule");
                }
                JobKey::Sync { source, .. } => {
                    assert!(self.sources.contains(source), "{key}: no source");
                    let user = self.user_of(key).expect("a sync job has an enrolled user");
                    assert!(user.parked.is_none(), "{key}: the user is parked");
                    assert!(row.progress.is_none(), "{key}: progress is the user's");
                }
            }
            match &row.active {
                Some(lease) => {
                    assert!(
                        lease.token <= meta.last_token,
                        "{key}: token from the future"
                    );
                    assert!(tokens.insert(lease.token), "{key}: token given twice");
                    assert!(row.held_until.is_none(), "{key}: held while active");
                    let owner = user_key(key).and_then(|user| self.users.get(&user));
                    let finished = owner.and_then(|owner| owner.finished);
                    assert!(finished < Some(lease.token), "{key}: ended while active");
                }
                None => assert!(row.rerun.is_none(), "{key}: a wish beside a waiting job"),
            }
        }
        for (key, row) in self.users.iter() {
            assert!(self.sources.contains(&key.0), "{key:?}: no source");
            assert!(row.finished <= Some(meta.last_token));
        }
        for (key, _) in self.user_flows.iter() {
            assert!(self.users.contains(key), "{key:?}: requests of nobody");
        }
        for (source, _) in self.flows.iter() {
            assert!(self.sources.contains(source), "{source}: flows nowhere");
        }
        self.check_history(meta.last_number);
        assert!(self.sources.len() <= SOURCES_MAX);
        assert!(self.schedules.len() <= SCHEDULES_MAX);
        assert!(self.jobs.len() <= self.users.len() + self.schedules.len());
        assert_eq!(meta.last_number, meta.completed_total + meta.failed_total);
    }

    fn check_history(&self, last_number: u64) {
        let rings = [
            (&self.index.completed, FAN_OUTS_KEEP_COMPLETED),
            (&self.index.failed, FAN_OUTS_KEEP_FAILED),
        ];
        for (which, (rings, fan_outs_keep)) in rings.into_iter().enumerate() {
            for (ring, numbers) in rings {
                let keep = match ring {
                    None => fan_outs_keep,
                    Some(source) if which == 0 => self.settings(source).keep_completed,
                    Some(source) => self.settings(source).keep_failed,
                };
                assert!(numbers.len() <= keep as usize, "{ring:?} keeps too much");
                assert!(numbers.last().is_none_or(|newest| *newest <= last_number));
            }
        }
        let both = self.completed.iter().map(|(number, _)| number);
        for number in both {
            assert!(self.failed.get(number).is_none(), "number {number} twice");
        }
    }
}
