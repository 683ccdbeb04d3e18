//! Reading an answer: a page of events or of calendars.
//!
//! One bad item never costs the page: each item is read alone, and one that is not an event is kept with the reason.
//! What is not a page at all (not JSON, cut off, an error's body under HTTP 200, a proxy's HTML) is a bad answer, and
//! that is transient: it says nothing about the calendar, and least of all that nothing changed.
//!
//! Bounds: the adapter reads at most [`BODY_BYTES_MAX`], a page holds at most [`ITEMS_MAX`] items, and no value is
//! followed deeper than the few levels that are known.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::ApiEvent;
use super::lenient::{List, flag_or_false, lenient, reason, text_or_nothing};
use super::push::Watched;
use crate::failure::Failure;
use crate::google::query::PAGE_SIZE_MAX;
use crate::id::CalendarId;

/// The largest body that an adapter reads, after decompression, in bytes. A full page of 2,500 events with long
/// descriptions stays below it; a larger one is a bad answer.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most items on one page: what `maxResults` can ask for at most (discovery document of calendar.v3).
pub const ITEMS_MAX: usize = PAGE_SIZE_MAX as usize;

/// The longest id that is kept of an unreadable item, in characters: the longest that events.insert takes.
const UNREADABLE_ID_CHARS_MAX: usize = 1_024;

/// Reads a page of events.
///
/// # Errors
/// Transient, if the body is not a page of events: not JSON, cut off, an error's body, or more than [`ITEMS_MAX`] items.
pub fn read_events(body: &[u8]) -> Result<EventsPage, Failure> {
    let page = read_page(body)?;
    let next_page_token = token(page.next_page_token, "nextPageToken")?;
    let next_sync_token = token(page.next_sync_token, "nextSyncToken")?;
    // With both, the traversal goes on: the sync token would skip what the next page holds.
    let end = match next_page_token {
        Some(next) => PageEnd::Next(next),
        None => PageEnd::Done {
            sync_token: next_sync_token,
        },
    };
    let items = items(&page);
    let mut events = Vec::with_capacity(items.len());
    let mut unreadable = Vec::new();
    for item in items {
        match serde_json::from_str::<ApiEvent>(item.get()) {
            Ok(event) => events.push(event),
            Err(error) => unreadable.push(UnreadableItem {
                id: readable_id(item),
                reason: reason(&error),
            }),
        }
    }
    Ok(EventsPage {
        summary: text_or_nothing(page.summary),
        time_zone: text_or_nothing(page.time_zone),
        access_role: text_or_nothing(page.access_role),
        events,
        unreadable,
        end,
    })
}

/// Reads a page of the list of calendars.
///
/// An entry without a usable id is dropped: it could not be asked for. Any other field of a wrong type counts as
/// missing, because dropping the entry would say that the calendar is gone.
///
/// # Errors
/// Transient, if the body is not a page: not JSON, cut off, an error's body, or more than [`ITEMS_MAX`] items.
pub fn read_calendars(body: &[u8]) -> Result<CalendarsPage, Failure> {
    let page = read_page(body)?;
    let next_page_token = token(page.next_page_token, "nextPageToken")?;
    let calendars = items(&page).iter().filter_map(|item| read_entry(item));
    Ok(CalendarsPage {
        calendars: calendars.collect(),
        next_page_token,
    })
}

fn read_page(body: &[u8]) -> Result<RawPage<'_>, Failure> {
    let not_a_page =
        |why: &str| Failure::transient(format!("Google's answer is not a page: {why}"));
    let text = std::str::from_utf8(body).map_err(|_| not_a_page("it is not UTF-8"))?;
    let page: RawPage<'_> = serde_json::from_str(text)
        .map_err(|error| not_a_page(&format!("{} ({} bytes)", reason(&error), text.len())))?;
    match page.error {
        Some(_) => Err(not_a_page(
            "it holds an error, although its status says success",
        )),
        None => Ok(page),
    }
}

fn items<'page, 'body>(page: &'page RawPage<'body>) -> &'page [&'body RawValue] {
    match &page.items {
        Some(list) => &list.0,
        None => &[],
    }
}

/// A token is either usable or missing; anything else would lose the place in the traversal.
fn token(raw: Option<&RawValue>, field: &str) -> Result<Option<String>, Failure> {
    let Some(raw) = raw else { return Ok(None) };
    match serde_json::from_str::<String>(raw.get()) {
        Ok(token) => Ok(Some(token).filter(|token| !token.is_empty())),
        Err(_) => Err(Failure::transient(format!(
            "Google's answer is not a page: {field} is not text"
        ))),
    }
}

fn readable_id(item: &RawValue) -> Option<String> {
    let entry: RawEntry<'_> = serde_json::from_str(item.get()).ok()?;
    let id = text_or_nothing(entry.id)?;
    Some(id.chars().take(UNREADABLE_ID_CHARS_MAX).collect())
}

