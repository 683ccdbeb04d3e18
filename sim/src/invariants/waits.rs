//! G5: no start before its time, for a paused source, or through a closed gate.
//!
//! For each job the earliest time at which it may start: that of the wishes which coalesced into it, or of the wait that
//! an ended attempt set. In the store's time.

use kalends_core::failure::LimitScope;
use kalends_core::queue::SYNC_NOW_INTERVAL_MS;
use kalends_core::queue::command::Priority;
use kalends_core::time::Timestamp;

use super::seen::EndKind;
use super::{Invariant, JobNumber, Verdict, Violation};

const LONG_AGO: Timestamp = Timestamp::from_ms(i64::MIN);

#[derive(Clone, Copy, Debug)]
struct Wait {
    not_before: Timestamp,
    /// The wait was set by an ended attempt: only "sync now" shortens it.
    backing_off: bool,
    /// A wish that came while the job was active.
    rerun_at: Option<Timestamp>,
    gate_until: Timestamp,
    started_at: Timestamp,
}

/// What every job waits for.
#[derive(Clone, Debug)]
pub struct Waits {
    waits: Vec<Wait>,
    gate_until: Timestamp,
    paused: bool,
}

impl Waits {
    /// Nothing waits.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        let wait = Wait {
            not_before: LONG_AGO,
            backing_off: false,
            rerun_at: None,
            gate_until: LONG_AGO,
            started_at: LONG_AGO,
        };
        Waits {
            waits: vec![wait; jobs],
            gate_until: LONG_AGO,
            paused: false,
        }
    }

    /// An operator paused or resumed the source; resuming opens its gate, too.
    pub fn paused(&mut self, paused: bool) {
        self.paused = paused;
        if !paused {
            self.gate_until = LONG_AGO;
        }
    }

    /// A wish was taken: for a new job, for one that waits, or for one that is active.
    pub fn wished(
        &mut self,
        now: Timestamp,
        job: JobNumber,
        run_at: Timestamp,
        priority: Priority,
        state: WishState,
    ) {
        let wait = &mut self.waits[job];
        match state {
            WishState::New => {
                wait.not_before = run_at;
                wait.backing_off = false;
            }
            WishState::Waiting => {
                let floods =
                    now.since_ms(wait.started_at) < SYNC_NOW_INTERVAL_MS && wait.started_at <= now;
                let hurries = priority == Priority::Now && !floods;
                if hurries || !wait.backing_off {
                    wait.not_before = wait.not_before.min(run_at);
                }
            }
            WishState::Active => {
                wait.rerun_at = Some(wait.rerun_at.map_or(run_at, |at| at.min(run_at)));
            }
        }
    }

    /// A job started.
    ///
    /// # Errors
    /// If it had to wait.
    pub fn started(&mut self, now: Timestamp, job: JobNumber, is_sync: bool) -> Verdict {
        let (paused, source_gate) = (self.paused, self.gate_until);
        let wait = &mut self.waits[job];
        wait.started_at = now;
        wait.backing_off = false;
        let broken = |why: String| {
            let detail = format!("job {job} started at {now}, {why}");
            Err(Violation::new(Invariant::NotBeforeItsTime, detail))
        };
        if wait.not_before > now {
            return broken(format!("and was not to start before {}", wait.not_before));
        }
        if !is_sync {
            return Ok(());
        }
        if paused {
            return broken("while its source was paused".to_owned());
        }
        if source_gate > now {
            return broken(format!(
                "while its source's gate was closed until {source_gate}"
            ));
        }
        if wait.gate_until > now {
            return broken(format!(
                "while its user's gate was closed until {}",
                wait.gate_until
            ));
        }
        Ok(())
    }

    /// A job under way was given leave for requests.
    ///
    /// # Errors
    /// If its source is paused, or its or its source's gate is closed.
    pub fn permitted(&self, now: Timestamp, job: JobNumber, requests: u32) -> Verdict {
        let wait = &self.waits[job];
        let why = if self.paused {
            "while its source is paused".to_owned()
        } else if self.gate_until > now {
            format!(
                "while its source's gate is closed until {}",
                self.gate_until
            )
        } else if wait.gate_until > now {
            format!("while its user's gate is closed until {}", wait.gate_until)
        } else {
            return Ok(());
        };
        Err(Violation::new(
            Invariant::StopsAsking,
            format!("job {job} was given leave for {requests} requests at {now}, {why}"),
        ))
    }

    /// A job ended; whether it is outstanding again at once, because of a wish that came meanwhile.
    pub fn ended(&mut self, job: JobNumber, kind: EndKind, gate_until: Option<Timestamp>) -> bool {
        let wait = &mut self.waits[job];
        let rerun_at = wait.rerun_at.take();
        match kind {
            EndKind::Completed { synced } => {
                if synced {
                    wait.gate_until = LONG_AGO;
                }
                wait.backing_off = false;
                wait.not_before = rerun_at.unwrap_or(LONG_AGO);
                rerun_at.is_some()
            }
            EndKind::Failed { parked } => {
                wait.backing_off = false;
                wait.not_before = rerun_at.unwrap_or(LONG_AGO);
                rerun_at.is_some() && !parked
            }
            EndKind::Retried(at) => {
                wait.not_before = at;
                wait.backing_off = true;
                true
            }
            EndKind::Released(at) => {
                wait.not_before = at.unwrap_or(wait.not_before);
                wait.backing_off = at.is_some();
                true
            }
            EndKind::Limited(scope) => {
                let until = gate_until.unwrap_or(LONG_AGO);
                wait.not_before = until;
                wait.backing_off = scope == LimitScope::User;
                self.gate_closed(job, scope, gate_until);
                true
            }
        }
    }

    /// A gate was closed until then.
    pub fn gate_closed(&mut self, job: JobNumber, scope: LimitScope, until: Option<Timestamp>) {
        let until = until.unwrap_or(LONG_AGO);
        let gate = match scope {
            LimitScope::User => &mut self.waits[job].gate_until,
            LimitScope::Source => &mut self.gate_until,
        };
        *gate = (*gate).max(until);
    }

    /// A job's lease ran out; it is back in the queue, or (`buried`) given up. Whether it is outstanding.
    pub fn stalled(&mut self, job: JobNumber, buried: bool) -> bool {
        let wait = &mut self.waits[job];
        let rerun_at = wait.rerun_at.take();
        if buried {
            wait.not_before = rerun_at.unwrap_or(LONG_AGO);
            return rerun_at.is_some();
        }
        if let Some(at) = rerun_at {
            wait.not_before = wait.not_before.min(at);
        }
        true
    }

    /// A clock that was wrong has set these waits: nothing is claimed of them any more.
    pub fn forget(&mut self) {
        for wait in &mut self.waits {
            wait.not_before = LONG_AGO;
            wait.gate_until = LONG_AGO;
            wait.started_at = LONG_AGO;
            wait.rerun_at = wait.rerun_at.map(|_| LONG_AGO);
        }
        self.gate_until = LONG_AGO;
    }

    /// Takes over whether an active job runs once more.
    pub fn runs_again(&mut self, job: JobNumber, again: bool) {
        self.waits[job].rerun_at = again.then_some(LONG_AGO);
    }

    /// Nothing is claimed any more of this job's wait.
    pub fn forget_one(&mut self, job: JobNumber) {
        self.waits[job].not_before = LONG_AGO;
    }
}

