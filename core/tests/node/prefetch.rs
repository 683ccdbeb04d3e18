//! Leases ahead of the work: many while jobs are short, none while they are not, and nobody waits behind a slow one.

use kalends_core::id::WorkerId;
use kalends_core::node::Node;
use kalends_core::node::io::{Input, Output};
use kalends_core::node::prefetch::{
    PREFETCH_HOLD_MS_MAX, PREFETCH_MAX, PREFETCH_MS, PREFETCH_PROOF_JOBS,
};
use kalends_core::node::settings::NodeSettings;
use kalends_core::policy::limit::Limit;
use kalends_core::queue::CLAIM_BATCH_MAX;
use kalends_core::queue::command::{Command, Lease, Reply};
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{MINUTE_MS, SECOND_MS};

use crate::hand::{Hand, is_claim};
use crate::world::settings;

const SLOTS: u32 = 3;
/// What one claim can give.
const CLAIM_MAX: u32 = CLAIM_BATCH_MAX as u32;

/// No source has a limit, so leases may be held ahead.
fn unlimited() -> NodeSettings {
    let mut settings = settings("a", 0);
    for source in &mut settings.sources {
        source.settings.requests_project = None;
        source.settings.requests_user = None;
    }
    assert_eq!(settings.concurrency, SLOTS);
    settings
}

/// Answers all until nothing is outstanding; for how many jobs each claim asked.
fn drain(hand: &mut Hand) -> Vec<u32> {
    let mut asked = Vec::new();
    for _ in 0..1_000 {
        asked.extend(hand.claim().map(|(slots, _)| slots));
        if hand.sent.is_empty() {
            return asked;
        }
        hand.answer(|_| true);
    }
    panic!("still outstanding: {:?}", hand.sent);
}

/// A node with leases of jobs that have not begun, whose running jobs hang.
fn with_ready(jobs: usize) -> Hand {
    let mut hand = Hand::new(unlimited(), jobs);
    while hand.claim().is_none_or(|(slots, _)| slots < 40) {
        hand.answer(|_| true);
    }
    hand.works = false;
    hand.answer(|_| true);
    assert_eq!(hand.node.running_jobs(), SLOTS as usize);
    assert!(hand.node.held_jobs() > 40, "{}", hand.node.held_jobs());
    hand
}

/// What another process gets.
fn claim_elsewhere(hand: &mut Hand) -> Vec<Lease> {
    let claim = Command::Claim {
        worker: WorkerId::new("b").unwrap(),
        slots: CLAIM_MAX,
        fan_out_slots: 0,
        lease_ms: 30_000,
        held: Vec::new(),
    };
    let Reply::Claimed { leases, .. } = hand.queue.apply(hand.now, claim) else {
        panic!("not claimed");
    };
    leases
}

#[test]
fn while_jobs_are_short_claims_grow_and_no_more_run_than_there_are_slots() {
    let mut hand = Hand::new(unlimited(), 1_000);
    let asked = drain(&mut hand);
    let proof = PREFETCH_PROOF_JOBS.div_ceil(SLOTS) as usize;
    assert!(
        asked[..proof].iter().all(|slots| *slots == SLOTS),
        "{asked:?}"
    );
    assert!(
        asked.iter().any(|slots| *slots > CLAIM_MAX / 2),
        "{asked:?}"
    );
    assert!(asked.len() < 60, "{} claims", asked.len());
    assert_eq!(hand.running_max, SLOTS as usize);
    assert_eq!((hand.drained(), hand.fetched), (1_000, 1_000));
    // A claim that was not filled ended it.
    hand.wait(5 * SECOND_MS);
    assert_eq!(hand.claim(), Some((SLOTS, 0)));
}

