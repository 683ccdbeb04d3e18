//! Time as a value: milliseconds since the Unix epoch, in UTC, and the trait by which a driver brings it in.
//!
//! Nothing in this crate reads a clock. A [`Timestamp`] is an argument of every call that needs one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One second in milliseconds.
pub const SECOND_MS: u64 = 1_000;
/// One minute in milliseconds.
pub const MINUTE_MS: u64 = 60 * SECOND_MS;
/// One hour in milliseconds.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// One day in milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// Arithmetic saturates at the ends of the range, so a hostile date can never panic the queue.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// Later than anything: "never".
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    /// The point `ms` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        Timestamp(ms)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// This point, `ms` milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_add_unsigned(ms))
    }

    /// This point, `ms` milliseconds earlier.
    #[must_use]
    pub const fn minus_ms(self, ms: u64) -> Self {
        Timestamp(self.0.saturating_sub_unsigned(ms))
    }

    /// Milliseconds from `earlier` to this point; 0 if `earlier` is not earlier.
    #[must_use]
    pub const fn since_ms(self, earlier: Timestamp) -> u64 {
        let difference = self.0.saturating_sub(earlier.0);
        if difference < 0 {
            0
        } else {
            difference.unsigned_abs()
        }
    }

    /// The point in RFC 3339 with milliseconds and `Z`, or the bare number where no calendar date exists for it.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        match chrono::DateTime::from_timestamp_millis(self.0) {
            Some(at) => at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            None => self.0.to_string(),
        }
    }

    /// Reads an RFC 3339 time with its offset; `None` if it is not one.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = chrono::DateTime::parse_from_rfc3339(text).ok()?;
        Some(Timestamp(at.timestamp_millis()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_rfc3339())
    }
}

/// Where a driver's time comes from: the system's clock in production, the simulator's heap in a simulation.
///
/// `core` never calls it; drivers do, and pass what it says.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// How long the world has to wait until this clock says `at`, as far as it can tell; a driver that waited asks again.
    ///
    /// [`CLOCK_WAIT_MS_MAX`] at the most unless a clock says otherwise, so that one that is moved by hand is noticed. A clock
    /// that runs faster than the world must say less.
    fn wait_until(&self, at: Timestamp) -> Duration {
        Duration::from_millis(at.since_ms(self.now()).min(CLOCK_WAIT_MS_MAX))
    }
}

/// A driver looks at a clock of which it knows nothing at least this often, in milliseconds.
pub const CLOCK_WAIT_MS_MAX: u64 = SECOND_MS;

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn wait_until(&self, at: Timestamp) -> Duration {
        (**self).wait_until(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.plus_ms(1), Timestamp::MAX);
        assert_eq!(Timestamp::from_ms(5).since_ms(Timestamp::from_ms(9)), 0);
        assert_eq!(Timestamp::from_ms(9).since_ms(Timestamp::from_ms(5)), 4);
        assert_eq!(Timestamp::from_ms(i64::MIN).minus_ms(1).as_ms(), i64::MIN);
    }

    #[test]
    fn an_unknown_clock_is_looked_at_every_second() {
        struct Stopped;
        impl Clock for Stopped {
            fn now(&self) -> Timestamp {
                Timestamp::from_ms(1_000)
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(Stopped);
        let wait_ms = |at_ms| clock.wait_until(Timestamp::from_ms(at_ms)).as_millis();
        assert_eq!(
            [900, 1_000, 1_250, i64::MAX].map(wait_ms),
            [0, 0, 250, 1_000]
        );
    }

    #[test]
    fn rfc3339_goes_there_and_back() {
        let at = Timestamp::parse_rfc3339("2026-03-02T09:00:00.250-05:00").unwrap();
        assert_eq!(at.to_rfc3339(), "2026-03-02T14:00:00.250Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-03-02"), None);
        assert_eq!(Timestamp::MAX.to_rfc3339(), i64::MAX.to_string());
    }
}
