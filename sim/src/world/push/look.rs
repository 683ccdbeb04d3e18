//! What is watched over of push: channels as they are made and committed, and whether what was heard was synced.

use kalends_core::google::query::FetchRequest;
use kalends_core::queue::command::{Command, Commit, CommitOutcome, Reply};
use kalends_core::queue::state::JobKey;
use kalends_core::sync::cursor::SyncCursor;
use kalends_core::time::Timestamp;

use super::{CLOCK_TROUBLE_MS, World};
use crate::invariants::push::Channels;
use crate::invariants::user_number;
use crate::plan::{Family, FaultKind};
use crate::world::{AUDIT_EVERY_MS, Phase, Process};

/// What a commit tells of channels: kept beside the command, which the store takes.
pub(in crate::world) struct Committed {
    user: u32,
    cursor: SyncCursor,
    due_at: Option<Timestamp>,
    was_nominal: bool,
}

impl Committed {
    pub(in crate::world) fn of(command: &Command) -> Option<Self> {
        let Command::Complete { lease, commit } = command else {
            return None;
        };
        let JobKey::Sync { user, .. } = &lease.key else {
            return None;
        };
        let Commit {
            cursor: Some(cursor),
            next_due_at,
            outcome: CommitOutcome::Synced { .. },
        } = commit
        else {
            return None;
        };
        Some(Committed {
            user: user_number(user)?,
            cursor: SyncCursor::read(Some(cursor)),
            due_at: *next_due_at,
            was_nominal: next_due_at.is_some(),
        })
    }
}

/// Whether a fault concerns notifications on their way alone.
fn is_harmless(kind: &FaultKind) -> bool {
    kind.family() == Family::Push && !matches!(kind, FaultKind::WatchLost { .. })
}

/// Whether a fault is that people want more than usual.
fn is_of_load(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::SyncAll | FaultKind::Flood { .. })
}

