//! Events from a file: kept as the text they came as, and served so.
//!
//! A file is an array of events, of `{"why", "event"}` objects, one `events.list` answer, or an array of answers: the
//! first is the calendar, the others are increments that are played later. What the emulator must know of an event
//! (id, status, series, times) is read leniently; everything else passes through untouched, however odd it is.
//!
//! A series that an answer cuts short loses its exceptions behind the cut, as at Google: some come back as bare
//! cancelled ids, others are never heard of again, and neither are part of the calendar.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use kalends_core::time::{DAY_MS, Timestamp};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::fields::Mask;
use super::when::{When, parse_date};

/// The most events a file may hold.
pub const FIXTURE_EVENTS_MAX: usize = 100_000;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FixtureError {
    /// It is not JSON; says where.
    NotJson(String),
    /// It is JSON, but none of the shapes that are understood.
    Shape,
    /// It holds more than [`FIXTURE_EVENTS_MAX`] events.
    TooMany,
    /// There is no such user.
    UnknownUser,
}

impl std::fmt::Display for FixtureError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FixtureError::NotJson(why) => write!(formatter, "is not JSON: {why}"),
            FixtureError::Shape => write!(
                formatter,
                "is neither an array of events nor an answer with \"items\" nor an array of answers"
            ),
            FixtureError::TooMany => {
                write!(formatter, "holds more than {FIXTURE_EVENTS_MAX} events")
            }
            FixtureError::UnknownUser => write!(formatter, "belongs to a user who does not exist"),
        }
    }
}

impl std::error::Error for FixtureError {}

/// One event of a file.
#[derive(Clone, Debug)]
pub(crate) struct FixtureItem {
    /// The event's id; for an event without one, its place in the file.
    pub(crate) key: String,
    pub(crate) stamp_us: i64,
    /// As it is served.
    pub(crate) raw: String,
    /// Cancelled, and not an instance taken out of a live series.
    pub(crate) is_deleted: bool,
    cancelled: bool,
    pub(crate) series: Option<String>,
    /// Of an exception: where the rule had put it.
    original: Option<Timestamp>,
    /// Of a series that ends by its rule: nothing of it is later.
    until: Option<Timestamp>,
    pub(crate) starts: Option<Timestamp>,
    /// `None` if unknown or never.
    pub(crate) over: Option<Timestamp>,
    pub(crate) kind: String,
}

impl FixtureItem {
    /// Appends the event, or what a mask leaves of it.
    pub(crate) fn write(&self, out: &mut Vec<u8>, mask: &Mask) {
        if *mask == Mask::Everything {
            out.extend_from_slice(self.raw.as_bytes());
            return;
        }
        let value: Value = serde_json::from_str(&self.raw).expect("it was JSON when it was read");
        out.extend_from_slice(mask.apply(&value).to_string().as_bytes());
    }
}

/// A calendar from a file, and the increments still to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fixture {
    items: BTreeMap<String, FixtureItem>,
    waiting: VecDeque<Vec<String>>,
    /// Events without an id so far.
    nameless: usize,
}

impl Fixture {
    /// How many items are on the calendar.
    pub(crate) fn items(&self) -> usize {
        self.items.len()
    }

    /// Reads a file. Nothing is on the calendar before the first [`Fixture::play_next`].
    pub(crate) fn read(json: &str) -> Result<Self, FixtureError> {
        // Also finds what a tree cannot hold, so that every event can be read as one later.
        let _: Value =
            serde_json::from_str(json).map_err(|error| FixtureError::NotJson(error.to_string()))?;
        let batches = batches(json).ok_or(FixtureError::Shape)?;
        if batches.iter().map(Vec::len).sum::<usize>() > FIXTURE_EVENTS_MAX {
            return Err(FixtureError::TooMany);
        }
        Ok(Fixture {
            items: BTreeMap::new(),
            waiting: batches.into(),
            nameless: 0,
        })
    }

    /// Lays the next answer over the calendar; false if there is none left.
    pub(crate) fn play_next(&mut self, stamp_us: i64) -> bool {
        let Some(batch) = self.waiting.pop_front() else {
            return false;
        };
        for raw in batch {
            let item = self.item(raw, stamp_us);
            self.items.insert(item.key.clone(), item);
        }
        self.cut(stamp_us);
        self.settle();
        true
    }

