//! Sometimes-marks: places that a batch of runs must reach, or it proves less than it seems to.
//!
//! A run marks what it met; a batch adds up. A name that no run of a large batch met means that a family of faults has
//! lost its bite, or that the plan's draw has: the batch fails and shows the table.
//!
//! To add one: a line in [`NAMES`], and [`Marks::mark`] where it happens. A name that is not in the list panics.

/// Every mark, with the sentence that it stands for.
pub const NAMES: [(&str, &str); MARKS] = [
    ("process-crashed", "a process was killed"),
    (
        "process-crashed-with-leases",
        "a process was killed while it held leases",
    ),
    ("process-paused", "a process was stopped for a while"),
    (
        "process-paused-past-lease",
        "a process slept longer than its lease and woke",
    ),
    ("process-terminated", "a process was told to stop"),
    ("shutdown-idle", "a process that held nothing stopped"),
    (
        "shutdown-handed-back",
        "a process handed jobs back when it stopped",
    ),
    (
        "shutdown-store-away",
        "a process stopped while the store was away",
    ),
    ("deploy", "one process after the other was replaced"),
    (
        "deploy-new-schedule",
        "a new release brought another schedule",
    ),
    ("poison-user-killed", "a process died of one user's job"),
    ("message-lost", "a message was lost"),
    ("message-doubled", "a command arrived twice"),
    ("wake-lost", "a call that work is due was lost"),
    ("partition-store", "a process was cut off from the store"),
    ("partition-google", "a process was cut off from Google"),
    ("partition-graph", "a process was cut off from the graph"),
    ("store-refused", "the store refused connections"),
    ("store-silent", "the store took a command and said nothing"),
    ("store-back", "a process found the store again"),
    ("reply-lost", "a command was applied and its reply was lost"),
    (
        "end-told-twice",
        "a job's end was sent again and heard that it was done",
    ),
    (
        "lease-given-again",
        "a claim whose reply was lost was given its leases again",
    ),
    ("lease-expired", "a lease ran out and its job went back"),
    ("lease-lost", "a worker heard that its lease was lost"),
    (
        "commit-refused",
        "a worker that had lost its lease was refused",
    ),
    (
        "job-buried",
        "a job was given up because its lease ran out too often",
    ),
    (
        "failover-lost-writes",
        "a failover lost acknowledged writes",
    ),
    ("store-clock-forward", "the store's clock stepped forward"),
    ("store-clock-back", "the store's clock stepped back"),
    (
        "store-clock-back-far",
        "the store's clock stepped back by more than a quarter of an hour",
    ),
    ("google-refused", "Google was away"),
    (
        "google-limited-source",
        "Google told the whole source to slow down",
    ),
    ("google-limited-user", "Google told one user to slow down"),
    ("google-retry-after", "Google said for how long"),
    (
        "stopped-asking",
        "a process gave a job back because another one had been told to slow down",
    ),
    (
        "google-unauthorized",
        "a 401 was cured by a new token, or not",
    ),
    (
        "user-parked",
        "a user was parked because the grant was gone",
    ),
    ("user-unparked", "a parked user came back"),
    (
        "token-gone",
        "a sync token was refused, and a full pass followed",
    ),
    (
        "all-tokens-gone",
        "all sync tokens became worthless at once",
    ),
    ("full-pass-many-pages", "a full pass had several pages"),
    (
        "pass-resumed",
        "a pass went on where a lost lease had left it",
    ),
    ("body-cut", "an answer was cut off"),
    ("body-malformed", "an answer was no JSON"),
    ("page-empty", "a page was empty and not the last"),
    ("token-withheld", "the last page had no sync token"),
    ("event-written", "an event was written"),
    ("event-deleted", "an event was deleted"),
    ("graph-fenced", "the graph refused a write of an old lease"),
    ("graph-transient", "a graph write failed for the moment"),
    (
        "graph-reply-lost",
        "a graph write was made and its answer was lost",
    ),
    ("graph-rejected", "the graph refused a user's data"),
    ("graph-misconfigured", "the graph's password was wrong"),
    ("effect-timed-out", "an effect did not end in time"),
    ("job-retried", "an attempt failed and was tried again"),
    ("job-failed", "a job was given up"),
    ("ticks-missed", "ticks were skipped and counted"),
    ("tick-already-fired", "two processes told the same tick"),
    ("clock-corrected", "a process found its clock off"),
    ("clock-drifted", "a clock drifted"),
    ("clock-stepped", "a process's clock stepped forward"),
    ("clock-frozen", "a process's clock stood still"),
    ("change-of-clocks", "the schedule's zone changed its clocks"),
    ("limit-lowered", "the limit was lowered"),
    ("limit-raised", "the limit was raised"),
    ("source-paused", "the source was paused"),
    ("schedule-changed", "the schedule was changed in flight"),
    (
        "overloaded",
        "more users were due than the limit lets through",
    ),
    ("enrol-wave", "many users were enrolled at once"),
    ("flood", "one user asked for sync after sync"),
    ("job-coalesced", "a wish coalesced into an outstanding job"),
    ("sync-all", "everybody asked for a sync at once"),
    ("huge-calendar", "a calendar grew by hundreds of events"),
    ("dead-letters-retried", "dead letters were tried again"),
    ("store-emptied", "everything in the store was gone"),
    (
        "store-found-empty",
        "a process found the store empty and defined everything anew",
    ),
    (
        "event-poisoned",
        "the graph refused a batch for one event in it",
    ),
    ("event-unreadable", "a page held an item that is no event"),
    ("event-quarantined", "a sync set an event aside and went on"),
    ("many-calendars", "users had several calendars"),
    (
        "calendar-unshared",
        "a calendar was not shared with its user any more",
    ),
    ("calendar-shared-again", "a calendar came back"),
    (
        "request-held-back",
        "a job under way asked leave for a request and had to wait",
    ),
    (
        "asks-again-after-pause",
        "a process asked Google again after it was told to slow down",
    ),
];

