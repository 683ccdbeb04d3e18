//! Backoff: how long to wait after a failed attempt, and when to give up.
//!
//! Exponential from a base up to a cap, with jitter so that users who failed together do not come back together.
//! What the other side asks for (Retry-After) wins over all of it: never earlier than asked, and only a little later.
//!
//! Invariants: without Retry-After the delay is at most `cap_ms`; with it, it is at least what was asked (up to
//! [`RETRY_AFTER_MS_MAX`]) and at most [`RETRY_AFTER_JITTER_MS_MAX`] more.

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, planted};
use crate::rng::{Rng, uniform};
use crate::time::{DAY_MS, SECOND_MS};

/// The longest Retry-After that is obeyed, in milliseconds: a hostile or broken answer must not stop a user for years.
pub const RETRY_AFTER_MS_MAX: u64 = DAY_MS;
/// The most that jitter adds to a Retry-After, in milliseconds.
pub const RETRY_AFTER_JITTER_MS_MAX: u64 = 30 * SECOND_MS;
/// The least range of the jitter that is added to a Retry-After, in milliseconds: "1 second" told to a thousand
/// users still has to spread them.
const RETRY_AFTER_JITTER_MS_MIN: u64 = SECOND_MS;
/// Which part of a Retry-After jitter may add to it, between the two bounds above: one tenth.
const RETRY_AFTER_JITTER_DIVISOR: u64 = 10;

/// How much of a delay is random.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackoffJitter {
    /// Nothing: the exponential delay exactly, and a Retry-After exactly.
    None,
    /// Half is fixed, half is random: never at once, seldom together.
    #[default]
    Equal,
    /// All of it is random, from 0: the widest spread, at the price of some early attempts.
    Full,
}

/// How failed attempts are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backoff {
    /// The delay after the first failed attempt, in milliseconds, before jitter.
    pub base_ms: u64,
    /// By how much each further delay is longer than the one before; 1 keeps them equal, 0 counts as 1.
    pub factor: u32,
    /// The longest delay, in milliseconds. A Retry-After may be longer.
    pub cap_ms: u64,
    /// How much of the delay is random.
    pub jitter: BackoffJitter,
    /// How many attempts there are in all; the last one is not followed by another.
    pub attempts_max: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            base_ms: SECOND_MS,
            factor: 2,
            cap_ms: 64 * SECOND_MS,
            jitter: BackoffJitter::Equal,
            attempts_max: 3,
        }
    }
}

impl Backoff {
    /// How many milliseconds to wait after failed attempt number `attempt` (from 1; 0 counts as 1).
    ///
    /// `retry_after_ms` is what the other side asked for. It is cut to [`RETRY_AFTER_MS_MAX`]; 0 says nothing about
    /// when to come back and counts as not asked, lest all attempts are burnt at once.
    #[must_use]
    pub fn delay_ms(&self, attempt: u32, retry_after_ms: Option<u64>, rng: &mut impl Rng) -> u64 {
        if let Some(asked_ms) = retry_after_ms.filter(|asked_ms| *asked_ms > 0) {
            let asked_ms = asked_ms.min(RETRY_AFTER_MS_MAX);
            let jitter_ms = match self.jitter {
                BackoffJitter::None => 0,
                BackoffJitter::Equal | BackoffJitter::Full => (asked_ms
                    / RETRY_AFTER_JITTER_DIVISOR)
                    .clamp(RETRY_AFTER_JITTER_MS_MIN, RETRY_AFTER_JITTER_MS_MAX),
            };
            return asked_ms + uniform(rng, jitter_ms);
        }
        let growth = u64::from(self.factor.max(1)).saturating_pow(attempt.saturating_sub(1));
        let full_ms = self.base_ms.saturating_mul(growth).min(self.cap_ms);
        match self.jitter {
            _ if planted(Mutant::RetryWithoutJitter) => full_ms,
            BackoffJitter::None => full_ms,
            BackoffJitter::Equal => full_ms / 2 + uniform(rng, full_ms - full_ms / 2),
            BackoffJitter::Full => uniform(rng, full_ms),
        }
    }

