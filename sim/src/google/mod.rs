//! Google as a value: OAuth, `calendarList.list` and `events.list`, with users whose calendars are made up, change,
//! and go wrong on demand.
//!
//! [`GoogleEmulator::handle`] takes a request and the time and gives the answer; nothing else is needed to be Google.
//! Whatever the tests, the demo or the simulator want to happen there is a method: [`GoogleEmulator::apply`] changes
//! a calendar, [`GoogleEmulator::inject`] orders a fault, [`GoogleEmulator::calendar_truth`] says what a perfect
//! reader must have in the end.
//!
//! Untouched calendars are computed, not stored, and tokens explain themselves, so users cost nothing until somebody
//! changes something of theirs.
//!
//! Invariants: equal calls give equal answers; stamps strictly grow within a calendar; a change is delivered to every
//! client that follows its tokens, at least once.

mod calendar;
mod calendar_list;
mod change;
mod client;
mod consent;
mod control;
mod counters;
mod error;
mod event;
mod fault;
mod fields;
mod fixture;
mod generator;
mod hook;
mod json;
mod list;
mod oauth;
mod person;
mod push;
mod query;
mod quota;
mod random;
mod render;
mod series;
mod settings;
mod token;
mod truth;
mod when;
mod words;

use std::collections::BTreeMap;

use kalends_core::rng::stable_hash;
use kalends_core::time::Timestamp;
use percent_encoding::percent_decode_str;

pub use calendar::AccessRole;
pub use change::{
    Change, ChangeError, DraftStart, EventDraft, GUESTS_MAX, LENGTH_MINUTES_MAX, MOVE_MINUTES_MAX,
    Patch, Repeat,
};
pub use client::GoogleClient;
pub use counters::Counters;
pub use fault::{FAULTS_WAITING_MAX, Fault, RetryAfter};
pub use fixture::{FIXTURE_EVENTS_MAX, FixtureError};
pub use hook::{channel_token, user_of_channel};
pub use push::{CHANNEL_LIFE_MS_MAX, NOTIFICATIONS_MAX, Notification, PushWeather};
pub use settings::{
    CALENDARS_PER_USER_MAX, ChangedQuery, EVENTS_PER_CALENDAR_MAX, ForgedToken, GoogleSettings,
    LimitAnswer, OauthClient, QuotaSettings, USERS_MAX,
};

pub use truth::{TruthAttendee, TruthCalendar, TruthEvent, TruthTime};

use crate::http::{Request, Response, http_date};
use calendar::{Calendar, CalendarState};
use error::ApiError;
use fault::{Faults, Place};
use generator::BaseCalendar;
use list::{Source, Tweaks};
use oauth::{Caller, Grants};
use person::{Person, user_of_email};
use query::EventsQuery;
use quota::{Payer, Quota};

/// A user and how to come in as that user.
#[derive(Clone, PartialEq, Eq)]
pub struct UserAccess {
    /// The user's address; also the id of the primary calendar.
    pub email: String,
    /// The refresh token; for convenience it is accepted as an access token, too.
    pub refresh_token: String,
}

impl std::fmt::Debug for UserAccess {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "UserAccess({}, token hidden)", self.email)
    }
}

/// There is no such user or calendar here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

impl std::fmt::Display for Unknown {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the emulator has no such user or calendar")
    }
}

impl std::error::Error for Unknown {}

/// A simulated Google.
#[derive(Clone, Debug)]
pub struct GoogleEmulator {
    settings: GoogleSettings,
    /// Only calendars that are not as they were made, by user and calendar number.
    states: BTreeMap<(u32, u32), CalendarState>,
    grants: Grants,
    quota: Quota,
    faults: Faults,
    counters: Counters,
    push: push::Push,
    /// The hash of a sync's parameters, by its page size: the shortcut's copy of what a query would be hashed to.
    sync_hashes: BTreeMap<u32, u64>,
}

/// What a path asks for.
enum Route {
    Authorize,
    Token,
    Revoke,
    CalendarList,
    Events(String),
    Watch(String),
    StopChannel,
    Unknown,
}

impl GoogleEmulator {
    /// A Google where nothing has happened yet.
    ///
    /// # Panics
    /// If the settings exceed [`USERS_MAX`], [`EVENTS_PER_CALENDAR_MAX`] or [`CALENDARS_PER_USER_MAX`].
    #[must_use]
    pub fn new(settings: GoogleSettings) -> Self {
        assert!(settings.users <= USERS_MAX, "too many users");
        assert!(
            settings.events_per_calendar <= EVENTS_PER_CALENDAR_MAX,
            "too many events"
        );
        assert!(
            settings.calendars_per_user <= CALENDARS_PER_USER_MAX,
            "too many calendars"
        );
        GoogleEmulator {
            settings,
            states: BTreeMap::new(),
            grants: Grants::default(),
            quota: Quota::default(),
            faults: Faults::default(),
            counters: Counters::default(),
            push: push::Push::default(),
            sync_hashes: BTreeMap::new(),
        }
    }

