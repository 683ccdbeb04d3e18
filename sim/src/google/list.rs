//! `events.list`: one page of a full pass or of an increment.
//!
//! A traversal is: the state at its first page, an optional stamp after which changes count, and the key of the last
//! item delivered. All three travel in the page token, so nothing is kept between pages, and whatever happens between
//! them is either still ahead of the key or delivered by the next increment.

use super::calendar::{AccessRole, Calendar, Listed};
use super::error::ApiError;
use super::fields::bits;
use super::json::Object;
use super::query::EventsQuery;
use super::render::{EventMask, Viewer, write_deleted, write_event};
use super::settings::{ChangedQuery, ForgedToken, GoogleSettings};
use super::token::{PageToken, SyncToken, TokenError};
use super::when::write_stamp;

bits!(page_fields:
    KIND = "kind", ETAG = "etag", SUMMARY = "summary", DESCRIPTION = "description",
    UPDATED = "updated", TIME_ZONE = "timeZone", ACCESS_ROLE = "accessRole",
    DEFAULT_REMINDERS = "defaultReminders", NEXT_PAGE_TOKEN = "nextPageToken",
    NEXT_SYNC_TOKEN = "nextSyncToken", ITEMS = "items",
);

/// Of an average event's JSON, to begin with a buffer of about the right size.
const EVENT_BYTES_USUAL: usize = 800;

/// Oddities that are wished for one answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tweaks {
    /// The last page comes without its sync token.
    pub(crate) withhold_sync_token: bool,
    /// The page is empty but has a next one.
    pub(crate) empty_page: bool,
}

/// What is listed, and to whom.
pub(crate) struct Source<'a> {
    pub(crate) settings: &'a GoogleSettings,
    pub(crate) calendar: Calendar<'a>,
    pub(crate) user: u32,
    pub(crate) role: AccessRole,
    pub(crate) summary: &'a str,
    /// Hash of user and calendar.
    pub(crate) scope: u64,
}

/// A page.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) body: Vec<u8>,
    /// How many items it holds.
    pub(crate) items: usize,
    /// Whether it is the last of its traversal.
    pub(crate) last: bool,
}

struct Traversal {
    as_of_us: i64,
    since_us: Option<i64>,
    number: u32,
    key: String,
}

/// Answers one request.
pub(crate) fn page(
    source: &Source<'_>,
    query: &EventsQuery,
    tweaks: Tweaks,
) -> Result<Page, ApiError> {
    let traversal = traversal(source, query)?;
    let limit = page_limit(source.settings, query.max_results, traversal.number, tweaks);
    let viewer = Viewer {
        user: source.user,
        zone: query.time_zone.unwrap_or(source.calendar.base.zone),
        attendees_max: query.attendees_max,
    };
    let event_mask = match source.role {
        AccessRole::FreeBusyReader => query.fields.event.without_details(),
        AccessRole::Owner | AccessRole::Writer | AccessRole::Reader => query.fields.event,
    };
    let wanted = query.fields.page.bits(page_fields::NAMES);
    // Room for what may come, and not for all that was asked for: 200 kB for each answer of a few events made the
    // allocator tidy up each time, which was a quarter of a large fleet's first hour.
    let items_max = limit.min(source.calendar.items_max());
    let mut body = Vec::with_capacity(1_024 + items_max * EVENT_BYTES_USUAL);
    let mut object = Object::begin(&mut body);
    write_head(&mut object, source, wanted);

    let mut key = traversal.key.clone();
    let mut count = 0;
    let mut items = candidates(source, query, &traversal);
    let shown = wanted & page_fields::ITEMS != 0;
    let mut scratch = Vec::new();
    let out = if shown {
        let out = object.key("items");
        out.push(b'[');
        out
    } else {
        &mut scratch
    };
    for item in items.by_ref().take(limit) {
        if shown {
            if count > 0 {
                out.push(b',');
            }
            write_item(out, &item, query, &event_mask, &viewer);
        }
        count += 1;
        key = key_of(&item, query);
    }
    let more = limit == 0 || items.next().is_some();
    if shown {
        out.push(b']');
    }
    if more && wanted & page_fields::NEXT_PAGE_TOKEN != 0 {
        let token = PageToken {
            as_of_us: traversal.as_of_us,
            since_us: traversal.since_us,
            scope: source.scope,
            generation: source.calendar.generation(),
            query: query.page_hash,
            number: traversal.number.saturating_add(1),
            key,
        };
        object.text("nextPageToken", &token.encode(source.settings.seed));
    }
    // Ordered lists give no sync token at all (seen with every client library).
    let gives_token = !more && !query.by_updated && !tweaks.withhold_sync_token;
    if gives_token && wanted & page_fields::NEXT_SYNC_TOKEN != 0 {
        let token = SyncToken {
            stamp_us: traversal.as_of_us,
            scope: sync_scope(source),
            query: query.sync_hash,
        };
        object.text("nextSyncToken", &token.encode(source.settings.seed));
    }
    object.end();
    Ok(Page {
        body,
        items: count,
        last: !more,
    })
}

