//! The end of a sync, where channels are made, renewed and stopped: the machine against scripted answers.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use kalends_core::failure::{Failure, FailureKind, LimitScope};
use kalends_core::google::page::{CalendarEntry, CalendarsPage, EventsPage, FetchReply, PageEnd};
use kalends_core::google::push::Watched;
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphCounts, GraphReply};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::push::{PushSettings, REQUESTS_A_SYNC_MAX};
use kalends_core::queue::command::LeaseToken;
use kalends_core::sync::cursor::SyncCursor;
use kalends_core::sync::{Answer, CalendarSelection, End, Step, SyncMachine, SyncSettings};
use kalends_core::time::{HOUR_MS, MINUTE_MS, Timestamp};

const NOW: Timestamp = Timestamp::from_ms(1_793_600_000_000);

/// A Google and a graph that are always well, but for channels, which answer as told.
struct World {
    settings: SyncSettings,
    /// The calendars that the user's list holds.
    calendars: Vec<&'static str>,
    /// How watches are answered; `Ok`: the life that is granted, in milliseconds.
    watch: Result<u64, FailureKind>,
    stop: Result<(), FailureKind>,
    /// When leave for a channel is given: at once, or then.
    leave_at: Option<Timestamp>,
    watched: Vec<(String, String)>,
    stopped: Vec<String>,
    fence: u64,
}

