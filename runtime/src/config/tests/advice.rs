//! Warnings: what is allowed and yet looks unwise.

use super::*;

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
    assert_holds(
        &warnings("", 0),
        &[
            "users: there are none in the configuration",
            "kalends users",
        ],
    );
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