/// What a job was when somebody wished for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WishState {
    /// Not there.
    New,
    /// There, and not active.
    Waiting,
    /// Leased.
    Active,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_ms(second * 1_000)
    }

    #[test]
    fn a_start_before_its_time_or_through_a_gate_or_a_pause_is_a_violation() {
        let mut waits = Waits::new(2);
        waits.wished(at(0), 0, at(100), Priority::Scheduled, WishState::New);
        assert!(waits.clone().started(at(99), 0, true).is_err());
        assert!(waits.clone().started(at(100), 0, true).is_ok());
        waits.paused(true);
        assert!(waits.clone().started(at(100), 0, true).is_err());
        assert!(
            waits.clone().started(at(100), 0, false).is_ok(),
            "fan-outs go on"
        );
        waits.paused(false);
        waits.started(at(100), 0, true).unwrap();
        waits.ended(0, EndKind::Limited(LimitScope::Source), Some(at(160)));
        waits.wished(at(101), 1, at(101), Priority::Now, WishState::New);
        assert!(waits.clone().started(at(159), 1, true).is_err());
        assert!(waits.started(at(160), 1, true).is_ok());
    }

    #[test]
    fn leave_for_a_request_in_a_paused_or_closed_source_or_for_a_limited_user_is_a_violation() {
        let mut waits = Waits::new(2);
        assert!(waits.permitted(at(5), 0, 1).is_ok());
        waits.paused(true);
        assert!(waits.permitted(at(5), 0, 1).is_err());
        waits.paused(false);
        waits.gate_closed(0, LimitScope::User, Some(at(60)));
        assert!(waits.permitted(at(59), 0, 1).is_err());
        assert!(waits.permitted(at(59), 1, 1).is_ok(), "another user");
        assert!(waits.permitted(at(60), 0, 1).is_ok());
        waits.gate_closed(0, LimitScope::Source, Some(at(90)));
        assert!(waits.permitted(at(89), 1, 1).is_err());
    }

    #[test]
    fn only_sync_now_shortens_the_wait_after_a_failure() {
        let mut waits = Waits::new(1);
        waits.wished(at(0), 0, at(0), Priority::Scheduled, WishState::New);
        waits.started(at(0), 0, true).unwrap();
        waits.ended(0, EndKind::Retried(at(500)), None);
        waits.wished(at(100), 0, at(100), Priority::Scheduled, WishState::Waiting);
        assert!(waits.clone().started(at(100), 0, true).is_err());
        waits.wished(at(100), 0, at(100), Priority::Now, WishState::Waiting);
        assert!(waits.started(at(100), 0, true).is_ok());
    }
}
