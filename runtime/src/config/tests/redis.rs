//! The queue in Redis: what it needs beside its address, and what is never shown of it.

use super::*;

const NEO4J: &str = "[graph]\nkind = \"neo4j\"\npassword = \"PLANTED-4f1c\"\n";
const USER: &str = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";

fn with_redis(redis: &str) -> Case {
    Case::new(&format!("{GOOGLE}{NEO4J}[redis]\n{redis}\n{USER}"))
}

#[test]
fn two_settings_are_enough_and_the_address_is_a_secret() {
    let case = with_redis(
        "url = \"rediss://u:PLANTED-4f1c@cache.example.com/2\"\nprefix = \"kalends-production\"",
    );
    let loaded = case.load().unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let redis = loaded.config.redis.clone().unwrap();
    assert_eq!(redis.prefix, "kalends-production");
    assert_eq!(redis.connect_timeout_ms, 2_000);
    assert_eq!(redis.response_timeout_ms, 5_000);
    assert_eq!(redis.address(), "rediss://cache.example.com/2");
    assert_eq!(
        redis.settings().url.expose(),
        "rediss://u:PLANTED-4f1c@cache.example.com/2"
    );
    let shown = show(&loaded);
    assert_holds(
        &shown,
        &[
            "[redis]\nurl = \"***\"  # kalends.toml:",
            "prefix = \"kalends-production\"",
        ],
    );
    let everything = format!("{loaded:?}{loaded:#?}{shown}");
    assert!(!everything.contains(PLANTED), "{everything}");
}

#[test]
fn without_an_address_the_queue_is_a_file() {
    let config = Case::new(GOOGLE).config();
    assert_eq!(config.redis, None);
    assert_eq!(config.http.listen, None);
    let forgotten = Case::new(&format!("{GOOGLE}[redis]\nprefix = \"a\"\n{USER}"));
    assert_holds(
        &forgotten.load().unwrap().warnings.join("\n"),
        &[
            "redis.prefix: is set but redis.url is not",
            "KALENDS_REDIS_URL",
        ],
    );
}

#[test]
fn variables_and_a_flag_do_as_well() {
    let case = Case::new(&format!("{GOOGLE}{NEO4J}{USER}"))
        .with_variable("KALENDS_REDIS_URL", "redis://127.0.0.1:6379")
        .with_variable("KALENDS_REDIS_PREFIX", "staging_1.a")
        .with_variable("KALENDS_HTTP_LISTEN", "127.0.0.1:1")
        .with_flag("--http", "[::1]:2");
    let config = case.config();
    assert_eq!(config.redis.unwrap().prefix, "staging_1.a");
    assert_eq!(config.http.listen, "[::1]:2".parse().ok());
}

#[test]
fn the_prefix_has_no_default() {
    let missing = with_redis("url = \"redis://:PLANTED-4f1c@127.0.0.1\"").problems();
    assert_holds(
        &missing,
        &[
            "kalends.toml:7: redis.prefix: is missing, and has no default; choose one name for each environment",
            "prefix = \"kalends-production\"",
        ],
    );
    assert_eq!(missing.lines().count(), 1, "{missing}");
    let by_variable = Case::new(&format!("{GOOGLE}{NEO4J}{USER}"))
        .with_variable("KALENDS_REDIS_URL", "redis://:PLANTED-4f1c@127.0.0.1")
        .problems();
    assert_holds(&by_variable, &["kalends.toml: redis.prefix: is missing"]);
    let long = "a".repeat(65);
    let url = "url = \"redis://127.0.0.1\"";
    let long = with_redis(&format!("{url}\nprefix = \"{long}\"")).problems();
    assert_holds(&long, &["redis.prefix: is \"aaa", "1 to 64 letters"]);
    for wrong in ["a:b", "{a}", "a*", "é"] {
        let problems = with_redis(&format!("{url}\nprefix = \"{wrong}\"")).problems();
        assert_holds(&problems, &["redis.prefix: is "]);
    }
}

#[test]
fn what_is_unwise_is_said() {
    let case = with_redis("url = \"redis://:PLANTED-4f1c@10.0.0.7\"\nprefix = \"a\"")
        .with_variable("KALENDS_STORE_DATA_DIR", "data");
    let warnings = case.load().unwrap().warnings.join("\n");
    assert_holds(
        &warnings,
        &[
            "store.data_dir: is not used",
            "redis.url: sends a password in the clear to redis://10.0.0.7; use rediss://",
        ],
    );
    assert!(!warnings.contains(PLANTED), "{warnings}");
}

#[cfg(unix)]
#[test]
fn only_an_address_with_a_password_makes_the_file_a_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let warnings = |url: &str| {
        let text = format!(
            "[google]\nclient_id = \"id\"\nclient_secret_file = \"s\"\n[graph]\nkind = \"neo4j\"\n\
             password_file = \"s\"\n[redis]\nprefix = \"a\"\nurl = \"{url}\"\n\
             [[users]]\nid = \"ada\"\nrefresh_token_file = \"s\"\n"
        );
        let case = Case::new(&text).with_file("s", "s");
        let path = case.path().join("kalends.toml");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        case.load().unwrap().warnings.join("\n")
    };
    assert_eq!(warnings("redis://127.0.0.1"), "");
    assert_holds(
        &warnings("redis://:p@127.0.0.1"),
        &["kalends.toml: holds secrets"],
    );
}
