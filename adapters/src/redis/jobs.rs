//! The commands about jobs: enqueue, claim, heartbeat, checkpoint, the ends, "slow down".

use std::slice;

use kalends_core::failure::LimitScope;
use kalends_core::id::{SourceName, WorkerId};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::GATE_MS_MAX;
use kalends_core::queue::command::{
    BATCH_MAX, Command, CommitOutcome, Lease, LeaseRef, LeaseToken, NewJob, Priority, Refusal,
    Reply, Stamped,
};
use kalends_core::queue::state::{JobKey, ParkReason};
use kalends_core::time::Timestamp;

use super::asker::{Answer, Asker, Scope, misread};
use super::blocks::{read_key, sources_of, write_key};
use super::outcome;
use super::scripts::SCRIPTS;
use super::wire::{Unreadable, Value, Writer};
use super::{lost, refused, stamped, unknown_source};

/// Jobs that one script enqueues at the most, unless a fan-out's progress must be saved in the same step.
const ENQUEUE_PAGE: usize = 250;
/// Leases that one script extends at the most.
const HEARTBEAT_PAGE: usize = 250;

/// The answer of a store to a command.
pub(super) type Answered = Result<Stamped<Reply>, StoreUnavailable>;

impl Asker {
    pub(super) async fn enqueue(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        jobs: Vec<NewJob>,
        checkpoint: Option<(LeaseRef, String)>,
    ) -> Answered {
        let page = if checkpoint.is_some() {
            jobs.len().max(1)
        } else {
            ENQUEUE_PAGE
        };
        let mut pages = jobs.chunks(page);
        let first = pages.next().unwrap_or_default();
        let mut sum = self
            .enqueue_page(now, &source, first, checkpoint.as_ref())
            .await?;
        for page in pages {
            let Reply::Enqueued {
                added,
                coalesced,
                refused,
            } = &mut sum.value
            else {
                return Ok(sum);
            };
            // Jobs coalesce: what is cut off here is asked for again by the caller, whole.
            let next = self.enqueue_page(now, &source, page, None).await?;
            let Reply::Enqueued {
                added: more,
                coalesced: more_coalesced,
                refused: more_refused,
            } = next.value
            else {
                return Ok(next);
            };
            *added += more;
            *coalesced += more_coalesced;
            *refused += more_refused;
        }
        Ok(sum)
    }

    async fn enqueue_page(
        &self,
        now: Option<Timestamp>,
        source: &SourceName,
        jobs: &[NewJob],
        checkpoint: Option<&(LeaseRef, String)>,
    ) -> Answered {
        let scope = Scope::Of(slice::from_ref(source));
        let write = |writer: &mut Writer| {
            writer.list(jobs.len());
            for job in jobs {
                writer.text(job.user.as_str());
            }
            writer.list(jobs.len());
            for job in jobs {
                writer.time(job.run_at);
            }
            writer.list(jobs.len());
            for job in jobs {
                writer.maybe_time(job.nominal_at);
            }
            writer.list(jobs.len());
            for job in jobs {
                writer.number(u64::from(job.priority == Priority::Now));
            }
            match checkpoint {
                Some((lease, progress)) => {
                    writer.list(3).text(super::blocks::name_of(&lease.key));
                    writer.number(lease.token.0).text(progress);
                }
                None => {
                    writer.none();
                }
            }
        };
        let answer = self.ask(&SCRIPTS.enqueue, scope, now, 5, write).await?;
        let now = answer.now;
        match answer.word.as_str() {
            "unknown" => Ok(unknown_source(now, source)),
            "lost" => Ok(lost(now)),
            _ => {
                let read = || -> Result<Reply, Unreadable> {
                    let [added, coalesced, refused] = answer.fields()?;
                    Ok(Reply::Enqueued {
                        added: added.number()?,
                        coalesced: coalesced.number()?,
                        refused: refused.number()?,
                    })
                };
                read().map(|reply| stamped(now, reply)).map_err(misread)
            }
        }
    }

    pub(super) async fn claim(
        &self,
        now: Option<Timestamp>,
        worker: WorkerId,
        slots: (u32, u32),
        lease_ms: u64,
        held: Vec<LeaseToken>,
    ) -> Answered {
        let write = |writer: &mut Writer| {
            writer.text(worker.as_str());
            writer.number(u64::from(slots.0)).number(u64::from(slots.1));
            writer.number(lease_ms).list(held.len());
            for token in &held {
                writer.number(token.0);
            }
        };
        let answer = self.ask(&SCRIPTS.claim, Scope::All, now, 5, write).await?;
        let now = answer.now;
        let reply = read_claimed(answer).map_err(misread)?;
        Ok(stamped(now, reply))
    }

