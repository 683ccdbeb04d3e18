//! Each rule of the queue by itself. The random streams of `tests/queue_model.rs` go through them all at once.

use super::command::*;
use super::state::*;
use super::*;
use crate::failure::LimitScope;
use crate::id::{UserId, WorkerId};
use crate::policy::limit::Limit;

const START_MS: i64 = 1_700_000_000_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(START_MS + ms)
}

fn source() -> SourceName {
    SourceName::google_calendar()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn key(name: &str) -> JobKey {
    JobKey::Sync {
        source: source(),
        user: user(name),
    }
}

/// A queue with one source and users who are due, driven in steps.
struct Desk {
    queue: Queue,
}

impl Desk {
    fn new(jobs: Option<Limit>, users: &[&str]) -> Desk {
        let mut desk = Desk {
            queue: Queue::new(),
        };
        desk.define(SourceSettings {
            jobs,
            ..SourceSettings::default()
        });
        desk.enroll(users);
        desk
    }

    fn unlimited(users: &[&str]) -> Desk {
        Desk::new(None, users)
    }

    fn apply(&mut self, ms: i64, command: Command) -> Reply {
        let reply = self.queue.apply(at(ms), command);
        self.queue.check_invariants();
        reply
    }

    fn define(&mut self, settings: SourceSettings) {
        let source = source();
        let reply = self.apply(0, Command::DefineSource { source, settings });
        assert_eq!(reply, Reply::Done);
    }

    fn enroll(&mut self, users: &[&str]) {
        let users = users.iter().map(|name| user(name)).collect();
        let source = source();
        let due_at = at(0);
        self.apply(
            0,
            Command::Enroll {
                source,
                users,
                due_at,
            },
        );
    }

    fn connect(&mut self, name: &str, grant: u64, force: bool) -> Vec<String> {
        let connect = Command::Connect {
            source: source(),
            grants: vec![(user(name), grant)],
            due_at: at(0),
            force,
        };
        match self.apply(0, connect) {
            Reply::Enrolled { users, .. } => users.into_iter().map(String::from).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn park(&mut self, name: &str) {
        self.enqueue(0, name);
        let lease = self.claim_one(70_000);
        let fail = Command::Fail {
            lease,
            error: "invalid_grant".into(),
            next_due_at: None,
            park: Some(ParkReason::NeedsReauth),
        };
        assert_eq!(self.apply(70_000, fail), Reply::Done);
    }

    fn enqueue_as(&mut self, ms: i64, name: &str, run_ms: i64, priority: Priority) -> Reply {
        self.apply(
            ms,
            Command::Enqueue {
                source: source(),
                jobs: vec![NewJob {
                    user: user(name),
                    run_at: at(run_ms),
                    nominal_at: None,
                    priority,
                }],
                checkpoint: None,
            },
        )
    }

    fn enqueue(&mut self, ms: i64, name: &str) -> Reply {
        self.enqueue_as(ms, name, ms, Priority::Scheduled)
    }

    fn claim_reply(&mut self, ms: i64, worker: &str, slots: u32, held: &[LeaseToken]) -> Reply {
        self.apply(
            ms,
            Command::Claim {
                worker: WorkerId::new(worker).unwrap(),
                slots,
                fan_out_slots: 1,
                lease_ms: 30_000,
                held: held.to_vec(),
            },
        )
    }

    /// Claims for a worker that knows all it holds.
    fn claim(&mut self, ms: i64, slots: u32) -> Vec<Lease> {
        let held: Vec<LeaseToken> = self
            .queue
            .index
            .workers
            .values()
            .flat_map(|held| held.keys().copied())
            .collect();
        match self.claim_reply(ms, "worker", slots, &held) {
            Reply::Claimed { leases, .. } => leases,
            other => panic!("{other:?}"),
        }
    }

    fn claim_one(&mut self, ms: i64) -> LeaseRef {
        let leases = self.claim(ms, 1);
        assert_eq!(leases.len(), 1);
        leases[0].lease.clone()
    }

    fn complete(&mut self, ms: i64, lease: &LeaseRef) -> Reply {
        let commit = Commit {
            cursor: Some("token".into()),
            next_due_at: Some(at(900_000)),
            outcome: CommitOutcome::Synced {
                upserted: 1,
                deleted: 0,
                quarantined: 0,
                requests: 1,
                full: false,
            },
        };
        let lease = lease.clone();
        self.apply(ms, Command::Complete { lease, commit })
    }

    fn retry(&mut self, ms: i64, lease: &LeaseRef, at_ms: i64) -> Reply {
        let lease = lease.clone();
        let error = "503".to_owned();
        self.apply(
            ms,
            Command::Retry {
                lease,
                at: at(at_ms),
                error,
            },
        )
    }

    fn limited(&mut self, ms: i64, lease: &LeaseRef, scope: LimitScope) -> Reply {
        self.apply(
            ms,
            Command::Limited {
                lease: lease.clone(),
                scope,
                retry_after_ms: None,
                jitter_ms: 0,
                reason: "429".into(),
            },
        )
    }

    fn user(&self, name: &str) -> UserState {
        self.queue.user_of(&key(name)).unwrap().clone()
    }

    fn next(&self, ms: i64) -> Option<Timestamp> {
        self.queue.next_wake_at(at(ms))
    }
}

fn names(leases: &[Lease]) -> Vec<&str> {
    let name = |lease: &'_ Lease| match &lease.lease.key {
        JobKey::Sync { user, .. } => user.as_str().to_owned().leak() as &str,
        JobKey::FanOut { .. } => "fan-out",
    };
    leases.iter().map(name).collect()
}

fn enqueued(added: u64, coalesced: u64, refused: u64) -> Reply {
    Reply::Enqueued {
        added,
        coalesced,
        refused,
    }
}

fn lost() -> Reply {
    Reply::Refused {
        refusal: Refusal::LeaseLost,
    }
}

#[test]
fn a_user_has_one_job_however_often_it_is_asked_for() {
    let mut desk = Desk::unlimited(&["ada"]);
    assert_eq!(desk.enqueue(0, "ada"), enqueued(1, 0, 0));
    assert_eq!(desk.enqueue(1, "ada"), enqueued(0, 1, 0));
    assert_eq!(desk.enqueue(1, "nobody"), enqueued(0, 0, 1));
    assert_eq!(desk.claim(2, 9).len(), 1);
}

#[test]
fn a_wish_that_comes_while_active_runs_once_more() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(1);
    assert_eq!(desk.enqueue(2, "ada"), enqueued(0, 1, 0));
    assert!(desk.claim(3, 9).is_empty());
    assert_eq!(desk.complete(4, &lease), Reply::Done);
    let again = desk.claim_one(5);
    assert!(again.token > lease.token);
    assert_eq!(desk.complete(6, &again), Reply::Done);
    assert!(desk.claim(7, 9).is_empty());
    assert_eq!(desk.next(8), None);
}

#[test]
fn sync_now_goes_first_but_a_flood_of_it_waits_in_line() {
    let mut desk = Desk::unlimited(&["ada", "ben", "cleo"]);
    desk.enqueue(0, "ada");
    desk.enqueue_as(1, "ben", 1, Priority::Now);
    assert_eq!(names(&desk.claim(2, 1)), ["ben"]);
    let lease = LeaseRef {
        key: key("ben"),
        token: desk.queue.meta().last_token,
    };
    desk.complete(3, &lease);
    desk.enqueue(4, "cleo");
    desk.enqueue_as(5, "ben", 5, Priority::Now);
    assert_eq!(names(&desk.claim(6, 9)), ["ada", "cleo", "ben"]);
}

#[test]
fn who_was_ready_first_goes_first_and_of_those_the_first_by_name() {
    let mut desk = Desk::unlimited(&["ada", "ben", "cleo", "dana"]);
    desk.enqueue_as(0, "cleo", 5, Priority::Scheduled);
    desk.enqueue_as(0, "ben", 5, Priority::Scheduled);
    desk.enqueue_as(0, "dana", 4, Priority::Scheduled);
    desk.enqueue_as(0, "ada", 9, Priority::Now);
    assert_eq!(names(&desk.claim(8, 1)), ["dana"], "none before its time");
    assert_eq!(names(&desk.claim(9, 9)), ["ada", "ben", "cleo"]);
}

#[test]
fn a_claim_gives_a_bounded_batch_and_says_that_there_is_more() {
    let users: Vec<String> = (0..=CLAIM_BATCH_MAX).map(|n| format!("user {n}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut desk = Desk::unlimited(&users);
    for name in &users {
        desk.enqueue(0, name);
    }
    for (given, held) in [(CLAIM_BATCH_MAX, true), (CLAIM_BATCH_MAX, true), (1, false)] {
        // The second claim knows of nothing: the batch is given again, and nothing new beside it.
        let known: Vec<LeaseToken> = match held {
            true => Vec::new(),
            false => desk
                .queue
                .index
                .workers
                .values()
                .flat_map(|held| held.keys().copied())
                .collect(),
        };
        let Reply::Claimed {
            leases, next_at, ..
        } = desk.claim_reply(1, "worker", 1_000, &known)
        else {
            panic!("not claimed");
        };
        assert_eq!(leases.len(), given);
        assert_eq!(next_at == Some(at(1)), held);
    }
    let too_many = desk.claim_reply(2, "worker", 1_001, &[]);
    assert!(matches!(
        too_many,
        Reply::Refused {
            refusal: Refusal::TooLarge { .. }
        }
    ));
}

#[test]
fn a_claim_that_puts_a_whole_batch_aside_asks_to_be_called_again() {
    let users: Vec<String> = (0..=CLAIM_BATCH_MAX)
        .map(|n| format!("user {n:03}"))
        .collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let mut desk = Desk::unlimited(&users);
    desk.define(SourceSettings {
        jobs: None,
        requests_user: Some(Limit {
            count: 1,
            window_ms: 60_000,
        }),
        ..SourceSettings::default()
    });
    for name in &users[..CLAIM_BATCH_MAX] {
        desk.enqueue(0, name);
    }
    for lease in desk.claim(0, 1_000) {
        desk.complete(1, &lease.lease);
    }
    for name in &users {
        desk.enqueue(2, name);
    }
    let Reply::Claimed {
        leases, next_at, ..
    } = desk.claim_reply(3, "worker", 9, &[])
    else {
        panic!("not claimed");
    };
    assert_eq!((leases.len(), next_at), (0, Some(at(3))));
    assert_eq!(names(&desk.claim(3, 9)), [*users.last().unwrap()]);
}

#[test]
fn only_the_live_lease_ends_a_job_and_only_once() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let old = desk.claim_one(0);
    assert_eq!(desk.complete(30_000, &old), lost(), "expired");
    let new = desk.claim_one(30_001);
    assert!(new.token > old.token);
    assert_eq!(desk.complete(30_002, &old), lost(), "another has it");
    assert_eq!(desk.complete(30_003, &new), Reply::Done);
    assert_eq!(desk.complete(30_004, &new), Reply::AlreadyDone);
    assert_eq!(desk.retry(30_005, &new, 0), Reply::AlreadyDone);
    assert_eq!(desk.complete(30_006, &old), lost());
    assert_eq!(desk.user("ada").last_success_at, Some(at(30_003)));
}

#[test]
fn a_lost_claim_reply_is_given_again_under_the_same_token() {
    let mut desk = Desk::unlimited(&["ada", "ben"]);
    desk.enqueue(0, "ada");
    let Reply::Claimed { leases: first, .. } = desk.claim_reply(0, "worker", 1, &[]) else {
        panic!("not claimed");
    };
    desk.enqueue(1, "ben");
    let Reply::Claimed { leases, .. } = desk.claim_reply(1_000, "worker", 2, &[]) else {
        panic!("not claimed");
    };
    assert_eq!(names(&leases), ["ada", "ben"]);
    assert_eq!(leases[0].lease, first[0].lease);
    assert_eq!(leases[0].expires_at, at(31_000));
    let held: Vec<LeaseToken> = leases.iter().map(|lease| lease.lease.token).collect();
    let Reply::Claimed { leases, .. } = desk.claim_reply(2_000, "worker", 2, &held) else {
        panic!("not claimed");
    };
    assert!(leases.is_empty());
}

#[test]
fn a_job_that_kills_its_process_is_buried() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    for stall in 0..4 {
        let leases = desk.claim(stall * 40_000, 1);
        assert_eq!(leases[0].attempt, 1, "a stall is no attempt");
    }
    let Reply::Claimed { buried, .. } = desk.claim_reply(160_000, "worker", 1, &[]) else {
        panic!("not claimed");
    };
    assert_eq!(buried, 1);
    assert!(desk.user("ada").last_error.is_some());
    let retry = Command::RetryFailed { number: None };
    assert_eq!(desk.apply(160_001, retry), Reply::Count { count: 1 });
    assert_eq!(desk.claim(160_002, 1).len(), 1);
}

#[test]
fn a_claim_takes_back_a_bounded_batch_and_asks_to_be_called_again() {
    let users: Vec<String> = (0..=EXPIRE_BATCH_MAX)
        .map(|n| format!("user {n}"))
        .collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    // The project's limit leaves room for them all; the job limit is lifted.
    let mut desk = Desk::unlimited(&users);
    for name in &users {
        desk.enqueue(0, name);
    }
    assert_eq!(desk.claim(0, 1_000).len(), CLAIM_BATCH_MAX);
    assert_eq!(desk.claim(0, 1_000).len(), 1);
    for (recovered, next_ms) in [(100, 30_000), (1, 30_000)] {
        let reply = desk.claim_reply(30_000, "idle", 0, &[]);
        assert_eq!(
            reply,
            Reply::Claimed {
                leases: Vec::new(),
                recovered,
                buried: 0,
                next_at: Some(at(next_ms)),
            }
        );
    }
    let again = [30_001, 30_001].map(|ms| desk.claim(ms, 1_000).len());
    assert_eq!(again, [CLAIM_BATCH_MAX, 1]);
}

#[test]
fn a_scheduled_wish_does_not_shorten_a_backoff_but_sync_now_does() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    assert_eq!(desk.retry(1, &lease, 100_000), Reply::Done);
    desk.enqueue(2, "ada");
    assert_eq!(desk.next(3), Some(at(100_000)));
    assert!(desk.claim(99_999, 1).is_empty());
    desk.enqueue_as(70_000, "ada", 70_000, Priority::Now);
    let leases = desk.claim(70_001, 1);
    assert_eq!(leases[0].attempt, 2);
}

