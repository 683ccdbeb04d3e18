//! `kalends config check` and `kalends config show`: nothing is started and nothing is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kalends_core::policy::{Limit, Spread};

use crate::cli::ConfigCommand;
use crate::config::{
    CalendarSelection, GoogleAuth, GraphConfig, GraphDatabases, LoadError, Loaded, load, settings,
    show,
};
use crate::exit::Exit;

/// What a command says, and how it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub output: String,
    /// For standard error.
    pub errors: String,
    /// The exit code.
    pub exit: Exit,
}

/// Does what `command` says, with `environment` as the variables of the process.
#[must_use]
pub fn config(command: &ConfigCommand, environment: &BTreeMap<String, String>) -> Outcome {
    let (run, report): (_, fn(&Loaded) -> String) = match command {
        ConfigCommand::Check(check) => (&check.run, in_words),
        ConfigCommand::Show(show) if show.defaults => {
            return Outcome {
                output: settings::example_file(),
                errors: String::new(),
                exit: Exit::Done,
            };
        }
        ConfigCommand::Show(shown) => (&shown.run, show),
    };
    match load(&run.request(), environment) {
        Ok(loaded) => Outcome {
            output: report(&loaded),
            errors: warnings(&loaded),
            exit: Exit::Done,
        },
        Err(error) => Outcome {
            output: String::new(),
            errors: explain(&error),
            exit: Exit::BadInput,
        },
    }
}

/// The reasons why there is no configuration, ending in a line break.
#[must_use]
pub fn explain(error: &LoadError) -> String {
    format!("{error}\n")
}

/// The warnings, one a line.
#[must_use]
pub fn warnings(loaded: &Loaded) -> String {
    loaded
        .warnings
        .iter()
        .fold(String::new(), |mut text, warning| {
            let _ = writeln!(text, "warning: {warning}");
            text
        })
}

/// The main figures of a configuration.
fn in_words(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let definition = &config.schedule.definition;
    let mut text = format!(
        "{}: OK\n",
        loaded.file.as_deref().unwrap_or("the environment")
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    let spread = match config.schedule.spread {
        Spread::Even { step_ms_max } => format!("even, at most {step_ms_max} ms apart"),
        Spread::Stagger { step_ms } => format!("{step_ms} ms apart"),
        Spread::Phase => "each at a place of its own".to_owned(),
    };
    line(
        "schedule",
        format!(
            "{}: {definition}, catch up {}; {spread}, jitter up to {} ms",
            config.schedule.name, definition.catch_up, config.schedule.jitter.max_ms
        ),
    );
    let calendars = match &config.google.calendars {
        CalendarSelection::Primary => "the primary calendar".to_owned(),
        CalendarSelection::All => "all calendars".to_owned(),
        CalendarSelection::Listed(listed) => format!("{} listed calendars", listed.len()),
    };
    line(
        "users",
        format!(
            "{}: {calendars}, looking back {} days",
            config.users.len(),
            config.google.look_back_days
        ),
    );
    line(
        "limits",
        format!(
            "{}; {}; {} for each user",
            limit(config.limits.jobs, "syncs"),
            limit(config.limits.requests, "requests"),
            limit(config.limits.requests_per_user, "requests")
        ),
    );
    line(
        "worker",
        format!(
            "{}: {} at a time, {} attempts, lease {} ms, shutdown within {} ms",
            config.worker.name,
            config.worker.concurrency,
            config.retry.attempts_max,
            config.worker.lease_ms,
            config.worker.shutdown_ms
        ),
    );
    let auth = match config.google.auth {
        GoogleAuth::RefreshToken { .. } => "refresh tokens",
        GoogleAuth::ServiceAccount { .. } => "a service account",
    };
    line(
        "google",
        format!(
            "{} by {auth}, {} events a page",
            config.google.api_base_url, config.google.page_size
        ),
    );
    line(
        "graph",
        match &config.graph {
            GraphConfig::Embedded => "embedded".to_owned(),
            GraphConfig::Neo4j(neo4j) => match &neo4j.databases {
                GraphDatabases::Shared(name) => format!("Neo4j at {}, database {name}", neo4j.url),
                GraphDatabases::PerUser => format!("Neo4j at {}, a database a user", neo4j.url),
            },
        },
    );
    line(
        "store",
        match &config.redis {
            Some(redis) => format!("Redis at {}, prefix {}", redis.address(), redis.prefix),
            None => config.store.data_dir.display().to_string(),
        },
    );
    if let Some(listen) = config.http.listen {
        let changes = match config.http.token {
            Some(_) => "changes by token",
            None => "no token, so nothing can be changed there",
        };
        line("http", format!("http://{listen}, {changes}"));
    }
    text
}

fn limit(limit: Option<Limit>, what: &str) -> String {
    match limit {
        None => format!("{what} unlimited"),
        Some(Limit { count, window_ms }) if window_ms % 60_000 == 0 && window_ms > 0 => {
            match window_ms / 60_000 {
                1 => format!("{count} {what} a minute"),
                minutes => format!("{count} {what} in {minutes} minutes"),
            }
        }
        Some(Limit { count, window_ms }) => format!("{count} {what} in {window_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn outcome(arguments: &[&str]) -> Outcome {
        let cli = Cli::try_parse_from([&["kalends", "config"], arguments].concat()).unwrap();
        let Command::Config(command) = cli.command else {
            panic!("another command");
        };
        config(&command, &BTreeMap::new())
    }

    #[test]
    fn a_good_file_is_summed_up_and_a_bad_one_explained() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.toml");
        let name = path.to_str().unwrap();
        std::fs::write(
            &path,
            "[google]\nclient_id = \"id\"\nclient_secret = \"PLANTED\"\n[limits]\njobs = 20\n",
        )
        .unwrap();
        let good = outcome(&["check", "--config", name]);
        assert_eq!(good.exit, Exit::Done);
        let expected = [
            "k.toml: OK\n",
            "google-calendar at */15 * * * * in UTC, catch up once",
            "20 syncs a minute; 10000 requests a minute; 600 requests a minute for each user",
            "3 at a time, 3 attempts",
        ];
        for part in expected {
            assert!(good.output.contains(part), "{part}\n{}", good.output);
        }
        assert!(good.errors.starts_with("warning: users: there are none"));
        assert!(!format!("{good:?}").contains("PLANTED"));
        let bad = outcome(&["check", "--config", name, "--concurrency", "0"]);
        assert_eq!(bad.exit, Exit::BadInput);
        assert_eq!(bad.output, "");
        assert!(
            bad.errors
                .starts_with("--concurrency: worker.concurrency: is \"0\"; write"),
            "{}",
            bad.errors
        );
    }

    #[test]
    fn the_example_is_printed_without_any_configuration() {
        let shown = outcome(&["show", "--defaults"]);
        assert_eq!(shown.exit, Exit::Done);
        assert!(shown.output.contains("\ncron = \"*/15 * * * *\"\n"));
    }
}
