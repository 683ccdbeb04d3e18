//! Push channels: Google tells of a change, and polling becomes the safety net behind it.
//!
//! A channel belongs to one calendar of one user, and its record stands in that user's cursor. So it is written under the lease
//! of the user's sync and shared by every process of a fleet, and no table of channels can disagree with the queue. Channels are
//! made, renewed and stopped at the end of a sync, with leave like any other request. What always holds:
//!
//! - **Overlap.** A new channel is made before the old one ends, and only when it is there the old one is stopped.
//! - **Slower, not blind.** A user is polled more slowly only while every calendar of the user has a channel that outlives the
//!   next poll. When one could not be made, or ended, the usual pace is back with the next sync.
//! - **A sync never fails for a channel.** What Google refuses is not asked again for a while.
//! - **Bounded.** [`CHANNELS_KEPT_MAX`] records a calendar, [`REQUESTS_A_SYNC_MAX`] requests a sync.
//!
//! A [`Listener`](listener::Listener) is a process's webhook: it believes the [`token`], answers, and asks for syncs as
//! [`Hearing`](hearing::Hearing) decides. Ids of channels carry the fencing token under which they were made, so they are never
//! used twice and tell their age.

pub mod hearing;
pub mod listener;
pub mod token;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, FailureKind};
use crate::google::push::Watched;
use crate::mutant::{Mutant, planted};
use crate::queue::command::LeaseToken;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Timestamp};

/// Channels of one calendar that are remembered: the one that counts, and replaced ones that are still to be stopped. Older
/// ones end by themselves.
pub const CHANNELS_KEPT_MAX: usize = 3;
/// Channels that are made or stopped at the end of one sync; the next one goes on.
pub const REQUESTS_A_SYNC_MAX: u32 = 10;
/// Channels of calendars that are not kept any more, over all of a user's: older ones end by themselves.
pub const LEFT_OVER_MAX: usize = 50;
/// The longest life that is asked for, in milliseconds: Google's default, which is what it grants at most.
pub const LIFE_MS_DEFAULT: u64 = 7 * DAY_MS;
/// The pace of polls behind channels by default, in milliseconds.
pub const POLL_MS_DEFAULT: u64 = 6 * HOUR_MS;

/// After a refusal that may be over soon a channel is asked for again after this, in milliseconds.
const REFUSED_SOON_MS: u64 = HOUR_MS;
/// After a refusal that will stay (Google watches no holidays) a channel is asked for again after this, in milliseconds.
const REFUSED_LONG_MS: u64 = 7 * DAY_MS;
/// A channel must outlive the next poll by this to be relied upon, in milliseconds: a tick and a slot for it.
const MARGIN_MS: u64 = 30 * MINUTE_MS;

/// How calendars are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushSettings {
    /// How long a channel is to live, in milliseconds. Google may grant less.
    pub life_ms: u64,
    /// A user whose calendars are all watched is polled after this, in milliseconds, whatever the schedule says.
    pub poll_ms: u64,
}

impl Default for PushSettings {
    fn default() -> Self {
        PushSettings {
            life_ms: LIFE_MS_DEFAULT,
            poll_ms: POLL_MS_DEFAULT,
        }
    }
}

impl PushSettings {
    /// A channel is renewed when it has less than this left, in milliseconds: two polls, so that one that fails is made good
    /// by the next.
    #[must_use]
    pub fn renew_before_ms(&self) -> u64 {
        if planted(Mutant::RenewedLate) {
            return 0;
        }
        self.poll_ms.saturating_mul(2).saturating_add(MARGIN_MS)
    }
}

/// A channel that Google made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Our name of it.
    pub id: String,
    /// Google's name of what it watches.
    pub resource: String,
    /// When it ends by itself, by Google's clock.
    pub expires_at: Timestamp,
}

/// The id of a channel that is made under this lease, the `number`th of the job.
#[must_use]
pub fn channel_id(fence: LeaseToken, number: u32) -> String {
    format!("kalends-{:016x}-{number:02x}", fence.0)
}