impl World<'_> {
    /// A channel is being asked for: the others that its calendar has.
    pub(in crate::world) fn channels_before(
        &self,
        request: &FetchRequest,
    ) -> Vec<(String, Timestamp)> {
        match request {
            FetchRequest::Watch { user, calendar, .. } if self.push.is_some() => self
                .google
                .channels_of(user.as_str(), calendar.as_str())
                .expect("a user of the emulator"),
            _ => Vec::new(),
        }
    }

    /// Google has answered; `before` was there before.
    pub(in crate::world) fn watch_channels(
        &mut self,
        request: &FetchRequest,
        before: &[(String, Timestamp)],
        has_failed: bool,
    ) {
        let Some(push) = &self.push else {
            return;
        };
        let FetchRequest::Watch {
            user,
            calendar,
            channel,
            ..
        } = request
        else {
            return;
        };
        let after = self.google.channels_of(user.as_str(), calendar.as_str());
        let after = after.expect("a user of the emulator");
        if !after.iter().any(|(id, _)| id == channel) {
            self.marks.mark("channel-refused");
            return;
        }
        self.marks.mark_if(has_failed, "channel-answer-lost");
        let number = user_number(user).expect("a user of the emulator");
        let now = self.now;
        let verdict = push
            .ledger
            .watched(now, number, before, |ms| self.push_is_well(ms));
        self.tally.push.made += 1;
        let (live, ended): (Vec<_>, Vec<_>) = before.iter().partition(|(_, end)| *end > now);
        self.marks.mark_if(!live.is_empty(), "channel-renewed");
        self.marks
            .mark_if(live.is_empty() && !ended.is_empty(), "channel-ended");
        self.judge(verdict);
        self.send_notifications();
    }

    /// Whether nothing but notifications went wrong within so many milliseconds, and Google has no quota of its own.
    fn push_is_well(&self, ms: u64) -> bool {
        self.plan.climate.google_quota.is_none()
            && !self.fault_within(ms, |kind| !is_harmless(kind))
    }

    /// The store has taken a command.
    pub(in crate::world) fn watch_push(
        &mut self,
        committed: Option<Committed>,
        store_now: Timestamp,
        reply: &Reply,
    ) {
        if let Reply::Claimed { leases, .. } = reply {
            let push = self.push.as_mut().expect("asked for by plans that watch");
            for lease in leases {
                if let JobKey::Sync { user, .. } = &lease.lease.key {
                    push.ledger.started(user_number(user).expect("a user"));
                }
            }
        }
        let Some(committed) = committed.filter(|_| *reply == Reply::Done) else {
            return;
        };
        let user = committed.user as usize;
        let begun_at = self.ledger.fresh_since(user);
        let push = self.push.as_mut().expect("asked for by plans that watch");
        let unseen = &mut push.unseen[user];
        while let Some(at) = unseen.front().copied().filter(|at| *at <= begun_at) {
            unseen.pop_front();
            if self.phase == Phase::Faults {
                self.tally.push.found(self.now.since_ms(at));
            }
        }
        let calendars = self.channels_of(&committed);
        let odd = |kind: &FaultKind| {
            kind.family() == Family::Clock || matches!(kind, FaultKind::StoreClockStep { .. })
        };
        let is_odd = self.fault_within(CLOCK_TROUBLE_MS, odd);
        let push = self.push.as_ref().expect("asked for by plans that watch");
        let due_at = committed.due_at.filter(|_| !is_odd);
        let verdict = push.ledger.committed(
            store_now,
            committed.user,
            due_at,
            push.period_ms,
            &calendars,
            |ms| self.push_is_well(ms),
        );
        let is_slow = due_at.is_some_and(|at| at > store_now.plus_ms(2 * push.period_ms));
        self.marks
            .mark_if(is_slow && committed.was_nominal, "watched-polled");
        self.judge(verdict);
    }

    fn channels_of(&self, committed: &Committed) -> Vec<Channels> {
        let user = self.users[committed.user as usize].as_str();
        let calendars = committed.cursor.calendars.iter();
        let of = |calendar: &str| self.google.channels_of(user, calendar);
        calendars
            .map(|(calendar, cursor)| {
                let known = cursor.watch.channels.iter();
                let mut live = of(calendar.as_str()).expect("a user of the emulator");
                live.retain(|(_, end)| *end > self.now);
                Channels {
                    known: known.map(|channel| channel.id.clone()).collect(),
                    live,
                }
            })
            .collect()
    }

    /// Was all that was heard synced?
    pub(in crate::world) fn audit_push(&mut self) {
        let Some(push) = &self.push else {
            return;
        };
        let bound_ms = push.bound_ms;
        let trouble_ms = bound_ms + push.waits_ms + 2 * AUDIT_EVERY_MS;
        let is_up = self.processes.iter().all(Process::is_up);
        let is_well = is_up
            && self.phase == Phase::Faults
            && !self.fault_within(trouble_ms, |kind| !is_of_load(kind) && !is_harmless(kind));
        let push = self.push.as_mut().expect("looked at just now");
        if !is_well {
            return push.ledger.excuse();
        }
        let ledger = &self.ledger;
        let verdict = push
            .ledger
            .look(self.now, bound_ms, |user| ledger.accepts(user));
        self.judge(verdict);
    }

    /// The world has become well: what channels there are.
    pub(in crate::world) fn count_channels(&mut self) {
        if self.push.is_none() {
            return;
        }
        for user in &self.users {
            let name = user.as_str();
            let calendars = match self.plan.size.calendars_per_user {
                1 => vec!["primary".to_owned()],
                _ => self.google.calendars(name).expect("a user of the emulator"),
            };
            for calendar in calendars {
                let channels = self.google.channels_of(name, &calendar);
                let channels = channels.expect("a user of the emulator");
                let live = channels.iter().filter(|(_, end)| *end > self.now).count() as u64;
                self.tally.push.left_over += live.saturating_sub(1);
                self.tally.push.unwatched += u64::from(live == 0);
            }
        }
    }
}
