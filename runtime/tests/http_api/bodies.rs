//! What the OpenAPI document says of parameters and bodies is what is accepted: all that it allows is, and whatever it does not allow
//! is refused as it says.
//!
//! Wrong requests are made from right ones by the document itself, so that a field or a bound that is added to it is tried without
//! a word here. A right one is asked of a person: what is new in the document and in no example fails.

use std::collections::BTreeSet;

use kalends::clock::SystemClock;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::time::Clock as _;
use serde_json::{Value, json};

use crate::api::fleet;
use crate::face::Face;
use crate::schema::Document;

/// The number of Bob's failed job.
async fn failed_number(face: &Face) -> Value {
    let failed = face.get("/api/v1/jobs?state=failed").await.expect(200);
    let failed = failed.json();
    let mut jobs = failed["jobs"].as_array().unwrap().iter();
    jobs.find(|job| job["user"] == "bob").unwrap()["number"].clone()
}

/// Right bodies of an operation, each of which changes something; together they hold every property.
async fn right_bodies(face: &Face, operation: &str) -> Vec<Value> {
    let source = "google-calendar";
    match operation {
        "post /api/v1/jobs/retry" | "post /api/v1/jobs/discard" => {
            vec![
                json!({ "number": failed_number(face).await }),
                json!({ "all": true }),
            ]
        }
        "post /api/v1/jobs/cancel" => vec![
            json!({ "user": "dee" }),
            json!({ "user": "dee", "source": source }),
            json!({ "schedule": "quarter" }),
        ],
        "post /api/v1/sync" => vec![
            json!({ "user": "ada" }),
            json!({ "user": "ada", "source": source }),
            json!({ "all": true }),
            json!({ "all": true, "source": source }),
        ],
        "post /api/v1/pause" => vec![
            json!({ "reason": "x" }),
            json!({ "reason": "x".repeat(200), "source": source }),
        ],
        "post /api/v1/resume" => vec![json!({}), json!({ "source": source })],
        "put /api/v1/limits" => vec![
            json!({ "jobs": null }),
            json!({ "jobs": { "count": 1, "window_ms": 1 }, "source": source }),
            json!({ "jobs": { "count": 100_000, "window_ms": 86_400_000 } }),
        ],
        "put /api/v1/schedules/{schedule}" => vec![
            json!({ "cron": "0 3 * * *" }),
            json!({ "cron": "0 3 * * *", "time_zone": "Europe/Berlin", "catch_up": "all(3)", "source": source }),
        ],
        other => panic!("{other} has a body and no example here"),
    }
}

/// A path that is served, of the one in the document.
fn path_of(template: &str) -> String {
    template
        .replace("{schedule}", "nightly")
        .replace("{user}", "ada")
}

/// The schedule's fan-out waits.
async fn fire(face: &Face) {
    let Reply::Schedules { schedules } = face.apply(Command::Schedules).await else {
        panic!("not a list");
    };
    let (schedule, state) = schedules.into_iter().next().unwrap();
    let reply = face
        .apply(Command::Tick {
            schedule,
            revision: state.revision,
            after: state.last_tick_at,
            at: SystemClock.now(),
            missed: 0,
            fire: true,
        })
        .await;
    assert!(matches!(reply, Reply::Fired { .. }), "{reply:?}");
}

/// A fleet in which every right body is right.
async fn prepared() -> Face {
    let face = fleet().await;
    fire(&face).await;
    face
}

#[tokio::test]
async fn every_body_that_is_described_is_accepted_and_no_other() {
    let face = prepared().await;
    let document = Document::of(&face).await;
    let mut operations = 0;
    for (method, template, operation) in document.operations() {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        operations += 1;
        let (name, path) = (format!("{method} {template}"), path_of(&template));
        let send = async |face: &Face, body: &Value| {
            face.change(&method.to_uppercase(), &path, body).await
        };
        let right = right_bodies(&face, &name).await;
        let mut held = BTreeSet::new();
        let mut wrong = Vec::new();
        // What is made of the examples by leaving fields out, and by putting two together.
        let mut made = right.clone();
        for body in &right {
            let fields = body.as_object().unwrap();
            held.extend(fields.keys().cloned());
            wrong.extend(document.spoilt(schema, body));
            for name in fields.keys() {
                let mut less = fields.clone();
                less.remove(name);
                made.push(Value::Object(less));
            }
            for other in &right {
                let mut both = fields.clone();
                both.extend(other.as_object().unwrap().clone());
                made.push(Value::Object(both));
            }
        }
        let (allowed, refused): (Vec<Value>, Vec<Value>) = made
            .into_iter()
            .partition(|body| document.wrong(schema, body).is_empty());
        assert!(
            right.iter().all(|body| allowed.contains(body)),
            "{name}: {right:?}"
        );
        wrong.extend(refused);
        let described: BTreeSet<String> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(
            held, described,
            "{name}: the examples here hold every property"
        );
        assert_eq!(document.untried_bounds(schema, &right), [""; 0], "{name}");
        assert!(wrong.len() > 3, "{name}: {wrong:?}");
        for body in &wrong {
            let refused = send(&face, body).await;
            assert_eq!(refused.status, 400, "{name}: {body}: {refused:?}");
            document.check(&method, &template, 400, &refused.expect(400).json());
        }
        for body in &allowed {
            let face = prepared().await;
            let accepted = send(&face, body).await;
            assert!(
                (200..300).contains(&accepted.status),
                "{name}: {body}: {accepted:?}"
            );
            document.check(&method, &template, accepted.status, &accepted.json());
        }
    }
    assert_eq!(operations, 8);
}

