//! What is wrong just now: the sum of all faults that last, as the servers and the network want to know it.
//!
//! It is made anew whenever a fault begins or ends, so no fault has to be undone.

use kalends_core::time::{SECOND_MS, Timestamp};

use crate::google::{Fault as GoogleFault, RetryAfter};
use crate::plan::{Fault, FaultKind, Mishap, OutageKind};

/// What is wrong just now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) loss_ppm: u32,
    pub(crate) delay_ms_max: u32,
    pub(crate) duplicate_ppm: u32,
    pub(crate) wake_loss_ppm: u32,
    /// Bits of processes that are cut off from each.
    pub(crate) cut_store: u64,
    pub(crate) cut_google: u64,
    pub(crate) cut_graph: u64,
    pub(crate) store: Option<OutageKind>,
    pub(crate) store_slow_ms_max: u32,
    pub(crate) reply_lost_ppm: u32,
    pub(crate) google: Option<OutageKind>,
    pub(crate) google_slow_ms_max: u32,
    pub(crate) google_limited: Option<GoogleFault>,
    pub(crate) mishaps: Vec<(Mishap, u32)>,
    pub(crate) poison_users: Vec<u32>,
    pub(crate) graph: Option<OutageKind>,
    pub(crate) graph_slow_ms_max: u32,
    pub(crate) graph_transient_ppm: u32,
    pub(crate) graph_lost_ppm: u32,
    pub(crate) graph_rejects: Vec<u32>,
    pub(crate) graph_misconfigured: bool,
    pub(crate) graph_poisoned: Vec<u32>,
    pub(crate) unreadable: Vec<u32>,
    /// The least and the most that notifications are late.
    pub(crate) push_delay_ms: (u32, u32),
    pub(crate) push_doubled_ppm: u32,
    pub(crate) push_dropped_ppm: u32,
    pub(crate) watch_lost_ppm: u32,
}

impl Weather {
    /// The weather under these faults, of which `active` last, in a world of so many processes and users.
    pub(crate) fn of(
        faults: &[Fault],
        active: &[bool],
        start: Timestamp,
        processes: u32,
        users: u32,
    ) -> Self {
        let mut weather = Weather::default();
        for (fault, _) in faults.iter().zip(active).filter(|(_, active)| **active) {
            weather.add(fault, start, processes, users);
        }
        weather
    }

