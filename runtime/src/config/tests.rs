//! Bad input gets a clear answer: each mistake with its file, line and key, all of them at once, no secret among them.

mod advice;
mod credentials;
mod fuzz;
mod http;
mod mistakes;
mod push;
mod redis;
mod telemetry;

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use kalends_core::policy::{CatchUp, CronExpression, TimeZone};
use kalends_core::queue::state::SourceSettings;

/// Planted wherever a secret may stand; it must not come out anywhere.
const PLANTED: &str = "PLANTED-4f1c";

/// The least that works, without its users.
const GOOGLE: &str = "[google]\nclient_id = \"id\"\nclient_secret = \"PLANTED-4f1c\"\n";

struct Case {
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    flags: Vec<(&'static str, String)>,
}

impl Case {
    fn new(text: &str) -> Self {
        let case = Case {
            folder: tempfile::tempdir().unwrap(),
            environment: BTreeMap::new(),
            flags: Vec::new(),
        };
        case.with_file("kalends.toml", text)
    }

    fn with_file(self, name: &str, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        self
    }

    fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn with_flag(mut self, flag: &'static str, value: &str) -> Self {
        self.flags.push((flag, value.to_owned()));
        self
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        let request = Request {
            file: None,
            flags: self.flags.clone(),
            folder: self.path().to_owned(),
        };
        load(&request, &self.environment)
    }

    fn config(&self) -> Config {
        match self.load() {
            Ok(loaded) => loaded.config,
            Err(error) => panic!("{error}"),
        }
    }

