//! A week of one user under push, in each weather, on the clock of a simulation: how stale the user ever is, what it costs, and
//! that polling behind it finds what Google loses.

use kalends_core::google::push::CHANNEL_BYTES_MAX;
use kalends_core::graph::{GraphCounts, GraphReply};
use kalends_core::id::UserId;
use kalends_core::push::PushSettings;
use kalends_core::push::hearing::{DEBOUNCE_MS, Hearing};
use kalends_core::push::listener::{Notification, Verdict};
use kalends_core::queue::command::LeaseToken;
use kalends_core::rng::{substream, uniform};
use kalends_core::sync::{Answer, End, Step, SyncMachine, SyncSettings};
use kalends_core::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};
use kalends_sim::google::{
    GoogleClient, GoogleEmulator, GoogleSettings, PushWeather, user_of_channel,
};

const BEGIN: Timestamp = Timestamp::from_ms(1_793_600_000_000);
/// What the schedule says, without channels.
const PERIOD_MS: u64 = 15 * MINUTE_MS;
/// Longer than the life of a channel, so that one is renewed.
const LASTS_MS: u64 = 8 * DAY_MS;

/// How the week went.
struct Week {
    changes: usize,
    syncs: usize,
    /// The longest time from a change to the sync that found it, in milliseconds.
    stale_ms_max: u64,
    forged_refused: usize,
    channels_at_the_end: usize,
}

struct User {
    google: GoogleEmulator,
    client: GoogleClient,
    id: UserId,
    cursor: Option<String>,
    due_at: Timestamp,
    syncs: u64,
}

impl User {
    fn sync(&mut self, now: Timestamp) {
        self.syncs += 1;
        let settings = SyncSettings {
            push: Some(PushSettings::default()),
            ..SyncSettings::default()
        };
        let fence = LeaseToken(u64::try_from(now.as_ms()).unwrap() * 1_000 + self.syncs);
        let cursor = self.cursor.as_deref();
        let mut machine = SyncMachine::new(self.id.clone(), fence, settings, cursor, 1);
        let mut step = machine.begin(now);
        loop {
            let answer = match step {
                Step::Fetch(request) => {
                    Answer::Fetched(self.client.fetch(&mut self.google, now, &request))
                }
                Step::Write(_) => Answer::Written(Ok(GraphReply::Written(GraphCounts::default()))),
                Step::Checkpoint { .. } => Answer::Saved { wait_until: None },
                Step::End(End::Done { cursor, .. }) => {
                    self.cursor = Some(cursor);
                    break;
                }
                Step::End(other) => panic!("a sync ended with {other:?}"),
            };
            step = machine.resume(now, answer);
        }
        let due_at = machine.due_after(Some(now.plus_ms(PERIOD_MS)), now);
        self.due_at = due_at.unwrap();
    }
}

