//! SIGHUP and `POST /api/v1/reload` on a real process: limits, schedule and log level change without a restart, a mistake changes
//! nothing and is told; and what systemd is told meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::os::unix::net::UnixDatagram;

use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::ask_api;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::process::{PATIENCE, Process, kalends, wait_until};
use serde_json::{Value, json};

const TOKEN: &str = "planted-reload-token-5d1a";
/// A key for grants.
const KEY: &str = "9b1f0c6ad2e84b7735f0a1c4de98263b70ac15e2f4d9870b6c3a5e1d20f8b794";

/// The status and the body of one request with `token`.
fn ask(address: &str, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let (status, body) = ask_api(address, token, method, path, body);
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

/// The job limit and the cron expression that the store has.
fn in_force(address: &str) -> (Value, Value) {
    let (status, body) = ask(address, TOKEN, "GET", "/api/v1/status", "");
    assert_eq!(status, 200);
    let limit = body["sources"][0]["settings"]["jobs"]["count"].clone();
    (limit, body["schedules"][0]["definition"]["cron"].clone())
}

#[test]
fn limits_schedule_and_log_level_change_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let toml = KalendsToml::of(&google).set("log", "level", r#""info""#);
    toml.write(folder.path());
    let (mut process, address) = Process::serve(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
    wait_until("the schedule", || in_force(&address).1 == "0 0 1 1 *");
    assert_eq!(in_force(&address).0, Value::Null);

    // By SIGHUP. What needs a restart is told and not in force.
    let other = toml
        .clone()
        .set("limits", "jobs", "7")
        .set("schedule", "cron", r#""30 3 * * *""#)
        .set("worker", "concurrency", "9")
        .set("log", "level", r#""warn""#);
    other.write(folder.path());
    process.signal("HUP");
    process.wait_for_log("only in force after a restart: worker");
    // What was read of the store a moment ago is told again for half a second.
    let new = (json!(7), json!("30 3 * * *"));
    wait_until("what is new", || in_force(&address) == new);
    // Lines below the new level are not shown any more.
    let resume = || ask(&address, TOKEN, "POST", "/api/v1/resume", "{}");
    assert_eq!(resume().0, 200);

    // A mistake changes nothing, and is told with its place; by SIGHUP and by the API.
    let wrong = other
        .clone()
        .set("limits", "jobs", "0")
        .set("schedule", "cron", r#""0 4 * * *""#);
    wrong.write(folder.path());
    process.signal("HUP");
    process.wait_for_log("the old one stays in force");
    let reload = |token: &str| ask(&address, token, "POST", "/api/v1/reload", "");
    let (status, problem) = reload(TOKEN);
    assert_eq!(status, 422, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("kalends.toml:") && detail.contains("limits.jobs"),
        "{detail}"
    );
    assert_eq!(in_force(&address), (json!(7), json!("30 3 * * *")));
    // A file that is not there any more is a mistake, too.
    std::fs::remove_file(folder.path().join("kalends.toml")).unwrap();
    assert_eq!(reload(TOKEN).0, 422);
    assert_eq!(in_force(&address), (json!(7), json!("30 3 * * *")));

    // By the API, and not without the token.
    let last = toml.clone().set("limits", "jobs", "8");
    last.write(folder.path());
    assert_eq!(reload("not-the-token-at-all").0, 401);
    assert_eq!(in_force(&address).0, json!(7));
    let (status, answer) = reload(TOKEN);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["applied"],
        json!(["limits", "schedule", "log.level"])
    );
    assert_eq!(answer["needs_restart"], json!([]));
    assert_eq!(in_force(&address), (json!(8), json!("0 0 1 1 *")));
    let (_, again) = reload(TOKEN);
    assert_eq!(again["applied"], json!([]), "nothing differs");
    let pause = r#"{"reason": "to be seen in the log"}"#;
    assert_eq!(ask(&address, TOKEN, "POST", "/api/v1/pause", pause).0, 200);
    process.wait_for_log("to be seen in the log");

    let ended = process.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
    assert!(
        !ended.errors.contains("resumed, by the API"),
        "{}",
        ended.errors
    );
    for secret in [TOKEN, CLIENT_SECRET] {
        assert!(!ended.errors.contains(secret));
        assert!(!detail.contains(secret));
    }
}

/// What an operator set since stays, as long as the configuration says the same about it.
#[test]
fn a_reload_leaves_an_operators_limit_alone() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let toml = KalendsToml::of(&google).set("limits", "jobs", "5");
    toml.write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
    wait_until("the limit", || in_force(&address).0 == json!(5));
    let limit = r#"{"jobs": {"count": 2, "window_ms": 60000}}"#;
    assert_eq!(ask(&address, TOKEN, "PUT", "/api/v1/limits", limit).0, 200);
    toml.clone()
        .set("schedule", "cron", r#""0 5 * * *""#)
        .write(folder.path());
    let (status, _) = ask(&address, TOKEN, "POST", "/api/v1/reload", "");
    assert_eq!(status, 200);
    assert_eq!(in_force(&address), (json!(2), json!("0 5 * * *")));
    process.stop();
}

#[test]
fn systemd_hears_of_the_start_a_reload_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let toml = KalendsToml::of(&google);
    toml.write(folder.path());
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 2_048];
        loop {
            let length = socket.recv(&mut buffer).expect(wanted);
            let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if said.contains(wanted) {
                return said;
            }
        }
    };
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let process = Process::start_with(folder.path(), &["run"], &variables);
    hear("READY=1");
    hear("STATUS=Ready");
    hear("WATCHDOG=1");
    process.signal("HUP");
    hear("RELOADING=1");
    hear("READY=1");
    process.signal("TERM");
    let stopping = hear("STOPPING=1");
    assert!(
        stopping.contains("EXTEND_TIMEOUT_USEC=30000000"),
        "{stopping}"
    );
    let ended = process.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.errors);
}

