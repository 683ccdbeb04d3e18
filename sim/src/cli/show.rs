//! The compact trace: one line a transition, a column a process, then the store's own.

use std::io::Write as _;
use std::process::ExitCode;

use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::node::io::Notice;
use kalends_core::queue::command::{Command, Reply};
use kalends_core::time::Timestamp;
use kalends_sim::plan::Plan;
use kalends_sim::world::run_with;
use kalends_sim::world::trace::{Moment, Tracer};

/// The width of a process's column, in characters.
const COLUMN_CHARS: usize = 8;

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
        line.push_str(&format!("{sign:<COLUMN_CHARS$}{text}"));
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
        } => (column(*process), "graph", format!("{user} → {result:?}")),
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
    match notice {
        // The store's and Google's lines tell these already.
        Notice::JobStarted { .. } | Notice::TickFired { .. } => None,
        other => Some(format!("{other:?}")),
    }
}

fn applied(command: &Command, reply: &Reply) -> Option<String> {
    match (command, reply) {
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
                    format!(
                        "{} #{} (attempt {})",
                        lease.lease.key, lease.lease.token.0, lease.attempt
                    )
                })
                .collect();
            Some(format!(
                "claim {slots} → {} back {recovered}, buried {buried}",
                keys.join(", ")
            ))
        }
        (Command::Schedules, _) => None,
        (Command::Enroll { users, .. }, _) if users.is_empty() => None,
        (Command::Enqueue { jobs, .. }, reply) => {
            Some(format!("enqueue {} → {reply:?}", jobs.len()))
        }
        (Command::Enroll { users, .. }, _) => Some(format!("enroll {}", users.len())),
        (Command::Connect { grants, .. }, _) => Some(format!("connect {}", grants.len())),
        (Command::Complete { lease, commit }, reply) => Some(format!(
            "complete {} #{} {:?} → {reply:?}",
            lease.key, lease.token.0, commit.outcome
        )),
        (command, reply) => {
            let text = format!("{command:?} → {reply:?}");
            Some(text.chars().take(300).collect())
        }
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
