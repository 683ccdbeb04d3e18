//! Incidents: what is recorded replays to the same decisions, holds nobody's data, and shows every damage.
#![allow(clippy::unwrap_used)] // a test ends at the first thing that goes wrong

mod world;

use kalends_core::node::io::Notice;
use kalends_core::pseudonym::Pseudonym;
use kalends_core::time::HOUR_MS;
use kalends_sim::incident::{
    End, GoOn, JournalError, Key, Line, Reader, Replay, ReplayError, Seen, Writer,
};
use world::{PLANTED, World};

/// Runs of the proof.
const SEEDS: u64 = 10;

/// How a replay of a file ended.
#[derive(Debug)]
enum Outcome {
    Whole(End),
    CutOff,
    Damaged(JournalError),
    Differs(ReplayError),
}

fn replay(lines: &[Vec<u8>]) -> (Option<Replay>, Outcome) {
    let mut reader = Reader::new();
    let mut replay: Option<Replay> = None;
    for line in lines {
        let Some(line) = line.strip_suffix(b"\n") else {
            return (replay, Outcome::CutOff);
        };
        match reader.line(line) {
            Err(error) => return (replay, Outcome::Damaged(error)),
            Ok(Line::Head(head)) => replay = Some(Replay::new(*head)),
            Ok(Line::Step(step)) => {
                if let Err(error) = replay.as_mut().unwrap().step(step, &mut |_| {}) {
                    return (replay, Outcome::Differs(error));
                }
            }
            Ok(Line::End(end)) => return (replay, Outcome::Whole(end)),
        }
    }
    (replay, Outcome::CutOff)
}

/// Some hours with all faults, a rotation now and then, a shutdown.
fn recorded(seed: u64) -> World {
    let mut world = World::new(seed, 8, true);
    for _ in 0..3 {
        world.run(60);
        world.rotate();
    }
    world.run(30);
    world.shut_down(10_000);
    world.run(1);
    assert!(world.finished, "the shutdown ends");
    world.end(End::Finished);
    world
}

#[test]
fn hiding_changes_no_decision_whatever_goes_wrong_and_each_file_replays_alone() {
    let mut met = [0_usize; 9];
    for seed in 0..SEEDS {
        let world = recorded(seed);
        assert_eq!(world.files.len(), 4);
        for (index, file) in world.files.iter().enumerate() {
            let (replayed, outcome) = replay(file);
            let wanted = if index == 3 {
                End::Finished
            } else {
                End::Rotated
            };
            assert!(
                matches!(outcome, Outcome::Whole(end) if end == wanted),
                "seed {seed}, file {index}: {outcome:?}"
            );
            assert!(replayed.unwrap().turns() > 100);
        }
        for notice in &world.notices {
            let place = match notice {
                Notice::JobDone { .. } => 0,
                Notice::JobRetried { .. } => 1,
                Notice::JobFailed { parked: true, .. } => 2,
                Notice::JobFailed { .. } => 3,
                Notice::Limited { .. } => 4,
                Notice::StoreAway { .. } => 5,
                Notice::EffectTimedOut { .. } => 6,
                Notice::LeaseLost { .. } => 7,
                Notice::JobReleased { .. } => 8,
                _ => continue,
            };
            met[place] += 1;
        }
    }
    assert!(
        met.iter().all(|count| *count > 0),
        "not all was met: {met:?}"
    );
}

#[test]
fn a_journal_holds_nobodys_text() {
    for seed in 0..3 {
        let world = recorded(seed);
        let text = String::from_utf8(world.files.concat().concat()).unwrap();
        for user in world.google.users() {
            assert!(!text.contains(&user.email) && !text.contains(&user.refresh_token));
            for calendar in world.google.calendars(&user.email).unwrap() {
                assert!(!text.contains(&calendar), "{calendar}");
            }
        }
        for needle in [PLANTED, "@", "ya29", "lunch", "example.com", "redis"] {
            let at = text.to_lowercase().find(&needle.to_lowercase());
            assert_eq!(at, None, "{needle}: {}", &text[at.unwrap()..][..80]);
        }
        // Equal texts stay equal, and whoever has the key finds a user again.
        let key = Key::new(seed, 0x5ec2e7);
        let ada = key.pseudonym("user-00001@example.com");
        let found: Vec<&str> = text.matches(&ada.to_string()).collect();
        assert!(found.len() > 10, "{ada}");
        assert_ne!(ada, Key::new(seed, 1).pseudonym("user-00001@example.com"));
    }
}

