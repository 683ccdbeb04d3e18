//! `kalends replay FILE`: the same machine over a journal, decision by decision, and whether it decides the same.

mod timeline;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use kalends_core::queue::command::LeaseToken;
use kalends_core::time::Timestamp;
use kalends_sim::incident::{
    End, GoOn, JournalError, LINE_BYTES_MAX, Line, Reader, Replay, ReplayError,
};
use serde_json::json;

use crate::cli::ReplayArgs;
use crate::exit::Exit;
use crate::record::{key_beside, key_path};
use crate::say::say;
use crate::wiring::Refused;
use timeline::{Timeline, Wanted};

/// How reading a journal ended.
#[derive(Debug)]
enum Ended {
    /// With its last line.
    Whole(End),
    /// Without one: the process was killed, or the file was cut.
    CutOff,
    /// It is damaged from there on.
    Damaged(JournalError),
    /// Another decision.
    Differs(ReplayError),
}

/// Replays a journal and tells what it shows.
///
/// # Errors
/// If there is no journal that can be read at all, or the user is not to be found without a key.
pub fn replay(args: &ReplayArgs) -> Result<Exit, Refused> {
    let wanted = wanted(args)?;
    let mut timeline = Timeline::new(wanted, args.quiet, args.json);
    let mut replay = None;
    let ended = read(&args.file, &mut replay, &mut timeline)?;
    let Some(replay) = replay else {
        return Err(Refused::bad_input(format!(
            "{}: {}",
            args.file.display(),
            JournalError::NotAJournal
        )));
    };
    let (turns, now, digest) = (replay.turns(), replay.now(), replay.digest());
    let is_good =
        matches!(ended, Ended::Whole(end) if end != End::Differs) || matches!(ended, Ended::CutOff);
    let mut assumed = Vec::new();
    if let (Some(ms), true) = (args.go_on, is_good) {
        assumed = go_on(replay, ms, &mut timeline)?;
    }
    let words = verdict(&ended);
    if args.json {
        say(&format!(
            "{}\n",
            json!({
                "verdict": if is_good { "same" } else { "differs" }, "why": words, "turns": turns, "decisions":
                timeline.decisions(), "last_at": now.to_rfc3339(), "digest": format!("{digest:016x}"), "assumed": assumed,
            })
        ));
    } else {
        let same = if is_good {
            "the same decisions as recorded"
        } else {
            "NOT the same as recorded"
        };
        say(&format!(
            "{same}: {} decisions in {turns} turns, until {now}; digest {digest:016x}\n{words}\n",
            timeline.decisions()
        ));
    }
    Ok(if is_good { Exit::Done } else { Exit::Failed })
}

fn verdict(ended: &Ended) -> String {
    match ended {
        Ended::Whole(end) => format!("the journal is whole: {}", end.words()),
        Ended::CutOff => "the journal has no end: the process was killed, still runs, or the file was cut; replayed up to \
                          there"
            .to_owned(),
        Ended::Damaged(error) => format!("the journal is good only up to there: {error}"),
        Ended::Differs(error) => error.to_string(),
    }
}

fn wanted(args: &ReplayArgs) -> Result<Wanted, Refused> {
    let mut wanted = Wanted::default();
    if let Some(user) = &args.user {
        wanted.user = Some(match kalends_core::pseudonym::Pseudonym::read(user) {
            Some(pseudonym) => pseudonym.name,
            None => match key_beside(&args.file) {
                Some(key) => key.pseudonym(user).name,
                None => {
                    return Err(Refused::bad_input(format!(
                        "--user: a user's id is found only with the journal's key, and there is none at {}; give the \
                         pseudonym (anon-...), or put the key there",
                        key_path(&args.file).display()
                    )));
                }
            },
        });
    }
    match args.job.as_deref().map(|job| (job, job.parse::<u64>())) {
        Some((_, Ok(token))) => wanted.token = Some(LeaseToken(token)),
        Some((schedule, Err(_))) => wanted.schedule = Some(schedule.to_owned()),
        None => {}
    }
    Ok(wanted)
}

fn read(
    path: &Path,
    replay: &mut Option<Replay>,
    timeline: &mut Timeline,
) -> Result<Ended, Refused> {
    let cannot = |error: std::io::Error| {
        Refused::bad_input(format!("{} cannot be read: {error}", path.display()))
    };
    let mut file = BufReader::new(File::open(path).map_err(cannot)?);
    let mut reader = Reader::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let room = LINE_BYTES_MAX as u64 + 2;
        let read = file.by_ref().take(room).read_until(b'\n', &mut bytes);
        if read.map_err(cannot)? == 0 {
            return Ok(Ended::CutOff);
        }
        if bytes.pop_if(|last| *last == b'\n').is_none() && bytes.len() <= LINE_BYTES_MAX {
            return Ok(Ended::CutOff);
        }
        match reader.line(&bytes) {
            Ok(Line::Head(head)) => *replay = Some(Replay::new(*head)),
            Ok(Line::Step(step)) => {
                let replay = replay.as_mut().expect("a reader gives the head first");
                timeline.turn(replay.turns() + 1, step.at);
                if let Err(error) = replay.step(step, &mut |seen| timeline.seen(seen)) {
                    return Ok(Ended::Differs(error));
                }
            }
            Ok(Line::End(end)) => return Ok(Ended::Whole(end)),
            Err(error @ (JournalError::NotAJournal | JournalError::Format(_))) => {
                return Err(Refused::bad_input(format!("{}: {error}", path.display())));
            }
            Err(error) => return Ok(Ended::Damaged(error)),
        }
    }
}

fn go_on(replay: Replay, ms: u64, timeline: &mut Timeline) -> Result<Vec<String>, Refused> {
    let failed = |error: ReplayError| Refused {
        exit: Exit::Failed,
        detail: error.to_string(),
    };
    let Some(ended) = replay.into_ended() else {
        return Ok(Vec::new());
    };
    let mut go_on = GoOn::new(ended).map_err(failed)?;
    let assumed = go_on.assumptions();
    timeline.goes_on(&assumed);
    let mut turn = 0;
    go_on
        .run(ms, &mut |at: Timestamp, output| {
            turn += 1;
            timeline.turn(turn, at);
            timeline.seen(kalends_sim::incident::Seen::Decided(output));
        })
        .map_err(failed)?;
    Ok(assumed)
}