#[test]
fn the_next_claim_is_under_way_while_there_is_still_something_to_do() {
    let mut hand = with_ready(1_000);
    let mut overlaps = 0;
    for _ in 0..200 {
        hand.work_for(0);
        overlaps += u32::from(hand.claim().is_some() && hand.node.running_jobs() > 0);
        if hand.node.running_jobs() == 0 {
            hand.answer(|_| true);
        }
    }
    assert!(overlaps > 50, "{overlaps}");
    assert_eq!(hand.running_max, SLOTS as usize);
}

#[test]
fn while_jobs_are_not_short_nothing_is_held_ahead() {
    let mut hand = Hand::new(unlimited(), 200);
    hand.works = false;
    while hand.fetched < 200 {
        hand.answer(|_| true);
        assert_eq!(hand.node.held_jobs(), hand.node.running_jobs());
        hand.work_for(PREFETCH_MS + 1);
        // A claim waits for others to become free.
        hand.wait(2);
        assert!(hand.claim().is_none_or(|(slots, _)| slots <= SLOTS));
    }
    hand.works = true;
    hand.work_for(0);
    drain(&mut hand);
    assert_eq!((hand.running_max, hand.drained()), (SLOTS as usize, 200));
}

#[test]
fn nothing_is_held_ahead_where_there_is_a_limit() {
    let a_minute = |count| {
        Some(Limit {
            count,
            window_ms: MINUTE_MS,
        })
    };
    let limit: [fn(&mut NodeSettings, Option<Limit>); 3] = [
        |settings, limit| settings.sources[0].settings.jobs = limit,
        |settings, limit| settings.sources[0].settings.requests_project = limit,
        |settings, limit| settings.sources[0].settings.requests_user = limit,
    ];
    for limit in limit {
        let mut settings = unlimited();
        limit(&mut settings, a_minute(100_000));
        let mut hand = Hand::new(settings, 300);
        let asked = drain(&mut hand);
        assert!(asked.iter().all(|slots| *slots <= SLOTS), "{asked:?}");
        assert_eq!(hand.fetched, 300);
    }
}

#[test]
fn jobs_behind_a_slow_one_go_back_unharmed_and_another_process_does_them() {
    let mut hand = with_ready(1_000);
    let ready = hand.node.held_jobs() - hand.node.running_jobs();
    let ends_before = hand.completes();
    assert_eq!(ends_before, 0);
    hand.wait(PREFETCH_HOLD_MS_MAX - 1);
    assert_eq!(hand.releases(), 0);
    hand.wait(1);
    assert_eq!(hand.releases(), ready);
    assert_eq!(hand.node.running_jobs(), SLOTS as usize);
    hand.answer(|_| true);
    assert_eq!(hand.node.held_jobs(), SLOTS as usize);
    let leases = claim_elsewhere(&mut hand);
    assert_eq!(leases.len(), CLAIM_MAX as usize);
    assert!(leases.iter().all(|lease| lease.attempt == 1));
    // Now it asks for as many as it has slots.
    hand.work_for(0);
    hand.answer(|_| true);
    assert!(hand.claim().is_none_or(|(slots, _)| slots <= SLOTS));
    hand.queue.check_invariants();
}

#[test]
fn at_a_shutdown_what_has_not_begun_goes_back_at_once() {
    let mut hand = with_ready(1_000);
    let ready = hand.node.held_jobs() - hand.node.running_jobs();
    let deadline = hand.now.plus_ms(MINUTE_MS);
    hand.node
        .handle_input(hand.now, Input::Shutdown { deadline });
    hand.turn();
    assert_eq!(hand.releases(), ready);
    hand.answer(|_| true);
    assert_eq!(hand.node.held_jobs(), SLOTS as usize);
    hand.work_for(0);
    hand.answer(|_| true);
    assert_eq!(hand.node.poll_output(), Output::Finished);
    assert_eq!(hand.running_max, SLOTS as usize);
}

