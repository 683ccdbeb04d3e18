//! Traces of a real process, at a collector in the test: what comes, what must never come, and a collector that is away.
//! Only with the feature `otel`.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use kalends::spans::UserNames;
use kalends_adapters::seal::Keys;
use kalends_adapters::secret::Secret;
use kalends_core::id::UserId;
use kalends_sim::google::Fault;
use kalends_tests::google_server::GoogleServer;
use kalends_tests::kalends_toml::{CLIENT_SECRET, KalendsToml};
use kalends_tests::process::{Ended, Process, kalends, status, wait_until};
use serde_json::Value;

const USERS: u64 = 4;
const TOKEN: &str = "planted-api-token-77aa";

/// What a collector does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    SaysLater,
    NeverAnswers,
}

/// Takes traces by OTLP over HTTP.
struct Collector {
    endpoint: String,
    heads: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
}

impl Collector {
    fn start(manner: Manner) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Collector {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            heads: Arc::default(),
            bodies: Arc::default(),
            manner: Arc::new(Mutex::new(manner)),
        };
        let (heads, bodies, manner) = (
            Arc::clone(&collector.heads),
            Arc::clone(&collector.bodies),
            Arc::clone(&collector.manner),
        );
        // They end with the process of the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (heads, bodies, manner) =
                    (Arc::clone(&heads), Arc::clone(&bodies), Arc::clone(&manner));
                std::thread::spawn(move || serve(&stream.unwrap(), &heads, &bodies, &manner));
            }
        });
        collector
    }

    fn spans(&self) -> Vec<Value> {
        let bodies = self.bodies.lock().unwrap();
        let messages = bodies
            .iter()
            .map(|body| serde_json::from_str::<Value>(body).unwrap());
        let spans = messages.flat_map(|message| {
            let spans = message["resourceSpans"][0]["scopeSpans"][0]["spans"].clone();
            serde_json::from_value::<Vec<Value>>(spans).unwrap()
        });
        spans.collect()
    }
}

fn serve(
    stream: &TcpStream,
    heads: &Mutex<Vec<String>>,
    bodies: &Mutex<Vec<String>>,
    manner: &Mutex<Manner>,
) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        heads.lock().unwrap().push(head);
        let manner = *manner.lock().unwrap();
        let answer = match manner {
            Manner::Takes => {
                let body = String::from_utf8(body).unwrap();
                bodies.lock().unwrap().push(body);
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
            }
            Manner::SaysLater => "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n",
            Manner::NeverAnswers => continue,
        };
        let mut writer = stream;
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn google() -> (GoogleServer, String) {
    let google = GoogleServer::start(11, u32::try_from(USERS).unwrap(), 6);
    let failing = google.users().remove(1).email;
    let fault = Fault::Html { status: 503 };
    google
        .lock()
        .emulator
        .inject(Some(&failing), fault)
        .unwrap();
    (google, failing)
}

fn sealing_key() -> String {
    "0123456789abcdef".repeat(4)
}

/// Everybody's first sync, one of which fails, with traces to `endpoint`.
fn run(folder: &Path, google: &GoogleServer, endpoint: &str) -> Ended {
    KalendsToml::of(google)
        .set("retry", "attempts", "1")
        .set("http", "token", &format!("{TOKEN:?}"))
        .set("credentials", "keys", &format!("{:?}", sealing_key()))
        .write(folder);
    let variable = ("KALENDS_TELEMETRY_OTLP_ENDPOINT", endpoint);
    let mut process = Process::start_with(folder, &["run", "--http", "127.0.0.1:0"], &[variable]);
    process.wait_for_log("traces go to");
    wait_until("everybody's first sync", || {
        let status = status(folder);
        status["completed_total"] == USERS - 1 && status["failed_total"] == 1
    });
    process.stop()
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let attributes = span["attributes"].as_array().unwrap();
    let value = &attributes.iter().find(|one| one["key"] == key)?["value"];
    value["stringValue"]
        .as_str()
        .or_else(|| value["intValue"].as_str())
}

fn below<'a>(spans: &'a [Value], parent: &Value) -> Vec<&'a Value> {
    let is_child = |span: &&Value| {
        span["parentSpanId"] == parent["spanId"] && span["traceId"] == parent["traceId"]
    };
    spans.iter().filter(is_child).collect()
}

fn named<'a>(spans: &[&'a Value], name: &str) -> Option<&'a Value> {
    spans.iter().copied().find(|span| span["name"] == name)
}

