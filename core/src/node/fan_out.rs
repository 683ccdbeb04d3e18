//! The fan-out: from one tick to one job for each user that is due, laid over the period.
//!
//! It goes page by page. Each page's jobs and the progress are saved in one command, so a crash neither repeats nor
//! skips a page; whoever takes over goes on with the same base time and the same places.

use serde::{Deserialize, Serialize};

use super::FAN_OUT_PAGE;
use crate::id::{SourceName, UserId};
use crate::policy::jitter::Jitter;
use crate::policy::spread::Spread;
use crate::queue::command::{Command, LeaseRef, NewJob, Priority};
use crate::rng::Rng;
use crate::time::Timestamp;

/// How far a fan-out came: the text that the queue keeps for it, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The tick: another one begins anew.
    pub tick: Timestamp,
    /// The users are laid out from here.
    pub base: Timestamp,
    /// How many were due at the start: the places are dealt by it.
    pub total: u64,
    /// Users laid out so far.
    pub index: u64,
    /// The last of them.
    pub after: Option<(Timestamp, UserId)>,
}

/// One fan-out, under one lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FanOut {
    pub(super) source: SourceName,
    tick: Timestamp,
    period_ms: u64,
    progress: Option<Progress>,
    last_page: bool,
}

impl FanOut {
    pub(super) fn new(
        source: SourceName,
        tick: Timestamp,
        period_ms: u64,
        progress: Option<&str>,
    ) -> Self {
        // Progress that cannot be read means from the start: jobs coalesce, so nothing is doubled.
        let progress: Option<Progress> = progress.and_then(|text| serde_json::from_str(text).ok());
        // A later tick coalesced into one that was broken off: its users are laid out from now, not from then.
        let progress = progress.filter(|progress| progress.tick == tick);
        FanOut {
            source,
            tick,
            period_ms,
            progress,
            last_page: false,
        }
    }

    /// Users laid out so far.
    pub(super) fn users(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.index)
    }

    pub(super) fn period_ms(&self) -> u64 {
        self.period_ms
    }

    /// Asks for the next page; `None` if the last one is done.
    pub(super) fn ask(&self) -> Option<Command> {
        if self.last_page {
            return None;
        }
        Some(Command::DueUsers {
            source: self.source.clone(),
            due_by: self.tick,
            after: self
                .progress
                .as_ref()
                .and_then(|progress| progress.after.clone()),
            limit: FAN_OUT_PAGE,
        })
    }

    /// Lays a page of due users over the period; `None` if nobody is left.
    pub(super) fn page(
        &mut self,
        store_now: Timestamp,
        users: Vec<(Timestamp, UserId)>,
        due_total: Option<u64>,
        lease: &LeaseRef,
        layout: (&Spread, &Jitter),
        rng: &mut impl Rng,
    ) -> Option<Command> {
        self.last_page = users.len() < FAN_OUT_PAGE as usize;
        if users.is_empty() {
            return None;
        }
        let (spread, jitter) = layout;
        let progress = self.progress.get_or_insert(Progress {
            tick: self.tick,
            // A tick that comes late is laid out from now, not all at once.
            base: self.tick.max(store_now),
            total: due_total.unwrap_or(0),
            index: 0,
            after: None,
        });
        let mut jobs = Vec::with_capacity(users.len());
        for (due_at, user) in users {
            let offset_ms =
                spread.offset_ms(progress.index, progress.total.max(1), &user, self.period_ms);
            jobs.push(NewJob {
                user: user.clone(),
                run_at: progress.base.plus_ms(offset_ms).plus_ms(jitter.draw(rng)),
                nominal_at: Some(self.tick),
                priority: Priority::Scheduled,
            });
            progress.index += 1;
            progress.after = Some((due_at, user));
        }
        let text = serde_json::to_string(progress).expect("plain values always become JSON");
        let checkpoint = Some((lease.clone(), text));
        Some(Command::Enqueue {
            source: self.source.clone(),
            jobs,
            checkpoint,
        })
    }
}
