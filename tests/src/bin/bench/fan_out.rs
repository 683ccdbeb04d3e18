//! A whole fan-out through a real node. Its memory is a figure, too, so the node has a process of its own: this program
//! again, which knows of the users only what the store tells it.

use std::sync::Arc;

use kalends::driver::Ports;
use kalends_tests::fan_out_bench;
use serde_json::{Value, json};

use crate::queue::{Unchanged, settings, source, store_at};

/// The word with which this program is that process.
pub(crate) const FAN_OUT: &str = "fan-out";

/// In the process of the node: fires a tick, and prints what came of it as one JSON object.
pub(crate) async fn node(url: &str, prefix: &str) -> Result<(), String> {
    let ports = Ports {
        store: Arc::new(store_at(url, prefix)?),
        source: Arc::new(Unchanged),
        graph: Arc::new(Unchanged),
    };
    let measured = fan_out_bench::run(source(), settings(), ports).await?;
    let users = measured.users;
    let (seconds, peak_rss_mb) = (measured.seconds, measured.peak_rss_mb);
    println!(
        "{}",
        json!({ "users": users, "seconds": seconds, "peak_rss_mb": peak_rss_mb })
    );
    Ok(())
}

/// What a fan-out of all users under `prefix` took.
pub(crate) struct FanOut {
    pub(crate) users: f64,
    pub(crate) seconds: f64,
    pub(crate) peak_rss_mb: f64,
}

/// Starts that process, and waits for it.
pub(crate) fn measure(url: &str, prefix: &str) -> Result<FanOut, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = std::process::Command::new(program)
        .args([FAN_OUT, "--redis", url, "--prefix", prefix])
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let told: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let number = |name: &str| {
        told[name]
            .as_f64()
            .ok_or_else(|| format!("the fan-out said no {name}"))
    };
    Ok(FanOut {
        users: number("users")?,
        seconds: number("seconds")?,
        peak_rss_mb: number("peak_rss_mb")?,
    })
}
