//! Clocks for drivers: the system's, and a steady one that may run faster than the world.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kalends_core::time::{Clock, Timestamp};
use tokio::time::Instant;

/// The system's wall clock. It may step; the store's clock of the embedded mode is this one.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that never steps: it starts at a given time and follows the monotonic clock from there, `rate` times as fast.
///
/// It reads the monotonic clock by way of tokio: they are the same, but a test that pauses tokio's time pauses this, too.
/// Drivers use it at rate 1. The demo runs a quarter of an hour in seconds by a higher rate.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    start: Timestamp,
    begun: Instant,
    rate: u32,
}

impl SteadyClock {
    /// A clock that says `start` now and runs `rate` times as fast as the world.
    ///
    /// # Panics
    /// If the rate is 0.
    #[must_use]
    pub fn new(start: Timestamp, rate: u32) -> Self {
        assert!(rate > 0, "a clock that stands still wakes nobody");
        SteadyClock {
            start,
            begun: Instant::now(),
            rate,
        }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        let elapsed_us = self
            .begun
            .elapsed()
            .as_micros()
            .saturating_mul(u128::from(self.rate));
        self.start
            .plus_ms(u64::try_from(elapsed_us / 1_000).unwrap_or(u64::MAX))
    }

    /// A day at the most, so that "never" is a number, too: nobody can move this clock.
    fn wait_until(&self, at: Timestamp) -> Duration {
        const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
        let wait_ms = at.since_ms(self.now());
        // Rounded up: waking a moment early would only mean being called again.
        Duration::from_micros(wait_ms.saturating_mul(1_000).div_ceil(u64::from(self.rate)))
            .min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_waits_less() {
        let start = Timestamp::from_ms(1_000_000);
        let clock = SteadyClock::new(start, 100);
        assert!(clock.now() >= start);
        assert!(clock.wait_until(start.plus_ms(10_000)) <= Duration::from_millis(100));
        assert_eq!(clock.wait_until(start), Duration::ZERO);
        assert!(clock.wait_until(Timestamp::MAX) <= Duration::from_secs(86_400));
    }
}
