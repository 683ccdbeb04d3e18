//! Mistakes: each with its file, line and key, what is wrong and what would be right, all of them at once.

use super::*;

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
            "[valkey]\nurl = \"redis://127.0.0.1\"",
            1,
            &["valkey: is not known; there are schedule, limits"],
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
            "[redis]\nprefix = \"a\"\nurl = \"redis://:PLANTED-4f1c@h\"",
            3,
            &[
                "redis.url: many processes share a queue in Redis, but graph.kind is \"embedded\"",
                "write kind = \"neo4j\" below [graph]",
            ],
        ),
        (
            "[redis]\nprefix = \"a b\"",
            2,
            &["redis.prefix: is \"a b\"; write 1 to 64 letters, digits, '-', '_' or '.'"],
        ),
        (
            "[redis]\nurl = \"http://:PLANTED-4f1c@h\"\nprefix = \"a\"",
            2,
            &["redis.url: the scheme of the Redis address is unknown: write redis://"],
        ),
        (
            "[redis]\nurl = [\"redis://:PLANTED-4f1c@h\"]\nprefix = \"a\"",
            2,
            &["redis.url: is a list; write the secret as text in quotes"],
        ),
        (
            "[redis]\nresponse_timeout_ms = 8000",
            2,
            &[
                "redis.response_timeout_ms: connect_timeout_ms (2000) and response_timeout_ms (8000) together must stay \
                 below 10000",
            ],
        ),
        (
            "[redis]\nconnect_timeout_ms = 5000",
            2,
            &["redis.connect_timeout_ms: connect_timeout_ms (5000)"],
        ),
        (
            "[redis]\nresponse_timeout_ms = 0",
            2,
            &["redis.response_timeout_ms: is 0; write a whole number from 10 to 9000"],
        ),
        (
            "[redis]\nca_file = \"ca.pem\"",
            2,
            &["redis.ca_file: \"ca.pem\" cannot be read"],
        ),
        (
            "[http]\nlisten = \"0.0.0.0:7878\"",
            2,
            &[
                "http.listen: 0.0.0.0:7878 can be reached from other machines",
                "write \"127.0.0.1:7878\"",
            ],
        ),
        (
            "[http]\nlisten = 7878",
            2,
            &["http.listen: is a number; write one line of text in quotes"],
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
