//! The end of a sync, where channels are made and stopped: see [`crate::push`].
//!
//! All that was read is written by then. Nothing here fails the job: what cannot be done is left to a later sync.

use super::{State, SyncMachine};
use crate::failure::{Failure, FailureKind};
use crate::google::push::Watched;
use crate::google::query::FetchRequest;
use crate::id::CalendarId;
use crate::mutant::{Mutant, planted};
use crate::push::{Channel, LEFT_OVER_MAX, PushSettings, REQUESTS_A_SYNC_MAX, Wish, channel_id};
use crate::sync::Step;
use crate::time::Timestamp;

/// What is asked about channels.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum Asked {
    /// A channel of this calendar, under this id.
    Watch { calendar: CalendarId, id: String },
    /// This channel's end; of a calendar that is kept, or of none.
    Stop {
        calendar: Option<CalendarId>,
        channel: Channel,
    },
}

/// The one that was made first, by its id.
fn older<'a>(one: &'a Channel, other: &'a Channel) -> &'a Channel {
    if one.id <= other.id { one } else { other }
}

impl SyncMachine {
    /// All calendars are done: what is there to do about channels, and then the end.
    pub(super) fn finish(&mut self, now: Timestamp) -> Step {
        let is_in_order = self.failed.is_none() && self.push_requests < REQUESTS_A_SYNC_MAX;
        match self.next_asked(now).filter(|_| is_in_order) {
            None => self.done(),
            Some(asked) => {
                self.push_requests += 1;
                self.state = State::Watching { asked };
                self.request()
            }
        }
    }

    /// Whether there is anything to make or to stop: for most fleets there is not, and costs nothing.
    pub(super) fn concerns_push(&self) -> bool {
        let mut calendars = self.cursor.calendars.values();
        self.settings.push.is_some() || calendars.any(|cursor| !cursor.watch.is_empty())
    }

    fn next_asked(&mut self, now: Timestamp) -> Option<Asked> {
        let settings = self.settings.push;
        self.cursor
            .left_over
            .retain(|channel| channel.expires_at > now);
        // Nothing here hangs on how a calendar's id is spelt.
        let mut left_over = self.cursor.left_over.iter();
        if let Some(channel) = left_over.next().map(|first| left_over.fold(first, older)) {
            let channel = channel.clone();
            return Some(Asked::Stop {
                calendar: None,
                channel,
            });
        }
        let (fence, requests) = (self.fence, self.push_requests);
        for calendar in &self.to_watch {
            let Some(cursor) = self.cursor.calendars.get_mut(calendar) else {
                continue;
            };
            cursor.watch.tidy(now);
            // What cannot be read cannot be watched either, and is asked for again when it can.
            let wanted = settings.filter(|_| cursor.unavailable_since.is_none());
            match cursor.watch.wish(now, wanted.as_ref()) {
                None => {}
                Some(Wish::Watch) => {
                    let calendar = calendar.clone();
                    let id = channel_id(fence, requests);
                    return Some(Asked::Watch { calendar, id });
                }
                Some(Wish::Stop(channel)) => {
                    let calendar = Some(calendar.clone());
                    return Some(Asked::Stop { calendar, channel });
                }
            }
        }
        None
    }

    pub(super) fn push_request(&self, asked: &Asked) -> FetchRequest {
        match asked {
            Asked::Watch { calendar, id } => FetchRequest::Watch {
                user: self.user.clone(),
                calendar: calendar.clone(),
                channel: id.clone(),
                life_ms: self.push_settings().life_ms,
            },
            Asked::Stop { channel, .. } => FetchRequest::StopChannel {
                user: self.user.clone(),
                channel: channel.id.clone(),
                resource: channel.resource.clone(),
            },
        }
    }

    fn push_settings(&self) -> PushSettings {
        self.settings.push.expect("only what is set is watched")
    }

    pub(super) fn watched(&mut self, now: Timestamp, asked: Asked, made: Watched) -> Step {
        let settings = self.push_settings();
        let Asked::Watch { calendar, id } = asked else {
            panic!("a stop was answered by a channel");
        };
        let cursor = self.cursor.calendars.get_mut(&calendar);
        let cursor = cursor.expect("the calendar is kept");
        cursor.watch.watched(now, &settings, id, made);
        self.finish(now)
    }

    pub(super) fn channel_stopped(&mut self, now: Timestamp, asked: Asked) -> Step {
        self.forget_channel(asked);
        self.finish(now)
    }

    pub(super) fn push_refused(&mut self, now: Timestamp, asked: Asked, failure: &Failure) -> Step {
        match (&asked, &failure.kind) {
            (Asked::Watch { calendar, .. }, _) => {
                let cursor = self.cursor.calendars.get_mut(calendar);
                let cursor = cursor.expect("the calendar is kept");
                cursor.watch.refused(now, failure);
            }
            // Told again at the next sync; and if that never comes, it ends by itself.
            (Asked::Stop { .. }, FailureKind::Transient { .. } | FailureKind::Limited { .. }) => {}
            (Asked::Stop { .. }, _) => self.forget_channel(asked),
        }
        // Not the next one, as it would mostly be refused, too.
        self.done()
    }

    fn forget_channel(&mut self, asked: Asked) {
        let Asked::Stop { calendar, channel } = asked else {
            panic!("a watch was answered by a stop");
        };
        self.cursor.left_over.retain(|left| left.id != channel.id);
        if let Some(cursor) = calendar.and_then(|calendar| self.cursor.calendars.get_mut(&calendar))
        {
            cursor.watch.stopped(&channel.id);
        }
    }

    /// A calendar is not kept any more: its channels are stopped at the end of the job.
    pub(super) fn calendar_removed(&mut self, calendar: &CalendarId) {
        let Some(cursor) = self.cursor.calendars.remove(calendar) else {
            return;
        };
        let room = LEFT_OVER_MAX.saturating_sub(self.cursor.left_over.len());
        let channels = cursor.watch.channels.into_iter().take(room);
        self.cursor.left_over.extend(channels);
    }

    /// When the user is due next, if the schedule says `by_schedule`: later, if every calendar is watched for long enough.
    #[must_use]
    pub fn due_after(&self, by_schedule: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let due_at = by_schedule?;
        let Some(settings) = self.settings.push else {
            return Some(due_at);
        };
        if planted(Mutant::WatchedNeverPolled) {
            return Some(due_at.max(now.plus_ms(settings.life_ms)));
        }
        let mut calendars = self.cursor.calendars.values().peekable();
        if planted(Mutant::SlowThoughUnwatched) && calendars.peek().is_some() {
            return Some(due_at.max(now.plus_ms(settings.poll_ms)));
        }
        let is_watched = calendars.peek().is_some()
            && calendars.all(|cursor| cursor.watch.outlives_poll(now, &settings));
        Some(if is_watched {
            due_at.max(now.plus_ms(settings.poll_ms))
        } else {
            due_at
        })
    }
}