/// Found by the simulator: the user connected again while a job that had met the old grant was still on its way.
#[test]
fn a_refusal_of_the_old_grant_does_not_park_who_has_just_connected_again() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.connect("ada", 7, false);
    desk.enqueue(0, "ada");
    let old = desk.claim_one(0);
    assert_eq!(desk.connect("ada", 7, false), [""; 0], "the same grant");
    assert_eq!(desk.claim(1, 1), [], "and the same lease");
    desk.connect("ada", 8, false);
    let fail = Command::Fail {
        lease: old,
        error: "invalid_grant".into(),
        next_due_at: None,
        park: Some(ParkReason::NeedsReauth),
    };
    let lost = Reply::Refused {
        refusal: Refusal::LeaseLost,
    };
    assert_eq!(desk.apply(2, fail), lost);
    let again = desk.claim_one(3);
    assert_eq!(desk.complete(4, &again), Reply::Done);
}

#[test]
fn a_parked_user_is_left_alone_until_connected_by_another_grant() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    desk.enqueue(1, "ada");
    let fail = Command::Fail {
        lease,
        error: "invalid_grant".into(),
        next_due_at: Some(at(900_000)),
        park: Some(ParkReason::NeedsReauth),
    };
    assert_eq!(desk.apply(2, fail), Reply::Done);
    assert_eq!(desk.next(3), None, "the wish went with it");
    assert_eq!(desk.enqueue(4, "ada"), enqueued(0, 0, 1));
    let retry = Command::RetryFailed { number: None };
    assert_eq!(desk.apply(5, retry), Reply::Count { count: 0 });
    // A restart enrolls everybody again, and the same grant would only be refused again.
    desk.enroll(&["ada"]);
    assert_eq!(
        desk.connect("ada", 7, false),
        ["ada"],
        "no grant was ever told"
    );
    desk.park("ada");
    assert!(desk.connect("ada", 7, false).is_empty());
    assert_eq!(desk.enqueue(6, "ada"), enqueued(0, 0, 1));
    assert_eq!(desk.connect("ada", 8, false), ["ada"]);
    assert_eq!(desk.user("ada").due_at, at(0));
    assert_eq!(desk.enqueue(7, "ada"), enqueued(1, 0, 0));
    desk.apply(8, Command::Remove { key: key("ada") });
    desk.park("ada");
    assert_eq!(
        desk.connect("ada", 8, true),
        ["ada"],
        "a person asked for it"
    );
}

