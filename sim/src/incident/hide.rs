//! Hides everything personal in what a node was told.
//!
//! The rule: a text that a person or Google wrote is replaced by its pseudonym, everything that the machine decides by
//! stays. So ids, tokens, titles and addresses become pseudonyms (equal stays equal); times, versions, counts, kinds of
//! failure and Google's own words (`cancelled`, `freeBusyReader`) stay; explanations of failures become pseudonyms, because
//! nothing is decided by them. A text whose length alone decides (an id or token that is too long) is filled up to it.
//!
//! A word of Google's that is not on a list here is hidden like any other text. Names of sources, schedules and processes
//! are the operator's own and stay.

use kalends_core::failure::Failure;
use kalends_core::google::event::{ApiEvent, ApiTime};
use kalends_core::google::page::{CalendarEntry, CalendarsPage, EventsPage, FetchReply, PageEnd};
use kalends_core::google::push::Watched;
use kalends_core::id::{CalendarId, UserId};
use kalends_core::node::FanOutProgress;
use kalends_core::node::io::{EffectResult, Input};
use kalends_core::node::settings::NodeSettings;
use kalends_core::policy::spread::{Spread, phase};
use kalends_core::pseudonym::Pseudonym;
use kalends_core::push::Channel;
use kalends_core::queue::command::{Lease, LeaseRef, Refusal, Reply};
use kalends_core::queue::state::JobKey;
use kalends_core::sync::convert::{EVENT_BYTES_MAX, EVENT_ID_BYTES_MAX, text_bytes};
use kalends_core::sync::cursor::{CalendarCursor, SyncCursor};
use kalends_core::sync::{CalendarSelection, FULL_ONLY_SUFFIX, TOKEN_BYTES_MAX};
use kalends_core::time::Timestamp;

use super::hash::{Key, Names as _, PRIMARY};
use super::told::{Event, LEFT_OUT, Outcome, Page, Told, When};

/// The longest time or day that is kept as it was written, in bytes; a longer one is written anew.
const TIME_BYTES_MAX: usize = 40;
/// Google's words for what a user may do with a calendar.
const ROLES: &[&str] = &["owner", "writer", "reader", "freeBusyReader", "none"];
/// Google's words for the state of an event.
const STATUSES: &[&str] = &["confirmed", "tentative", "cancelled"];

/// Hides with one key, for one node's settings.
#[derive(Clone, Debug)]
pub struct Hider {
    key: Key,
    /// Users' pseudonyms carry their phases: something is decided by them.
    with_phase: bool,
}

