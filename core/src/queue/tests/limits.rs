//! Limits, gates and pauses: what holds a job back, whom it does not hold back, and when it ends.

use super::*;

#[test]
fn the_job_limit_holds_in_every_window_and_says_when_to_come_back() {
    let limit = Limit {
        count: 2,
        window_ms: 10_000,
    };
    let mut desk = Desk::new(Some(limit), &["ada", "ben", "cleo"]);
    for name in ["ada", "ben", "cleo"] {
        desk.enqueue(0, name);
    }
    assert_eq!(desk.claim(5_000, 9).len(), 2);
    assert_eq!(desk.next(5_001), Some(at(15_000)));
    assert!(desk.claim(14_999, 9).is_empty());
    assert_eq!(desk.claim(15_000, 9).len(), 1);
    let jobs = Some(Limit { count: 1, ..limit });
    let source = source();
    desk.apply(15_001, Command::SetLimit { source, jobs });
    desk.enqueue(15_002, "ada");
    assert!(desk.claim(24_999, 9).is_empty());
}

#[test]
fn a_restart_leaves_an_operators_limit_and_a_change_replaces_it() {
    let mut desk = Desk::unlimited(&[]);
    let jobs = Some(Limit::default());
    let set = Command::SetLimit {
        source: source(),
        jobs,
    };
    desk.apply(1, set);
    desk.define(SourceSettings {
        jobs: None,
        ..SourceSettings::default()
    });
    assert_eq!(desk.queue.settings(&source()).jobs, jobs);
    desk.define(SourceSettings {
        jobs: None,
        keep_failed: 7,
        ..SourceSettings::default()
    });
    assert_eq!(desk.queue.settings(&source()).jobs, None);
}

#[test]
fn a_users_gate_delays_that_user_alone() {
    let mut desk = Desk::unlimited(&["ada", "ben"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    let until = at(1_001);
    assert_eq!(
        desk.limited(1, &lease, LimitScope::User),
        Reply::GateClosed { until }
    );
    assert_eq!(
        desk.limited(2, &lease, LimitScope::User),
        Reply::AlreadyDone
    );
    desk.enqueue_as(3, "ada", 3, Priority::Now);
    desk.enqueue(4, "ben");
    assert_eq!(names(&desk.claim(5, 9)), ["ben"]);
    let leases = desk.claim(1_001, 9);
    assert_eq!(leases[0].attempt, 1, "a limit is no attempt");
    let until = at(1_002 + 2_000);
    let lease = &leases[0].lease;
    assert_eq!(
        desk.limited(1_002, lease, LimitScope::User),
        Reply::GateClosed { until },
        "doubled"
    );
}

#[test]
fn a_sources_gate_stops_those_who_run_and_then_opens_slowly() {
    let limit = Limit {
        count: 10,
        window_ms: 60_000,
    };
    let users = ["ada", "ben", "cleo", "dana", "eli"];
    let mut desk = Desk::new(Some(limit), &users);
    for name in users {
        desk.enqueue(0, name);
    }
    let leases = desk.claim(0, 2);
    desk.limited(1, &leases[0].lease, LimitScope::Source);
    let ask = Command::Checkpoint {
        lease: leases[1].lease.clone(),
        progress: Some("page 2".into()),
        requests: 1,
    };
    let wait_until = Some(at(1_001));
    assert_eq!(desk.apply(2, ask), Reply::Permit { wait_until });
    assert_eq!(desk.user("ben").cursor.as_deref(), Some("page 2"));
    assert!(desk.claim(1_000, 9).is_empty());
    assert_eq!(desk.claim(1_001, 9).len(), 1);
    assert_eq!(desk.next(1_002), Some(at(7_001)));
    assert_eq!(desk.claim(7_001, 9).len(), 1);
}

#[test]
fn the_gate_closes_even_for_one_whose_lease_is_lost() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    assert_eq!(desk.limited(40_000, &lease, LimitScope::Source), lost());
    assert!(desk.claim(40_001, 9).is_empty());
    assert_eq!(desk.claim(41_000, 9).len(), 1);
}

#[test]
fn a_pause_stops_syncs_and_wakes_nobody() {
    let mut desk = Desk::unlimited(&["ada"]);
    desk.enqueue(0, "ada");
    let reason = "maintenance".to_owned();
    desk.apply(
        1,
        Command::Pause {
            source: None,
            reason,
        },
    );
    assert!(desk.claim(2, 9).is_empty());
    assert_eq!(desk.next(3), None);
    desk.apply(4, Command::Resume { source: None });
    assert_eq!(desk.next(5), Some(at(5)));
    assert_eq!(desk.claim(6, 9).len(), 1);
}

#[test]
fn a_user_out_of_requests_is_put_aside_and_blocks_nobody() {
    let mut desk = Desk::unlimited(&["ada", "ben"]);
    let one = Limit {
        count: 1,
        window_ms: 10_000,
    };
    desk.define(SourceSettings {
        jobs: None,
        requests_user: Some(one),
        ..SourceSettings::default()
    });
    desk.enqueue(0, "ada");
    let lease = desk.claim_one(0);
    desk.complete(1, &lease);
    desk.enqueue(2, "ada");
    desk.enqueue(3, "ben");
    assert_eq!(names(&desk.claim(4, 9)), ["ben"]);
    let opens_at = desk.next(5).unwrap();
    assert!(opens_at >= at(10_000) && opens_at < at(11_000));
    desk.define(SourceSettings {
        jobs: None,
        requests_user: None,
        ..SourceSettings::default()
    });
    assert_eq!(names(&desk.claim(6, 9)), ["ada"]);
}
