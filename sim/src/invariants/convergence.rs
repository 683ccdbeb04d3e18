//! G11: once faults stop, within a bound computed from the policies, everybody is fresh and every graph equals its
//! calendar.

use kalends_core::id::UserId;
use kalends_core::time::Timestamp;

use super::{Invariant, Verdict, Violation};
use crate::oracle;

/// At most so many users are named who are not fresh.
const NAMED_MAX: usize = 5;

/// A user who was not synced since the world healed.
#[derive(Clone, Debug)]
pub struct Behind<'a> {
    /// Who.
    pub user: &'a UserId,
    /// When the last successful sync began.
    pub synced_at: Timestamp,
    /// Whether the user is parked.
    pub parked: bool,
}

/// Looks at who is `behind` at `now`; by `until` nobody may be.
///
/// # Errors
/// If somebody is, too late.
pub fn all_fresh(
    now: Timestamp,
    healed_at: Timestamp,
    until: Timestamp,
    behind: &[Behind<'_>],
) -> Verdict {
    if behind.is_empty() || now <= until {
        return Ok(());
    }
    let named: Vec<String> = behind
        .iter()
        .take(NAMED_MAX)
        .map(|behind| {
            let parked = if behind.parked { ", parked" } else { "" };
            format!("{} (last synced {}{parked})", behind.user, behind.synced_at)
        })
        .collect();
    Err(Violation::new(
        Invariant::Convergence,
        format!(
            "{} users are not fresh by {until}, healed {healed_at}: {}",
            behind.len(),
            named.join(", ")
        ),
    ))
}

/// Looks at what the oracle says of one user.
///
/// # Errors
/// If the graph and the calendars differ.
pub fn graph_equals(user: &str, verdict: &oracle::Verdict) -> Verdict {
    if verdict.mismatches == 0 {
        return Ok(());
    }
    Err(Violation::new(
        Invariant::Convergence,
        format!(
            "the graph of {user} differs in {} of {} events: {}",
            verdict.mismatches,
            verdict.expected,
            verdict.described.first().map_or("", String::as_str)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_is_not_fresh_in_time_or_a_graph_that_differs_is_a_violation() {
        let at = |minute: i64| Timestamp::from_ms(minute * 60_000);
        let ada = UserId::new("ada").unwrap();
        let behind = [Behind {
            user: &ada,
            synced_at: at(1),
            parked: true,
        }];
        assert!(
            all_fresh(at(30), at(10), at(30), &behind).is_ok(),
            "there is time left"
        );
        assert!(all_fresh(at(31), at(10), at(30), &[]).is_ok());
        let violation = all_fresh(at(31), at(10), at(30), &behind).unwrap_err();
        assert!(violation.detail.contains("ada") && violation.detail.contains("parked"));
        let mut verdict = oracle::Verdict {
            expected: 3,
            ..oracle::Verdict::default()
        };
        assert!(graph_equals("ada", &verdict).is_ok());
        verdict.mismatches = 1;
        assert!(graph_equals("ada", &verdict).is_err());
    }
}
