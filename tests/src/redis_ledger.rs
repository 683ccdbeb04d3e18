//! What a store acknowledged, written down by the test, and what must be true of it whatever befell the server.
//!
//! Time is the store's, as its replies said it. A stretch of time may be declared lost (a failover to a replica that
//! lagged, a server that was emptied): what was acknowledged in it may be gone. Everything else holds:
//!
//! - **Nothing is lost.** After a user's job was acknowledged as enqueued the user was started. A cursor that was
//!   acknowledged is the stored one or an older one.
//! - **Exactly once.** Each user's cursor counts the completions: each lease finds it one larger than the one before
//!   did if that was completed, and as it was if not.
//! - **One live lease a job.** A later lease begins after the one before ended or expired.
//! - **Tokens only grow**, even over a lost stretch, and no two leases have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use kalends_core::id::WorkerId;
use kalends_core::time::Timestamp;

/// How a lease ended, as far as its worker heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The completion was applied just then.
    Completed,
    /// It had been applied before: its first reply was lost.
    CompletedBefore,
    /// It was handed back just then.
    Released,
    /// It had been handed back before.
    ReleasedBefore,
    /// It was refused: the lease was lost.
    Lost,
    /// A completion was sent again and then refused. Either the lease was lost, or the first one was applied, its reply
    /// was lost, and the user's next job ended before the second one came: the queue remembers one ended lease a user.
    Unsure,
}

impl End {
    fn is_completion(self) -> bool {
        matches!(self, End::Completed | End::CompletedBefore)
    }
}

/// A lease as its worker saw it.
#[derive(Clone, Debug)]
struct Seen {
    user: String,
    worker: WorkerId,
    cursor: u64,
    /// When it was given, or given again.
    claimed_at: Timestamp,
    /// Reply by reply: the store's time, and until when the lease lasts.
    lasts: Vec<(Timestamp, Timestamp)>,
    ended: Option<(Timestamp, End)>,
    /// Ends before that: such as were lost, so that the lease was given again.
    ended_before: Vec<(Timestamp, End)>,
}

/// A user in the end, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Final {
    /// The number in the cursor.
    pub cursor: u64,
    /// When the user's last job started.
    pub last_started_at: Option<Timestamp>,
}

/// All that was acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    leases: BTreeMap<u64, Seen>,
    /// By user: when it was acknowledged.
    enqueued: BTreeMap<String, Vec<Timestamp>>,
    /// By user: how often it was sent.
    sent: BTreeMap<String, u64>,
    /// Completions that were acknowledged.
    pub completions: u64,
    /// Leases that were refused at their end.
    pub leases_lost: u64,
    /// Answers that said "that was done before": a reply had been lost after its command was applied.
    pub done_before: u64,
    /// Leases that were given again.
    pub given_again: u64,
    /// Commands that got no answer.
    pub unanswered: u64,
    /// The last reason why.
    pub last_failure: String,
    /// "Unknown source": the server had forgotten everything.
    pub forgotten: u64,
    /// What was seen to be wrong at once.
    wrong: Vec<String>,
}

impl Ledger {
    /// A job of `user` is about to be sent, perhaps again.
    pub fn sending(&mut self, user: &str) {
        *self.sent.entry(user.to_owned()).or_default() += 1;
    }

    /// A job of `user` was acknowledged as enqueued at `at`.
    pub fn enqueued(&mut self, user: &str, at: Timestamp) {
        self.enqueued.entry(user.to_owned()).or_default().push(at);
    }

    /// A lease was given at `at`. What is wrong with it is told by [`Ledger::check`].
    pub fn leased(
        &mut self,
        user: &str,
        worker: &WorkerId,
        token: u64,
        cursor: u64,
        at: Timestamp,
        expires_at: Timestamp,
    ) {
        let Some(seen) = self.leases.get_mut(&token) else {
            self.leases.insert(
                token,
                Seen {
                    user: user.to_owned(),
                    worker: worker.clone(),
                    cursor,
                    claimed_at: at,
                    lasts: vec![(at, expires_at)],
                    ended: None,
                    ended_before: Vec::new(),
                },
            );
            return;
        };
        self.given_again += 1;
        if seen.user != user || seen.worker != *worker {
            self.wrong.push(format!(
                "token {token} of {}, {} was given to {user}, {worker}, too",
                seen.user, seen.worker
            ));
        }
        seen.claimed_at = seen.claimed_at.min(at);
        seen.lasts.push((at, expires_at));
    }

    /// A heartbeat at `at` extended a lease.
    pub fn extended(&mut self, token: u64, at: Timestamp, expires_at: Timestamp) {
        self.seen(token).lasts.push((at, expires_at));
    }