    /// How many increments are still to be played.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn item(&mut self, raw: String, stamp_us: i64) -> FixtureItem {
        let value: Value = serde_json::from_str(&raw).expect("it was JSON when it was read");
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let key = text("id").unwrap_or_else(|| {
            self.nameless += 1;
            format!("~nameless-{:06}", self.nameless)
        });
        let endless = value["recurrence"].is_array();
        FixtureItem {
            key,
            stamp_us,
            is_deleted: false,
            cancelled: value["status"] == "cancelled",
            series: text("recurringEventId"),
            original: instant(&value["originalStartTime"]),
            until: series_end(&value["recurrence"]),
            starts: instant(&value["start"]).or_else(|| instant(&value["originalStartTime"])),
            // When a foreign rule ends is not worth reading: a series counts as never over.
            over: if endless {
                None
            } else {
                instant(&value["end"])
            },
            kind: text("eventType").unwrap_or_else(|| "default".to_owned()),
            raw,
        }
    }

    /// Takes away exceptions that lie behind the end of their series, unless this very answer names them.
    fn cut(&mut self, stamp_us: i64) {
        let ends: BTreeMap<String, Timestamp> = self
            .items
            .values()
            .filter(|item| item.stamp_us == stamp_us)
            .filter_map(|item| Some((item.key.clone(), item.until?)))
            .collect();
        self.items.retain(|_, item| {
            let end = item.series.as_ref().and_then(|id| ends.get(id));
            let behind = end.zip(item.original).is_some_and(|(end, at)| at > *end);
            !behind || item.stamp_us == stamp_us
        });
    }

    /// Tells deleted events from cancelled instances of live series.
    fn settle(&mut self) {
        let live = |items: &BTreeMap<String, FixtureItem>, id: &str| {
            items.get(id).is_some_and(|master| !master.cancelled)
        };
        let mut deleted = Vec::new();
        for (key, item) in &self.items {
            let of_live = item.series.as_ref().is_some_and(|id| live(&self.items, id));
            deleted.push((key.clone(), item.cancelled && !of_live));
        }
        for (key, is_deleted) in deleted {
            let item = self.items.get_mut(&key).expect("keys of this very map");
            item.is_deleted = is_deleted;
        }
    }

    /// Gone with its series, which was deleted since.
    fn is_hidden(&self, item: &FixtureItem) -> bool {
        let master = item.series.as_ref().and_then(|id| self.items.get(id));
        master.is_some_and(|master| master.cancelled && master.stamp_us >= item.stamp_us)
    }

    /// Every item after a key, in order of ids.
    pub(crate) fn items_after<'a>(
        &'a self,
        key: &str,
    ) -> impl Iterator<Item = &'a FixtureItem> + use<'a> {
        let range = (Bound::Excluded(key.to_owned()), Bound::Unbounded);
        let items = self.items.range(range).map(|(_, item)| item);
        items.filter(|item| !self.is_hidden(item))
    }

    /// Every item after a key that changed after the stamp.
    pub(crate) fn changed_after<'a>(
        &'a self,
        since_us: i64,
        key: &str,
    ) -> impl Iterator<Item = &'a FixtureItem> + use<'a> {
        let items = self.items_after(key);
        items.filter(move |item| item.stamp_us > since_us)
    }

    /// The texts of all items, for the oracle, which reads them on its own.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.items.values().map(|item| item.raw.as_str())
    }
}

/// A start or end as an instant.
fn instant(value: &Value) -> Option<Timestamp> {
    if let Some(text) = value["dateTime"].as_str() {
        return Timestamp::parse_rfc3339(text);
    }
    Some(When::Date(parse_date(value["date"].as_str()?)?).instant())
}

/// When a series ends by `UNTIL`; `None` if it does not, or if single dates may lie behind.
fn series_end(recurrence: &Value) -> Option<Timestamp> {
    let lines = recurrence.as_array()?.iter().filter_map(Value::as_str);
    let lines: Vec<&str> = lines.collect();
    if lines.iter().any(|line| line.starts_with("RDATE")) {
        return None;
    }
    let mut rules = lines.iter().filter_map(|line| line.strip_prefix("RRULE:"));
    let mut parts = rules.next()?.split(';');
    let until = parts.find_map(|part| part.strip_prefix("UNTIL="))?;
    if !until.is_ascii() {
        return None;
    }
    let (date, time) = (until.get(..8)?, until.get(8..)?);
    let day = format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..]);
    if time.is_empty() {
        // All of that day still belongs to the series.
        return Some(Timestamp::parse_rfc3339(&format!("{day}T00:00:00Z"))?.plus_ms(DAY_MS - 1));
    }
    let time = time.strip_prefix('T')?;
    let (hour, minute, second) = (time.get(..2)?, time.get(2..4)?, time.get(4..6)?);
    Timestamp::parse_rfc3339(&format!("{day}T{hour}:{minute}:{second}Z"))
}

/// One `events.list` answer, its events as text.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// An event with the reason why it is in the file.
#[derive(Deserialize)]
struct Explained<'a> {
    #[serde(rename = "why")]
    _why: String,
    #[serde(borrow)]
    event: &'a RawValue,
}

fn batches(json: &str) -> Option<Vec<Vec<String>>> {
    let texts = |answer: Answer<'_>| -> Vec<String> {
        let items = answer.items.into_iter();
        items.map(|item| item.get().to_owned()).collect()
    };
    if let Ok(answer) = serde_json::from_str::<Answer<'_>>(json) {
        return Some(vec![texts(answer)]);
    }
    match serde_json::from_str::<Vec<Answer<'_>>>(json) {
        Ok(answers) if !answers.is_empty() => {
            return Some(answers.into_iter().map(texts).collect());
        }
        _ => {}
    }
    let events = serde_json::from_str::<Vec<&RawValue>>(json).ok()?;
    let events = events.into_iter().map(|item| {
        let text = match serde_json::from_str::<Explained<'_>>(item.get()) {
            Ok(explained) => explained.event.get(),
            Err(_) => item.get(),
        };
        text.starts_with('{').then(|| text.to_owned())
    });
    Some(vec![events.collect::<Option<Vec<String>>>()?])
}