impl World {
    fn new(calendars: &[&'static str]) -> Self {
        let push = PushSettings::default();
        World {
            settings: SyncSettings {
                calendars: CalendarSelection::AllReadable,
                push: Some(push),
                ..SyncSettings::default()
            },
            calendars: calendars.to_vec(),
            watch: Ok(push.life_ms),
            stop: Ok(()),
            leave_at: None,
            watched: Vec::new(),
            stopped: Vec::new(),
            fence: 0,
        }
    }

    /// One sync at `now` from `cursor`; the new cursor, and when the user is due if the schedule says in a quarter of an hour.
    fn sync(&mut self, now: Timestamp, cursor: Option<&str>) -> (String, Timestamp) {
        self.fence += 1;
        let user = UserId::new("ada@example.com").unwrap();
        let fence = LeaseToken(u64::try_from(now.as_ms()).unwrap() * 1_000 + self.fence);
        let mut machine = SyncMachine::new(user, fence, self.settings.clone(), cursor, 1);
        let mut step = machine.begin(now);
        let mut is_channel_next = false;
        for _ in 0..10_000 {
            let answer = match step {
                Step::End(End::Done { cursor, .. }) => {
                    let due_at = machine.due_after(Some(now.plus_ms(15 * MINUTE_MS)), now);
                    assert_eq!(
                        machine.due_after(None, now),
                        None,
                        "what is not due stays so"
                    );
                    return (cursor, due_at.unwrap());
                }
                Step::End(other) => panic!("a channel made a sync end with {other:?}"),
                Step::Write(_) => Answer::Written(Ok(GraphReply::Written(GraphCounts::default()))),
                Step::Checkpoint { progress, .. } => {
                    // What was made is saved before the next request, as a crash may follow.
                    let saved = SyncCursor::read(Some(&progress));
                    for (id, _) in &self.watched {
                        assert!(saved.has_channel(id) || self.stopped.contains(id), "{id}");
                    }
                    is_channel_next = saved.calendars.values().all(|one| one.pass.is_none())
                        && !saved.calendars.is_empty()
                        && saved.calendars.values().all(|one| one.sync_token.is_some());
                    let wait_until = self.leave_at.filter(|_| is_channel_next);
                    Answer::Saved { wait_until }
                }
                Step::Fetch(request) => Answer::Fetched(self.fetch(now, request)),
            };
            step = machine.resume(now, answer);
        }
        panic!("it does not end; a channel was next: {is_channel_next}");
    }

    fn fetch(&mut self, now: Timestamp, request: FetchRequest) -> Result<FetchReply, Failure> {
        let refuse = |kind: &FailureKind| Failure::new(kind.clone(), "scripted");
        match request {
            FetchRequest::Calendars { .. } => {
                let entry = |id: &&str| CalendarEntry {
                    id: CalendarId::new(id).unwrap(),
                    summary: None,
                    time_zone: None,
                    access_role: Some("owner".to_owned()),
                    primary: false,
                    deleted: false,
                };
                Ok(FetchReply::Calendars(CalendarsPage {
                    calendars: self.calendars.iter().map(entry).collect(),
                    next_page_token: None,
                }))
            }
            FetchRequest::Events { .. } => Ok(FetchReply::Events(EventsPage {
                summary: None,
                time_zone: None,
                access_role: None,
                events: Vec::new(),
                unreadable: Vec::new(),
                end: PageEnd::Done {
                    sync_token: Some("t".to_owned()),
                },
            })),
            FetchRequest::Watch {
                calendar, channel, ..
            } => {
                let granted = self.watch.as_ref().map_err(refuse)?;
                assert!(
                    !self.watched.iter().any(|(known, _)| *known == channel),
                    "twice"
                );
                self.watched.push((channel, calendar.to_string()));
                Ok(FetchReply::Watched(Watched {
                    resource: format!("resource of {calendar}"),
                    expires_at: now.plus_ms(*granted),
                }))
            }
            FetchRequest::StopChannel {
                channel, resource, ..
            } => {
                self.stop.as_ref().map_err(refuse)?;
                let (_, calendar) = self
                    .watched
                    .iter()
                    .find(|(known, _)| *known == channel)
                    .unwrap();
                assert_eq!(resource, format!("resource of {calendar}"));
                self.stopped.push(channel);
                Ok(FetchReply::Stopped)
            }
        }
    }
}

fn channels(cursor: &str) -> usize {
    let cursor = SyncCursor::read(Some(cursor));
    cursor
        .calendars
        .values()
        .map(|one| one.watch.channels.len())
        .sum()
}

#[test]
fn every_calendar_is_watched_and_the_user_polled_slowly() {
    let mut world = World::new(&["a", "b", "c"]);
    let (cursor, due_at) = world.sync(NOW, None);
    assert_eq!(world.watched.len(), 3);
    assert_eq!(due_at, NOW.plus_ms(6 * HOUR_MS));
    // The polls behind it ask for no channel, until the time to renew comes.
    let (again, _) = world.sync(due_at, Some(&cursor));
    assert_eq!(world.watched.len(), 3);
    assert_eq!(channels(&again), 3);
    // One calendar more, and until it is watched the pace would be the usual one.
    world.calendars.push("d");
    world.watch = Err(FailureKind::Transient {
        retry_after_ms: None,
    });
    let (_, due_at) = world.sync(due_at, Some(&again));
    assert_eq!(due_at, NOW.plus_ms(6 * HOUR_MS + 15 * MINUTE_MS));
}

/// A month of polls: there is never a moment without a channel, and never more than two of them.
#[test]
fn channels_are_renewed_with_overlap_for_as_long_as_it_runs() {
    let mut world = World::new(&["a"]);
    let (mut cursor, mut now) = world.sync(NOW, None);
    let end = NOW.plus_ms(31 * 24 * HOUR_MS);
    while now < end {
        let state = SyncCursor::read(Some(&cursor));
        let watch = &state.calendars.values().next().unwrap().watch;
        assert!(
            watch.channels.last().unwrap().expires_at > now,
            "unwatched at {now}"
        );
        assert_eq!(
            watch.channels.len(),
            1,
            "the replaced one is stopped in the same sync"
        );
        (cursor, now) = world.sync(now, Some(&cursor));
    }
    assert!(
        (5..=7).contains(&world.watched.len()),
        "{:?}",
        world.watched
    );
    assert_eq!(world.stopped.len(), world.watched.len() - 1);
}

#[test]
fn what_google_refuses_costs_no_sync_and_leaves_the_usual_pace() {
    for kind in [
        FailureKind::Permanent,
        FailureKind::Unauthorized,
        FailureKind::Misconfigured,
        FailureKind::CalendarUnavailable,
        FailureKind::Transient {
            retry_after_ms: None,
        },
        FailureKind::Limited {
            scope: LimitScope::Source,
            retry_after_ms: Some(1),
        },
    ] {
        let mut world = World::new(&["a"]);
        world.watch = Err(kind.clone());
        let (cursor, due_at) = world.sync(NOW, None);
        assert_eq!(due_at, NOW.plus_ms(15 * MINUTE_MS), "{kind:?}");
        // It is not asked for at every sync.
        world.watch = Ok(PushSettings::default().life_ms);
        let (cursor, _) = world.sync(due_at, Some(&cursor));
        assert!(world.watched.is_empty(), "{kind:?}");
        let (_, later) = world.sync(NOW.plus_ms(8 * 24 * HOUR_MS), Some(&cursor));
        assert_eq!(world.watched.len(), 1, "{kind:?}");
        assert!(later > NOW.plus_ms(8 * 24 * HOUR_MS + HOUR_MS));
    }
}

#[test]
fn a_channel_is_not_waited_for() {
    let mut world = World::new(&["a"]);
    world.leave_at = Some(NOW.plus_ms(HOUR_MS));
    let (cursor, due_at) = world.sync(NOW, None);
    assert_eq!(
        (channels(&cursor), due_at),
        (0, NOW.plus_ms(15 * MINUTE_MS))
    );
    world.leave_at = None;
    let (cursor, _) = world.sync(due_at, Some(&cursor));
    assert_eq!(channels(&cursor), 1);
}

#[test]
fn channels_of_what_is_not_kept_any_more_are_stopped() {
    // A calendar that left the list.
    let mut world = World::new(&["a", "b"]);
    let (cursor, due_at) = world.sync(NOW, None);
    world.calendars.pop();
    world.stop = Err(FailureKind::Transient {
        retry_after_ms: None,
    });
    let (cursor, due_at) = world.sync(due_at, Some(&cursor));
    assert!(world.stopped.is_empty());
    assert_eq!(
        SyncCursor::read(Some(&cursor)).left_over.len(),
        1,
        "tried again"
    );
    world.stop = Ok(());
    let (cursor, due_at) = world.sync(due_at, Some(&cursor));
    assert_eq!(world.stopped.len(), 1);
    assert!(SyncCursor::read(Some(&cursor)).left_over.is_empty());
    // Push is switched off.
    world.settings.push = None;
    let (cursor, next) = world.sync(due_at, Some(&cursor));
    assert_eq!((world.stopped.len(), channels(&cursor)), (2, 0));
    assert_eq!(next, due_at.plus_ms(15 * MINUTE_MS));
    // A stop that will never succeed is not tried for ever.
    let mut world = World::new(&["a"]);
    let (cursor, due_at) = world.sync(NOW, None);
    world.settings.push = None;
    world.stop = Err(FailureKind::Permanent);
    let (cursor, _) = world.sync(due_at, Some(&cursor));
    assert_eq!(channels(&cursor), 0);
}

#[test]
fn many_calendars_are_watched_a_few_at_a_time() {
    let names: Vec<String> = (0..25)
        .map(|number| format!("calendar-{number:02}"))
        .collect();
    let names: Vec<&'static str> = names.into_iter().map(|name| &*name.leak()).collect();
    let mut world = World::new(&names);
    let (mut cursor, mut now) = world.sync(NOW, None);
    let a_sync = usize::try_from(REQUESTS_A_SYNC_MAX).unwrap();
    assert_eq!(world.watched.len(), a_sync);
    assert_eq!(now, NOW.plus_ms(15 * MINUTE_MS), "not all are watched yet");
    for watched in [2 * a_sync, 25] {
        let begun = now;
        (cursor, now) = world.sync(begun, Some(&cursor));
        assert_eq!(world.watched.len(), watched);
        let is_slow = now > begun.plus_ms(HOUR_MS);
        assert_eq!(is_slow, watched == 25);
    }
}
