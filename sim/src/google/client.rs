//! A client of the emulator that stands where the Google adapter stands in production: a [`FetchRequest`] in, a
//! [`FetchReply`] or a typed [`Failure`] out, with access tokens that are kept, renewed and given up as the adapter does.
//!
//! What an answer means is read by core, from the bytes that the emulator rendered. That is the long way, and it costs
//! some twenty microseconds. Nearly all requests of a fleet are increments in which nothing changed; for these there is a
//! shortcut that says what the long way would say without rendering it. It is taken only when nothing can come between
//! (no fault waits, the token is good), and a property test holds the two together (`tests/google/client.rs`).
//!
//! Invariant: with the same calls, shortcut or not, the same replies and the same counters.

use std::collections::BTreeMap;

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::failure::{classify, classify_token, new_token_may_help, retry_after_ms};
use kalends_core::google::page::{EventsPage, FetchReply, PageEnd, read_calendars, read_events};
use kalends_core::google::push::{is_stopped, read_watched, stop_body, watch_body};
use kalends_core::google::query::{EventsFrom, FetchRequest};
use kalends_core::time::{MINUTE_MS, SECOND_MS, Timestamp};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::hook::channel_token;
use super::list::{self, Source};
use super::oauth::{Caller, access_token, refresh_token};
use super::quota::Payer;
use super::{GoogleEmulator, query};
use crate::http::{Delivery, Request, Response};

/// How long a renewal that failed for the moment is not tried again while the old token is good, in milliseconds, as in
/// the adapter.
const RENEWAL_PAUSE_MS: u64 = MINUTE_MS;

/// Where notifications go in a simulation.
const WEBHOOK: &str = "https://hooks.example.com/google";

/// An access token of one user.
#[derive(Clone, Copy, Debug)]
struct Access {
    issued: Timestamp,
    renew_at: Timestamp,
}

/// One process's way to Google: its kept access tokens.
#[derive(Clone, Debug, Default)]
pub struct GoogleClient {
    /// The process's clock minus Google's, in milliseconds: by it dates in `Retry-After` are read.
    pub clock_ms: i64,
    tokens: BTreeMap<u32, Access>,
}

impl GoogleClient {
    /// A client without tokens: a process that has just begun.
    #[must_use]
    pub fn new() -> Self {
        GoogleClient::default()
    }

    /// Makes one request at `now`, by the shortcut where it says the same.
    ///
    /// # Errors
    /// Whatever Google answered but a page, as core's typed failure.
    pub fn fetch(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        request: &FetchRequest,
    ) -> Result<FetchReply, Failure> {
        let user = known_user(google, request)?;
        if let Some(reply) = self.shortcut(google, now, user, request) {
            return Ok(reply);
        }
        self.the_long_way(google, now, user, request)
    }

    /// As [`GoogleClient::fetch`], but always by rendering the answer and reading it.
    ///
    /// # Errors
    /// As [`GoogleClient::fetch`].
    pub fn fetch_the_long_way(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        request: &FetchRequest,
    ) -> Result<FetchReply, Failure> {
        let user = known_user(google, request)?;
        self.the_long_way(google, now, user, request)
    }

    // -- the shortcut ----------------------------------------------------------------------------------------------

