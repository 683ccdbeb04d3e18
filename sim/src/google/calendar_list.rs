//! `calendarList.list`: which calendars a user has.
//!
//! In a full list what is gone is absent; in an increment it stands as `deleted`, and what did not change is absent.
//! A change of access alone is not a change of the entry (discovery document), although it ends the calendar's
//! sync tokens.

use kalends_core::rng::stable_hash;

use super::GoogleEmulator;
use super::error::ApiError;
use super::fields::{Mask, bits};
use super::json::Object;
use super::query::{flag, hash, max_results};
use super::token::{PageToken, SyncToken, TokenError};
use crate::http::Request;

const MAX_RESULTS_DEFAULT: usize = 100;
const MAX_RESULTS_MAX: usize = 250;
const LIST_SALT: u64 = 0x6c69_7374;

bits!(list_fields:
    KIND = "kind", ETAG = "etag", NEXT_PAGE_TOKEN = "nextPageToken",
    NEXT_SYNC_TOKEN = "nextSyncToken", ITEMS = "items",
);
bits!(entry_fields:
    KIND = "kind", ETAG = "etag", ID = "id", SUMMARY = "summary", TIME_ZONE = "timeZone",
    ACCESS_ROLE = "accessRole", PRIMARY = "primary", SELECTED = "selected", DELETED = "deleted",
    DEFAULT_REMINDERS = "defaultReminders", COLOR_ID = "colorId",
    BACKGROUND_COLOR = "backgroundColor", FOREGROUND_COLOR = "foregroundColor",
    CONFERENCE_PROPERTIES = "conferenceProperties", HIDDEN = "hidden",
    SUMMARY_OVERRIDE = "summaryOverride", DATA_OWNER = "dataOwner",
    DESCRIPTION = "description", LOCATION = "location",
    NOTIFICATION_SETTINGS = "notificationSettings",
    AUTO_ACCEPT_INVITATIONS = "autoAcceptInvitations",
);

/// Answers one request of a user.
pub(super) fn page(
    emulator: &GoogleEmulator,
    user: u32,
    request: &Request,
) -> Result<Vec<u8>, ApiError> {
    let seed = emulator.settings.seed;
    let mask = mask(request)?;
    let limit = max_results(request, MAX_RESULTS_DEFAULT, MAX_RESULTS_MAX)?;
    let show_deleted = flag(request, "showDeleted")?;
    let sync_token = request.parameter("syncToken");
    if sync_token.is_some() {
        check_sync_combination(request, show_deleted)?;
    }
    let scope = stable_hash(seed ^ LIST_SALT, &user.to_le_bytes());
    let page_hash = hash(request, |name| {
        ![
            "pageToken",
            "fields",
            "prettyPrint",
            "quotaUser",
            "alt",
            "access_token",
        ]
        .contains(&name)
    });
    let (since, as_of, first) = match (request.parameter("pageToken"), sync_token) {
        (Some(text), _) => {
            let token =
                PageToken::decode(text, seed).map_err(|_| ApiError::invalid_page_token())?;
            if token.scope != scope || token.query != page_hash {
                return Err(ApiError::invalid_page_token());
            }
            (token.since_us, token.as_of_us, token.generation)
        }
        (None, Some(text)) => {
            let token = SyncToken::decode(text, seed).map_err(|error| match error {
                TokenError::NotText => ApiError::invalid_sync_token(),
                TokenError::NotOurs => ApiError::full_sync_required(),
            })?;
            if token.scope != scope {
                return Err(ApiError::full_sync_required());
            }
            (Some(token.stamp_us), emulator.list_stamp_us(user), 0)
        }
        (None, None) => (None, emulator.list_stamp_us(user), 0),
    };

    let wanted = mask.bits(list_fields::NAMES);
    let entry_mask = mask
        .member("items")
        .map_or(0, |mask| mask.bits(entry_fields::NAMES));
    let mut body = Vec::with_capacity(1_024);
    let mut object = Object::begin(&mut body);
    if wanted & list_fields::KIND != 0 {
        object.text("kind", "calendar#calendarList");
    }
    if wanted & list_fields::ETAG != 0 {
        object.text("etag", &format!("\"p{as_of:o}\""));
    }
    let mut entries = Vec::new();
    let mut next = None;
    let mut count = 0;
    for calendar in first..emulator.settings.calendars_per_user.max(1) {
        let state = emulator.states.get(&(user, calendar));
        let removed = state.is_some_and(|state| state.removed);
        let changed = state.map_or(0, |state| state.list_stamp_us);
        let listed = match since {
            Some(since) => changed > since,
            None => !removed || show_deleted == Some(true),
        };
        if !listed {
            continue;
        }
        if count == limit {
            next = Some(calendar);
            break;
        }
        if count > 0 {
            entries.push(b',');
        }
        count += 1;
        write_entry(&mut entries, emulator, user, calendar, removed, entry_mask);
    }
    if wanted & list_fields::ITEMS != 0 {
        let out = object.key("items");
        out.push(b'[');
        out.extend_from_slice(&entries);
        out.push(b']');
    }
    match next {
        Some(calendar) if wanted & list_fields::NEXT_PAGE_TOKEN != 0 => {
            let token = PageToken {
                as_of_us: as_of,
                since_us: since,
                scope,
                // Lists are paged by number, and the number travels where events have their generation.
                generation: calendar,
                query: page_hash,
                number: 0,
                key: String::new(),
            };
            object.text("nextPageToken", &token.encode(seed));
        }
        None if wanted & list_fields::NEXT_SYNC_TOKEN != 0 => {
            let token = SyncToken {
                stamp_us: as_of,
                scope,
                query: 0,
            };
            object.text("nextSyncToken", &token.encode(seed));
        }
        _ => {}
    }
    object.end();
    Ok(body)
}

