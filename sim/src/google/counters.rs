//! What was asked and answered, for reports and tests.

use std::collections::BTreeMap;

/// Requests by kind and answers by status, since the emulator was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of the page at which users consent.
    pub consents_asked: u64,
    /// Requests to the token endpoint.
    pub token_requests: u64,
    /// Requests to the revocation endpoint.
    pub revoke_requests: u64,
    /// Requests of calendar lists.
    pub calendar_list_requests: u64,
    /// First pages of full passes that were asked for.
    pub full_passes: u64,
    /// First pages of increments that were asked for.
    pub increments: u64,
    /// Requests of further pages, of either kind.
    pub further_pages: u64,
    /// Push channels that were asked for.
    pub watches: u64,
    /// Push channels whose end was asked for.
    pub stops: u64,
    /// Requests of anything else.
    pub unknown_requests: u64,
    /// Events (and remains of deleted ones) that were put on pages.
    pub events_served: u64,
    /// Answers by status; 0 counts those that were lost.
    pub statuses: BTreeMap<u16, u64>,
}

impl Counters {
    /// All requests together.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.statuses.values().sum()
    }
}
