//! The node's side of the store: effects under way with their deadlines, the store's clock, and what to do while the
//! store is away (keep asking, backing off; forget nothing).

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::io::{EffectId, EffectResult, Notice};
use crate::failure::Failure;
use crate::id::ScheduleName;
use crate::mutant::{Mutant, planted};
use crate::policy::backoff::{Backoff, BackoffJitter};
use crate::port::StoreUnavailable;
use crate::queue::command::{Command, LeaseToken};
use crate::rng::KalendsRng;
use crate::time::Timestamp;

/// The longest interval at which a store that is away is asked again, in milliseconds: work resumes within 5 s.
const STORE_RETRY_CAP_MS: u64 = 4_000;
/// The first such interval, in milliseconds.
const STORE_RETRY_BASE_MS: u64 = 100;
/// A clock that is off by more than this is worth a notice, in milliseconds.
const CLOCK_NOTICE_MS: u64 = 1_000;

/// On whose behalf an effect is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    Boot,
    FirstSync,
    Refresh,
    /// Whether the store still knows a source.
    Probe,
    Tick {
        schedule: ScheduleName,
        at: Timestamp,
        fire: bool,
        missed: u64,
    },
    Claim,
    Heartbeat,
    Job(LeaseToken),
}

impl Purpose {
    /// Whether a command that the store did not answer is sent again as it is. The others are made anew.
    pub(super) fn is_sent_again(&self) -> bool {
        matches!(self, Purpose::Boot | Purpose::FirstSync | Purpose::Job(_))
    }
}

/// An effect that ended, or is to end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct InFlight {
    pub(super) purpose: Purpose,
    /// A store command that may have to be sent again.
    pub(super) command: Option<Box<Command>>,
    pub(super) kind: EffectKind,
    pub(super) timeout_ms: u64,
    deadline: Timestamp,
}

/// What sort of effect it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum EffectKind {
    Store,
    Fetch,
    Graph,
}

impl EffectKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            EffectKind::Store => "store command",
            EffectKind::Fetch => "request to the source",
            EffectKind::Graph => "graph write",
        }
    }
}

impl InFlight {
    /// What is to be made of an effect that did not end in time.
    pub(super) fn timed_out(&self) -> EffectResult {
        let detail = format!(
            "{}: no answer within {} ms",
            self.kind.name(),
            self.timeout_ms
        );
        match self.kind {
            EffectKind::Store => EffectResult::Store(Err(StoreUnavailable { detail })),
            EffectKind::Fetch => EffectResult::Fetch(Err(Failure::transient(detail))),
            EffectKind::Graph => EffectResult::Graph(Err(Failure::transient(detail))),
        }
    }
}

/// The effects under way: at most a few for the node itself and one for each job that it holds.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Effects {
    /// By their names, which grow; boxed, as entries move up when one before them goes. There are a few, or some hundreds
    /// in a process with many slots.
    in_flight: VecDeque<(EffectId, Box<InFlight>)>,
    deadlines: BTreeSet<(Timestamp, EffectId)>,
    last: u64,
}

impl Effects {
    pub(super) fn begin(
        &mut self,
        purpose: Purpose,
        command: Option<Box<Command>>,
        now: Timestamp,
        timeout_ms: u64,
        kind: EffectKind,
    ) -> EffectId {
        self.last += 1;
        let id = EffectId(self.last);
        let deadline = if planted(Mutant::HungNeverGivenUp) {
            Timestamp::MAX
        } else {
            now.plus_ms(timeout_ms)
        };
        let effect = InFlight {
            purpose,
            command,
            kind,
            timeout_ms,
            deadline,
        };
        self.in_flight.push_back((id, Box::new(effect)));
        self.deadlines.insert((deadline, id));
        id
    }

    /// Boxed, as it is large to move.
    pub(super) fn end(&mut self, id: EffectId) -> Option<Box<InFlight>> {
        let place = self.in_flight.binary_search_by_key(&id, |(id, _)| *id);
        let (_, ended) = self.in_flight.remove(place.ok()?)?;
        self.deadlines.remove(&(ended.deadline, id));
        Some(ended)
    }

