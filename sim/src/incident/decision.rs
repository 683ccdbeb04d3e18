//! Digests of what a node decides, equal for the decision over real texts and for the one over their pseudonyms.
//!
//! All that has consequences counts: which command, for whom, under which token, at what time, with what cursor; which
//! request; how much is written and under which fence; which timeout and why. Not counted is what is only for people
//! (explanations, titles, which invalid events are remembered), and what hangs on how a hidden id is spelt: the order of
//! events within a batch, and which of several calendars that are dropped together goes first.

use kalends_core::failure::{FailureKind, LimitScope};
use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::graph::GraphWrite;
use kalends_core::node::FanOutProgress;
use kalends_core::node::io::{Notice, Op, Output, Reason};
use kalends_core::queue::command::{Command, CommitOutcome, LeaseRef, NewJob, Priority};
use kalends_core::queue::state::JobKey;
use kalends_core::sync::cursor::SyncCursor;
use kalends_core::time::Timestamp;

use super::hash::{Digest, Names};

/// One decision, as a journal holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What kind.
    pub kind: Kind,
    /// Equal for equal decisions.
    pub digest: u32,
}

/// What kind of decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A store command.
    Store = b'S',
    /// A request to the source.
    Fetch = b'F',
    /// A graph write.
    Graph = b'G',
    /// An effect is given up.
    Cancel = b'C',
    /// A notice.
    Notice = b'N',
    /// When to be woken.
    Timeout = b'T',
    /// The end.
    Finished = b'Z',
}

impl Kind {
    pub(super) fn read(letter: u8) -> Option<Self> {
        const ALL: [Kind; 7] = [
            Kind::Store,
            Kind::Fetch,
            Kind::Graph,
            Kind::Cancel,
            Kind::Notice,
            Kind::Timeout,
            Kind::Finished,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == letter)
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Store => "a store command",
            Kind::Fetch => "a request to the source",
            Kind::Graph => "a graph write",
            Kind::Cancel => "an effect given up",
            Kind::Notice => "a notice",
            Kind::Timeout => "a timeout",
            Kind::Finished => "the end",
        }
    }
}

/// What `output` is in the journal.
pub(super) fn decision(output: &Output, names: &impl Names) -> Decision {
    let (kind, digest) = match output {
        Output::Effect { id, op } => {
            let mut digest = Digest::new(id.0);
            let kind = match op {
                Op::Store(command) => {
                    command_digest(&mut digest, command, names);
                    Kind::Store
                }
                Op::Fetch(request) => {
                    fetch_digest(&mut digest, request, names);
                    Kind::Fetch
                }
                Op::Graph(write) => {
                    graph_digest(&mut digest, write, names);
                    Kind::Graph
                }
            };
            (kind, digest.end())
        }
        Output::Cancel { id } => (Kind::Cancel, Digest::new(1).add(id.0).end()),
        Output::Notice(notice) => {
            let mut digest = Digest::new(2);
            notice_digest(&mut digest, notice, names);
            (Kind::Notice, digest.end())
        }
        Output::Timeout { at, reason } => {
            let reason = match reason {
                Reason::Tick => 1,
                Reason::Claim => 2,
                Reason::Heartbeat => 3,
                Reason::EffectDeadline => 4,
                Reason::StoreRetry => 5,
                Reason::Shutdown => 6,
                Reason::Never => 7,
                Reason::HandBack => 8,
            };
            let digest = Digest::new(3).signed(at.as_ms()).add(reason).end();
            (Kind::Timeout, digest)
        }
        Output::Finished => (Kind::Finished, 0),
    };
    Decision {
        kind,
        digest: (digest ^ (digest >> 32)) as u32,
    }
}

fn maybe_at(digest: &mut Digest, at: Option<Timestamp>) {
    match at {
        Some(at) => digest.add(1).signed(at.as_ms()),
        None => digest.add(0),
    };
}

fn maybe_text(digest: &mut Digest, text: Option<&String>, names: &impl Names) {
    digest.add(text.map_or(0, |text| names.text(text) | 1));
}

