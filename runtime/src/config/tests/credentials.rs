//! The section `[credentials]`: the keys that seal grants, and what is never shown of them.

use super::*;

const USER: &str = "[[users]]\nid = \"ada\"\nrefresh_token = \"t\"\n";
const KEY: &str = "4f1c000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d";
const OLDER: &str = "4f1cf00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d";

fn with_credentials(credentials: &str) -> Case {
    Case::new(&format!("{GOOGLE}[credentials]\n{credentials}\n{USER}"))
}

#[test]
fn keys_come_from_a_file_or_a_variable_and_are_not_shown() {
    let case =
        with_credentials("keys_file = \"keys\"").with_file("keys", &format!("{KEY}\n{OLDER}\n"));
    let loaded = case.load().unwrap();
    let keys = loaded.config.credentials.keys.as_ref().unwrap();
    assert!(keys.expose().starts_with(KEY));
    let shown = format!("{loaded:?}{}", show(&loaded));
    assert!(!shown.contains("4f1c"), "{shown}");

    // A variable overrules the file, as everywhere.
    let case = with_credentials("keys_file = \"missing\"")
        .with_variable("KALENDS_CREDENTIALS_KEYS", &format!("{OLDER},{KEY}"));
    let loaded = case.load().unwrap();
    let keys = loaded.config.credentials.keys.as_ref().unwrap();
    assert!(keys.expose().starts_with(OLDER));
    assert_holds(&show(&loaded), &["keys = \"***\""]);

    let nothing = Case::new(&format!("{GOOGLE}{USER}")).load().unwrap();
    assert_eq!(nothing.config.credentials.keys, None);
}

#[test]
fn keys_that_cannot_be_used_are_refused_and_not_repeated() {
    let short = &KEY[..62];
    for (given, file, words) in [
        (
            "keys = \"4f1c\"".to_owned(),
            "",
            "credentials.keys: key 1 is not 64 hexadecimal",
        ),
        (
            format!("keys = \"{KEY} {KEY}\""),
            "",
            "credentials.keys: key 2 is there twice",
        ),
        (
            format!("keys = \"{KEY}\"\nkeys_file = \"keys\""),
            KEY,
            "give one of the two",
        ),
        (
            "keys_file = \"keys\"".to_owned(),
            short,
            "key 1 is not 64 hexadecimal",
        ),
        ("keys_file = \"keys\"".to_owned(), "", "holds no key"),
        (
            "keys_file = \"missing\"".to_owned(),
            "",
            "openssl rand -hex 32",
        ),
    ] {
        let problems = with_credentials(&given).with_file("keys", file).problems();
        assert_holds(&problems, &[words]);
        assert!(!problems.contains("4f1c"), "{problems}");
    }
}
