//! Chance as a value: the injected generator, its named sub-streams and a hash that never changes.
//!
//! Whoever starts a machine gives it one seed. Every use of chance draws from a sub-stream with a name of its own,
//! so a new use of chance leaves all older ones as they were.

use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

pub use rand_core::Rng;

/// The generator of production and simulation alike: ChaCha with 12 rounds.
pub type KalendsRng = ChaCha12Rng;

/// The sub-stream `name` of `seed`: independent of every other name's.
#[must_use]
pub fn substream(seed: u64, name: &str) -> KalendsRng {
    let mut key = [0_u8; 32];
    for (index, chunk) in key.chunks_exact_mut(8).enumerate() {
        let salted = seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&stable_hash(salted, name.as_bytes()).to_le_bytes());
    }
    ChaCha12Rng::from_seed(key)
}

/// A whole number in `0..=bound_inclusive`, each equally likely (by rejection, so without bias).
pub fn uniform(rng: &mut impl Rng, bound_inclusive: u64) -> u64 {
    let Some(range) = bound_inclusive.checked_add(1) else {
        return rng.next_u64();
    };
    let usable = u64::MAX - u64::MAX % range;
    loop {
        // Fewer than one draw in two is rejected, so the loop ends after two draws on average.
        let drawn = rng.next_u64();
        if drawn < usable {
            return drawn % range;
        }
    }
}

/// A 64-bit hash (FNV-1a, then a finishing mix) that is the same on every machine and in every release.
#[must_use]
pub fn stable_hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    for byte in bytes {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The finishing mix of splitmix64: FNV's high bits alone are weak for short names.
    hash ^= hash >> 30;
    hash = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash ^= hash >> 27;
    hash = hash.wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn substreams_are_stable_and_apart() {
        let mut first = substream(1, "jitter");
        let mut again = substream(1, "jitter");
        let mut other = substream(1, "backoff");
        let drawn = first.next_u64();
        assert_eq!(drawn, again.next_u64());
        assert_ne!(drawn, other.next_u64());
    }

    #[test]
    fn uniform_meets_both_ends() {
        let mut rng = substream(7, "ends");
        let mut seen = [false; 4];
        for _ in 0..200 {
            seen[usize::try_from(uniform(&mut rng, 3)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(uniform(&mut rng, 0), 0);
    }
}
