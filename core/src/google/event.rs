//! The wire form of one event (Calendar API v3, resource `Event`), read leniently: every field may be missing, an
//! unknown field is passed over, an unknown value of a known field is kept as text.
//!
//! A known field of a wrong type is the one thing that makes an event unreadable: guessing at it would write something
//! into the graph that is not in the calendar.

use serde::Serialize;

use super::lenient::lenient;

/// A point in time or a day, as Google writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiTime {
    /// A day, `yyyy-mm-dd`, for all-day events.
    pub date: Option<String>,
    /// RFC 3339 with an offset.
    pub date_time: Option<String>,
    /// The time zone's name; meaningless for days.
    pub time_zone: Option<String>,
}

/// Somebody: organizer or attendee.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
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

lenient!('de, ApiTime {
    "date" => date,
    "dateTime" => date_time,
    "timeZone" => time_zone,
});

lenient!('de, ApiPerson {
    "id" => id,
    "email" => email,
    "displayName" => display_name,
    "self" => is_self,
    "organizer" => organizer,
    "resource" => resource,
    "optional" => optional,
    "responseStatus" => response_status,
});

lenient!('de, ApiEvent {
    "id" => id,
    "etag" => etag,
    "status" => status,
    "summary" => summary,
    "description" => description,
    "location" => location,
    "created" => created,
    "updated" => updated,
    "sequence" => sequence,
    "iCalUID" => ical_uid,
    "eventType" => event_type,
    "visibility" => visibility,
    "transparency" => transparency,
    "start" => start,
    "end" => end,
    "endTimeUnspecified" => end_time_unspecified,
    "recurrence" => recurrence,
    "recurringEventId" => recurring_event_id,
    "originalStartTime" => original_start_time,
    "organizer" => organizer,
    "attendees" => attendees,
    "attendeesOmitted" => attendees_omitted,
});

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ApiEvent, String> {
        serde_json::from_str(json).map_err(|error| crate::google::lenient::reason(&error))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let event = ApiEvent {
            id: Some("stand0up".to_owned()),
            sequence: Some(3),
            start: Some(ApiTime {
                date_time: Some("2026-05-04T08:15:00+02:00".to_owned()),
                time_zone: Some("Europe/Oslo".to_owned()),
                date: None,
            }),
            recurrence: vec!["RRULE:FREQ=DAILY".to_owned()],
            attendees: vec![ApiPerson {
                is_self: true,
                resource: true,
                response_status: Some("declined".to_owned()),
                ..ApiPerson::default()
            }],
            ..ApiEvent::default()
        };
        let json = serde_json::to_string(&event).unwrap();
        assert!(json.contains("\"self\":true") && json.contains("\"iCalUID\":null"));
        assert_eq!(read(&json), Ok(event));
    }

    #[test]
    fn null_is_missing_and_the_last_of_a_repeated_key_counts() {
        let event = read(
            r#"{"id":"a1","id":"a2","attendees":[null,{"email":null,"self":null}],"recurrence":null,
                "attendeesOmitted":null,"start":null,"sequence":null,"newThing":{"deep":[[[{}]]]},
                "eventType":"holographicMeeting"}"#,
        )
        .unwrap();
        assert_eq!(event.id.as_deref(), Some("a2"));
        assert_eq!(event.attendees, [ApiPerson::default()]);
        assert_eq!(event.event_type.as_deref(), Some("holographicMeeting"));
        assert_eq!((event.start, event.sequence), (None, None));
    }

    #[test]
    fn a_wrong_type_names_the_field_and_keeps_the_value_to_itself() {
        for (json, reason) in [
            (r#"{"summary":{"a":1}}"#, "summary: must be a string"),
            (
                r#"{"sequence":"private, expected x"}"#,
                "sequence: must be i64",
            ),
            (
                r#"{"sequence":99999999999999999999}"#,
                "sequence: must be i64",
            ),
            (r#"{"attendees":"private"}"#, "attendees: must be a list"),
            (r#"{"start":"private"}"#, "start: must be an object"),
            (
                r#"{"attendees":[{"email":["private"]}]}"#,
                "attendees: email: must be a string",
            ),
            (
                r#"{"attendeesOmitted":"private"}"#,
                "attendeesOmitted: must be a boolean",
            ),
            (r#""private""#, "must be an object"),
        ] {
            assert_eq!(read(json), Err(reason.to_owned()), "{json}");
        }
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let json = format!(r#"{{"recurrence":[{}""]}}"#, r#""","#.repeat(10_000));
        assert_eq!(
            read(&json),
            Err("recurrence: has more than 10000 elements".to_owned())
        );
    }
}
