//! What must hold where calendars are watched by push channels.
//!
//! - no sync is asked for by a notification that Google did not send, and none that it did send is refused as forged
//! - a process asks at most once for a user within the debounce, but for one look after what came meanwhile
//! - what was accepted is synced soon, while nothing is wrong
//! - a channel is replaced before it ends, and the replaced one is stopped, while nothing is wrong
//! - a user is due later than the schedule says only while every calendar is watched until then, and never later than the
//!   poll behind
//!
//! The ledger is told what happened and whether the world is well; it looks into no listener and no queue.

use std::collections::BTreeMap;

use kalends_core::push::PushSettings;
use kalends_core::push::hearing::DEBOUNCE_MS;
use kalends_core::push::listener::Verdict as Answer;
use kalends_core::time::{MINUTE_MS, Timestamp};

use super::{Invariant, Verdict, Violation};

/// A process's steady clock may be wrong by so much over a debounce, in milliseconds.
const CLOCK_MS: u64 = 20;
/// Questions of one process for one user within a debounce: the notification's, and the look after those of before.
const ASKS_MAX: usize = 2;
/// A user may be due so much later than the poll behind says, in milliseconds: a process judges the store's time.
const LATER_MS: u64 = 5 * MINUTE_MS;

/// What is known of notifications and channels.
#[derive(Clone, Debug)]
pub struct PushLedger {
    settings: PushSettings,
    /// Since when each user's notification waits for a sync.
    heard: Vec<Option<Timestamp>>,
    /// When each process asked last for each user, the newest last.
    asks: BTreeMap<(u32, u32), Vec<Timestamp>>,
}

/// A calendar of a user whose sync has just been committed: its channels by the cursor, and those that live at Google.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    /// Of the cursor, the newest last.
    pub known: Vec<String>,
    /// That live at Google, with their ends.
    pub live: Vec<(String, Timestamp)>,
}

impl PushLedger {
    /// Nothing has been heard yet.
    #[must_use]
    pub fn new(settings: PushSettings, users: usize) -> Self {
        PushLedger {
            settings,
            heard: vec![None; users],
            asks: BTreeMap::new(),
        }
    }

    /// A notification was answered.
    ///
    /// # Errors
    /// If a forged one was not refused, or a genuine one was.
    pub fn answered(
        &mut self,
        now: Timestamp,
        user: u32,
        is_forged: bool,
        answer: Answer,
    ) -> Verdict {
        if is_forged != (answer == Answer::Forged) {
            let sort = if is_forged { "forged" } else { "genuine" };
            return broken(
                Invariant::PushVerified,
                format!("a {sort} notification for user {user} was answered as {answer:?}"),
            );
        }
        if answer == Answer::Accepted {
            self.heard[user as usize].get_or_insert(now);
        }
        Ok(())
    }

    /// A process asks the store about a user because of what it heard.
    ///
    /// # Errors
    /// If it does so too often; while its clock is wrong nothing is said.
    pub fn asks(
        &mut self,
        now: Timestamp,
        process: u32,
        user: u32,
        clock_is_well: bool,
    ) -> Verdict {
        let asks = self.asks.entry((process, user)).or_default();
        asks.retain(|at| now.since_ms(*at) + CLOCK_MS < DEBOUNCE_MS);
        asks.push(now);
        if asks.len() > ASKS_MAX && clock_is_well {
            let count = asks.len();
            return broken(
                Invariant::PushDebounced,
                format!(
                    "process {process} asks {count} times for user {user} within {DEBOUNCE_MS} ms"
                ),
            );
        }
        Ok(())
    }

    /// A question was not answered, or another process runs in this place: it may be asked again at once.
    pub fn may_ask_again(&mut self, process: u32) {
        self.asks.retain(|key, _| key.0 != process);
    }

    /// A sync of the user begins.
    pub fn started(&mut self, user: u32) {
        self.heard[user as usize] = None;
    }

    /// Something is wrong: what was heard may be lost, and is found by the poll behind.
    pub fn excuse(&mut self) {
        self.heard.fill(None);
    }

