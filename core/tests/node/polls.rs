//! The poll behind the wake-ups: it slows down while it finds nothing, and hastens as soon as it does.

use kalends_core::id::SourceName;
use kalends_core::node::io::Input;
use kalends_core::node::settings::NodeSettings;
use kalends_core::queue::command::{Command, NewJob, Priority};
use kalends_core::time::SECOND_MS;

use crate::hand::{Hand, is_claim};
use crate::world::{settings, user};

/// No schedule, so that nothing but the poll gives a reason to claim.
fn polling() -> NodeSettings {
    let mut settings = settings("a", 0);
    settings.schedules.clear();
    settings.poll_ms = 5 * SECOND_MS;
    settings.poll_max_ms = 20 * SECOND_MS;
    settings
}

/// After how many milliseconds the next claim goes out; it is answered.
fn next_claim_ms(hand: &mut Hand) -> u64 {
    let begun = hand.now;
    while hand.claim().is_none() {
        hand.wait(100);
        assert!(hand.now.since_ms(begun) < 60 * SECOND_MS, "no poll at all");
        hand.answer(|command| !is_claim(command));
    }
    hand.answer(|_| true);
    hand.answer(|_| true);
    hand.now.since_ms(begun)
}

/// A job of which nobody is told.
fn enqueue_unheard(hand: &mut Hand) {
    let source = SourceName::google_calendar();
    let users = vec![user(0)];
    let enroll = Command::Enroll {
        source: source.clone(),
        users,
        due_at: hand.now,
    };
    hand.queue.apply(hand.now, enroll);
    let job = NewJob {
        user: user(0),
        run_at: hand.now,
        nominal_at: None,
        priority: Priority::Scheduled,
    };
    let enqueue = Command::Enqueue {
        source,
        jobs: vec![job],
        checkpoint: None,
    };
    hand.queue.apply(hand.now, enqueue);
}

#[test]
fn a_poll_that_finds_nothing_slows_down_and_one_that_finds_something_hastens() {
    let mut hand = Hand::new(polling(), 0);
    hand.answer(|_| true);
    let intervals: Vec<u64> = (0..4)
        .map(|_| next_claim_ms(&mut hand) / SECOND_MS)
        .collect();
    assert_eq!(intervals, [5, 10, 20, 20]);
    enqueue_unheard(&mut hand);
    assert_eq!(
        next_claim_ms(&mut hand) / SECOND_MS,
        20,
        "the slow poll finds it"
    );
    assert_eq!(hand.fetched, 1);
    let intervals: Vec<u64> = (0..4)
        .map(|_| next_claim_ms(&mut hand) / SECOND_MS)
        .collect();
    assert_eq!(intervals, [5, 10, 20, 20]);
}

#[test]
fn what_is_announced_does_not_hasten_the_poll() {
    let mut hand = Hand::new(polling(), 0);
    hand.answer(|_| true);
    for _ in 0..3 {
        next_claim_ms(&mut hand);
    }
    enqueue_unheard(&mut hand);
    hand.node.handle_input(hand.now, Input::Wake);
    hand.turn();
    assert_eq!(next_claim_ms(&mut hand), 0);
    assert_eq!(hand.fetched, 1);
    let longest = (0..2).map(|_| next_claim_ms(&mut hand) / SECOND_MS).max();
    assert_eq!(longest, Some(20));
}

#[test]
fn after_an_outage_the_poll_is_as_frequent_as_at_first() {
    let mut hand = Hand::new(polling(), 0);
    hand.answer(|_| true);
    for _ in 0..3 {
        next_claim_ms(&mut hand);
    }
    while hand.claim().is_none() {
        hand.wait(100);
    }
    hand.fail_all();
    let retried = next_claim_ms(&mut hand);
    assert!(retried < SECOND_MS, "the store is asked again at once");
    assert_eq!(next_claim_ms(&mut hand) / SECOND_MS, 5);
}

#[test]
fn without_a_longer_interval_it_stays_as_it_is() {
    let mut settings = polling();
    settings.poll_max_ms = 0;
    let mut hand = Hand::new(settings, 0);
    hand.answer(|_| true);
    let intervals: Vec<u64> = (0..3)
        .map(|_| next_claim_ms(&mut hand) / SECOND_MS)
        .collect();
    assert_eq!(intervals, [5, 5, 5]);
}
