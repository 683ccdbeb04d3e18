//! The plan of a run: everything that is decided before it begins, as data.
//!
//! A seed draws a plan ([`Plan::draw`], [`draw`]); the world plays it ([`crate::world::run`]); a failing one is made
//! smaller ([`shrink`]); all of it is JSON, so a failure travels as a file. The same plan is the same run, for ever: what
//! the world draws while it runs comes from sub-streams of [`Plan::seed`].
//!
//! Times in a plan are milliseconds since its beginning. Numbers of users and processes are taken modulo what there is,
//! so that a plan with fewer of them is still a plan.

pub mod bound;
pub mod draw;
pub mod fault;
mod later;
mod push;
pub mod shrink;

use kalends_core::id::SourceName;
use kalends_core::policy::backoff::Backoff;
use kalends_core::policy::jitter::Jitter;
use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::policy::spread::Spread;
use kalends_core::push::PushSettings;
use kalends_core::queue::state::SourceSettings;
use kalends_core::sync::SyncSettings;
use kalends_core::time::{HOUR_MS, MINUTE_MS, Timestamp};
use serde::{Deserialize, Serialize};

use crate::legacy::Service;

pub use fault::{Family, Fault, FaultKind, Mishap, OutageKind};

/// The version of this format; a plan of another one is refused.
pub const PLAN_VERSION: u32 = 1;
/// The most processes.
pub const PROCESSES_MAX: u32 = 64;
/// The most users.
pub const USERS_MAX: u32 = 1_000_000;
/// The most calendars of one user.
pub const CALENDARS_MAX: u32 = 20;
/// The most faults.
pub const FAULTS_MAX: usize = 10_000;
/// 2026-11-02, a Monday, at midnight UTC: when plans begin unless they are about a change of clocks.
pub const START: Timestamp = Timestamp::from_ms(1_793_577_600_000);

/// How much of everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Processes of the fleet, at most [`PROCESSES_MAX`].
    pub processes: u32,
    /// Users, at most [`USERS_MAX`].
    pub users: u32,
    /// Events in each calendar at the start.
    pub events_per_calendar: u32,
    /// Calendars of each user, at most [`CALENDARS_MAX`]. With more than one, all that can be read are kept.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub calendars_per_user: u32,
    /// How long faults and load last, in milliseconds; then the world heals and must converge.
    pub duration_ms: u64,
    /// The true time at the start.
    pub start: Timestamp,
}

/// What the fleet is told: the settings of production.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// When users are synced.
    pub schedule: ScheduleDefinition,
    /// Limits and retention.
    pub source: SourceSettings,
    /// Sync jobs at a time in one process.
    pub concurrency: u32,
    /// How long a lease lasts, in milliseconds.
    pub lease_ms: u64,
    /// Random delay of scheduled jobs, at most so long, in milliseconds.
    pub jitter_ms: u64,
    /// How a fan-out lays out its users.
    pub spread: Spread,
    /// Retries.
    pub backoff: Backoff,
    /// The poll behind the wake-ups, in milliseconds.
    pub poll_ms: u64,
    /// Events on a page.
    pub page_size: u32,
    /// Full resyncs of a calendar a day.
    pub resyncs_a_day_max: u32,
    /// How calendars are watched by push channels; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<PushSettings>,
    /// A process that comes back has the name that it had before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub same_names: bool,
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(set: &bool) -> bool {
    !set
}

fn one() -> u32 {
    1
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(number: &u32) -> bool {
    *number == 1
}

impl Default for Policy {
    /// The defaults of production.
    fn default() -> Self {
        Policy {
            schedule: schedule("*/15 * * * *", "UTC"),
            source: SourceSettings::default(),
            concurrency: 3,
            lease_ms: 30_000,
            jitter_ms: Jitter::default().max_ms,
            spread: Spread::default(),
            backoff: Backoff::default(),
            poll_ms: 5_000,
            page_size: SyncSettings::default().page_size,
            resyncs_a_day_max: SyncSettings::default().resyncs_a_day_max,
            push: None,
            same_names: false,
        }
    }
}

/// A schedule of the one source.
///
/// # Panics
/// If the pattern or the zone is none.
#[must_use]
pub fn schedule(cron: &str, time_zone: &str) -> ScheduleDefinition {
    ScheduleDefinition {
        source: SourceName::google_calendar(),
        cron: cron.parse().expect("a cron expression of five fields"),
        time_zone: time_zone.parse().expect("an IANA time zone"),
        catch_up: "once".parse().expect("a way to catch up"),
    }
}

/// How long things take, in milliseconds, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The least.
    pub min_ms: u32,
    /// The most.
    pub max_ms: u32,
}