fn key_digest(digest: &mut Digest, key: &JobKey, names: &impl Names) {
    match key {
        JobKey::FanOut { schedule } => digest.add(1).open(schedule.as_str()),
        JobKey::Sync { source, user } => digest
            .add(2)
            .open(source.as_str())
            .add(names.text(user.as_str())),
    };
}

fn lease_digest(digest: &mut Digest, lease: &LeaseRef, names: &impl Names) {
    digest.add(lease.token.0);
    key_digest(digest, &lease.key, names);
}

fn job_digest(digest: &mut Digest, job: &NewJob, names: &impl Names) {
    digest.add(names.text(job.user.as_str()));
    digest.signed(job.run_at.as_ms());
    maybe_at(digest, job.nominal_at);
    digest.add(u64::from(job.priority == Priority::Now));
}

fn scope(scope: LimitScope) -> u64 {
    match scope {
        LimitScope::User => 1,
        LimitScope::Source => 2,
    }
}

fn command_digest(digest: &mut Digest, command: &Command, names: &impl Names) {
    match command {
        Command::DefineSource { source, settings } => {
            let text = serde_json::to_string(settings).expect("plain values become JSON");
            digest.add(1).open(source.as_str()).open(&text);
        }
        Command::DefineSchedule {
            schedule,
            definition,
        } => {
            let text = serde_json::to_string(definition).expect("plain values become JSON");
            digest.add(2).open(schedule.as_str()).open(&text);
        }
        Command::Tick {
            schedule,
            revision,
            after,
            at,
            missed,
            fire,
        } => {
            digest.add(3).open(schedule.as_str()).add(*revision);
            digest.signed(after.as_ms()).signed(at.as_ms());
            digest.add(*missed).add(u64::from(*fire));
        }
        Command::Enqueue {
            source,
            jobs,
            checkpoint,
        } => {
            digest.add(4).open(source.as_str());
            for job in jobs {
                job_digest(digest, job, names);
            }
            if let Some((lease, text)) = checkpoint {
                lease_digest(digest, lease, names);
                progress_digest(digest, text, names);
            }
        }
        Command::Claim {
            worker,
            slots,
            fan_out_slots,
            lease_ms,
            held,
        } => {
            digest.add(5).open(worker.as_str()).add(u64::from(*slots));
            digest.add(u64::from(*fan_out_slots)).add(*lease_ms);
            for token in held {
                digest.add(token.0);
            }
        }
        Command::Heartbeat { leases, lease_ms } => {
            digest.add(6).add(*lease_ms);
            for lease in leases {
                lease_digest(digest, lease, names);
            }
        }
        Command::Checkpoint {
            lease,
            progress,
            requests,
        } => {
            digest.add(7).add(u64::from(*requests));
            lease_digest(digest, lease, names);
            cursor_digest(digest, progress.as_ref(), names);
        }
        Command::Complete { lease, commit } => {
            digest.add(8);
            lease_digest(digest, lease, names);
            cursor_digest(digest, commit.cursor.as_ref(), names);
            maybe_at(digest, commit.next_due_at);
            outcome_digest(digest, &commit.outcome);
        }
        Command::Retry { lease, at, .. } => {
            digest.add(9).signed(at.as_ms());
            lease_digest(digest, lease, names);
        }
        Command::Fail {
            lease,
            next_due_at,
            park,
            ..
        } => {
            digest.add(10).add(u64::from(park.is_some()));
            lease_digest(digest, lease, names);
            maybe_at(digest, *next_due_at);
        }
        Command::Release { lease, at } => {
            digest.add(11);
            lease_digest(digest, lease, names);
            maybe_at(digest, *at);
        }
        Command::Limited {
            lease,
            scope: closed,
            retry_after_ms,
            jitter_ms,
            ..
        } => {
            digest.add(12).add(scope(*closed)).add(*jitter_ms);
            digest.add(retry_after_ms.map_or(0, |ms| ms.saturating_add(1)));
            lease_digest(digest, lease, names);
        }
        Command::DueUsers {
            source,
            due_by,
            after,
            limit,
        } => {
            digest.add(13).open(source.as_str()).signed(due_by.as_ms());
            digest.add(u64::from(*limit));
            if let Some((at, user)) = after {
                digest.signed(at.as_ms()).add(names.text(user.as_str()));
            }
        }
        Command::Enroll {
            source,
            users,
            due_at,
        } => {
            digest.add(14).open(source.as_str()).signed(due_at.as_ms());
            for user in users {
                digest.add(names.text(user.as_str()));
            }
        }
        Command::Connect {
            source,
            grants,
            due_at,
            force,
        } => {
            digest.add(15).open(source.as_str()).signed(due_at.as_ms());
            digest.add(u64::from(*force));
            for (user, grant) in grants {
                digest.add(names.text(user.as_str()));
                digest.add(names.number(*grant));
            }
        }
        Command::Schedules => {
            digest.add(16);
        }
        // No node sends these.
        Command::RemoveSchedule { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::SetLimit { .. }
        | Command::Unenroll { .. }
        | Command::User { .. }
        | Command::Users { .. }
        | Command::Stats
        | Command::Jobs { .. }
        | Command::RetryFailed { .. }
        | Command::DiscardFailed { .. }
        | Command::Remove { .. } => {
            digest.add(17);
        }
    }
}

fn progress_digest(digest: &mut Digest, text: &str, names: &impl Names) {
    let Ok(progress) = serde_json::from_str::<FanOutProgress>(text) else {
        digest.add(0);
        return;
    };
    digest
        .signed(progress.tick.as_ms())
        .signed(progress.base.as_ms());
    digest.add(progress.total).add(progress.index);
    if let Some((at, user)) = progress.after {
        digest.signed(at.as_ms()).add(names.text(user.as_str()));
    }
}

fn cursor_digest(digest: &mut Digest, text: Option<&String>, names: &impl Names) {
    let Some(Ok(cursor)) = text.map(|text| serde_json::from_str::<SyncCursor>(text)) else {
        digest.add(0);
        return;
    };
    // The calendars stand in the order of their ids, which hiding changes: a sum has no order.
    let mut sum = 0_u64;
    for (calendar, cursor) in &cursor.calendars {
        let mut one = Digest::new(names.text(calendar.as_str()));
        one.signed(cursor.window_start.as_ms());
        maybe_text(&mut one, cursor.sync_token.as_ref(), names);
        one.add(cursor.fingerprint).add(cursor.generation);
        one.add(names.number(cursor.row_hash));
        one.add(cursor.resync_day).add(cursor.resyncs);
        maybe_at(&mut one, cursor.unavailable_since);
        if let Some(pass) = &cursor.pass {
            one.add(pass.full_generation.unwrap_or(1))
                .add(u64::from(pass.pages));
            maybe_text(&mut one, pass.page_token.as_ref(), names);
        }
        sum = sum.wrapping_add(one.end());
    }
    digest.add(sum);
    for calendar in &cursor.round {
        digest.add(names.text(calendar.as_str()));
    }
}

fn outcome_digest(digest: &mut Digest, outcome: &CommitOutcome) {
    match outcome {
        CommitOutcome::Synced {
            upserted,
            deleted,
            quarantined,
            requests,
            full,
        } => digest
            .add(*upserted)
            .add(*deleted)
            .add(*quarantined)
            .add(*requests)
            .add(u64::from(*full)),
        CommitOutcome::Skipped { .. } => digest.add(1),
        CommitOutcome::FannedOut { users } => digest.add(2).add(*users),
    };
}

fn fetch_digest(digest: &mut Digest, request: &FetchRequest, names: &impl Names) {
    digest.add(names.text(request.user().as_str()));
    match request {
        FetchRequest::Calendars { page_token, .. } => {
            maybe_text(digest.add(1), page_token.as_ref(), names);
        }
        FetchRequest::Events { query, .. } => {
            digest.add(2).add(names.text(query.calendar.as_str()));
            digest.add(u64::from(query.page_size));
            maybe_text(digest, query.page_token.as_ref(), names);
            match &query.from {
                EventsFrom::Full { window_start } => digest.add(3).signed(window_start.as_ms()),
                EventsFrom::SyncToken(token) => digest.add(4).add(names.text(token)),
            };
        }
        FetchRequest::Watch {
            calendar, life_ms, ..
        } => {
            digest
                .add(5)
                .add(names.text(calendar.as_str()))
                .add(*life_ms);
        }
        FetchRequest::StopChannel { resource, .. } => {
            digest.add(6).add(names.text(resource));
        }
    }
}

fn graph_digest(digest: &mut Digest, write: &GraphWrite, names: &impl Names) {
    digest.add(names.text(write.user().as_str()));
    match write {
        GraphWrite::Apply {
            fence,
            calendar,
            generation,
            upserts,
            deletions,
            ..
        } => {
            digest.add(1).add(fence.0).add(*generation);
            digest.add(names.text(calendar.id.as_str()));
            digest.add(upserts.len() as u64).add(deletions.len() as u64);
        }
        GraphWrite::Sweep {
            fence,
            calendar,
            generation,
            ..
        } => {
            digest.add(2).add(fence.0).add(*generation);
            digest.add(names.text(calendar.as_str()));
        }
        GraphWrite::RemoveCalendar { fence, .. } => {
            digest.add(3).add(fence.0);
        }
        GraphWrite::Spare {
            fence,
            calendar,
            generation,
            events,
            ..
        } => {
            digest.add(4).add(fence.0).add(*generation);
            digest.add(names.text(calendar.as_str()));
            digest.add(events.len() as u64);
        }
    }
}

fn failure_digest(digest: &mut Digest, kind: &FailureKind) {
    let text = serde_json::to_string(kind).expect("plain values become JSON");
    digest.open(&text);
}

fn notice_digest(digest: &mut Digest, notice: &Notice, names: &impl Names) {
    match notice {
        Notice::Ready => digest.add(1),
        Notice::StoreAway {
            failures, retry_at, ..
        } => digest
            .add(2)
            .add(u64::from(*failures))
            .signed(retry_at.as_ms()),
        Notice::StoreBack { away_ms } => digest.add(3).add(*away_ms),
        Notice::StoreEmptied => digest.add(4),
        Notice::TickFired { schedule, at } => {
            digest.add(5).open(schedule.as_str()).signed(at.as_ms())
        }
        Notice::TicksMissed { schedule, count } => {
            digest.add(6).open(schedule.as_str()).add(*count)
        }
        Notice::ScheduleNeverFires { schedule } => digest.add(7).open(schedule.as_str()),
        Notice::Overloaded { source, overload } => digest
            .add(8)
            .open(source.as_str())
            .open(&format!("{overload}")),
        Notice::JobStarted { key, attempt } => {
            key_digest(digest, key, names);
            digest.add(9).add(u64::from(*attempt))
        }
        Notice::JobDone {
            key,
            outcome,
            duration_ms,
        } => {
            key_digest(digest, key, names);
            outcome_digest(digest, outcome);
            digest.add(10).add(*duration_ms)
        }
        Notice::JobRetried { key, failure, at } => {
            key_digest(digest, key, names);
            failure_digest(digest, &failure.kind);
            digest.add(11).signed(at.as_ms())
        }
        Notice::JobFailed {
            key,
            failure,
            parked,
        } => {
            key_digest(digest, key, names);
            failure_digest(digest, &failure.kind);
            digest.add(12).add(u64::from(*parked))
        }
        Notice::JobReleased { key } => {
            key_digest(digest, key, names);
            digest.add(13)
        }
        Notice::LeaseLost { key } => {
            key_digest(digest, key, names);
            digest.add(14)
        }
        Notice::Limited {
            key,
            scope: closed,
            until,
            ..
        } => {
            key_digest(digest, key, names);
            digest.add(15).add(scope(*closed)).signed(until.as_ms())
        }
        Notice::Misconfigured { source, .. } => digest.add(16).open(source.as_str()),
        Notice::MalformedToken { user } => digest.add(17).add(names.text(user.as_str())),
        Notice::Recovered { recovered, buried } => digest
            .add(18)
            .add(u64::from(*recovered))
            .add(u64::from(*buried)),
        Notice::Refused { .. } => digest.add(19),
        Notice::EffectTimedOut { what, after_ms } => digest.add(20).open(what).add(*after_ms),
        Notice::ClockCorrected { offset_ms } => digest.add(21).signed(*offset_ms),
    };
}
