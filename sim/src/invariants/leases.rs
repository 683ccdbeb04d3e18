//! G3: at most one live lease for a job; only a live lease ends a job; tokens only grow.

use std::collections::BTreeSet;

use kalends_core::queue::EXPIRE_BATCH_MAX;
use kalends_core::time::Timestamp;

use super::seen::LeaseNumber;
use super::{Invariant, JobNumber, Verdict, Violation};

/// A lease that was given and not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// 0: none.
    token: u64,
    expires_at: Timestamp,
}

/// Who holds what until when.
#[derive(Clone, Debug)]
pub struct Leases {
    held: Vec<Held>,
    /// By expiry; of those that expire together the fan-out first, then users by number, as the queue takes them.
    by_expiry: BTreeSet<(Timestamp, usize)>,
    last_token: u64,
}

fn broken(detail: String) -> Violation {
    Violation::new(Invariant::OneLiveLease, detail)
}

impl Leases {
    /// Nobody holds anything of `jobs` jobs, the last of which is the fan-out.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Leases {
            held: vec![Held::default(); jobs],
            by_expiry: BTreeSet::new(),
            last_token: 0,
        }
    }

    fn place(&self, job: JobNumber) -> usize {
        (job + 1) % self.held.len()
    }

    fn job_at(&self, place: usize) -> JobNumber {
        (place + self.held.len() - 1) % self.held.len()
    }

    fn forget(&mut self, job: JobNumber) {
        let held = std::mem::take(&mut self.held[job]);
        if held.token != 0 {
            let place = self.place(job);
            self.by_expiry.remove(&(held.expires_at, place));
        }
    }

    fn hold(&mut self, job: JobNumber, token: u64, expires_at: Timestamp) {
        self.forget(job);
        self.held[job] = Held { token, expires_at };
        let place = self.place(job);
        self.by_expiry.insert((expires_at, place));
    }

    /// Whether somebody holds a lease of this job, expired or not.
    #[must_use]
    pub fn is_held(&self, job: JobNumber) -> bool {
        self.held[job].token != 0
    }

    /// The largest token seen.
    #[must_use]
    pub fn last_token(&self) -> u64 {
        self.last_token
    }

    /// Tokens up to this were given in a time that a failover lost.
    pub fn outlive(&mut self, last_token: u64) {
        self.last_token = self.last_token.max(last_token);
    }

    /// The leases that a claim at `now` takes back, in order; they are held no more.
    pub fn expire(&mut self, now: Timestamp) -> Vec<JobNumber> {
        let mut expired = Vec::new();
        while expired.len() < EXPIRE_BATCH_MAX
            && let Some((expires_at, place)) = self.by_expiry.first().copied()
            && expires_at <= now
        {
            let job = self.job_at(place);
            self.forget(job);
            expired.push(job);
        }
        expired
    }

    /// A claim gave this lease; whether it is a new one.
    ///
    /// # Errors
    /// If somebody else holds the job, or the token does not grow.
    pub fn granted(
        &mut self,
        now: Timestamp,
        lease: LeaseNumber,
        expires_at: Timestamp,
    ) -> Result<bool, Violation> {
        let LeaseNumber { job, token } = lease;
        let held = self.held[job];
        if held.token == token {
            self.hold(job, token, expires_at);
            return Ok(false);
        }
        if held.token != 0 {
            return Err(broken(format!(
                "job {job} was given under token {token} at {now}, while token {} holds it until {}",
                held.token, held.expires_at
            )));
        }
        if token <= self.last_token {
            let last = self.last_token;
            return Err(broken(format!("token {token} was given after {last}")));
        }
        self.last_token = token;
        self.hold(job, token, expires_at);
        Ok(true)
    }

    /// A heartbeat was accepted for this lease.
    ///
    /// # Errors
    /// If it is not live.
    pub fn extended(&mut self, now: Timestamp, lease: LeaseNumber, lease_ms: u64) -> Verdict {
        self.check_live(now, lease, "was extended")?;
        self.hold(lease.job, lease.token, now.plus_ms(lease_ms));
        Ok(())
    }

    /// A heartbeat was refused for this lease.
    ///
    /// # Errors
    /// If it is live.
    pub fn refused(&self, now: Timestamp, lease: LeaseNumber) -> Verdict {
        let held = self.held[lease.job];
        if held.token == lease.token && held.expires_at > now {
            let (job, token) = (lease.job, lease.token);
            return Err(broken(format!(
                "a live lease of job {job} (token {token}) was called lost at {now}"
            )));
        }
        Ok(())
    }

    /// A job was ended under this lease.
    ///
    /// # Errors
    /// If it was not live.
    pub fn ended(&mut self, now: Timestamp, lease: LeaseNumber) -> Verdict {
        self.check_live(now, lease, "was ended")?;
        self.forget(lease.job);
        Ok(())
    }

    fn check_live(&self, now: Timestamp, lease: LeaseNumber, what: &str) -> Verdict {
        let held = self.held[lease.job];
        if held.token == lease.token && held.expires_at > now {
            return Ok(());
        }
        Err(broken(format!(
            "job {} {what} at {now} under token {}, and token {} holds it until {}",
            lease.job, lease.token, held.token, held.expires_at
        )))
    }

    /// A lease was taken away, as its user has given a new grant.
    pub fn taken_away(&mut self, job: JobNumber) {
        self.forget(job);
    }

    /// Takes over what the queue says, after a clock that was wrong.
    pub fn take_over(&mut self, active: &[(JobNumber, Timestamp)]) {
        let nobody = vec![Held::default(); self.held.len()];
        let old = std::mem::replace(&mut self.held, nobody);
        self.by_expiry.clear();
        for (job, expires_at) in active {
            self.hold(*job, old[*job].token.max(1), *expires_at);
        }
    }

    /// The lease of a job that is held has this token.
    pub fn name(&mut self, job: JobNumber, token: u64) {
        if self.held[job].token != 0 {
            self.held[job].token = token;
        }
        self.last_token = self.last_token.max(token);
    }

    /// How many leases are held.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_expiry.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_ms(43_200_000);

    fn lease(job: JobNumber, token: u64) -> LeaseNumber {
        LeaseNumber { job, token }
    }

    #[test]
    fn a_second_lease_while_the_first_is_live_is_a_violation() {
        let mut leases = Leases::new(3);
        let end = NOON.plus_ms(30_000);
        assert_eq!(leases.granted(NOON, lease(0, 5), end), Ok(true));
        assert_eq!(leases.granted(NOON, lease(0, 5), end), Ok(false));
        assert!(leases.granted(NOON, lease(0, 6), end).is_err());
        assert!(
            leases.granted(NOON, lease(1, 5), end).is_err(),
            "tokens only grow"
        );
    }

    #[test]
    fn a_commit_after_the_lease_ran_out_is_a_violation() {
        let mut leases = Leases::new(3);
        let end = NOON.plus_ms(30_000);
        leases.granted(NOON, lease(0, 5), end).unwrap();
        assert!(leases.extended(end, lease(0, 5), 30_000).is_err());
        assert!(leases.ended(end, lease(0, 5)).is_err());
        assert!(leases.refused(end, lease(0, 5)).is_ok());
        assert!(leases.refused(NOON, lease(0, 5)).is_err());
        assert_eq!(leases.expire(end), [0]);
        assert!(leases.granted(end, lease(0, 6), end.plus_ms(1)).is_ok());
        assert!(leases.ended(end, lease(0, 5)).is_err(), "an old token");
    }
}