fn mask(request: &Request) -> Result<Mask, ApiError> {
    let mask = match request.parameter("fields") {
        None => Mask::Everything,
        Some(text) => Mask::parse(text).map_err(|at| ApiError::invalid_fields(&at))?,
    };
    if let Some(unknown) = mask.unknown(list_fields::NAMES) {
        return Err(ApiError::invalid_fields(unknown));
    }
    let entries = mask.member("items");
    if let Some(unknown) = entries.and_then(|entries| entries.unknown(entry_fields::NAMES)) {
        return Err(ApiError::invalid_fields(unknown));
    }
    Ok(mask)
}

fn check_sync_combination(request: &Request, show_deleted: Option<bool>) -> Result<(), ApiError> {
    let message = "Sync token cannot be used with this parameter.";
    for name in ["minAccessRole", "showOwnOrganizationOnly"] {
        if request.parameter(name).is_some() {
            return Err(ApiError::invalid(name, message));
        }
    }
    if show_deleted == Some(false) {
        return Err(ApiError::invalid("showDeleted", message));
    }
    if flag(request, "showHidden")? == Some(false) {
        return Err(ApiError::invalid("showHidden", message));
    }
    Ok(())
}

fn write_entry(
    out: &mut Vec<u8>,
    emulator: &GoogleEmulator,
    user: u32,
    calendar: u32,
    removed: bool,
    wanted: u64,
) {
    use entry_fields as field;
    let has = |bit: u64| wanted & bit != 0;
    let mut object = Object::begin(out);
    if has(field::KIND) {
        object.text("kind", "calendar#calendarListEntry");
    }
    if has(field::ETAG) {
        let state = emulator.states.get(&(user, calendar));
        let stamp_us = state.map_or(0, |state| state.list_stamp_us);
        object.plain("etag", |out| super::event::write_etag(out, stamp_us));
    }
    if has(field::ID) {
        object.text("id", &emulator.calendar_id(user, calendar));
    }
    if removed {
        if has(field::DELETED) {
            object.flag("deleted", true);
        }
        object.end();
        return;
    }
    if has(field::SUMMARY) {
        object.text("summary", &emulator.calendar_summary(user, calendar));
    }
    if has(field::TIME_ZONE) {
        object.text("timeZone", emulator.base(user, calendar).zone.name());
    }
    if has(field::ACCESS_ROLE) {
        object.text("accessRole", emulator.access_role(user, calendar).text());
    }
    if has(field::DEFAULT_REMINDERS) {
        object.key("defaultReminders").extend_from_slice(b"[]");
    }
    if has(field::SELECTED) {
        object.flag("selected", true);
    }
    if calendar == 0 && has(field::PRIMARY) {
        object.flag("primary", true);
    }
    object.end();
}
