//! Answers are what the OpenAPI document says: a small check of the part of JSON Schema that the document uses.

use serde_json::{Value, json};

use crate::face::Face;

/// The document, as it is served.
pub(crate) struct Document(Value);

impl Document {
    pub(crate) async fn of(face: &Face) -> Document {
        Document(face.get("/api/v1/openapi.json").await.expect(200).json())
    }

    /// Checks an answer against the schema of its operation.
    pub(crate) fn check(&self, method: &str, path: &str, status: u16, body: &Value) {
        let operation = &self.0["paths"][path][method];
        let content = &operation["responses"][status.to_string()]["content"];
        let content = content
            .as_object()
            .unwrap_or_else(|| panic!("{method} {path} has no answer {status}"));
        let (_, media) = content.iter().next().unwrap();
        let mut wrong = Vec::new();
        self.differences(&media["schema"], body, "", &mut wrong);
        assert!(
            wrong.is_empty(),
            "{method} {path} {status}: {wrong:#?}\n{body}"
        );
    }

    fn differences(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let found = self.0.pointer(&reference[1..]);
            let found = found.unwrap_or_else(|| panic!("{reference} leads nowhere"));
            return self.differences(found, value, at, wrong);
        }
        let types = match &schema["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            other => panic!("{at}: a schema without a type: {other}"),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.contains(&is) {
            return wrong.push(format!("{at} is {is}, not {types:?}"));
        }
        if let Some(known) = schema["enum"].as_array()
            && !known.contains(value)
        {
            wrong.push(format!("{at} is {value}, not one of {known:?}"));
        }
        if schema["format"] == "date-time" {
            let is_time = value
                .as_str()
                .is_none_or(|text| kalends_core::time::Timestamp::parse_rfc3339(text).is_some());
            if !is_time {
                wrong.push(format!("{at} is no time: {value}"));
            }
        }
        for (place, item) in value.as_array().into_iter().flatten().enumerate() {
            self.differences(&schema["items"], item, &format!("{at}[{place}]"), wrong);
        }
        let (Some(fields), Some(properties)) =
            (value.as_object(), schema["properties"].as_object())
        else {
            return;
        };
        for (name, field) in fields {
            match properties.get(name) {
                Some(schema) => self.differences(schema, field, &format!("{at}.{name}"), wrong),
                None => wrong.push(format!("{at}.{name} is not described")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{at}.{name} is missing"));
            }
        }
    }
}

#[tokio::test]
async fn the_check_finds_what_is_wrong() {
    let face = Face::start().await;
    let document = Document::of(&face).await;
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    for wrong in [
        json!([]),
        json!({ "type": "a", "title": "b", "status": 400 }),
        json!({ "type": "a", "title": "b", "status": "400", "detail": "c" }),
        json!({ "type": "a", "title": "b", "status": 400, "detail": "c", "more": 1 }),
    ] {
        let mut found = Vec::new();
        document.differences(&schema, &wrong, "", &mut found);
        assert!(!found.is_empty(), "{wrong}");
    }
}