    /// What it was made of.
    #[must_use]
    pub fn settings(&self) -> &GoogleSettings {
        &self.settings
    }

    /// What was asked and answered so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// All users, with their tokens.
    pub fn users(&self) -> impl Iterator<Item = UserAccess> + '_ {
        (0..self.settings.users).map(|user| UserAccess {
            email: Person::User(user).email(),
            refresh_token: oauth::refresh_token(self.settings.seed, user),
        })
    }

    /// The ids of a user's calendars that are not removed, the primary one first.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn calendars(&self, user: &str) -> Result<Vec<String>, Unknown> {
        let user = self.user(user)?;
        let calendars = 0..self.settings.calendars_per_user.max(1);
        let there = calendars.filter(|calendar| !self.is_removed(user, *calendar));
        Ok(there
            .map(|calendar| self.calendar_id(user, calendar))
            .collect())
    }

    /// Answers a request at the time `now`.
    pub fn handle(&mut self, now: Timestamp, request: &Request) -> Response {
        let mut response = match (route(&request.path), request.method.as_str()) {
            (Route::Authorize, "GET") => {
                self.counters.consents_asked += 1;
                self.grants.authorize(&self.settings, now, request)
            }
            (Route::Token, "POST") => {
                self.counters.token_requests += 1;
                self.token(now, request)
            }
            (Route::Revoke, "POST") => {
                self.counters.revoke_requests += 1;
                self.grants.revoke_by_token(&self.settings, request)
            }
            (Route::CalendarList, "GET") => {
                self.counters.calendar_list_requests += 1;
                self.calendar_request(now, request, None)
            }
            (Route::Events(calendar), "GET") => {
                let parameter = |name| request.parameter(name).is_some();
                match (parameter("pageToken"), parameter("syncToken")) {
                    (true, _) => self.counters.further_pages += 1,
                    (false, true) => self.counters.increments += 1,
                    (false, false) => self.counters.full_passes += 1,
                }
                self.calendar_request(now, request, Some(&calendar))
            }
            (Route::Watch(calendar), "POST") => {
                self.counters.watches += 1;
                self.push_request(now, request, Some(&calendar))
            }
            (Route::StopChannel, "POST") => {
                self.counters.stops += 1;
                self.push_request(now, request, None)
            }
            _ => {
                self.counters.unknown_requests += 1;
                ApiError::not_found().response()
            }
        };
        *self.counters.statuses.entry(response.status).or_default() += 1;
        if response.header("retry-after").is_some() {
            // Every answer of Google has it; by it a client reads how far away a date is.
            response.headers.push(("date".to_owned(), http_date(now)));
        }
        response
    }

    fn token(&mut self, now: Timestamp, request: &Request) -> Response {
        let fault = self.faults.take(now, None, Place::Token);
        if let Some(answer) = fault.as_ref().and_then(Fault::answer) {
            return answer;
        }
        spoilt(fault, self.grants.token(&self.settings, now, request))
    }

    fn calendar_request(
        &mut self,
        now: Timestamp,
        request: &Request,
        calendar: Option<&str>,
    ) -> Response {
        let place = match calendar {
            Some(_) => Place::Events,
            None => Place::CalendarList,
        };
        let (user, fault) = match self.admit(now, request, place) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let answered = match calendar {
            None => calendar_list::page(self, user, request),
            Some(calendar) => self.events(user, calendar, request, fault.as_ref()),
        };
        let response = match answered {
            Ok(body) => Response::json(200, body),
            Err(error) => error.response(),
        };
        spoilt(fault, response)
    }

    /// A channel of `calendar`, or the end of one.
    fn push_request(
        &mut self,
        now: Timestamp,
        request: &Request,
        calendar: Option<&str>,
    ) -> Response {
        let (user, fault) = match self.admit(now, request, Place::Push) {
            Ok(admitted) => admitted,
            Err(refusal) => return *refusal,
        };
        let answered = match calendar {
            Some(calendar) => self
                .watch(now, user, calendar, request)
                .map(|body| Response::json(200, body)),
            None => self.stop_channel(user, request),
        };
        spoilt(fault, answered.unwrap_or_else(|error| error.response()))
    }

    /// What stands before every answer: whose request it is, the fault that waits for it, the quota.
    fn admit(
        &mut self,
        now: Timestamp,
        request: &Request,
        place: Place,
    ) -> Result<(u32, Option<Fault>), Box<Response>> {
        let caller = self
            .grants
            .authenticate(&self.settings, now, request)
            .map_err(|error| error.response())?;
        let fault = self.faults.take(now, Some(caller.user), place);
        if fault == Some(Fault::AccessTokenExpires) {
            self.grants.expire_access_tokens(now, caller.user);
        }
        if let Some(answer) = fault.as_ref().and_then(Fault::answer) {
            return Err(Box::new(answer));
        }
        if let Some(quota) = &self.settings.quota {
            self.quota.admit(quota, now, payer(caller, request))?;
        }
        Ok((caller.user, fault))
    }

    fn events(
        &mut self,
        user: u32,
        calendar: &str,
        request: &Request,
        fault: Option<&Fault>,
    ) -> Result<Vec<u8>, ApiError> {
        let calendar = self
            .calendar_number(user, calendar)
            .filter(|calendar| !self.is_removed(user, *calendar))
            .ok_or_else(ApiError::not_found)?;
        let query = EventsQuery::read(request)?;
        let tweaks = Tweaks {
            withhold_sync_token: fault == Some(&Fault::NoSyncToken),
            empty_page: fault == Some(&Fault::EmptyPage),
        };
        let source = Source {
            settings: &self.settings,
            calendar: self.calendar(user, calendar),
            user,
            role: self.access_role(user, calendar),
            summary: &self.calendar_summary(user, calendar),
            scope: self.scope(user, calendar),
        };
        let page = list::page(&source, &query, tweaks);
        let withheld = matches!(&page, Ok(page) if page.last);
        if tweaks.withhold_sync_token && !withheld {
            self.faults.push_back_unused(user, Fault::NoSyncToken);
        }
        let page = page?;
        self.counters.events_served += page.items as u64;
        Ok(page.body)
    }

    fn user(&self, email: &str) -> Result<u32, Unknown> {
        user_of_email(email, self.settings.users).ok_or(Unknown)
    }

    fn base(&self, user: u32, calendar: u32) -> BaseCalendar {
        BaseCalendar::new(
            self.settings.seed,
            user,
            calendar,
            self.settings.events_per_calendar,
            self.settings.epoch,
        )
    }

    fn calendar(&self, user: u32, calendar: u32) -> Calendar<'_> {
        Calendar {
            base: self.base(user, calendar),
            state: self.states.get(&(user, calendar)),
        }
    }

    fn is_removed(&self, user: u32, calendar: u32) -> bool {
        let state = self.states.get(&(user, calendar));
        state.is_some_and(|state| state.removed)
    }

    fn calendar_id(&self, user: u32, calendar: u32) -> String {
        calendar::calendar_id(self.settings.seed, user, calendar)
    }

    fn calendar_number(&self, user: u32, id: &str) -> Option<u32> {
        if id == "primary" {
            return Some(0);
        }
        let mut calendars = 0..self.settings.calendars_per_user.max(1);
        calendars.find(|calendar| self.calendar_id(user, *calendar) == id)
    }

    fn calendar_summary(&self, user: u32, calendar: u32) -> String {
        match calendar {
            0 => Person::User(user).email(),
            1 => "Holidays".to_owned(),
            _ => format!("Team {calendar}"),
        }
    }

    fn access_role(&self, user: u32, calendar: u32) -> AccessRole {
        let state = self.states.get(&(user, calendar));
        state
            .and_then(|state| state.role)
            .unwrap_or(match calendar {
                1 => AccessRole::Reader,
                _ => AccessRole::Owner,
            })
    }

    fn scope(&self, user: u32, calendar: u32) -> u64 {
        let place = u64::from(user) << 32 | u64::from(calendar);
        stable_hash(self.settings.seed, &place.to_le_bytes())
    }

    /// The last change of a user's list of calendars; 0 if there was none.
    fn list_stamp_us(&self, user: u32) -> i64 {
        let states = self.states.range((user, 0)..=(user, u32::MAX));
        let stamps = states.map(|(_, state)| state.list_stamp_us);
        stamps.max().unwrap_or(0)
    }
}

