//! What happens to Google's calendars while the demo runs: people move, edit and cancel, series split, tokens expire,
//! and for a while Google answers 429.

use std::collections::BTreeSet;

use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::time::{MINUTE_MS, Timestamp};
use kalends_sim::google::{Fault, GoogleEmulator};

/// Users whose calendars change in one gust, at the most.
const CHANGED_USERS_MAX: u64 = 200;
/// Changes to one calendar in one gust.
const CHANGES_A_USER: u64 = 3;
/// Users whose sync tokens expire in one gust, at the most.
const EXPIRED_USERS_MAX: u64 = 20;
/// How long a burst of 429 lasts, in milliseconds of the demo's clock.
const BURST_MS: u64 = 2 * MINUTE_MS;

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) changes: u64,
    pub(super) expired_tokens: u64,
    pub(super) bursts: u64,
}

/// Draws the weather from the demo's seed.
pub(super) struct Weather {
    rng: KalendsRng,
    users: Vec<String>,
    pub(super) tally: Tally,
}

impl Weather {
    pub(super) fn new(seed: u64, users: Vec<String>) -> Self {
        Weather {
            rng: substream(seed, "weather"),
            users,
            tally: Tally::default(),
        }
    }

    fn draw_users(&mut self, wanted: u64) -> BTreeSet<String> {
        let last = (self.users.len() as u64).saturating_sub(1);
        (0..wanted.min(last + 1))
            .map(|_| {
                let index = usize::try_from(uniform(&mut self.rng, last)).expect("below the count");
                self.users[index].clone()
            })
            .collect()
    }

    /// People change their calendars.
    pub(super) fn changes(&mut self, google: &mut GoogleEmulator, now: Timestamp) {
        let wanted = (self.users.len() as u64 / 2).clamp(1, CHANGED_USERS_MAX);
        for user in self.draw_users(wanted) {
            for _ in 0..CHANGES_A_USER {
                let drawn = google.random_change(now, &user, &mut self.rng);
                // A change that is not possible just now (an instance that is gone, say) is left out.
                if let Ok(change) = drawn
                    && google.apply(now, &user, &change).is_ok()
                {
                    self.tally.changes += 1;
                }
            }
        }
    }

    /// Sync tokens of some users expire.
    pub(super) fn expire(&mut self, google: &mut GoogleEmulator) {
        let wanted = (self.users.len() as u64 / 20).clamp(1, EXPIRED_USERS_MAX);
        for user in self.draw_users(wanted) {
            if google.expire_sync_tokens(&user).is_ok() {
                self.tally.expired_tokens += 1;
            }
        }
    }

    /// Google refuses everybody for a while, and one request after that: with few users nobody may ask meanwhile.
    pub(super) fn burst(&mut self, google: &mut GoogleEmulator, now: Timestamp) {
        let until = now.plus_ms(BURST_MS);
        let burst = Fault::LimitedUntil {
            until,
            status: 429,
            retry_after_s: None,
        };
        let after = Fault::Error {
            status: 429,
            reason: "rateLimitExceeded".to_owned(),
        };
        if google.inject(None, burst).is_ok() && google.inject(None, after).is_ok() {
            self.tally.bursts += 1;
        }
    }
}
