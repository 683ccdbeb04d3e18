//! What can go wrong, and what people do meanwhile: one value each, with when it begins and how long it lasts.
//!
//! A rate is in parts per million (`ppm`) of the messages, requests or writes that it concerns. What a kind does to the
//! world stands in `world/weather.rs` (while it lasts) and `world/faults.rs` (when it begins and ends).

use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use serde::{Deserialize, Serialize};

/// One thing that happens to the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins, in milliseconds since the start.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds.
    pub lasting_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// How a service that is away behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageKind {
    /// It says so at once: connection refused, or an error page of a front end.
    Refusing,
    /// It takes everything and answers nothing.
    Silent,
    /// It breaks connections; what was asked is not done.
    Breaking,
}

/// What can be wrong with one answer of Google.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mishap {
    /// 500 `backendError`.
    BackendError,
    /// 503 with a page for people.
    Html,
    /// 429 `rateLimitExceeded`, without a hint how long.
    TooMany,
    /// 403 `rateLimitExceeded`, with `Retry-After` in seconds.
    RateLimit,
    /// 403 `userRateLimitExceeded`.
    UserRateLimit,
    /// 403 `quotaExceeded`: this user waits for hours.
    UserQuota,
    /// 401, although the token is good.
    Unauthorized,
    /// The access token ends in the middle of a job.
    AccessTokenExpires,
    /// 410: the sync token is worthless.
    Gone,
    /// Half of the answer.
    CutBody,
    /// An answer that is not JSON.
    MalformedJson,
    /// No answer, the request was never seen.
    LostRequest,
    /// No answer, the request was seen.
    LostAnswer,
    /// A last page without its sync token.
    NoSyncToken,
    /// An empty page that is not the last.
    EmptyPage,
    /// The token endpoint fails for the moment.
    TokenEndpoint,
}

/// All of [`Mishap`].
pub const MISHAPS: [Mishap; 16] = [
    Mishap::BackendError,
    Mishap::Html,
    Mishap::TooMany,
    Mishap::RateLimit,
    Mishap::UserRateLimit,
    Mishap::UserQuota,
    Mishap::Unauthorized,
    Mishap::AccessTokenExpires,
    Mishap::Gone,
    Mishap::CutBody,
    Mishap::MalformedJson,
    Mishap::LostRequest,
    Mishap::LostAnswer,
    Mishap::NoSyncToken,
    Mishap::EmptyPage,
    Mishap::TokenEndpoint,
];

/// Faults that belong together: a seed has each family off or on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Processes die, sleep, stop, are replaced.
    Process,
    /// Messages are late, lost, doubled, cut off.
    Network,
    /// The store is away, slow, forgetful.
    Store,
    /// Google is away, slow, strict, forgetful.
    Google,
    /// The graph is away, slow, picky.
    Graph,
    /// Clocks are wrong.
    Clock,
    /// There is more to do than usual.
    Load,
    /// People interfere.
    Operator,
    /// The store is emptied.
    Emptied,
    /// Events that a reader or the graph cannot take.
    Content,
    /// Calendars come and go.
    Sharing,
    /// Notifications of changes are late, lost, doubled, forged; only of plans that watch calendars.
    Push,
}

/// Those that every second seed has, each.
pub const FAMILIES: [Family; 8] = [
    Family::Process,
    Family::Network,
    Family::Store,
    Family::Google,
    Family::Graph,
    Family::Clock,
    Family::Load,
    Family::Operator,
];

