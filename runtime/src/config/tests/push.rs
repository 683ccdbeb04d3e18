//! The section `[push]`: what it needs, and what is never shown of it.

use super::*;

const USER: &str = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";
const ADDRESS: &str = "address = \"https://hooks.example.com/google\"\nlisten = \"0.0.0.0:7879\"";

fn with_push(push: &str) -> Case {
    Case::new(&format!("{GOOGLE}[push]\n{push}\n{USER}"))
}

#[test]
fn nothing_is_watched_unless_an_address_is_given() {
    let config = with_push("").load().unwrap().config;
    assert_eq!(config.push, None);
    let half = with_push("listen = \"127.0.0.1:7879\"").problems();
    assert_holds(&half, &["push.address: is missing", "https"]);
}

#[test]
fn an_address_needs_a_listener_and_a_key_that_is_not_shown() {
    let bare = with_push("address = \"https://hooks.example.com/\"").problems();
    assert_holds(
        &bare,
        &[
            "push.listen: is missing",
            "push.key_file: is missing",
            "KALENDS_PUSH_KEY",
        ],
    );
    let key = format!("{PLANTED}-{}", "0123456789".repeat(4));
    let case = with_push(ADDRESS).with_variable("KALENDS_PUSH_KEY", &key);
    let loaded = case.load().unwrap();
    let push = loaded.config.push.as_ref().unwrap();
    assert_eq!(push.listen.port(), 7879);
    assert_eq!(push.poll_ms, 6 * 60 * 60_000);
    let shown = format!("{loaded:?}{}", show(&loaded));
    assert!(!shown.contains(PLANTED), "{shown}");
    let short = with_push(ADDRESS)
        .with_variable("KALENDS_PUSH_KEY", PLANTED)
        .problems();
    assert_holds(
        &short,
        &["push.key: is shorter than 32 bytes", "openssl rand -hex 32"],
    );
    assert!(!short.contains(PLANTED), "{short}");
}

#[test]
fn an_address_in_the_clear_is_refused() {
    let clear = "address = \"http://hooks.example.com/\"\nlisten = \"127.0.0.1:7879\"";
    let case = with_push(clear).with_variable("KALENDS_PUSH_KEY", &"k".repeat(32));
    assert_holds(&case.problems(), &["push.address: "]);
}
