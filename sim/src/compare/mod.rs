//! Kalends beside the service that it replaces: the same days, in the same world, under the same limit.
//!
//! A comparison is a list of plans and what came of them. Playing is the caller's ([`compare`] is given how), so the
//! program can use threads and this stays pure.
//!
//! Three sides play each size: the replaced service ([`crate::legacy`]), Kalends under that service's own limit of 10 jobs
//! a minute, and Kalends under the limit that its own overload message advises. What the replaced service's column must
//! come near is in [`crate::legacy::figures`].

pub mod text;

use kalends_core::policy::limit::Limit;
use kalends_core::policy::overload::overload;
use kalends_core::time::{HOUR_MS, MINUTE_MS};
use serde::Serialize;

use crate::legacy::figures::{FAILURES_PPM, LOST_A_DAY, LOST_AFTER_429, LOST_OF, LOST_SEVEN_DAYS};
use crate::legacy::{PERIOD_MS, Service};
use crate::plan::{FaultKind, Mishap, Plan};
use crate::report::Report;

/// The sizes compared unless others are asked for.
pub const USERS_DEFAULT: [u32; 5] = [20, 100, 500, 1_000, 3_000];
/// The most sizes in one comparison.
pub const SIZES_MAX: usize = 20;
/// The most users in one comparison: the replaced service's plan is days behind long before.
pub const USERS_MAX: u32 = 20_000;
/// The longest day compared, in hours.
pub const HOURS_MAX: u64 = 7 * 24;
/// The seed unless another is asked for.
pub const SEED_DEFAULT: u64 = 2;
/// When incidents begin, in minutes after the start: at a tick at which the replaced service syncs somebody.
const INCIDENT_AT_MIN: u64 = 6 * 60;
/// How long Google answers 429, in minutes.
const REFUSED_MIN: u64 = 10;
/// How long a process that is stopped has, in milliseconds.
const STOP_DEADLINE_MS: u64 = 25_000;

/// What came of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// What invariant was broken, if one was.
    pub failed: Option<String>,
    /// Fan-outs that ran.
    pub fan_outs: u64,
    /// Ticks there were.
    pub ticks: u64,
    /// The median of the gaps between two syncs of one user, in minutes; `None` without two syncs of anybody.
    pub gap_p50_min: Option<usize>,
    /// 95 % of those gaps are at most so long, in minutes.
    pub gap_p95_min: Option<usize>,
    /// Jobs of fan-outs whose user already had one waiting, in percent.
    pub duplicates_percent: u64,
    /// Users who are not synced any more at the end.
    pub lost: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
}

impl Outcome {
    fn of(plan: &Plan, report: &Report) -> Self {
        let tally = &report.tally;
        let some = tally.gaps_by_minute.iter().any(|count| *count > 0);
        let failed = report.failed.as_ref();
        Outcome {
            failed: failed.map(|failed| failed.violation.invariant.name().to_owned()),
            fan_outs: tally.fan_outs,
            ticks: plan.size.duration_ms / PERIOD_MS,
            gap_p50_min: some.then(|| tally.gap_percentile(50)),
            gap_p95_min: some.then(|| tally.gap_percentile(95)),
            duplicates_percent: tally.duplicates_percent(),
            lost: tally.lost,
            syncs: tally.syncs,
        }
    }
}

/// One size: a day in which nothing goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeRow {
    /// Users.
    pub users: u32,
    /// The replaced service.
    pub legacy: Outcome,
    /// Kalends, 10 jobs a minute.
    pub kalends: Outcome,
    /// Kalends, under the limit that it advises.
    pub raised: Outcome,
    /// That limit, in jobs a minute.
    pub raised_limit: u32,
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncidentRow {
    /// What happens.
    pub what: &'static str,
    /// Users.
    pub users: u32,
    /// Users lost by the replaced service, as published; `None`: nothing was.
    pub published_lost: Option<u64>,
    /// The replaced service.
    pub legacy: Outcome,
    /// Kalends, 10 jobs a minute.
    pub kalends: Outcome,
}

/// The whole comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The seed of all its runs.
    pub seed: u64,
    /// The length of the days without incidents, in hours.
    pub hours: u64,
    /// Days in which nothing goes wrong, by size.
    pub sizes: Vec<SizeRow>,
    /// Incidents.
    pub incidents: Vec<IncidentRow>,
}

impl Comparison {
    /// Whether Kalends broke no invariant and lost nobody.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let sizes = self
            .sizes
            .iter()
            .flat_map(|row| [&row.kalends, &row.raised]);
        let incidents = self.incidents.iter().map(|row| &row.kalends);
        sizes
            .chain(incidents)
            .all(|outcome| outcome.failed.is_none() && outcome.lost == 0)
    }
}

/// An incident: what it is called, how many users were lost, and its plan for a seed.
struct Incident {
    what: &'static str,
    published_lost: Option<u64>,
    plan: fn(u64) -> Plan,
}

