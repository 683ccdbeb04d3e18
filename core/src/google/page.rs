//! Reading an answer: a page of events or of calendars.
//!
//! One bad item never costs the page: each item is read alone, and one that is not an event is kept with the reason.

use serde::{Deserialize, Serialize};

use super::event::ApiEvent;
use crate::id::CalendarId;

/// An item that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableItem {
    /// Its id, if at least that could be read.
    pub id: Option<String>,
    /// Why it could not be read.
    pub reason: String,
}

/// What comes after this page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PageEnd {
    /// Another page; an empty page with a next one is not the end.
    Next(String),
    /// The end of the traversal, and the token for the next one.
    Done {
        /// The sync token. `None` is an answer that Google should not give: the traversal cannot be committed.
        sync_token: Option<String>,
    },
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventsPage {
    /// The calendar's title.
    pub summary: Option<String>,
    /// The calendar's time zone.
    pub time_zone: Option<String>,
    /// What the user may do with the calendar, as Google names it.
    pub access_role: Option<String>,
    /// The events that could be read, in the order in which they came.
    pub events: Vec<ApiEvent>,
    /// The items that could not.
    pub unreadable: Vec<UnreadableItem>,
    /// What comes next.
    pub end: PageEnd,
}

/// One entry of the list of calendars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarEntry {
    /// The calendar.
    pub id: CalendarId,
    /// Its title: the user's own (`summaryOverride`) before the owner's.
    pub summary: Option<String>,
    /// Its time zone.
    pub time_zone: Option<String>,
    /// What the user may do with it, as Google names it.
    pub access_role: Option<String>,
    /// It is the user's primary calendar.
    pub primary: bool,
    /// It was removed from the list.
    pub deleted: bool,
}

impl CalendarEntry {
    /// Whether its events can be read in full: not removed, and more than free or busy
    /// (calendarList, `accessRole`; unknown new roles are tried).
    #[must_use]
    pub fn readable(&self) -> bool {
        !self.deleted && !matches!(self.access_role.as_deref(), Some("freeBusyReader" | "none"))
    }
}

/// A page of the list of calendars.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalendarsPage {
    /// The entries.
    pub calendars: Vec<CalendarEntry>,
    /// The token of the next page, if there is one.
    pub next_page_token: Option<String>,
}

/// What a fetch brings back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchReply {
    /// For [`FetchRequest::Calendars`](super::query::FetchRequest::Calendars).
    Calendars(CalendarsPage),
    /// For [`FetchRequest::Events`](super::query::FetchRequest::Events).
    Events(EventsPage),
}
