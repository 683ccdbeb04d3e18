//! Events as JSON: the fields of the discovery document's `Event`, of which a mask selects.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use chrono_tz::Tz;

use super::event::{Attendee, Event, Kind, write_etag};
use super::fields::{Mask, bits};
use super::json::{Object, write_string};
use super::person::Person;
use super::when::{When, write_date, write_local_time, write_stamp};

bits!(event_fields:
    KIND = "kind", ETAG = "etag", ID = "id", STATUS = "status", HTML_LINK = "htmlLink",
    CREATED = "created", UPDATED = "updated", SUMMARY = "summary", DESCRIPTION = "description",
    LOCATION = "location", CREATOR = "creator", ORGANIZER = "organizer", START = "start",
    END = "end", RECURRENCE = "recurrence", RECURRING_EVENT_ID = "recurringEventId",
    ORIGINAL_START_TIME = "originalStartTime", TRANSPARENCY = "transparency",
    I_CAL_UID = "iCalUID", SEQUENCE = "sequence", ATTENDEES = "attendees",
    ATTENDEES_OMITTED = "attendeesOmitted", REMINDERS = "reminders", EVENT_TYPE = "eventType",
    BIRTHDAY_PROPERTIES = "birthdayProperties",
    // Known to Google and never given by a generated event, but a fixture may hold them.
    ANYONE_CAN_ADD_SELF = "anyoneCanAddSelf", ATTACHMENTS = "attachments", COLOR_ID = "colorId",
    CONFERENCE_DATA = "conferenceData", END_TIME_UNSPECIFIED = "endTimeUnspecified",
    EVENT_LABEL_ID = "eventLabelId", EXTENDED_PROPERTIES = "extendedProperties",
    FOCUS_TIME_PROPERTIES = "focusTimeProperties", GADGET = "gadget",
    GUESTS_CAN_INVITE_OTHERS = "guestsCanInviteOthers", GUESTS_CAN_MODIFY = "guestsCanModify",
    GUESTS_CAN_SEE_OTHER_GUESTS = "guestsCanSeeOtherGuests", HANGOUT_LINK = "hangoutLink",
    LOCKED = "locked", OUT_OF_OFFICE_PROPERTIES = "outOfOfficeProperties",
    PRIVATE_COPY = "privateCopy", SOURCE = "source", VISIBILITY = "visibility",
    WORKING_LOCATION_PROPERTIES = "workingLocationProperties",
);
bits!(time_fields: DATE = "date", DATE_TIME = "dateTime", TIME_ZONE = "timeZone");
bits!(person_fields:
    EMAIL = "email", DISPLAY_NAME = "displayName", SELF = "self", ID = "id",
    ORGANIZER = "organizer", RESOURCE = "resource", OPTIONAL = "optional",
    RESPONSE_STATUS = "responseStatus", COMMENT = "comment",
    ADDITIONAL_GUESTS = "additionalGuests", ASYNC_OPERATION = "asyncOperation",
);

/// Which fields of an event are wanted, ready for use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventMask {
    own: u64,
    start: u64,
    end: u64,
    original: u64,
    creator: u64,
    organizer: u64,
    attendees: u64,
}

impl EventMask {
    /// Reads the mask of the `items` of an answer.
    ///
    /// # Errors
    /// The name of a field that events do not have.
    pub(crate) fn compile(mask: &Mask) -> Result<Self, String> {
        let part = |name: &str, names: &[&str]| match mask.member(name) {
            None => Ok(0),
            Some(part) => match part.unknown(names) {
                Some(unknown) => Err(unknown.to_owned()),
                None => Ok(part.bits(names)),
            },
        };
        if let Some(unknown) = mask.unknown(event_fields::NAMES) {
            return Err(unknown.to_owned());
        }
        Ok(EventMask {
            own: mask.bits(event_fields::NAMES),
            start: part("start", time_fields::NAMES)?,
            end: part("end", time_fields::NAMES)?,
            original: part("originalStartTime", time_fields::NAMES)?,
            creator: part("creator", person_fields::NAMES)?,
            organizer: part("organizer", person_fields::NAMES)?,
            attendees: part("attendees", person_fields::NAMES)?,
        })
    }

