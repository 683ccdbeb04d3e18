//! Alerts and dashboard: every alert says what to do, fires in a case of `deploy/prometheus/kalends.rules.test.yml` and is quiet in
//! another, by Prometheus' own tool; and what cases and dashboard name is what a real process serves.

#![allow(
    clippy::unwrap_used,
    reason = "all of this file is a test, its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use kalends_tests::google_server::GoogleServer;
use kalends_tests::http_client::ask_api;
use kalends_tests::kalends_toml::KalendsToml;
use kalends_tests::metrics_text::{Metrics, parse, sample};
use kalends_tests::process::{Process, status, wait_until};
use saphyr::{LoadableYamlNode as _, Yaml};
use serde_json::{Value, json};

const TOKEN: &str = "planted-api-token-81c2";
/// Metrics that have no sample until something rare has happened: what asks for them is only parsed.
const RARE: [&str; 2] = [
    "kalends_ticks_missed_total",
    "kalends_effects_timed_out_total",
];
/// Labels whose values are a fleet's own.
const FLEET: [&str; 4] = ["instance", "job", "source", "schedule"];

fn path(file: &str) -> PathBuf {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    deploy.join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap()
}

/// Runs Prometheus' tool on a file; what it says.
fn promtool(what: [&str; 2], file: &Path) -> Result<String, String> {
    let ended = Command::new("promtool").args(what).arg(file).output();
    let ended = ended.expect("promtool is on the PATH; scripts/test fetches it");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned()
        + &String::from_utf8_lossy(&ended.stderr);
    match ended.status.success() {
        true => Ok(said),
        false => Err(said),
    }
}

/// What a node of YAML holds under `key`, one after another.
fn each<'yaml>(yaml: &'yaml Yaml<'yaml>, key: &str) -> impl Iterator<Item = &'yaml Yaml<'yaml>> {
    let found = yaml.as_mapping_get(key);
    found.and_then(Yaml::as_sequence).into_iter().flatten()
}

#[test]
fn every_alert_says_what_to_do_and_has_a_case_that_fires_and_one_that_is_quiet() {
    let text = read("prometheus/kalends.rules.yml");
    let rules = Yaml::load_from_str(&text).unwrap();
    let mut alerts = BTreeSet::new();
    for rule in each(&rules[0], "groups").flat_map(|group| each(group, "rules")) {
        let name = rule["alert"].as_str().unwrap();
        assert!(alerts.insert(name.to_owned()), "{name} is there twice");
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(
            ["info", "warning", "critical"].contains(&severity),
            "{name}"
        );
        for told in ["summary", "what_to_do"] {
            let words = rule["annotations"][told].as_str().unwrap();
            assert!(words.len() > 10, "{name}: {told}");
        }
    }
    assert!(alerts.len() > 15, "{alerts:?}");
    let text = read("prometheus/kalends.rules.test.yml");
    let cases = Yaml::load_from_str(&text).unwrap();
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    for asked in each(&cases[0], "tests").flat_map(|case| each(case, "promql_expr_test")) {
        let (_, labels, _) = sample(&format!("{} 0", asked["expr"].as_str().unwrap()));
        assert_eq!(labels["alertstate"], "firing");
        match each(asked, "exp_samples").count() {
            0 => quiet.insert(labels["alertname"].clone()),
            _ => firing.insert(labels["alertname"].clone()),
        };
    }
    assert_eq!(firing, alerts, "each fires in some case");
    assert_eq!(quiet, alerts, "each is quiet in some case");
}

#[test]
#[ignore = "needs promtool; scripts/test runs it"]
fn every_alert_fires_when_it_should_and_stays_quiet_when_it_should() {
    let said = promtool(["check", "rules"], &path("prometheus/kalends.rules.yml")).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
    promtool(
        ["test", "rules"],
        &path("prometheus/kalends.rules.test.yml"),
    )
    .unwrap();
}

/// What a process of a small fleet serves.
fn served() -> String {
    let folder = tempfile::tempdir().unwrap();
    let google = GoogleServer::start(3, 6, 3);
    KalendsToml::of(&google)
        .set("http", "token", &format!("{TOKEN:?}"))
        .write(folder.path());
    let (process, address) = Process::serve(folder.path(), &[]);
    wait_until("the first syncs", || {
        status(folder.path())["completed_total"] == 6
    });
    let (status, text) = ask_api(&address, TOKEN, "GET", "/metrics", "");
    assert_eq!(status, 200, "{text}");
    process.stop();
    text
}