    /// In a world that is well, what was heard is synced within `bound_ms` milliseconds, unless the user cannot be.
    ///
    /// # Errors
    /// If it was not.
    pub fn look(
        &self,
        now: Timestamp,
        bound_ms: u64,
        is_synced: impl Fn(usize) -> bool,
    ) -> Verdict {
        let waiting = self.heard.iter().enumerate();
        let late = waiting
            .filter_map(|(user, at)| Some((user, (*at)?)))
            .find(|(user, at)| now.since_ms(*at) > bound_ms && is_synced(*user));
        match late {
            None => Ok(()),
            Some((user, at)) => broken(
                Invariant::HeardIsSynced,
                format!(
                    "a notification for user {user} was accepted at {at}, and no sync has begun since"
                ),
            ),
        }
    }

    /// Google made a channel of a calendar of which it knows these others, all that were not stopped.
    ///
    /// # Errors
    /// If the last of them had ended; `is_well(ms)` tells whether nothing was wrong so long.
    pub fn watched(
        &self,
        now: Timestamp,
        user: u32,
        others: &[(String, Timestamp)],
        is_well: impl Fn(u64) -> bool,
    ) -> Verdict {
        let Some(end) = others.iter().map(|(_, end)| *end).max() else {
            return Ok(());
        };
        let trouble_ms = now.since_ms(end) + self.renewed_within_ms();
        if end <= now && is_well(trouble_ms) {
            return broken(
                Invariant::ChannelsOverlap,
                format!("a channel of user {user} ended at {end}, and was renewed at {now} only"),
            );
        }
        Ok(())
    }

    /// A sync of the user was committed at `now`, by which the user is due at `due_at`, if that was told; without channels that
    /// would be at most `period_ms` milliseconds from now.
    ///
    /// # Errors
    /// If that is too late, or later than the channels allow.
    pub fn committed(
        &self,
        now: Timestamp,
        user: u32,
        due_at: Option<Timestamp>,
        period_ms: u64,
        calendars: &[Channels],
        is_well: impl Fn(u64) -> bool,
    ) -> Verdict {
        let one_known = |channels: &Channels| {
            let is_known = |(id, _): &&(String, Timestamp)| channels.known.contains(id);
            channels.live.iter().filter(is_known).count() <= 1
        };
        if !calendars.iter().all(one_known) && is_well(self.renewed_within_ms()) {
            return broken(
                Invariant::OneChannel,
                format!(
                    "a calendar of user {user} has several channels after a sync: {calendars:?}"
                ),
            );
        }
        let Some(due_at) = due_at else {
            return Ok(());
        };
        let slow_ms = self.settings.poll_ms.max(period_ms) + period_ms + LATER_MS;
        if due_at > now.plus_ms(slow_ms) {
            return broken(
                Invariant::PollBehind,
                format!("user {user} is due at {due_at}, {slow_ms} ms from {now} at the latest"),
            );
        }
        let is_slow = due_at > now.plus_ms(period_ms + LATER_MS);
        let outlives = |channels: &Channels| {
            let newest = channels.known.last();
            let mut live = channels.live.iter();
            live.any(|(id, end)| Some(id) == newest && *end >= due_at)
        };
        let is_watched = !calendars.is_empty() && calendars.iter().all(outlives);
        if is_slow && !is_watched {
            return broken(
                Invariant::SlowOnlyWatched,
                format!(
                    "user {user} is due at {due_at} only, and is not watched until then: {calendars:?}"
                ),
            );
        }
        Ok(())
    }

    /// So long before its end a channel is replaced at the latest, in milliseconds, and so long after a trouble all is well again:
    /// two polls, and what the schedule adds.
    fn renewed_within_ms(&self) -> u64 {
        2 * self.settings.poll_ms + 60 * MINUTE_MS
    }
}