#[test]
fn a_clock_that_was_years_ahead_leaves_nobody_in_the_future() {
    let year_ms = 365 * 24 * 3_600_000;
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(year_ms, "ada");
    let lease = desk.claim_one(year_ms);
    let fail = Command::Fail {
        lease,
        error: "down".into(),
        next_due_at: Some(at(year_ms + 900_000)),
        park: None,
    };
    assert_eq!(desk.apply(year_ms, fail), Reply::Done);
    desk.enqueue(1_000, "ada");
    assert_eq!(desk.user("ada").due_at, at(901_000));
}

#[test]
fn a_user_who_alone_is_told_to_slow_down_does_not_shut_the_others_out() {
    let mut desk = Desk::unlimited(&["ada", "ben"]);
    desk.enqueue(0, "ada");
    let mut now = 10;
    let mut lease = desk.claim_one(now);
    desk.enqueue(20, "ben");
    for _ in 0..5 {
        let limited = Command::Limited {
            lease,
            scope: LimitScope::Source,
            retry_after_ms: Some(1_000),
            jitter_ms: 0,
            reason: "too fast".into(),
        };
        desk.apply(now, limited);
        now += 1_000;
        let leases = desk.claim(now, 1);
        if leases[0].lease.key == key("ben") {
            return;
        }
        lease = leases[0].lease.clone();
    }
    panic!("ben never had a turn");
}