    /// A worker heard at `at` how its lease ended.
    pub fn ended(&mut self, token: u64, at: Timestamp, end: End) {
        self.completions += u64::from(end.is_completion());
        self.leases_lost += u64::from(matches!(end, End::Lost | End::Unsure));
        self.done_before += u64::from(matches!(end, End::CompletedBefore | End::ReleasedBefore));
        let seen = self.seen(token);
        seen.ended_before.extend(seen.ended.replace((at, end)));
    }

    fn seen(&mut self, token: u64) -> &mut Seen {
        self.leases
            .get_mut(&token)
            .expect("only leases that were given are extended or ended")
    }

    /// How many different leases were given.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.leases.len()
    }

    /// All that is wrong, in words; `lost` is the stretch of the store's time whose acknowledgements may be gone. To be
    /// asked when nothing is outstanding any more.
    #[must_use]
    pub fn check(
        &self,
        users: &BTreeMap<String, Final>,
        lost: Option<RangeInclusive<Timestamp>>,
    ) -> Vec<String> {
        let is_lost = |at: Timestamp| lost.as_ref().is_some_and(|lost| lost.contains(&at));
        let mut wrong = self.wrong.clone();
        for user in self.enqueued.keys() {
            if !users.contains_key(user) {
                wrong.push(format!("{user} is gone"));
            }
        }
        for (user, last) in users {
            let kept = |at: &&Timestamp| !is_lost(**at);
            let enqueued = self.enqueued.get(user).map(Vec::as_slice).unwrap_or(&[]);
            if let Some(&at) = enqueued.iter().filter(kept).max()
                && last.last_started_at < Some(at)
            {
                wrong.push(format!(
                    "{user}: the job acknowledged at {at:?} never started ({last:?})"
                ));
            }
            self.check_user(user, last, &is_lost, &mut wrong);
        }
        wrong
    }

    fn check_user(
        &self,
        user: &str,
        last: &Final,
        is_lost: &impl Fn(Timestamp) -> bool,
        wrong: &mut Vec<String>,
    ) {
        let mine: Vec<(&u64, &Seen)> = self
            .leases
            .iter()
            .filter(|(_, seen)| seen.user == *user)
            .collect();
        let completed = |seen: &Seen| seen.ended.filter(|(_, end)| end.is_completion());
        let (mut kept, mut cursor_min) = (0, 0);
        for (place, (token, seen)) in mine.iter().enumerate() {
            if !seen.ended_before.iter().all(|(at, _)| is_lost(*at)) {
                wrong.push(format!("{user}, token {token} ended twice: {seen:?}"));
            }
            let known = !is_lost(seen.claimed_at);
            if known && seen.cursor < cursor_min {
                wrong.push(format!(
                    "{user}, token {token}: the cursor is {}, but {cursor_min} was acknowledged",
                    seen.cursor
                ));
            }
            let next = mine.get(place + 1).map(|(_, next)| *next);
            let cursor_next = next.map_or(last.cursor, |next| next.cursor);
            let known = known
                && next.is_none_or(|next| !is_lost(next.claimed_at))
                && seen.ended.is_none_or(|(at, _)| !is_lost(at));
            let counted = match seen.ended {
                Some((_, End::Unsure)) => (0..=1).contains(&cursor_next.wrapping_sub(seen.cursor)),
                _ => cursor_next == seen.cursor + u64::from(completed(seen).is_some()),
            };
            if known && !counted {
                wrong.push(format!(
                    "{user}, token {token}: the cursor was {}, then {cursor_next}; {:?}",
                    seen.cursor, seen.ended
                ));
            }
            // What came of a lost stretch's leases is not known; the next one that is known counts.
            let mut later = mine[place + 1..].iter().map(|(_, later)| *later);
            if let Some(next) = later.find(|later| !is_lost(later.claimed_at)) {
                if next.claimed_at < seen.claimed_at && seen.lasts.len() == 1 {
                    wrong.push(format!(
                        "{user}: a larger token was given before the smaller {token}"
                    ));
                }
                let end = seen.live_until(is_lost);
                if end.is_some_and(|end| next.claimed_at < end) {
                    wrong.push(format!(
                        "{user}: two live leases, {token} {seen:?} and {next:?}"
                    ));
                }
            }
            if let Some((at, _)) = completed(seen)
                && !is_lost(at)
            {
                kept += 1;
                cursor_min = seen.cursor + 1;
            }
        }
        if last.cursor < cursor_min {
            wrong.push(format!(
                "{user}: the cursor is {} in the end, but {cursor_min} was acknowledged",
                last.cursor
            ));
        }
        let sent = self.sent.get(user).copied().unwrap_or_default();
        if kept > sent {
            wrong.push(format!(
                "{user}: sent {sent} times and completed {kept} times"
            ));
        }
    }

    /// The tokens of all leases, as a set: for tests that compare them.
    #[must_use]
    pub fn tokens(&self) -> BTreeSet<u64> {
        self.leases.keys().copied().collect()
    }
}

