//! G12: the same plan gives the same state hash after every event.

use super::{Invariant, Verdict, Violation};
use crate::world::trace::HashLog;

/// Compares two runs of one plan, event by event.
///
/// # Errors
/// If they differ: the first event in which they do.
pub fn check(one: &HashLog, two: &HashLog) -> Verdict {
    match one.first_difference(two) {
        None => Ok(()),
        Some((number, what)) => Err(Violation::new(
            Invariant::SameHash,
            format!("event {number}: {what}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::time::Timestamp;

    #[test]
    fn the_first_event_with_another_hash_or_none_at_all_is_named() {
        let log = |hashes: &[u64]| HashLog {
            events: hashes
                .iter()
                .map(|hash| (Timestamp::EPOCH, "timer", *hash))
                .collect(),
        };
        assert!(check(&log(&[1, 2, 3]), &log(&[1, 2, 3])).is_ok());
        let other = check(&log(&[1, 2, 3]), &log(&[1, 5, 3])).unwrap_err();
        assert!(other.detail.starts_with("event 2:"), "{}", other.detail);
        let shorter = check(&log(&[1, 2]), &log(&[1, 2, 3])).unwrap_err();
        assert!(shorter.detail.starts_with("event 3:"), "{}", shorter.detail);
    }
}