#[test]
fn an_operator_opens_a_gate_before_its_time() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    let limited = Command::Limited {
        lease,
        scope: LimitScope::Source,
        retry_after_ms: Some(24 * 3_600_000),
        jitter_ms: 0,
        reason: "come back tomorrow".into(),
    };
    desk.apply(0, limited);
    assert!(desk.claim(1_000, 1).is_empty());
    desk.apply(1_000, Command::Resume { source: None });
    // The next tick comes.
    desk.enqueue(2_000, "ada");
    assert_eq!(desk.claim(100_000, 1).len(), 1);
}

#[test]
fn who_is_unenrolled_in_the_middle_loses_the_lease() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    let (source, users) = (source(), vec![user("ada")]);
    let unenroll = Command::Unenroll { source, users };
    assert_eq!(desk.apply(1, unenroll), Reply::Count { count: 1 });
    assert_eq!(desk.complete(2, &lease), lost());
}

#[test]
fn a_clock_that_steps_back_a_day_freezes_nothing() {
    let day_ms = 24 * 3_600_000;
    let mut desk = Desk::new(Some(Limit::default()), &["ada", "ben"]);
    desk.enqueue(0, "ada");
    desk.enqueue(0, "ben");
    let lease = desk.claim_one(day_ms);
    assert!(desk.claim(0, 9).len() == 1, "the window is not full");
    let leases = desk.claim(30_000, 9);
    assert_eq!(leases.len(), 2, "no lease lasts longer from the step on");
    assert!(leases[0].lease.token > lease.token);
}

#[test]
fn texts_and_batches_are_bounded() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    let is_too_large = |reply| {
        matches!(
            reply,
            Reply::Refused {
                refusal: Refusal::TooLarge { .. }
            }
        )
    };
    let progress = Some("x".repeat(CURSOR_BYTES_MAX + 1));
    assert!(is_too_large(desk.apply(
        1,
        Command::Checkpoint {
            lease: lease.clone(),
            progress,
            requests: 0
        }
    )));
    assert!(is_too_large(desk.apply(
        1,
        Command::Heartbeat {
            leases: vec![lease.clone(); BATCH_MAX + 1],
            lease_ms: 1
        }
    )));
    assert!(is_too_large(desk.apply(
        1,
        Command::Heartbeat {
            leases: Vec::new(),
            lease_ms: LEASE_MS_MAX + 1
        }
    )));
    let error = "é".repeat(2_000);
    desk.apply(
        2,
        Command::Retry {
            lease,
            at: at(3),
            error,
        },
    );
    assert_eq!(desk.user("ada").last_error.unwrap().chars().count(), 500);
}

mod fan_outs;
mod limits;
