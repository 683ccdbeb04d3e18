//! The wire form of one event (Calendar API v3, resource `Event`), read leniently: every field may be missing, an
//! unknown field is passed over, an unknown value of a known field is kept as text.

use serde::{Deserialize, Serialize};

/// A point in time or a day, as Google writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiTime {
    /// A day, `yyyy-mm-dd`, for all-day events.
    pub date: Option<String>,
    /// RFC 3339 with an offset.
    pub date_time: Option<String>,
    /// The time zone's name; meaningless for days.
    pub time_zone: Option<String>,
}

/// Somebody: organizer or attendee.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiPerson {
    /// The profile id, if there is one.
    pub id: Option<String>,
    /// The address; may be missing.
    pub email: Option<String>,
    /// The name.
    pub display_name: Option<String>,
    /// This is the calendar's owner.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Attendees only: is the organizer.
    pub organizer: bool,
    /// Attendees only: is a room or a device.
    pub resource: bool,
    /// Attendees only: need not come.
    pub optional: bool,
    /// Attendees only: `needsAction`, `declined`, `tentative`, `accepted`, or something newer.
    pub response_status: Option<String>,
}

/// One event. See the resource `Event` for the meaning of each field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // each is Google's field of the same name
pub struct ApiEvent {
    pub id: Option<String>,
    pub etag: Option<String>,
    pub status: Option<String>,
    pub summary: Option<String>,
    pub description: Option<String>,
    pub location: Option<String>,
    pub created: Option<String>,
    pub updated: Option<String>,
    pub sequence: Option<i64>,
    #[serde(rename = "iCalUID")]
    pub ical_uid: Option<String>,
    pub event_type: Option<String>,
    pub visibility: Option<String>,
    pub transparency: Option<String>,
    pub start: Option<ApiTime>,
    pub end: Option<ApiTime>,
    pub end_time_unspecified: bool,
    pub recurrence: Vec<String>,
    pub recurring_event_id: Option<String>,
    pub original_start_time: Option<ApiTime>,
    pub organizer: Option<ApiPerson>,
    pub attendees: Vec<ApiPerson>,
    pub attendees_omitted: bool,
}
