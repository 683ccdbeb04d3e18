//! What is answered, and what a change changes.

use std::time::Duration;

use kalends::clock::SystemClock;
use kalends_core::queue::command::{Command, Commit, CommitOutcome, ParkReason, Reply};
use kalends_core::queue::state::JobState;
use kalends_core::time::{Clock as _, Timestamp};
use serde_json::{Value, json};

use crate::face::Face;
use crate::schema::Document;

/// For whatever a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ada was synced, Bob failed, Cy runs, Dee waits for tomorrow, Eve is parked.
pub(crate) async fn fleet() -> Face {
    let face = Face::start().await;
    face.enroll(&["ada", "bob", "cy", "dee", "eve"]).await;
    face.fail("bob", "the graph refused an event").await;
    face.enqueue("ada", Timestamp::EPOCH).await;
    for lease in face.claim().await {
        face.apply(Command::Complete {
            lease: lease.lease,
            commit: Commit {
                cursor: Some("planted-sync-token".to_owned()),
                next_due_at: None,
                outcome: CommitOutcome::Synced {
                    upserted: 3,
                    deleted: 1,
                    quarantined: 0,
                    requests: 2,
                    full: true,
                },
            },
        })
        .await;
    }
    face.enqueue("eve", Timestamp::EPOCH).await;
    for lease in face.claim().await {
        face.apply(Command::Fail {
            lease: lease.lease,
            error: "the grant was revoked".to_owned(),
            next_due_at: None,
            park: Some(ParkReason::NeedsReauth),
        })
        .await;
    }
    face.enqueue("cy", Timestamp::EPOCH).await;
    assert_eq!(face.claim().await.len(), 1);
    let tomorrow = SystemClock.now().plus_ms(24 * 3_600_000);
    face.enqueue("dee", tomorrow).await;
    face
}