impl Seen {
    /// Until when this lease was live for certain; `None` if that is not known.
    fn live_until(&self, is_lost: &impl Fn(Timestamp) -> bool) -> Option<Timestamp> {
        if is_lost(self.claimed_at) {
            return None;
        }
        match self.ended {
            // Even if that may be lost: it may have been kept as well.
            Some((at, End::Completed | End::Released)) => Some(at),
            // It ended at some time before that.
            Some((_, End::CompletedBefore | End::ReleasedBefore | End::Unsure)) => None,
            _ => self
                .lasts
                .iter()
                .filter(|(at, _)| !is_lost(*at))
                .map(|(_, expires_at)| *expires_at)
                .next_back(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn worker(name: &str) -> WorkerId {
        WorkerId::new(name).unwrap()
    }

    /// A job enqueued at 1, started at 2 and completed at 5.
    fn good() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.sending("ada");
        ledger.enqueued("ada", at(1));
        ledger.leased("ada", &worker("w"), 10, 0, at(2), at(100));
        ledger.ended(10, at(5), End::Completed);
        ledger
    }

    fn users(cursor: u64, started: i64) -> BTreeMap<String, Final> {
        let last = Final {
            cursor,
            last_started_at: Some(at(started)),
        };
        BTreeMap::from([("ada".to_owned(), last)])
    }

    fn assert_wrong(ledger: &Ledger, users: &BTreeMap<String, Final>, part: &str) {
        let wrong = ledger.check(users, None);
        assert!(
            wrong.iter().any(|text| text.contains(part)),
            "{part}: {wrong:?}"
        );
    }

    #[test]
    fn a_good_history_is_good() {
        assert_eq!(good().check(&users(1, 2), None), Vec::<String>::new());
    }

    #[test]
    fn what_is_lost_is_seen_unless_it_may_be_lost() {
        let mut ledger = good();
        ledger.sending("ada");
        ledger.enqueued("ada", at(7));
        assert_wrong(&ledger, &users(1, 2), "never started");
        assert!(ledger.check(&users(1, 2), Some(at(6)..=at(8))).is_empty());
        assert_wrong(&ledger, &BTreeMap::new(), "gone");
        assert_wrong(&good(), &users(0, 2), "the cursor is 0 in the end");
        assert!(good().check(&users(0, 2), Some(at(5)..=at(5))).is_empty());
    }

    #[test]
    fn what_happened_twice_is_seen() {
        assert_wrong(&good(), &users(2, 2), "the cursor was 0, then 2");
        let mut ledger = good();
        ledger.leased("ada", &worker("w"), 11, 1, at(6), at(100));
        ledger.ended(11, at(7), End::CompletedBefore);
        assert_wrong(&ledger, &users(2, 6), "completed 2 times");
    }

    #[test]
    fn a_lease_ends_once_unless_its_end_was_lost() {
        let mut ledger = good();
        ledger.leased("ada", &worker("w"), 10, 0, at(6), at(100));
        ledger.ended(10, at(7), End::Completed);
        assert_wrong(&ledger, &users(1, 2), "ended twice");
        assert!(ledger.check(&users(1, 2), Some(at(5)..=at(6))).is_empty());
    }

    #[test]
    fn two_live_leases_are_seen() {
        let mut ledger = good();
        ledger.leased("ada", &worker("v"), 11, 0, at(4), at(100));
        assert_wrong(&ledger, &users(1, 4), "two live leases");

        let mut ledger = good();
        ledger.leased("ada", &worker("w"), 11, 1, at(6), at(100));
        ledger.extended(11, at(50), at(150));
        ledger.ended(11, at(160), End::Lost);
        ledger.leased("ada", &worker("v"), 12, 1, at(120), at(200));
        assert_wrong(&ledger, &users(1, 120), "two live leases");
        // Had the heartbeat been lost in a failover, that would be right.
        let lost = Some(at(50)..=at(51));
        assert!(ledger.check(&users(1, 120), lost).is_empty());
    }

    #[test]
    fn cursors_and_tokens_that_go_back_are_seen() {
        let mut ledger = good();
        ledger.leased("ada", &worker("w"), 11, 0, at(6), at(100));
        assert_wrong(&ledger, &users(1, 6), "the cursor is 0");

        let mut ledger = good();
        ledger.leased("ada", &worker("w"), 9, 1, at(6), at(100));
        assert_wrong(&ledger, &users(1, 6), "before the smaller 9");

        let mut ledger = good();
        ledger.leased("bob", &worker("w"), 10, 0, at(6), at(100));
        assert_wrong(&ledger, &users(1, 6), "was given to bob");
    }
}