fn read_entry(item: &RawValue) -> Option<CalendarEntry> {
    let entry: RawEntry<'_> = serde_json::from_str(item.get()).ok()?;
    Some(CalendarEntry {
        id: CalendarId::new(&text_or_nothing(entry.id)?).ok()?,
        summary: text_or_nothing(entry.summary_override).or_else(|| text_or_nothing(entry.summary)),
        time_zone: text_or_nothing(entry.time_zone),
        access_role: text_or_nothing(entry.access_role),
        primary: flag_or_false(entry.primary),
        deleted: flag_or_false(entry.deleted),
    })
}

/// A page with its values still unread.
#[derive(Default)]
struct RawPage<'body> {
    summary: Option<&'body RawValue>,
    time_zone: Option<&'body RawValue>,
    access_role: Option<&'body RawValue>,
    next_page_token: Option<&'body RawValue>,
    next_sync_token: Option<&'body RawValue>,
    items: Option<List<&'body RawValue, ITEMS_MAX>>,
    error: Option<&'body RawValue>,
}

lenient!('body, RawPage<'body> {
    "summary" => summary,
    "timeZone" => time_zone,
    "accessRole" => access_role,
    "nextPageToken" => next_page_token,
    "nextSyncToken" => next_sync_token,
    "items" => items,
    "error" => error,
});

/// An entry of the list of calendars with its values still unread.
#[derive(Default)]
struct RawEntry<'body> {
    id: Option<&'body RawValue>,
    summary: Option<&'body RawValue>,
    summary_override: Option<&'body RawValue>,
    time_zone: Option<&'body RawValue>,
    access_role: Option<&'body RawValue>,
    primary: Option<&'body RawValue>,
    deleted: Option<&'body RawValue>,
}