#[test]
fn a_claim_does_not_bring_again_what_is_ready() {
    let mut hand = with_ready(1_000);
    let held = hand.node.held_jobs();
    while hand.claim().is_none() {
        hand.work_for(0);
    }
    let (slots, named) = hand.claim().unwrap();
    hand.answer(is_claim);
    assert_eq!(
        named, held,
        "all that is here is named: ready, running, ending"
    );
    assert_eq!(hand.node.held_jobs(), held + slots as usize);
}

#[test]
fn a_process_that_was_stopped_begins_none_of_what_others_have_by_now() {
    let mut hand = with_ready(1_000);
    let fetched = hand.fetched;
    hand.now = hand.now.plus_ms(40 * SECOND_MS);
    let taken = claim_elsewhere(&mut hand);
    assert!(!taken.is_empty());
    hand.wait(0);
    hand.answer(|_| true);
    assert_eq!(hand.fetched, fetched);
    assert!(hand.node.held_jobs() <= SLOTS as usize);
    hand.queue.check_invariants();
}

#[test]
fn while_the_store_is_away_nothing_more_begins_after_the_bound() {
    let mut hand = with_ready(1_000);
    while hand.claim().is_none() {
        hand.work_for(0);
    }
    hand.fail_all();
    assert!(hand.node.store_is_away());
    hand.wait(PREFETCH_HOLD_MS_MAX);
    let fetched = hand.fetched;
    hand.work_for(0);
    assert_eq!(hand.fetched, fetched, "what had begun ends, no more");
    hand.works = true;
    for _ in 0..10 {
        hand.wait(4 * SECOND_MS);
        hand.answer(|_| true);
    }
    drain(&mut hand);
    assert_eq!(hand.drained(), 1_000);
}

#[test]
fn a_copy_with_leases_ahead_goes_on_as_the_original_does() {
    let mut hand = with_ready(400);
    assert!(hand.node.is_drained());
    let text = serde_json::to_string(&hand.node).unwrap();
    hand.node = serde_json::from_str::<Node>(&text).unwrap();
    hand.works = true;
    hand.work_for(0);
    drain(&mut hand);
    assert_eq!((hand.running_max, hand.drained()), (SLOTS as usize, 400));
}

/// One thing that happens to a node and its store, chosen by chance.
fn something_happens(hand: &mut Hand, rng: &mut KalendsRng) {
    match uniform(rng, 11) {
        0..=4 => hand.work_for(uniform(rng, 3)),
        5 => hand.work_for(uniform(rng, 300)),
        6..=7 => hand.answer(|_| true),
        8 => hand.answer(is_claim),
        9 => hand.answer(|command| !is_claim(command)),
        10 => hand.wait(uniform(rng, 120)),
        _ => {
            hand.fail_all();
            hand.wait(SECOND_MS);
        }
    }
}

#[test]
fn whatever_happens_each_job_is_done_once_and_no_more_run_than_there_are_slots() {
    let mut ready_max = 0;
    for seed in 0..30 {
        let mut rng = substream(seed, "prefetch");
        let mut hand = Hand::new(unlimited(), 600);
        let shorts = uniform(&mut rng, 60);
        for _ in 0..shorts {
            hand.answer(|_| true);
        }
        hand.works = false;
        for _ in 0..200 {
            something_happens(&mut hand, &mut rng);
            ready_max = ready_max.max(hand.node.ready_jobs());
        }
        hand.queue.check_invariants();
        hand.works = true;
        for _ in 0..40 {
            hand.work_for(0);
            hand.wait(5 * SECOND_MS);
            hand.answer(|_| true);
        }
        drain(&mut hand);
        assert_eq!(hand.running_max, SLOTS as usize, "seed {seed}");
        assert_eq!((hand.drained(), hand.fetched), (600, 600), "seed {seed}");
    }
    assert!(ready_max > CLAIM_MAX as usize / 2, "{ready_max}");
    assert!(ready_max <= PREFETCH_MAX as usize, "{ready_max}");
}