fn spoilt(fault: Option<Fault>, response: Response) -> Response {
    match fault {
        Some(fault) => fault.spoil(response),
        None => response,
    }
}

fn payer(caller: Caller, request: &Request) -> Payer {
    let named = request
        .parameter("quotaUser")
        .or_else(|| request.header("x-goog-quota-user"));
    match named {
        Some(name) => Payer::Named(stable_hash(0, name.as_bytes())),
        None if caller.delegated => Payer::ServiceAccount,
        None => Payer::User(caller.user),
    }
}

fn route(path: &str) -> Route {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["o", "oauth2", "v2", "auth"] => Route::Authorize,
        ["token"] | ["oauth2", "v4", "token"] => Route::Token,
        ["revoke"] => Route::Revoke,
        ["calendar", "v3", "users", "me", "calendarList"] => Route::CalendarList,
        ["calendar", "v3", "channels", "stop"] => Route::StopChannel,
        ["calendar", "v3", "calendars", calendar, "events", "watch"] => {
            match percent_decode_str(calendar).decode_utf8() {
                Ok(calendar) => Route::Watch(calendar.into_owned()),
                Err(_) => Route::Unknown,
            }
        }
        ["calendar", "v3", "calendars", calendar, "events"] => {
            match percent_decode_str(calendar).decode_utf8() {
                Ok(calendar) => Route::Events(calendar.into_owned()),
                Err(_) => Route::Unknown,
            }
        }
        _ => Route::Unknown,
    }
}