    /// Takes out one effect whose deadline has come.
    pub(super) fn expire(&mut self, now: Timestamp) -> Option<(EffectId, Box<InFlight>)> {
        let id = self
            .deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
            .map(|(_, id)| *id)?;
        self.end(id).map(|late| (id, late))
    }

    pub(super) fn purpose(&self, id: EffectId) -> Option<&Purpose> {
        let place = self.in_flight.binary_search_by_key(&id, |(id, _)| *id);
        let (_, effect) = self.in_flight.get(place.ok()?)?;
        Some(&effect.purpose)
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }
}

/// An outage of the store, as seen from here.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Away {
    since: Timestamp,
    failures: u32,
    retry_at: Timestamp,
}

/// The store as seen from here: its clock, and whether it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoreLink {
    /// Store time minus the driver's time, in milliseconds.
    offset_ms: i64,
    away: Option<Away>,
    /// Commands that wait for the store to be asked again: at most one for each job here, and those of the start.
    held: VecDeque<(Purpose, Command)>,
    backoff: Backoff,
    rng: KalendsRng,
}

impl StoreLink {
    pub(super) fn new(rng: KalendsRng) -> Self {
        let backoff = Backoff {
            base_ms: STORE_RETRY_BASE_MS,
            cap_ms: STORE_RETRY_CAP_MS,
            jitter: BackoffJitter::Equal,
            ..Backoff::default()
        };
        StoreLink {
            offset_ms: 0,
            away: None,
            held: VecDeque::new(),
            backoff,
            rng,
        }
    }

    pub(super) fn store_time(&self, local: Timestamp) -> Timestamp {
        Timestamp::from_ms(local.as_ms().saturating_add(self.offset_ms))
    }

    pub(super) fn local_time(&self, store: Timestamp) -> Timestamp {
        Timestamp::from_ms(store.as_ms().saturating_sub(self.offset_ms))
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Whether nothing may be sent at `now`.
    pub(super) fn is_closed(&self, now: Timestamp) -> bool {
        now < self.retry_at()
    }

    /// When the store may be asked again, on the driver's clock; the beginning of time if it answers.
    pub(super) fn retry_at(&self) -> Timestamp {
        self.away
            .as_ref()
            .map_or(Timestamp::from_ms(i64::MIN), |away| away.retry_at)
    }

    pub(super) fn hold(&mut self, purpose: Purpose, command: Command) {
        self.held.push_back((purpose, command));
    }

    pub(super) fn has_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Gives one held command back, if the store may be asked.
    pub(super) fn release(&mut self, now: Timestamp) -> Option<(Purpose, Command)> {
        if self.is_closed(now) {
            None
        } else {
            self.held.pop_front()
        }
    }

    /// Forgets what is held for a job that is no longer here.
    pub(super) fn forget_job(&mut self, token: LeaseToken) {
        self.held
            .retain(|(purpose, _)| *purpose != Purpose::Job(token));
    }

    /// The store answered, and its clock said `store_now`.
    pub(super) fn answered(&mut self, now: Timestamp, store_now: Timestamp) -> Vec<Notice> {
        let mut notices = Vec::new();
        let offset_ms = store_now.as_ms().saturating_sub(now.as_ms());
        if offset_ms.abs_diff(self.offset_ms) > CLOCK_NOTICE_MS {
            notices.push(Notice::ClockCorrected { offset_ms });
        }
        self.offset_ms = offset_ms;
        if let Some(away) = self.away.take() {
            notices.push(Notice::StoreBack {
                away_ms: now.since_ms(away.since),
            });
        }
        notices
    }

    /// The store did not answer. One notice for each time it is asked, however many commands fail together.
    pub(super) fn failed(&mut self, now: Timestamp, detail: String) -> Option<Notice> {
        let (since, failures) = match &self.away {
            Some(away) if now < away.retry_at => return None,
            Some(away) => (away.since, away.failures.saturating_add(1)),
            None => (now, 1),
        };
        let delay_ms = self.backoff.delay_ms(failures, None, &mut self.rng);
        let retry_at = now.plus_ms(delay_ms.max(1));
        self.away = Some(Away {
            since,
            failures,
            retry_at,
        });
        Some(Notice::StoreAway {
            detail,
            failures,
            retry_at,
        })
    }
}