fn broken(invariant: Invariant, detail: String) -> Verdict {
    Err(Violation::new(invariant, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::time::HOUR_MS;

    const PERIOD_MS: u64 = 15 * MINUTE_MS;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(1_793_600_000_000).plus_ms(ms)
    }

    fn ledger() -> PushLedger {
        PushLedger::new(PushSettings::default(), 2)
    }

    fn invariant(verdict: Verdict) -> Option<Invariant> {
        verdict.err().map(|violation| violation.invariant)
    }

    #[test]
    fn a_forged_one_that_is_believed_and_a_genuine_one_that_is_not_are_violations() {
        let mut ledger = ledger();
        let told = |ledger: &mut PushLedger, is_forged, answer| {
            invariant(ledger.answered(at(0), 0, is_forged, answer))
        };
        assert_eq!(told(&mut ledger, true, Answer::Forged), None);
        assert_eq!(told(&mut ledger, false, Answer::ComeAgain), None);
        let verified = Some(Invariant::PushVerified);
        assert_eq!(told(&mut ledger, true, Answer::Accepted), verified);
        assert_eq!(told(&mut ledger, false, Answer::Forged), verified);
    }

    #[test]
    fn a_third_question_within_the_debounce_is_a_violation() {
        let mut ledger = ledger();
        for process in 0..2 {
            assert_eq!(ledger.asks(at(0), process, 0, true), Ok(()));
            assert_eq!(ledger.asks(at(1), process, 0, true), Ok(()));
        }
        assert_eq!(ledger.clone().asks(at(DEBOUNCE_MS), 0, 0, true), Ok(()));
        assert_eq!(ledger.clone().asks(at(2), 0, 0, false), Ok(()));
        let mut other = ledger.clone();
        other.may_ask_again(0);
        assert_eq!(other.asks(at(2), 0, 0, true), Ok(()));
        assert_eq!(
            invariant(ledger.asks(at(2), 0, 0, true)),
            Some(Invariant::PushDebounced)
        );
    }

    #[test]
    fn what_was_heard_and_not_synced_is_a_violation() {
        let mut ledger = ledger();
        ledger.answered(at(0), 1, false, Answer::Accepted).unwrap();
        assert_eq!(ledger.look(at(1_000), 1_000, |_| true), Ok(()));
        assert_eq!(ledger.look(at(1_001), 1_000, |user| user == 0), Ok(()));
        assert_eq!(
            invariant(ledger.look(at(1_001), 1_000, |_| true)),
            Some(Invariant::HeardIsSynced)
        );
        ledger.started(1);
        assert_eq!(ledger.look(at(1_001), 1_000, |_| true), Ok(()));
    }

    #[test]
    fn a_channel_that_ended_before_its_successor_is_a_violation_in_a_world_that_is_well() {
        let ledger = ledger();
        let ended = [("a".to_owned(), at(0)), ("b".to_owned(), at(5))];
        assert_eq!(ledger.watched(at(4), 0, &ended, |_| true), Ok(()));
        assert_eq!(ledger.watched(at(5), 0, &[], |_| true), Ok(()));
        assert_eq!(ledger.watched(at(5), 0, &ended, |_| false), Ok(()));
        assert_eq!(
            invariant(ledger.watched(at(5), 0, &ended, |_| true)),
            Some(Invariant::ChannelsOverlap)
        );
    }

    #[test]
    fn slow_without_a_channel_too_slow_and_two_channels_are_violations() {
        let ledger = ledger();
        let slow_at = at(6 * HOUR_MS);
        let committed = |due_at, calendars: &[Channels]| {
            let due_at = Some(due_at);
            invariant(ledger.committed(at(0), 0, due_at, PERIOD_MS, calendars, |_| true))
        };
        let channels = |known: &[&str], end| Channels {
            known: known.iter().map(|id| (*id).to_owned()).collect(),
            live: vec![("a".to_owned(), end), ("b".to_owned(), end)],
        };
        let good = channels(&["b"], slow_at);
        assert_eq!(committed(slow_at, std::slice::from_ref(&good)), None);
        assert_eq!(committed(at(PERIOD_MS), &[Channels::default()]), None);
        let slow = Some(Invariant::SlowOnlyWatched);
        assert_eq!(committed(slow_at, &[]), slow);
        assert_eq!(committed(slow_at, &[good, Channels::default()]), slow);
        assert_eq!(committed(slow_at, &[channels(&["b"], at(1))]), slow);
        assert_eq!(committed(slow_at, &[channels(&["c"], slow_at)]), slow);
        let end = at(24 * HOUR_MS);
        assert_eq!(
            committed(end, &[channels(&["b"], end)]),
            Some(Invariant::PollBehind)
        );
        assert_eq!(
            committed(slow_at, &[channels(&["a", "b"], slow_at)]),
            Some(Invariant::OneChannel)
        );
    }
}