/// One user's state by the store, or that there is no such user.
fn user(address: &str, name: &str) -> (u16, Value) {
    let path = format!("/api/v1/users/{name}");
    ask(address, TOKEN, "GET", &path, "")
}

fn is_synced(address: &str, name: &str) -> bool {
    let (status, body) = user(address, name);
    status == 200 && body["last_success_at"].is_string()
}

/// Users come, change and go with the file; who was added by command stays, and a schedule that was read again is the follower's, too.
#[test]
fn users_spread_and_jitter_are_taken_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(3, 4, 2);
    let accounts = google.users();
    let [ada, bob, eve, ian] = [0, 1, 2, 3].map(|index| accounts[index].clone());
    let toml = KalendsToml::new(&google.url)
        .set("credentials", "keys", &format!("{KEY:?}"))
        .user(&ada.email, &ada.refresh_token, None)
        .user(&bob.email, "a-grant-that-is-none", None);
    toml.write(folder.path());
    let (mut process, address) = Process::serve(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
    wait_until("the first sync", || is_synced(&address, &ada.email));
    wait_until("a refused grant", || {
        user(&address, &bob.email).1["parked"].is_string()
    });

    // Bob's grant is put right, Eve comes, and users are laid out otherwise.
    let changed = KalendsToml::new(&google.url)
        .set("credentials", "keys", &format!("{KEY:?}"))
        .set("schedule", "spread", r#""stagger""#)
        .set("schedule", "stagger_ms", "90000")
        .set("schedule", "jitter_ms", "7")
        .user(&ada.email, &ada.refresh_token, None)
        .user(&bob.email, &bob.refresh_token, None)
        .user(&eve.email, &eve.refresh_token, None);
    changed.write(folder.path());
    let (status, answer) = ask(&address, TOKEN, "POST", "/api/v1/reload", "");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["applied"],
        json!(["schedule.jitter_ms", "schedule.spread", "users"])
    );
    assert_eq!(answer["needs_restart"], json!([]));
    wait_until("the new user", || is_synced(&address, &eve.email));
    wait_until("the grant that was put right", || {
        is_synced(&address, &bob.email)
    });
    // "Sync all" lays three users 90 s apart.
    let (status, all) = ask(&address, TOKEN, "POST", "/api/v1/sync", r#"{"all": true}"#);
    assert_eq!((status, &all["over_ms"]), (202, &json!(180_000)), "{all}");

    // Ian and 24 others are added by command: the follower lays them by what was read again, so most have to wait.
    let others = (0..24).map(|index| format!("other-{index}@example.com,no-such-grant\n"));
    let users: String = std::iter::once("id,refresh_token\n".to_owned())
        .chain([format!("{},{}\n", ian.email, ian.refresh_token)])
        .chain(others)
        .collect();
    std::fs::write(folder.path().join("users.csv"), users).unwrap();
    let _ = kalends(folder.path(), &["users", "import", "users.csv"]).done();
    wait_until("users who wait for their place", || {
        let path = "/api/v1/jobs?state=delayed&limit=200";
        let (_, page) = ask(&address, TOKEN, "GET", path, "");
        page["jobs"].as_array().is_some_and(|jobs| jobs.len() >= 20)
    });

    // Ada leaves the file and is forgotten; Ian stood in it never and stays; Bob leaves the file and has an account, so he stays.
    std::fs::write(
        folder.path().join("users.csv"),
        format!("id,refresh_token\n{},{}\n", bob.email, bob.refresh_token),
    )
    .unwrap();
    let last = KalendsToml::new(&google.url)
        .set("credentials", "keys", &format!("{KEY:?}"))
        .user(&eve.email, &eve.refresh_token, None);
    last.write(folder.path());
    let _ = kalends(folder.path(), &["users", "import", "users.csv"]).done();
    process.signal("HUP");
    process.wait_for_log("no longer configured: not synced any more");
    wait_until("the user who left", || user(&address, &ada.email).0 == 404);
    for stays in [&bob, &eve, &ian] {
        assert_eq!(user(&address, &stays.email).0, 200, "{}", stays.email);
    }
    // A sync that is asked for finds Bob's grant in the register.
    let before = user(&address, &bob.email).1["last_success_at"].clone();
    let asked = json!({ "user": bob.email }).to_string();
    wait_until("a sync by the account's grant", || {
        let (status, _) = ask(&address, TOKEN, "POST", "/api/v1/sync", &asked);
        assert_eq!(status, 202);
        let now = user(&address, &bob.email).1["last_success_at"].clone();
        now.is_string() && now != before
    });
    let ended = process.stop();
    for account in &accounts {
        assert!(!ended.errors.contains(&account.refresh_token));
    }
}

/// A journal has users' phases from its beginning or never: the reload names what waits.
#[test]
fn what_a_reload_cannot_take_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let toml = KalendsToml::of(&google).set("record", "file", r#""journal""#);
    toml.write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
    toml.clone()
        .set("schedule", "spread", r#""phase""#)
        .set("schedule", "jitter_ms", "3")
        .set("worker", "lease_ms", "7000")
        .set("log", "format", r#""json""#)
        .write(folder.path());
    let (status, answer) = ask(&address, TOKEN, "POST", "/api/v1/reload", "");
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["applied"], json!(["schedule.jitter_ms"]));
    assert_eq!(
        answer["needs_restart"],
        json!(["schedule.spread", "worker", "log.format"])
    );
    let ended = process.stop();
    let named = "only in force after a restart: schedule.spread, worker, log.format";
    assert!(ended.errors.contains(named), "{}", ended.errors);
    // And what was taken is in the journal, which replays.
    let replayed = kalends(folder.path(), &["replay", "journal"]).done();
    assert!(
        replayed.output.contains("laid over the period otherwise"),
        "{}",
        replayed.output
    );
}

/// The command says the same as the API, and what to do where it cannot ask.
#[test]
fn the_command_asks_the_running_process() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let toml = KalendsToml::of(&google).set("http", "token", &format!("{TOKEN:?}"));
    toml.write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[]);
    let reload = |more: &[&str]| {
        let arguments = [&["reload"], more].concat();
        kalends(folder.path(), &arguments)
    };
    let unknown = reload(&[]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.errors);
    assert!(unknown.errors.contains("http.listen"), "{}", unknown.errors);
    assert!(unknown.errors.contains("SIGHUP"), "{}", unknown.errors);
    wait_until("the limit", || in_force(&address).0 == Value::Null);

    let at = ["--http", address.as_str()];
    let same = reload(&at).done().output;
    assert!(same.starts_with("nothing has changed\nwarning: "), "{same}");
    let other = toml
        .clone()
        .set("limits", "jobs", "9")
        .set("worker", "concurrency", "4");
    other.write(folder.path());
    let taken = reload(&at).done().output;
    let words = "in force now: limits\nchanged, but only in force after a restart: worker\n";
    assert!(taken.starts_with(words), "{taken}");
    wait_until("the limit", || in_force(&address).0 == json!(9));
    let told = reload(&[at.as_slice(), &["--json"]].concat()).done().json();
    assert_eq!(told["applied"], json!([]));
    assert_eq!(told["needs_restart"], json!(["worker"]));

    // A mistake is told with its place, and changes nothing.
    other
        .clone()
        .set("limits", "jobs", "0")
        .write(folder.path());
    let wrong = reload(&at);
    assert_eq!(wrong.code, Some(2), "{}", wrong.errors);
    assert!(wrong.errors.contains("kalends.toml:"), "{}", wrong.errors);
    assert!(wrong.errors.contains("limits.jobs"), "{}", wrong.errors);
    assert_eq!(in_force(&address).0, json!(9));

    // Another token, and nobody there.
    other
        .clone()
        .set("http", "token", r#""another-token-0123456789""#)
        .write(folder.path());
    let stranger = reload(&at);
    assert_eq!(stranger.code, Some(2), "{}", stranger.errors);
    assert!(
        stranger.errors.contains("http.token"),
        "{}",
        stranger.errors
    );
    process.stop();
    other.write(folder.path());
    let alone = reload(&at);
    assert_eq!(alone.code, Some(1), "{}", alone.errors);
    assert!(alone.errors.contains("does not answer"), "{}", alone.errors);
}
