//! Bad input gets a clear answer: each mistake with its file, line and key, all of them at once, no secret among them.

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
fn every_mistake_is_named_with_its_line_and_its_cure() {
    // Settings, the line of the mistake in them, and what must be said.
    let cases: &[(&str, u32, &[&str])] = &[
        (
            "[worker]\nconcurency = 3",
            2,
            &["worker.concurency: is not known; did you mean concurrency?"],
        ),
        (
            "[worker]\npage_size = 3",
            2,
            &["worker.page_size: is not known here; it belongs below [google]"],
        ),
        (
            "[shedule]\ncron = \"\"",
            1,
            &["shedule: is not known; did you mean schedule?"],
        ),
        (
            "[redis]\nurl = \"redis://127.0.0.1\"",
            1,
            &["redis: is not known; there are schedule, limits"],
        ),
        (
            "concurrency = 3",
            1,
            &["concurrency: is not known here; it belongs below [worker]"],
        ),
        ("worker = 3", 1, &["worker: is a section; write [worker]"]),
        (
            "[schedule]\n\ncron = \"61 * * * *\"",
            3,
            &[
                "schedule.cron: minute field of \"61 * * * *\": 61 is not within 0 to 59; write 0 to 59",
            ],
        ),
        (
            "[schedule]\ncron = \"* 24 * * *\"",
            2,
            &["schedule.cron: hour field", "24 is not within 0 to 23"],
        ),
        (
            "[schedule]\ncron = \"* * * *\"",
            2,
            &["schedule.cron: \"* * * *\" has 4 fields instead of five; write minute, hour"],
        ),
        (
            "[schedule]\ncron = \"0 0 30 2 *\"",
            2,
            &["schedule.cron: names a date that never comes"],
        ),
        (
            "[schedule]\ncron = 15",
            2,
            &["schedule.cron: is a number; write one line of text in quotes"],
        ),
        (
            "[schedule]\ntime_zone = \"Europe/Berln\"",
            2,
            &[
                "schedule.time_zone: \"Europe/Berln\" is not an IANA time zone; did you mean Europe/Berlin",
            ],
        ),
        (
            "[schedule]\nsource = \"outlook\"",
            2,
            &["schedule.source: source \"outlook\" is not known; write \"google-calendar\""],
        ),
        (
            "[schedule]\ncatch_up = \"all\"",
            2,
            &["schedule.catch_up: \"all\" is not a way to catch up; write skip, once, or all(n)"],
        ),
        (
            "[schedule]\nspread = \"evn\"",
            2,
            &[
                "schedule.spread: is the text \"evn\"; write \"even\" or \"stagger\" or \"phase\"",
                "did you mean \"even\"?",
            ],
        ),
        ("[schedule]\nname = \"\"", 2, &["schedule.name: is empty"]),
        (
            "[schedule]\njitter_ms = -1",
            2,
            &["schedule.jitter_ms: is -1; write a whole number from 0 to 3600000"],
        ),
        (
            "[limits]\njobs = 0",
            2,
            &["limits.jobs: is 0; write a whole number from 1 to 100000, or \"unlimited\""],
        ),
        (
            "[limits]\njobs = \"none\"",
            2,
            &["limits.jobs: is the text \"none\"", "or \"unlimited\""],
        ),
        (
            "[limits]\njobs_window_ms = 0",
            2,
            &["limits.jobs_window_ms: is 0"],
        ),
        (
            "[worker]\nconcurrency = 0",
            2,
            &["worker.concurrency: is 0; write a whole number from 1 to 999"],
        ),
        (
            "[worker]\nconcurrency = -3",
            2,
            &["worker.concurrency: is -3; write a whole number from 1"],
        ),
        (
            "[worker]\nconcurrency = 1.5",
            2,
            &["worker.concurrency: is a number with a point"],
        ),
        (
            "[worker]\nconcurrency = \"3\"",
            2,
            &[
                "worker.concurrency: is a number in quotes",
                "without quotes",
            ],
        ),
        (
            "[worker]\nlease_ms = 99999999999999999999",
            2,
            &["worker.lease_ms: is 99999999999999999999; write"],
        ),
        ("[retry]\nattempts = 0", 2, &["retry.attempts: is 0"]),
        (
            "[retry]\nbackoff_base_ms = 90000",
            2,
            &[
                "retry.backoff_base_ms: backoff_cap_ms is 64000 and below",
                "at least 90000",
            ],
        ),
        (
            "[history]\nfailed = true",
            2,
            &["history.failed: is true; write a whole number"],
        ),
        (
            "[graph]\nkind = \"neo4j\"",
            1,
            &[
                "graph.password: is missing; write password_file",
                "KALENDS_GRAPH_PASSWORD",
            ],
        ),
        (
            "[graph]\nkind = \"neo5j\"",
            2,
            &[
                "graph.kind: is the text \"neo5j\"; write \"embedded\" or \"neo4j\"",
                "did you mean",
            ],
        ),
        (
            "[graph]\nurl = \"bolt://127.0.0.1:7687\"",
            2,
            &["graph.url: begins with bolt://", "HTTP Query API"],
        ),
        (
            "[graph]\nurl = \"http://graph.example.com:7474\"",
            2,
            &["graph.url: sends secrets in the clear to graph.example.com; use https://"],
        ),
        (
            "[graph]\ndatabase = \"a`b\"",
            2,
            &["graph.database: \"a`b\" is no name of a Neo4j database"],
        ),
        (
            "[graph]\ndatabase = \"system\"",
            2,
            &["graph.database: \"system\" is Neo4j's own"],
        ),
        (
            "[graph]\ndatabase_per_user = \"yes\"",
            2,
            &["graph.database_per_user: is the text \"yes\"; write true or false"],
        ),
        (
            "[graph]\nkind = \"neo4j\"\npassword = \"PLANTED-4f1c\"\npassword_file = \"p\"",
            3,
            &["graph.password: is given beside password_file; give one"],
        ),
        (
            "[graph]\nkind = \"neo4j\"\npassword_file = \"p\"",
            3,
            &[
                "graph.password_file: \"p\" cannot be read",
                "make the file, or correct the path",
            ],
        ),
        (
            "[log]\nlevel = \"verbose\"",
            2,
            &["log.level: is the text \"verbose\"; write \"error\" or"],
        ),
        (
            "[store]\ndata_dir = \"kalends.toml\"",
            2,
            &["store.data_dir: \"kalends.toml\" is not a folder"],
        ),
        (
            "users_file = \"users.jsonl\"",
            1,
            &["users_file: \"users.jsonl\" cannot be read"],
        ),
        (
            "users_file = \"users.txt\"",
            1,
            &["users_file: is \"users.txt\"", "name it .jsonl or .csv"],
        ),
        (
            "users = 3",
            1,
            &["users: is a list of tables; write [[users]]"],
        ),
        (
            "[[users]]\nrefresh_token = \"PLANTED-4f1c\"",
            1,
            &["users.id: is missing"],
        ),
        (
            "[[users]]\nid = \"ada\"",
            1,
            &["users.refresh_token: is missing; write refresh_token_file"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_token = 4",
            3,
            &["users.refresh_token: is a number; write the secret as text"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_tokn = \"PLANTED-4f1c\"\nrefresh_token = \"PLANTED-4f1c\"",
            3,
            &["users.refresh_tokn: is not known; did you mean refresh_token?"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_token_file = \"ada.token\"",
            3,
            &["users.refresh_token_file: \"ada.token\" cannot be read"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_token_env = \"ADA\"",
            3,
            &["users.refresh_token_env: names the variable \"ADA\", which is not set"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_token = \"PLANTED-4f1c\"\nrefresh_token_env = \"ADA\"",
            3,
            &["users.refresh_token: is given beside refresh_token_env"],
        ),
        (
            "[[users]]\nid = \"a\\nb\"\nrefresh_token = \"PLANTED-4f1c\"",
            2,
            &["users.id: holds a control character"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_token = \"PLANTED-4f1c\"\ngraph_database = \"a b\"",
            4,
            &["users.graph_database: \"a b\" is no name"],
        ),
        (
            "[[users]]\nid = \"ada\"\nrefresh_token = \"PLANTED-4f1c\"\n[[users]]\nid = \"ada\"\nrefresh_token = \"PLANTED-4f1c\"",
            4,
            &["users.id: ada is already at kalends.toml:1; remove one"],
        ),
    ];
    for (text, line, parts) in cases {
        let google = if text.contains("[google]") {
            ""
        } else {
            GOOGLE
        };
        // Keys above all sections must come first, so what is needed comes last.
        let case = Case::new(&format!("{text}\n{google}"));
        let problems = case.problems();
        let first = format!("kalends.toml:{line}: ");
        assert!(
            problems.starts_with(&first),
            "{text}\nline {line} expected:\n{problems}"
        );
        assert_eq!(problems.lines().count(), 1, "{text}\n{problems}");
        assert_holds(&problems, parts);
    }
}

#[test]
fn mistakes_of_google_are_named_with_their_line() {
    let cases: &[(&str, &[&str])] = &[
        (
            "page_size = 2501",
            &["google.page_size: is 2501; write a whole number from 1 to 2500"],
        ),
        ("page_size = 0", &["google.page_size: is 0"]),
        ("look_back_days = 0", &["google.look_back_days: is 0"]),
        (
            "calendars = \"secondary\"",
            &["google.calendars: is \"secondary\"; write \"primary\", \"all\" or a list"],
        ),
        ("calendars = []", &["google.calendars: is an empty list"]),
        (
            "calendars = [\"a\", \"a\"]",
            &["google.calendars: holds \"a\" twice"],
        ),
        (
            "calendars = [\"a\", 3]",
            &["google.calendars: holds something that is a number"],
        ),
        (
            "calendars = [\"all\"]",
            &["google.calendars: holds \"all\"; write calendars = \"all\""],
        ),
        (
            "calendars = 3",
            &["google.calendars: is neither text nor a list"],
        ),
        (
            "api_base_url = \"http://www.googleapis.com/calendar/v3\"",
            &[
                "google.api_base_url: sends secrets in the clear to www.googleapis.com; use https://",
            ],
        ),
        (
            "token_url = \"https://u:PLANTED-4f1c@example.com\"",
            &["google.token_url: holds a user name or a password"],
        ),
        (
            "auth = \"oauth\"",
            &["google.auth: is the text \"oauth\"; write \"refresh_token\" or \"service_account\""],
        ),
        (
            "client_secret_file = \"s\"",
            &["google.client_secret: is given beside client_secret_file"],
        ),
    ];
    for (line, parts) in cases {
        let problems = Case::new(&format!("{GOOGLE}{line}\n")).problems();
        assert_holds(&problems, parts);
        assert_eq!(problems.lines().count(), 1, "{line}\n{problems}");
        // The pair of secrets is told at the first of the two.
        let at = if line.starts_with("client_secret") {
            3
        } else {
            4
        };
        assert!(
            problems.starts_with(&format!("kalends.toml:{at}: ")),
            "{problems}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_lines() {
    let text = "[worker]\nconcurrency = 0\n[schedule]\ncron = \"x\"\ntime_zone = \"Mars\"\n[google]\nclient_id = \"\"\n";
    let problems = Case::new(text)
        .with_variable("KALENDS_SHEDULE_CRON", "x")
        .with_flag("--seed", "-1")
        .problems();
    let lines: Vec<&str> = problems.lines().collect();
    let starts = [
        "kalends.toml:2: worker.concurrency: ",
        "kalends.toml:4: schedule.cron: ",
        "kalends.toml:5: schedule.time_zone: ",
        "kalends.toml:6: google.client_secret: is missing",
        "kalends.toml:7: google.client_id: is empty",
        "environment KALENDS_SHEDULE_CRON: is not a variable of Kalends; did you mean KALENDS_SCHEDULE_CRON?",
        "--seed: worker.seed: \"-1\"",
    ];
    assert_eq!(lines.len(), starts.len(), "{problems}");
    for (line, start) in lines.iter().zip(starts) {
        let start = start.replace("worker.seed: ", "worker.seed: is ");
        assert!(line.starts_with(&start), "{line}\n{start}");
    }
}

#[test]
fn a_file_that_is_no_toml_or_no_text_is_named() {
    let problems =
        Case::new("[google]\nclient_secret = \"PLANTED-4f1c\nx = 1\n[log]\nlevel = = 3\n")
            .problems();
    assert_holds(
        &problems,
        &[
            "kalends.toml:2: not valid TOML: ",
            "kalends.toml:5: not valid TOML: ",
        ],
    );
    let twice = Case::new("[log]\nlevel = \"info\"\nlevel = \"warn\"\n").problems();
    assert_holds(&twice, &["kalends.toml:3: not valid TOML: duplicate key"]);
    let case = Case::new("");
    std::fs::write(case.path().join("kalends.toml"), b"a = 1\n\xff\n").unwrap();
    assert_holds(
        &case.problems(),
        &["kalends.toml: is not UTF-8 text (line 2)"],
    );
    let missing = load(
        &Request {
            file: Some("nowhere.toml".to_owned()),
            folder: case.path().to_owned(),
            ..Request::default()
        },
        &BTreeMap::new(),
    );
    let message = missing.unwrap_err().to_string();
    assert_holds(
        &message,
        &["nowhere.toml: cannot be read: ", "(named by --config)"],
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn nothing_configured_points_to_a_small_file_and_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        folder: folder.path().to_owned(),
        ..Request::default()
    };
    let error = load(&request, &BTreeMap::new()).unwrap_err();
    assert_eq!(error, LoadError::Nothing);
    assert_holds(
        &error.to_string(),
        &["[[users]]", "kalends demo", "--config"],
    );
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

fn warnings(text: &str, users: usize) -> String {
    let mut text = format!("{GOOGLE}{text}\n");
    for index in 0..users {
        text.push_str(&format!(
            "[[users]]\nid = \"u{index}\"\nrefresh_token = \"t\"\n"
        ));
    }
    Case::new(&text).load().unwrap().warnings.join("\n")
}

#[test]
fn what_is_unwise_is_said_with_its_figures() {
    assert_eq!(warnings("", 150), "");
    assert_holds(
        &warnings("", 151),
        &[
            "limits.jobs: 151 syncs are needed every 15 min, but the limit lets only 150 through",
            "at least 11 a minute",
        ],
    );
    assert_eq!(warnings("[limits]\njobs = \"unlimited\"", 400), "");
    assert_holds(&warnings("", 0), &["users: there are none"]);
    assert_holds(
        &warnings("request_timeout_ms = 40000", 1),
        &[
            "google.request_timeout_ms: 40000 is above worker.lease_ms (30000)",
            "worker.shutdown_ms: 25000 is below google.request_timeout_ms (40000)",
        ],
    );
    assert_holds(&warnings("page_size = 10", 1), &["needs 1000 requests"]);
    assert_holds(
        &warnings("page_size = 2500\nrequest_timeout_ms = 1000", 1),
        &["google.request_timeout_ms: 1000 is little for pages of 2500"],
    );
    assert_holds(
        &warnings(
            "[schedule]\ncron = \"* * * * *\"\njitter_ms = 60000\nspread = \"stagger\"\n[limits]\njobs = 1000",
            61,
        ),
        &[
            "schedule.jitter_ms: 60000 is not below",
            "schedule.spread: with \"stagger\" the last of 61 users starts 60000 ms",
        ],
    );
    assert_holds(
        &warnings(
            "[graph]\nkind = \"neo4j\"\npassword = \"p\"\ndatabase_per_user = true",
            2,
        ),
        &["graph.database_per_user: 2 of 2 users have no graph_database"],
    );
}

#[test]
fn an_uneven_schedule_is_judged_by_its_shortest_period() {
    let text = "[schedule]\ncron = \"0,5 9 * * 1-5\"";
    assert_holds(&warnings(text, 51), &["51 syncs are needed every 5 min"]);
    assert_eq!(warnings(text, 50), "");
}

#[cfg(unix)]
#[test]
fn a_file_of_secrets_that_everybody_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let user = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";
    let open = |case: &Case| {
        let path = case.path().join("kalends.toml");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    };
    let case = Case::new(&format!("{GOOGLE}{user}"));
    assert_eq!(case.load().unwrap().warnings, Vec::<String>::new());
    open(&case);
    let warned = case.load().unwrap().warnings.join("\n");
    assert_holds(&warned, &["kalends.toml: holds secrets", "chmod 600"]);
    let text = "[google]\nclient_id = \"id\"\nclient_secret_file = \"s\"\n[[users]]\nid = \"ada\"\nrefresh_token_file = \"s\"\n";
    let case = Case::new(text).with_file("s", "s");
    open(&case);
    assert_eq!(case.load().unwrap().warnings, Vec::<String>::new());
    // A secret in a file of its own is as open as that file; it is named once, whoever refers to it.
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(case.path().join("s"), mode).unwrap();
    let warned = case.load().unwrap().warnings;
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_holds(&warned[0], &["/s: holds secrets"]);
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_no_mistake() {
    let injected = |case: Case| {
        case.with_variable("KALENDS_SERVICE_HOST", "10.0.0.7")
            .with_variable("KALENDS_SERVICE_PORT", "80")
            .with_variable("KALENDS_PORT", "tcp://10.0.0.7:80")
            .with_variable("KALENDS_PORT_80_TCP_ADDR", "10.0.0.7")
    };
    let file = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";
    assert!(
        injected(Case::new(&format!("{GOOGLE}{file}")))
            .load()
            .is_ok()
    );
    for setting in settings::SETTINGS {
        assert!(!setting.environment_name().starts_with("KALENDS_SERVICE_"));
        assert!(!setting.environment_name().starts_with("KALENDS_PORT"));
    }
    // They configure nothing either.
    let empty = Case {
        folder: tempfile::tempdir().unwrap(),
        environment: BTreeMap::new(),
        flags: Vec::new(),
    };
    assert_eq!(injected(empty).load().unwrap_err(), LoadError::Nothing);
    let mistake = Case::new(GOOGLE).with_variable("KALENDS_PORTS", "80");
    assert_holds(&mistake.problems(), &["KALENDS_PORTS"]);
}