/// Whether `text` is a sync token with which this calendar's next increment, for a query of this hash, is one empty page
/// that ends with the very same token.
pub(crate) fn is_unchanged(source: &Source<'_>, sync_hash: u64, text: &str) -> bool {
    let Ok(token) = SyncToken::decode(text, source.settings.seed) else {
        return false;
    };
    token.query == sync_hash
        && token.stamp_us == source.calendar.last_stamp_us()
        && token.scope == sync_scope(source)
}

/// A sync token belongs to user, calendar and generation.
fn sync_scope(source: &Source<'_>) -> u64 {
    let generation = source.calendar.generation();
    kalends_core::rng::stable_hash(source.scope, &generation.to_le_bytes())
}

fn traversal(source: &Source<'_>, query: &EventsQuery) -> Result<Traversal, ApiError> {
    if let Some(text) = &query.page_token {
        let token = PageToken::decode(text, source.settings.seed)
            .map_err(|_| ApiError::invalid_page_token())?;
        if token.scope != source.scope || token.query != query.page_hash {
            return Err(ApiError::invalid_page_token());
        }
        if token.since_us.is_some() && token.generation != source.calendar.generation() {
            return Err(ApiError::full_sync_required());
        }
        return Ok(Traversal {
            as_of_us: token.as_of_us,
            since_us: token.since_us,
            number: token.number,
            key: token.key,
        });
    }
    let since_us = match &query.sync_token {
        None => None,
        Some(text) => Some(since(source, query, text)?),
    };
    Ok(Traversal {
        as_of_us: source.calendar.last_stamp_us(),
        since_us,
        number: 1,
        key: String::new(),
    })
}

fn since(source: &Source<'_>, query: &EventsQuery, text: &str) -> Result<i64, ApiError> {
    let settings = source.settings;
    let token = match SyncToken::decode(text, settings.seed) {
        Ok(token) => token,
        Err(error) => {
            return Err(match (settings.forged_token, error) {
                (ForgedToken::BadRequest, _) | (ForgedToken::ByShape, TokenError::NotText) => {
                    ApiError::invalid_sync_token()
                }
                (ForgedToken::Gone, _) | (ForgedToken::ByShape, TokenError::NotOurs) => {
                    ApiError::full_sync_required()
                }
            });
        }
    };
    if token.scope != sync_scope(source) {
        return Err(ApiError::full_sync_required());
    }
    if token.query != query.sync_hash {
        return Err(match settings.changed_query {
            ChangedQuery::Gone => ApiError::full_sync_required(),
            ChangedQuery::BadRequest => ApiError::invalid_sync_token(),
        });
    }
    Ok(token.stamp_us)
}

fn page_limit(settings: &GoogleSettings, wanted: usize, number: u32, tweaks: Tweaks) -> usize {
    let due = |every: u32| every > 0 && number.is_multiple_of(every);
    // Every page empty would never end.
    let empty_every = match settings.empty_page_every {
        1 => 2,
        every => every,
    };
    if tweaks.empty_page || due(empty_every) {
        return 0;
    }
    if due(settings.short_page_every) {
        return (wanted / 2).max(1);
    }
    wanted
}

