//! Log lines: text for people or JSON for machines, on standard error.
//!
//! Only lines of Kalends itself are shown at the wanted level. Libraries are heard from `warn` on and no finer,
//! whatever the level: at `debug` and `trace` an HTTP library may print headers, and headers hold tokens.

use std::io;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// The crates whose lines are shown at the wanted level.
const OWN_TARGETS: [&str; 4] = ["kalends", "kalends_core", "kalends_adapters", "kalends_sim"];

/// Sends log lines of this process to standard error. Called once; a second call changes nothing.
pub fn start(config: LogConfig) {
    // The only error is that a subscriber is there already: tests of a whole process set one each.
    let _ = tracing::subscriber::set_global_default(subscriber(config, io::stderr));
}

/// What turns events into lines for `writer`.
pub fn subscriber<W>(config: LogConfig, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let filter = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(OWN_TARGETS.map(|target| (target, level)));
    let layer = match config.format {
        LogFormat::Text => fmt::layer()
            .with_ansi(false)
            .with_writer(writer)
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_writer(writer)
            .with_filter(filter)
            .boxed(),
    };
    Registry::default().with(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_of(config: LogConfig) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing::subscriber::with_default(subscriber(config, move || writer.clone()), || {
            tracing::info!(target: "kalends::driver", users = 3, "started");
            tracing::debug!(target: "kalends_adapters::google", "asked");
            tracing::debug!(target: "hyper", "authorization: Bearer PLANTED");
            tracing::warn!(target: "hyper", "odd");
        });
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn libraries_never_speak_below_warn() {
        let lines = lines_of(LogConfig {
            format: LogFormat::Text,
            level: LogLevel::Trace,
        });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(!lines.concat().contains("PLANTED"));
        let quiet = lines_of(LogConfig {
            format: LogFormat::Text,
            level: LogLevel::Error,
        });
        assert!(quiet.is_empty(), "{quiet:?}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let lines = lines_of(LogConfig {
            format: LogFormat::Json,
            level: LogLevel::Info,
        });
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["message"], "started");
        assert_eq!(first["users"], 3);
        assert_eq!(first["level"], "INFO");
        assert_eq!(lines.len(), 2);
    }
}
