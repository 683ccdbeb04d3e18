//! The emulator answers as the real server was seen to.

use super::*;

fn emulator() -> Neo4jEmulator {
    Neo4jEmulator::new(Neo4jEmulatorSettings::default())
}

fn request(body: &Value) -> Request {
    let login = STANDARD.encode("neo4j:kalends");
    Request::post("/db/neo4j/query/v2", body.to_string())
        .with_header("authorization", format!("Basic {login}"))
        .with_header("content-type", "application/json")
        .with_header("accept", "application/json")
}

fn ask(emulator: &mut Neo4jEmulator, body: &Value) -> (u16, Value) {
    let response = emulator.handle(Timestamp::EPOCH, &request(body));
    (
        response.status,
        serde_json::from_slice(&response.body).unwrap_or(Value::Null),
    )
}

fn apply(events: Value) -> Value {
    json!({
        "statement": cypher::APPLY_EVENTS,
        "parameters": {
            "user": "ada", "fence": 1, "generation": 1,
            "calendar": { "uid": "ada|primary", "properties": { "calendar_id": "primary" } },
            "deletions": [], "cuts": [], "mentioned": [], "events": events,
        },
    })
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (
        answer.0,
        answer.1["errors"][0]["code"].as_str().unwrap_or("none"),
    )
}

#[test]
fn success_is_202_with_rows_counters_and_a_bookmark() {
    let mut emulator = emulator();
    let mut body = apply(json!([]));
    body["includeCounters"] = json!(true);
    let (status, answer) = ask(&mut emulator, &body);
    assert_eq!(status, 202);
    assert_eq!(
        answer["data"],
        json!({ "fields": ["fenced", "upserted", "deleted"], "values": [[false, 0, 0]] })
    );
    assert_eq!(answer["counters"]["nodesCreated"], 2);
    assert_eq!(answer["bookmarks"], json!(["FB:neo4j:1"]));
}

#[test]
fn a_run_time_error_is_202_too_and_changes_nothing() {
    let mut emulator = emulator();
    let nested = json!([{ "uid": "e", "version": 1, "content_hash": "x", "properties": { "v": { "a": 1 } } }]);
    let answer = ask(&mut emulator, &apply(nested));
    assert_eq!(code(&answer), (202, "Neo.ClientError.Statement.TypeError"));
    assert_eq!(answer.1["data"]["values"], json!([]));
    assert_eq!(emulator.graph("neo4j").unwrap().nodes().count(), 0);

    let keyless = json!([{ "uid": null, "version": 1, "content_hash": "x", "properties": {} }]);
    let answer = ask(&mut emulator, &apply(keyless));
    assert_eq!(
        code(&answer),
        (202, "Neo.ClientError.Statement.SemanticError")
    );
}

#[test]
fn bad_requests_are_refused_as_the_server_refuses_them() {
    let mut emulator = emulator();
    let invalid = (400, "Neo.ClientError.Request.Invalid");
    for body in [
        json!({ "statement": "" }),
        json!({ "statement": cypher::PROBE, "txMetadata": {} }),
        json!({ "statement": cypher::PROBE, "parameters": { "x": u64::MAX } }),
        json!([]),
    ] {
        assert_eq!(code(&ask(&mut emulator, &body)), invalid, "{body}");
    }
    for (body, expected) in [
        (
            json!({ "statement": "RETURN 1" }),
            "Neo.ClientError.Statement.SyntaxError",
        ),
        (
            json!({ "statement": cypher::SWEEP, "parameters": {} }),
            "Neo.ClientError.Statement.ParameterMissing",
        ),
        (
            json!({ "statement": cypher::ENSURE_SCHEMA[0], "accessMode": "READ" }),
            "Neo.ClientError.Statement.AccessMode",
        ),
        (
            json!({ "statement": cypher::PROBE, "bookmarks": ["FB:other:1"] }),
            "Neo.ClientError.Transaction.InvalidBookmark",
        ),
    ] {
        assert_eq!(code(&ask(&mut emulator, &body)), (400, expected), "{body}");
    }
}

#[test]
fn the_door_is_watched() {
    let mut emulator = emulator();
    let good = request(&json!({ "statement": cypher::PROBE }));
    let status = |emulator: &mut Neo4jEmulator, now_ms, change: &dyn Fn(&mut Request)| {
        let mut request = good.clone();
        change(&mut request);
        emulator.handle(Timestamp::from_ms(now_ms), &request).status
    };
    let set = |name: &'static str, value: &'static str| {
        move |request: &mut Request| {
            request.headers.retain(|(known, _)| known != name);
            request.headers.push((name.to_owned(), value.to_owned()));
        }
    };
    assert_eq!(status(&mut emulator, 0, &|_| ()), 202);
    assert_eq!(
        status(&mut emulator, 0, &|request| request.headers.clear()),
        401
    );
    assert_eq!(
        status(&mut emulator, 0, &set("authorization", "Bearer x")),
        400
    );
    assert_eq!(
        status(&mut emulator, 0, &set("content-type", "text/plain")),
        415
    );
    assert_eq!(status(&mut emulator, 0, &set("accept", "text/html")), 406);
    assert_eq!(
        status(&mut emulator, 0, &|request| request.path =
            "/db/no/query/v2".to_owned()),
        404
    );
    assert_eq!(
        status(&mut emulator, 0, &|request| request.path = "/db".to_owned()),
        404
    );
    for _ in 0..BAD_LOGINS_MAX {
        assert_eq!(
            status(&mut emulator, 0, &set("authorization", "Basic eDp5")),
            401
        );
    }
    assert_eq!(status(&mut emulator, 1, &|_| ()), 429);
    assert_eq!(status(&mut emulator, 5_000, &|_| ()), 202);
    let discovered = emulator.handle(Timestamp::EPOCH, &Request::get("/"));
    assert_eq!(discovered.status, 200);
}

#[test]
fn faults_befall_statements_in_their_order() {
    let mut emulator = emulator();
    emulator.let_pass(1);
    emulator.inject(Fault::deadlock());
    emulator.inject(Fault::memory_limit());
    emulator.inject(Fault::CutBody);
    let body = apply(json!([]));
    assert_eq!(code(&ask(&mut emulator, &body)), (202, "none"));
    let expected = (400, "Neo.TransientError.Transaction.DeadlockDetected");
    assert_eq!(code(&ask(&mut emulator, &body)), expected);
    let expected = (202, "Neo.TransientError.General.MemoryPoolOutOfMemoryError");
    assert_eq!(code(&ask(&mut emulator, &body)), expected);
    assert_eq!(ask(&mut emulator, &body), (202, Value::Null));
    assert_eq!(code(&ask(&mut emulator, &body)), (202, "none"));
}
