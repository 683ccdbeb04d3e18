//! An onlooker that writes down what the page shows: requests a second at Google, and how old each user's graph is.
//!
//! A user is fresh as of an answer of Google that ended a pass, as soon as what it held is in the graph. That is seen from
//! outside, so it is the same measure for Kalends and for the service that it replaces.

use kalends_core::google::page::{FetchReply, PageEnd};
use kalends_core::graph::GraphReply;
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};

use crate::invariants::user_number;
use crate::plan::Plan;
use crate::world::trace::{Moment, Tracer};

/// From one look at everybody's age to the next, in milliseconds.
pub const SAMPLE_MS: u64 = 2 * MINUTE_MS;
/// From this age on, a user counts as old, in minutes.
pub const OLD_MIN: u64 = 60;

/// How old the users' graphs were at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Minutes since the start.
    pub at_min: u64,
    /// Half of the users are at most so old, in minutes.
    pub p50_min: u64,
    /// 95 % of the users are at most so old, in minutes.
    pub p95_min: u64,
    /// The oldest, in minutes.
    pub oldest_min: u64,
    /// Users older than [`OLD_MIN`].
    pub old: u64,
}

/// What was seen of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    start: Timestamp,
    end: Timestamp,
    next_at: Timestamp,
    /// Since when the graph of each user is as it was then at Google.
    fresh_since: Vec<Timestamp>,
    /// What was read and is not written yet.
    read_at: Vec<Option<Timestamp>>,
    /// Requests that Google answered, in each second since the start.
    pub requests: Vec<u32>,
    /// How old everybody was, again and again.
    pub ages: Vec<Ages>,
}

impl Watch {
    /// Looks on for the time in which faults last.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let start = plan.size.start;
        let users = plan.size.users as usize;
        Watch {
            start,
            end: start.plus_ms(plan.size.duration_ms),
            next_at: start.plus_ms(SAMPLE_MS),
            fresh_since: vec![start; users],
            read_at: vec![None; users],
            requests: Vec::new(),
            ages: Vec::new(),
        }
    }

    /// The most requests in one second.
    #[must_use]
    pub fn peak(&self) -> u32 {
        self.requests.iter().copied().max().unwrap_or(0)
    }

    fn sample(&mut self, at: Timestamp) {
        let ages = self.fresh_since.iter().map(|since| at.since_ms(*since));
        let mut minutes: Vec<u64> = ages.map(|age_ms| age_ms / MINUTE_MS).collect();
        minutes.sort_unstable();
        let part = |percent: usize| minutes[(minutes.len() - 1) * percent / 100];
        self.ages.push(Ages {
            at_min: at.since_ms(self.start) / MINUTE_MS,
            p50_min: part(50),
            p95_min: part(95),
            oldest_min: part(100),
            old: minutes.iter().filter(|age| **age > OLD_MIN).count() as u64,
        });
    }
}

impl Tracer for Watch {
    fn moment(&mut self, at: Timestamp, moment: &Moment<'_>) {
        match moment {
            Moment::Fetched {
                request, result, ..
            } => {
                if at < self.end {
                    let second = usize::try_from(at.since_ms(self.start) / SECOND_MS);
                    let second = second.expect("a bounded run");
                    if self.requests.len() <= second {
                        self.requests.resize(second + 1, 0);
                    }
                    self.requests[second] += 1;
                }
                let user = user_number(request.user()).expect("a user of the emulator") as usize;
                if let Ok(FetchReply::Events(page)) = result
                    && matches!(page.end, PageEnd::Done { .. })
                {
                    if page.events.is_empty() {
                        self.fresh_since[user] = at;
                    } else {
                        self.read_at[user] = Some(at);
                    }
                }
            }
            Moment::Wrote { user, result, .. } => {
                let user = user_number(user).expect("a user of the emulator") as usize;
                if matches!(result, Ok(GraphReply::Written(_)))
                    && let Some(read_at) = self.read_at[user].take()
                {
                    self.fresh_since[user] = read_at;
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, _: u64, at: Timestamp, _: &'static str, _: u64) {
        while self.next_at <= at && self.next_at <= self.end {
            self.sample(self.next_at);
            self.next_at = self.next_at.plus_ms(SAMPLE_MS);
        }
    }
}
