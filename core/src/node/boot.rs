//! The beginning: sources, schedules and users are made known to the store, and again whenever it was emptied.
//!
//! A store can lose everything while processes run: an operator empties it, or a server without persistence starts
//! again. To the commands of a running node such a store looks like one with nothing to do. So with each refresh of the
//! schedules every source of the settings is probed: nobody is enrolled into it, which changes nothing, and which only a
//! store that does not know the source refuses. Then the node begins as it did at first. Jobs that run go on; they hear
//! from the store that their leases are lost.

use std::collections::VecDeque;

use super::Node;
use super::io::Notice;
use super::link::Purpose;
use super::settings::NodeSettings;
use crate::id::{SourceName, UserId};
use crate::queue::command::{BATCH_MAX, Command, NewJob, Priority, Refusal, Reply};
use crate::time::Timestamp;

/// What makes sources, schedules and users known, in this order.
pub(super) fn boot_commands(settings: &NodeSettings) -> VecDeque<Command> {
    let mut boot = VecDeque::new();
    for source in &settings.sources {
        boot.push_back(Command::DefineSource {
            source: source.name.clone(),
            settings: source.settings.clone(),
        });
    }
    for (schedule, definition) in &settings.schedules {
        boot.push_back(Command::DefineSchedule {
            schedule: schedule.clone(),
            definition: definition.clone(),
        });
    }
    boot.push_back(Command::Schedules);
    for source in &settings.sources {
        for grants in source.enroll.chunks(BATCH_MAX) {
            // The due times are set to the store's time when the commands are sent.
            boot.push_back(Command::Enroll {
                source: source.name.clone(),
                users: grants.iter().map(|(user, _)| user.clone()).collect(),
                due_at: Timestamp::EPOCH,
            });
            boot.push_back(Command::Connect {
                source: source.name.clone(),
                grants: grants.to_vec(),
                due_at: Timestamp::EPOCH,
                force: false,
            });
        }
    }
    boot
}

impl Node {
    pub(super) fn send_boot(&mut self, now: Timestamp) {
        let Some(mut command) = self.boot.pop_front() else {
            self.booted = true;
            self.claim.soon(now);
            self.notice(Notice::Ready);
            return;
        };
        if let Command::Enroll { due_at, .. } | Command::Connect { due_at, .. } = &mut command {
            *due_at = self.link.store_time(now);
        }
        self.send_store(now, Purpose::Boot, command);
    }

    pub(super) fn boot_answered(&mut self, now: Timestamp, reply: Reply) {
        self.expect_accepted("a definition at the start", &reply);
        match reply {
            Reply::Schedules { schedules } => self.ticks_refreshed(schedules),
            Reply::Enrolled { source, users } => self.first_sync(now, source, users),
            _ => {}
        }
        self.send_boot(now);
    }

    /// New users need not wait for the next tick: their first sync is laid out like a fan-out, from now.
    fn first_sync(&mut self, now: Timestamp, source: SourceName, users: Vec<UserId>) {
        if users.is_empty() {
            return;
        }
        let base = self.link.store_time(now);
        let period_ms = self.period_ms(&source, base);
        let total = users.len() as u64;
        let mut jobs = Vec::with_capacity(users.len());
        for (index, user) in users.into_iter().enumerate() {
            let offset_ms = self
                .settings
                .spread
                .offset_ms(index as u64, total, &user, period_ms);
            let jitter_ms = self.settings.jitter.draw(&mut self.jitter_rng);
            jobs.push(NewJob {
                user,
                run_at: base.plus_ms(offset_ms + jitter_ms),
                nominal_at: Some(base),
                priority: Priority::Scheduled,
            });
        }
        self.send_store(
            now,
            Purpose::FirstSync,
            Command::Enqueue {
                source,
                jobs,
                checkpoint: None,
            },
        );
    }

    /// Asks whether the store still knows each source, by enrolling nobody into it.
    pub(super) fn send_probes(&mut self, now: Timestamp) {
        let due_at = self.link.store_time(now);
        let sources = self.settings.sources.iter();
        let names: Vec<SourceName> = sources.map(|source| source.name.clone()).collect();
        for source in names {
            let command = Command::Enroll {
                source,
                users: Vec::new(),
                due_at,
            };
            self.send_store(now, Purpose::Probe, command);
        }
    }

    pub(super) fn probed(&mut self, now: Timestamp, reply: &Reply) {
        let refusal = match reply {
            Reply::Refused { refusal } => refusal,
            _ => return,
        };
        if !matches!(refusal, Refusal::UnknownSource { .. }) {
            self.expect_accepted("a probe", reply);
            return;
        }
        // The probes of other sources are refused, too; one new beginning defines them all.
        if self.booted && self.shutdown.is_none() {
            self.notice(Notice::StoreEmptied);
            self.booted = false;
            self.boot = boot_commands(&self.settings);
            self.send_boot(now);
        }
    }
}