/// When a channel was made, from its id: a fencing token is not far from the store's time in microseconds. `None` if it is no
/// id of ours.
#[must_use]
pub fn made_at(id: &str) -> Option<Timestamp> {
    let (fence, _) = id.strip_prefix("kalends-")?.split_once('-')?;
    let fence = u64::from_str_radix(fence, 16).ok()?;
    Some(Timestamp::from_ms(i64::try_from(fence / 1_000).ok()?))
}

/// What is to be done about a calendar's channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Make one.
    Watch,
    /// Stop this one.
    Stop(Channel),
}

/// The channels of one calendar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The newest last; that one counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<Channel>,
    /// Google refused a channel: none is asked for before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_until: Option<Timestamp>,
}

impl Watch {
    /// Whether nothing is known of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Watch::default()
    }

    /// Forgets channels that have ended, and a refusal whose time is over.
    pub fn tidy(&mut self, now: Timestamp) {
        self.channels.retain(|channel| channel.expires_at > now);
        self.refused_until = self.refused_until.filter(|until| *until > now);
    }

    /// What is to be done next; without settings nothing is watched any more. Call [`Watch::tidy`] before.
    #[must_use]
    pub fn wish(&self, now: Timestamp, settings: Option<&PushSettings>) -> Option<Wish> {
        let Some(settings) = settings else {
            return self.channels.first().cloned().map(Wish::Stop);
        };
        let renew_at = |channel: &Channel| channel.expires_at.minus_ms(settings.renew_before_ms());
        let is_covered = self
            .channels
            .last()
            .is_some_and(|channel| now < renew_at(channel));
        if is_covered {
            // The newest is good: those that it replaced can go.
            let replaced = match planted(Mutant::ReplacedStays) {
                true => &[],
                false => &self.channels[..self.channels.len() - 1],
            };
            return replaced.first().cloned().map(Wish::Stop);
        }
        // A grant that is shorter than the time before which it is renewed would be renewed for ever.
        let is_too_short = self.channels.len() >= CHANNELS_KEPT_MAX;
        let may_ask = self.refused_until.is_none_or(|until| now >= until) && !is_too_short;
        may_ask.then_some(Wish::Watch)
    }

    /// Whether a user may be polled slowly as far as this calendar goes.
    #[must_use]
    pub fn outlives_poll(&self, now: Timestamp, settings: &PushSettings) -> bool {
        let needed = now.plus_ms(settings.poll_ms.saturating_add(MARGIN_MS));
        self.channels
            .last()
            .is_some_and(|channel| channel.expires_at > needed)
    }

    /// Google made the channel `id`.
    pub fn watched(&mut self, now: Timestamp, settings: &PushSettings, id: String, made: Watched) {
        assert!(
            self.channels.len() < CHANNELS_KEPT_MAX,
            "asked for by wish()"
        );
        if made.expires_at <= now.plus_ms(settings.renew_before_ms()) {
            // Good for nothing but being renewed at once, again and again: asked for seldom instead.
            self.refused_until = Some(now.plus_ms(REFUSED_SOON_MS));
        } else {
            self.refused_until = None;
        }
        self.channels.push(Channel {
            id,
            resource: made.resource,
            expires_at: made.expires_at,
        });
    }

    /// Google refused a channel.
    pub fn refused(&mut self, now: Timestamp, failure: &Failure) {
        let pause_ms = match &failure.kind {
            FailureKind::Permanent | FailureKind::CalendarUnavailable => REFUSED_LONG_MS,
            FailureKind::Limited { retry_after_ms, .. }
            | FailureKind::Transient { retry_after_ms } => retry_after_ms
                .unwrap_or(0)
                .clamp(REFUSED_SOON_MS, REFUSED_LONG_MS),
            _ => REFUSED_SOON_MS,
        };
        self.refused_until = Some(now.plus_ms(pause_ms));
    }

    /// The channel `id` is stopped, or will be left to end by itself.
    pub fn stopped(&mut self, id: &str) {
        self.channels.retain(|channel| channel.id != id);
    }
}

#[cfg(test)]
mod tests;