#[test]
fn one_changed_byte_or_one_missing_line_is_found() {
    let world = recorded(1);
    let file = &world.files[1];
    let lines = file.len();
    for step in 0..60 {
        let line = 1 + step * 7919 % (lines - 1);
        let mut changed = file.clone();
        let at = step * 104_729 % (changed[line].len() - 1);
        changed[line][at] ^= 1;
        let (_, outcome) = replay(&changed);
        assert!(
            matches!(outcome, Outcome::Damaged(JournalError::Changed(number)) if number == line as u64 + 1),
            "byte {at} of line {line}: {outcome:?}"
        );
        let mut shorter = file.clone();
        shorter.remove(line);
        let (_, outcome) = replay(&shorter);
        let is_last = line == lines - 1;
        assert!(
            matches!(outcome, Outcome::Damaged(JournalError::Changed(_)) if !is_last)
                || matches!(outcome, Outcome::CutOff if is_last),
            "without line {line}: {outcome:?}"
        );
    }
    let mut longer = file.clone();
    longer.push(file[3].clone());
    let mut reader = Reader::new();
    let results: Vec<_> = longer
        .iter()
        .map(|line| reader.line(&line[..line.len() - 1]).map(|_| ()))
        .collect();
    assert!(results[lines].is_err() && results[..lines].iter().all(Result::is_ok));
}

#[test]
fn a_journal_that_was_cut_off_replays_up_to_there() {
    let world = recorded(2);
    let file = &world.files[0];
    let (whole, _) = replay(file);
    let turns = whole.unwrap().turns();
    for kept in [2, 5, file.len() / 2, file.len() - 1] {
        let (replayed, outcome) = replay(&file[..kept]);
        assert!(matches!(outcome, Outcome::CutOff), "{outcome:?}");
        assert_eq!(replayed.unwrap().turns(), kept as u64 - 1);
    }
    let mut cut = file.clone();
    let last = cut.last_mut().unwrap();
    last.truncate(last.len() / 2);
    let (replayed, outcome) = replay(&cut);
    assert!(matches!(outcome, Outcome::CutOff), "{outcome:?}");
    assert_eq!(replayed.unwrap().turns(), turns);
}

/// Writes the lines anew, as somebody would who forges a journal.
fn forge(file: &[Vec<u8>], mut change: impl FnMut(usize, &mut serde_json::Value)) -> Vec<Vec<u8>> {
    let mut writer = Writer::new();
    let mut forged = Vec::new();
    for (number, line) in file.iter().enumerate() {
        let mut value: serde_json::Value =
            serde_json::from_slice(&line[17..line.len() - 1]).unwrap();
        change(number, &mut value);
        let Ok(line) = serde_json::from_value::<Line>(value) else {
            continue;
        };
        forged.push(writer.line(&line).to_vec());
    }
    forged
}

#[test]
fn another_decision_is_named_by_time_and_kind() {
    let world = recorded(3);
    let file = &world.files[0];
    let (number, place) = file
        .iter()
        .enumerate()
        .find_map(|(number, line)| {
            let text = std::str::from_utf8(line).unwrap();
            Some((number, text.find("\"o\":\"F")? - 17))
        })
        .unwrap();
    assert!(place > 0);
    let forged = forge(file, |line, value| {
        if line == number {
            let decided = value["n"]["o"].as_str().unwrap();
            let digit = if &decided[1..2] == "0" { "1" } else { "0" };
            value["n"]["o"] = format!("F{digit}{}", &decided[2..]).into();
        }
    });
    let (_, outcome) = replay(&forged);
    let Outcome::Differs(error) = outcome else {
        panic!("{outcome:?}");
    };
    let text = error.to_string();
    assert!(
        text.contains("2026-11-02T00:0") && text.contains("request to the source"),
        "{text}"
    );
}

