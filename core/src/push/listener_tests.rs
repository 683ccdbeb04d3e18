//! The webhook's machine against a scripted store.

use super::*;
use crate::push::channel_id;
use crate::push::hearing::LOOK_MS;
use crate::queue::command::LeaseToken;
use crate::queue::command::{ParkReason, Refusal};
use crate::time::HOUR_MS;

const BEGIN: Timestamp = Timestamp::from_ms(1_793_600_000_000);
/// The store's clock is ahead by so much, in milliseconds.
const STORE_AHEAD_MS: u64 = 3 * HOUR_MS;

fn at(ms: u64) -> Timestamp {
    BEGIN.plus_ms(ms)
}

fn heard(user: &str, channel: &str) -> Heard {
    Heard {
        user: UserId::new(user).unwrap(),
        channel: channel.to_owned(),
        resource: Some("r".to_owned()),
    }
}

fn state() -> UserState {
    UserState {
        enrolled_at: BEGIN,
        due_at: BEGIN,
        parked: None,
        grant: None,
        cursor: None,
        last_started_at: None,
        last_success_at: None,
        last_outcome: None,
        last_error: None,
        gate_until: None,
        limited_in_a_row: 0,
    }
}

struct World {
    listener: Listener,
    user: Option<UserState>,
    asked: u64,
    stopped: Vec<String>,
}

impl World {
    fn new() -> Self {
        World {
            listener: Listener::new(SourceName::google_calendar()),
            user: Some(state()),
            asked: 0,
            stopped: Vec::new(),
        }
    }

    /// Does all that is wished at `ms`.
    fn work(&mut self, ms: u64) {
        while let Some(wish) = self.listener.poll(at(ms)) {
            match wish {
                Wish::Stop(FetchRequest::StopChannel { channel, .. }) => {
                    self.stopped.push(channel);
                    self.listener.stopped();
                }
                Wish::Stop(other) => panic!("{other:?}"),
                Wish::Ask { number, command } => {
                    let value = self.apply(ms, *command);
                    let now = at(ms + STORE_AHEAD_MS);
                    self.listener
                        .answered(at(ms), number, Ok(Stamped { now, value }));
                }
            }
        }
    }

