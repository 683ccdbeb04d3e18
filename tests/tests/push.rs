//! Push on a real process: channels are made, a change at Google becomes a sync within moments, and notifications that come late,
//! twice, not at all or from somebody else do no harm.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;

use kalends::clock::SystemClock;
use kalends_adapters::google::Webhook;
use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;
use kalends_core::push::channel_id;
use kalends_core::push::hearing::ORPHAN_AGE_MS;
use kalends_core::queue::command::LeaseToken;
use kalends_core::time::{Clock as _, HOUR_MS, Timestamp};
use kalends_sim::google::{Change, DraftStart, EventDraft, Notification, PushWeather};
use kalends_sim::http::Request;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::{ask, get};
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::process::{Process, status, wait_until};

const KEY: &str = "planted-push-key-0123456789abcdef-0123";

/// A process that watches, a Google, and the network between them, which the test plays.
struct World {
    folder: tempfile::TempDir,
    google: GoogleServer,
    process: Process,
    hook: String,
    http: String,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl World {
    fn start(users: u32) -> World {
        let folder = tempfile::tempdir().unwrap();
        let google = GoogleServer::start(11, users, 4);
        let hook = format!("127.0.0.1:{}", free_port());
        KalendsToml::of(&google)
            .set("push", "address", &format!("\"http://{hook}/google\""))
            .set("push", "listen", &format!("\"{hook}\""))
            .set("push", "key", &format!("{KEY:?}"))
            .write(folder.path());
        let (mut process, http) = Process::serve(folder.path(), &[]);
        process.wait_for_log("notifications of changes come in");
        let world = World {
            folder,
            google,
            process,
            hook,
            http,
        };
        wait_until("a channel for everybody", || {
            world.completed() >= u64::from(users) && world.channels().len() == users as usize
        });
        world
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn completed(&self) -> u64 {
        status(self.path())["completed_total"].as_u64().unwrap()
    }

    fn channels(&self) -> Vec<String> {
        self.google.lock().emulator.channels(SystemClock.now())
    }

    fn weather(&self, weather: PushWeather) {
        self.google.lock().emulator.set_push_weather(weather);
    }

    fn user(&self, place: usize) -> String {
        self.google.users()[place].email.clone()
    }

    /// Somebody writes a new event into the user's calendar.
    fn change(&self, user: &str) {
        let now = SystemClock.now();
        // Times on the wire have whole seconds.
        let second = Timestamp::from_ms(now.as_ms() / 1_000 * 1_000);
        let draft = EventDraft {
            summary: Some("Told by push".to_owned()),
            start: DraftStart::At {
                at: second.plus_ms(24 * HOUR_MS),
                zone: "Europe/Berlin".to_owned(),
            },
            length_minutes: 30,
            repeat: None,
            guests: 1,
        };
        let emulator = &mut self.google.lock().emulator;
        emulator.apply(now, user, &Change::Create(draft)).unwrap();
    }

    /// What Google sends by then.
    fn taken(&self, by: Timestamp) -> Vec<Notification> {
        self.google.lock().emulator.notifications(by)
    }

    /// Delivers what Google sends now; the statuses of the answers.
    fn deliver(&self) -> Vec<u16> {
        let sent = self.taken(SystemClock.now());
        sent.iter().map(|one| self.post(&one.headers)).collect()
    }

    fn post(&self, headers: &[(String, String)]) -> u16 {
        let lines = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"));
        let lines: Vec<String> = lines.chain([format!("Host: {}", self.hook)]).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        ask(&self.hook, "POST", "/google", &lines, "").0
    }

    /// What became of notifications, as the metrics tell.
    fn counted(&self, outcome: &str) -> u64 {
        let host = format!("Host: {}", self.http);
        let (status, text) = ask(&self.http, "GET", "/metrics", &[&host], "");
        assert_eq!(status, 200);
        let name = format!("kalends_push_notifications_total{{outcome=\"{outcome}\"}} ");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .unwrap();
        line.parse().unwrap()
    }

    /// Ends it; every graph equals its calendar, and the log holds neither key nor token.
    fn end(self) {
        let data = self.path().join("kalends-data");
        let ended = self.process.stop();
        assert_eq!(ended.code, Some(0), "{}", ended.errors);
        assert!(!ended.errors.contains(KEY));
        self.google.assert_synced(&data);
    }
}

#[test]
fn a_change_is_synced_when_google_tells_of_it_however_often() {
    let world = World::start(2);
    // The channels' own messages ask for nothing.
    assert!(world.deliver().iter().all(|status| *status == 204));
    assert_eq!(world.completed(), 2);
    // Twice each, and fifty changes in a moment: one sync.
    world.weather(PushWeather {
        doubled_every: 1,
        ..PushWeather::default()
    });
    for _ in 0..50 {
        world.change(&world.user(0));
    }
    let answers = world.deliver();
    assert_eq!(
        (answers.len(), answers.iter().all(|status| *status == 204)),
        (100, true)
    );
    wait_until("the sync", || world.completed() == 3);
    // Late: the same change is told again long after it was synced, which costs one sync that finds nothing.
    world.weather(PushWeather {
        delay_ms: 60_000,
        ..PushWeather::default()
    });
    world.change(&world.user(1));
    assert!(world.deliver().is_empty());
    let late = world.taken(SystemClock.now().plus_ms(60_000));
    assert_eq!(late.len(), 1);
    assert_eq!(world.post(&late[0].headers), 204);
    wait_until("the late one", || world.completed() == 4);
    // Whoever is watched is polled slowly: nobody is due before hours have passed.
    let due = |user: &str| {
        let (status, body) = get(&world.http, &format!("/api/v1/users/{user}"));
        assert_eq!(status, 200, "{body}");
        Timestamp::parse_rfc3339(body["due_at"].as_str().unwrap()).unwrap()
    };
    assert!(due(&world.user(0)) > SystemClock.now().plus_ms(5 * HOUR_MS));
    world.end();
}

#[test]
fn forged_notifications_are_refused_cheaply_and_a_flood_of_them_keeps_nobody_out() {
    let world = World::start(1);
    world.deliver();
    let (pages, completed) = (world.google.pages_asked(), world.completed());
    world.weather(PushWeather {
        forged_every: 1,
        ..PushWeather::default()
    });
    world.change(&world.user(0));
    let sent = world.taken(SystemClock.now());
    let (forged, genuine): (Vec<_>, Vec<_>) = sent.into_iter().partition(|one| one.forged);
    assert_eq!((forged.len(), genuine.len()), (1, 1));
    let refused = 400;
    for _ in 0..refused {
        assert_eq!(world.post(&forged[0].headers), 404);
    }
    // Half a head, no token, two tokens, another method: the same answer, which tells nothing.
    let without = |name: &str| -> Vec<(String, String)> {
        let kept = genuine[0].headers.iter().filter(|(known, _)| known != name);
        kept.cloned().collect()
    };
    let mut twice = genuine[0].headers.clone();
    twice.push(("x-goog-channel-token".to_owned(), "another".to_owned()));
    for odd in [
        without("x-goog-channel-token"),
        without("x-goog-channel-id"),
        twice,
        Vec::new(),
    ] {
        assert_eq!(world.post(&odd), 404);
    }
    for path in ["/google", "/api/v1/status"] {
        let host = format!("Host: {}", world.hook);
        assert_eq!(ask(&world.hook, "GET", path, &[&host], "").0, 404);
    }
    // More connections than there are places say nothing, and are each given up after some seconds.
    let idle: Vec<TcpStream> = (0..70)
        .map(|_| TcpStream::connect(&world.hook).unwrap())
        .collect();
    assert_eq!(world.counted("forged"), refused + 6);
    assert_eq!(
        (world.google.pages_asked(), world.completed()),
        (pages, completed)
    );
    // And the genuine one, in the midst of it, is heard.
    assert_eq!(world.post(&genuine[0].headers), 204);
    wait_until("the sync", || world.completed() == completed + 1);
    drop(idle);
    world.end();
}

/// What was answered as heard is not lost by a process that is told to stop at that moment: whoever comes next finds the job.
#[test]
fn what_was_heard_just_before_a_shutdown_is_asked_for() {
    let world = World::start(1);
    world.deliver();
    let completed = world.completed();
    world.change(&world.user(0));
    let told = world.taken(SystemClock.now());
    assert_eq!(world.post(&told[0].headers), 204);
    let World {
        folder,
        process,
        google,
        ..
    } = world;
    let ended = process.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    let next = Process::start(folder.path(), &["run"]);
    let done = || status(folder.path())["completed_total"].as_u64().unwrap();
    wait_until("the sync", || done() == completed + 1);
    assert_eq!(next.stop().code, Some(0));
    google.assert_synced(&folder.path().join("kalends-data"));
}

#[test]
fn what_google_loses_is_found_by_the_next_sync() {
    let world = World::start(1);
    world.deliver();
    world.weather(PushWeather {
        dropped_every: 2,
        ..PushWeather::default()
    });
    let completed = world.completed();
    for _ in 0..6 {
        world.change(&world.user(0));
    }
    let told = world.taken(SystemClock.now());
    assert_eq!(told.len(), 3);
    // All but one are lost on the way, too.
    assert_eq!(world.post(&told[0].headers), 204);
    wait_until("the sync", || world.completed() == completed + 1);
    world.end();
}

/// A channel that is in nobody's cursor (its answer was lost, say) is stopped when it is heard of.
#[test]
fn an_orphan_is_stopped_when_it_is_heard_of() {
    let world = World::start(1);
    world.deliver();
    let user = world.user(0);
    let made_at = SystemClock.now().minus_ms(2 * ORPHAN_AGE_MS);
    let orphan = channel_id(
        LeaseToken(u64::try_from(made_at.as_ms()).unwrap() * 1_000),
        0,
    );
    let address = format!("http://{}/google", world.hook);
    let webhook = Webhook::new(&address, &Secret::new(KEY)).unwrap();
    let token = webhook
        .token(&UserId::new(&user).unwrap(), &orphan)
        .unwrap();
    let body = serde_json::json!({
        "id": orphan, "type": "web_hook", "address": address, "token": token,
    });
    let bearer = format!("Bearer {}", world.google.users()[0].refresh_token);
    let request = Request::post(
        "/calendar/v3/calendars/primary/events/watch",
        body.to_string(),
    )
    .with_header("authorization", bearer);
    let made = world
        .google
        .lock()
        .emulator
        .handle(SystemClock.now(), &request);
    assert_eq!(made.status, 200);
    assert_eq!(world.channels().len(), 2);
    world.deliver();
    let own = |headers: &[(String, String)]| headers.iter().any(|(_, value)| *value == orphan);
    world.change(&user);
    let told = world.taken(SystemClock.now());
    assert_eq!(told.len(), 2);
    for one in told.iter().filter(|one| own(&one.headers)) {
        assert_eq!(world.post(&one.headers), 204);
    }
    wait_until("the orphan's end", || !world.channels().contains(&orphan));
    assert_eq!(world.channels().len(), 1);
    // What it told was true all the same.
    wait_until("the sync", || world.completed() == 2);
    world.end();
}