impl Span {
    /// From `min_ms` to `max_ms`.
    #[must_use]
    pub const fn new(min_ms: u32, max_ms: u32) -> Self {
        Span { min_ms, max_ms }
    }
}

/// What the world is like when nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Climate {
    /// One way to or from the store.
    pub store: Span,
    /// A request to Google, there and back.
    pub google: Span,
    /// A graph write, there and back.
    pub graph: Span,
    /// Changes that people make in all calendars together, a day.
    pub changes_a_day: u32,
    /// Google's own quota, a minute for one user and for the project; `None`: it keeps none.
    pub google_quota: Option<(u32, u32)>,
}

impl Default for Climate {
    fn default() -> Self {
        Climate {
            store: Span::new(1, 3),
            google: Span::new(60, 300),
            graph: Span::new(4, 30),
            changes_a_day: 400,
            google_quota: None,
        }
    }
}

/// All that decides a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// What the world draws from while it runs.
    pub seed: u64,
    /// How much of everything.
    pub size: Size,
    /// Which service runs in the processes.
    #[serde(default, skip_serializing_if = "Service::is_kalends")]
    pub service: Service,
    /// What the fleet is told.
    pub policy: Policy,
    /// What the world is like when nothing is wrong.
    pub climate: Climate,
    /// What goes wrong, and what people do; by when it begins.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// A day in which nothing goes wrong: 3 processes, 100 users, the policies of production.
    #[must_use]
    pub fn quiet(seed: u64) -> Self {
        Plan {
            version: PLAN_VERSION,
            seed,
            size: Size {
                processes: 3,
                users: 100,
                events_per_calendar: 4,
                calendars_per_user: 1,
                duration_ms: 24 * HOUR_MS,
                start: START,
            },
            service: Service::Kalends,
            policy: Policy::default(),
            climate: Climate::default(),
            faults: Vec::new(),
        }
    }

    /// This plan with one more fault, `at_minute` minutes after the start, for `minutes` minutes.
    #[must_use]
    pub fn with(mut self, at_minute: u64, minutes: u64, kind: FaultKind) -> Self {
        self.faults.push(Fault {
            at_ms: at_minute * MINUTE_MS,
            lasting_ms: minutes * MINUTE_MS,
            kind,
        });
        self.faults.sort_by_key(|fault| fault.at_ms);
        self
    }

    /// Reads a plan from JSON.
    ///
    /// # Errors
    /// In words: what of it is no plan.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let plan: Plan = serde_json::from_str(text).map_err(|error| error.to_string())?;
        plan.check()?;
        Ok(plan)
    }

    /// The plan as JSON, for people.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data always becomes JSON")
    }

    /// Whether this can be played.
    ///
    /// # Errors
    /// In words: what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let size = &self.size;
        if self.version != PLAN_VERSION {
            let version = self.version;
            return Err(format!(
                "the plan has version {version}; this program plays {PLAN_VERSION}"
            ));
        }
        if size.processes == 0 || size.processes > PROCESSES_MAX {
            return Err(format!(
                "size.processes is {}; give 1 to {PROCESSES_MAX}",
                size.processes
            ));
        }
        if size.users == 0 || size.users > USERS_MAX {
            return Err(format!(
                "size.users is {}; give 1 to {USERS_MAX}",
                size.users
            ));
        }
        if size.calendars_per_user == 0 || size.calendars_per_user > CALENDARS_MAX {
            return Err(format!(
                "size.calendars_per_user is {}; give 1 to {CALENDARS_MAX}",
                size.calendars_per_user
            ));
        }
        let source = &self.policy.source;
        for limit in [
            &source.jobs,
            &source.requests_project,
            &source.requests_user,
        ] {
            if let Some(Err(error)) = limit.as_ref().map(Limit::validate) {
                return Err(format!("a limit that the store refuses: {error}"));
            }
        }
        if self.faults.len() > FAULTS_MAX {
            return Err(format!("more than {FAULTS_MAX} faults"));
        }
        let late = self
            .faults
            .iter()
            .find(|fault| fault.at_ms.saturating_add(fault.lasting_ms) > size.duration_ms);
        if let Some(fault) = late {
            return Err(format!(
                "a fault begins at {} ms and lasts {} ms, beyond the duration of {} ms: {:?}",
                fault.at_ms, fault.lasting_ms, size.duration_ms, fault.kind
            ));
        }
        Ok(())
    }
}