    /// The mask of somebody who may see only when the owner is busy.
    pub(crate) fn without_details(mut self) -> Self {
        use event_fields as field;
        self.own &= field::KIND
            | field::ETAG
            | field::ID
            | field::STATUS
            | field::START
            | field::END
            | field::RECURRENCE
            | field::RECURRING_EVENT_ID
            | field::ORIGINAL_START_TIME;
        self
    }

    fn has(&self, field: u64) -> bool {
        self.own & field != 0
    }
}

/// What an event looks like depends on who looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer {
    /// Whose calendar it is.
    pub(crate) user: u32,
    /// The zone in which times are written.
    pub(crate) zone: Tz,
    /// More guests than this are left out, but for the viewer.
    pub(crate) attendees_max: usize,
}

/// Appends what is left of a deleted event.
pub(crate) fn write_deleted(out: &mut Vec<u8>, id: &str, stamp_us: i64, mask: &EventMask) {
    let mut object = Object::begin(out);
    write_head(&mut object, id, stamp_us, "cancelled", mask);
    object.end();
}

fn write_head(object: &mut Object<'_>, id: &str, stamp_us: i64, status: &str, mask: &EventMask) {
    use event_fields as field;
    if mask.has(field::KIND) {
        object.text("kind", "calendar#event");
    }
    if mask.has(field::ETAG) {
        object.plain("etag", |out| write_etag(out, stamp_us));
    }
    if mask.has(field::ID) {
        object.text("id", id);
    }
    if mask.has(field::STATUS) {
        object.text("status", status);
    }
}

/// Appends an event.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &Event, mask: &EventMask, viewer: &Viewer) {
    use event_fields as field;
    let mut object = Object::begin(out);
    let status = event.status.text();
    write_head(&mut object, &event.id, event.stamp_us, status, mask);
    if event.is_cancelled() {
        // Of a cancelled instance Google is sure to give only its tie to the series (recorded so).
        write_instance(&mut object, event, mask, viewer);
        object.end();
        return;
    }
    if mask.has(field::HTML_LINK) {
        object.plain("htmlLink", |out| write_link(out, &event.id, viewer.user));
    }
    if mask.has(field::CREATED) {
        object.plain("created", |out| {
            write_stamp(out, event.created.as_ms() * 1_000);
        });
    }
    if mask.has(field::UPDATED) {
        object.plain("updated", |out| write_stamp(out, event.stamp_us));
    }
    for (bit, name, text) in [
        (field::SUMMARY, "summary", &event.summary),
        (field::DESCRIPTION, "description", &event.description),
        (field::LOCATION, "location", &event.location),
    ] {
        if let (true, Some(text)) = (mask.has(bit), text) {
            object.text(name, text);
        }
    }
    if mask.has(field::CREATOR) {
        write_person(object.key("creator"), event.organizer, mask.creator, viewer);
    }
    if mask.has(field::ORGANIZER) {
        let out = object.key("organizer");
        write_person(out, event.organizer, mask.organizer, viewer);
    }
    if mask.has(field::START) {
        write_when(object.key("start"), event.start, mask.start, viewer);
    }
    if mask.has(field::END) {
        write_when(object.key("end"), event.end, mask.end, viewer);
    }
    if let (true, Some(rule)) = (mask.has(field::RECURRENCE), event.rule) {
        let out = object.key("recurrence");
        out.push(b'[');
        write_string(out, &rule.line(event.start));
        out.push(b']');
    }
    write_instance(&mut object, event, mask, viewer);
    if event.transparent && mask.has(field::TRANSPARENCY) {
        object.text("transparency", "transparent");
    }
    if mask.has(field::I_CAL_UID) {
        object.plain("iCalUID", |out| {
            let series = event.instance.as_ref().map(|instance| &instance.series);
            out.extend_from_slice(series.unwrap_or(&event.id).as_bytes());
            out.extend_from_slice(b"@google.com");
        });
    }
    if mask.has(field::SEQUENCE) {
        object.number("sequence", u64::from(event.sequence));
    }
    write_attendees(&mut object, event, mask, viewer);
    if event.kind == Kind::Birthday && mask.has(field::BIRTHDAY_PROPERTIES) {
        let out = object.key("birthdayProperties");
        out.extend_from_slice(b"{\"type\":\"birthday\"}");
    }
    if mask.has(field::REMINDERS) {
        let out = object.key("reminders");
        out.extend_from_slice(b"{\"useDefault\":true}");
    }
    if mask.has(field::EVENT_TYPE) {
        object.text("eventType", event.kind.text());
    }
    object.end();
}