#[test]
fn a_forged_journal_is_an_error_and_never_a_panic() {
    let world = recorded(4);
    let file = &world.files[1];
    let mut ends = [0_usize; 3];
    for step in 0..100_u64 {
        let target = 1 + (step as usize * 7919) % (file.len() - 2);
        let forged = forge(file, |line, value| {
            if line != target {
                return;
            }
            // The results of other effects, of other kinds, at other times; and no results.
            match step % 5 {
                0 => value["n"]["t"] = (i64::MIN + step as i64).into(),
                1 => {
                    value["n"]["i"] = serde_json::json!([{"d": [step, {"g": {"reply": "fenced"}}]}])
                }
                2 => {
                    if let Some(told) = value["n"]["i"].as_array_mut() {
                        for one in told {
                            if let Some(done) = one.get_mut("d") {
                                done[1] = serde_json::json!({"e": {}});
                            }
                        }
                    }
                }
                3 => value["n"]["i"] = serde_json::json!([]),
                _ => value["n"]["o"] = "S\u{e4}Zzzzzzzz".into(),
            }
        });
        match replay(&forged).1 {
            Outcome::Differs(ReplayError::Panicked { .. }) => ends[0] += 1,
            Outcome::Differs(_) => ends[1] += 1,
            _ => ends[2] += 1,
        }
    }
    assert!(ends[0] > 0 && ends[1] > 40, "{ends:?}");
    // Rubbish.
    for rubbish in [
        &b""[..],
        b"x",
        b"0123456789abcdef ",
        b"\xff\xfe\x00",
        &[b' '; 100],
    ] {
        assert_eq!(
            Reader::new().line(rubbish).unwrap_err(),
            JournalError::NotAJournal
        );
    }
}

#[test]
fn another_format_is_told_as_such() {
    let world = recorded(5);
    let head = std::str::from_utf8(&world.files[0][0]).unwrap();
    let other = head[17..]
        .trim_end()
        .replace("\"format\":1", "\"format\":9");
    // The hash of the forged line, found as its writer would have.
    let mut writer = Writer::new();
    let mut line: serde_json::Value = serde_json::from_str(&other).unwrap();
    assert_eq!(line["head"]["format"], 9);
    let forged = writer.line(&serde_json::from_value(line.take()).unwrap());
    let refused = Reader::new().line(&forged[..forged.len() - 1]).unwrap_err();
    assert_eq!(refused, JournalError::Format(9));
}

#[test]
fn a_node_goes_on_in_a_quiet_world_from_where_its_journal_ends() {
    for seed in [6, 7, 8] {
        let mut world = World::new(seed, 8, true);
        world.run(100);
        world.rotate();
        world.run(17);
        world.end(End::Abandoned);
        for file in &world.files {
            let (replayed, _) = replay(file);
            let ended = replayed.unwrap().into_ended().unwrap();
            let mut go_on = GoOn::new(ended).unwrap();
            assert!(go_on.assumptions().len() >= 4);
            let mut done = std::collections::BTreeSet::new();
            let mut ticks = 0;
            go_on
                .run(HOUR_MS, &mut |_, output| {
                    if let kalends_core::node::io::Output::Notice(notice) = output {
                        match notice {
                            Notice::JobDone {
                                key: kalends_core::queue::state::JobKey::Sync { user, .. },
                                ..
                            } => {
                                done.insert(user.clone());
                            }
                            Notice::TickFired { .. } => ticks += 1,
                            Notice::Refused { detail } => panic!("{detail}"),
                            _ => {}
                        }
                    }
                })
                .unwrap();
            assert_eq!(ticks, 4, "seed {seed}");
            let parked = go_on
                .queue()
                .rows()
                .iter()
                .filter(|(table, _, row)| table == "users" && row.contains("needs_reauth"))
                .count();
            assert!(
                done.len() + parked >= 8,
                "seed {seed}: every user who may be is synced"
            );
            assert!(
                done.iter()
                    .all(|user| Pseudonym::read(user.as_str()).is_some())
            );
            go_on.queue().check_invariants();
        }
    }
}

#[test]
fn a_replay_shows_what_came_in_and_what_was_decided() {
    let world = recorded(9);
    let mut reader = Reader::new();
    let mut replay = None;
    let (mut told, mut decided) = (0, 0);
    for line in &world.files[0] {
        match reader.line(&line[..line.len() - 1]).unwrap() {
            Line::Head(head) => replay = Some(Replay::new(*head)),
            Line::Step(step) => replay
                .as_mut()
                .unwrap()
                .step(step, &mut |seen| match seen {
                    Seen::Told(..) => told += 1,
                    Seen::Decided(_) => decided += 1,
                })
                .unwrap(),
            Line::End(_) => {}
        }
    }
    assert!(told > 300 && decided > told, "{told} {decided}");
}