const INCIDENTS: [Incident; 4] = [
    Incident {
        what: "Each sync fails with 0.5 %, 24 hours",
        published_lost: Some(LOST_A_DAY),
        plan: |seed| failing(seed, 24),
    },
    Incident {
        what: "Each sync fails with 0.5 %, 7 days",
        published_lost: Some(LOST_SEVEN_DAYS),
        plan: |seed| failing(seed, 7 * 24),
    },
    Incident {
        what: "Google answers 429 for 10 minutes",
        published_lost: Some(LOST_AFTER_429),
        plan: |seed| {
            let refused = FaultKind::GoogleLimited {
                status: 429,
                reason: "rateLimitExceeded".to_owned(),
                retry_after_s: None,
                as_date: false,
            };
            day(seed, LOST_OF, 24).with(INCIDENT_AT_MIN, REFUSED_MIN, refused)
        },
    },
    Incident {
        what: "SIGTERM for one of three processes",
        published_lost: None,
        plan: |seed| {
            let mut plan = day(seed, LOST_OF, 24);
            plan.size.processes = 3;
            let stopped = FaultKind::Terminate {
                process: 1,
                deadline_ms: STOP_DEADLINE_MS,
            };
            plan.with(INCIDENT_AT_MIN, 24 * 60 - INCIDENT_AT_MIN, stopped)
        },
    },
];

/// A day of one process in which nothing goes wrong.
///
/// # Panics
/// Beyond [`USERS_MAX`] or [`HOURS_MAX`].
#[must_use]
pub fn day(seed: u64, users: u32, hours: u64) -> Plan {
    assert!(users <= USERS_MAX && hours <= HOURS_MAX, "a bounded plan");
    let mut plan = Plan::quiet(seed);
    plan.size.processes = 1;
    plan.size.users = users;
    plan.size.duration_ms = hours * HOUR_MS;
    plan
}

/// 100 users whose syncs fail now and then.
#[must_use]
pub fn failing(seed: u64, hours: u64) -> Plan {
    let fails = FaultKind::GoogleMishap {
        mishap: Mishap::BackendError,
        ppm: FAILURES_PPM,
    };
    day(seed, LOST_OF, hours).with(0, hours * HOUR_MS / MINUTE_MS, fails)
}

/// The same plan, played by the replaced service.
#[must_use]
pub fn by_legacy(mut plan: Plan) -> Plan {
    plan.service = Service::Legacy;
    plan
}

/// The same plan under the limit that Kalends advises to somebody who has too many users, and that limit.
#[must_use]
pub fn with_advised_limit(mut plan: Plan) -> (Plan, u32) {
    let limit = plan.policy.source.jobs.unwrap_or_default();
    let advice = overload(u64::from(plan.size.users), PERIOD_MS, Some(&limit));
    let count = advice.map_or(u64::from(limit.count), |overload| {
        overload.starts_per_minute_enough()
    });
    let count = u32::try_from(count).expect("few users");
    let window_ms = MINUTE_MS;
    plan.policy.source.jobs = Some(Limit { count, window_ms });
    (plan, count)
}

/// Compares days with so many users, and the incidents. `play` plays plans and gives their reports, in the same order.
///
/// # Panics
/// If `play` gives another number of reports, or beyond [`SIZES_MAX`], [`USERS_MAX`] or [`HOURS_MAX`].
pub fn compare(
    users: &[u32],
    hours: u64,
    seed: u64,
    play: impl FnOnce(&[Plan]) -> Vec<Report>,
) -> Comparison {
    assert!(users.len() <= SIZES_MAX, "few sizes");
    let mut plans = Vec::new();
    let mut limits = Vec::new();
    for users in users {
        let plan = day(seed, *users, hours);
        let (raised, limit) = with_advised_limit(plan.clone());
        limits.push(limit);
        plans.extend([by_legacy(plan.clone()), plan, raised]);
    }
    for incident in &INCIDENTS {
        let plan = (incident.plan)(seed);
        plans.extend([by_legacy(plan.clone()), plan]);
    }
    let reports = play(&plans);
    assert_eq!(reports.len(), plans.len(), "a report for each plan");
    let mut outcomes = plans
        .iter()
        .zip(&reports)
        .map(|(plan, report)| Outcome::of(plan, report));
    let mut next = || outcomes.next().expect("as many as plans");
    let sizes = users
        .iter()
        .zip(limits)
        .map(|(users, raised_limit)| SizeRow {
            users: *users,
            legacy: next(),
            kalends: next(),
            raised: next(),
            raised_limit,
        });
    let sizes = sizes.collect();
    let incidents = INCIDENTS.iter().map(|incident| IncidentRow {
        what: incident.what,
        users: LOST_OF,
        published_lost: incident.published_lost,
        legacy: next(),
        kalends: next(),
    });
    Comparison {
        seed,
        hours,
        sizes,
        incidents: incidents.collect(),
    }
}
