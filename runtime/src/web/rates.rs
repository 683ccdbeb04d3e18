//! How often one address may ask: a bucket of requests for each, filled steadily.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Addresses that are kept apart; further ones share a bucket until others have been quiet.
const ADDRESSES_MAX: usize = 1_024;

/// So many at once, and so many a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second, over the long run.
    pub a_second: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    as_of: Instant,
}

/// The buckets of all addresses.
#[derive(Debug)]
pub(super) struct Rates {
    rate: Rate,
    buckets: Mutex<BTreeMap<Option<IpAddr>, Bucket>>,
}

impl Rates {
    pub(super) fn new(rate: Rate) -> Self {
        assert!(
            rate.burst > 0 && rate.a_second > 0,
            "a rate lets something through"
        );
        Rates {
            rate,
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Takes one request of `address` out of its bucket; `false` if that is empty.
    pub(super) fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&Some(address)) {
            // Who has been quiet for so long that the bucket is full is as good as unknown.
            buckets.retain(|_, bucket| self.filled(bucket, now) < f64::from(self.rate.burst));
        }
        let is_known = buckets.contains_key(&Some(address));
        let key = (is_known || buckets.len() < ADDRESSES_MAX).then_some(address);
        let bucket = buckets.entry(key).or_insert(Bucket {
            left: f64::from(self.rate.burst),
            as_of: now,
        });
        bucket.left = self.filled(bucket, now);
        bucket.as_of = now;
        let is_welcome = bucket.left >= 1.0;
        if is_welcome {
            bucket.left -= 1.0;
        }
        is_welcome
    }

    fn filled(&self, bucket: &Bucket, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(bucket.as_of).as_secs_f64();
        let filled = bucket.left + seconds * f64::from(self.rate.a_second);
        filled.min(f64::from(self.rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn a_burst_then_the_rate_and_each_address_for_itself() {
        let rates = Rates::new(Rate {
            burst: 3,
            a_second: 2,
        });
        let begun = Instant::now();
        let taken = |who, at| (0..10).filter(|_| rates.take(address(who), at)).count();
        assert_eq!(taken(1, begun), 3);
        assert_eq!(taken(2, begun), 3);
        assert_eq!(taken(1, begun + Duration::from_secs(1)), 2);
        assert_eq!(taken(1, begun + Duration::from_secs(100)), 3);
    }

    #[test]
    fn a_flood_of_addresses_takes_bounded_memory() {
        let rates = Rates::new(Rate {
            burst: 2,
            a_second: 1,
        });
        let begun = Instant::now();
        for number in 0..10_000 {
            rates.take(address(number), begun);
        }
        assert!(rates.buckets.lock().unwrap().len() <= ADDRESSES_MAX + 1);
        // The one that all late ones share is empty; later everybody is welcome again.
        assert!(!rates.take(address(20_000), begun));
        assert!(rates.take(address(20_000), begun + Duration::from_secs(60)));
    }
}
