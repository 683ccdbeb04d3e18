//! Which keys there are. All of them begin with `{prefix}:`, and the braces make Redis Cluster keep them in one slot, so
//! that a script may touch them together.
//!
//! | key | what it is |
//! |---|---|
//! | `format` | text: the version of this layout |
//! | `meta` | text: last token and number, totals, latest time |
//! | `sources` | hash by name: settings, pause, gate |
//! | `schedules` | hash by name: definition, revision, last tick |
//! | `leases` | sorted set by when a lease expires, of all active jobs |
//! | `workers` | hash by worker: the tokens that it holds |
//! | `never-synced` | hash by source: users without a success |
//! | `fan-outs`, `fan-out-progress` | hashes by schedule: the row of its fan-out; how far it came |
//! | `fan-out-lane` | sorted set: fan-outs by when they are ready |
//! | `fan-outs-completed`, `fan-outs-failed` | list and sorted set: history |
//! | `users:S`, `cursors:S` | hashes by user: the user with the job; how far the sync came |
//! | `lane:S`, `lane-now:S` | sorted sets: jobs that wait, by when they are ready |
//! | `completed:S`, `failed:S` | list and sorted set: history |
//! | `names:S` | sorted set of users, by name |
//! | `due:S`, `success:S` | sorted sets of users that are not parked: by due time, by last success |
//! | `flow:S` | text: the windows of starts and requests, the ramp |
//! | `asked:S`, `asked-until:S` | hash and sorted set: the window of each user's requests, by when none counts |
//! | `held:S` | sorted set: jobs that wait for their user's requests |
//!
//! A job that waits has nothing of its own but an entry in a lane: its few facts stand in the user's row.

use std::sync::{Arc, Mutex, PoisonError};

use kalends_core::id::SourceName;

/// The keys that every script but those of who only enqueues ([`FEW`]) gets, in the order of `keys.lua`, with those of the fan-outs. The channel of the wake-ups
/// goes along: it is no key, but it is named alike.
const COMMON: [&str; 12] = [
    "meta",
    "sources",
    "schedules",
    "leases",
    "workers",
    "never-synced",
    "wake",
    "fan-outs",
    "fan-out-progress",
    "fan-out-lane",
    "fan-outs-completed",
    "fan-outs-failed",
];

/// The keys of a source, in the order of `keys.lua`.
const OF_SOURCE: [&str; 13] = [
    "users",
    "cursors",
    "lane",
    "completed",
    "failed",
    "names",
    "due",
    "success",
    "lane-now",
    "flow",
    "asked",
    "asked-until",
    "held",
];

/// The keys of who only enqueues, in the order of `few_keys.lua`: common ones, and those of the source.
const FEW: ([&str; 3], [&str; 3]) = (["meta", "sources", "wake"], ["users", "lane", "lane-now"]);

/// The keys of one fleet.
#[derive(Debug)]
pub(super) struct Layout {
    prefix: String,
    /// What was asked for last: nearly always it is asked for again.
    last: Mutex<Option<(Vec<SourceName>, Keys)>>,
    last_few: Mutex<Option<(SourceName, Keys)>>,
}

/// The keys of a script.
pub(super) type Keys = Arc<[String]>;

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Layout {
            prefix: prefix.to_owned(),
            last: Mutex::default(),
            last_few: Mutex::default(),
        }
    }

    /// The keys for a script that has to do with these sources, in this order.
    pub(super) fn keys(&self, sources: &[SourceName]) -> Keys {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, keys)) = &*last
            && before == sources
        {
            return Arc::clone(keys);
        }
        let keys = self.made(sources);
        *last = Some((sources.to_vec(), Arc::clone(&keys)));
        keys
    }

    /// The keys for a script that only enqueues in this source.
    pub(super) fn few_keys(&self, source: &SourceName) -> Keys {
        let mut last = self.last_few.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, keys)) = &*last
            && before == source
        {
            return Arc::clone(keys);
        }
        let (common, of_source) = FEW;
        let keys = self.named(&common, &of_source, std::slice::from_ref(source));
        *last = Some((source.clone(), Arc::clone(&keys)));
        keys
    }

    fn made(&self, sources: &[SourceName]) -> Keys {
        self.named(&COMMON, &OF_SOURCE, sources)
    }

    fn named(&self, common: &[&str], of_source: &[&str], sources: &[SourceName]) -> Keys {
        let prefix = &self.prefix;
        let common = common.iter().map(|kind| format!("{{{prefix}}}:{kind}"));
        let of_sources = sources.iter().flat_map(|source| {
            of_source
                .iter()
                .map(move |kind| format!("{{{prefix}}}:{kind}:{source}"))
        });
        common.chain(of_sources).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_script_share_one_hash_tag() {
        let layout = Layout::new("kalends-test");
        let source = SourceName::new("odd}{:name").unwrap();
        let keys = layout.keys(&[SourceName::google_calendar(), source]);
        assert_eq!(keys.len(), 12 + 2 * 13);
        assert!(keys.iter().all(|key| key.starts_with("{kalends-test}:")));
        assert_eq!(keys[12], "{kalends-test}:users:google-calendar");
        // Whoever asked for others before.
        let one = layout.keys(&[SourceName::google_calendar()]);
        assert_eq!(one[..], keys[..25]);
        assert_eq!(layout.keys(&[SourceName::google_calendar()]), one);
        let few = layout.few_keys(&SourceName::google_calendar());
        assert_eq!(few.len(), 6);
        assert!(few.iter().all(|key| one.contains(key)));
        assert_eq!(few[5], "{kalends-test}:lane-now:google-calendar");
    }
}
