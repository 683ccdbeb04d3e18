//! The commands about jobs but their turns (`turn`): enqueue, heartbeat, checkpoint, "slow down".

use std::slice;

use kalends_core::failure::LimitScope;
use kalends_core::id::SourceName;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::GATE_MS_MAX;
use kalends_core::queue::command::{
    BATCH_MAX, Command, LeaseRef, LeaseToken, NewJob, Priority, Refusal, Reply, Stamped,
};
use kalends_core::queue::state::{JobKey, ParkReason};
use kalends_core::time::Timestamp;

use super::asker::{Asker, Scope, misread};
use super::blocks::{sources_of, write_key};
use super::scripts::SCRIPTS;
use super::wire::{Unreadable, Writer};
use super::{lost, refused, stamped, unknown_source};

/// Jobs that one script enqueues at the most, unless a fan-out's progress must be saved in the same step.
pub(super) const ENQUEUE_PAGE: usize = 125;
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
        let of_source = slice::from_ref(source);
        let (script, scope) = match checkpoint {
            Some(_) => (&SCRIPTS.enqueue_with_progress, Scope::Of(of_source)),
            None => (&SCRIPTS.enqueue, Scope::Few(source)),
        };
        let write = |writer: &mut Writer, _: &[SourceName]| {
            match checkpoint {
                Some((lease, progress)) => {
                    writer.text(super::blocks::name_of(&lease.key));
                    writer.number(lease.token.0).text(progress)
                }
                None => writer.none().none().none(),
            };
            writer.number(jobs.len() as u64).flag(false);
            write_jobs(writer, || jobs.iter());
        };
        let answer = self.ask(script, scope, now, write).await?;
        let now = answer.now;
        match answer.word.as_str() {
            "unknown" => Ok(unknown_source(now, source)),
            "lost" => Ok(lost(now)),
            _ => {
                let read = || -> Result<Reply, Unreadable> {
                    let [added, coalesced, refused, _] = answer.fields()?;
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

    /// Several commands that enqueue in this source, in this order and in one script; a reply for each.
    ///
    /// # Panics
    /// If there are more jobs in them than one script may enqueue: the caller gathered them.
    pub(super) async fn enqueue_each(
        &self,
        now: Option<Timestamp>,
        source: &SourceName,
        commands: &[&[NewJob]],
    ) -> Result<(Timestamp, Vec<Reply>), StoreUnavailable> {
        let count: usize = commands.iter().map(|jobs| jobs.len()).sum();
        assert!(
            count <= ENQUEUE_PAGE,
            "the caller gathers no more than a page"
        );
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer.none().none().none();
            writer.number(count as u64).flag(true);
            write_jobs(writer, || commands.iter().copied().flatten());
        };
        let scope = Scope::Few(source);
        let answer = self.ask(&SCRIPTS.enqueue, scope, now, write).await?;
        let now = answer.now;
        if answer.word == "unknown" {
            let refused = commands.iter().map(|_| unknown_source(now, source).value);
            return Ok((now, refused.collect()));
        }
        let [_, _, _, outcomes] = answer.fields().map_err(misread)?;
        let outcomes = outcomes.text().map_err(misread)?;
        let replies = read_outcomes(&outcomes, commands).map_err(misread)?;
        Ok((now, replies))
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
            let write = |writer: &mut Writer, _: &[SourceName]| {
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
            let answer = self.ask(&SCRIPTS.heartbeat, scope, now, write).await?;
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
        let write = |writer: &mut Writer, _: &[SourceName]| {
            write_key(writer, &lease.key, &sources);
            writer.number(lease.token.0);
            writer
                .maybe_text(progress.as_deref())
                .number(u64::from(requests));
        };
        let answer = self.ask(script, scope, now, write).await?;
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
        let write = |writer: &mut Writer, _: &[SourceName]| {
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
        let answer = self.ask(script, keys, now, write).await?;
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

    pub(super) async fn remove(&self, now: Option<Timestamp>, key: JobKey) -> Answered {
        let sources = sources_of(slice::from_ref(&key).iter());
        let write = |writer: &mut Writer, _: &[SourceName]| write_key(writer, &key, &sources);
        let scope = Scope::Of(&sources);
        let answer = self.ask(&SCRIPTS.remove, scope, now, write).await?;
        let now = answer.now;
        let [count] = answer.fields().map_err(misread)?;
        let count = count.number().map_err(misread)?;
        Ok(stamped(now, Reply::Count { count }))
    }

    /// Enqueues dead letters again, or (`discards`) forgets them.
    pub(super) async fn take_failed(
        &self,
        now: Option<Timestamp>,
        number: Option<u64>,
        discards: bool,
    ) -> Answered {
        let (mut count, mut place, mut after) = (0_u64, 1_u64, 0_u64);
        loop {
            let left = BATCH_MAX as u64 - count;
            let write = |writer: &mut Writer, _: &[SourceName]| {
                match number {
                    Some(number) => writer.number(number),
                    None => writer.none(),
                };
                writer.number(place).number(after).number(left);
                writer.number(u64::from(discards));
            };
            let answer = self
                .ask(&SCRIPTS.take_failed, Scope::All, now, write)
                .await?;
            let at = answer.now;
            let [taken, next, next_after] = answer.fields().map_err(misread)?;
            count += taken.number::<u64>().map_err(misread)?;
            let next = next.maybe(|next| next.number()).map_err(misread)?;
            let Some(next) = next else {
                return Ok(stamped(at, Reply::Count { count }));
            };
            (place, after) = (next, next_after.number().map_err(misread)?);
        }
    }
}

fn write_jobs<'a, Jobs: Iterator<Item = &'a NewJob>>(writer: &mut Writer, jobs: impl Fn() -> Jobs) {
    for job in jobs() {
        writer.text(job.user.as_str());
    }
    for job in jobs() {
        writer.time(job.run_at);
    }
    for job in jobs() {
        writer.maybe_time(job.nominal_at);
    }
    for job in jobs() {
        writer.number(u64::from(job.priority == Priority::Now));
    }
}

/// What became of each job, a letter each (`enqueue_plain.lua`), counted for each command.
fn read_outcomes(outcomes: &str, commands: &[&[NewJob]]) -> Result<Vec<Reply>, Unreadable> {
    const MISSING: Unreadable = Unreadable("an outcome for each job was expected");
    let mut letters = outcomes.bytes();
    let mut replies = Vec::with_capacity(commands.len());
    for jobs in commands {
        let (mut added, mut coalesced, mut refused) = (0_u64, 0_u64, 0_u64);
        for letter in letters.by_ref().take(jobs.len()) {
            match letter {
                b'0' => added += 1,
                b'1' => coalesced += 1,
                b'2' => refused += 1,
                _ => return Err(Unreadable("an outcome is none")),
            }
        }
        if added + coalesced + refused != jobs.len() as u64 {
            return Err(MISSING);
        }
        replies.push(Reply::Enqueued {
            added,
            coalesced,
            refused,
        });
    }
    match letters.next() {
        Some(_) => Err(MISSING),
        None => Ok(replies),
    }
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
