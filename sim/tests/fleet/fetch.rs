//! The shortcut to Google against the long way: the same requests, changes and misfortunes, equal replies and counters.

use kalends_core::google::page::{FetchReply, PageEnd};
use kalends_core::google::query::{EventsFrom, EventsQuery, FetchRequest};
use kalends_core::id::{CalendarId, UserId};
use kalends_core::rng::{substream, uniform};
use kalends_core::time::Timestamp;
use kalends_sim::google::{Fault, GoogleClient, GoogleEmulator, GoogleSettings, QuotaSettings};

const EPOCH: Timestamp = Timestamp::from_ms(1_793_577_600_000);
const STEPS: u64 = 4_000;
const USERS: u64 = 3;

fn google() -> GoogleEmulator {
    let mut settings = GoogleSettings::new(5, 3, 6, EPOCH);
    settings.quota = Some(QuotaSettings {
        per_user_per_minute: 20,
        per_project_per_minute: 50,
        ..QuotaSettings::default()
    });
    GoogleEmulator::new(settings)
}

#[test]
fn the_shortcut_says_what_the_long_way_says() {
    let mut rng = substream(1, "shortcut");
    let (mut short, mut long) = (google(), google());
    let (mut quick, mut slow) = (GoogleClient::new(), GoogleClient::new());
    let mut tokens: Vec<Option<String>> = vec![None; 3];
    let mut now = EPOCH;
    let (mut unchanged, mut changed, mut refused) = (0, 0, 0);
    for step in 0..STEPS {
        now = now.plus_ms(uniform(&mut rng, 4_000));
        let user = usize::try_from(uniform(&mut rng, USERS - 1)).unwrap();
        let name = format!("user-{:05}@example.com", user + 1);
        match uniform(&mut rng, 60) {
            0..=3 => {
                let change = short.random_change(now, &name, &mut rng).unwrap();
                assert_eq!(
                    short.apply(now, &name, &change),
                    long.apply(now, &name, &change)
                );
            }
            4 => {
                short.expire_access_tokens(now, &name).unwrap();
                long.expire_access_tokens(now, &name).unwrap();
            }
            5 => {
                short.expire_sync_tokens(&name).unwrap();
                long.expire_sync_tokens(&name).unwrap();
            }
            6 => {
                short.revoke(&name).unwrap();
                long.revoke(&name).unwrap();
            }
            7..=9 => {
                short.restore(now, &name).unwrap();
                long.restore(now, &name).unwrap();
            }
            10 => {
                short.inject(Some(&name), Fault::CutBody).unwrap();
                long.inject(Some(&name), Fault::CutBody).unwrap();
            }
            11 => {
                let fault = Fault::Token {
                    status: 503,
                    error: "internal_failure".to_owned(),
                };
                short.inject(None, fault.clone()).unwrap();
                long.inject(None, fault).unwrap();
            }
            _ => {}
        }
        let request = FetchRequest::Events {
            user: UserId::new(&name).unwrap(),
            query: EventsQuery {
                calendar: CalendarId::new("primary").unwrap(),
                from: match &tokens[user] {
                    Some(token) => EventsFrom::SyncToken(token.clone()),
                    None => EventsFrom::Full {
                        window_start: EPOCH.minus_ms(1),
                    },
                },
                page_token: None,
                page_size: 250,
            },
        };
        let one = quick.fetch(&mut short, now, &request);
        let two = slow.fetch_the_long_way(&mut long, now, &request);
        assert_eq!(one, two, "step {step}");
        assert_eq!(short.counters(), long.counters(), "step {step}");
        match one {
            Ok(FetchReply::Events(page)) => {
                if page.events.is_empty() {
                    unchanged += 1;
                } else {
                    changed += 1;
                }
                if let PageEnd::Done { sync_token } = page.end {
                    tokens[user] = sync_token;
                }
            }
            Ok(other) => panic!("nobody asked for {other:?}"),
            Err(_) => {
                refused += 1;
                tokens[user] = None;
            }
        }
    }
    assert!(
        unchanged > 300 && changed > 100 && refused > 100,
        "{unchanged} {changed} {refused}"
    );
}
