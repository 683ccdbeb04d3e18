//! What a fault does to the world when it begins and when it ends. What it does while it lasts is in `weather.rs`.

use kalends_core::id::UserId;
use kalends_core::queue::command::{BATCH_MAX, Command, NewJob, Priority};
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};

use super::event::Event;
use super::trace::Moment;
use super::weather::Weather;
use super::{World, schedule_name};
use crate::google::{Change, DraftStart, EventDraft};
use crate::plan::FaultKind;

/// From the deadline of a replaced process to the start of the new one, in milliseconds.
const REPLACED_AFTER_MS: u64 = 500;
/// A step back of the store's clock beyond this moves ticks and waits, in milliseconds (`core/src/queue/clock.rs`).
const STEP_BACK_FAR_MS: i64 = -(15 * MINUTE_MS).cast_signed();

/// With this the titles of events begin that the graph refuses.
pub(super) const POISON: &str = "Poison";

impl World<'_> {
    pub(super) fn fault_begins(&mut self, index: u32) {
        let plan = self.plan;
        let fault = &plan.faults[index as usize];
        self.active[index as usize] = true;
        self.remake_weather();
        self.tell(&Moment::FaultBegan(fault));
        let processes = plan.size.processes;
        let users = plan.size.users;
        match &fault.kind {
            FaultKind::Crash { process } => {
                self.marks.mark("process-crashed");
                self.kill(process % processes, "killed");
            }
            FaultKind::Pause { process } => self.pause(process % processes),
            FaultKind::Terminate {
                process,
                deadline_ms,
            } => self.terminate(process % processes, *deadline_ms),
            FaultKind::Deploy {
                schedule,
                gap_ms,
                deadline_ms,
            } => {
                self.marks.mark("deploy");
                if let Some(schedule) = schedule {
                    self.marks.mark("deploy-new-schedule");
                    self.policy.schedule = schedule.clone();
                }
                for process in 0..processes {
                    let stop_at = self.now.plus_ms(u64::from(process) * gap_ms);
                    let start_at = stop_at.plus_ms(deadline_ms + 2 * SECOND_MS + REPLACED_AFTER_MS);
                    let deadline_ms = *deadline_ms;
                    self.heap.push(
                        stop_at,
                        Event::Stop {
                            process,
                            deadline_ms,
                        },
                    );
                    self.heap.push(start_at, Event::Start { process });
                }
            }
            FaultKind::Failover => {
                let copy = (self.store.queue.clone(), self.ledger.clone());
                self.store.replica = Some(Box::new(copy));
            }
            FaultKind::StoreClockStep { by_ms } => self.step_store_clock(*by_ms),
            FaultKind::RevokeGrant { user } => {
                let user = self.users[(user % users) as usize].clone();
                self.google
                    .revoke(user.as_str())
                    .expect("a user of the emulator");
            }
            FaultKind::ExpireSyncTokens { user } => {
                self.marks.mark_if(user.is_none(), "all-tokens-gone");
                let range = match user {
                    Some(user) => user % users..user % users + 1,
                    None => 0..users,
                };
                range.for_each(|user| self.expire_tokens(user));
            }
            FaultKind::ClockSkew { process, by_ms } => {
                self.processes[(process % processes) as usize].skew_ms = *by_ms;
            }
            FaultKind::ClockDrift { process, drift_ppm } => {
                self.marks.mark("clock-drifted");
                self.change_clock(process % processes, |clock, now| {
                    clock.drift(now, *drift_ppm)
                });
            }
            FaultKind::ClockStep { process, by_ms } => {
                self.marks.mark("clock-stepped");
                self.change_clock(process % processes, |clock, now| clock.step(now, *by_ms));
            }
            FaultKind::ClockFreeze { process } => {
                self.marks.mark("clock-frozen");
                self.change_clock(process % processes, |clock, now| clock.freeze(now, true));
            }
            FaultKind::EnrolWave { .. } => {
                self.marks.mark("enrol-wave");
                self.enroll_all();
            }
            FaultKind::Flood { .. } => {
                self.marks.mark("flood");
                self.flood(index);
            }
            FaultKind::PushForged { .. } => self.forge(index),
            FaultKind::PushFlood { .. } => self.tell_again(index),
            FaultKind::SyncAll => {
                self.marks.mark("sync-all");
                for user in 0..self.enrolled {
                    self.sync_now(user);
                }
            }
            FaultKind::HugeCalendar { user, events } => {
                self.marks.mark("huge-calendar");
                self.grow(user % users, *events, "One of many");
            }
            FaultKind::EmptyStore => self.empty_the_store(),
            FaultKind::PoisonEvents { user, events } => self.grow(user % users, *events, POISON),
            FaultKind::UnshareCalendar { user, calendar } => {
                self.share(user % users, *calendar, false);
            }
            FaultKind::PauseSource => {
                self.marks.mark("source-paused");
                let reason = "the plan says so".to_owned();
                self.operate(Command::Pause {
                    source: None,
                    reason,
                });
            }
            FaultKind::SetLimit { limit } => {
                if let (Some(old), Some(new)) = (self.ledger.limit(), limit) {
                    let rate = |limit: &kalends_core::policy::limit::Limit| {
                        u64::from(limit.count) * MINUTE_MS / limit.window_ms
                    };
                    self.marks.mark_if(rate(new) < rate(&old), "limit-lowered");
                    self.marks.mark_if(rate(new) > rate(&old), "limit-raised");
                }
                let source = self.source();
                self.operate(Command::SetLimit {
                    source,
                    jobs: *limit,
                });
            }
            FaultKind::ChangeSchedule { schedule } => {
                self.marks.mark("schedule-changed");
                let definition = schedule.clone();
                self.operate(Command::DefineSchedule {
                    schedule: schedule_name(),
                    definition,
                });
            }
            FaultKind::RetryFailed => {
                self.marks.mark("dead-letters-retried");
                self.operate(Command::RetryFailed { number: None });
            }
            _ => {}
        }
    }

    pub(super) fn fault_ends(&mut self, index: u32) {
        let plan = self.plan;
        let fault = &plan.faults[index as usize];
        self.active[index as usize] = false;
        self.remake_weather();
        self.tell(&Moment::FaultEnded(fault));
        let processes = plan.size.processes;
        let users = plan.size.users;
        match &fault.kind {
            FaultKind::Crash { process } => self.start(process % processes),
            FaultKind::Pause { process } => self.wake_up(process % processes),
            FaultKind::Terminate { process, .. } => {
                let process = process % processes;
                if self.processes[process as usize].stopping {
                    self.kill(process, "killed");
                }
                self.start(process);
            }
            FaultKind::Failover => self.fail_over(),
            FaultKind::StoreClockStep { by_ms } => self.step_store_clock(-by_ms),
            FaultKind::RevokeGrant { user } => self.connect_again(user % users),
            FaultKind::GraphRejects { user }
            | FaultKind::PoisonEvents { user, .. }
            | FaultKind::UnreadableEvents { user } => self.read_again(user % users),
            FaultKind::UnshareCalendar { user, calendar } => {
                self.share(user % users, *calendar, true);
            }
            FaultKind::ClockDrift { process, .. } => {
                self.change_clock(process % processes, |clock, now| clock.drift(now, 0));
            }
            FaultKind::ClockFreeze { process } => {
                self.change_clock(process % processes, |clock, now| clock.freeze(now, false));
            }
            FaultKind::PauseSource => self.operate(Command::Resume { source: None }),
            _ => {}
        }
    }

    fn remake_weather(&mut self) {
        let size = &self.plan.size;
        self.weather = Weather::of(
            &self.plan.faults,
            &self.active,
            size.start,
            size.processes,
            size.users,
        );
    }

    fn step_store_clock(&mut self, by_ms: i64) {
        self.store.clock_ms += by_ms;
        if by_ms < 0 {
            self.marks.mark("store-clock-back");
            self.marks
                .mark_if(by_ms < STEP_BACK_FAR_MS, "store-clock-back-far");
            self.ledger.clock_stepped_back();
        } else {
            self.marks.mark("store-clock-forward");
        }
    }

    fn change_clock(
        &mut self,
        process: u32,
        change: impl FnOnce(&mut super::clock::LocalClock, Timestamp),
    ) {
        change(&mut self.processes[process as usize].clock, self.now);
        self.timeout(process);
    }

    /// What was set aside can be read and written now: a full pass has to come. One that is under way has passed some of
    /// it by already, so another one follows it.
    fn read_again(&mut self, user: u32) {
        self.expire_tokens(user);
        self.set_aside_before.insert(user, self.now);
    }

    /// A user was synced, by a job that began at `begun_at`.
    pub(super) fn synced(&mut self, user: u32, begun_at: Timestamp) {
        if let Some(before) = self.set_aside_before.remove(&user)
            && begun_at < before
        {
            self.expire_tokens(user);
        }
    }

    fn expire_tokens(&mut self, user: u32) {
        let user = self.users[user as usize].clone();
        self.google
            .expire_sync_tokens(user.as_str())
            .expect("a user of the emulator");
    }

    /// The user gives a new grant.
    pub(super) fn connect_again(&mut self, user: u32) {
        let name = self.users[user as usize].clone();
        let now = self.now;
        self.google
            .restore(now, name.as_str())
            .expect("a user of the emulator");
        self.grants[user as usize] += 1;
        let grants = vec![(name, self.grants[user as usize])];
        let (source, due_at) = (self.source(), self.store_now());
        self.operate(Command::Connect {
            source,
            grants,
            due_at,
            force: false,
        });
    }

    /// Those who were not enrolled from the start are enrolled now.
    pub(super) fn enroll_all(&mut self) {
        let late = self.users[self.enrolled..].to_vec();
        self.enroll(late);
    }

    /// These users are enrolled; from now on all are.
    pub(super) fn enroll(&mut self, late: Vec<UserId>) {
        self.enrolled = self.users.len();
        for users in late.chunks(BATCH_MAX) {
            let (source, due_at) = (self.source(), self.store_now());
            let users = users.to_vec();
            self.operate(Command::Enroll {
                source,
                users,
                due_at,
            });
        }
    }

    fn flood(&mut self, index: u32) {
        let FaultKind::Flood { user, every_ms } = &self.plan.faults[index as usize].kind else {
            panic!("only a flood floods");
        };
        if !self.active[index as usize] {
            return;
        }
        self.sync_now((user % self.plan.size.users) as usize);
        let at = self.now.plus_ms((*every_ms).max(1));
        self.heap.push(at, Event::Flood { index });
    }

    pub(super) fn flood_again(&mut self, index: u32) {
        self.flood(index);
    }

    fn sync_now(&mut self, user: usize) {
        let job = NewJob {
            user: self.users[user].clone(),
            run_at: self.store_now(),
            nominal_at: None,
            priority: Priority::Now,
        };
        let source = self.source();
        if self.weather.store.is_none() && self.legacy.is_none() {
            self.apply(
                None,
                Command::Enqueue {
                    source,
                    jobs: vec![job],
                    checkpoint: None,
                },
            );
        }
    }

    /// Takes one of a user's further calendars away, or gives it back.
    fn share(&mut self, user: u32, calendar: u32, shared: bool) {
        let others = self.plan.size.calendars_per_user - 1;
        if others == 0 {
            return;
        }
        let user = self.users[user as usize].as_str();
        let id = self.google.calendar_by_number(user, 1 + calendar % others);
        let id = id.expect("a calendar of the emulator");
        let changed = if shared {
            self.marks.mark("calendar-shared-again");
            self.google.restore_calendar(self.now, user, &id)
        } else {
            self.marks.mark("calendar-unshared");
            self.google.remove_calendar(self.now, user, &id)
        };
        changed.expect("a calendar of the emulator");
    }

    fn grow(&mut self, user: u32, events: u32, title: &str) {
        let user = self.users[user as usize].clone();
        // Google keeps no fractions of a minute where people plan.
        let base = Timestamp::from_ms(self.now.as_ms() / 60_000 * 60_000);
        for number in 0..events {
            let draft = EventDraft {
                summary: Some(format!("{title}, {number}")),
                start: DraftStart::At {
                    at: base.plus_ms(u64::from(number) * MINUTE_MS),
                    zone: "UTC".to_owned(),
                },
                length_minutes: 30,
                repeat: None,
                guests: 0,
            };
            self.google
                .apply(self.now, user.as_str(), &Change::Create(draft))
                .expect("an event can always be made");
        }
        self.send_notifications();
    }
}