    fn apply(&mut self, ms: u64, command: Command) -> Reply {
        match command {
            Command::User { .. } => Reply::User {
                state: self.user.clone(),
            },
            Command::Enqueue { jobs, .. } => {
                let run_at = at(ms + STORE_AHEAD_MS + DEBOUNCE_MS);
                assert_eq!(jobs[0].run_at, run_at, "by the store's clock");
                self.asked += 1;
                Reply::Enqueued {
                    added: 1,
                    coalesced: 0,
                    refused: 0,
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A sync of the user began at `ms`.
    fn began(&mut self, ms: u64) {
        let state = self.user.as_mut().unwrap();
        state.last_started_at = Some(at(ms + STORE_AHEAD_MS));
    }

    fn hear(&mut self, ms: u64, channel: &str) {
        let verdict = self.listener.hear(heard("ada", channel), false);
        assert_eq!(verdict, Verdict::Accepted);
        self.work(ms);
    }
}

#[test]
fn a_head_is_read_and_judged_by_its_token_alone() {
    let all = [
        ("x-goog-channel-id", "c"),
        ("x-goog-channel-token", "t"),
        ("x-goog-resource-id", "r"),
        ("x-goog-resource-state", "exists"),
    ];
    let read = |heads: &[(&'static str, &'static str)]| {
        let heads = heads.to_vec();
        Notification::read(move |name| {
            let found = heads.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| *value)
        })
    };
    let known = |channel: &str, token: &str| {
        let is_good = (channel, token) == ("c", "t");
        is_good.then(|| UserId::new("ada").unwrap())
    };
    assert_eq!(read(&all).unwrap().judge(known), Ok(heard("ada", "c")));
    assert_eq!(read(&all[1..]), None);
    assert_eq!(read(&[all[0], all[2], all[3]]), None);
    let other = [all[0], ("x-goog-channel-token", "u"), all[2], all[3]];
    let forged = read(&other).unwrap().judge(known).unwrap_err();
    assert_eq!(
        (forged, forged.status(), forged.name()),
        (Verdict::Forged, 404, "forged")
    );
    let made = [all[0], all[1], all[2], ("x-goog-resource-state", "sync")];
    let made = read(&made).unwrap().judge(known).unwrap_err();
    assert_eq!((made, made.status()), (Verdict::Channel, 204));
    // A resource id that is too long is of no use; the change is a change all the same.
    let long: &'static str = "r".repeat(RESOURCE_BYTES_MAX + 1).leak();
    let odd = [all[0], all[1], ("x-goog-resource-id", long)];
    assert_eq!(read(&odd).unwrap().judge(known).unwrap().resource, None);
}

#[test]
fn many_notifications_of_one_change_ask_for_one_sync() {
    let mut world = World::new();
    for number in 0..50 {
        world.hear(number * 30, "c");
    }
    assert_eq!(world.asked, 1);
    world.began(DEBOUNCE_MS + 10);
    world.work(LOOK_MS);
    assert_eq!(world.asked, 1);
    assert!(world.listener.is_idle());
    world.hear(LOOK_MS + 1, "c");
    assert_eq!(world.asked, 2);
}

/// As the simulator shows (scenario `what-comes-after-a-sync-that-began-early-is-not-lost`): the sync coalesced with one that somebody wanted at once, began early, and what came after that was
/// taken for covered until the next poll.
#[test]
fn what_comes_after_a_sync_that_began_early_is_asked_for() {
    for (begun_ms, asked) in [(None, 2), (Some(100), 2), (Some(1_500), 1)] {
        let mut world = World::new();
        world.hear(0, "c");
        world.hear(1_000, "c");
        assert_eq!(world.asked, 1);
        assert!(!world.listener.is_idle());
        assert_eq!(world.listener.wake_at(), Some(at(LOOK_MS)));
        if let Some(ms) = begun_ms {
            world.began(ms);
        }
        world.work(LOOK_MS);
        assert_eq!(world.asked, asked, "{begun_ms:?}");
        assert_eq!(world.listener.wake_at(), None);
    }
}

#[test]
fn what_cannot_be_asked_is_asked_by_the_next() {
    let mut world = World::new();
    world.listener.hear(heard("ada", "c"), false);
    let Some(Wish::Ask { number, .. }) = world.listener.poll(at(0)) else {
        panic!("the user is asked for")
    };
    world.listener.hear(heard("bob", "d"), false);
    assert_eq!(world.listener.poll(at(1)), None, "one question at a time");
    assert_eq!(world.listener.wake_at(), Some(at(ANSWER_MS_MAX)));
    // It never comes; or too late, when the next one is under way.
    world.work(ANSWER_MS_MAX);
    let detail = "gone".to_owned();
    let away = Err(StoreUnavailable { detail });
    world
        .listener
        .answered(at(ANSWER_MS_MAX), number, away.clone());
    assert_eq!(world.asked, 1, "bob");
    world.hear(ANSWER_MS_MAX, "c");
    assert_eq!(world.asked, 2, "ada, by the next one");
    // A store that is away, or refuses.
    let refused = Reply::Refused {
        refusal: Refusal::UnknownSource {
            source: SourceName::google_calendar(),
        },
    };
    let refused = Ok(Stamped {
        now: BEGIN,
        value: refused,
    });
    for answer in [away, refused] {
        let mut world = World::new();
        world.listener.hear(heard("ada", "c"), false);
        let Some(Wish::Ask { number, .. }) = world.listener.poll(at(0)) else {
            panic!("the user is asked for")
        };
        world.listener.answered(at(0), number, answer);
        world.hear(1, "c");
        assert_eq!(world.asked, 1);
    }
}

#[test]
fn a_parked_user_and_an_unknown_one_are_not_asked_for() {
    for parked in [true, false] {
        let mut world = World::new();
        world.user = parked.then(|| UserState {
            parked: Some(ParkReason::NeedsReauth),
            ..state()
        });
        world.hear(0, "c");
        world.hear(1, "c");
        world.work(LOOK_MS);
        assert_eq!(world.asked, 0);
        assert!(world.listener.is_idle());
    }
}

#[test]
fn an_orphan_is_stopped_and_what_it_told_is_true_all_the_same() {
    let made_us = u64::try_from(BEGIN.as_ms()).unwrap() * 1_000;
    let orphan = channel_id(LeaseToken(made_us), 0);
    let mut world = World::new();
    world.hear(0, &orphan);
    assert_eq!((world.asked, world.stopped.len()), (1, 1));
    world.user = None;
    world.hear(HOUR_MS, &orphan);
    assert_eq!((world.asked, world.stopped.len()), (1, 2), "of nobody");
    // No more than so many at a time.
    let mut world = World::new();
    for number in 0..=STOPS_MAX {
        let orphan = channel_id(LeaseToken(made_us), u32::try_from(number).unwrap());
        let one = heard(&format!("user-{number}"), &orphan);
        assert_eq!(world.listener.hear(one, false), Verdict::Accepted);
    }
    let mut under_way = 0;
    while let Some(wish) = world.listener.poll(at(0)) {
        match wish {
            Wish::Stop(_) => under_way += 1,
            Wish::Ask { number, command } => {
                let value = world.apply(0, *command);
                let now = at(STORE_AHEAD_MS);
                world
                    .listener
                    .answered(at(0), number, Ok(Stamped { now, value }));
            }
        }
    }
    assert_eq!(under_way, STOPS_MAX);
    // The one that was left is stopped when it is heard of again, and the others are not.
    (0..under_way).for_each(|_| world.listener.stopped());
    for number in 0..=STOPS_MAX {
        let orphan = channel_id(LeaseToken(made_us), u32::try_from(number).unwrap());
        let one = heard(&format!("user-{number}"), &orphan);
        assert_eq!(world.listener.hear(one, false), Verdict::Accepted);
    }
    world.work(2 * LOOK_MS);
    let left = channel_id(LeaseToken(made_us), u32::try_from(STOPS_MAX).unwrap());
    assert_eq!(world.stopped, [left]);
}

#[test]
fn a_full_line_and_a_closed_one_are_told_to_come_again() {
    let mut listener = Listener::new(SourceName::google_calendar());
    assert_eq!(listener.hear(heard("ada", "c"), true), Verdict::ComeAgain);
    assert!(listener.is_idle());
    for _ in 0..WAITING_MAX {
        assert_eq!(listener.hear(heard("ada", "c"), false), Verdict::Accepted);
    }
    let verdict = listener.hear(heard("ada", "c"), false);
    assert_eq!((verdict, verdict.status()), (Verdict::ComeAgain, 503));
}

#[test]
fn who_is_about_to_end_asks_for_all_that_was_accepted_and_takes_no_more() {
    let mut world = World::new();
    world.hear(0, "c");
    world.hear(1_000, "c");
    world.listener.close();
    assert!(!world.listener.is_idle());
    let late = world.listener.hear(heard("bob", "d"), false);
    assert_eq!(late, Verdict::ComeAgain);
    world.work(1_100);
    assert_eq!(world.asked, 2);
    assert!(world.listener.is_idle());
}

#[test]
fn what_stands_in_the_line_when_it_is_closed_waits_for_no_look() {
    let mut world = World::new();
    world.hear(0, "c");
    let verdict = world.listener.hear(heard("ada", "c"), false);
    assert_eq!(verdict, Verdict::Accepted);
    world.listener.close();
    world.work(1_000);
    assert_eq!(world.asked, 2);
    assert!(world.listener.is_idle());
}