lenient!('body, RawEntry<'body> {
    "id" => id,
    "summary" => summary,
    "summaryOverride" => summary_override,
    "timeZone" => time_zone,
    "accessRole" => access_role,
    "primary" => primary,
    "deleted" => deleted,
});

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
    /// For [`FetchRequest::Watch`](super::query::FetchRequest::Watch).
    Watched(Watched),
    /// For [`FetchRequest::StopChannel`](super::query::FetchRequest::StopChannel): it has ended, or there was none.
    Stopped,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::FailureKind;

    const PAGE: &str = r#"{
      "kind": "calendar#events", "etag": "\"p33\"", "summary": "Ada's days", "timeZone": "Europe/Oslo",
      "accessRole": "owner", "nextSyncToken": "sync-7",
      "items": [
        {"id": "lunch1", "status": "confirmed", "summary": "Lunch \u00e6", "eventType": "default",
         "start": {"dateTime": "2026-05-04T12:00:00+02:00"}, "end": {"dateTime": "2026-05-04T13:00:00+02:00"}},
        {"id": "gone1", "status": "cancelled"}
      ]}"#;

    fn transient(result: Result<EventsPage, Failure>) -> String {
        let failure = result.unwrap_err();
        let kind = FailureKind::Transient {
            retry_after_ms: None,
        };
        assert_eq!(failure.kind, kind, "{failure}");
        failure.detail
    }

    #[test]
    fn a_page_is_read_in_order() {
        let page = read_events(PAGE.as_bytes()).unwrap();
        assert_eq!(page.summary.as_deref(), Some("Ada's days"));
        assert_eq!(page.time_zone.as_deref(), Some("Europe/Oslo"));
        assert_eq!(page.access_role.as_deref(), Some("owner"));
        let ids: Vec<_> = page
            .events
            .iter()
            .map(|event| event.id.as_deref())
            .collect();
        assert_eq!(ids, [Some("lunch1"), Some("gone1")]);
        assert_eq!(page.events[0].summary.as_deref(), Some("Lunch æ"));
        assert_eq!(page.unreadable, []);
        let sync_token = Some("sync-7".to_owned());
        assert_eq!(page.end, PageEnd::Done { sync_token });
    }

    #[test]
    fn only_the_page_token_says_that_there_is_more() {
        let end = |body: &str| read_events(body.as_bytes()).unwrap().end;
        assert_eq!(
            end(r#"{"items":[],"nextPageToken":"p2"}"#),
            PageEnd::Next("p2".to_owned())
        );
        assert_eq!(
            end(r#"{"nextSyncToken":"s","nextPageToken":"p2"}"#),
            PageEnd::Next("p2".to_owned())
        );
        for body in [
            "{}",
            r#"{"items":null,"nextPageToken":null,"nextSyncToken":""}"#,
        ] {
            assert_eq!(end(body), PageEnd::Done { sync_token: None }, "{body}");
        }
    }

    #[test]
    fn one_bad_item_never_costs_the_page() {
        let page = read_events(
            r#"{"summary": 5, "summary": ["x"], "items": [
                {"id":"a"}, {"id":"b","start":7,"summary":"private"}, 17, {"id":{},"end":[]},
                {"id":"c","summary":"\ud800 private"}, {"id":"d","eventType":"holographicMeeting"}],
                "nextPageToken":"p"}"#
                .as_bytes(),
        )
        .unwrap();
        let read: Vec<_> = page
            .events
            .iter()
            .map(|event| event.id.as_deref())
            .collect();
        assert_eq!(read, [Some("a"), Some("d")]);
        assert_eq!(page.summary, None);
        let bad: Vec<_> = page
            .unreadable
            .iter()
            .map(|item| (item.id.as_deref(), item.reason.as_str()))
            .collect();
        assert_eq!(
            bad,
            [
                (Some("b"), "start: must be an object"),
                (None, "must be an object"),
                (None, "id: must be a string"),
                (Some("c"), "summary: unexpected end of hex escape"),
            ]
        );
    }

    #[test]
    fn what_is_not_a_page_is_transient_and_quotes_nothing() {
        for body in [
            "",
            "private",
            "<!DOCTYPE html><title>private</title>",
            "[]",
            "\"private\"",
            r#"{"items":"private"}"#,
            r#"{"items":{"private":1}}"#,
            r#"{"nextPageToken":7}"#,
            r#"{"nextSyncToken":["private"]}"#,
            r#"{"error":{"code":503,"message":"private"}}"#,
            r#"{"items":[]} private"#,
        ] {
            let detail = transient(read_events(body.as_bytes()));
            assert!(!detail.contains("private"), "{detail}");
        }
        for cut in 0..PAGE.len() {
            if PAGE.is_char_boundary(cut) {
                let detail = transient(read_events(&PAGE.as_bytes()[..cut]));
                assert!(
                    detail.contains("EOF") && detail.ends_with(&format!("({cut} bytes)")),
                    "{detail}"
                );
            }
        }
        transient(read_events(b"{\"summary\":\"\xff\"}"));
    }

    #[test]
    fn a_page_is_bounded() {
        let page = |items: usize| format!(r#"{{"items":[{}]}}"#, vec!["{}"; items].join(","));
        assert_eq!(
            read_events(page(ITEMS_MAX).as_bytes())
                .unwrap()
                .events
                .len(),
            2_500
        );
        let detail = transient(read_events(page(ITEMS_MAX + 1).as_bytes()));
        assert!(
            detail.contains("items: has more than 2500 elements"),
            "{detail}"
        );

        // However deep an unknown value is, it is passed over; a known one is not followed.
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let body =
            format!(r#"{{"x":{deep},"items":[{{"id":"a","y":{deep}}},{{"start":{deep}}}]}}"#);
        let page = read_events(body.as_bytes()).unwrap();
        assert_eq!((page.events.len(), page.unreadable.len()), (1, 1));
    }

    #[test]
    fn calendars_are_kept_as_far_as_they_can_be_read() {
        let long = "x".repeat(321);
        let body = format!(
            r#"{{"nextPageToken":"p","items":[
              {{"id":"ada@example.com","summary":"ada@example.com","summaryOverride":"Mine","primary":true,
                "accessRole":"owner","timeZone":"Europe/Oslo","hidden":false}},
              {{"id":"busy@example.com","accessRole":"freeBusyReader","summaryOverride":null,"summary":"B"}},
              {{"id":"odd@example.com","accessRole":7,"deleted":"yes","primary":null,"timeZone":{{}}}},
              {{"id":"left@example.com","deleted":true}},
              {{"id":""}}, {{"id":"a\nb"}}, {{"id":"{long}"}}, {{"id":5}}, {{"summary":"nameless"}}, null, 8]}}"#
        );
        let page = read_calendars(body.as_bytes()).unwrap();
        assert_eq!(page.next_page_token.as_deref(), Some("p"));
        let seen: Vec<_> = page
            .calendars
            .iter()
            .map(|entry| {
                (
                    entry.id.as_str(),
                    entry.summary.as_deref(),
                    entry.primary,
                    entry.readable(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("ada@example.com", Some("Mine"), true, true),
                ("busy@example.com", Some("B"), false, false),
                ("odd@example.com", None, false, true),
                ("left@example.com", None, false, false),
            ]
        );
        assert!(read_calendars(br#"{"error":{}}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_a_reader(body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = read_events(&body);
            let _ = read_calendars(&body);
        }

        /// A page with some bytes changed comes closer to the dark corners than noise does.
        #[test]
        fn no_damaged_page_panics_a_reader(
            changes in proptest::collection::vec((0..PAGE.len(), any::<u8>()), 1..12),
            cut in 0..=PAGE.len(),
        ) {
            let mut body = PAGE.as_bytes()[..cut].to_vec();
            for (at, byte) in changes {
                if let Some(place) = body.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = read_calendars(&body);
            if let Ok(page) = read_events(&body) {
                prop_assert!(page.events.len() + page.unreadable.len() <= ITEMS_MAX);
            }
        }
    }
}