#[tokio::test]
async fn every_parameter_that_is_described_is_accepted_and_no_other() {
    let face = fleet().await;
    let document = Document::of(&face).await;
    let mut parameters = 0;
    for (method, template, operation) in document.operations() {
        let described = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let described: Vec<&Value> = described
            .iter()
            .filter(|one| one["in"] == "query")
            .collect();
        if described.is_empty() {
            continue;
        }
        let path = path_of(&template);
        let name = |parameter: &Value| parameter["name"].as_str().unwrap().to_owned();
        let example = |parameter: &Value| {
            document
                .texts(&parameter["schema"])
                .0
                .into_iter()
                .next()
                .unwrap_or_else(|| {
                    match name(parameter).as_str() {
                        "after" if template == "/api/v1/jobs" => "1",
                        "after" => "bob",
                        "prefix" => "a",
                        "source" => "google-calendar",
                        other => panic!("{template}: {other} has no example here"),
                    }
                    .to_owned()
                })
        };
        let ask = async |query: &[(String, String)]| {
            let query: Vec<String> = query
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            face.ask(
                &method.to_uppercase(),
                &format!("{path}?{}", query.join("&")),
            )
            .await
        };
        let required: Vec<(String, String)> = described
            .iter()
            .filter(|one| one["required"] == true)
            .map(|one| (name(one), example(one)))
            .collect();
        let with = |parameter: &Value, value: String| {
            let mut query: Vec<(String, String)> = required
                .iter()
                .filter(|(known, _)| *known != name(parameter))
                .cloned()
                .collect();
            query.push((name(parameter), value));
            query
        };
        let mut wrong = Vec::new();
        for parameter in &described {
            parameters += 1;
            let (mut right, spoilt) = document.texts(&parameter["schema"]);
            right.push(example(parameter));
            for value in right {
                let query = with(parameter, value);
                let answer = ask(&query).await;
                assert_eq!(answer.status, 200, "{template}: {query:?}: {answer:?}");
                document.check(&method, &template, 200, &answer.json());
            }
            wrong.extend(spoilt.into_iter().map(|value| with(parameter, value)));
            let mut twice = with(parameter, example(parameter));
            twice.push((name(parameter), example(parameter)));
            wrong.push(twice);
        }
        let mut unknown = required.clone();
        unknown.push(("planted".to_owned(), "1".to_owned()));
        wrong.push(unknown);
        for left_out in &required {
            wrong.push(
                required
                    .iter()
                    .filter(|one| *one != left_out)
                    .cloned()
                    .collect(),
            );
        }
        for query in wrong {
            let refused = ask(&query).await;
            assert_eq!(refused.status, 400, "{template}: {query:?}: {refused:?}");
            document.check(&method, &template, 400, &refused.expect(400).json());
        }
    }
    assert_eq!(parameters, 9);
}

/// What a page holds when nothing is said of it.
#[tokio::test]
async fn a_default_that_is_described_is_the_one() {
    let face = Face::start().await;
    let document = Document::of(&face).await;
    let names: Vec<String> = (0..60).map(|number| format!("user-{number:02}")).collect();
    face.enroll(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let (_, _, operation) = document
        .operations()
        .into_iter()
        .find(|(_, path, _)| path == "/api/v1/users")
        .unwrap();
    let parameters = operation["parameters"].as_array().unwrap();
    let limit = parameters
        .iter()
        .find(|one| one["name"] == "limit")
        .unwrap();
    let page = face.get("/api/v1/users").await.expect(200).json();
    assert_eq!(
        json!(page["users"].as_array().unwrap().len()),
        limit["schema"]["default"]
    );
}
