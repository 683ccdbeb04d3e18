//! The compact trace: one line a transition, a column a process, then the store's own.

use std::io::Write as _;
use std::process::ExitCode;

use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::graph::GraphReply;
use kalends_core::node::io::Notice;
use kalends_core::queue::command::{Command, CommitOutcome, LeaseToken, Reply};
use kalends_core::time::Timestamp;
use kalends_sim::plan::Plan;
use kalends_sim::world::run_with;
use kalends_sim::world::trace::{Moment, Tracer};

/// The width of a process's column, in characters.
const COLUMN_CHARS: usize = 8;
/// What stands behind the columns is at most so long, in characters.
const TEXT_CHARS_MAX: usize = 240;

struct Printer<'a> {
    processes: usize,
    only: Option<&'a str>,
}

impl Tracer for Printer<'_> {
    fn moment(&mut self, at: Timestamp, moment: &Moment<'_>) {
        let Some((process, sign, text)) = describe(moment) else {
            return;
        };
        let mut line = format!("{} ", &at.to_rfc3339()[5..23]);
        for column in 0..self.processes {
            let shown = if process == Some(column) { sign } else { "·" };
            line.push_str(&format!("{shown:<COLUMN_CHARS$}"));
        }
        let sign = if process.is_none() { sign } else { "" };
        line.push_str(&format!("{sign:<COLUMN_CHARS$}{}", compact(&text)));
        if self.only.is_none_or(|only| line.contains(only)) {
            // A reader that went away (head, say) ends the show.
            if writeln!(std::io::stdout(), "{line}").is_err() {
                std::process::exit(0);
            }
        }
    }
}

fn column(process: u32) -> Option<usize> {
    usize::try_from(process).ok()
}

fn describe(moment: &Moment<'_>) -> Option<(Option<usize>, &'static str, String)> {
    Some(match moment {
        Moment::Started {
            process,
            incarnation,
        } => (
            column(*process),
            "start",
            format!("incarnation {incarnation}"),
        ),
        Moment::Ended { process, how } => (column(*process), "end", (*how).to_owned()),
        Moment::Said { process, notice } => (column(*process), "say", said(notice)?),
        Moment::Noted { process, line } => (column(*process), "say", (*line).to_owned()),
        Moment::Applied {
            process,
            command,
            reply,
            ..
        } => {
            let text = applied(command, reply)?;
            (process.and_then(column), "store", text)
        }
        Moment::Fetched {
            process,
            request,
            result,
        } => {
            let text = match result {
                Ok(_) => "ok".to_owned(),
                Err(failure) => format!("{:?}: {failure}", failure.kind),
            };
            let what = match request {
                FetchRequest::Events { query, .. } => match (&query.from, &query.page_token) {
                    (_, Some(_)) => "next page",
                    (EventsFrom::Full { .. }, None) => "full",
                    (EventsFrom::SyncToken(_), None) => "increment",
                },
                FetchRequest::Calendars { .. } => "calendars",
                FetchRequest::Watch { .. } => "watch",
                FetchRequest::StopChannel { .. } => "stop a channel",
            };
            (
                column(*process),
                "google",
                format!("{} {what} → {text}", request.user()),
            )
        }
        Moment::Wrote {
            process,
            user,
            result,
        } => {
            let text = match result {
                Ok(GraphReply::Written(counts)) => {
                    format!("+{} -{}", counts.upserted, counts.deleted)
                }
                Ok(other) => format!("{other:?}"),
                Err(failure) => failure.to_string(),
            };
            (column(*process), "graph", format!("{user} → {text}"))
        }
        Moment::Heard {
            process,
            user,
            verdict,
        } => {
            let whose = user.map_or("somebody".to_owned(), ToString::to_string);
            (column(*process), "hear", format!("{whose} → {verdict:?}"))
        }
        Moment::FaultBegan(fault) => (
            None,
            "FAULT",
            format!("{:?} for {} ms", fault.kind, fault.lasting_ms),
        ),
        Moment::FaultEnded(fault) => (None, "over", format!("{:?}", fault.kind)),
        Moment::Healed => (None, "HEAL", "the faults are over".to_owned()),
        Moment::Converged => (
            None,
            "WELL",
            "everybody is fresh, the graphs equal the calendars".to_owned(),
        ),
    })
}

fn said(notice: &Notice) -> Option<String> {
    Some(match notice {
        // The store's and Google's lines tell these already.
        Notice::JobStarted { .. } | Notice::TickFired { .. } | Notice::JobDone { .. } => {
            return None;
        }
        Notice::JobRetried { key, failure, at } => {
            format!("{key} again at {}: {failure}", time(*at))
        }
        Notice::JobFailed {
            key,
            failure,
            parked,
        } => {
            let parked = if *parked { ", parked" } else { "" };
            format!("{key} given up{parked}: {failure}")
        }
        Notice::JobReleased { key } => format!("{key} handed back"),
        Notice::LeaseLost { key } => format!("{key}: the lease is lost"),
        Notice::Limited {
            key, scope, until, ..
        } => format!(
            "{key} was told to slow down: {scope:?} until {}",
            time(*until)
        ),
        Notice::StoreAway {
            failures, retry_at, ..
        } => format!(
            "the store is away ({failures}), again at {}",
            time(*retry_at)
        ),
        Notice::StoreBack { away_ms } => format!("the store is back after {away_ms} ms"),
        other => format!("{other:?}"),
    })
}

