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

    /// Every operation: its method in small letters, its path, and the rest.
    pub(crate) fn operations(&self) -> Vec<(String, String, Value)> {
        let mut all = Vec::new();
        for (path, operations) in self.0["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                all.push((method.clone(), path.clone(), operation.clone()));
            }
        }
        all
    }

    /// How a value differs from a schema.
    pub(crate) fn wrong(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.differences(schema, value, "", &mut wrong);
        wrong
    }

    /// Values of a simple schema in a query, right and wrong ones; none of a text, of which only its reader knows.
    pub(crate) fn texts(&self, schema: &Value) -> (Vec<String>, Vec<String>) {
        let schema = self.resolve(schema);
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        if let Some(words) = schema["enum"].as_array() {
            let words = words.iter().map(|word| word.as_str().unwrap().to_owned());
            return (words.collect(), owned(&["planted", "", "TRUE"]));
        }
        match schema["type"].as_str().unwrap() {
            "boolean" => (owned(&["true", "false"]), owned(&["planted", "1"])),
            "integer" => {
                let bound = |name: &str| schema[name].as_u64().unwrap();
                let (min, max) = (bound("minimum"), bound("maximum"));
                let mut wrong: Vec<String> =
                    owned(&["planted", "1.5", "-1", "99999999999999999999"]);
                wrong.extend([min - 1, max + 1].map(|number| number.to_string()));
                (vec![min.to_string(), max.to_string()], wrong)
            }
            "string" => (Vec::new(), Vec::new()),
            other => panic!("{other} in a query"),
        }
    }

    /// The bounds of numbers that none of these right values reaches.
    pub(crate) fn untried_bounds(&self, schema: &Value, right: &[Value]) -> Vec<String> {
        let schema = self.resolve(schema);
        let mut untried = Vec::new();
        for bound in ["minimum", "maximum"] {
            let has_both = !schema["minimum"].is_null() && !schema["maximum"].is_null();
            if has_both && !right.contains(&schema[bound]) {
                untried.push(format!("{bound} of {schema}"));
            }
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let fields = right.iter().map(|value| &value[name]).cloned();
            untried.extend(self.untried_bounds(property, &fields.collect::<Vec<_>>()));
        }
        untried
    }

    /// Everything that is one fault away from a right value.
    pub(crate) fn spoilt(&self, schema: &Value, right: &Value) -> Vec<Value> {
        let schema = self.resolve(schema);
        let mut spoilt: Vec<Value> = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1.5),
            json!("planted"),
            json!([]),
            json!({}),
        ]
        .into();
        for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
            spoilt.extend(schema[bound].as_i64().map(|bound| json!(bound + beyond)));
        }
        let text = |length: u64| json!("x".repeat(usize::try_from(length).unwrap()));
        spoilt.extend(schema["minLength"].as_u64().map(|length| text(length - 1)));
        spoilt.extend(schema["maxLength"].as_u64().map(|length| text(length + 1)));
        spoilt.extend((schema["enum"] == json!([true])).then_some(json!(false)));
        if let Some(fields) = right.as_object() {
            let mut more = fields.clone();
            more.insert("planted".to_owned(), json!(1));
            spoilt.push(Value::Object(more));
            for (name, field) in fields {
                let mut less = fields.clone();
                less.remove(name);
                spoilt.push(Value::Object(less));
                for wrong in self.spoilt(&schema["properties"][name], field) {
                    // Null is the same as nothing where a field may be left out.
                    if !wrong.is_null() {
                        let mut other = fields.clone();
                        other.insert(name.clone(), wrong);
                        spoilt.push(Value::Object(other));
                    }
                }
            }
        }
        spoilt.retain(|value| !self.wrong(schema, value).is_empty());
        spoilt
    }

    fn resolve<'schema>(&'schema self, schema: &'schema Value) -> &'schema Value {
        match schema["$ref"].as_str() {
            None => schema,
            Some(reference) => self
                .0
                .pointer(&reference[1..])
                .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        }
    }

    fn differences(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let types = match &schema["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            other => panic!("{at}: a schema without a type: {other}"),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
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
        for (bound, is_beyond) in [
            ("minimum", i64::lt as fn(&i64, &i64) -> bool),
            ("maximum", i64::gt),
        ] {
            if let (Some(bound), Some(number)) = (schema[bound].as_i64(), value.as_i64())
                && is_beyond(&number, &bound)
            {
                wrong.push(format!("{at} is {number}, beyond {bound}"));
            }
        }
        for (bound, is_beyond) in [
            ("minLength", u64::lt as fn(&u64, &u64) -> bool),
            ("maxLength", u64::gt),
        ] {
            if let (Some(bound), Some(text)) = (schema[bound].as_u64(), value.as_str())
                && is_beyond(&(text.chars().count() as u64), &bound)
            {
                wrong.push(format!("{at} has another length than {bound}"));
            }
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
        if let Some(ways) = schema["oneOf"].as_array() {
            // The document uses it for fields of which exactly one is given.
            let is_given = |way: &&Value| fields.contains_key(way["required"][0].as_str().unwrap());
            let given = ways.iter().filter(is_given).count();
            if given != 1 {
                wrong.push(format!("{at}: {given} of {ways:?} are given"));
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
