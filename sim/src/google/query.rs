//! The parameters of `events.list`: read, bounded, and checked against each other.

use std::sync::{Arc, LazyLock};

use chrono_tz::Tz;
use kalends_core::google::query::EVENT_FIELDS;
use kalends_core::rng::stable_hash;
use kalends_core::time::Timestamp;

use super::error::ApiError;
use super::fields::Mask;
use super::list::page_fields;
use super::render::EventMask;
use crate::http::Request;

/// Events on a page unless asked otherwise, and at most.
const MAX_RESULTS_DEFAULT: usize = 250;
const MAX_RESULTS_MAX: usize = 2_500;

/// Not allowed together with a sync token (discovery document, `syncToken`).
const FORBIDDEN_WITH_SYNC_TOKEN: [&str; 8] = [
    "iCalUID",
    "orderBy",
    "privateExtendedProperty",
    "q",
    "sharedExtendedProperty",
    "timeMin",
    "timeMax",
    "updatedMin",
];

/// Parameters that this Google does not serve; it says so instead of answering wrongly.
const NOT_SERVED: [&str; 5] = [
    "iCalUID",
    "privateExtendedProperty",
    "q",
    "sharedExtendedProperty",
    "updatedMin",
];

/// Must stay the same from the first sync to every increment.
const PART_OF_THE_SYNC: [&str; 6] = [
    "eventTypes",
    "maxAttendees",
    "maxResults",
    "showHiddenInvitations",
    "singleEvents",
    "timeZone",
];

/// May differ from page to page: they shape the answer or say who pays.
const NOT_PART_OF_THE_PAGES: [&str; 10] = [
    "access_token",
    "alt",
    "fields",
    "key",
    "oauth_token",
    "pageToken",
    "prettyPrint",
    "quotaUser",
    "alwaysIncludeEmail",
    "userIp",
];

/// Which fields are wanted.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) page: Mask,
    pub(crate) event: EventMask,
    /// The mask of one item, for events that are kept as text.
    pub(crate) item: Mask,
}

/// What Kalends asks for, with every request: read once, as reading it took longer than the rest of an answer.
static FIELDS_OF_SYNC: LazyLock<Arc<Fields>> = LazyLock::new(|| {
    let fields = Fields::read(Some(EVENT_FIELDS));
    Arc::new(fields.expect("core asks for fields that exist"))
});

impl Fields {
    fn read(text: Option<&str>) -> Result<Self, ApiError> {
        let page = match text {
            None => Mask::Everything,
            Some(text) => Mask::parse(text).map_err(|at| ApiError::invalid_fields(&at))?,
        };
        if let Some(unknown) = page.unknown(page_fields::NAMES) {
            return Err(ApiError::invalid_fields(unknown));
        }
        let item = page.member("items").unwrap_or(&Mask::Everything).clone();
        let event = EventMask::compile(&item);
        let event = event.map_err(|unknown| ApiError::invalid_fields(&unknown))?;
        Ok(Fields { page, event, item })
    }
}

/// A checked query.
#[derive(Clone, Debug)]
pub(crate) struct EventsQuery {
    pub(crate) max_results: usize,
    pub(crate) page_token: Option<String>,
    pub(crate) sync_token: Option<String>,
    pub(crate) show_deleted: bool,
    pub(crate) time_min: Option<Timestamp>,
    pub(crate) time_max: Option<Timestamp>,
    /// `orderBy=updated`, the one order that goes with `singleEvents=false`.
    pub(crate) by_updated: bool,
    /// Empty: all.
    pub(crate) event_types: Vec<String>,
    pub(crate) attendees_max: usize,
    pub(crate) time_zone: Option<Tz>,
    pub(crate) fields: Arc<Fields>,
    /// Hash of what must not change between syncs.
    pub(crate) sync_hash: u64,
    /// Hash of what must not change between pages.
    pub(crate) page_hash: u64,
}