    fn add(&mut self, fault: &Fault, start: Timestamp, processes: u32, users: u32) {
        let most = |value: &mut u32, other: u32| *value = (*value).max(other);
        match &fault.kind {
            FaultKind::Loss { ppm } => most(&mut self.loss_ppm, *ppm),
            FaultKind::Delay { max_ms } => most(&mut self.delay_ms_max, *max_ms),
            FaultKind::Duplicate { ppm } => most(&mut self.duplicate_ppm, *ppm),
            FaultKind::WakeLoss { ppm } => most(&mut self.wake_loss_ppm, *ppm),
            FaultKind::Partition {
                process,
                store,
                google,
                graph,
            } => {
                let bit = 1 << (process % processes);
                self.cut_store |= if *store { bit } else { 0 };
                self.cut_google |= if *google { bit } else { 0 };
                self.cut_graph |= if *graph { bit } else { 0 };
            }
            FaultKind::StoreOutage { how } => self.store = Some(*how),
            FaultKind::StoreSlow { max_ms } => most(&mut self.store_slow_ms_max, *max_ms),
            FaultKind::ReplyLost { ppm } => most(&mut self.reply_lost_ppm, *ppm),
            FaultKind::GoogleOutage { how } => self.google = Some(*how),
            FaultKind::GoogleSlow { max_ms } => most(&mut self.google_slow_ms_max, *max_ms),
            FaultKind::GoogleLimited {
                status,
                reason,
                retry_after_s,
                as_date,
            } => {
                let end = start.plus_ms(fault.at_ms + fault.lasting_ms);
                let retry_after = retry_after_s.map(|seconds| {
                    if *as_date {
                        RetryAfter::Date(end.plus_ms(u64::from(seconds) * SECOND_MS))
                    } else {
                        RetryAfter::Seconds(seconds)
                    }
                });
                self.google_limited = Some(GoogleFault::Limited {
                    status: *status,
                    reason: reason.clone(),
                    retry_after,
                });
            }
            FaultKind::GoogleMishap { mishap, ppm } => self.mishaps.push((*mishap, *ppm)),
            FaultKind::PoisonUser { user } => self.poison_users.push(user % users),
            FaultKind::GraphOutage { how } => self.graph = Some(*how),
            FaultKind::GraphSlow { max_ms } => most(&mut self.graph_slow_ms_max, *max_ms),
            FaultKind::GraphTransient { ppm } => most(&mut self.graph_transient_ppm, *ppm),
            FaultKind::GraphReplyLost { ppm } => most(&mut self.graph_lost_ppm, *ppm),
            FaultKind::GraphRejects { user } => self.graph_rejects.push(user % users),
            FaultKind::GraphMisconfigured => self.graph_misconfigured = true,
            FaultKind::PoisonEvents { user, .. } => self.graph_poisoned.push(user % users),
            FaultKind::UnreadableEvents { user } => self.unreadable.push(user % users),
            FaultKind::PushDelayed { min_ms, max_ms } => {
                most(&mut self.push_delay_ms.0, *min_ms);
                most(&mut self.push_delay_ms.1, *max_ms.max(min_ms));
            }
            FaultKind::PushDoubled { ppm } => most(&mut self.push_doubled_ppm, *ppm),
            FaultKind::PushDropped { ppm } => most(&mut self.push_dropped_ppm, *ppm),
            FaultKind::WatchLost { ppm } => most(&mut self.watch_lost_ppm, *ppm),
            // What these do, they do when they begin and end.
            FaultKind::Crash { .. }
            | FaultKind::Pause { .. }
            | FaultKind::Terminate { .. }
            | FaultKind::Deploy { .. }
            | FaultKind::Failover
            | FaultKind::StoreClockStep { .. }
            | FaultKind::RevokeGrant { .. }
            | FaultKind::ExpireSyncTokens { .. }
            | FaultKind::ClockSkew { .. }
            | FaultKind::ClockDrift { .. }
            | FaultKind::ClockStep { .. }
            | FaultKind::ClockFreeze { .. }
            | FaultKind::EnrolWave { .. }
            | FaultKind::Flood { .. }
            | FaultKind::SyncAll
            | FaultKind::HugeCalendar { .. }
            | FaultKind::PauseSource
            | FaultKind::SetLimit { .. }
            | FaultKind::ChangeSchedule { .. }
            | FaultKind::RetryFailed
            | FaultKind::EmptyStore
            | FaultKind::PushForged { .. }
            | FaultKind::PushFlood { .. }
            | FaultKind::UnshareCalendar { .. } => {}
        }
    }
}

/// What the emulator of Google is to do for one mishap.
pub(crate) fn google_fault(mishap: Mishap) -> GoogleFault {
    let limited = |status, reason: &str, retry_after| GoogleFault::Limited {
        status,
        reason: reason.to_owned(),
        retry_after,
    };
    let error = |status, reason: &str| GoogleFault::Error {
        status,
        reason: reason.to_owned(),
    };
    match mishap {
        Mishap::BackendError => error(500, "backendError"),
        Mishap::Html => GoogleFault::Html { status: 503 },
        Mishap::TooMany => limited(429, "rateLimitExceeded", None),
        Mishap::RateLimit => limited(403, "rateLimitExceeded", Some(RetryAfter::Seconds(7))),
        Mishap::UserRateLimit => limited(403, "userRateLimitExceeded", None),
        Mishap::UserQuota => limited(403, "quotaExceeded", None),
        Mishap::Unauthorized => GoogleFault::Unauthorized,
        Mishap::AccessTokenExpires => GoogleFault::AccessTokenExpires,
        Mishap::Gone => error(410, "fullSyncRequired"),
        Mishap::CutBody => GoogleFault::CutBody,
        Mishap::MalformedJson => GoogleFault::MalformedJson,
        Mishap::LostRequest => GoogleFault::LostRequest,
        Mishap::LostAnswer => GoogleFault::LostAnswer,
        Mishap::NoSyncToken => GoogleFault::NoSyncToken,
        Mishap::EmptyPage => GoogleFault::EmptyPage,
        Mishap::TokenEndpoint => GoogleFault::Token {
            status: 503,
            error: "internal_failure".to_owned(),
        },
    }
}