    /// Whether failed attempt number `attempt` (from 1) was the last one.
    #[must_use]
    pub fn exhausted(&self, attempt: u32) -> bool {
        attempt >= self.attempts_max
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::substream;

    #[test]
    fn doubles_up_to_the_cap() {
        let backoff = Backoff {
            jitter: BackoffJitter::None,
            ..Backoff::default()
        };
        let mut rng = substream(1, "backoff");
        let delays: Vec<u64> = (1..=9)
            .map(|attempt| backoff.delay_ms(attempt, None, &mut rng))
            .collect();
        assert_eq!(
            delays,
            [
                1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000
            ]
        );
        assert_eq!(backoff.delay_ms(u32::MAX, None, &mut rng), 64_000);
        assert_eq!(backoff.delay_ms(0, None, &mut rng), 1_000);
    }

    #[test]
    fn three_attempts_by_default() {
        let backoff = Backoff::default();
        assert!(!backoff.exhausted(1));
        assert!(!backoff.exhausted(2));
        assert!(backoff.exhausted(3));
    }

    #[test]
    fn users_who_failed_together_come_back_apart() {
        let backoff = Backoff::default();
        let mut rng = substream(2, "backoff");
        for asked in [None, Some(1_000)] {
            let mut delays: Vec<u64> = (0..100)
                .map(|_| backoff.delay_ms(1, asked, &mut rng))
                .collect();
            delays.sort_unstable();
            delays.dedup();
            assert!(delays.len() > 50, "{asked:?}: {} places", delays.len());
        }
    }

    #[test]
    fn zero_and_hostile_wishes_are_bounded() {
        let backoff = Backoff::default();
        let mut rng = substream(3, "backoff");
        assert!(backoff.delay_ms(3, Some(0), &mut rng) >= 2_000);
        let longest_ms = backoff.delay_ms(1, Some(u64::MAX), &mut rng);
        assert!(longest_ms <= RETRY_AFTER_MS_MAX + RETRY_AFTER_JITTER_MS_MAX);
    }

    #[test]
    fn configuration_may_name_only_what_differs() {
        let backoff: Backoff = serde_json::from_str(r#"{"attempts_max":5}"#).unwrap();
        assert_eq!(
            backoff,
            Backoff {
                attempts_max: 5,
                ..Backoff::default()
            }
        );
        assert!(serde_json::from_str::<Backoff>(r#"{"atempts_max":5}"#).is_err());
    }

    fn any_backoff() -> impl Strategy<Value = Backoff> {
        let jitter = prop_oneof![
            Just(BackoffJitter::None),
            Just(BackoffJitter::Equal),
            Just(BackoffJitter::Full)
        ];
        (any::<u64>(), any::<u32>(), any::<u64>(), jitter).prop_map(
            |(base_ms, factor, cap_ms, jitter)| Backoff {
                base_ms,
                factor,
                cap_ms,
                jitter,
                attempts_max: 3,
            },
        )
    }

    proptest! {
        #[test]
        fn within_the_cap_and_equal_jitter_keeps_half(
            backoff in any_backoff(), attempt in prop_oneof![0_u32..70, any::<u32>()], seed: u64,
        ) {
            let mut rng = substream(seed, "backoff");
            let delay_ms = backoff.delay_ms(attempt, None, &mut rng);
            prop_assert!(delay_ms <= backoff.cap_ms);
            let exact = Backoff { jitter: BackoffJitter::None, ..backoff };
            let full_ms = exact.delay_ms(attempt, None, &mut rng);
            prop_assert!(delay_ms <= full_ms);
            if backoff.jitter == BackoffJitter::Equal {
                prop_assert!(delay_ms >= full_ms / 2);
            }
        }

        #[test]
        fn never_earlier_than_asked(
            backoff in any_backoff(), attempt: u32, seed: u64,
            asked_ms in prop_oneof![1_u64..100_000, 1..=RETRY_AFTER_MS_MAX],
        ) {
            let mut rng = substream(seed, "backoff");
            let delay_ms = backoff.delay_ms(attempt, Some(asked_ms), &mut rng);
            prop_assert!(delay_ms >= asked_ms);
            prop_assert!(delay_ms <= asked_ms + RETRY_AFTER_JITTER_MS_MAX);
        }
    }
}
