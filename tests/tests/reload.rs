//! SIGHUP and `POST /api/v1/reload` on a real process: limits, schedule and log level change without a restart, a mistake changes
//! nothing and is told; and what systemd is told meanwhile.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::process::{PATIENCE, Process, wait_until};
use serde_json::{Value, json};

const TOKEN: &str = "planted-reload-token-5d1a";

/// Starts `kalends run` on a free port; the process and the address.
fn run(folder: &Path, variables: &[(&str, &str)]) -> (Process, String) {
    let mut process = Process::start_with(folder, &["run", "--http", "127.0.0.1:0"], variables);
    let place = "are served at http://";
    process.wait_for_log(place);
    let errors = process.errors();
    let (_, rest) = errors.split_once(place).unwrap();
    let address = rest.lines().next().unwrap().trim().to_owned();
    (process, address)
}

/// The status and the body of one request with `token`.
fn ask(address: &str, token: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// The job limit and the cron expression that the store has.
fn in_force(address: &str) -> (Value, Value) {
    let (status, body) = ask(address, TOKEN, "GET", "/api/v1/status", "");
    assert!(status == 200 || status == 429, "{status}");
    let limit = body["sources"][0]["settings"]["jobs"]["count"].clone();
    (limit, body["schedules"][0]["definition"]["cron"].clone())
}

#[test]
fn limits_schedule_and_log_level_change_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(1, 1, 3);
    let toml = KalendsToml::of(&google).set("log", "level", r#""info""#);
    toml.write(folder.path());
    let (mut process, address) = run(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
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
    let (process, address) = run(folder.path(), &[("KALENDS_HTTP_TOKEN", TOKEN)]);
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