/// Where it is shown, and what is asked for.
fn dashboard() -> BTreeMap<String, String> {
    let board: Value = serde_json::from_str(&read("grafana/kalends.json")).unwrap();
    let mut expressions = BTreeMap::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let name = format!(
                "panel_{}_{}",
                panel["id"],
                target["refId"].as_str().unwrap()
            );
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$__rate_interval", "5m");
            assert!(!expression.contains('$'), "{expression}");
            assert!(expressions.insert(name, expression).is_none());
        }
    }
    assert!(expressions.len() > 20, "{expressions:?}");
    expressions
}

/// Prometheus' own series of this page's samples, all of which stay as they are.
fn series(metrics: &Metrics) -> Vec<Value> {
    let samples = metrics.values().flat_map(|(_, samples)| samples);
    let series = samples.map(|(name, (labels, value))| {
        let own = labels.iter().map(|(label, text)| format!("{label}={text:?}"));
        let given = ["job=\"kalends\"", "instance=\"a\""].map(str::to_owned);
        let labels: Vec<String> = own.chain(given).collect();
        json!({ "series": format!("{name}{{{}}}", labels.join(",")), "values": format!("{value}x20") })
    });
    series.collect()
}

#[test]
#[ignore = "needs promtool; scripts/test runs it"]
fn what_the_dashboard_asks_for_is_found_in_what_a_process_serves() {
    let metrics = parse(&served());
    let folder = tempfile::tempdir().unwrap();
    let expressions = dashboard();
    // As rules, they are parsed. JSON is YAML.
    let rules: Vec<Value> = expressions
        .iter()
        .map(|(name, expression)| json!({ "record": name, "expr": expression }))
        .collect();
    let file = folder.path().join("rules.json");
    let group = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    std::fs::write(&file, group.to_string()).unwrap();
    let said = promtool(["check", "rules"], &file).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");

    let is_rare = |expression: &str| RARE.iter().any(|name| expression.contains(name));
    let asked: Vec<Value> = expressions
        .values()
        .filter(|expression| !is_rare(expression))
        .map(|expression| {
            json!({
                "expr": format!("count({expression}) > bool 0"),
                "eval_time": "10m",
                "exp_samples": [{ "labels": "{}", "value": 1 }],
            })
        })
        .collect();
    assert!(expressions.len() - asked.len() <= RARE.len());
    let case =
        json!({ "interval": "1m", "input_series": series(&metrics), "promql_expr_test": asked });
    let file = folder.path().join("cases.json");
    let cases = json!({ "evaluation_interval": "1m", "tests": [case] });
    std::fs::write(&file, cases.to_string()).unwrap();
    promtool(["test", "rules"], &file).unwrap();
}

#[test]
fn the_cases_of_the_alerts_are_made_of_series_that_a_process_serves() {
    let metrics = parse(&served());
    let served: Vec<_> = metrics.values().flat_map(|(_, samples)| samples).collect();
    let text = read("prometheus/kalends.rules.test.yml");
    let cases = Yaml::load_from_str(&text).unwrap();
    let mut checked = 0;
    for series in each(&cases[0], "tests").flat_map(|case| each(case, "input_series")) {
        let series = series["series"].as_str().unwrap();
        let (name, labels, _) = sample(&format!("{series} 0"));
        if name == "up" || RARE.contains(&name.as_str()) {
            continue;
        }
        let is_given = |label: &str| label == "instance" || label == "job";
        let is_alike = |(found, (own, _)): &&(String, (BTreeMap<String, String>, f64))| {
            // How writes failed is told only when some did.
            let is_open = |label: &str| {
                FLEET.contains(&label)
                    || (name == "kalends_graph_writes_total" && label == "outcome")
            };
            let mut all = labels.iter().filter(|(label, _)| !is_given(label));
            *found == name
                && own
                    .keys()
                    .eq(labels.keys().filter(|label| !is_given(label)))
                && all.all(|(label, text)| is_open(label) || own[label] == *text)
        };
        assert!(served.iter().copied().any(|one| is_alike(&one)), "{series}");
        checked += 1;
    }
    assert!(checked > 30, "{checked}");
}