#[test]
fn an_attempt_arrives_with_its_requests_writes_and_commands_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (google, failing) = google();
    let collector = Collector::start(Manner::Takes);
    let ended = run(folder.path(), &google, &collector.endpoint);
    let spans = collector.spans();

    let attempts: Vec<&Value> = spans.iter().filter(|span| span["name"] == "sync").collect();
    assert_eq!(attempts.len() as u64, USERS, "{attempts:#?}");
    let names = UserNames::of(&Keys::parse(&Secret::new(sealing_key())).unwrap());
    for access in google.users() {
        let name = names.of_user(&UserId::new(&access.email).unwrap());
        let shown = kalends(folder.path(), &["users", "show", &access.email, "--json"]);
        assert_eq!(shown.done().json()["name_in_traces"], name.as_str());
        let is_its = |span: &&&Value| attribute(span, "kalends.user") == Some(&name);
        let attempt = attempts.iter().find(is_its).unwrap();
        assert_eq!(
            attribute(attempt, "kalends.source"),
            Some("google-calendar")
        );
        assert_eq!(attribute(attempt, "kalends.job"), Some("sync"));
        assert_eq!(attribute(attempt, "kalends.attempt"), Some("1"));
        let children = below(&spans, attempt);
        let fetch = named(&children, "events.list").unwrap();
        let request = named(&below(&spans, fetch), "GET").unwrap();
        assert_eq!(request["kind"], 3);
        let status = attribute(request, "http.response.status_code");
        if access.email == failing {
            assert_eq!(attribute(attempt, "kalends.outcome"), Some("failed"));
            assert_eq!(attribute(attempt, "kalends.failure"), Some("transient"));
            assert_eq!(attempt["status"]["code"], 2);
            assert_eq!(status, Some("503"));
            assert!(named(&children, "store fail").is_some(), "{children:#?}");
        } else {
            assert_eq!(attribute(attempt, "kalends.outcome"), Some("synced"));
            assert!(attempt.get("status").is_none(), "{attempt:#?}");
            assert_eq!(status, Some("200"));
            let token = below(&spans, fetch)
                .into_iter()
                .find(|span| attribute(span, "kalends.endpoint") == Some("token"));
            assert_eq!(
                attribute(token.unwrap(), "http.response.status_code"),
                Some("200")
            );
            let write = named(&children, "graph apply").unwrap();
            assert_eq!(attribute(write, "kalends.outcome"), Some("written"));
            let complete = named(&children, "store complete").unwrap();
            assert_eq!(attribute(complete, "kalends.outcome"), Some("done"));
        }
    }
    assert!(spans.iter().any(|span| span["name"] == "store claim"));

    let heads = collector.heads.lock().unwrap();
    assert!(!heads.is_empty());
    for head in heads.iter() {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(!head.contains("authorization"), "{head}");
    }
    let bytes = heads.concat() + &collector.bodies.lock().unwrap().concat();
    let mut secrets = vec![
        CLIENT_SECRET.to_owned(),
        TOKEN.to_owned(),
        sealing_key(),
        "@".to_owned(),
    ];
    for access in google.users() {
        secrets.push(access.refresh_token);
        let (name, _) = access.email.split_once('@').unwrap();
        secrets.push(name.to_owned());
        let google = google.lock();
        let truth = google.emulator.calendar_truth(&access.email, "primary");
        let titles = truth.unwrap().filter_map(|event| event.summary);
        secrets.extend(titles.filter(|title| title.len() > 6));
    }
    let bearers = google.lock().pages.clone().into_iter();
    secrets.extend(bearers.map(|page| page.bearer.trim_start_matches("Bearer ").to_owned()));
    assert!(secrets.len() as u64 > 4 * USERS, "{}", secrets.len());
    for secret in &secrets {
        assert!(
            !secret.is_empty() && !bytes.contains(secret.as_str()),
            "{secret} is in a trace"
        );
    }
    assert!(
        !ended.errors.contains("spans were not sent"),
        "{}",
        ended.errors
    );
}

#[test]
fn a_collector_that_is_away_costs_no_sync_and_is_told_of_once() {
    // A port that nobody listens at: it was ours just now.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let busy = Collector::start(Manner::SaysLater);
    let silent = Collector::start(Manner::NeverAnswers);
    for (endpoint, says) in [
        (&endpoint, "refused"),
        (&busy.endpoint, "503"),
        (&silent.endpoint, ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (google, _) = google();
        let ended = run(folder.path(), &google, endpoint);
        let told = ended.errors.matches("does not take spans").count();
        if says.is_empty() {
            assert!(
                ended.errors.contains("the newest spans were not sent"),
                "{}",
                ended.errors
            );
        } else {
            assert_eq!(told, 1, "{}", ended.errors);
            assert!(ended.errors.contains(says), "{}", ended.errors);
        }
    }
}

#[test]
fn a_collector_that_comes_back_gets_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let (google, _) = google();
    let collector = Collector::start(Manner::SaysLater);
    KalendsToml::of(&google)
        .set("retry", "attempts", "1")
        .set(
            "telemetry",
            "otlp_endpoint",
            &format!("{:?}", collector.endpoint),
        )
        .write(folder.path());
    let mut process = Process::start(folder.path(), &["run"]);
    process.wait_for_log("does not take spans");
    *collector.manner.lock().unwrap() = Manner::Takes;
    process.wait_for_log("the collector takes spans again");
    process.stop();
    let spans = collector.spans();
    let attempts = spans.iter().filter(|span| span["name"] == "sync").count();
    assert_eq!(attempts as u64, USERS, "{spans:#?}");
}
