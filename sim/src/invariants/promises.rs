//! What the store promises beside its jobs: permits, pauses that were asked for, stalls, a fan-out's progress.
//!
//! A ledger like the others, told each command with its reply. Its sentences:
//!
//! - no job gets leave for a request while its source is paused, or while the source's gate is closed (G5)
//! - a gate closes for at least as long as was asked (D28), and the gate of one user closes nobody else's (D22)
//! - a job whose lease ran out too often without progress in between is given up (C16)
//! - a fan-out that is taken over goes on behind its last page (B9)
//! - waits after failures are spread ([`super::retries`])
//!
//! Where it knows less than the queue (a gate after the clock was wrong, say) it says nothing.

use kalends_core::failure::LimitScope;
use kalends_core::policy::backoff::Backoff;
use kalends_core::queue::command::{Command, Refusal, Reply};
use kalends_core::queue::state::{JobKey, SourceSettings};
use kalends_core::queue::{FAN_OUT_STALLS_MAX, GATE_MS_MAX, Queue};
use kalends_core::time::Timestamp;

use super::retries::Retries;
use super::seen::job_number;
use super::{Invariant, JobNumber, Verdict, Violation};

/// What must be remembered of a command, taken before the store takes it away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Progress is saved; leave for so many requests is asked.
    Permit {
        /// Whose.
        job: JobNumber,
        /// For so many.
        requests: u32,
    },
    /// "Slow down" was heard.
    Limited {
        /// Whose job heard it.
        job: JobNumber,
        /// Whom it concerns.
        scope: LimitScope,
        /// For how long, in milliseconds, if that was said.
        retry_after_ms: Option<u64>,
    },
    /// An attempt failed, to be repeated then.
    Retry {
        /// Whose.
        job: JobNumber,
        /// When.
        at: Timestamp,
    },
    /// A job ends for good.
    Over(JobNumber),
    /// A job is handed back.
    Back(JobNumber),
    /// A page of a fan-out.
    Page,
    /// A tick is told.
    Tick {
        /// Which.
        at: Timestamp,
        /// It fires.
        fire: bool,
    },
    /// The source is defined: how often a lease may expire.
    Define {
        /// So often.
        stalls_max: u32,
    },
    /// The source is paused.
    Pause,
    /// It is resumed.
    Resume,
    /// Jobs are changed in ways that only the queue knows.
    Reshuffle,
    /// Nothing of these.
    Other,
}

impl Asked {
    /// Reads a command; `users` is how many users there are.
    #[must_use]
    pub fn of(command: &Command, users: usize) -> Asked {
        let number = |key: &JobKey| job_number(key, users);
        match command {
            Command::Checkpoint {
                lease, requests, ..
            } => Asked::Permit {
                job: number(&lease.key),
                requests: *requests,
            },
            Command::Limited {
                lease,
                scope,
                retry_after_ms,
                ..
            } => Asked::Limited {
                job: number(&lease.key),
                scope: *scope,
                retry_after_ms: *retry_after_ms,
            },
            Command::Retry { lease, at, .. } => Asked::Retry {
                job: number(&lease.key),
                at: *at,
            },
            Command::Complete { lease, .. } | Command::Fail { lease, .. } => {
                Asked::Over(number(&lease.key))
            }
            Command::Release { lease, .. } => Asked::Back(number(&lease.key)),
            Command::Enqueue {
                checkpoint: Some(_),
                ..
            } => Asked::Page,
            Command::Tick { at, fire, .. } => Asked::Tick {
                at: *at,
                fire: *fire,
            },
            Command::DefineSource { settings, .. } => Asked::Define {
                stalls_max: settings.stalls_max,
            },
            Command::Pause { .. } => Asked::Pause,
            Command::Resume { .. } => Asked::Resume,
            Command::RetryFailed { .. }
            | Command::Remove { .. }
            | Command::Unenroll { .. }
            | Command::RemoveSchedule { .. } => Asked::Reshuffle,
            _ => Asked::Other,
        }
    }
}

/// What was promised.
#[derive(Clone, Debug)]
pub struct Promises {
    paused: bool,
    /// Until when the source's gate is closed; `None`: not known.
    gate_until: Option<Timestamp>,
    /// Leases of each job that expired since it last came forward.
    stalls: Vec<u32>,
    stalls_max: u32,
    /// A page of the fan-out that is outstanding was laid out.
    page_saved: bool,
    retries: Retries,
}

