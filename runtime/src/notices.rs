//! Notices as log lines: what an operator should hear, at the level at which to hear it.
//!
//! A notice holds names, counts, times and explanations without secrets; event texts are in none of them.

use std::collections::BTreeSet;

use kalends_core::node::io::Notice;
use kalends_core::queue::command::CommitOutcome;

/// A store that stays away is mentioned at least once in so many attempts: at an attempt every four seconds, about
/// every quarter of an hour.
const ATTEMPTS_A_LINE_MAX: u32 = 256;
/// So many different explanations of one outage are each told when they first come.
const EXPLANATIONS_MAX: usize = 8;

/// Writes notices to the log, and a store that stays away with growing intervals only.
#[derive(Debug, Default)]
pub struct Log {
    /// What was said of the outage under way.
    told: BTreeSet<String>,
}

impl Log {
    /// Writes one notice to the log, unless it says only again what was said shortly before.
    pub fn log(&mut self, notice: &Notice) {
        let is_news = self.is_news(notice);
        if is_news {
            log(notice);
        }
    }

    fn is_news(&mut self, notice: &Notice) -> bool {
        match notice {
            Notice::StoreAway {
                detail, failures, ..
            } => {
                let is_new = self.told.len() < EXPLANATIONS_MAX && self.told.insert(detail.clone());
                is_new || failures.is_power_of_two() || failures % ATTEMPTS_A_LINE_MAX == 0
            }
            Notice::StoreBack { .. } => {
                self.told.clear();
                true
            }
            _ => true,
        }
    }
}

/// Writes one notice to the log.
pub fn log(notice: &Notice) {
    match notice {
        Notice::Ready => tracing::info!("ready: schedules and users are known to the store"),
        Notice::StoreAway {
            detail,
            failures,
            retry_at,
        } => {
            tracing::warn!(failures, %retry_at, "the store does not answer: {detail}");
        }
        Notice::StoreBack { away_ms } => tracing::info!(away_ms, "the store answers again"),
        Notice::StoreEmptied => {
            tracing::error!("the store was emptied; everything is defined again");
        }
        Notice::TickFired { schedule, at } => tracing::info!(%schedule, %at, "tick"),
        Notice::TicksMissed { schedule, count } => {
            tracing::warn!(%schedule, count, "ticks were missed while nobody was there, and are skipped");
        }
        Notice::ScheduleNeverFires { schedule } => {
            tracing::error!(%schedule, "this schedule never fires: correct its cron expression");
        }
        Notice::Overloaded { source, overload } => tracing::warn!(%source, "{overload}"),
        Notice::JobStarted { key, attempt } => tracing::debug!(job = %key, attempt, "started"),
        Notice::JobDone {
            key,
            outcome,
            duration_ms,
        } => match outcome {
            CommitOutcome::Synced {
                upserted,
                deleted,
                quarantined,
                requests,
                full,
            } => {
                tracing::info!(
                    job = %key, upserted, deleted, quarantined, requests, full, duration_ms, "synced"
                );
            }
            CommitOutcome::Skipped { note } => tracing::info!(job = %key, "skipped: {note}"),
            CommitOutcome::FannedOut { users } => {
                tracing::info!(job = %key, users, duration_ms, "users laid over the period");
            }
        },
        Notice::JobRetried { key, failure, at } => {
            tracing::warn!(job = %key, retry_at = %at, "failed, is tried again: {failure}");
        }
        Notice::JobFailed {
            key,
            failure,
            parked: true,
        } => {
            tracing::warn!(job = %key, "parked until the user connects again: {failure}");
        }
        Notice::JobFailed {
            key,
            failure,
            parked: false,
        } => {
            tracing::error!(job = %key, "given up until the next tick: {failure}");
        }
        Notice::JobReleased { key } => tracing::info!(job = %key, "handed back unharmed"),
        Notice::LeaseLost { key } => {
            tracing::warn!(job = %key, "the lease was lost; another process has this job");
        }
        Notice::Limited {
            key,
            scope,
            until,
            detail,
        } => {
            tracing::warn!(job = %key, ?scope, %until, "asked to slow down: {detail}");
        }
        Notice::Misconfigured { source, detail } => {
            tracing::error!(%source, "nothing can be synced until this is put right: {detail}");
        }
        Notice::MalformedToken { user } => {
            tracing::error!(%user, "Google refused a token as malformed: a fault of Kalends, please report it");
        }
        Notice::Recovered { recovered, buried } => {
            tracing::warn!(
                recovered,
                buried,
                "jobs of a process that went silent: back in the queue, or given up"
            );
        }
        Notice::Refused { detail } => tracing::error!("the store refused a command: {detail}"),
        Notice::EffectTimedOut { what, after_ms } => {
            tracing::warn!(after_ms, "a {what} did not end in time and was given up");
        }
        Notice::ClockCorrected { offset_ms } => {
            tracing::info!(
                offset_ms,
                "this process's clock differs from the store's; the store's counts"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kalends_core::time::Timestamp;

    #[test]
    fn a_store_that_stays_away_is_told_less_and_less_but_news_at_once() {
        let mut log = Log::default();
        let away = |failures: u32, detail: &str| Notice::StoreAway {
            detail: detail.to_owned(),
            failures,
            retry_at: Timestamp::EPOCH,
        };
        let told: Vec<u32> = (1..=1_000)
            .filter(|failures| log.is_news(&away(*failures, "refused")))
            .collect();
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768]);
        assert!(log.is_news(&away(1_001, "wrong password")));
        assert!(!log.is_news(&away(1_002, "wrong password")));
        // However many explanations there are, lines are not.
        let flood = (0..1_000)
            .filter(|index| log.is_news(&away(1_025, &index.to_string())))
            .count();
        assert_eq!(flood, EXPLANATIONS_MAX - 2);
        assert!(log.is_news(&Notice::StoreBack { away_ms: 1 }));
        assert!(log.is_news(&away(3, "refused")));
    }
}