#[tokio::test]
async fn every_answer_is_as_described() {
    let face = fleet().await;
    let document = Document::of(&face).await;
    for (path, template) in [
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/api/v1/status", "/api/v1/status"),
        ("/api/v1/users", "/api/v1/users"),
        ("/api/v1/users/ada", "/api/v1/users/{user}"),
        ("/api/v1/users/eve", "/api/v1/users/{user}"),
        ("/api/v1/jobs?state=waiting", "/api/v1/jobs"),
        ("/api/v1/jobs?state=delayed", "/api/v1/jobs"),
        ("/api/v1/jobs?state=active", "/api/v1/jobs"),
        ("/api/v1/jobs?state=completed", "/api/v1/jobs"),
        ("/api/v1/jobs?state=failed", "/api/v1/jobs"),
    ] {
        let answer = face.get(path).await.expect(200);
        document.check("get", template, 200, &answer.json());
        // HEAD says the same and nothing more.
        let head = face.ask("HEAD", path).await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    let missing = face.get("/api/v1/users/nobody").await.expect(404);
    document.check("get", "/api/v1/users/{user}", 404, &missing.json());

    let quarter = json!({ "cron": "*/30 * * * *", "time_zone": "Europe/Berlin" });
    let limits = json!({ "jobs": { "count": 20, "window_ms": 60_000 } });
    let changes: [(&str, &str, &str, Value, u16); 12] = [
        (
            "POST",
            "/api/v1/pause",
            "",
            json!({ "reason": "x", "source": "google-calendar" }),
            200,
        ),
        ("POST", "/api/v1/resume", "", json!({}), 200),
        ("PUT", "/api/v1/limits", "", limits, 200),
        ("POST", "/api/v1/sync", "", json!({ "user": "ada" }), 202),
        ("POST", "/api/v1/sync", "", json!({ "user": "eve" }), 409),
        ("POST", "/api/v1/sync", "", json!({ "user": "nobody" }), 404),
        (
            "POST",
            "/api/v1/jobs/cancel",
            "",
            json!({ "user": "dee" }),
            200,
        ),
        (
            "POST",
            "/api/v1/jobs/retry",
            "",
            json!({ "all": true }),
            200,
        ),
        (
            "POST",
            "/api/v1/jobs/discard",
            "",
            json!({ "all": true }),
            200,
        ),
        (
            "PUT",
            "/api/v1/schedules/half",
            "/api/v1/schedules/{schedule}",
            quarter,
            200,
        ),
        (
            "DELETE",
            "/api/v1/schedules/half",
            "/api/v1/schedules/{schedule}",
            json!(null),
            200,
        ),
        (
            "DELETE",
            "/api/v1/schedules/half",
            "/api/v1/schedules/{schedule}",
            json!(null),
            404,
        ),
    ];
    for (method, path, template, body, status) in changes {
        let answer = face.change(method, path, &body).await.expect(status);
        let template = if template.is_empty() { path } else { template };
        document.check(&method.to_lowercase(), template, status, &answer.json());
    }
}

#[tokio::test]
async fn the_status_says_how_everybody_is() {
    let face = fleet().await;
    let status = face.status().await;
    let counts = [
        "waiting",
        "delayed",
        "active",
        "completed",
        "failed",
        "parked",
    ];
    let counts = counts.map(|name| status[name].as_u64().unwrap());
    assert_eq!(counts, [0, 1, 1, 1, 2, 1], "{status}");
    assert_eq!(
        status["workers"],
        json!([{ "worker": "test-1", "running": 1 }])
    );
    assert_eq!(status["active_jobs"][0]["user"], "cy", "{status}");
    assert_eq!(status["schedules"][0]["name"], "quarter", "{status}");
    let source = &status["sources"][0];
    let freshness = &source["freshness"];
    assert_eq!(freshness["users"], 1, "{status}");
    assert!(
        freshness["p99_age_ms"].as_u64().unwrap() < 60_000,
        "{status}"
    );
    assert_eq!(
        freshness["within"][0],
        json!({ "age_ms": 300_000, "users": 1 })
    );
    assert_eq!(source["never_synced"], 4, "{status}");
    assert_eq!(status["process"]["slots"], 5, "{status}");
}

#[tokio::test]
async fn a_user_is_shown_with_history_and_without_secrets() {
    let face = fleet().await;
    let ada = face.get("/api/v1/users/ada").await.expect(200);
    assert!(!ada.body.contains("planted-sync-token"), "{ada:?}");
    let ada = ada.json();
    assert_eq!(ada["last_outcome"]["upserted"], 3, "{ada}");
    assert_eq!(ada["history"][0]["outcome"]["requests"], 2, "{ada}");
    assert_eq!(ada["history"].as_array().unwrap().len(), 1, "{ada}");
    let eve = face.get("/api/v1/users/eve").await.expect(200).json();
    assert_eq!(eve["needs_reauth"], true, "{eve}");
    assert_eq!(eve["history"][0]["error"], "the grant was revoked", "{eve}");

    let path = "/api/v1/users?needs_reauth=true";
    let waiting = face.get(path).await.expect(200).json();
    assert_eq!(waiting["users"].as_array().unwrap().len(), 1, "{waiting}");
    assert_eq!(waiting["users"][0]["user"], "eve", "{waiting}");
    assert_eq!(waiting["next"], Value::Null, "{waiting}");
    let behind = format!("{path}&after=eve&limit=1");
    let behind = face.get(&behind).await.expect(200).json();
    assert_eq!(behind["users"], json!([]), "{behind}");
    face.get("/api/v1/users?needs_reauth=yes").await.expect(400);
    face.get("/api/v1/users?needs_reauth=true&prefix=e")
        .await
        .expect(400);
}

#[tokio::test]
async fn users_and_jobs_come_page_by_page() {
    let face = Face::start().await;
    let names: Vec<String> = (0..57)
        .map(|number| format!("user/{number:02}@é"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    face.enroll(&names).await;
    let tomorrow = SystemClock.now().plus_ms(24 * 3_600_000);
    for name in &names {
        face.enqueue(name, tomorrow).await;
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/users?limit=10".to_owned();
    loop {
        let page = face.get(&path).await.expect(200).json();
        let users = page["users"].as_array().unwrap().clone();
        seen.extend(
            users
                .iter()
                .map(|user| user["user"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        assert_eq!(users.len(), 10, "{page}");
        let next = next.replace('/', "%2F").replace('é', "%C3%A9");
        path = format!("/api/v1/users?limit=10&after={next}");
    }
    assert_eq!(seen, names);

    let mut seen = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let path = format!("/api/v1/jobs?state=delayed&limit=19&after={after}");
        let page = face.get(&path).await.expect(200).json();
        let jobs = page["jobs"].as_array().unwrap();
        seen.extend(
            jobs.iter()
                .map(|job| job["user"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    assert_eq!(seen, names);

    let found = face
        .get("/api/v1/users?prefix=user%2F1")
        .await
        .expect(200)
        .json();
    assert_eq!(found["users"].as_array().unwrap().len(), 10, "{found}");
    let exact = face
        .get("/api/v1/users?prefix=user%2F11%40%C3%A9")
        .await
        .json();
    assert_eq!(exact["users"].as_array().unwrap().len(), 1, "{exact}");
    face.get("/api/v1/users/user%2F11%40%C3%A9")
        .await
        .expect(200);

    for wrong in [
        "/api/v1/jobs",
        "/api/v1/jobs?state=lost",
        "/api/v1/jobs?state=failed&limit=0",
        "/api/v1/jobs?state=failed&limit=201",
        "/api/v1/jobs?state=failed&after=-1",
        "/api/v1/jobs?state=failed&state=active",
        "/api/v1/jobs?state=failed&afer=3",
        "/api/v1/users?limit=x",
        "/api/v1/users/%ff",
        "/api/v1/users/a%0ab",
    ] {
        face.get(wrong).await.expect(400);
    }
}

#[tokio::test]
async fn a_failed_job_is_tried_again() {
    let face = fleet().await;
    let failed = face
        .get("/api/v1/jobs?state=failed")
        .await
        .expect(200)
        .json();
    let bob = failed["jobs"].as_array().unwrap();
    let bob = bob.iter().find(|job| job["user"] == "bob").unwrap();
    assert_eq!(bob["error"], "the graph refused an event", "{bob}");
    let number = json!({ "number": bob["number"] });
    let retry = "/api/v1/jobs/retry";
    let retried = face.change("POST", retry, &number).await.expect(200);
    assert_eq!(retried.json()["retried"], 1);
    let waiting = face
        .get("/api/v1/jobs?state=waiting")
        .await
        .expect(200)
        .json();
    assert_eq!(waiting["jobs"][0]["user"], "bob", "{waiting}");
    face.change("POST", retry, &number).await.expect(409);
    for wrong in [
        json!({}),
        json!({ "number": 1, "all": true }),
        json!({ "all": false }),
    ] {
        face.change("POST", retry, &wrong).await.expect(400);
    }
}

#[tokio::test]
async fn a_failed_job_is_forgotten_and_its_user_is_not() {
    let face = fleet().await;
    let failed = "/api/v1/jobs?state=failed";
    let before = face.get(failed).await.expect(200).json();
    let before = before["jobs"].as_array().unwrap().clone();
    let discard = "/api/v1/jobs/discard";
    let number = json!({ "number": before[0]["number"] });
    let told = face.change("POST", discard, &number).await.expect(200);
    assert_eq!(told.json()["discarded"], 1);
    let after = face.get(failed).await.expect(200).json();
    assert_eq!(after["jobs"].as_array().unwrap()[..], before[1..]);
    let missing = face.change("POST", discard, &number).await.expect(404);
    assert!(missing.body.contains("state=failed"), "{missing:?}");
    face.change("POST", discard, &json!({})).await.expect(400);
    let user = before[0]["user"].as_str().unwrap();
    face.get(&format!("/api/v1/users/{user}")).await.expect(200);
}

#[tokio::test]
async fn what_waits_can_be_cancelled_and_what_runs_cannot() {
    let face = fleet().await;
    let cancel = "/api/v1/jobs/cancel";
    face.change("POST", cancel, &json!({ "user": "dee" }))
        .await
        .expect(200);
    face.change("POST", cancel, &json!({ "user": "dee" }))
        .await
        .expect(404);
    let runs = face
        .change("POST", cancel, &json!({ "user": "cy" }))
        .await
        .expect(409);
    assert!(runs.body.contains("runs already"), "{runs:?}");
    face.change("POST", cancel, &json!({})).await.expect(400);
}

#[tokio::test]
async fn a_pause_and_a_limit_are_seen_at_once() {
    let face = fleet().await;
    let reason = json!({ "reason": "the graph is being moved" });
    face.change("POST", "/api/v1/pause", &reason)
        .await
        .expect(200);
    let source = face.status().await["sources"][0].clone();
    assert_eq!(source["paused"], "the graph is being moved", "{source}");
    // Nothing starts any more.
    face.change("POST", "/api/v1/sync", &json!({ "user": "ada" }))
        .await
        .expect(202);
    assert_eq!(
        face.claim().await.len(),
        1,
        "only what this worker has already"
    );
    face.change("POST", "/api/v1/resume", &json!({}))
        .await
        .expect(200);
    assert_eq!(face.status().await["sources"][0]["paused"], json!(null));

    let limit = json!({ "jobs": { "count": 7, "window_ms": 60_000 } });
    face.change("PUT", "/api/v1/limits", &limit)
        .await
        .expect(200);
    let settings = face.status().await["sources"][0]["settings"].clone();
    assert_eq!(settings["jobs"], limit["jobs"], "{settings}");
    let unlimited = json!({ "jobs": null });
    face.change("PUT", "/api/v1/limits", &unlimited)
        .await
        .expect(200);
    assert_eq!(
        face.status().await["sources"][0]["settings"]["jobs"],
        json!(null)
    );
    for wrong in [
        json!({}),
        json!({ "jobs": { "count": 0, "window_ms": 60_000 } }),
        json!({ "jobs": { "count": 1 } }),
        json!({ "jobs": 7 }),
    ] {
        face.change("PUT", "/api/v1/limits", &wrong)
            .await
            .expect(400);
    }
    let elsewhere = json!({ "jobs": null, "source": "nowhere" });
    face.change("PUT", "/api/v1/limits", &elsewhere)
        .await
        .expect(404);
    for path in ["/api/v1/pause", "/api/v1/resume"] {
        let elsewhere = match path {
            "/api/v1/pause" => json!({ "reason": "x", "source": "nowhere" }),
            _ => json!({ "source": "nowhere" }),
        };
        face.change("POST", path, &elsewhere).await.expect(404);
    }
    face.change("POST", "/api/v1/pause", &json!({ "reason": " " }))
        .await
        .expect(400);
}

#[tokio::test]
async fn schedules_are_defined_changed_and_removed() {
    let face = Face::start().await;
    let path = "/api/v1/schedules/nightly";
    let nightly = json!({ "cron": "0 3 * * *", "time_zone": "Europe/Berlin", "catch_up": "skip" });
    let defined = face.change("PUT", path, &nightly).await.expect(200).json();
    assert!(defined["next_tick_at"].is_string(), "{defined}");
    let names = |status: &Value| {
        let schedules = status["schedules"].as_array().unwrap().clone();
        schedules
            .iter()
            .map(|one| one["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&face.status().await), ["nightly", "quarter"]);
    for (field, value) in [
        ("cron", "0 25 * * *"),
        ("cron", "0 0 30 2 *"),
        ("time_zone", "Europe/Berlim"),
        ("catch_up", "twice"),
    ] {
        let mut wrong = nightly.clone();
        wrong[field] = json!(value);
        let refused = face.change("PUT", path, &wrong).await.expect(400);
        assert!(refused.body.contains(field), "{refused:?}");
    }
    face.change("DELETE", path, &json!(null)).await.expect(200);
    assert_eq!(names(&face.status().await), ["quarter"]);
}

#[tokio::test]
async fn a_sync_of_all_is_laid_over_the_period() {
    let face = Face::start().await;
    let names: Vec<String> = (0..700).map(|number| format!("user-{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    face.enroll(&names).await;
    let answer = face
        .change("POST", "/api/v1/sync", &json!({ "all": true }))
        .await;
    let answer = answer.expect(202).json();
    assert_eq!(answer["users"], 700, "{answer}");
    let over_ms = answer["over_ms"].as_u64().unwrap();
    assert!((600_000..900_000).contains(&over_ms), "{answer}");
    let listed = async || {
        let mut jobs = Vec::new();
        for state in [JobState::Waiting, JobState::Delayed] {
            let command = Command::Jobs {
                state,
                offset: 0,
                limit: 1_000,
            };
            let Reply::Jobs { jobs: found } = face.apply(command).await else {
                panic!("not a list");
            };
            jobs.extend(found);
        }
        jobs
    };
    let jobs = tokio::time::timeout(PATIENCE, async {
        loop {
            let jobs = listed().await;
            if jobs.len() == 700 {
                return jobs;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut starts: Vec<i64> = jobs
        .await
        .unwrap()
        .iter()
        .map(|job| job.at.as_ms())
        .collect();
    starts.sort_unstable();
    let in_a_minute = |from: &i64| {
        starts
            .iter()
            .filter(|at| (*from..from + 60_000).contains(*at))
            .count()
    };
    assert!(
        starts.iter().all(|from| in_a_minute(from) <= 60),
        "a herd: {starts:?}"
    );
    assert_eq!(u64::try_from(starts[699] - starts[0]).unwrap(), over_ms);
    for wrong in [json!({}), json!({ "all": true, "user": "x" })] {
        face.change("POST", "/api/v1/sync", &wrong)
            .await
            .expect(400);
    }
    face.change(
        "POST",
        "/api/v1/sync",
        &json!({ "all": true, "source": "nowhere" }),
    )
    .await
    .expect(404);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let face = Face::start().await;
    for path in [
        "/nowhere",
        "/api/v1",
        "/api/v2/status",
        "/api/v1/status/",
        "//",
    ] {
        face.get(path).await.expect(404);
    }
    let wrong = face
        .change("DELETE", "/api/v1/status", &json!({}))
        .await
        .expect(405);
    assert!(wrong.head.contains("allow: get,head"), "{wrong:?}");
    let wrong = face.get("/api/v1/pause").await.expect(405);
    assert!(wrong.head.contains("allow: post"), "{wrong:?}");
}
