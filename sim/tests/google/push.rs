//! Channels of the emulated Google, asked for as a process asks, and notifications in every weather.

use kalends_core::failure::FailureKind;
use kalends_core::google::page::FetchReply;
use kalends_core::google::push::Watched;
use kalends_core::google::query::FetchRequest;
use kalends_core::id::{CalendarId, UserId};
use kalends_core::time::{DAY_MS, Timestamp};
use kalends_sim::google::{
    Change, DraftStart, EventDraft, GoogleClient, GoogleEmulator, GoogleSettings, PushWeather,
    channel_token,
};

const NOW: Timestamp = Timestamp::from_ms(1_793_600_000_000);

struct World {
    google: GoogleEmulator,
    client: GoogleClient,
    user: String,
}

impl World {
    fn new() -> Self {
        let mut settings = GoogleSettings::new(3, 1, 4, NOW);
        settings.calendars_per_user = 3;
        let google = GoogleEmulator::new(settings);
        let user = google.users().next().unwrap().email;
        World {
            google,
            client: GoogleClient::new(),
            user,
        }
    }

    fn ask(&mut self, request: &FetchRequest) -> Result<FetchReply, FailureKind> {
        let answer = self.client.fetch(&mut self.google, NOW, request);
        answer.map_err(|failure| failure.kind)
    }

    fn watch(&mut self, calendar: &str, channel: &str) -> Result<Watched, FailureKind> {
        let request = FetchRequest::Watch {
            user: UserId::new(&self.user).unwrap(),
            calendar: CalendarId::new(calendar).unwrap(),
            channel: channel.to_owned(),
            life_ms: 30 * DAY_MS,
        };
        match self.ask(&request)? {
            FetchReply::Watched(made) => Ok(made),
            other => panic!("{other:?}"),
        }
    }

    fn stop(&mut self, channel: &str, resource: &str) -> Result<FetchReply, FailureKind> {
        let request = FetchRequest::StopChannel {
            user: UserId::new(&self.user).unwrap(),
            channel: channel.to_owned(),
            resource: resource.to_owned(),
        };
        self.ask(&request)
    }

    fn change(&mut self) {
        let draft = EventDraft {
            summary: Some("Moved".to_owned()),
            start: DraftStart::At {
                at: NOW.plus_ms(DAY_MS),
                zone: "Europe/Berlin".to_owned(),
            },
            length_minutes: 30,
            repeat: None,
            guests: 0,
        };
        let user = self.user.clone();
        self.google
            .apply(NOW, &user, &Change::Create(draft))
            .unwrap();
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    &headers.iter().find(|(known, _)| known == name).unwrap().1
}

#[test]
fn a_channel_tells_of_its_birth_and_of_each_change_until_it_is_stopped() {
    let mut world = World::new();
    let made = world.watch("primary", "k1").unwrap();
    assert_eq!(
        made.expires_at,
        NOW.plus_ms(7 * DAY_MS),
        "Google grants a week"
    );
    let born = world.google.notifications(NOW);
    assert_eq!(header(&born[0].headers, "x-goog-resource-state"), "sync");
    assert_eq!(header(&born[0].headers, "x-goog-message-number"), "1");
    world.change();
    world.change();
    let told = world.google.notifications(NOW);
    assert_eq!(told.len(), 2);
    assert_eq!(header(&told[0].headers, "x-goog-resource-state"), "exists");
    assert_eq!(
        header(&told[0].headers, "x-goog-resource-id"),
        made.resource
    );
    let token = channel_token(&UserId::new(&world.user).unwrap(), "k1");
    assert_eq!(header(&told[0].headers, "x-goog-channel-token"), token);
    let number = |place: usize| -> u64 {
        header(&told[place].headers, "x-goog-message-number")
            .parse()
            .unwrap()
    };
    assert!(number(0) > 1 && number(1) > number(0));
    assert_eq!(world.stop("k1", &made.resource), Ok(FetchReply::Stopped));
    world.change();
    assert!(world.google.notifications(NOW).is_empty());
    assert!(world.google.channels(NOW).is_empty());
    // One that is gone already is as good as stopped.
    assert_eq!(world.stop("k1", &made.resource), Ok(FetchReply::Stopped));
}

#[test]
fn what_google_does_not_watch_is_refused() {
    let mut world = World::new();
    let holidays = world.google.calendars(&world.user).unwrap()[1].clone();
    assert!(holidays.contains('#'));
    assert_eq!(world.watch(&holidays, "k1"), Err(FailureKind::Permanent));
    assert_eq!(
        world.watch("nowhere", "k1"),
        Err(FailureKind::CalendarUnavailable)
    );
    assert!(world.watch("primary", "k1").is_ok());
    assert_eq!(
        world.watch("primary", "k1"),
        Err(FailureKind::Permanent),
        "ids are used once"
    );
    assert_eq!(world.google.counters().watches, 4);
}

#[test]
fn weather_delays_doubles_drops_and_forges() {
    let mut world = World::new();
    world.watch("primary", "k1").unwrap();
    world.google.notifications(NOW);
    world.google.set_push_weather(PushWeather {
        delay_ms: 60_000,
        ..PushWeather::default()
    });
    world.change();
    assert!(world.google.notifications(NOW.plus_ms(59_999)).is_empty());
    assert_eq!(world.google.notifications(NOW.plus_ms(60_000)).len(), 1);

    let mut told = |weather: PushWeather| {
        world.google.set_push_weather(weather);
        for _ in 0..12 {
            world.change();
        }
        world.google.notifications(NOW)
    };
    let calm = PushWeather::default();
    assert_eq!(
        told(PushWeather {
            doubled_every: 3,
            ..calm
        })
        .len(),
        16
    );
    assert_eq!(
        told(PushWeather {
            dropped_every: 4,
            ..calm
        })
        .len(),
        9
    );
    let forged = told(PushWeather {
        forged_every: 2,
        ..calm
    });
    let (forged, genuine): (Vec<_>, Vec<_>) = forged.into_iter().partition(|one| one.forged);
    assert_eq!((forged.len(), genuine.len()), (6, 12));
    let token = channel_token(&UserId::new(&world.user).unwrap(), "k1");
    for one in forged {
        assert_ne!(header(&one.headers, "x-goog-channel-token"), token);
    }
}
