//! Prints every Cypher statement as one JSON array of `{name, text}`, for `scripts/lint-cypher`.

fn main() {
    let statements: Vec<serde_json::Value> = kalends_core::graph::cypher::ALL
        .iter()
        .map(|(name, text)| serde_json::json!({ "name": name, "text": text }))
        .collect();
    println!("{}", serde_json::Value::Array(statements));
}
