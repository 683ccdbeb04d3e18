//! The value against the emulator of Neo4j: the same random writes, equal replies, equal events.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kalends_core::graph::params::{REMOVE_EVENTS_MAX, split};
use kalends_core::graph::{CalendarRow, EventDeletion, EventTime};
use kalends_core::id::UserId;
use kalends_core::queue::command::LeaseToken;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::http::Request;
use crate::neo4j::Neo4jEmulator;
use crate::neo4j::Neo4jEmulatorSettings;

const WRITES: usize = 2_000;

fn calendar() -> CalendarId {
    CalendarId::new("primary").unwrap()
}

fn row(rng: &mut KalendsRng) -> EventRow {
    let number = uniform(rng, 7);
    let series = (number >= 4).then(|| format!("e{}", number % 2));
    let at = |ms: u64| EventTime {
        text: format!("2026-03-02T09:00:{ms:02}Z"),
        epoch_ms: ms.cast_signed(),
        zone: None,
    };
    EventRow {
        id: format!("e{number}"),
        version: uniform(rng, 9).cast_signed(),
        etag: "\"1\"".to_owned(),
        status: "confirmed".to_owned(),
        name: Some(format!("name {}", uniform(rng, 1))),
        description: None,
        location: None,
        start: at(1),
        end: at(2),
        all_day: false,
        created: None,
        updated: None,
        sequence: 0,
        ical_uid: None,
        event_type: "default".to_owned(),
        visibility: None,
        transparency: None,
        recurrence: Vec::new(),
        original_start: series.is_some().then(|| at(uniform(rng, 20))),
        series_id: series,
        series_until_ms: (uniform(rng, 3) == 0).then(|| uniform(rng, 20).cast_signed()),
        organizer: None,
        attendees: Vec::new(),
        attendees_omitted: false,
    }
}

fn draw(rng: &mut KalendsRng, user: &UserId) -> GraphWrite {
    let (user, fence) = (user.clone(), LeaseToken(10 + uniform(rng, 8).min(2)));
    match uniform(rng, 12) {
        0 => GraphWrite::RemoveCalendar {
            user,
            fence,
            calendar: calendar(),
        },
        1 => GraphWrite::Sweep {
            user,
            fence,
            calendar: calendar(),
            generation: uniform(rng, 5),
        },
        2 => GraphWrite::Spare {
            user,
            fence,
            calendar: calendar(),
            generation: uniform(rng, 5),
            events: (0..7).step_by(2).map(|event| format!("e{event}")).collect(),
        },
        _ => {
            let mut upserts: Vec<EventRow> = (0..uniform(rng, 3)).map(|_| row(rng)).collect();
            upserts.sort_by(|left, right| left.id.cmp(&right.id));
            upserts.dedup_by(|left, right| left.id == right.id);
            let mut deletions = Vec::new();
            if uniform(rng, 2) == 0 {
                let id = format!("e{}", uniform(rng, 7));
                if upserts.iter().all(|row| row.id != id) {
                    let version = uniform(rng, 9).cast_signed();
                    deletions.push(EventDeletion { id, version });
                }
            }
            GraphWrite::Apply {
                user,
                fence,
                calendar: CalendarRow {
                    id: calendar(),
                    name: None,
                    time_zone: None,
                    access_role: None,
                },
                generation: uniform(rng, 5),
                upserts,
                deletions,
            }
        }
    }
}

/// The first row of each statement's answer, by column.
fn ask(server: &mut Neo4jEmulator, write: &GraphWrite) -> GraphReply {
    let mut counts = GraphCounts::default();
    for (index, statement) in split(write).into_iter().enumerate() {
        loop {
            let body = json!({
                "statement": statement.text, "parameters": statement.parameters, "includeCounters": true,
                "accessMode": "WRITE", "bookmarks": [],
            });
            let login = STANDARD.encode("neo4j:kalends");
            let request = Request::post("/db/neo4j/query/v2", body.to_string())
                .with_header("authorization", format!("Basic {login}"))
                .with_header("content-type", "application/json")
                .with_header("accept", "application/json");
            let answer = server.handle(Timestamp::EPOCH, &request);
            let answer: Value = serde_json::from_slice(&answer.body).unwrap();
            let fields = answer["data"]["fields"].as_array();
            let fields = fields.unwrap_or_else(|| panic!("{answer}"));
            let column = |name: &str| {
                let place = fields.iter().position(|field| field == name)?;
                Some(answer["data"]["values"][0][place].clone())
            };
            if column("fenced") == Some(json!(true)) {
                return GraphReply::Fenced;
            }
            let count = |name: &str| column(name).and_then(|value| value.as_u64()).unwrap_or(0);
            if index == 0 {
                counts.upserted += count("upserted");
                counts.deleted += count("deleted");
            }
            if matches!(write, GraphWrite::Apply { .. }) || count("deleted") < REMOVE_EVENTS_MAX {
                break;
            }
        }
    }
    GraphReply::Written(counts)
}

fn events(server: &Neo4jEmulator) -> Vec<(String, i64, u64, Option<String>)> {
    let graph = server.graph("neo4j").unwrap();
    let mut events: Vec<_> = graph
        .nodes()
        .filter(|(_, node)| node.label == "Event")
        .map(|(_, node)| {
            let property = |name: &str| node.properties.get(name).cloned().unwrap_or(Value::Null);
            (
                property("google_event_id").as_str().unwrap().to_owned(),
                property("version").as_i64().unwrap(),
                property("generation").as_u64().unwrap(),
                property("name").as_str().map(str::to_owned),
            )
        })
        .collect();
    events.sort();
    events
}

#[test]
fn the_value_and_the_emulated_server_agree_on_random_writes() {
    let mut rng = substream(11, "graph writes");
    let user = UserId::new("ada@example.com").unwrap();
    let (mut fenced, mut deleted, mut upserted) = (0, 0, 0);
    for round in 0..20 {
        let mut server = Neo4jEmulator::new(Neo4jEmulatorSettings::default());
        let mut value = UserGraph::default();
        for step in 0..WRITES / 20 {
            let write = draw(&mut rng, &user);
            let wanted = ask(&mut server, &write);
            let reply = value.write(write.clone());
            assert_eq!(reply, wanted, "round {round}, step {step}: {write:?}");
            match reply {
                GraphReply::Fenced => fenced += 1,
                GraphReply::Written(counts) => {
                    upserted += counts.upserted;
                    deleted += counts.deleted;
                }
            }
            let snapshot = value.snapshot();
            let mine: Vec<_> = snapshot
                .events
                .into_iter()
                .map(|event| {
                    (
                        event.row.id,
                        event.row.version,
                        event.generation,
                        event.row.name,
                    )
                })
                .collect();
            assert_eq!(
                mine,
                events(&server),
                "round {round}, step {step}: {write:?}"
            );
        }
    }
    assert!(
        fenced > 100 && deleted > 100 && upserted > 500,
        "{fenced} {deleted} {upserted}"
    );
}