    /// All problems as text; none may hold the planted secret.
    fn problems(&self) -> String {
        let error = match self.load() {
            Ok(loaded) => panic!("accepted: {:?}", loaded.config),
            Err(error) => error,
        };
        let text = error.to_string();
        assert!(!text.contains(PLANTED), "a secret came out: {text}");
        assert!(!format!("{error:?}").contains(PLANTED));
        text
    }
}

fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn defaults_are_those_of_the_mission() {
    let config = Case::new(GOOGLE).config();
    let schedule = &config.schedule;
    assert_eq!(schedule.name.as_str(), "calendar-sync");
    assert_eq!(schedule.definition.source.as_str(), "google-calendar");
    assert_eq!(schedule.definition.cron, CronExpression::default());
    assert_eq!(schedule.definition.cron.as_str(), "*/15 * * * *");
    assert_eq!(schedule.definition.time_zone, TimeZone::UTC);
    assert_eq!(schedule.definition.catch_up, CatchUp::Once);
    assert_eq!(schedule.jitter.max_ms, 5_000);
    assert_eq!(schedule.spread, Spread::Even { step_ms_max: 1_000 });
    assert_eq!(config.worker.concurrency, 3);
    assert_eq!(config.worker.lease_ms, 30_000);
    assert_eq!(config.worker.shutdown_ms, 25_000);
    assert_eq!(config.worker.seed, None);
    assert_eq!(config.retry, Backoff::default());
    assert_eq!(config.retry.attempts_max, 3);
    assert_eq!(config.retry.base_ms, 1_000);
    assert_eq!(config.source_settings(), SourceSettings::default());
    assert_eq!(
        config.history,
        HistoryConfig {
            completed: 100,
            failed: 500
        }
    );
    assert_eq!(config.google.page_size, 250);
    assert_eq!(config.google.look_back_days, 90);
    assert_eq!(config.google.calendars, CalendarSelection::Primary);
    assert_eq!(
        config.google.api_base_url,
        "https://www.googleapis.com/calendar/v3"
    );
    assert_eq!(
        config.google.token_url,
        "https://oauth2.googleapis.com/token"
    );
    assert_eq!(config.graph, GraphConfig::Embedded);
    assert_eq!(config.log.level, LogLevel::Info);
    let built = Config::with_defaults(
        config.google.auth.clone(),
        Vec::new(),
        config.store.data_dir.clone(),
    );
    assert_eq!(built, config);
}

#[test]
fn the_example_file_says_what_is_the_default() {
    let text = settings::example_file()
        .replace("# client_id =", "client_id = \"id\"")
        .replace("# client_secret =", "client_secret = \"PLANTED-4f1c\"");
    let mut from_example = Case::new(&text).config();
    let plain = Case::new(GOOGLE).config();
    // Paths of the file are relative to its folder, the default to the working folder: here two folders.
    assert!(from_example.store.data_dir.ends_with("kalends-data"));
    from_example.store = plain.store.clone();
    assert_eq!(from_example, plain);
}

#[test]
fn flags_overrule_variables_and_variables_the_file() {
    let text = format!(
        "{GOOGLE}[worker]\nconcurrency = 4\nname = \"file\"\n[limits]\njobs = 20\n[log]\nlevel = \"warn\"\n"
    );
    let case = Case::new(&text)
        .with_variable("KALENDS_WORKER_CONCURRENCY", "5")
        .with_variable("KALENDS_WORKER_NAME", "variable")
        .with_variable("KALENDS_LIMITS_JOBS", "unlimited")
        .with_variable("KALENDS_GOOGLE_CLIENT_SECRET", "PLANTED-4f1c-too")
        .with_variable("KALENDS_GOOGLE_CALENDARS", "primary,team@example.com")
        .with_variable("PATH", "/bin")
        .with_flag("--concurrency", "6");
    let loaded = case.load().unwrap();
    let config = &loaded.config;
    assert_eq!(config.worker.concurrency, 6);
    assert_eq!(config.worker.name, "variable");
    assert_eq!(config.limits.jobs, None);
    assert_eq!(config.log.level, LogLevel::Warn);
    assert!(matches!(&config.google.calendars, CalendarSelection::Listed(ids) if ids.len() == 2));
    let GoogleAuth::RefreshToken { client_secret, .. } = &config.google.auth else {
        panic!("another kind");
    };
    assert_eq!(client_secret.expose(), "PLANTED-4f1c-too");
    let shown = show(&loaded);
    assert_holds(
        &shown,
        &[
            "concurrency = 6  # --concurrency\n",
            "name = \"variable\"  # environment KALENDS_WORKER_NAME\n",
            "level = \"warn\"  # kalends.toml:10\n",
            "cron = \"*/15 * * * *\"  # default\n",
            "jobs = \"unlimited\"  # environment KALENDS_LIMITS_JOBS\n",
            "calendars = [\"primary\", \"team@example.com\"]  # environment",
            "client_secret = \"***\"  # environment KALENDS_GOOGLE_CLIENT_SECRET\n",
            "# seed is not set\n",
        ],
    );
    assert!(toml::de::DeTable::parse(&shown).is_ok(), "{shown}");
}

#[test]
fn secrets_never_come_out() {
    let text = format!(
        "{GOOGLE}[graph]\nkind = \"neo4j\"\npassword = \"PLANTED-4f1c\"\n\
         [[users]]\nid = \"ada\"\nrefresh_token = \"PLANTED-4f1c\"\n"
    );
    let loaded = Case::new(&text).load().unwrap();
    let everything = format!("{loaded:?}{loaded:#?}{}", show(&loaded));
    assert!(!everything.contains(PLANTED), "{everything}");
    assert!(everything.contains("***"));
    // And the values are there for those who need them.
    let token = loaded.config.users[0].refresh_token.as_ref().unwrap();
    assert_eq!(token.expose(), PLANTED);
}

#[test]
fn secrets_come_from_files_and_variables() {
    let text = "[google]\nclient_id = \"id\"\nclient_secret_file = \"secret.txt\"\n\
                [[users]]\nid = \"ada\"\nrefresh_token_file = \"ada.token\"\n\
                [[users]]\nid = \"bob\"\nrefresh_token_env = \"KALENDS_TOKEN_OF_BOB\"\n";
    let case = Case::new(text)
        .with_file("secret.txt", "one\n")
        .with_file("ada.token", "two\n")
        .with_variable("KALENDS_TOKEN_OF_BOB", "three");
    let config = case.config();
    let GoogleAuth::RefreshToken { client_secret, .. } = &config.google.auth else {
        panic!("another kind");
    };
    let token = |index: usize| config.users[index].refresh_token.as_ref().unwrap().expose();
    assert_eq!(
        (client_secret.expose(), token(0), token(1)),
        ("one", "two", "three")
    );
    let case = case
        .with_file("secret.txt", "\n")
        .with_file("ada.token", "PLANTED-4f1c\nx");
    assert_holds(
        &case.problems(),
        &[
            "kalends.toml:3: google.client_secret_file: \"secret.txt\" is empty",
            "kalends.toml:6: users.refresh_token_file: \"ada.token\" holds more than one line",
        ],
    );
}

#[test]
fn a_service_account_needs_its_key_and_no_tokens() {
    let text = "[google]\nauth = \"service_account\"\nservice_account_key_file = \"key.json\"\n[[users]]\nid = \"ada@example.com\"\n";
    let key = serde_json::json!({
        "client_email": "a@example.com",
        "private_key": include_str!("../../../adapters/tests/data/test_only_private_key.pem"),
    })
    .to_string();
    let config = Case::new(text).with_file("key.json", &key).config();
    let GoogleAuth::ServiceAccount { key_json } = &config.google.auth else {
        panic!("another kind");
    };
    assert_eq!(key_json.expose(), key);
    assert_eq!(config.users[0].refresh_token, None);
    let at = "kalends.toml:3: google.service_account_key_file: \"key.json\" ";
    let bad = Case::new(text).with_file("key.json", "{\"private_key\": \"PLANTED-4f1c\"}");
    assert_holds(&bad.problems(), &[at, "has no client_email"]);
    let unusable = "{\"client_email\": \"a@example.com\", \"private_key\": \"PLANTED-4f1c\"}";
    let bad = Case::new(text).with_file("key.json", unusable);
    assert_holds(&bad.problems(), &[at, "no RSA key"]);
    let bad = Case::new(text).with_file("key.json", "PLANTED-4f1c");
    assert_holds(&bad.problems(), &[at, "is not JSON (line 1)"]);
    assert_holds(&Case::new(text).problems(), &[at, "cannot be read"]);
    let none = Case::new("[google]\nauth = \"service_account\"\n").problems();
    assert_holds(
        &none,
        &["kalends.toml:1: google.service_account_key_file: is missing"],
    );
}

#[test]
fn users_come_from_lines_of_json_and_csv() {
    let text = format!(
        "users_file = \"users.jsonl\"\n{GOOGLE}[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n"
    );
    let lines = "{\"id\": \"bob\", \"refresh_token\": \"t\", \"graph_database\": \"bob1\"}\n\n{\"id\":\"eve\",\"refresh_token_file\":\"eve.token\"}\n";
    let config = Case::new(&text)
        .with_file("users.jsonl", lines)
        .with_file("eve.token", "u")
        .config();
    let ids: Vec<&str> = config.users.iter().map(|user| user.id.as_str()).collect();
    assert_eq!(ids, ["ada", "bob", "eve"]);
    assert_eq!(config.users[1].graph_database.as_deref(), Some("bob1"));
    let bad = "{\"id\": \"ada\", \"refresh_token\": \"PLANTED-4f1c\"}\n{\"id\": \"x\", \"refresh_token\": \"PLANTED-4f1c\n[1]\n{\"id\": 3, \"refresh_token\": [\"PLANTED-4f1c\"]}\n";
    assert_holds(
        &Case::new(&text).with_file("users.jsonl", bad).problems(),
        &[
            "users.jsonl:1: users.id: ada is already at kalends.toml:5",
            "users.jsonl:2: is not JSON (at character ",
            "users.jsonl:3: is not an object; write one object a line",
            "users.jsonl:4: users.id: is a number",
            "users.jsonl:4: users.refresh_token: is a list",
        ],
    );
    let text = format!("users_file = \"users.csv\"\n{GOOGLE}");
    let table = "id,graph_database,refresh_token\nbob,,t\neve,eve1,u\n";
    let config = Case::new(&text).with_file("users.csv", table).config();
    assert_eq!(config.users.len(), 2);
    assert_eq!(config.users[0].graph_database, None);
    assert_eq!(
        config.users[1].refresh_token.as_ref().unwrap().expose(),
        "u"
    );
    let bad = "id,refresh_token\nbob\n\"eve\",PLANTED-4f1c\nmax,\n";
    assert_holds(
        &Case::new(&text).with_file("users.csv", bad).problems(),
        &[
            "users.csv:2: has 1 values; the first line names 2 columns",
            "users.csv:3: holds a quote",
            "users.csv:4: users.refresh_token: is missing",
        ],
    );
    let bad = Case::new(&text).with_file("users.csv", "bob,PLANTED-4f1c\neve,u\n");
    let problems = bad.problems();
    assert_eq!(problems.lines().count(), 1, "{problems}");
    assert_holds(&problems, &["users.csv:1: must name the columns"]);
}

#[test]
fn variables_alone_can_configure() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("users.csv"), "id,refresh_token\nada,t\n").unwrap();
    let request = Request {
        folder: folder.path().to_owned(),
        ..Request::default()
    };
    let environment: BTreeMap<String, String> = [
        ("KALENDS_GOOGLE_CLIENT_ID", "id"),
        ("KALENDS_GOOGLE_CLIENT_SECRET", PLANTED),
        ("KALENDS_USERS_FILE", "users.csv"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let loaded = load(&request, &environment).unwrap();
    assert_eq!(loaded.config.users.len(), 1);
    assert_eq!(loaded.file, None);
    assert_eq!(
        loaded.config.store.data_dir,
        folder.path().join("kalends-data")
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake() {
    let injected = |case: Case| {
        case.with_variable("KALENDS_SERVICE_HOST", "10.0.0.7")
            .with_variable("KALENDS_SERVICE_PORT", "80")
            .with_variable("KALENDS_PORT", "tcp://10.0.0.7:80")
            .with_variable("KALENDS_PORT_80_TCP_ADDR", "10.0.0.7")
            .with_variable("KALENDS_REDIS_SERVICE_HOST", "10.0.0.8")
            .with_variable("KALENDS_REDIS_SERVICE_PORT_REDIS", "6379")
            .with_variable("KALENDS_REDIS_PORT", "tcp://10.0.0.8:6379")
            .with_variable("KALENDS_REDIS_PORT_6379_TCP", "tcp://10.0.0.8:6379")
    };
    let file = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";
    assert!(
        injected(Case::new(&format!("{GOOGLE}{file}")))
            .load()
            .is_ok()
    );
    for setting in settings::SETTINGS {
        for kind in ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"] {
            assert!(!setting.environment_name().contains(kind));
        }
    }
    // They configure nothing either.
    let empty = Case {
        folder: tempfile::tempdir().unwrap(),
        environment: BTreeMap::new(),
        flags: Vec::new(),
    };
    assert_eq!(injected(empty).load().unwrap_err(), LoadError::Nothing);
    for mistake in ["KALENDS_PORTS", "KALENDS_HTTP_PORT"] {
        let problems = Case::new(GOOGLE).with_variable(mistake, "80").problems();
        assert_holds(&problems, &[mistake]);
    }
}
