//! The API's description and the table of routes name the same things.

use std::collections::BTreeSet;

use serde_json::Value;

use super::page::OPENAPI;
use super::routes::{ROUTES, Route};

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