    fn shortcut(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        user: u32,
        request: &FetchRequest,
    ) -> Option<FetchReply> {
        let FetchRequest::Events { query, .. } = request else {
            return None;
        };
        let EventsFrom::SyncToken(token) = &query.from else {
            return None;
        };
        if query.page_token.is_some() || !google.faults.spare(user) {
            return None;
        }
        let sync_hash = *google
            .sync_hashes
            .entry(query.page_size)
            .or_insert_with(|| query::sync_hash(&request_of(request)));
        let calendar = google.calendar_number(user, query.calendar.as_str())?;
        let state = google.states.get(&(user, calendar));
        if state.is_some_and(|state| state.removed || state.fixture.is_some()) {
            return None;
        }
        let source = Source {
            settings: &google.settings,
            calendar: google.calendar(user, calendar),
            user,
            role: google.access_role(user, calendar),
            summary: "",
            scope: google.scope(user, calendar),
        };
        if !list::is_unchanged(&source, sync_hash, token) {
            return None;
        }
        let (zone, role) = (source.calendar.base.zone, source.role);
        // From here on nothing can refuse but the quota, which is asked last, as it counts.
        let access = self.quick_token(google, now, user)?;
        if !google
            .grants
            .is_good(&google.settings, now, user, access.issued)
        {
            return None;
        }
        if let Some(quota) = &google.settings.quota {
            let admitted = google.quota.admit(quota, now, Payer::User(user));
            if admitted.is_err() {
                // A refusal counts for nothing, so the long way is refused again, in full.
                return None;
            }
        }
        google.counters.increments += 1;
        *google.counters.statuses.entry(200).or_default() += 1;
        Some(FetchReply::Events(EventsPage {
            summary: Some(google.calendar_summary(user, calendar)),
            time_zone: Some(zone.name().to_owned()),
            access_role: Some(role.text().to_owned()),
            events: Vec::new(),
            unreadable: Vec::new(),
            end: PageEnd::Done {
                sync_token: Some(token.clone()),
            },
        }))
    }

    /// The kept token, or a new one where nothing is in its way.
    fn quick_token(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        user: u32,
    ) -> Option<Access> {
        let kept = self.tokens.get(&user).copied();
        if let Some(access) = kept.filter(|access| now < access.renew_at) {
            return Some(access);
        }
        if !google.faults.spare_tokens() || google.grants.is_revoked(user) {
            return None;
        }
        google.counters.token_requests += 1;
        *google.counters.statuses.entry(200).or_default() += 1;
        Some(self.keep(google, now, user))
    }

    // -- the long way ----------------------------------------------------------------------------------------------

    fn the_long_way(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        user: u32,
        request: &FetchRequest,
    ) -> Result<FetchReply, Failure> {
        let mut answer = self.send(google, now, user, request)?;
        if new_token_may_help(answer.status) {
            self.tokens.remove(&user);
            // A round trip lies between: a token of the very moment in which the old ones ended would end with them.
            answer = self.send(google, now.plus_ms(1), user, request)?;
        }
        let is_stop = matches!(request, FetchRequest::StopChannel { .. });
        if is_stop && is_stopped(answer.status) {
            return Ok(FetchReply::Stopped);
        }
        if answer.status != 200 {
            let retry_after_ms = wait_asked_ms(&answer, self.local(now));
            let failure = classify(answer.status, retry_after_ms, &answer.body);
            if failure.kind == FailureKind::Unauthorized {
                self.tokens.remove(&user);
            }
            return Err(failure);
        }
        if answer.delivery == Delivery::CutShort {
            return Err(Failure::transient(
                "Google Calendar broke off in the middle of an answer",
            ));
        }
        match request {
            FetchRequest::Calendars { .. } => {
                read_calendars(&answer.body).map(FetchReply::Calendars)
            }
            FetchRequest::Events { .. } => read_events(&answer.body).map(FetchReply::Events),
            FetchRequest::Watch { .. } => read_watched(&answer.body).map(FetchReply::Watched),
            FetchRequest::StopChannel { .. } => unreachable!("200 is as good as stopped"),
        }
    }

    fn send(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        user: u32,
        request: &FetchRequest,
    ) -> Result<Response, Failure> {
        let access = self.token(google, now, user)?;
        let caller = Caller {
            user,
            delegated: false,
        };
        let token = access_token(&google.settings, caller, access.issued);
        let request =
            request_at(request, now).with_header("authorization", format!("Bearer {token}"));
        let answer = google.handle(now, &request);
        if answer.delivery == Delivery::Lost {
            return Err(Failure::transient("Google Calendar gave no answer"));
        }
        Ok(answer)
    }