impl Family {
    /// Its name; also that of its sub-stream.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Process => "process",
            Family::Network => "network",
            Family::Store => "store",
            Family::Google => "google",
            Family::Graph => "graph",
            Family::Clock => "clock",
            Family::Load => "load",
            Family::Operator => "operator",
            Family::Emptied => "emptied",
            Family::Content => "content",
            Family::Sharing => "sharing",
            Family::Push => "push",
        }
    }
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FaultKind {
    // -- process ---------------------------------------------------------------------------------------------------
    /// SIGKILL; a new process starts when it ends.
    Crash {
        /// Which process.
        process: u32,
    },
    /// SIGSTOP, and SIGCONT when it ends.
    Pause {
        /// Which process.
        process: u32,
    },
    /// SIGTERM; a new process starts when it ends.
    Terminate {
        /// Which process.
        process: u32,
        /// How long it has, in milliseconds.
        deadline_ms: u64,
    },
    /// One process after the other is stopped and replaced by a new release, which may have another schedule.
    Deploy {
        /// The new release's schedule.
        schedule: Option<ScheduleDefinition>,
        /// From one process to the next, in milliseconds.
        gap_ms: u64,
        /// How long each has to stop, in milliseconds.
        deadline_ms: u64,
    },
    /// Whatever process asks Google on behalf of this user dies; another one starts two seconds later.
    PoisonUser {
        /// Which user.
        user: u32,
    },

    // -- network ---------------------------------------------------------------------------------------------------
    /// Messages to and from the store get lost.
    Loss {
        /// How many.
        ppm: u32,
    },
    /// Messages to and from the store are late by up to so long, so they overtake one another.
    Delay {
        /// At most, in milliseconds.
        max_ms: u32,
    },
    /// Commands arrive twice.
    Duplicate {
        /// How many.
        ppm: u32,
    },
    /// Calls that work may be due get lost.
    WakeLoss {
        /// How many.
        ppm: u32,
    },
    /// A process is cut off.
    Partition {
        /// Which process.
        process: u32,
        /// From the store.
        store: bool,
        /// From Google.
        google: bool,
        /// From the graph.
        graph: bool,
    },

    // -- store -----------------------------------------------------------------------------------------------------
    /// The store is away.
    StoreOutage {
        /// How.
        how: OutageKind,
    },
    /// The store is slow: up to so long a command.
    StoreSlow {
        /// At most, in milliseconds.
        max_ms: u32,
    },
    /// Commands are applied, and their replies get lost.
    ReplyLost {
        /// How many.
        ppm: u32,
    },
    /// The replica falls behind when this begins, and becomes the store when it ends: what was acknowledged in between
    /// is gone.
    Failover,
    /// The store's clock steps, and back when this ends.
    StoreClockStep {
        /// By so many milliseconds; negative is back.
        by_ms: i64,
    },

    // -- Google ----------------------------------------------------------------------------------------------------
    /// Google is away.
    GoogleOutage {
        /// How.
        how: OutageKind,
    },
    /// Google is slow: up to so long a request.
    GoogleSlow {
        /// At most, in milliseconds.
        max_ms: u32,
    },
    /// Every request is refused as one too many.
    GoogleLimited {
        /// 403 or 429.
        status: u16,
        /// `rateLimitExceeded`, `userRateLimitExceeded` or `dailyLimitExceeded`.
        reason: String,
        /// `Retry-After`, in seconds.
        retry_after_s: Option<u32>,
        /// It is written as a date.
        as_date: bool,
    },
    /// Some answers are wrong in one way.
    GoogleMishap {
        /// In which.
        mishap: Mishap,
        /// How many.
        ppm: u32,
    },
    /// A user revokes the grant, and connects again when this ends.
    RevokeGrant {
        /// Which user.
        user: u32,
    },
    /// Sync tokens become worthless.
    ExpireSyncTokens {
        /// Of this user; `None`: of all.
        user: Option<u32>,
    },

    // -- graph -----------------------------------------------------------------------------------------------------
    /// The graph is away.
    GraphOutage {
        /// How.
        how: OutageKind,
    },
    /// The graph is slow: up to so long a write.
    GraphSlow {
        /// At most, in milliseconds.
        max_ms: u32,
    },
    /// Writes fail for the moment: deadlocks, leader switches.
    GraphTransient {
        /// How many.
        ppm: u32,
    },
    /// Writes are made, and their answers get lost.
    GraphReplyLost {
        /// How many.
        ppm: u32,
    },
    /// The graph takes no events of this user.
    GraphRejects {
        /// Which user.
        user: u32,
    },
    /// The graph's password is wrong.
    GraphMisconfigured,

    // -- clocks ----------------------------------------------------------------------------------------------------
    /// Processes that start under this number from now on have a clock that is off.
    ClockSkew {
        /// Which process.
        process: u32,
        /// By so many milliseconds.
        by_ms: i64,
    },
    /// A process's clock runs fast or slow.
    ClockDrift {
        /// Which process.
        process: u32,
        /// By so much; negative is slow.
        drift_ppm: i32,
    },
    /// A process's clock steps forward (its machine was asleep). A steady clock never steps back.
    ClockStep {
        /// Which process.
        process: u32,
        /// By so many milliseconds.
        by_ms: u64,
    },
    /// A process's clock stands still.
    ClockFreeze {
        /// Which process.
        process: u32,
    },

    // -- load ------------------------------------------------------------------------------------------------------
    /// The last so many percent of the users are enrolled only now.
    EnrolWave {
        /// How many, in percent.
        percent: u32,
    },
    /// One user says "sync now" again and again.
    Flood {
        /// Which user.
        user: u32,
        /// How often: every so many milliseconds.
        every_ms: u64,
    },
    /// Everybody says "sync now" at once.
    SyncAll,
    /// A user's calendar suddenly has many more events.
    HugeCalendar {
        /// Which user.
        user: u32,
        /// How many.
        events: u32,
    },

    // -- operators -------------------------------------------------------------------------------------------------
    /// The source is paused, and resumed when this ends.
    PauseSource,
    /// The job limit becomes another one.
    SetLimit {
        /// The new one.
        limit: Option<Limit>,
    },
    /// The schedule becomes another one.
    ChangeSchedule {
        /// The new one.
        schedule: ScheduleDefinition,
    },
    /// Dead letters are tried again.
    RetryFailed,

    // -- the store is emptied --------------------------------------------------------------------------------------
    /// Everything in the store is gone (`FLUSHALL`). Its clock must not have been ahead: only by it do tokens grow on.
    EmptyStore,

    // -- content ---------------------------------------------------------------------------------------------------
    /// A user's calendar gets events that the graph refuses while this lasts; then it takes them.
    PoisonEvents {
        /// Which user.
        user: u32,
        /// How many.
        events: u32,
    },
    /// The first event on every page of a user's calendars is none while this lasts.
    UnreadableEvents {
        /// Which user.
        user: u32,
    },

    // -- sharing ---------------------------------------------------------------------------------------------------
    /// A calendar that is not the primary one is not shared with its user any more (404), and is again when this ends.
    UnshareCalendar {
        /// Which user.
        user: u32,
        /// Which of the user's further calendars.
        calendar: u32,
    },

    // -- push ------------------------------------------------------------------------------------------------------
    /// Notifications are late.
    PushDelayed {
        /// At least by so many milliseconds.
        min_ms: u32,
        /// At most by so many milliseconds.
        max_ms: u32,
    },
    /// Notifications come twice.
    PushDoubled {
        /// How many.
        ppm: u32,
    },
    /// Notifications do not come.
    PushDropped {
        /// How many.
        ppm: u32,
    },
    /// Somebody who is not Google posts notifications again and again, with channels and tokens that are not theirs.
    PushForged {
        /// How often: every so many milliseconds.
        every_ms: u64,
    },
    /// Google tells of one user's calendar again and again.
    PushFlood {
        /// Which user.
        user: u32,
        /// How often: every so many milliseconds.
        every_ms: u64,
    },
    /// Channels are made, and Google's answers get lost.
    WatchLost {
        /// How many.
        ppm: u32,
    },
}