fn week(seed: u64, weather: PushWeather) -> Week {
    let mut google = GoogleEmulator::new(GoogleSettings::new(seed, 1, 20, BEGIN));
    google.set_push_weather(weather);
    let email = google.users().next().unwrap().email;
    let mut user = User {
        google,
        client: GoogleClient::new(),
        id: UserId::new(&email).unwrap(),
        cursor: None,
        due_at: BEGIN,
        syncs: 0,
    };
    let mut rng = substream(seed, "changes");
    let mut hearing = Hearing::default();
    let mut wake_at: Option<Timestamp> = None;
    let mut change_at = BEGIN.plus_ms(HOUR_MS);
    let mut unseen: Vec<Timestamp> = Vec::new();
    let mut result = Week {
        changes: 0,
        syncs: 0,
        stale_ms_max: 0,
        forged_refused: 0,
        channels_at_the_end: 0,
    };
    let end = BEGIN.plus_ms(LASTS_MS);
    let mut now = BEGIN;
    while now < end {
        if now >= change_at {
            let change = user.google.random_change(now, &email, &mut rng).unwrap();
            if user.google.apply(now, &email, &change).is_ok() {
                result.changes += 1;
                unseen.push(now);
            }
            change_at = now.plus_ms(uniform(&mut rng, 3 * HOUR_MS));
        }
        for told in user.google.notifications(now) {
            let header = |name: &str| {
                let found = told.headers.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value.as_str())
            };
            let notification = Notification::read(header).unwrap();
            let channel = notification.channel;
            assert!(channel.len() <= CHANNEL_BYTES_MAX);
            let heard = match notification.judge(user_of_channel) {
                Ok(heard) => heard,
                Err(verdict) => {
                    assert_eq!(verdict == Verdict::Forged, told.forged);
                    result.forged_refused += usize::from(told.forged);
                    continue;
                }
            };
            assert_eq!(heard.user, user.id);
            if hearing.asks_for_sync(now, &heard) {
                wake_at = Some(now.plus_ms(DEBOUNCE_MS));
            }
            assert!(
                !hearing.is_orphan(now, channel, user.cursor.as_deref()),
                "{channel}"
            );
        }
        if now >= user.due_at || wake_at.is_some_and(|at| now >= at) {
            wake_at = None;
            user.sync(now);
            let stale = unseen.drain(..).map(|at| now.since_ms(at)).max();
            result.stale_ms_max = result.stale_ms_max.max(stale.unwrap_or(0));
        }
        now = now.plus_ms(1_000);
    }
    result.syncs = usize::try_from(user.syncs).unwrap();
    result.channels_at_the_end = user.google.channels(now).len();
    assert_eq!(
        user.google.counters().watches,
        2,
        "one renewal within the week"
    );
    assert!(result.changes > 50, "{} changes", result.changes);
    result
}

/// Syncs of a week of polls by the schedule alone.
fn polls() -> usize {
    usize::try_from(LASTS_MS / PERIOD_MS).unwrap()
}

#[test]
fn in_calm_weather_a_change_is_seen_in_moments_with_less_than_half_of_the_syncs() {
    let week = week(1, PushWeather::default());
    assert!(
        week.stale_ms_max <= DEBOUNCE_MS + 2_000,
        "{} ms",
        week.stale_ms_max
    );
    assert!(
        week.syncs <= week.changes + 40 && week.syncs < polls() / 5 * 2,
        "{}",
        week.syncs
    );
    assert_eq!(week.channels_at_the_end, 1, "the replaced one is stopped");
}

#[test]
fn delayed_notifications_only_delay() {
    let delay_ms = 10 * MINUTE_MS;
    let week = week(
        2,
        PushWeather {
            delay_ms,
            ..PushWeather::default()
        },
    );
    assert!(
        week.stale_ms_max <= delay_ms + DEBOUNCE_MS + 2_000,
        "{} ms",
        week.stale_ms_max
    );
}

#[test]
fn doubled_notifications_cost_no_further_sync() {
    let doubled = week(
        3,
        PushWeather {
            doubled_every: 1,
            ..PushWeather::default()
        },
    );
    let calm = week(3, PushWeather::default());
    assert_eq!(doubled.syncs, calm.syncs);
}

#[test]
fn what_is_dropped_is_found_by_the_poll_behind() {
    let week = week(
        4,
        PushWeather {
            dropped_every: 2,
            ..PushWeather::default()
        },
    );
    let poll_ms = PushSettings::default().poll_ms;
    assert!(week.stale_ms_max > MINUTE_MS, "some are lost");
    assert!(
        week.stale_ms_max <= poll_ms + 2_000,
        "{} ms",
        week.stale_ms_max
    );
}

#[test]
fn forged_notifications_cost_nothing() {
    let forged = week(
        5,
        PushWeather {
            forged_every: 1,
            ..PushWeather::default()
        },
    );
    let calm = week(5, PushWeather::default());
    assert!(forged.forged_refused > 50);
    assert_eq!(forged.syncs, calm.syncs);
}
