//! Push channels of the emulated Google: `events.watch`, `channels.stop`, and the notifications that changes lead to.
//!
//! Notifications wait in the emulator until whoever plays the network takes them ([`GoogleEmulator::notifications`]) and
//! delivers them. By [`PushWeather`] they come late, twice or not at all, or are joined by forged ones, by counting: equal calls
//! give equal notifications.

use std::collections::BTreeMap;

use kalends_core::google::push::{CHANNEL_BYTES_MAX, TOKEN_BYTES_MAX};
use kalends_core::time::{DAY_MS, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::error::ApiError;
use super::{GoogleEmulator, Unknown};
use crate::http::{Delivery, Request, Response, http_date};

/// The longest life of a channel, in milliseconds: what Google grants at most.
pub const CHANNEL_LIFE_MS_MAX: u64 = 7 * DAY_MS;
/// Notifications that wait to be taken; the oldest are lost beyond it, as Google loses some.
pub const NOTIFICATIONS_MAX: usize = 100_000;
/// Channels that are known; beyond it those that have ended are forgotten, and if that is not enough no more are made.
const CHANNELS_MAX: usize = 100_000;

/// What befalls notifications. Each counts for itself; 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushWeather {
    /// Each comes so much later, in milliseconds.
    pub delay_ms: u64,
    /// Every so-many-th comes twice.
    pub doubled_every: u64,
    /// Every so-many-th does not come.
    pub dropped_every: u64,
    /// After every so-many-th a forged one comes: the same channel, with a token that is not its own.
    pub forged_every: u64,
}

/// A notification, as it is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// When it is delivered.
    pub at: Timestamp,
    /// Where to.
    pub address: String,
    /// Its headers, in small letters. It has no body.
    pub headers: Vec<(String, String)>,
    /// Google never sent it.
    pub forged: bool,
}

#[derive(Clone, Debug)]
struct Channel {
    user: u32,
    calendar: u32,
    address: String,
    token: String,
    expires_at: Timestamp,
    /// Of the last message; they grow, but are not consecutive.
    number: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Push {
    channels: BTreeMap<String, Channel>,
    waiting: Vec<Notification>,
    weather: PushWeather,
    told: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchBody {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    address: String,
    #[serde(default)]
    token: String,
    expiration: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StopBody {
    id: String,
    resource_id: String,
}

impl GoogleEmulator {
    /// From now on notifications suffer this.
    pub fn set_push_weather(&mut self, weather: PushWeather) {
        self.push.weather = weather;
    }

    /// Takes what is to be delivered by `now`, in the order of its time.
    pub fn notifications(&mut self, now: Timestamp) -> Vec<Notification> {
        let waiting = std::mem::take(&mut self.push.waiting);
        let (mut due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|one| one.at <= now);
        self.push.waiting = later;
        due.sort_by_key(|one| one.at);
        due
    }

    /// The ids of the channels that live at `now`, of all users.
    #[must_use]
    pub fn channels(&self, now: Timestamp) -> Vec<String> {
        let channels = self.push.channels.iter();
        let live = channels.filter(|(_, channel)| channel.expires_at > now);
        live.map(|(id, _)| id.clone()).collect()
    }

    /// The channels that one calendar of a user ever had and that were not stopped, with when they end or ended.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn channels_of(
        &self,
        user: &str,
        calendar: &str,
    ) -> Result<Vec<(String, Timestamp)>, Unknown> {
        let user = self.user(user)?;
        let number = self.calendar_number(user, calendar);
        let channels = self.push.channels.iter();
        let of_it = channels
            .filter(|(_, channel)| channel.user == user && Some(channel.calendar) == number);
        Ok(of_it
            .map(|(id, channel)| (id.clone(), channel.expires_at))
            .collect())
    }

    /// Tells of a user's primary calendar once more, as if it had changed.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn tell_again(&mut self, now: Timestamp, user: &str) -> Result<(), Unknown> {
        let user = self.user(user)?;
        self.tell_watchers(now, user, 0);
        Ok(())
    }

    pub(super) fn watch(
        &mut self,
        now: Timestamp,
        user: u32,
        calendar: &str,
        request: &Request,
    ) -> Result<Vec<u8>, ApiError> {
        let number = self.calendar_number(user, calendar);
        let number = number
            .filter(|number| !self.is_removed(user, *number))
            .ok_or_else(ApiError::not_found)?;
        let refuse = |reason: &str, message: &str| ApiError::new(400, "global", reason, message);
        let body: WatchBody = serde_json::from_slice(&request.body).map_err(|_| {
            refuse(
                "parseError",
                "This API does not support parsing form-encoded input.",
            )
        })?;
        if calendar.contains('#') {
            return Err(refuse(
                "pushNotSupportedForRequestedResource",
                "Push notifications are not supported by this resource.",
            ));
        }
        let loopback = body.address.starts_with("http://127.0.0.1");
        if !body.address.starts_with("https://") && !loopback {
            let message = "WebHook callback must be HTTPS";
            return Err(refuse("push.webhookUrlNotHttps", message));
        }
        let is_good = body.kind == "web_hook"
            && !body.id.is_empty()
            && body.id.len() <= CHANNEL_BYTES_MAX
            && body.token.len() <= TOKEN_BYTES_MAX;
        if !is_good {
            return Err(refuse("required", "Required"));
        }
        if self.push.channels.contains_key(&body.id) {
            return Err(refuse("channelIdNotUnique", "Channel id not unique"));
        }
        let channels = &mut self.push.channels;
        if channels.len() >= CHANNELS_MAX {
            channels.retain(|_, channel| channel.expires_at > now);
        }
        if channels.len() >= CHANNELS_MAX {
            return Err(refuse("quotaExceeded", "Too many channels"));
        }
        let latest = now.plus_ms(CHANNEL_LIFE_MS_MAX);
        let asked = body.expiration.and_then(|text| text.parse().ok());
        let expires_at = asked.map_or(latest, |ms| latest.min(Timestamp::from_ms(ms)));
        let channel = Channel {
            user,
            calendar: number,
            address: body.address,
            token: body.token,
            expires_at,
            number: 0,
        };
        self.push.channels.insert(body.id.clone(), channel);
        let resource = self.resource(user, number);
        self.tell(now, &body.id, "sync");
        let body = json!({
            "kind": "api#channel",
            "id": body.id,
            "resourceId": resource,
            "resourceUri": format!("https://www.googleapis.com/calendar/v3/calendars/{calendar}/events?alt=json"),
            "expiration": expires_at.as_ms().to_string(),
        });
        Ok(body.to_string().into_bytes())
    }

    pub(super) fn stop_channel(
        &mut self,
        user: u32,
        request: &Request,
    ) -> Result<Response, ApiError> {
        let body: StopBody =
            serde_json::from_slice(&request.body).map_err(|_| ApiError::not_found())?;
        let found = self.push.channels.get(&body.id);
        let is_theirs = found.is_some_and(|channel| {
            channel.user == user && self.resource(user, channel.calendar) == body.resource_id
        });
        if !is_theirs {
            return Err(ApiError::not_found());
        }
        self.push.channels.remove(&body.id);
        Ok(Response {
            status: 204,
            headers: Vec::new(),
            body: Vec::new(),
            delivery: Delivery::Whole,
        })
    }

    /// A calendar has changed: everybody who watches it is told.
    pub(super) fn tell_watchers(&mut self, now: Timestamp, user: u32, calendar: u32) {
        let channels = self.push.channels.iter();
        let of_it = channels.filter(|(_, channel)| {
            channel.user == user && channel.calendar == calendar && channel.expires_at > now
        });
        let ids: Vec<String> = of_it.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.tell(now, &id, "exists");
        }
    }