    pub(super) async fn heartbeat(
        &self,
        now: Option<Timestamp>,
        leases: Vec<LeaseRef>,
        lease_ms: u64,
    ) -> Answered {
        let sources = sources_of(leases.iter().map(|lease| &lease.key));
        let mut all_lost = Vec::new();
        let mut pages = leases.chunks(HEARTBEAT_PAGE);
        let mut page = pages.next().unwrap_or_default();
        loop {
            let write = |writer: &mut Writer| {
                writer.list(page.len());
                for lease in page {
                    writer.number(super::blocks::block_of(&lease.key, &sources));
                }
                writer.list(page.len());
                for lease in page {
                    writer.text(super::blocks::name_of(&lease.key));
                }
                writer.list(page.len());
                for lease in page {
                    writer.number(lease.token.0);
                }
                writer.number(lease_ms);
            };
            let scope = Scope::Of(&sources);
            let answer = self.ask(&SCRIPTS.heartbeat, scope, now, 4, write).await?;
            let at = answer.now;
            let read = || -> Result<Vec<LeaseToken>, Unreadable> {
                let [lost] = answer.fields()?;
                let lost = lost.list()?.into_iter();
                lost.map(|token| token.number().map(LeaseToken)).collect()
            };
            all_lost.extend(read().map_err(misread)?);
            match pages.next() {
                Some(next) => page = next,
                None => return Ok(stamped(at, Reply::Heartbeat { lost: all_lost })),
            }
        }
    }

    pub(super) async fn checkpoint(
        &self,
        now: Option<Timestamp>,
        lease: LeaseRef,
        progress: Option<String>,
        requests: u32,
    ) -> Answered {
        let sources = sources_of(slice::from_ref(&lease.key).iter());
        let (script, scope) = match &lease.key {
            JobKey::FanOut { .. } => (&SCRIPTS.checkpoint_fan_out, Scope::All),
            JobKey::Sync { .. } => (&SCRIPTS.checkpoint, Scope::Of(&sources)),
        };
        let write = |writer: &mut Writer| {
            write_key(writer, &lease.key, &sources);
            writer.number(lease.token.0);
            writer
                .maybe_text(progress.as_deref())
                .number(u64::from(requests));
        };
        let answer = self.ask(script, scope, now, 5, write).await?;
        let now = answer.now;
        let word = answer.word.clone();
        if word == "lost" {
            return Ok(lost(now));
        }
        let [value] = answer.fields().map_err(misread)?;
        if word == "too_large" {
            let most: u64 = value.number().map_err(misread)?;
            let what = format!("{requests} requests; at most {most} are allowed in one command");
            return Ok(refused(now, Refusal::TooLarge { what }));
        }
        let wait_until = value.maybe_time().map_err(misread)?;
        Ok(stamped(now, Reply::Permit { wait_until }))
    }

    pub(super) async fn limited(&self, now: Option<Timestamp>, command: Command) -> Answered {
        let Command::Limited {
            lease,
            scope,
            retry_after_ms,
            jitter_ms,
            reason,
        } = command
        else {
            panic!("the caller has just seen which command it is");
        };
        let sources = sources_of(slice::from_ref(&lease.key).iter());
        let (script, keys) = match &lease.key {
            JobKey::FanOut { .. } => (&SCRIPTS.limited_fan_out, Scope::All),
            JobKey::Sync { .. } => (&SCRIPTS.limited, Scope::Of(&sources)),
        };
        let write = |writer: &mut Writer| {
            write_key(writer, &lease.key, &sources);
            writer
                .number(lease.token.0)
                .flag(scope == LimitScope::Source);
            match retry_after_ms {
                Some(ms) => writer.number(ms.min(GATE_MS_MAX)),
                None => writer.none(),
            };
            writer.number(jitter_ms.min(GATE_MS_MAX)).text(&reason);
        };
        let answer = self.ask(script, keys, now, 7, write).await?;
        let now = answer.now;
        match answer.word.as_str() {
            "lost" => Ok(lost(now)),
            "already" => Ok(stamped(now, Reply::AlreadyDone)),
            _ => {
                let [until] = answer.fields().map_err(misread)?;
                let until = until.time().map_err(misread)?;
                Ok(stamped(now, Reply::GateClosed { until }))
            }
        }
    }

    /// The ends of several attempts, in this order, in one script. A reply for each.
    pub(super) async fn finish(
        &self,
        now: Option<Timestamp>,
        ends: &[Command],
    ) -> Result<(Timestamp, Vec<Reply>), StoreUnavailable> {
        assert!(
            ends.len() <= BATCH_MAX,
            "the caller gathers no more than a batch"
        );
        let sources = sources_of(ends.iter().map(|end| &lease_of(end).key));
        let write = |writer: &mut Writer| {
            writer.list(ends.len());
            for end in ends {
                write_end(writer, end, &sources);
            }
        };
        let scope = Scope::Of(&sources);
        let answer = self.ask(&SCRIPTS.finish, scope, now, 1, write).await?;
        let now = answer.now;
        let read = || -> Result<Vec<Reply>, Unreadable> {
            let [said] = answer.fields()?;
            let said = said.list()?.into_iter();
            said.map(|one| {
                Ok(match one.number::<u8>()? {
                    0 => Reply::Done,
                    1 => Reply::AlreadyDone,
                    _ => Reply::Refused {
                        refusal: Refusal::LeaseLost,
                    },
                })
            })
            .collect()
        };
        let replies = read().map_err(misread)?;
        if replies.len() != ends.len() {
            return Err(misread(Unreadable("an answer for each end was expected")));
        }
        Ok((now, replies))
    }

