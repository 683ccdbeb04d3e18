//! Whatever stands in the files, the variables and the flags: no panic, no secret, and each mistake has a place and a word.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, TestRunner};

use super::super::settings::SETTINGS;
use super::*;

/// Configurations that are tried, each of some files on a disk.
const CASES: u32 = 400;
/// What a wrong configuration of [`TEXT_BYTES_MAX`] may be answered at the most, in bytes: it is read by a person.
const ANSWER_BYTES_MAX: usize = 128 * 1024;
/// The largest generated file, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// A value as somebody might write it, or as nobody would.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,25}",
        Just("true".to_owned()),
        Just("\"unlimited\"".to_owned()),
        Just("\"\\u0000\\u202e\\U0010FFFF\"".to_owned()),
        Just("\"*/15 * * * *\"".to_owned()),
        Just("\"http://127.0.0.1:1\"".to_owned()),
        Just("\"all(99999999999999999999)\"".to_owned()),
        Just("1e400".to_owned()),
        Just("2026-05-04T12:00:00Z".to_owned()),
        Just("[[], {a = 1}]".to_owned()),
        "\"[ -!#-\\[\\]-~æ]{0,40}\"",
        "[!-~]{0,20}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let known = (0..SETTINGS.len(), value()).prop_map(|(place, value)| {
        let setting = &SETTINGS[place];
        match setting.section {
            "" => format!("{} = {value}\n", setting.key),
            section => format!("{section}.{} = {value}\n", setting.key),
        }
    });
    prop_oneof![
        12 => known,
        1 => (0..SETTINGS.len()).prop_map(|place| format!("[{}]\n", SETTINGS[place].section)),
        1 => value().prop_map(|value| format!("[[users]]\nid = {value}\nrefresh_token = {value}\n")),
        1 => "[ -~æ]{0,60}\n",
    ]
}

fn file() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::collection::vec(line(), 0..2).prop_map(|lines| lines.concat().into_bytes()),
        3 => prop::collection::vec(line(), 0..8).prop_map(|lines| lines.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..TEXT_BYTES_MAX),
        1 => Just(b"a=[".repeat(TEXT_BYTES_MAX / 3)),
    ]
}

fn users() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(b"id,refresh_token\nada,t\n".to_vec()),
        1 => "id(,[a-z_]{0,14}){0,2}\n([!-~æ]{0,20}(,[ -~]{0,20}){0,2}\n){0,4}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..400),
    ]
}

fn variables() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop_oneof![
        4 => (0..SETTINGS.len()).prop_map(|place| SETTINGS[place].environment_name()),
        1 => "KALENDS_[A-Z_]{0,12}",
    ];
    // A path in one would be read from elsewhere.
    prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec((name, "[ -.0-~æ]{0,40}"), 0..4),
    ]
}

#[test]
fn whatever_is_configured_is_taken_or_told_with_its_place() {
    let mut runner = TestRunner::new(Runs {
        cases: CASES,
        failure_persistence: None,
        ..Runs::default()
    });
    let (taken, refused) = (Cell::new(0_u32), Cell::new(0_u32));
    let tried = runner.run(
        &(prop::bool::weighted(0.8), file(), users(), variables()),
        |(has_google, text, users, variables)| {
            let mut bytes = if has_google {
                format!(
                    "users_file = \"users.csv\"\ngoogle.client_id = \"id\"\ngoogle.client_secret = {PLANTED:?}\n"
                )
                .into_bytes()
            } else {
                Vec::new()
            };
            bytes.extend_from_slice(&text);
            let mut case = Case::new("").with_file("users.csv", "");
            std::fs::write(case.path().join("kalends.toml"), &bytes).unwrap();
            std::fs::write(case.path().join("users.csv"), &users).unwrap();
            case.environment.extend(variables);
            match case.load() {
                Ok(loaded) => {
                    taken.set(taken.get() + 1);
                    let shown = format!("{loaded:?}{}", show(&loaded));
                    prop_assert!(!shown.contains(PLANTED), "{shown}");
                }
                Err(error) => {
                    refused.set(refused.get() + 1);
                    let told = error.to_string();
                    prop_assert!(!told.contains(PLANTED), "{told}");
                    prop_assert!(told.len() <= ANSWER_BYTES_MAX, "{} bytes", told.len());
                    // Control characters of a file would write over a terminal.
                    let hidden = |letter: char| letter.is_control() && letter != '\n';
                    prop_assert!(!told.contains(hidden), "{told:?}");
                    for line in told.lines() {
                        prop_assert!(line.len() > 10, "{line:?} of {told}");
                    }
                    let names_its_place = ["kalends.toml", "KALENDS_", "users.csv"];
                    let is_placed = names_its_place.iter().any(|place| told.contains(place));
                    prop_assert!(is_placed, "{told}");
                }
            }
            Ok(())
        },
    );
    tried.unwrap();
    let (taken, refused) = (taken.get(), refused.get());
    assert!(
        taken > CASES / 20 && refused > CASES / 4,
        "{taken} taken, {refused} refused"
    );
}

/// A whole configuration with a few bytes changed comes closer to the dark corners than noise does.
#[test]
fn a_damaged_example_is_taken_or_told() {
    let example = settings::example_file();
    let whole = format!("{example}\n[[users]]\nid = \"ada\"\nrefresh_token = \"{PLANTED}\"\n");
    let changes = prop::collection::vec((0..whole.len(), any::<u8>()), 1..6);
    let mut runner = TestRunner::new(Runs {
        cases: CASES / 4,
        failure_persistence: None,
        ..Runs::default()
    });
    let tried = runner.run(&(changes, 0..=whole.len()), |(changes, cut)| {
        let mut bytes = whole.as_bytes()[..cut].to_vec();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let case = Case::new("");
        std::fs::write(case.path().join("kalends.toml"), &bytes).unwrap();
        if let Err(error) = case.load() {
            let told = error.to_string();
            prop_assert!(told.len() <= ANSWER_BYTES_MAX, "{} bytes", told.len());
            prop_assert!(told.contains("kalends.toml"), "{told}");
        }
        Ok(())
    });
    tried.unwrap();
}