/// What the rest of the traversal consists of.
fn candidates<'a>(
    source: &Source<'a>,
    query: &'a EventsQuery,
    traversal: &Traversal,
) -> Box<dyn Iterator<Item = Listed<'a>> + 'a> {
    let calendar = source.calendar;
    if let Some(since_us) = traversal.since_us {
        let changed = calendar.changed_after(since_us, &traversal.key);
        return Box::new(changed.filter(|item| is_wanted_kind(item, query)));
    }
    if !query.by_updated {
        let items = calendar.items_after(&traversal.key);
        return Box::new(items.filter(|item| is_in_full_pass(item, query)));
    }
    let all = calendar.items_after("");
    let mut all: Vec<(String, Listed<'a>)> = all
        .filter(|item| is_in_full_pass(item, query))
        .map(|item| (key_of(&item, query), item))
        .filter(|(key, _)| key.as_str() > traversal.key.as_str())
        .collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    Box::new(all.into_iter().map(|(_, item)| item))
}

fn key_of(item: &Listed<'_>, query: &EventsQuery) -> String {
    if query.by_updated {
        format!("{:020}{}", item.stamp_us(), item.id())
    } else {
        item.id().to_owned()
    }
}

fn is_wanted_kind(item: &Listed<'_>, query: &EventsQuery) -> bool {
    if query.event_types.is_empty() {
        return true;
    }
    let kind = match item {
        Listed::Event(event) => event.kind.text(),
        // What is deleted has no kind any more; it must be heard of.
        Listed::Deleted { .. } => return true,
        Listed::Fixture(item) => &item.kind,
    };
    query.event_types.iter().any(|wanted| wanted == kind)
}

fn is_in_full_pass(item: &Listed<'_>, query: &EventsQuery) -> bool {
    let (starts, over) = match item {
        Listed::Deleted { .. } => return query.show_deleted,
        Listed::Event(event) => (Some(event.start.instant()), event.over_at()),
        Listed::Fixture(item) => {
            if item.is_deleted && !query.show_deleted {
                return false;
            }
            (item.starts, item.over)
        }
    };
    let begins_in_time = match (query.time_max, starts) {
        (Some(max), Some(start)) => start < max,
        _ => true,
    };
    let ends_in_time = match (query.time_min, over) {
        (Some(min), Some(end)) => end > min,
        _ => true,
    };
    begins_in_time && ends_in_time && is_wanted_kind(item, query)
}

fn write_item(
    out: &mut Vec<u8>,
    item: &Listed<'_>,
    query: &EventsQuery,
    event_mask: &EventMask,
    viewer: &Viewer,
) {
    match item {
        Listed::Event(event) => write_event(out, event, event_mask, viewer),
        Listed::Deleted { id, stamp_us } => write_deleted(out, id, *stamp_us, event_mask),
        Listed::Fixture(item) => item.write(out, &query.fields.item),
    }
}

fn write_head(object: &mut Object<'_>, source: &Source<'_>, wanted: u64) {
    use page_fields as field;
    let stamp_us = source.calendar.last_stamp_us();
    if wanted & field::KIND != 0 {
        object.text("kind", "calendar#events");
    }
    if wanted & field::ETAG != 0 {
        object.text("etag", &format!("\"p{stamp_us:o}\""));
    }
    if wanted & field::SUMMARY != 0 {
        object.text("summary", source.summary);
    }
    if wanted & field::DESCRIPTION != 0 {
        object.text("description", "");
    }
    if wanted & field::UPDATED != 0 {
        object.plain("updated", |out| write_stamp(out, stamp_us));
    }
    if wanted & field::TIME_ZONE != 0 {
        object.text("timeZone", source.calendar.base.zone.name());
    }
    if wanted & field::ACCESS_ROLE != 0 {
        object.text("accessRole", source.role.text());
    }
    if wanted & field::DEFAULT_REMINDERS != 0 {
        let out = object.key("defaultReminders");
        out.extend_from_slice(b"[{\"method\":\"popup\",\"minutes\":10}]");
    }
}
