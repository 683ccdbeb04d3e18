//! Slots and the store that is a network away: a job's end and the claim for the next jobs travel together, what is
//! held stays bounded, and nothing is done twice whatever is lost on the way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use kalends_core::node::HELD_PER_SLOT;
use kalends_core::node::io::{Input, Op, Output};
use kalends_core::time::{MINUTE_MS, SECOND_MS};

use crate::hand::{Hand, is_claim, is_complete};
use crate::world::{MIDNIGHT, World, quiet, settings, user};

#[test]
fn the_next_claim_goes_out_with_the_ends_and_names_them_as_held() {
    let mut hand = Hand::new(settings("a", 0), 9);
    assert_eq!(hand.claim(), Some((3, 0)));
    hand.answer(is_claim);
    // Three jobs ran, none of their ends is acknowledged, and three more are asked for.
    assert_eq!(hand.completes(), 3);
    assert_eq!(hand.claim(), Some((3, 3)));
    assert_eq!((hand.node.running_jobs(), hand.node.held_jobs()), (0, 3));
    hand.answer(|_| true);
    hand.answer(|_| true);
    hand.answer(|_| true);
    assert_eq!(hand.node.held_jobs(), 0);
    assert_eq!(
        hand.drained(),
        9,
        "nine jobs in three round trips and one to end"
    );
}

#[test]
fn a_store_that_gives_jobs_but_acknowledges_no_end_is_asked_for_no_more_than_the_bound() {
    let mut hand = Hand::new(settings("a", 0), 20);
    for _ in 0..10 {
        hand.answer(is_claim);
        hand.wait(100);
    }
    let bound = (3 * HELD_PER_SLOT) as usize;
    assert_eq!((hand.node.held_jobs(), hand.completes()), (bound, bound));
    assert!(hand.claim().is_none_or(|(slots, _)| slots == 0));
    // Each acknowledged end makes room again.
    hand.answer(|_| true);
    assert_eq!(hand.claim(), Some((3, 0)));
}

#[test]
fn a_job_whose_end_is_not_acknowledged_is_not_given_again_and_keeps_its_lease() {
    let mut hand = Hand::new(settings("a", 0), 3);
    hand.answer(is_claim);
    let tokens = hand.completes();
    assert_eq!(tokens, 3);
    for _ in 0..4 {
        // Claims and heartbeats pass, the ends are slow: no job comes twice, no lease expires.
        hand.wait(9 * SECOND_MS);
        hand.answer(|command| !is_complete(command));
        assert_eq!((hand.node.running_jobs(), hand.node.held_jobs()), (0, 3));
    }
    assert!(
        hand.cancelled > 0,
        "36 s are longer than a command may take, and than a lease lasts"
    );
    hand.answer(|_| true);
    hand.wait(5 * SECOND_MS);
    hand.answer(|_| true);
    assert_eq!(hand.node.held_jobs(), 0);
    assert_eq!(hand.drained(), 3);
}

#[test]
fn a_store_that_goes_away_while_jobs_end_hears_the_same_ends_when_it_is_back() {
    let mut hand = Hand::new(settings("a", 0), 6);
    hand.answer(is_claim);
    let ends = hand.ends();
    assert_eq!(ends.len(), 3);
    hand.fail_all();
    assert!(hand.node.store_is_away());
    assert_eq!(
        hand.sent.len(),
        0,
        "nothing is sent to a store that is away"
    );
    for _ in 0..5 {
        hand.wait(4 * SECOND_MS);
        assert_eq!(hand.ends(), ends);
        assert_eq!(hand.node.held_jobs(), 3);
        hand.fail_all();
        assert_eq!(hand.sent.len(), 0);
    }
    for _ in 0..4 {
        hand.wait(4 * SECOND_MS);
        hand.answer(|_| true);
    }
    assert_eq!(hand.node.held_jobs(), 0);
    assert_eq!((hand.drained(), hand.fetched), (6, 6));
}

#[test]
fn a_shutdown_waits_for_the_ends_to_be_acknowledged() {
    let mut hand = Hand::new(settings("a", 0), 6);
    hand.answer(is_claim);
    let deadline = hand.now.plus_ms(MINUTE_MS);
    hand.node
        .handle_input(hand.now, Input::Shutdown { deadline });
    hand.turn();
    assert_ne!(hand.node.poll_output(), Output::Finished);
    // The claim was under way: what it brings is handed back at once.
    hand.answer(is_claim);
    hand.answer(|command| !is_complete(command));
    assert_eq!((hand.node.held_jobs(), hand.completes()), (3, 3));
    assert_ne!(hand.node.poll_output(), Output::Finished);
    hand.answer(|_| true);
    assert_eq!(hand.node.poll_output(), Output::Finished);
}

#[test]
fn a_slot_that_is_free_beside_a_long_job_does_not_wait_for_it() {
    let mut world = World::new();
    world.script(|_, _, op| match op {
        Op::Fetch(request) if *request.user() == user(0) => None,
        op => Some(quiet(op)),
    });
    world.start(settings("a", 30), 0);
    world.run_for(50 * SECOND_MS);
    assert_eq!(world.done_jobs().len(), 29);
}

#[test]
fn every_fifth_end_loses_its_reply_and_every_job_is_done_once() {
    let mut world = World::new();
    let lost = Rc::new(Cell::new(0_u32));
    let counted = Rc::clone(&lost);
    let mut ends = 0_u32;
    world.lose_reply = Box::new(move |command| {
        ends += u32::from(is_complete(command));
        let lose = is_complete(command) && ends.is_multiple_of(5);
        counted.set(counted.get() + u32::from(lose));
        lose
    });
    let fetched = Rc::new(RefCell::new(BTreeMap::new()));
    let log = Rc::clone(&fetched);
    world.script(move |_, _, op| {
        if let Op::Fetch(request) = op {
            *log.borrow_mut().entry(request.user().clone()).or_insert(0) += 1;
        }
        Some(quiet(op))
    });
    let mut settings = settings("a", 60);
    settings.deadlines.store_ms = 1_000;
    world.start(settings, 0);
    world.run_until(MIDNIGHT.plus_ms(14 * MINUTE_MS));
    assert!(lost.get() > 5);
    assert_eq!(fetched.borrow().len(), 60);
    assert!(fetched.borrow().values().all(|times| *times == 1));
    assert_eq!(world.done_jobs().len(), 60);
}
