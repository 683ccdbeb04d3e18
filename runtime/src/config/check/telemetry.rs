//! The section `[telemetry]`: where traces go, if this build can send them.

use url::Url;

use super::super::TelemetryConfig;
use super::Checker;

impl Checker<'_> {
    pub(super) fn telemetry(&mut self) -> Option<TelemetryConfig> {
        if self.given("telemetry", "otlp_endpoint").is_none() {
            return Some(TelemetryConfig::default());
        }
        let endpoint = self.parse("telemetry", "otlp_endpoint", endpoint)?;
        if !cfg!(feature = "otel") {
            self.wrong(
                "telemetry",
                "otlp_endpoint",
                "is set, but this kalends was built without traces; build it by `cargo build --release --features otel`, \
                 or leave the setting out",
            );
            return None;
        }
        Some(TelemetryConfig {
            otlp_endpoint: Some(endpoint),
        })
    }
}

/// The address of a collector. It may be another machine's without TLS: nothing secret goes there, and it is asked for none.
fn endpoint(text: &str) -> Result<String, String> {
    let example =
        "write one such as \"http://127.0.0.1:4318\", where a collector takes OTLP over HTTP";
    let Ok(url) = Url::parse(text.trim()) else {
        return Err(format!("is not an address; {example}"));
    };
    // A wrong address is not repeated: it may hold a password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "holds a user name or a password, which are not sent; {example}"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("holds a `?` or a `#`; {example}"));
    }
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("is neither http:// nor https://; {example}"));
    }
    let path = url.path().trim_end_matches('/');
    if path.ends_with("/v1/traces") {
        return Err("ends with /v1/traces, which is added to it; leave that out".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}
