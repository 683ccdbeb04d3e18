//! What a node was told, with everything personal hidden ([`Hider`](super::Hider)): the input half of a journal, and how
//! a node is told it again.

use kalends_core::failure::Failure;
use kalends_core::google::event::{ApiEvent, ApiTime};
use kalends_core::google::page::{CalendarsPage, EventsPage, FetchReply, PageEnd, UnreadableItem};
use kalends_core::google::push::Watched;
use kalends_core::graph::GraphReply;
use kalends_core::node::io::{EffectId, EffectResult, Input};
use kalends_core::policy::{Jitter, Spread};
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Reply, Stamped};
use kalends_core::sync::convert::EVENT_BYTES_MAX;
use kalends_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What stands where a text was that decides nothing and that nobody needs to tell from others.
pub(super) const LEFT_OUT: &str = "(left out)";

/// One thing that a node was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// The announced time had come.
    #[serde(rename = "t")]
    Timeout,
    /// The store called.
    #[serde(rename = "w")]
    Wake,
    /// How users are laid over the period from now on.
    #[serde(rename = "l")]
    Layout(Spread, Jitter),
    /// To stop, by then.
    #[serde(rename = "x")]
    Shutdown(Timestamp),
    /// An effect ended.
    #[serde(rename = "d")]
    Done(EffectId, Outcome),
}

/// How an effect ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// The store answered, at this time of its own.
    #[serde(rename = "s")]
    Store(Timestamp, Reply),
    /// The store did not answer.
    #[serde(rename = "a")]
    Away(String),
    /// A page of the list of calendars.
    #[serde(rename = "c")]
    Calendars(CalendarsPage),
    /// A page of events.
    #[serde(rename = "e")]
    Events(Page),
    /// A push channel was made.
    #[serde(rename = "n")]
    Watched(Watched),
    /// A push channel has ended.
    #[serde(rename = "o")]
    ChannelStopped,
    /// The source refused.
    #[serde(rename = "f")]
    FetchFailed(Failure),
    /// The graph was written.
    #[serde(rename = "g")]
    Written(GraphReply),
    /// It was not.
    #[serde(rename = "h")]
    WriteFailed(Failure),
    /// An adapter panicked.
    #[serde(rename = "p")]
    Panicked(String),
}

/// A page of events. What would be empty is not written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The calendar's time zone, which carries the hash of all its properties.
    #[serde(rename = "z", default, skip_serializing_if = "Option::is_none")]
    pub(super) zone: Option<String>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) access_role: Option<String>,
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) events: Vec<Event>,
    #[serde(rename = "u", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unreadable: Vec<Option<String>>,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub(super) next_page: Option<String>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) sync_token: Option<String>,
}

/// An event: its structure as it came, its title as a pseudonym. Description, place and guests are left out: nothing is
/// decided by them, and a page has many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    pub(super) begin: Option<When>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<When>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(super) original_start: Option<When>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(super) series: Option<String>,
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) recurrence: Vec<String>,
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    pub(super) sequence: Option<i64>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) updated: Option<String>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<String>,
    /// It holds more text than an event may.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) oversized: bool,
}

/// A day, a time, both or neither.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct When(pub(super) Option<String>, pub(super) Option<String>);

impl Told {
    /// As the node hears it; `None`: its time has come.
    #[must_use]
    pub fn into_input(self) -> Option<Input> {
        match self {
            Told::Timeout => None,
            Told::Wake => Some(Input::Wake),
            Told::Layout(spread, jitter) => Some(Input::Layout { spread, jitter }),
            Told::Shutdown(deadline) => Some(Input::Shutdown { deadline }),
            Told::Done(id, outcome) => Some(Input::Done {
                id,
                result: outcome.into_result(),
            }),
        }
    }
}

impl Outcome {
    fn into_result(self) -> EffectResult {
        match self {
            Outcome::Store(now, value) => EffectResult::Store(Ok(Stamped { now, value })),
            Outcome::Away(detail) => EffectResult::Store(Err(StoreUnavailable { detail })),
            Outcome::Calendars(page) => EffectResult::Fetch(Ok(FetchReply::Calendars(page))),
            Outcome::Events(page) => EffectResult::Fetch(Ok(FetchReply::Events(page.into()))),
            Outcome::Watched(made) => EffectResult::Fetch(Ok(FetchReply::Watched(made))),
            Outcome::ChannelStopped => EffectResult::Fetch(Ok(FetchReply::Stopped)),
            Outcome::FetchFailed(failure) => EffectResult::Fetch(Err(failure)),
            Outcome::Written(reply) => EffectResult::Graph(Ok(reply)),
            Outcome::WriteFailed(failure) => EffectResult::Graph(Err(failure)),
            Outcome::Panicked(detail) => EffectResult::Panicked { detail },
        }
    }
}

impl Page {
    /// How many events it brings, readable or not.
    #[must_use]
    pub fn items(&self) -> usize {
        self.events.len() + self.unreadable.len()
    }

    /// Whether another page follows.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.next_page.is_some()
    }
}

impl From<Page> for EventsPage {
    fn from(page: Page) -> Self {
        let unreadable = |id: Option<String>| UnreadableItem {
            id,
            reason: LEFT_OUT.to_owned(),
        };
        EventsPage {
            summary: None,
            time_zone: page.zone,
            access_role: page.access_role,
            events: page.events.into_iter().map(ApiEvent::from).collect(),
            unreadable: page.unreadable.into_iter().map(unreadable).collect(),
            end: match page.next_page {
                Some(token) => PageEnd::Next(token),
                None => PageEnd::Done {
                    sync_token: page.sync_token,
                },
            },
        }
    }
}

impl From<Event> for ApiEvent {
    fn from(event: Event) -> Self {
        let time = |When(date, date_time): When| ApiTime {
            date,
            date_time,
            time_zone: None,
        };
        ApiEvent {
            id: event.id,
            etag: event.etag,
            status: event.status,
            summary: event.title,
            description: event.oversized.then(|| "~".repeat(EVENT_BYTES_MAX + 1)),
            updated: event.updated,
            sequence: event.sequence,
            start: event.begin.map(time),
            end: event.end.map(time),
            original_start_time: event.original_start.map(time),
            recurrence: event.recurrence,
            recurring_event_id: event.series,
            // Nothing is decided by what it is about, where it is and who comes.
            ..ApiEvent::default()
        }
    }
}