impl Hider {
    pub(super) fn new(key: Key, settings: &NodeSettings) -> Self {
        Hider {
            key,
            with_phase: settings.spread == Spread::Phase,
        }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    fn text(&self, text: &str) -> String {
        self.key.pseudonym(text).text()
    }

    fn maybe(&self, text: Option<&String>) -> Option<String> {
        text.map(|text| self.text(text))
    }

    /// A text whose being longer than `bytes_max` decides something.
    fn long(&self, text: &str, bytes_max: usize) -> String {
        let mut hidden = self.text(text);
        if text.len() > bytes_max {
            hidden.extend(std::iter::repeat_n('~', bytes_max + 1 - hidden.len()));
        }
        hidden
    }

    fn token(&self, token: &str) -> String {
        self.long(token, TOKEN_BYTES_MAX)
    }

    fn word(&self, words: &[&str], text: Option<&String>) -> Option<String> {
        text.map(|text| {
            if words.contains(&text.as_str()) {
                text.clone()
            } else {
                self.text(text)
            }
        })
    }

    pub(super) fn user(&self, user: &UserId) -> UserId {
        let pseudonym = Pseudonym {
            carried: self.with_phase.then(|| phase(user)),
            ..self.key.pseudonym(user.as_str())
        };
        UserId::new(&pseudonym.text()).expect("a pseudonym is a good name")
    }

    fn calendar(&self, calendar: &CalendarId) -> CalendarId {
        if calendar.as_str() == PRIMARY {
            return calendar.clone();
        }
        let mut hidden = self.text(calendar.as_str());
        if calendar.as_str().ends_with(FULL_ONLY_SUFFIX) {
            hidden.push_str(FULL_ONLY_SUFFIX);
        }
        CalendarId::new(&hidden).expect("a pseudonym is a good name")
    }

    /// The settings with the users and calendars that they name hidden.
    pub(super) fn settings(&self, settings: &NodeSettings) -> NodeSettings {
        let mut settings = settings.clone();
        for source in &mut settings.sources {
            for (user, grant) in &mut source.enroll {
                *user = self.user(user);
                *grant = self.key.number(*grant);
            }
            if let CalendarSelection::List(calendars) = &mut source.sync.calendars {
                for calendar in calendars {
                    *calendar = self.calendar(calendar);
                }
            }
        }
        settings
    }

    /// `row_hash`: of the calendar's properties, where `input` is a page of its events
    /// ([`Node::calendar_hash`](kalends_core::node::Node::calendar_hash)).
    ///
    /// `None`: the announced time has come. Nothing personal is copied: what is not hidden here goes nowhere.
    #[must_use]
    pub fn told(&self, input: Option<&Input>, row_hash: Option<u64>) -> Told {
        match input {
            None => Told::Timeout,
            Some(Input::Wake) => Told::Wake,
            Some(Input::Layout { spread, jitter }) => Told::Layout(*spread, *jitter),
            Some(Input::Shutdown { deadline }) => Told::Shutdown(*deadline),
            Some(Input::Done { id, result }) => Told::Done(*id, self.result(result, row_hash)),
        }
    }

    fn result(&self, result: &EffectResult, row_hash: Option<u64>) -> Outcome {
        match result {
            EffectResult::Store(Ok(stamped)) => {
                Outcome::Store(stamped.now, self.reply(stamped.value.clone()))
            }
            EffectResult::Store(Err(unavailable)) => Outcome::Away(self.text(&unavailable.detail)),
            EffectResult::Fetch(Ok(FetchReply::Calendars(page))) => {
                Outcome::Calendars(self.calendars(page))
            }
            EffectResult::Fetch(Ok(FetchReply::Events(page))) => {
                Outcome::Events(self.page(page, row_hash))
            }
            EffectResult::Fetch(Ok(FetchReply::Watched(made))) => Outcome::Watched(Watched {
                resource: self.text(&made.resource),
                expires_at: made.expires_at,
            }),
            EffectResult::Fetch(Ok(FetchReply::Stopped)) => Outcome::ChannelStopped,
            EffectResult::Fetch(Err(failure)) => Outcome::FetchFailed(self.failure(failure)),
            EffectResult::Graph(Ok(reply)) => Outcome::Written(*reply),
            EffectResult::Graph(Err(failure)) => Outcome::WriteFailed(self.failure(failure)),
            EffectResult::Panicked { detail } => Outcome::Panicked(self.text(detail)),
        }
    }

    fn failure(&self, failure: &Failure) -> Failure {
        Failure::new(failure.kind.clone(), self.text(&failure.detail))
    }

    fn reply(&self, mut reply: Reply) -> Reply {
        match &mut reply {
            Reply::Enrolled { users, .. } => {
                for user in users {
                    *user = self.user(user);
                }
            }
            Reply::DueUsers { users, .. } => {
                for (_, user) in users {
                    *user = self.user(user);
                }
            }
            Reply::Claimed { leases, .. } => {
                for lease in leases {
                    self.lease(lease);
                }
            }
            Reply::Refused {
                refusal: Refusal::TooLarge { what } | Refusal::Invalid { what },
            } => LEFT_OUT.clone_into(what),
            Reply::Done
            | Reply::AlreadyDone
            | Reply::Count { .. }
            | Reply::Schedule { .. }
            | Reply::Fired { .. }
            | Reply::AlreadyFired { .. }
            | Reply::Enqueued { .. }
            | Reply::Heartbeat { .. }
            | Reply::Permit { .. }
            | Reply::GateClosed { .. }
            | Reply::Schedules { .. }
            | Reply::Refused {
                refusal: Refusal::UnknownSource { .. } | Refusal::LeaseLost,
            } => {}
            // No node asks for these; whatever a store puts here is an answer out of place, and stays one.
            Reply::User { state } => *state = None,
            Reply::Users { users } => users.clear(),
            Reply::Jobs { jobs } => jobs.clear(),
            Reply::Stats { stats } => *stats = Default::default(),
        }
        reply
    }

    fn lease(&self, lease: &mut Lease) {
        let is_sync = matches!(lease.lease.key, JobKey::Sync { .. });
        self.lease_ref(&mut lease.lease);
        lease.cursor = lease.cursor.take().map(|cursor| {
            if is_sync {
                self.cursor(&cursor)
            } else {
                self.progress(&cursor)
            }
        });
    }

    fn lease_ref(&self, lease: &mut LeaseRef) {
        if let JobKey::Sync { user, .. } = &mut lease.key {
            *user = self.user(user);
        }
    }

    /// A cursor that cannot be read is hidden whole, and cannot be read afterwards either.
    fn cursor(&self, text: &str) -> String {
        let Ok(cursor) = serde_json::from_str::<SyncCursor>(text) else {
            return self.text(text);
        };
        let hidden = |(calendar, cursor): (CalendarId, Box<CalendarCursor>)| {
            (
                self.calendar(&calendar),
                Box::new(self.calendar_cursor(*cursor)),
            )
        };
        let left_over = cursor.left_over.into_iter();
        let cursor = SyncCursor {
            left_over: left_over.map(|channel| self.channel(channel)).collect(),
            calendars: cursor.calendars.into_iter().map(hidden).collect(),
            round: cursor
                .round
                .iter()
                .map(|calendar| self.calendar(calendar))
                .collect(),
        };
        cursor.write()
    }

    fn calendar_cursor(&self, mut cursor: CalendarCursor) -> CalendarCursor {
        cursor.sync_token = cursor.sync_token.map(|token| self.token(&token));
        if let Some(pass) = &mut cursor.pass {
            pass.page_token = pass.page_token.take().map(|token| self.token(&token));
        }
        let channels = cursor.watch.channels.into_iter();
        cursor.watch.channels = channels.map(|channel| self.channel(channel)).collect();
        cursor.title = cursor.title.map(|title| self.text(&title));
        cursor.row_hash = self.key.number(cursor.row_hash);
        let hidden = |(id, _): (String, String)| (self.text(&id), LEFT_OUT.to_owned());
        cursor.quarantined = cursor.quarantined.into_iter().map(hidden).collect();
        cursor
    }

    /// Its id is made of a fencing token, and names nobody.
    fn channel(&self, channel: Channel) -> Channel {
        Channel {
            resource: self.text(&channel.resource),
            ..channel
        }
    }

    fn progress(&self, text: &str) -> String {
        let Ok(mut progress) = serde_json::from_str::<FanOutProgress>(text) else {
            return self.text(text);
        };
        progress.after = progress.after.map(|(at, user)| (at, self.user(&user)));
        serde_json::to_string(&progress).expect("plain values always become JSON")
    }

    fn calendars(&self, page: &CalendarsPage) -> CalendarsPage {
        let entry = |entry: &CalendarEntry| CalendarEntry {
            id: self.calendar(&entry.id),
            summary: self.maybe(entry.summary.as_ref()),
            time_zone: None,
            access_role: self.word(ROLES, entry.access_role.as_ref()),
            primary: entry.primary,
            deleted: entry.deleted,
        };
        CalendarsPage {
            calendars: page.calendars.iter().map(entry).collect(),
            next_page_token: page.next_page_token.as_ref().map(|token| self.token(token)),
        }
    }

    fn page(&self, page: &EventsPage, row_hash: Option<u64>) -> Page {
        let zone = row_hash.map(|hash| Pseudonym {
            name: 0,
            carried: Some(self.key.number(hash)),
        });
        let (next_page, sync_token) = match &page.end {
            PageEnd::Next(token) => (Some(self.token(token)), None),
            PageEnd::Done { sync_token } => {
                (None, sync_token.as_ref().map(|token| self.token(token)))
            }
        };
        Page {
            zone: zone.map(|zone| zone.to_string()),
            access_role: self.word(ROLES, page.access_role.as_ref()),
            events: page.events.iter().map(|event| self.event(event)).collect(),
            unreadable: page
                .unreadable
                .iter()
                .map(|item| self.maybe(item.id.as_ref().filter(|id| !id.is_empty())))
                .collect(),
            next_page,
            sync_token,
        }
    }

    fn event(&self, event: &ApiEvent) -> Event {
        Event {
            id: event.id.as_ref().map(|id| {
                if id.is_empty() {
                    String::new()
                } else {
                    self.long(id, EVENT_ID_BYTES_MAX)
                }
            }),
            etag: event.etag.as_ref().map(|etag| self.etag(etag)),
            status: self.word(STATUSES, event.status.as_ref()),
            begin: self.when(event.start.as_ref()),
            end: self.when(event.end.as_ref()),
            original_start: self.when(event.original_start_time.as_ref()),
            series: self.maybe(event.recurring_event_id.as_ref()),
            recurrence: event
                .recurrence
                .iter()
                .map(|line| self.text(line))
                .collect(),
            sequence: event.sequence,
            updated: event.updated.as_ref().map(|text| self.time(text)),
            title: self.maybe(event.summary.as_ref()),
            oversized: text_bytes(event) > EVENT_BYTES_MAX,
        }
    }

    /// Google's etag is a number, and orders the states of an event.
    fn etag(&self, etag: &str) -> String {
        let digits = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        match digits.parse::<i64>() {
            Ok(number) => format!("\"{number}\""),
            Err(_) => self.text(etag),
        }
    }

    fn when(&self, time: Option<&ApiTime>) -> Option<When> {
        let time = time?;
        let day = time.date.as_ref().map(|day| {
            let is_day = day.len() == 10
                && day
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'-');
            if is_day { day.clone() } else { self.text(day) }
        });
        Some(When(
            day,
            time.date_time.as_ref().map(|text| self.time(text)),
        ))
    }

    /// A time is digits and signs, which hide nothing; what is none is a text like any other.
    fn time(&self, text: &str) -> String {
        let of_a_time = |byte: u8| {
            byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b':' | b'.' | b'T' | b'Z')
        };
        if text.len() <= TIME_BYTES_MAX && text.bytes().all(of_a_time) {
            return text.to_owned();
        }
        match Timestamp::parse_rfc3339(text) {
            Some(at) => at.to_rfc3339(),
            None => self.text(text),
        }
    }
}
