//! What users cost: nothing, until something of theirs changes.

use kalends_core::time::SECOND_MS;
use kalends_sim::google::{GoogleEmulator, GoogleSettings, QuotaSettings};
use kalends_sim::http::Request;

use crate::client::{EPOCH, body, events_request, settings};

#[test]
fn readers_leave_nothing_behind() {
    let users = 5_000;
    let mut settings: GoogleSettings = settings(users, 100);
    settings.quota = Some(QuotaSettings::default());
    let mut emulator = GoogleEmulator::new(settings);
    let tokens: Vec<String> = emulator.users().map(|user| user.refresh_token).collect();
    assert_eq!(tokens.len(), users as usize);
    let resting = format!("{emulator:?}").len();
    for (number, token) in tokens.iter().enumerate() {
        let now = EPOCH.plus_ms(number as u64 * SECOND_MS);
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        let granted = body(&emulator.handle(now, &Request::post("/token", form)));
        let access = granted["access_token"].as_str().unwrap();
        let request = Request::get("/calendar/v3/calendars/primary/events")
            .with_query("maxResults", "1")
            .with_header("authorization", format!("Bearer {access}"));
        assert_eq!(emulator.handle(now, &request).status, 200);
    }
    // All that is remembered is the last minute, for the quota: the whole state, written out, stays small.
    let used = format!("{emulator:?}").len();
    assert!(used < resting + 20_000, "{resting} -> {used} bytes");
}

#[test]
fn events_are_of_a_real_size() {
    let mut emulator = GoogleEmulator::new(settings(1, 250));
    let request = events_request(&emulator);
    let page = emulator.handle(EPOCH, &request);
    let average = page.body.len() / 250;
    assert!((500..1_000).contains(&average), "{average} bytes an event");
}
