//! A worker's turn: how attempts ended, and a claim for the next ones, in one script.
//!
//! A script costs much before it does anything (what it is made of, its keys, the queue's own facts), so a worker of
//! three slots that tells three ends and asks for three jobs pays that once and not four times.

use kalends_core::id::SourceName;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{
    BATCH_MAX, Command, CommitOutcome, Lease, LeaseRef, LeaseToken, Refusal, Reply,
};
use kalends_core::queue::state::JobKey;
use kalends_core::time::Timestamp;

use super::asker::{Answer, Asker, Scope, misread};
use super::blocks::{is_among, read_key, sources_of, write_key};
use super::outcome;
use super::scripts::SCRIPTS;
use super::wire::{Unreadable, Value, Writer};

/// What is told of a lease: block, name, token, expiry, attempt, tick, cursor.
const LEASE_VALUES: usize = 7;
const ANSWER_PER_END: Unreadable = Unreadable("an answer for each end was expected");

/// What a turn was answered: the store's time, a reply for each end, and one to the claim.
pub(super) type Turned = Result<(Timestamp, Vec<Reply>, Option<Reply>), StoreUnavailable>;

impl Asker {
    /// The ends of several attempts, in this order, and after them the claim, if there is one; in one script.
    ///
    /// # Panics
    /// If `ends` holds other commands than ends, or too many; or `claim` is none: the caller sorted them.
    pub(super) async fn turn(
        &self,
        now: Option<Timestamp>,
        ends: &[Command],
        claim: Option<&Command>,
    ) -> Turned {
        assert!(
            ends.len() <= BATCH_MAX,
            "the caller gathers no more than a batch"
        );
        match claim {
            Some(claim) => self.end_and_claim(now, ends, claim).await,
            None => self.end(now, ends).await,
        }
    }

    async fn end(&self, now: Option<Timestamp>, ends: &[Command]) -> Turned {
        let sources = sources_of(ends.iter().map(|end| &lease_of(end).key));
        let scope = Scope::Of(&sources);
        let write = |writer: &mut Writer, sources: &[SourceName]| write_ends(writer, ends, sources);
        let answer = self.ask(&SCRIPTS.finish, scope, now, write).await?;
        let said = read_said(&answer.rest).map_err(misread)?;
        if said.len() != ends.len() {
            return Err(misread(ANSWER_PER_END));
        }
        Ok((answer.now, said, None))
    }

    async fn end_and_claim(
        &self,
        now: Option<Timestamp>,
        ends: &[Command],
        claim: &Command,
    ) -> Turned {
        let Command::Claim {
            worker,
            slots,
            fan_out_slots,
            lease_ms,
            held,
        } = claim
        else {
            panic!("no claim: {claim:?}");
        };
        let write = |writer: &mut Writer, sources: &[SourceName]| {
            write_ends(writer, ends, sources);
            writer.text(worker.as_str());
            writer
                .number(u64::from(*slots))
                .number(u64::from(*fan_out_slots));
            writer.number(*lease_ms).list(held.len());
            for token in held {
                writer.number(token.0);
            }
        };
        let answer = self.ask(&SCRIPTS.turn, Scope::All, now, write).await?;
        let now = answer.now;
        let (said, claimed) = read_turn(answer, ends.len()).map_err(misread)?;
        Ok((now, said, Some(claimed)))
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

fn write_ends(writer: &mut Writer, ends: &[Command], sources: &[SourceName]) {
    writer.number(ends.len() as u64);
    for end in ends {
        write_end(writer, end, sources);
    }
}

/// An end: as many values whatever its kind, so that they stand side by side. What a kind has no use for is none.
fn write_end(writer: &mut Writer, end: &Command, sources: &[SourceName]) {
    let lease = lease_of(end);
    writer.number(match end {
        Command::Complete { .. } => 0,
        Command::Retry { .. } => 1,
        Command::Fail { .. } => 2,
        _ => 3,
    });
    if is_among(&lease.key, sources) {
        write_key(writer, &lease.key, sources);
    } else {
        // A source that the store does not know has no leases: a fan-out without a name has none, either.
        writer.number(0).text("");
    }
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
            writer.time(*at).text(error).none().none();
        }
        Command::Fail {
            error,
            next_due_at,
            park,
            ..
        } => {
            writer.text(error).maybe_time(*next_due_at);
            writer.number(super::admin::park_number(*park)).none();
        }
        Command::Release { at, .. } => {
            writer.maybe_time(*at).none().none().none();
        }
        other => panic!("no end of an attempt: {other:?}"),
    }
}

fn read_said(said: &[Value]) -> Result<Vec<Reply>, Unreadable> {
    let replies = said.iter().map(|one| {
        Ok(match one.number::<u8>()? {
            0 => Reply::Done,
            1 => Reply::AlreadyDone,
            _ => Reply::Refused {
                refusal: Refusal::LeaseLost,
            },
        })
    });
    replies.collect()
}

/// Three facts of the claim, what is said to each end, and the leases, one after another.
fn read_turn(answer: Answer, ends: usize) -> Result<(Vec<Reply>, Reply), Unreadable> {
    let sources = answer.sources;
    let [recovered, buried, next_at, rest @ ..] = answer.rest.as_slice() else {
        return Err(Unreadable("an answer is too short"));
    };
    let (said, leases) = rest.split_at_checked(ends).ok_or(ANSWER_PER_END)?;
    let (leases, more) = leases.as_chunks::<LEASE_VALUES>();
    if !more.is_empty() {
        return Err(Unreadable("a lease is cut off"));
    }
    let claimed = Reply::Claimed {
        leases: leases
            .iter()
            .map(|lease| read_lease(lease, &sources))
            .collect::<Result<_, _>>()?,
        recovered: recovered.number()?,
        buried: buried.number()?,
        next_at: next_at.maybe_time()?,
    };
    Ok((read_said(said)?, claimed))
}

fn read_lease(lease: &[Value; LEASE_VALUES], sources: &[SourceName]) -> Result<Lease, Unreadable> {
    let [block, name, token, expires_at, attempt, nominal_at, cursor] = lease;
    let key = read_key(block, name.clone(), sources)?;
    Ok(Lease {
        requests: u32::from(matches!(key, JobKey::Sync { .. })),
        lease: LeaseRef {
            key,
            token: LeaseToken(token.number()?),
        },
        expires_at: expires_at.time()?,
        attempt: attempt.number()?,
        nominal_at: nominal_at.maybe_time()?,
        cursor: cursor.clone().maybe(Value::text)?,
    })
}
