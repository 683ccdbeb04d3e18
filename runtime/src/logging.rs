//! Log lines: text for people or JSON for machines, on standard error.
//!
//! Only lines of Kalends itself are shown at the wanted level. Libraries are heard from `warn` on and no finer,
//! whatever the level: at `debug` and `trace` an HTTP library may print headers, and headers hold tokens.

use std::fmt as std_fmt;
use std::io;
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::spans;

/// What else is done with events and spans.
pub(crate) type BoxedLayer = Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>;

/// The crates whose lines are shown at the wanted level.
const OWN_TARGETS: [&str; 4] = ["kalends", "kalends_core", "kalends_adapters", "kalends_sim"];

/// Changes the level of the lines that are shown, while the process runs.
#[derive(Clone)]
pub struct LevelControl(Option<Arc<dyn Fn(LogLevel) + Send + Sync>>);

impl LevelControl {
    /// One that changes nothing: for a program that shows the lines in its own way.
    #[must_use]
    pub fn none() -> Self {
        LevelControl(None)
    }

    /// Shows lines from `level` on, from now on.
    pub fn set(&self, level: LogLevel) {
        if let Some(set) = &self.0 {
            set(level);
        }
    }
}

impl std_fmt::Debug for LevelControl {
    fn fmt(&self, formatter: &mut std_fmt::Formatter<'_>) -> std_fmt::Result {
        formatter.write_str("LevelControl")
    }
}

/// Sends log lines of this process to standard error. Called once; a second call changes nothing, and its control neither.
pub fn start(config: LogConfig) -> LevelControl {
    start_with(config, None)
}

/// As [`start`], with one who wants the spans.
pub(crate) fn start_with(config: LogConfig, traces: Option<BoxedLayer>) -> LevelControl {
    let (lines, control) = lines(config, io::stderr);
    let mut layers = vec![lines];
    layers.extend(traces);
    let subscriber = Registry::default().with(layers);
    match tracing::subscriber::set_global_default(subscriber) {
        Ok(()) => control,
        // A subscriber is there already: tests of a whole process set one each.
        Err(_) => LevelControl::none(),
    }
}

/// What turns events into lines for `writer`.
pub fn subscriber<W>(config: LogConfig, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    adjustable(config, writer).0
}

/// As [`subscriber`], and what changes its level.
pub fn adjustable<W>(config: LogConfig, writer: W) -> (impl Subscriber + Send + Sync, LevelControl)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (lines, control) = lines(config, writer);
    (Registry::default().with(lines), control)
}

fn lines<W>(config: LogConfig, writer: W) -> (BoxedLayer, LevelControl)
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(config.level));
    let control = LevelControl(Some(Arc::new(move |level| {
        // It fails only if the subscriber is gone, and then there are no lines.
        let _ = handle.reload(self::filter(level));
    })));
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
    (layer, control)
}

fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(OWN_TARGETS.map(|target| (target, level)))
        // Spans are for traces; what is worth a line has one.
        .with_target(spans::TARGET, LevelFilter::OFF)
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
    fn the_level_can_be_changed_and_libraries_stay_quiet() {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = LogConfig {
            format: LogFormat::Text,
            level: LogLevel::Warn,
        };
        let (subscriber, control) = adjustable(config, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            for (level, number) in [
                (LogLevel::Trace, 1),
                (LogLevel::Error, 2),
                (LogLevel::Info, 3),
            ] {
                control.set(level);
                tracing::info!(target: "kalends::driver", number, "said");
                tracing::debug!(target: "hyper", number, "PLANTED");
            }
        });
        let bytes = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert!(
            text.contains("number=1") && text.contains("number=3"),
            "{text}"
        );
        assert!(
            !text.contains("number=2") && !text.contains("PLANTED"),
            "{text}"
        );
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
