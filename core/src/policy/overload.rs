//! Overload: whether all users can be served within the period under the limit, computed and said aloud.
//!
//! A fan-out that needs more than the limiter gives would grow a backlog for ever. Jobs coalesce, so it does not;
//! but then users are served less often than the schedule says, and an operator should hear the figures at once
//! rather than find them in the gaps between syncs.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::limit::Limit;
use crate::time::{HOUR_MS, MINUTE_MS, SECOND_MS};

/// More work in a period than the limit lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overload {
    /// How many starts a period needs: one for each user.
    pub needed_per_period: u64,
    /// How many starts the limit lets through in a period, over the long run.
    pub possible_per_period: u64,
    /// The period, in milliseconds.
    pub period_ms: u64,
}

/// Whether `users` syncs every `period_ms` are more than `limit` lets through. `None` if they fit, if there is no
/// limit, or if there is no period (0).
#[must_use]
pub fn overload(users: u64, period_ms: u64, limit: Option<&Limit>) -> Option<Overload> {
    let limit = limit?;
    if period_ms == 0 {
        return None;
    }
    let possible =
        u128::from(limit.count) * u128::from(period_ms) / u128::from(limit.window_ms.max(1));
    let possible_per_period = u64::try_from(possible).unwrap_or(u64::MAX);
    (users > possible_per_period).then_some(Overload {
        needed_per_period: users,
        possible_per_period,
        period_ms,
    })
}

impl Overload {
    /// The shortest period in which all users fit under the limit, in milliseconds; `None` if nothing gets through
    /// in this one, so that nothing can be said.
    #[must_use]
    pub fn period_ms_enough(&self) -> Option<u64> {
        if self.possible_per_period == 0 {
            return None;
        }
        let enough = (u128::from(self.needed_per_period) * u128::from(self.period_ms))
            .div_ceil(u128::from(self.possible_per_period));
        Some(u64::try_from(enough).unwrap_or(u64::MAX))
    }

    /// The lowest limit, in starts a minute, under which all users fit into the period.
    #[must_use]
    pub fn starts_per_minute_enough(&self) -> u64 {
        let enough = (u128::from(self.needed_per_period) * u128::from(MINUTE_MS))
            .div_ceil(u128::from(self.period_ms.max(1)));
        u64::try_from(enough).unwrap_or(u64::MAX)
    }
}

/// A length of time for people, rounded up: "15 min", "2 h 30 min", "45 s".
fn in_words(ms: u64) -> String {
    if ms < MINUTE_MS {
        return format!("{} s", ms.div_ceil(SECOND_MS));
    }
    let minutes = ms.div_ceil(MINUTE_MS);
    let (hours, minutes) = (
        minutes / (HOUR_MS / MINUTE_MS),
        minutes % (HOUR_MS / MINUTE_MS),
    );
    match (hours, minutes) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} syncs are needed every {}, but the limit lets only {} through",
            self.needed_per_period,
            in_words(self.period_ms),
            self.possible_per_period,
        )?;
        let raise = self.starts_per_minute_enough();
        match self.period_ms_enough() {
            Some(period_ms) => {
                let period = in_words(period_ms);
                write!(
                    formatter,
                    ", so each user is synced about every {period}; \
                     raise the limit to at least {raise} a minute, or lengthen the period to at least {period}"
                )
            }
            None => write!(
                formatter,
                "; raise the limit to at least {raise} a minute, or lengthen the period"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT_LIMIT: Limit = Limit {
        count: 10,
        window_ms: MINUTE_MS,
    };

    #[test]
    fn the_default_limit_carries_150_users_in_a_quarter_of_an_hour() {
        let quarter_ms = 15 * MINUTE_MS;
        assert_eq!(overload(150, quarter_ms, Some(&DEFAULT_LIMIT)), None);
        let too_many = overload(151, quarter_ms, Some(&DEFAULT_LIMIT)).unwrap();
        assert_eq!(too_many.possible_per_period, 150);
        assert_eq!(overload(u64::MAX, quarter_ms, None), None);
        assert_eq!(overload(5, 0, Some(&DEFAULT_LIMIT)), None);
    }

    #[test]
    fn the_sentence_gives_the_figures_and_the_ways_out() {
        let sentence = overload(1_000, 15 * MINUTE_MS, Some(&DEFAULT_LIMIT))
            .unwrap()
            .to_string();
        assert_eq!(
            sentence,
            "1000 syncs are needed every 15 min, but the limit lets only 150 through, so each user is synced about \
             every 1 h 40 min; raise the limit to at least 67 a minute, or lengthen the period to at least 1 h 40 min"
        );
        let daily = Limit {
            count: 1,
            window_ms: 24 * HOUR_MS,
        };
        let sentence = overload(2, SECOND_MS, Some(&daily)).unwrap().to_string();
        assert_eq!(
            sentence,
            "2 syncs are needed every 1 s, but the limit lets only 0 through; \
             raise the limit to at least 120 a minute, or lengthen the period"
        );
    }

    proptest! {
        #[test]
        fn the_advice_is_enough(
            users in 1_u64..1_000_000, period_ms in 1_u64..100_000_000, count in 1_u32..100_000, window_ms in 1_u64..86_400_000,
        ) {
            let limit = Limit { count, window_ms };
            let Some(found) = overload(users, period_ms, Some(&limit)) else {
                prop_assert!(u128::from(users) * u128::from(window_ms) <= u128::from(count) * u128::from(period_ms));
                return Ok(());
            };
            prop_assert!(found.needed_per_period > found.possible_per_period);
            let raised = Limit {
                count: u32::try_from(found.starts_per_minute_enough()).unwrap_or(u32::MAX),
                window_ms: MINUTE_MS,
            };
            prop_assert!(raised.count == u32::MAX || overload(users, period_ms, Some(&raised)).is_none());
            if let Some(longer_ms) = found.period_ms_enough() {
                prop_assert!(overload(users, longer_ms, Some(&limit)).is_none());
            }
        }
    }
}
