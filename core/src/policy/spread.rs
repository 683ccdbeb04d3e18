//! Spread: how a fan-out lays its users over the period, so that a thousand syncs do not begin in one instant.
//!
//! Three ways. `Stagger` gives each user a fixed distance from the one before. `Even` does the same but shrinks the
//! distance so that the last user still starts within the period. `Phase` gives each user a place of its own that
//! never moves, whoever joins or leaves.
//!
//! Invariant: `Even` and `Phase` stay below the period. `Stagger` may not: with 1 s and 1,000 users the last one
//! starts 16 minutes after the tick, when the next tick has already come. It is offered because it is simple to
//! foresee; `Even` is the default because it cannot do that.

use serde::{Deserialize, Serialize};

use crate::id::UserId;
use crate::pseudonym::Pseudonym;
use crate::rng::stable_hash;

/// The distance between two users unless configured otherwise, in milliseconds.
pub const SPREAD_STEP_MS_DEFAULT: u64 = 1_000;

/// Keeps a user's phase apart from every other use of a hash of the user's name. Changing it moves every user.
const PHASE_SEED: u64 = 0x6b61_6c65_6e64_7321;

/// How the users of one fan-out are laid over the period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Spread {
    /// `index x step_ms`, however long the period is: the last users may start after the next tick.
    Stagger {
        /// The distance between two users, in milliseconds.
        step_ms: u64,
    },
    /// `index x min(step_ms_max, period / total)`: as far apart as they may be, and all within the period.
    Even {
        /// The largest distance between two users, in milliseconds.
        step_ms_max: u64,
    },
    /// A stable hash of the user, over the whole period: the same place every time.
    Phase,
}

impl Default for Spread {
    fn default() -> Self {
        Spread::Even {
            step_ms_max: SPREAD_STEP_MS_DEFAULT,
        }
    }
}

impl Spread {
    /// How many milliseconds after the tick the user at `index` (from 0) of `total` starts.
    ///
    /// Below `period_ms` for `Even` and `Phase` (0 if the period is 0). `Stagger` ignores the period and may exceed it.
    /// Users that joined while the fan-out ran may push `index` beyond `total`; they count as part of it.
    #[must_use]
    pub fn offset_ms(&self, index: u64, total: u64, user: &UserId, period_ms: u64) -> u64 {
        match self {
            Spread::Stagger { step_ms } => index.saturating_mul(*step_ms),
            Spread::Even { step_ms_max } => {
                // One multiplication before the division: with more users than milliseconds in the period,
                // a whole-number distance would be 0 and start all of them at once.
                let total = u128::from(total).max(u128::from(index) + 1);
                let even = u128::from(index) * u128::from(period_ms) / total;
                let even = u64::try_from(even).expect("index < total, so this is below period_ms");
                even.min(index.saturating_mul(*step_ms_max))
            }
            Spread::Phase => {
                let scaled = (u128::from(phase(user)) * u128::from(period_ms)) >> u64::BITS;
                u64::try_from(scaled).expect("hash < 2^64, so this is below period_ms")
            }
        }
    }
}

/// The place of a user under [`Spread::Phase`], as a fraction of the period: of 2^64. A pseudonym has its user's.
#[must_use]
pub fn phase(user: &UserId) -> u64 {
    Pseudonym::carried_by(user.as_str())
        .unwrap_or_else(|| stable_hash(PHASE_SEED, user.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUARTER_MS: u64 = 15 * 60 * 1_000;

    fn user(number: u64) -> UserId {
        UserId::new(&format!("user-{number}@example.com")).unwrap()
    }

    #[test]
    fn few_users_stand_a_second_apart_and_many_share_the_period() {
        let even = Spread::default();
        assert_eq!(even.offset_ms(7, 20, &user(7), QUARTER_MS), 7_000);
        assert_eq!(even.offset_ms(1, 3_000, &user(1), QUARTER_MS), 300);
        assert_eq!(
            even.offset_ms(2_999, 3_000, &user(2_999), QUARTER_MS),
            899_700
        );
    }

    #[test]
    fn stagger_runs_past_the_next_tick_and_even_does_not() {
        let stagger = Spread::Stagger { step_ms: 1_000 };
        assert!(stagger.offset_ms(999, 1_000, &user(999), QUARTER_MS) > QUARTER_MS);
        assert!(Spread::default().offset_ms(999, 1_000, &user(999), QUARTER_MS) < QUARTER_MS);
    }

    #[test]
    fn more_users_than_milliseconds_still_spread() {
        let even = Spread::default();
        assert_eq!(even.offset_ms(1_500, 2_000, &user(0), 1_000), 750);
    }

    #[test]
    fn phase_stays_with_the_user_and_fills_the_period() {
        let place = |number: u64, index: u64, total: u64| {
            Spread::Phase.offset_ms(index, total, &user(number), QUARTER_MS)
        };
        assert_eq!(place(1, 0, 10), place(1, 500, 1_000));
        let mut tenths = [0_u32; 10];
        for number in 0..10_000 {
            let tenth = place(number, number, 10_000) * 10 / QUARTER_MS;
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(
            tenths.iter().all(|count| (850..=1_150).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn a_pseudonym_stands_where_its_user_stands() {
        let ada = user(1);
        let pseudonym = Pseudonym {
            name: 7,
            carried: Some(phase(&ada)),
        };
        let hidden = UserId::new(&pseudonym.to_string()).unwrap();
        let place = |user: &UserId| Spread::Phase.offset_ms(0, 1, user, QUARTER_MS);
        assert_eq!(place(&hidden), place(&ada));
        assert_ne!(place(&ada), place(&user(2)));
    }

    proptest! {
        #[test]
        fn even_and_phase_stay_within_the_period(
            index: u64, total: u64, number in 0_u64..1_000, step_ms_max: u64,
            period_ms in prop_oneof![0_u64..5, any::<u64>()],
        ) {
            for spread in [Spread::Even { step_ms_max }, Spread::Phase] {
                let offset_ms = spread.offset_ms(index, total, &user(number), period_ms);
                prop_assert!(offset_ms < period_ms.max(1));
            }
        }

        #[test]
        fn even_never_goes_back(index in 0_u64..5_000, total in 1_u64..5_000, period_ms in 0_u64..1_000_000) {
            let even = Spread::default();
            let here = even.offset_ms(index, total.max(index + 2), &user(0), period_ms);
            let next = even.offset_ms(index + 1, total.max(index + 2), &user(0), period_ms);
            prop_assert!(here <= next && next - here <= SPREAD_STEP_MS_DEFAULT);
        }
    }
}