    /// Google's name of what a channel watches: the same for every channel of a calendar.
    fn resource(&self, user: u32, calendar: u32) -> String {
        format!("resource-{:016x}", self.scope(user, calendar))
    }

    fn tell(&mut self, now: Timestamp, id: &str, state: &str) {
        let channel = &self.push.channels[id];
        let resource = self.resource(channel.user, channel.calendar);
        let channel = self.push.channels.get_mut(id).expect("looked at above");
        channel.number += if state == "sync" { 1 } else { 7 };
        let header = |name: &str, value: String| (name.to_owned(), value);
        let genuine = Notification {
            at: now.plus_ms(self.push.weather.delay_ms),
            address: channel.address.clone(),
            headers: vec![
                header(
                    "user-agent",
                    "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)"
                        .to_owned(),
                ),
                header("x-goog-channel-id", id.to_owned()),
                header("x-goog-channel-token", channel.token.clone()),
                header("x-goog-channel-expiration", http_date(channel.expires_at)),
                header("x-goog-message-number", channel.number.to_string()),
                header("x-goog-resource-id", resource),
                header("x-goog-resource-state", state.to_owned()),
            ],
            forged: false,
        };
        self.push.told += 1;
        let (weather, told) = (self.push.weather, self.push.told);
        let falls_on = |every: u64| every > 0 && told.is_multiple_of(every);
        if falls_on(weather.forged_every) {
            let mut forged = genuine.clone();
            forged.forged = true;
            let token = &mut forged.headers[2].1;
            let last = token.pop();
            token.push(if last == Some('A') { 'B' } else { 'A' });
            self.push.waiting.push(forged);
        }
        if falls_on(weather.doubled_every) {
            self.push.waiting.push(genuine.clone());
        }
        if !falls_on(weather.dropped_every) {
            self.push.waiting.push(genuine);
        }
        let excess = self.push.waiting.len().saturating_sub(NOTIFICATIONS_MAX);
        self.push.waiting.drain(..excess);
    }
}
