//! What is wrong with a command by itself, whatever the queue holds; and how long its texts are kept. Every store asks
//! here first, so that all refuse the same in the same words.

use super::HISTORY_KEEP_MAX;
use super::command::{BATCH_MAX, CURSOR_BYTES_MAX, Command, CommitOutcome, LEASE_MS_MAX, Refusal};
use super::state::{JobKey, SourceSettings};
use crate::failure::{DETAIL_CHARS_MAX, LimitScope};
use crate::policy::limit::Limit;

impl Command {
    /// Checks the command against every bound that does not depend on what the queue holds.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] or [`Refusal::Invalid`] with what is wrong, in words.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Command::DefineSource { settings, .. } => check_settings(settings),
            Command::SetLimit { jobs, .. } => check_limit("jobs", *jobs),
            Command::Enqueue {
                jobs, checkpoint, ..
            } => {
                check_size("jobs", jobs.len(), BATCH_MAX)?;
                let Some((lease, progress)) = checkpoint else {
                    return Ok(());
                };
                check_text_size("progress", Some(progress))?;
                if matches!(lease.key, JobKey::Sync { .. }) {
                    return invalid("only a fan-out's lease goes with an enqueue");
                }
                Ok(())
            }
            Command::Claim {
                slots,
                fan_out_slots,
                lease_ms,
                held,
                ..
            } => {
                check_size("slots", *slots as usize, BATCH_MAX)?;
                check_size("fan-out slots", *fan_out_slots as usize, BATCH_MAX)?;
                check_size("held leases", held.len(), BATCH_MAX)?;
                check_lease_ms(*lease_ms)
            }
            Command::Heartbeat { leases, lease_ms } => {
                check_size("leases", leases.len(), BATCH_MAX)?;
                check_lease_ms(*lease_ms)
            }
            Command::Checkpoint {
                progress, requests, ..
            } => {
                check_text_size("progress", progress.as_ref())?;
                check_size("requests", *requests as usize, BATCH_MAX)
            }
            Command::Complete { commit, .. } => check_text_size("cursor", commit.cursor.as_ref()),
            Command::Limited { lease, scope, .. } => match (&lease.key, scope) {
                (JobKey::FanOut { .. }, LimitScope::User) => {
                    invalid("a fan-out has no user whose gate could close")
                }
                _ => Ok(()),
            },
            Command::DueUsers { limit, .. } | Command::Users { limit, .. } => {
                check_size("users", *limit as usize, BATCH_MAX)
            }
            Command::Jobs { limit, .. } => check_size("jobs", *limit as usize, BATCH_MAX),
            Command::Enroll { users, .. } | Command::Unenroll { users, .. } => {
                check_size("users", users.len(), BATCH_MAX)
            }
            Command::Connect { grants, .. } => check_size("users", grants.len(), BATCH_MAX),
            Command::DefineSchedule { .. }
            | Command::RemoveSchedule { .. }
            | Command::Tick { .. }
            | Command::Retry { .. }
            | Command::Fail { .. }
            | Command::Release { .. }
            | Command::Pause { .. }
            | Command::Resume { .. }
            | Command::User { .. }
            | Command::Schedules
            | Command::Stats
            | Command::RetryFailed { .. }
            | Command::DiscardFailed { .. }
            | Command::Remove { .. } => Ok(()),
        }
    }

    /// The command with its explanations cut to what is kept of them:
    /// [`DETAIL_CHARS_MAX`] characters.
    #[must_use]
    pub fn shortened(mut self) -> Command {
        self.shorten();
        self
    }

    /// As [`Command::shortened`], in place: a command is large to move.
    pub(super) fn shorten(&mut self) {
        match self {
            Command::Retry { error: text, .. }
            | Command::Fail { error: text, .. }
            | Command::Limited { reason: text, .. }
            | Command::Pause { reason: text, .. } => *text = short(std::mem::take(text)),
            Command::Complete { commit, .. } => {
                if let CommitOutcome::Skipped { note } = &mut commit.outcome {
                    *note = short(std::mem::take(note));
                }
            }
            _ => {}
        }
    }
}

fn invalid(what: &str) -> Result<(), Refusal> {
    Err(Refusal::Invalid {
        what: what.to_owned(),
    })
}

fn check_settings(settings: &SourceSettings) -> Result<(), Refusal> {
    check_limit("jobs", settings.jobs)?;
    check_limit("requests_project", settings.requests_project)?;
    check_limit("requests_user", settings.requests_user)?;
    for (name, keep) in [
        ("keep_completed", settings.keep_completed),
        ("keep_failed", settings.keep_failed),
    ] {
        if keep > HISTORY_KEEP_MAX {
            return Err(Refusal::TooLarge {
                what: format!("{name} is {keep}; give at most {HISTORY_KEEP_MAX}"),
            });
        }
    }
    Ok(())
}

fn check_limit(name: &str, limit: Option<Limit>) -> Result<(), Refusal> {
    match limit.map(|limit| limit.validate()) {
        Some(Err(error)) => Err(Refusal::Invalid {
            what: format!("{name}: {error}"),
        }),
        _ => Ok(()),
    }
}

/// Refuses `count` if it is above `count_max`; `what` names the thing, in the plural.
pub(super) fn check_size(what: &str, count: usize, count_max: usize) -> Result<(), Refusal> {
    if count <= count_max {
        return Ok(());
    }
    Err(Refusal::TooLarge {
        what: format!("{count} {what}; at most {count_max} are allowed in one command"),
    })
}

/// Refuses a cursor or progress that is too long.
fn check_text_size(what: &str, text: Option<&String>) -> Result<(), Refusal> {
    match text {
        Some(text) if text.len() > CURSOR_BYTES_MAX => Err(Refusal::TooLarge {
            what: format!(
                "{what} of {} bytes; at most {CURSOR_BYTES_MAX} are kept",
                text.len()
            ),
        }),
        _ => Ok(()),
    }
}

fn check_lease_ms(lease_ms: u64) -> Result<(), Refusal> {
    if (1..=LEASE_MS_MAX).contains(&lease_ms) {
        return Ok(());
    }
    Err(Refusal::TooLarge {
        what: format!("lease_ms is {lease_ms}; give 1 to {LEASE_MS_MAX}"),
    })
}

/// `text`, cut to what is kept of an explanation.
fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(DETAIL_CHARS_MAX) {
        text.truncate(end);
    }
    text
}
