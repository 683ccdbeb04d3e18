//! Jitter: a random delay that keeps processes which started together from staying in step.
//!
//! Uniform over its whole range and never beyond it, so that a tick with jitter still belongs to its period.

use serde::{Deserialize, Serialize};

use crate::rng::{Rng, uniform};

/// The longest jitter unless configured otherwise, in milliseconds.
pub const JITTER_MS_DEFAULT: u64 = 5_000;

/// How far a start may be moved back at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jitter {
    /// The longest delay, in milliseconds; 0 is no jitter.
    pub max_ms: u64,
}

impl Default for Jitter {
    fn default() -> Self {
        Jitter {
            max_ms: JITTER_MS_DEFAULT,
        }
    }
}

impl Jitter {
    /// A delay in milliseconds, each of `0..=max_ms` equally likely.
    #[must_use]
    pub fn draw(&self, rng: &mut impl Rng) -> u64 {
        uniform(rng, self.max_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::substream;

    #[test]
    fn draws_cover_the_range_evenly() {
        let jitter = Jitter::default();
        let mut rng = substream(3, "jitter");
        let mut tenths = [0_u32; 10];
        for _ in 0..10_000 {
            let drawn = jitter.draw(&mut rng);
            tenths[usize::try_from(drawn * 10 / 5_001).unwrap()] += 1;
        }
        // 1,000 are expected in each; 850 to 1,150 is five standard deviations either way.
        assert!(
            tenths.iter().all(|count| (850..=1_150).contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn both_ends_are_reached() {
        let mut rng = substream(4, "jitter");
        let drawn: Vec<u64> = (0..200)
            .map(|_| Jitter { max_ms: 2 }.draw(&mut rng))
            .collect();
        assert!(drawn.contains(&0) && drawn.contains(&2));
    }

    proptest! {
        #[test]
        fn never_beyond_the_bound(max_ms in prop_oneof![0_u64..10, any::<u64>(), Just(u64::MAX)], seed: u64) {
            let mut rng = substream(seed, "jitter");
            let drawn: Vec<u64> = (0..64).map(|_| Jitter { max_ms }.draw(&mut rng)).collect();
            prop_assert!(drawn.iter().all(|drawn| *drawn <= max_ms));
            // 64 equal draws of at least two values have a chance of at most 2^-63.
            prop_assert!(max_ms == 0 || drawn.iter().any(|other| *other != drawn[0]));
        }
    }
}
