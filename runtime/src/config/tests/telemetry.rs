//! The section `[telemetry]`: an address of a collector, and a build that can send.

use super::*;

const USER: &str = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";

fn with_endpoint(endpoint: &str) -> Case {
    let section = format!("[telemetry]\notlp_endpoint = {endpoint:?}\n");
    Case::new(&format!("{GOOGLE}{section}{USER}"))
}

#[test]
#[cfg(not(feature = "otel"))]
fn a_build_without_traces_says_how_to_have_them() {
    let problems = with_endpoint("http://127.0.0.1:4318").problems();
    assert_holds(
        &problems,
        &["telemetry.otlp_endpoint: is set", "--features otel"],
    );
    let by_variable = Case::new(&format!("{GOOGLE}{USER}"))
        .with_variable("KALENDS_TELEMETRY_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    assert_holds(&by_variable.problems(), &["--features otel"]);
}

#[test]
#[cfg(feature = "otel")]
fn a_collector_may_be_on_another_machine() {
    for (given, taken) in [
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318"),
        (
            "http://collector.monitoring:4318",
            "http://collector.monitoring:4318",
        ),
        (
            "https://otel.example.com/in/",
            "https://otel.example.com/in",
        ),
    ] {
        let config = with_endpoint(given).load().unwrap().config;
        assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some(taken));
    }
}

#[test]
fn what_is_no_address_is_told_without_what_it_may_hold() {
    for (given, word) in [
        ("127.0.0.1:4318", "is not an address"),
        ("collector", "is not an address"),
        ("grpc://collector:4317", "neither http:// nor https://"),
        ("http://ada:planted@collector:4318", "password"),
        ("http://collector:4318/?key=planted", "holds a `?`"),
        ("http://collector:4318/v1/traces", "leave that out"),
    ] {
        let problems = with_endpoint(given).problems();
        assert_holds(&problems, &["telemetry.otlp_endpoint: ", word]);
        assert!(!problems.contains("planted"), "{problems}");
    }
}
