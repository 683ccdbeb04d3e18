//! Counts by label: few labels, each with few values, whatever the fleet looks like.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::text::Text;

/// The most values of one label. More (schedules, say) are counted together as [`OTHERS`].
pub(super) const VALUES_MAX: usize = 100;
/// The value of a label that stands for all that came after the first [`VALUES_MAX`].
pub(super) const OTHERS: &str = "others";

/// One metric with one label.
#[derive(Debug)]
pub(super) struct Counters {
    label: &'static str,
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Counters {
    /// Counts by `label`; the `known` values are shown with 0 from the start, so that a rate sees the first one.
    pub(super) fn new(label: &'static str, known: &[&str]) -> Self {
        let known = known.iter().map(|value| ((*value).to_owned(), 0));
        Counters {
            label,
            counts: Mutex::new(known.collect()),
        }
    }

    pub(super) fn add(&self, value: &str, count: u64) {
        let mut counts = self.lock();
        let is_welcome = counts.contains_key(value) || counts.len() < VALUES_MAX;
        let value = if is_welcome { value } else { OTHERS };
        match counts.get_mut(value) {
            Some(counted) => *counted += count,
            None => {
                counts.insert(value.to_owned(), count);
            }
        }
    }

    pub(super) fn write(&self, text: &mut Text, name: &str, help: &str) {
        text.metric(name, "counter", help);
        for (value, count) in &*self.lock() {
            text.sample(name, &[(self.label, value)], count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded() {
        let counters = Counters::new("schedule", &["known"]);
        for number in 0..1_000 {
            counters.add(&format!("schedule-{number:04}"), 1);
        }
        counters.add("known", 1);
        let mut text = Text::default();
        counters.write(&mut text, "x_total", "What.");
        let text = text.finish();
        assert_eq!(text.lines().count(), 2 + VALUES_MAX + 1, "{text}");
        assert!(
            text.contains("x_total{schedule=\"others\"} 901\n"),
            "{text}"
        );
        assert!(text.contains("x_total{schedule=\"known\"} 1\n"), "{text}");
    }
}
