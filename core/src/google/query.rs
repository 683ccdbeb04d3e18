//! What is asked of Google: one request for one page, as a value.
//!
//! Calendar API v3, `calendarList.list` and `events.list`. A sync token is only good for the query that made it, so
//! every parameter that shapes a traversal is in [`EventsQuery`], and [`EventsQuery::fingerprint`] is kept beside the
//! token: a changed configuration means a full pass, never undefined behaviour.

use serde::{Deserialize, Serialize};

use crate::id::{CalendarId, UserId};
use crate::rng::stable_hash;
use crate::time::Timestamp;

/// The page size used unless configured: Google's default for events.list.
pub const PAGE_SIZE_DEFAULT: u32 = 250;
/// The largest page that events.list gives (`maxResults`, discovery document of calendar.v3).
pub const PAGE_SIZE_MAX: u32 = 2_500;
/// The largest page that calendarList.list gives.
pub const CALENDAR_PAGE_SIZE: u32 = 250;

/// The `fields` mask of events.list: what the graph keeps, and nothing more.
pub const EVENT_FIELDS: &str = "kind,etag,summary,updated,timeZone,accessRole,nextPageToken,nextSyncToken,\
items(id,etag,status,summary,description,location,created,updated,sequence,iCalUID,eventType,visibility,transparency,\
start,end,endTimeUnspecified,recurrence,recurringEventId,originalStartTime,\
organizer(id,email,displayName,self),\
attendees(id,email,displayName,organizer,self,resource,optional,responseStatus),attendeesOmitted)";

/// The `fields` mask of calendarList.list.
pub const CALENDAR_FIELDS: &str = "nextPageToken,nextSyncToken,\
items(id,summary,summaryOverride,timeZone,accessRole,primary,selected,hidden,deleted)";

/// Where a traversal of events stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventsFrom {
    /// Everything that ends after the start of the window (`timeMin`), cancelled events left out.
    Full {
        /// Events that end before it are not asked for. Kept for the life of the calendar's data, so that a later full
        /// pass covers all that the graph may hold.
        window_start: Timestamp,
    },
    /// What changed since the token.
    SyncToken(String),
}

/// A request for one page of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsQuery {
    /// The calendar.
    pub calendar: CalendarId,
    /// Full or incremental.
    pub from: EventsFrom,
    /// The page, within that traversal.
    pub page_token: Option<String>,
    /// Events a page, 1 to [`PAGE_SIZE_MAX`].
    pub page_size: u32,
}

impl EventsQuery {
    /// The query parameters in a fixed order, not yet percent-encoded.
    ///
    /// `singleEvents=false` always (masters and exceptions, not instances). `showDeleted` is left at its default of
    /// false for a full pass; with a sync token deletions always come (events.list, parameter `syncToken`).
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let mut parameters = vec![
            ("maxResults", self.page_size.to_string()),
            ("singleEvents", "false".to_owned()),
            ("fields", EVENT_FIELDS.to_owned()),
        ];
        match &self.from {
            EventsFrom::Full { window_start } => {
                parameters.push(("timeMin", window_start.to_rfc3339()));
            }
            EventsFrom::SyncToken(token) => parameters.push(("syncToken", token.clone())),
        }
        if let Some(token) = &self.page_token {
            parameters.push(("pageToken", token.clone()));
        }
        parameters
    }

    /// A hash of all that must stay the same for a sync token to stay good.
    ///
    /// The page size is part of it: changing it has been seen to invalidate tokens in production.
    #[must_use]
    pub fn fingerprint(page_size: u32) -> u64 {
        let text = format!("events.list;singleEvents=false;maxResults={page_size};{EVENT_FIELDS}");
        stable_hash(0, text.as_bytes())
    }
}

/// One request to Google on behalf of one user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetchRequest {
    /// A page of the user's list of calendars, always the whole list: absence means gone.
    Calendars {
        /// Whose list.
        user: UserId,
        /// The page.
        page_token: Option<String>,
    },
    /// A page of events.
    Events {
        /// On whose behalf.
        user: UserId,
        /// What is asked.
        query: EventsQuery,
    },
    /// A push channel that tells of changes of a calendar's events (`events.watch`).
    Watch {
        /// On whose behalf.
        user: UserId,
        /// What is watched.
        calendar: CalendarId,
        /// The channel's id, never used before.
        channel: String,
        /// How long it is to live, in milliseconds.
        life_ms: u64,
    },
    /// A push channel's end (`channels.stop`).
    StopChannel {
        /// On whose behalf it was made.
        user: UserId,
        /// The channel's id.
        channel: String,
        /// Google's name of what it watches.
        resource: String,
    },
}

impl FetchRequest {
    /// On whose behalf the request is made.
    #[must_use]
    pub fn user(&self) -> &UserId {
        match self {
            FetchRequest::Calendars { user, .. }
            | FetchRequest::Events { user, .. }
            | FetchRequest::Watch { user, .. }
            | FetchRequest::StopChannel { user, .. } => user,
        }
    }

    /// The path's segments below the API's base address, not yet percent-encoded. A calendar id may hold `#` and `@`.
    #[must_use]
    pub fn path_segments(&self) -> Vec<&str> {
        match self {
            FetchRequest::Calendars { .. } => vec!["users", "me", "calendarList"],
            FetchRequest::Events { query, .. } => {
                vec!["calendars", query.calendar.as_str(), "events"]
            }
            FetchRequest::Watch { calendar, .. } => {
                vec!["calendars", calendar.as_str(), "events", "watch"]
            }
            FetchRequest::StopChannel { .. } => vec!["channels", "stop"],
        }
    }

    /// The query parameters in a fixed order, not yet percent-encoded.
    #[must_use]
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        match self {
            FetchRequest::Calendars { page_token, .. } => {
                let mut parameters = vec![
                    ("maxResults", CALENDAR_PAGE_SIZE.to_string()),
                    ("showHidden", "true".to_owned()),
                    ("fields", CALENDAR_FIELDS.to_owned()),
                ];
                if let Some(token) = page_token {
                    parameters.push(("pageToken", token.clone()));
                }
                parameters
            }
            FetchRequest::Events { query, .. } => query.parameters(),
            FetchRequest::Watch { .. } | FetchRequest::StopChannel { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_travels_with_what_google_forbids_beside_it() {
        let query = EventsQuery {
            calendar: CalendarId::new("primary").unwrap(),
            from: EventsFrom::SyncToken("t".to_owned()),
            page_token: Some("p".to_owned()),
            page_size: 250,
        };
        let parameters = query.parameters();
        let names: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "maxResults",
                "singleEvents",
                "fields",
                "syncToken",
                "pageToken"
            ]
        );
    }

    #[test]
    fn another_page_size_is_another_query() {
        assert_ne!(EventsQuery::fingerprint(250), EventsQuery::fingerprint(500));
        assert_eq!(EventsQuery::fingerprint(250), EventsQuery::fingerprint(250));
    }
}