const LONG_AGO: Timestamp = Timestamp::from_ms(i64::MIN);

fn broken(invariant: Invariant, detail: String) -> Verdict {
    Err(Violation::new(invariant, detail))
}

impl Promises {
    /// Nothing was promised to so many jobs, the last of which is the fan-out.
    #[must_use]
    pub fn new(jobs: usize, backoff: Backoff) -> Self {
        Promises {
            paused: false,
            gate_until: Some(LONG_AGO),
            stalls: vec![0; jobs],
            stalls_max: SourceSettings::default().stalls_max,
            page_saved: false,
            retries: Retries::new(backoff),
        }
    }

    /// The store's clock was wrong: gates were brought nearer.
    pub fn forget(&mut self) {
        self.gate_until = None;
    }

    /// Takes a command that was applied at `now`, the store's time, and its reply.
    ///
    /// # Errors
    /// If a promise was broken by it.
    pub fn keep(
        &mut self,
        now: Timestamp,
        asked: Asked,
        reply: &Reply,
        queue: &mut Queue,
    ) -> Verdict {
        match (asked, reply) {
            (Asked::Permit { job, requests }, Reply::Permit { wait_until }) => {
                self.stalls[job] = 0;
                if requests == 0 || wait_until.is_some() {
                    return Ok(());
                }
                self.may_ask(now, job)
            }
            (
                Asked::Limited {
                    job,
                    scope,
                    retry_after_ms,
                },
                Reply::GateClosed { until },
            ) => {
                self.stalls[job] = 0;
                let asked_ms = retry_after_ms.unwrap_or(0).min(GATE_MS_MAX);
                if *until < now.plus_ms(asked_ms) {
                    return broken(
                        Invariant::StopsAsking,
                        format!(
                            "asked at {now} to wait {asked_ms} ms, the gate closed until {until}"
                        ),
                    );
                }
                match scope {
                    LimitScope::Source => {
                        self.gate_until = self.gate_until.map(|before| before.max(*until));
                        Ok(())
                    }
                    LimitScope::User => self.others_go_on(now, queue),
                }
            }
            (
                Asked::Limited { .. },
                Reply::Refused {
                    refusal: Refusal::LeaseLost,
                },
            ) => {
                // It closed all the same, until when was not told.
                self.gate_until = None;
                Ok(())
            }
            (Asked::Retry { job, at }, Reply::Done) => {
                self.stalls[job] = 0;
                self.retries.told(now, at)
            }
            (Asked::Over(job), Reply::Done) => {
                self.over(job);
                Ok(())
            }
            (Asked::Back(job), Reply::Done) => {
                self.stalls[job] = 0;
                Ok(())
            }
            (
                Asked::Page,
                Reply::Enqueued {
                    added,
                    coalesced,
                    refused,
                },
            ) => {
                self.page_saved |= added + coalesced + refused > 0;
                Ok(())
            }
            (Asked::Define { stalls_max }, Reply::Done) => {
                self.stalls_max = stalls_max;
                Ok(())
            }
            (Asked::Pause, _) => {
                self.paused = true;
                Ok(())
            }
            (Asked::Resume, _) => {
                self.paused = false;
                self.gate_until = Some(LONG_AGO);
                Ok(())
            }
            (Asked::Reshuffle, _) => {
                self.stalls.fill(0);
                self.page_saved = false;
                Ok(())
            }
            (Asked::Other, Reply::Claimed { leases, .. }) if self.page_saved => {
                let fan_outs = |key: &JobKey| matches!(key, JobKey::FanOut { .. });
                let anew = leases
                    .iter()
                    .find(|lease| fan_outs(&lease.lease.key) && lease.cursor.is_none());
                match anew {
                    None => Ok(()),
                    Some(lease) => broken(
                        Invariant::FanOutGoesOn,
                        format!("{} was taken over and begins anew", lease.lease.key),
                    ),
                }
            }
            _ => Ok(()),
        }
    }

