//! The API's description, the table of routes and the command line name the same things.

use std::collections::BTreeSet;

use clap::Parser as _;
use serde_json::Value;

use super::page::OPENAPI;
use super::routes::{Endpoint, ROUTES, Route};
use crate::cli::Cli;

#[test]
fn every_route_is_described_and_every_description_is_served() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let served: BTreeSet<String> = ROUTES
        .iter()
        .map(|Route(method, path, _)| format!("{method} {path}"))
        .collect();
    assert_eq!(served.len(), ROUTES.len(), "a route is there twice");
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert(format!("{} {path}", method.to_uppercase()));
            let named = operation["parameters"].as_array();
            let in_path = |parameter: &&Value| parameter["in"] == "path";
            let named = named.map_or(0, |named| named.iter().filter(in_path).count());
            assert_eq!(named, path.matches('{').count(), "{method} {path}");
            // Whatever changes something says that it needs the token.
            let needs_token = operation["security"] == serde_json::json!([{ "bearer": [] }]);
            assert_eq!(needs_token, method != "get", "{method} {path}");
        }
    }
    assert_eq!(served, described);
}

#[test]
fn every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut references = BTreeSet::new();
    gather(&document, &mut references);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let there: BTreeSet<String> = schemas
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    assert_eq!(references, there);
}

fn gather(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(reference) => drop(references.insert(reference.to_owned())),
                    None => gather(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, references)),
        _ => {}
    }
}

/// By which commands a person does what a route does; or, without any, who else asks it and why no command does.
fn commands(endpoint: Endpoint) -> Result<&'static [&'static str], &'static str> {
    Ok(match endpoint {
        Endpoint::Page | Endpoint::Script | Endpoint::Style => {
            return Err("the page itself: every part of it is a command below");
        }
        Endpoint::Health => return Err("whether the process lives: its supervisor sees that"),
        Endpoint::OpenApi => return Err("describes the API to programs; commands have --help"),
        Endpoint::Metrics => {
            return Err("for Prometheus: counters of the one process that is asked");
        }
        Endpoint::Ready => &["doctor", "doctor --json"],
        Endpoint::Status => &["status", "status --json", "limits", "schedules list"],
        Endpoint::Events => &["status --json"],
        Endpoint::Jobs => &[
            "jobs list",
            "jobs list --state waiting --after 50 --limit 200",
            "jobs list --state delayed",
            "jobs list --state active",
            "jobs list --state completed",
            "jobs list --state failed --json",
        ],
        Endpoint::RetryJobs => &["jobs retry 17", "jobs retry --all"],
        Endpoint::DiscardJobs => &["jobs discard 17", "jobs discard --all"],
        Endpoint::CancelJob => &[
            "jobs cancel ada@example.com",
            "jobs cancel ada@example.com --source google-calendar",
            "jobs cancel --schedule calendar-sync",
        ],
        Endpoint::Users => &[
            "users list",
            "users list --needs-reauth",
            "users list --json",
        ],
        Endpoint::User => &[
            "users show ada@example.com",
            "users show ada@example.com --json",
        ],
        Endpoint::Sync => &["sync ada@example.com", "sync --all"],
        Endpoint::Pause => &[
            "pause --reason x",
            "pause --reason x --source google-calendar",
        ],
        Endpoint::Resume => &["resume", "resume --source google-calendar"],
        Endpoint::Limits => &[
            "limits --jobs 20 --window-ms 60000 --source google-calendar",
            "limits --jobs unlimited",
        ],
        Endpoint::DefineSchedule => &[
            "schedules set nightly --cron * --time-zone UTC --catch-up skip --source google-calendar",
        ],
        Endpoint::RemoveSchedule => &["schedules remove nightly"],
        Endpoint::Reload => &["reload"],
    })
}

#[test]
fn every_route_has_a_command_that_is_accepted() {
    for Route(method, path, endpoint) in ROUTES {
        match commands(*endpoint) {
            Err(why) => {
                assert!(!why.is_empty());
                assert_eq!(
                    *method, "GET",
                    "{path} changes something and has no command"
                );
            }
            Ok(lines) => {
                assert!(!lines.is_empty(), "{method} {path} has no command");
                for line in lines {
                    let typed = ["kalends"].into_iter().chain(line.split(' '));
                    if let Err(error) = Cli::try_parse_from(typed) {
                        panic!("{method} {path}: `kalends {line}`: {error}");
                    }
                }
            }
        }
    }
}
