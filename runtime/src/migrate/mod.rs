//! Taking over a BullMQ queue: from what stands there to commands for Kalends' queue. Pure: no I/O, no clock.
//!
//! The service that Kalends replaces kept a repeatable that enqueued a job for each user, and those jobs. Kalends has
//! both, but is told less: a schedule is a cron expression of five fields in a time zone, a job is a user of a source at
//! a time. So a queue is read item by item, and each item ends in one of three ways, none of them silent:
//! - **taken**: a schedule, a user who is enrolled, a job, or one more wish that coalesces into a user's job;
//! - **told as a problem**, with its place, what is wrong and what to do: it is not taken;
//! - **counted**: what needs no taking over (the next run of a repeatable: its schedule makes it; completed jobs).
//!
//! `timing` makes cron expressions of patterns and periods, `whose` reads source and user out of a job's data, `planner` puts
//! all together, `report` says it to a person or a program. `commands::migrate` reads and applies.
//!
//! What is planned is idempotent: schedules and users are upserted by name, jobs coalesce. Memory is bounded by the
//! configured users, as a user has one job, and by [`LINES_MAX`] problems.

pub mod plan;
pub mod planner;
pub mod report;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod whose;

/// Problems (and notes) that are kept in words; further ones are counted.
pub const LINES_MAX: usize = 10_000;
/// Characters of hostile text that a line repeats.
const ECHO_CHARS_MAX: usize = 80;

/// Something that is not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is about: a job, a repeatable, with its place.
    pub place: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Obstacle {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Obstacle {
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// Hostile text in quotation marks, without control characters, and not too long.
fn echo(text: &str) -> String {
    let mut echoed: String = text.chars().take(ECHO_CHARS_MAX).collect();
    if echoed.len() < text.len() {
        echoed.push('…');
    }
    format!("{echoed:?}")
}