impl FaultKind {
    /// The family that it belongs to.
    #[must_use]
    pub fn family(&self) -> Family {
        use FaultKind as Kind;
        match self {
            Kind::Crash { .. }
            | Kind::Pause { .. }
            | Kind::Terminate { .. }
            | Kind::Deploy { .. }
            | Kind::PoisonUser { .. } => Family::Process,
            Kind::Loss { .. }
            | Kind::Delay { .. }
            | Kind::Duplicate { .. }
            | Kind::WakeLoss { .. }
            | Kind::Partition { .. } => Family::Network,
            Kind::StoreOutage { .. }
            | Kind::StoreSlow { .. }
            | Kind::ReplyLost { .. }
            | Kind::Failover
            | Kind::StoreClockStep { .. } => Family::Store,
            Kind::GoogleOutage { .. }
            | Kind::GoogleSlow { .. }
            | Kind::GoogleLimited { .. }
            | Kind::GoogleMishap { .. }
            | Kind::RevokeGrant { .. }
            | Kind::ExpireSyncTokens { .. } => Family::Google,
            Kind::GraphOutage { .. }
            | Kind::GraphSlow { .. }
            | Kind::GraphTransient { .. }
            | Kind::GraphReplyLost { .. }
            | Kind::GraphRejects { .. }
            | Kind::GraphMisconfigured => Family::Graph,
            Kind::ClockSkew { .. }
            | Kind::ClockDrift { .. }
            | Kind::ClockStep { .. }
            | Kind::ClockFreeze { .. } => Family::Clock,
            Kind::EnrolWave { .. }
            | Kind::Flood { .. }
            | Kind::SyncAll
            | Kind::HugeCalendar { .. } => Family::Load,
            Kind::PauseSource
            | Kind::SetLimit { .. }
            | Kind::ChangeSchedule { .. }
            | Kind::RetryFailed => Family::Operator,
            Kind::EmptyStore => Family::Emptied,
            Kind::PoisonEvents { .. } | Kind::UnreadableEvents { .. } => Family::Content,
            Kind::UnshareCalendar { .. } => Family::Sharing,
            Kind::PushDelayed { .. }
            | Kind::PushDoubled { .. }
            | Kind::PushDropped { .. }
            | Kind::PushForged { .. }
            | Kind::PushFlood { .. }
            | Kind::WatchLost { .. } => Family::Push,
        }
    }
}
