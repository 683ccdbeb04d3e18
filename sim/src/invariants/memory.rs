//! G8: the queue's memory is bounded by outstanding jobs and retention.

use kalends_core::queue::state::SourceSettings;
use kalends_core::queue::{FAN_OUTS_KEEP_COMPLETED, FAN_OUTS_KEEP_FAILED, Queue};

use super::{Invariant, Verdict, Violation};

/// Looks at the tables of a queue with one source, `users` users and one schedule.
///
/// # Errors
/// If one is larger than it may be.
pub fn check(queue: &Queue, users: usize, settings: &SourceSettings) -> Verdict {
    check_counts(&queue.row_counts(), users, settings)
}

fn check_counts(
    counts: &[(&'static str, usize)],
    users: usize,
    settings: &SourceSettings,
) -> Verdict {
    for (table, rows) in counts {
        let rows_max = match *table {
            "meta" | "sources" | "flows" | "schedules" => 1,
            "users" | "user_flows" => users,
            "jobs" => users + 1,
            "completed" => (settings.keep_completed + FAN_OUTS_KEEP_COMPLETED) as usize,
            "failed" => (settings.keep_failed + FAN_OUTS_KEEP_FAILED) as usize,
            _ => usize::MAX,
        };
        if *rows > rows_max {
            let detail =
                format!("the table {table} has {rows} rows; at most {rows_max} are allowed");
            return Err(Violation::new(Invariant::MemoryBounded, detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_grows_beyond_its_bound_is_a_violation() {
        let settings = SourceSettings::default();
        assert!(check(&Queue::new(), 1, &settings).is_ok());
        assert!(check_counts(&[("jobs", 3)], 2, &settings).is_ok());
        assert!(check_counts(&[("jobs", 4)], 2, &settings).is_err());
        assert!(check_counts(&[("completed", 201)], 2, &settings).is_err());
    }
}