    fn may_ask(&self, now: Timestamp, job: JobNumber) -> Verdict {
        if self.paused {
            return broken(
                Invariant::StopsAsking,
                format!("job {job} got leave for a request at {now}, while its source was paused"),
            );
        }
        match self.gate_until {
            Some(until) if until > now => broken(
                Invariant::StopsAsking,
                format!(
                    "job {job} got leave for a request at {now}, and the gate was closed until {until}"
                ),
            ),
            _ => Ok(()),
        }
    }

    /// A user's gate has closed: the source's stands where it stood.
    fn others_go_on(&mut self, now: Timestamp, queue: &mut Queue) -> Verdict {
        let Reply::Stats { stats } = queue.apply(now, Command::Stats) else {
            panic!("stats are always answered");
        };
        let source = stats.sources.first();
        let told = source.and_then(|(_, source)| source.gate_until);
        let told = told.unwrap_or(LONG_AGO);
        match self.gate_until {
            Some(until) if told > until.max(now) => broken(
                Invariant::OthersGoOn,
                format!("one user was told to slow down, and the gate of all closed until {told}"),
            ),
            Some(_) => Ok(()),
            None => {
                self.gate_until = Some(told);
                Ok(())
            }
        }
    }

    fn over(&mut self, job: JobNumber) {
        self.stalls[job] = 0;
        if job + 1 == self.stalls.len() {
            self.page_saved = false;
        }
    }

    /// A job's lease ran out; `given_up`: it was given up, or may have been.
    ///
    /// # Errors
    /// If it should have been.
    pub fn stalled(&mut self, job: JobNumber, given_up: bool) -> Verdict {
        if given_up {
            self.over(job);
            return Ok(());
        }
        self.stalls[job] += 1;
        let is_fan_out = job + 1 == self.stalls.len();
        let most = if is_fan_out {
            FAN_OUT_STALLS_MAX
        } else {
            self.stalls_max
        };
        let stalls = self.stalls[job];
        if stalls > most {
            return broken(
                Invariant::AttemptsBounded,
                format!(
                    "{stalls} leases of job {job} ran out in a row, {most} are allowed, and it is not given up"
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promises() -> Promises {
        Promises::new(3, Backoff::default())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_ms(second * 1_000)
    }

    #[test]
    fn a_permit_in_a_pause_or_through_a_gate_is_a_violation() {
        let mut queue = Queue::new();
        let mut promises = promises();
        let ask = Asked::Permit {
            job: 0,
            requests: 1,
        };
        let leave = Reply::Permit { wait_until: None };
        let told = Asked::Limited {
            job: 1,
            scope: LimitScope::Source,
            retry_after_ms: Some(60_000),
        };
        promises
            .keep(at(0), Asked::Pause, &Reply::Done, &mut queue)
            .unwrap();
        assert!(
            promises
                .clone()
                .keep(at(1), ask, &leave, &mut queue)
                .is_err()
        );
        promises
            .keep(at(2), Asked::Resume, &Reply::Done, &mut queue)
            .unwrap();
        promises.keep(at(3), ask, &leave, &mut queue).unwrap();
        let short = Reply::GateClosed { until: at(10) };
        assert!(
            promises
                .clone()
                .keep(at(4), told, &short, &mut queue)
                .is_err()
        );
        let long = Reply::GateClosed { until: at(65) };
        promises.keep(at(4), told, &long, &mut queue).unwrap();
        assert!(
            promises
                .clone()
                .keep(at(64), ask, &leave, &mut queue)
                .is_err()
        );
        promises.keep(at(65), ask, &leave, &mut queue).unwrap();
    }

    #[test]
    fn a_job_that_stalls_without_end_is_a_violation_unless_it_comes_forward() {
        let mut queue = Queue::new();
        let mut promises = promises();
        let most = promises.stalls_max;
        for _ in 0..most {
            promises.stalled(0, false).unwrap();
        }
        assert!(promises.clone().stalled(0, false).is_err());
        assert!(promises.clone().stalled(0, true).is_ok());
        let saved = Asked::Permit {
            job: 0,
            requests: 0,
        };
        let leave = Reply::Permit { wait_until: None };
        promises.keep(at(0), saved, &leave, &mut queue).unwrap();
        promises.stalled(0, false).unwrap();
    }
}
