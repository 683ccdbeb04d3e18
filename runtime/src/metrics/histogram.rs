//! A histogram of durations: a count for each bound, and the sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::text::Text;

/// For what takes milliseconds: store commands, requests, writes. In microseconds.
pub(super) const SHORT_US: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];
/// For jobs. In microseconds.
pub(super) const LONG_US: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
];

/// Durations, counted.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds_us: &'static [u64],
    /// One for each bound, and one for what is longer than all of them; each duration is in one.
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds_us: &'static [u64]) -> Self {
        assert!(bounds_us.is_sorted(), "bounds are given in order");
        Histogram {
            bounds_us,
            counts: (0..=bounds_us.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_us: AtomicU64::new(0),
        }
    }

    pub(super) fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = self.bounds_us.partition_point(|bound| *bound < us);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        let counts = self.counts.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Its samples, cumulative as Prometheus wants them.
    pub(super) fn write(&self, text: &mut Text, name: &str, label: Option<(&str, &str)>) {
        let mut reached = 0;
        let bucket = format!("{name}_bucket");
        for (place, count) in self.counts.iter().enumerate() {
            reached += count.load(Ordering::Relaxed);
            let bound = match self.bounds_us.get(place) {
                Some(us) => seconds(*us).to_string(),
                None => "+Inf".to_owned(),
            };
            let labels: Vec<(&str, &str)> = label.into_iter().chain([("le", &*bound)]).collect();
            text.sample(&bucket, &labels, reached);
        }
        let labels: Vec<(&str, &str)> = label.into_iter().collect();
        let sum = seconds(self.sum_us.load(Ordering::Relaxed));
        text.sample(&format!("{name}_sum"), &labels, sum);
        text.sample(&format!("{name}_count"), &labels, reached);
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "2^53 microseconds are 285 years"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_includes_itself_and_all_below() {
        let histogram = Histogram::new(&[1_000, 10_000]);
        for ms in [0, 1, 2, 10, 11] {
            histogram.record(Duration::from_millis(ms));
        }
        let mut text = Text::default();
        histogram.write(&mut text, "x_seconds", Some(("kind", "a")));
        assert_eq!(
            text.finish(),
            "x_seconds_bucket{kind=\"a\",le=\"0.001\"} 2\n\
             x_seconds_bucket{kind=\"a\",le=\"0.01\"} 4\n\
             x_seconds_bucket{kind=\"a\",le=\"+Inf\"} 5\n\
             x_seconds_sum{kind=\"a\"} 0.024\n\
             x_seconds_count{kind=\"a\"} 5\n"
        );
        assert_eq!(histogram.count(), 5);
    }
}