/// The time of day: the date stands at the line's beginning.
fn time(at: Timestamp) -> String {
    at.to_rfc3339()[11..23].to_owned()
}

/// A token in few digits: those that tell one from another within a quarter of an hour.
fn token(token: LeaseToken) -> String {
    format!("#{:09}", token.0 % 1_000_000_000)
}

fn applied(command: &Command, reply: &Reply) -> Option<String> {
    Some(match (command, reply) {
        (
            Command::Claim { slots, .. },
            Reply::Claimed {
                leases,
                recovered,
                buried,
                ..
            },
        ) => {
            if leases.is_empty() && *recovered == 0 && *buried == 0 {
                return None;
            }
            let keys: Vec<String> = leases
                .iter()
                .map(|lease| {
                    let again = match lease.attempt {
                        1 => String::new(),
                        attempt => format!(" (attempt {attempt})"),
                    };
                    format!("{} {}{again}", lease.lease.key, token(lease.lease.token))
                })
                .collect();
            let mut text = format!("claim {slots} → {}", keys.join(", "));
            if *recovered > 0 || *buried > 0 {
                text.push_str(&format!("; {recovered} expired, {buried} buried"));
            }
            text
        }
        (Command::Schedules | Command::User { .. }, _) => return None,
        (Command::Enroll { users, .. }, _) if users.is_empty() => return None,
        (Command::Heartbeat { .. }, Reply::Heartbeat { lost }) if lost.is_empty() => return None,
        (Command::Heartbeat { leases, .. }, Reply::Heartbeat { lost }) => {
            format!("heartbeat {} → {} lost", leases.len(), lost.len())
        }
        (Command::Enqueue { jobs, .. }, reply) => format!("enqueue {} → {reply:?}", jobs.len()),
        (Command::Enroll { users, .. }, _) => format!("enroll {}", users.len()),
        (Command::Connect { grants, .. }, _) => format!("connect {}", grants.len()),
        (Command::Complete { lease, commit }, reply) => {
            let outcome = match &commit.outcome {
                CommitOutcome::Synced {
                    upserted,
                    deleted,
                    full,
                    ..
                } => {
                    let pass = if *full { "full" } else { "increment" };
                    format!("{pass} +{upserted} -{deleted}")
                }
                other => format!("{other:?}"),
            };
            let token = token(lease.token);
            format!("complete {} {token} {outcome} → {reply:?}", lease.key)
        }
        (Command::Checkpoint { lease, .. }, Reply::Permit { wait_until }) => {
            let leave =
                wait_until.map_or("go on".to_owned(), |at| format!("wait until {}", time(at)));
            format!("checkpoint {} → {leave}", lease.key)
        }
        (Command::Tick { at, .. }, Reply::Fired { .. }) => format!("tick {} fires", time(*at)),
        (Command::Tick { at, .. }, Reply::AlreadyFired { .. }) => {
            format!("tick {} had fired", time(*at))
        }
        (command, reply) => format!("{command:?} → {reply:?}"),
    })
}

/// Short words for what stands in nearly every line, and an end for what is very long.
fn compact(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(place) = rest.find("user-") {
        short.push_str(&rest[..place]);
        let after = &rest[place + "user-".len()..];
        let digits = after.len()
            - after
                .trim_start_matches(|digit: char| digit.is_ascii_digit())
                .len();
        let number = after[..digits].trim_start_matches('0');
        match after[digits..].strip_prefix("@example.com") {
            Some(end) if !number.is_empty() => {
                short.push_str(&format!("user {number}"));
                rest = end;
            }
            _ => {
                short.push_str("user-");
                rest = after;
            }
        }
    }
    short.push_str(rest);
    let short = short.replace("google-calendar sync of ", "");
    match short.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &short[..end]),
        None => short,
    }
}

/// Plays a plan and prints it.
pub(super) fn show(plan: &Plan, only: Option<&str>) -> ExitCode {
    let mut printer = Printer {
        processes: plan.size.processes as usize,
        only,
    };
    let report = run_with(plan, &mut printer);
    println!(
        "{} events, unseed {:016x}",
        report.tally.events, report.unseed
    );
    match report.failed {
        None => ExitCode::SUCCESS,
        Some(failed) => {
            println!("{}", super::batch::describe(&failed));
            ExitCode::from(failed.class.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_lines_end() {
        assert_eq!(
            compact("google-calendar sync of user-00012@example.com #1, user-7@x user-"),
            "user 12 #1, user-7@x user-"
        );
        assert_eq!(
            compact(&"ä".repeat(500)).chars().count(),
            TEXT_CHARS_MAX + 1
        );
    }
}