fn write_instance(object: &mut Object<'_>, event: &Event, mask: &EventMask, viewer: &Viewer) {
    let Some(instance) = &event.instance else {
        return;
    };
    if mask.has(event_fields::RECURRING_EVENT_ID) {
        object.text("recurringEventId", &instance.series);
    }
    if mask.has(event_fields::ORIGINAL_START_TIME) {
        let out = object.key("originalStartTime");
        write_when(out, instance.original, mask.original, viewer);
    }
}

fn write_when(out: &mut Vec<u8>, when: When, wanted: u64, viewer: &Viewer) {
    let mut object = Object::begin(out);
    match when {
        When::Date(day) => {
            if wanted & time_fields::DATE != 0 {
                object.plain("date", |out| write_date(out, day));
            }
        }
        When::Time { at, zone } => {
            if wanted & time_fields::DATE_TIME != 0 {
                object.plain("dateTime", |out| write_local_time(out, at, viewer.zone));
            }
            if wanted & time_fields::TIME_ZONE != 0 {
                object.text("timeZone", zone.name());
            }
        }
    }
    object.end();
}

fn write_person(out: &mut Vec<u8>, person: Person, wanted: u64, viewer: &Viewer) {
    let mut object = Object::begin(out);
    if wanted & person_fields::EMAIL != 0 {
        object.plain("email", |out| person.write_email(out));
    }
    if wanted & person_fields::DISPLAY_NAME != 0 {
        object.plain("displayName", |out| person.write_name(out));
    }
    if person == Person::User(viewer.user) && wanted & person_fields::SELF != 0 {
        object.flag("self", true);
    }
    object.end();
}

fn write_attendees(object: &mut Object<'_>, event: &Event, mask: &EventMask, viewer: &Viewer) {
    if event.attendees.is_empty() {
        return;
    }
    let omitted = event.attendees.len() > viewer.attendees_max;
    if omitted && mask.has(event_fields::ATTENDEES_OMITTED) {
        object.flag("attendeesOmitted", true);
    }
    if !mask.has(event_fields::ATTENDEES) {
        return;
    }
    let out = object.key("attendees");
    out.push(b'[');
    let mut first = true;
    for attendee in &event.attendees {
        if omitted && attendee.who != Person::User(viewer.user) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        write_attendee(out, attendee, event, mask.attendees, viewer);
    }
    out.push(b']');
}

fn write_attendee(
    out: &mut Vec<u8>,
    attendee: &Attendee,
    event: &Event,
    wanted: u64,
    viewer: &Viewer,
) {
    use person_fields as field;
    let has = |bit: u64| wanted & bit != 0;
    let mut object = Object::begin(out);
    if has(field::EMAIL) {
        object.plain("email", |out| {
            let from = out.len();
            attendee.who.write_email(out);
            if attendee.capitals {
                out[from].make_ascii_uppercase();
            }
        });
    }
    if has(field::DISPLAY_NAME) {
        object.plain("displayName", |out| attendee.who.write_name(out));
    }
    for (bit, name, holds) in [
        (
            field::ORGANIZER,
            "organizer",
            attendee.who == event.organizer,
        ),
        (
            field::SELF,
            "self",
            attendee.who == Person::User(viewer.user),
        ),
        (
            field::RESOURCE,
            "resource",
            matches!(attendee.who, Person::Room(_)),
        ),
        (field::OPTIONAL, "optional", attendee.optional),
    ] {
        if holds && has(bit) {
            object.flag(name, true);
        }
    }
    if has(field::RESPONSE_STATUS) {
        object.text("responseStatus", attendee.reply.text());
    }
    object.end();
}

/// A link as Google's: its `eid` is base64 of "event id, space, calendar".
fn write_link(out: &mut Vec<u8>, id: &str, user: u32) {
    out.extend_from_slice(b"https://www.google.com/calendar/event?eid=");
    let mut plain = Vec::with_capacity(id.len() + 32);
    plain.extend_from_slice(id.as_bytes());
    plain.push(b' ');
    Person::User(user).write_email(&mut plain);
    let from = out.len();
    out.resize(from + plain.len().div_ceil(3) * 4, 0);
    let written = STANDARD_NO_PAD
        .encode_slice(&plain, &mut out[from..])
        .expect("four letters for each three bytes are room enough");
    out.truncate(from + written);
}