    pub(super) async fn remove(&self, now: Option<Timestamp>, key: JobKey) -> Answered {
        let sources = sources_of(slice::from_ref(&key).iter());
        let write = |writer: &mut Writer| write_key(writer, &key, &sources);
        let scope = Scope::Of(&sources);
        let answer = self.ask(&SCRIPTS.remove, scope, now, 2, write).await?;
        let now = answer.now;
        let [count] = answer.fields().map_err(misread)?;
        let count = count.number().map_err(misread)?;
        Ok(stamped(now, Reply::Count { count }))
    }

    pub(super) async fn retry_failed(
        &self,
        now: Option<Timestamp>,
        number: Option<u64>,
    ) -> Answered {
        let (mut count, mut place, mut after) = (0_u64, 1_u64, 0_u64);
        loop {
            let left = BATCH_MAX as u64 - count;
            let write = |writer: &mut Writer| {
                match number {
                    Some(number) => writer.number(number),
                    None => writer.none(),
                };
                writer.number(place).number(after).number(left);
            };
            let answer = self
                .ask(&SCRIPTS.retry_failed, Scope::All, now, 4, write)
                .await?;
            let at = answer.now;
            let [retried, next, next_after] = answer.fields().map_err(misread)?;
            count += retried.number::<u64>().map_err(misread)?;
            let next = next.maybe(|next| next.number()).map_err(misread)?;
            let Some(next) = next else {
                return Ok(stamped(at, Reply::Count { count }));
            };
            (place, after) = (next, next_after.number().map_err(misread)?);
        }
    }
}

/// Whether this command ends an attempt and may go with others in one script.
pub(super) fn is_end(command: &Command) -> bool {
    matches!(
        command,
        Command::Complete { .. }
            | Command::Retry { .. }
            | Command::Fail { .. }
            | Command::Release { .. }
    )
}

fn lease_of(end: &Command) -> &LeaseRef {
    match end {
        Command::Complete { lease, .. }
        | Command::Retry { lease, .. }
        | Command::Fail { lease, .. }
        | Command::Release { lease, .. } => lease,
        other => panic!("no end of an attempt: {other:?}"),
    }
}

fn write_end(writer: &mut Writer, end: &Command, sources: &[SourceName]) {
    let (kind, values) = match end {
        Command::Complete { .. } => ("complete", 4),
        Command::Retry { .. } => ("retry", 2),
        Command::Fail { .. } => ("fail", 3),
        _ => ("release", 1),
    };
    let lease = lease_of(end);
    writer.list(4 + values).text(kind);
    write_key(writer, &lease.key, sources);
    writer.number(lease.token.0);
    match end {
        Command::Complete { commit, .. } => {
            writer
                .maybe_text(commit.cursor.as_deref())
                .maybe_time(commit.next_due_at)
                .text(&outcome::to_text(&commit.outcome))
                .flag(matches!(commit.outcome, CommitOutcome::Synced { .. }));
        }
        Command::Retry { at, error, .. } => {
            writer.time(*at).text(error);
        }
        Command::Fail {
            error,
            next_due_at,
            park,
            ..
        } => {
            writer.text(error).maybe_time(*next_due_at);
            writer.number(super::admin::park_number(*park));
        }
        Command::Release { at, .. } => {
            writer.maybe_time(*at);
        }
        other => panic!("no end of an attempt: {other:?}"),
    }
}

fn read_claimed(answer: Answer) -> Result<Reply, Unreadable> {
    let sources = answer.sources.clone();
    let [leases, recovered, buried, next_at] = answer.fields()?;
    let leases = leases.list()?.into_iter();
    Ok(Reply::Claimed {
        leases: leases
            .map(|lease| read_lease(lease, &sources))
            .collect::<Result<_, _>>()?,
        recovered: recovered.number()?,
        buried: buried.number()?,
        next_at: next_at.maybe_time()?,
    })
}

fn read_lease(lease: Value, sources: &[SourceName]) -> Result<Lease, Unreadable> {
    let [block, name, token, expires_at, attempt, nominal_at, cursor] = lease.fields()?;
    let key = read_key(&block, name, sources)?;
    Ok(Lease {
        requests: u32::from(matches!(key, JobKey::Sync { .. })),
        lease: LeaseRef {
            key,
            token: LeaseToken(token.number()?),
        },
        expires_at: expires_at.time()?,
        attempt: attempt.number()?,
        nominal_at: nominal_at.maybe_time()?,
        cursor: cursor.maybe(Value::text)?,
    })
}

/// Why a user is parked, by number.
pub(super) fn park_reason(number: u8) -> Result<Option<ParkReason>, Unreadable> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(ParkReason::NeedsReauth)),
        2 => Ok(Some(ParkReason::Operator)),
        _ => Err(Unreadable("a reason to park is none")),
    }
}