impl EventsQuery {
    /// Reads the parameters of a request.
    pub(crate) fn read(request: &Request) -> Result<Self, ApiError> {
        if flag(request, "singleEvents")? == Some(true) {
            let message = "This emulator serves series as series: use singleEvents=false.";
            return Err(ApiError::invalid("singleEvents", message));
        }
        let sync_token = request.parameter("syncToken").map(str::to_owned);
        let show_deleted = flag(request, "showDeleted")?;
        if sync_token.is_some() {
            check_sync_combination(request, show_deleted)?;
        }
        for name in NOT_SERVED {
            if request.parameter(name).is_some() {
                let message = format!("This emulator does not serve {name}.");
                return Err(ApiError::invalid(name, &message));
            }
        }
        let by_updated = match request.parameter("orderBy") {
            None => false,
            Some("updated") => true,
            Some(_) => {
                let message = "The requested ordering is not available for the particular query.";
                return Err(ApiError::invalid("orderBy", message));
            }
        };
        let time_min = time(request, "timeMin")?;
        let time_max = time(request, "timeMax")?;
        if let (Some(min), Some(max)) = (time_min, time_max)
            && min >= max
        {
            return Err(ApiError::empty_time_range());
        }
        let fields = match request.parameter("fields") {
            Some(text) if text == EVENT_FIELDS => Arc::clone(&FIELDS_OF_SYNC),
            text => Arc::new(Fields::read(text)?),
        };
        Ok(EventsQuery {
            max_results: max_results(request, MAX_RESULTS_DEFAULT, MAX_RESULTS_MAX)?,
            page_token: request.parameter("pageToken").map(str::to_owned),
            sync_token,
            show_deleted: show_deleted == Some(true),
            time_min,
            time_max,
            by_updated,
            event_types: all(request, "eventTypes"),
            attendees_max: attendees_max(request)?,
            time_zone: time_zone(request)?,
            fields,
            sync_hash: sync_hash(request),
            page_hash: hash(request, |name| !NOT_PART_OF_THE_PAGES.contains(&name)),
        })
    }
}

fn check_sync_combination(request: &Request, show_deleted: Option<bool>) -> Result<(), ApiError> {
    for name in FORBIDDEN_WITH_SYNC_TOKEN {
        if request.parameter(name).is_some() {
            let message = format!("Sync token cannot be used with {name}.");
            return Err(ApiError::invalid(name, &message));
        }
    }
    if show_deleted == Some(false) {
        let message = "Deletions are always part of an increment: showDeleted cannot be false.";
        return Err(ApiError::invalid("showDeleted", message));
    }
    Ok(())
}

/// Reads `maxResults`: from 1; more than `most` counts as `most`.
pub(crate) fn max_results(
    request: &Request,
    default: usize,
    most: usize,
) -> Result<usize, ApiError> {
    match request.parameter("maxResults").map(str::parse::<usize>) {
        None => Ok(default),
        Some(Ok(wanted)) if wanted >= 1 => Ok(wanted.min(most)),
        Some(_) => {
            let message = "Invalid value for maxResults: a whole number from 1 is needed.";
            Err(ApiError::invalid("maxResults", message))
        }
    }
}

/// Reads a true or false parameter.
pub(crate) fn flag(request: &Request, name: &'static str) -> Result<Option<bool>, ApiError> {
    match request.parameter(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(ApiError::invalid(
            name,
            "Invalid value: true or false is needed.",
        )),
    }
}

/// A hash of the parameters that `part` picks, whatever their order.
pub(crate) fn hash(request: &Request, part: impl Fn(&str) -> bool) -> u64 {
    let picked = request.query.iter().filter(|(name, _)| part(name));
    let mut picked: Vec<&(String, String)> = picked.collect();
    picked.sort();
    picked.iter().fold(0, |hash, (name, value)| {
        stable_hash(stable_hash(hash, name.as_bytes()), value.as_bytes())
    })
}

/// The hash of what must not change between syncs.
pub(crate) fn sync_hash(request: &Request) -> u64 {
    hash(request, |name| PART_OF_THE_SYNC.contains(&name))
}

fn all(request: &Request, name: &str) -> Vec<String> {
    let values = request.query.iter().filter(|(key, _)| key == name);
    values.map(|(_, value)| value.clone()).collect()
}

fn time(request: &Request, name: &'static str) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = request.parameter(name) else {
        return Ok(None);
    };
    match Timestamp::parse_rfc3339(text) {
        Some(at) => Ok(Some(at)),
        None => Err(ApiError::invalid(
            name,
            "Invalid value: an RFC3339 time with an offset is needed, such as 2026-03-02T09:00:00Z.",
        )),
    }
}

fn attendees_max(request: &Request) -> Result<usize, ApiError> {
    match request.parameter("maxAttendees").map(str::parse::<usize>) {
        None => Ok(usize::MAX),
        Some(Ok(most)) if most >= 1 => Ok(most),
        Some(_) => Err(ApiError::invalid("maxAttendees", "Invalid value.")),
    }
}

fn time_zone(request: &Request) -> Result<Option<Tz>, ApiError> {
    match request.parameter("timeZone").map(str::parse::<Tz>) {
        None => Ok(None),
        Some(Ok(zone)) => Ok(Some(zone)),
        Some(Err(_)) => Err(ApiError::invalid("timeZone", "Invalid time zone.")),
    }
}
