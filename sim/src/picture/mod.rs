//! One page that shows what the simulator saw: self-contained HTML with plots, made of runs and nothing else.
//!
//! What it needs is played by the caller, so that the program can use threads: the plans of [`Scenes`], the comparison
//! ([`crate::compare`]), and a batch of drawn plans for the table of marks. [`page::render`] makes the page of the
//! [`Facts`]. The same seed is the same page, byte by byte.
//!
//! | file | what it holds |
//! |---|---|
//! | [`mod@watch`] | the onlooker that counts requests and ages |
//! | [`plot`] | numbers into SVG |
//! | [`page`] | facts into HTML; `page.css` is its style, light and dark |
//! | [`escape`](mod@escape) | text that stays text |

pub mod escape;
pub mod page;
pub mod plot;
pub mod watch;

use kalends_core::policy::spread::Spread;
use kalends_core::time::{HOUR_MS, MINUTE_MS};

use crate::compare::{Comparison, by_legacy};
use crate::marks::Marks;
use crate::plan::{FaultKind, OutageKind, Plan};
use crate::report::Report;
use crate::world::run_with;
use watch::Watch;

/// Users of the herd.
pub const HERD_USERS: u32 = 2_000;
/// When the herd's store goes away, and when it comes back, in minutes after the start.
pub const HERD_OUTAGE_MIN: (u64, u64) = (60, 120);
/// How long the herd is looked at, in hours.
const HERD_HOURS: u64 = 3;
/// Sync jobs at a time in each of the herd's processes.
const HERD_CONCURRENCY: u32 = 100;
/// Users of the day with outages.
pub const DAY_USERS: u32 = 100;

/// The plans that are watched.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenes {
    /// Everybody is due at once after an outage; no spread, no jitter, no limit.
    pub together: Plan,
    /// The same, laid out evenly over the period.
    pub spread: Plan,
    /// A day with four outages.
    pub day: Plan,
    /// The same day with the replaced service.
    pub legacy_day: Plan,
}

impl Scenes {
    /// For a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let how = OutageKind::Refusing;
        let mut spread = Plan::quiet(seed);
        spread.size.users = HERD_USERS;
        spread.size.events_per_calendar = 1;
        spread.size.duration_ms = HERD_HOURS * HOUR_MS;
        spread.policy.concurrency = HERD_CONCURRENCY;
        spread.policy.source.jobs = None;
        let (away, back) = HERD_OUTAGE_MIN;
        let spread = spread.with(away, back - away, FaultKind::StoreOutage { how });
        let mut together = spread.clone();
        together.policy.spread = Spread::Stagger { step_ms: 0 };
        together.policy.jitter_ms = 0;
        let refused = FaultKind::GoogleLimited {
            status: 429,
            reason: "rateLimitExceeded".to_owned(),
            retry_after_s: None,
            as_date: false,
        };
        let mut day = Plan::quiet(seed);
        day.size.users = DAY_USERS;
        let day = day
            .with(4 * 60, 60, FaultKind::GoogleOutage { how })
            .with(10 * 60, 60, FaultKind::StoreOutage { how })
            .with(16 * 60, 60, FaultKind::GraphOutage { how })
            .with(21 * 60, 10, refused);
        Scenes {
            together,
            spread,
            legacy_day: by_legacy(day.clone()),
            day,
        }
    }

    /// All of them, in the order of [`Watched`].
    #[must_use]
    pub fn plans(&self) -> [&Plan; 4] {
        [&self.together, &self.spread, &self.day, &self.legacy_day]
    }
}

/// Plays a plan and watches.
#[must_use]
pub fn watch(plan: &Plan) -> (Watch, Report) {
    let mut watch = Watch::new(plan);
    let report = run_with(plan, &mut watch);
    (watch, report)
}

/// What was seen of the scenes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Of [`Scenes::together`].
    pub together: Watch,
    /// Of [`Scenes::spread`].
    pub spread: Watch,
    /// Of [`Scenes::day`].
    pub day: Watch,
    /// Of [`Scenes::legacy_day`].
    pub legacy_day: Watch,
}

/// A stretch of time in which something is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// From here, in minutes after the start.
    pub from_min: u64,
    /// To here.
    pub to_min: u64,
    /// What it is.
    pub label: String,
}

/// The outages of a plan, for a plot.
#[must_use]
pub fn outages(plan: &Plan) -> Vec<Outage> {
    let label = |kind: &FaultKind| match kind {
        FaultKind::GoogleOutage { .. } => "Google away".to_owned(),
        FaultKind::StoreOutage { .. } => "Redis away".to_owned(),
        FaultKind::GraphOutage { .. } => "Neo4j away".to_owned(),
        FaultKind::GoogleLimited { status, .. } => format!("Google: {status}"),
        other => other.family().name().to_owned(),
    };
    let faults = plan.faults.iter();
    faults
        .map(|fault| Outage {
            from_min: fault.at_ms / MINUTE_MS,
            to_min: (fault.at_ms + fault.lasting_ms) / MINUTE_MS,
            label: label(&fault.kind),
        })
        .collect()
}

/// All that a page is made of.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The seed of its runs.
    pub seed: u64,
    /// The version of the program.
    pub version: String,
    /// What was seen.
    pub watched: Watched,
    /// The outages of the day.
    pub outages: Vec<Outage>,
    /// Kalends beside the service that it replaces.
    pub comparison: Comparison,
    /// What a batch of drawn plans met.
    pub marks: Marks,
    /// How many plans that were.
    pub marks_plans: u64,
    /// Failures in all runs of Kalends, in words: what a page that shows them must not hide.
    pub failures: Vec<String>,
}