    fn token(
        &mut self,
        google: &mut GoogleEmulator,
        now: Timestamp,
        user: u32,
    ) -> Result<Access, Failure> {
        let kept = self.tokens.get(&user).copied();
        if let Some(access) = kept.filter(|access| now < access.renew_at) {
            return Ok(access);
        }
        let life_ms = life_ms(google);
        match ask_for_token(google, now, self.local(now), user) {
            Ok(()) => Ok(self.keep(google, now, user)),
            Err(failure) => {
                let may_pass = matches!(
                    failure.kind,
                    FailureKind::Transient { .. } | FailureKind::Limited { .. }
                );
                let old = kept.filter(|old| may_pass && now < old.issued.plus_ms(life_ms));
                let Some(old) = old else {
                    self.tokens.remove(&user);
                    return Err(failure);
                };
                let access = Access {
                    renew_at: now.plus_ms(RENEWAL_PAUSE_MS),
                    ..old
                };
                self.tokens.insert(user, access);
                Ok(access)
            }
        }
    }

    fn local(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_ms(now.as_ms().saturating_add(self.clock_ms))
    }

    fn keep(&mut self, google: &GoogleEmulator, now: Timestamp, user: u32) -> Access {
        let access = Access {
            issued: now,
            renew_at: now.plus_ms(life_ms(google) / 5 * 4),
        };
        self.tokens.insert(user, access);
        access
    }
}

fn life_ms(google: &GoogleEmulator) -> u64 {
    u64::from(google.settings.access_token_life_s) * SECOND_MS
}

fn known_user(google: &GoogleEmulator, request: &FetchRequest) -> Result<u32, Failure> {
    let user = google.user(request.user().as_str());
    user.map_err(|_| Failure::new(FailureKind::Unauthorized, "there is no token for this user"))
}

/// With the body of what is posted, as the adapter makes it.
fn request_at(request: &FetchRequest, now: Timestamp) -> Request {
    let body = match request {
        FetchRequest::Calendars { .. } | FetchRequest::Events { .. } => return request_of(request),
        FetchRequest::Watch {
            user,
            channel,
            life_ms,
            ..
        } => {
            let token = channel_token(user, channel);
            watch_body(channel, WEBHOOK, &token, now.plus_ms(*life_ms))
        }
        FetchRequest::StopChannel {
            channel, resource, ..
        } => stop_body(channel, resource),
    };
    Request::post(&request_of(request).path, body)
}

fn request_of(request: &FetchRequest) -> Request {
    let mut path = "/calendar/v3".to_owned();
    for segment in request.path_segments() {
        path.push('/');
        path.extend(utf8_percent_encode(segment, NON_ALPHANUMERIC));
    }
    let parameters = request.parameters();
    parameters
        .into_iter()
        .fold(Request::get(&path), |request, (name, value)| {
            request.with_query(name, value)
        })
}

/// The only field of a token answer that says whether it is one.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
}

/// How long the answer asks to wait, as the real client reads it.
fn wait_asked_ms(answer: &Response, local: Timestamp) -> Option<u64> {
    retry_after_ms(answer.header("retry-after")?, answer.header("date"), local)
}

fn ask_for_token(
    google: &mut GoogleEmulator,
    now: Timestamp,
    local: Timestamp,
    user: u32,
) -> Result<(), Failure> {
    let token = refresh_token(google.settings.seed, user);
    let (id, secret) = match &google.settings.client {
        Some(client) => (client.id.clone(), client.secret.clone()),
        None => ("sim".to_owned(), "sim".to_owned()),
    };
    let form = format!(
        "grant_type=refresh_token&refresh_token={token}&client_id={id}&client_secret={secret}"
    );
    let answer = google.handle(now, &Request::post("/token", form));
    match (answer.delivery, answer.status) {
        (Delivery::Lost, _) => Err(Failure::transient("Google's token endpoint gave no answer")),
        (Delivery::CutShort, 200) => Err(Failure::transient(
            "Google's token endpoint broke off in the middle of an answer",
        )),
        (_, 200) => match serde_json::from_slice::<Granted>(&answer.body) {
            Ok(granted) if !granted.access_token.is_empty() => Ok(()),
            _ => Err(Failure::transient(
                "Google's token endpoint gave an answer without a token",
            )),
        },
        (_, status) => {
            let retry_after_ms = wait_asked_ms(&answer, local);
            Err(classify_token(status, retry_after_ms, &answer.body))
        }
    }
}