/// How many there are.
pub const MARKS: usize = 85;

/// The marks of plans that watch calendars, which a batch of standard seeds never meets.
pub const PUSH_NAMES: [(&str, &str); PUSH_MARKS] = [
    ("push-accepted", "a webhook believed a notification"),
    ("push-forged", "a webhook refused a forged notification"),
    (
        "push-not-now",
        "a webhook told a notification to come again",
    ),
    (
        "push-came-again",
        "a notification that came again was believed",
    ),
    ("push-nobody-there", "a notification found no process"),
    ("push-given-up", "Google gave a notification up"),
    ("push-late", "a notification was late"),
    ("push-doubled", "a notification came twice"),
    ("push-dropped", "a notification was lost"),
    ("channel-told", "Google told that a channel is there"),
    ("channel-renewed", "a channel was replaced while it lived"),
    ("channel-ended", "a channel ended before it was replaced"),
    ("channel-refused", "a channel was asked for and not made"),
    (
        "channel-answer-lost",
        "a channel was made and the answer was lost",
    ),
    (
        "orphan-stopped",
        "a webhook stopped a channel that nobody had any more",
    ),
    ("watched-polled", "a user who is watched was polled slowly"),
];

/// How many of them there are.
pub const PUSH_MARKS: usize = 16;

fn place_of(name: &str) -> Option<usize> {
    let mut names = NAMES.iter().chain(&PUSH_NAMES);
    names.position(|(known, _)| *known == name)
}

/// How often each mark was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    counts: Vec<u64>,
}

impl Default for Marks {
    fn default() -> Self {
        Marks {
            counts: vec![0; MARKS + PUSH_MARKS],
        }
    }
}

impl Marks {
    /// This was met.
    ///
    /// # Panics
    /// If `name` is not in [`NAMES`].
    pub fn mark(&mut self, name: &str) {
        let place = place_of(name).unwrap_or_else(|| panic!("no mark is called {name}"));
        self.counts[place] += 1;
    }

    /// This was met, if `met` says so.
    ///
    /// # Panics
    /// As [`Marks::mark`].
    pub fn mark_if(&mut self, met: bool, name: &str) {
        if met {
            self.mark(name);
        }
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Marks) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// How often a mark was met.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        place_of(name).map_or(0, |place| self.counts[place])
    }

    /// Each name with its sentence and its count, `with_push` those of push as well.
    pub fn table(
        &self,
        with_push: bool,
    ) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        let names = NAMES
            .iter()
            .chain(PUSH_NAMES.iter().filter(move |_| with_push));
        let counted = names.zip(&self.counts);
        counted.map(|((name, sentence), count)| (*name, *sentence, *count))
    }

    /// The names that were never met, of those in the table.
    #[must_use]
    pub fn missing(&self, with_push: bool) -> Vec<&'static str> {
        let table = self.table(with_push).filter(|(_, _, count)| *count == 0);
        table.map(|(name, _, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_count_and_add_up_and_names_are_unique() {
        let mut marks = Marks::default();
        marks.mark("flood");
        let mut sum = marks.clone();
        sum.add(&marks);
        assert_eq!(sum.count("flood"), 2);
        assert_eq!(sum.missing(false).len(), MARKS - 1);
        assert_eq!(sum.missing(true).len(), MARKS - 1 + PUSH_MARKS);
        for (place, (name, _)) in NAMES.iter().chain(&PUSH_NAMES).enumerate() {
            assert_eq!(place_of(name), Some(place), "{name} twice");
        }
        sum.mark("push-late");
        assert_eq!(sum.missing(true).len(), MARKS - 1 + PUSH_MARKS - 1);
    }
}
