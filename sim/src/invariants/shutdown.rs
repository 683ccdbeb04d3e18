//! G10: a shutdown ends by its deadline, with everything handed back.

use kalends_core::queue::state::QueueStats;
use kalends_core::time::Timestamp;

use super::{Invariant, Verdict, Violation};

fn broken(detail: String) -> Verdict {
    Err(Violation::new(Invariant::ShutdownInTime, detail))
}

/// Looks at a process when its deadline is over.
///
/// # Errors
/// If it still runs.
pub fn in_time(process: u32, still_runs: bool) -> Verdict {
    if still_runs {
        return broken(format!("process {process} still runs after its deadline"));
    }
    Ok(())
}

/// Looks at what the store says of a worker that has finished in a world that is well.
///
/// # Errors
/// If it holds leases.
pub fn handed_back(worker: &str, stats: &QueueStats) -> Verdict {
    match stats
        .workers
        .iter()
        .find(|(name, _)| name.as_str() == worker)
    {
        Some((name, leases)) => broken(format!("{name} has finished and holds {leases} leases")),
        None => Ok(()),
    }
}

/// Looks at the fleet when all were told to stop, and must be gone by `until`.
///
/// # Errors
/// If somebody runs or something is leased.
pub fn all_gone(now: Timestamp, until: Timestamp, running: usize, leases: usize) -> Verdict {
    if now > until && (running > 0 || leases > 0) {
        return broken(format!(
            "all were told to stop, and {running} run and {leases} leases are left by {until}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::id::WorkerId;

    #[test]
    fn a_process_that_outlives_its_deadline_or_keeps_a_lease_is_a_violation() {
        assert!(in_time(1, true).is_err());
        assert!(in_time(1, false).is_ok());
        let mut stats = QueueStats::default();
        assert!(handed_back("p1-1", &stats).is_ok());
        stats.workers.push((WorkerId::new("p1-1").unwrap(), 2));
        assert!(handed_back("p1-1", &stats).is_err());
        assert!(handed_back("p1-2", &stats).is_ok(), "another worker's");
        let at = Timestamp::from_ms;
        assert!(all_gone(at(9), at(9), 1, 0).is_ok(), "there is time left");
        assert!(all_gone(at(10), at(9), 1, 0).is_err());
        assert!(all_gone(at(10), at(9), 0, 1).is_err());
        assert!(all_gone(at(10), at(9), 0, 0).is_ok());
    }
}
