//! The webhook of one process: what it answers, and how what it heard becomes a sync.
//!
//! ```text
//! headers ─► Notification::read ─► judge (the token) ─► hear: the answer, and a place in the line
//!                                                          │
//!                                 poll ─► Ask(User) ─► Ask(Enqueue), debounced ─► the queue
//!                                                 └──► Stop: a channel that nobody has any more
//! ```
//!
//! Sans-IO, like the Node: whoever has it tells what came ([`Listener::hear`], [`Listener::answered`], [`Listener::stopped`]), does
//! what [`Listener::poll`] says, and calls it again at [`Listener::wake_at`]. It asks the store one thing at a time, so a flood
//! waits in a line of bounded length and takes nothing from the syncs themselves. Nothing of it is kept when the process ends:
//! what it had heard is found by the poll behind.

use std::collections::VecDeque;

use super::hearing::{DEBOUNCE_MS, Hearing, ResourceState};
use crate::google::push::RESOURCE_BYTES_MAX;
use crate::google::query::FetchRequest;
use crate::id::{SourceName, UserId};
use crate::port::StoreUnavailable;
use crate::queue::command::{Command, NewJob, Priority, Reply, Stamped};
use crate::queue::state::UserState;
use crate::time::Timestamp;

/// Notifications that wait to be looked at; what comes beyond is told to come again.
pub const WAITING_MAX: usize = 1_024;
/// Orphans that are stopped at a time; others are left until they are heard of again.
pub const STOPS_MAX: usize = 4;
/// The store's answer is waited for so long, in milliseconds, as by the Node.
pub const ANSWER_MS_MAX: u64 = 10_000;
/// The end of an orphan is waited for so long, in milliseconds.
pub const STOP_MS_MAX: u64 = 30_000;

/// What a notification's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification<'a> {
    /// `X-Goog-Channel-ID`.
    pub channel: &'a str,
    /// `X-Goog-Channel-Token`.
    pub token: &'a str,
    /// `X-Goog-Resource-ID`, if there is one of a length that Google's have.
    pub resource: Option<&'a str>,
    /// `X-Goog-Resource-State`.
    pub state: ResourceState,
}

impl<'a> Notification<'a> {
    /// Reads a head; `header` gives the value of a header, by its name in small letters, if it is there exactly once. `None`: it
    /// is none of Google's.
    #[must_use]
    pub fn read(header: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let state = header("x-goog-resource-state").unwrap_or_default();
        Some(Notification {
            channel: header("x-goog-channel-id")?,
            token: header("x-goog-channel-token")?,
            resource: header("x-goog-resource-id").filter(|id| id.len() <= RESOURCE_BYTES_MAX),
            state: ResourceState::read(state),
        })
    }

    /// Whether it is to be believed; `user_of` tells whose channel it is if the token is the channel's.
    ///
    /// # Errors
    /// The answer, if there is nothing to hear.
    pub fn judge(
        &self,
        user_of: impl FnOnce(&str, &str) -> Option<UserId>,
    ) -> Result<Heard, Verdict> {
        let user = user_of(self.channel, self.token).ok_or(Verdict::Forged)?;
        if self.state == ResourceState::Sync {
            return Err(Verdict::Channel);
        }
        Ok(Heard {
            user,
            channel: self.channel.to_owned(),
            resource: self.resource.map(str::to_owned),
        })
    }
}

/// What a notification is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not Google's: it tells nothing to whoever sent it.
    Forged,
    /// A channel is there; nothing has changed.
    Channel,
    /// Heard.
    Accepted,
    /// Not now. Google comes again by itself, later and later, for what a server could not take.
    ComeAgain,
}

impl Verdict {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Verdict::Forged => 404,
            Verdict::Channel | Verdict::Accepted => 204,
            Verdict::ComeAgain => 503,
        }
    }

    /// Its name, for the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Forged => "forged",
            Verdict::Channel => "channel",
            Verdict::Accepted => "accepted",
            Verdict::ComeAgain => "told_to_come_again",
        }
    }
}

/// A genuine notification of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whose calendar.
    pub user: UserId,
    /// The channel that told.
    pub channel: String,
    /// What is needed to stop it.
    pub resource: Option<String>,
}

/// What the listener wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// Ask the store; the answer comes back with the number ([`Listener::answered`]).
    Ask {
        /// Tells one question from another.
        number: u64,
        /// What is asked.
        command: Box<Command>,
    },
    /// Stop an orphan; when that has ended, however, say so ([`Listener::stopped`]).
    Stop(FetchRequest),
}

/// What the store is being asked.
#[derive(Clone, Debug)]
struct Asked {
    number: u64,
    /// When, by this process's clock.
    at: Timestamp,
    heard: Heard,
    /// A look after notifications that came within a debounce: when the last of them did, by this process's clock.
    look_after: Option<Timestamp>,
    /// The user is known, and the sync is being asked for.
    is_enqueue: bool,
}

/// The webhook of one process.
#[derive(Clone, Debug)]
pub struct Listener {
    source: SourceName,
    hearing: Hearing,
    /// At most [`WAITING_MAX`], and at the end what was still to be looked after.
    line: VecDeque<Heard>,
    asked: Option<Asked>,
    questions: u64,
    /// What is to be done next; a question and a stop at the most.
    wishes: VecDeque<Wish>,
    /// At most [`STOPS_MAX`].
    stops: usize,
    is_closed: bool,
}

impl Listener {
    /// One that has heard nothing, for users of `source`.
    #[must_use]
    pub fn new(source: SourceName) -> Self {
        Listener {
            source,
            hearing: Hearing::default(),
            line: VecDeque::new(),
            asked: None,
            questions: 0,
            wishes: VecDeque::new(),
            stops: 0,
            is_closed: false,
        }
    }

    /// The answer to a genuine notification, which takes its place in the line. While the store is known to be away it has to come
    /// again.
    pub fn hear(&mut self, heard: Heard, store_is_away: bool) -> Verdict {
        if store_is_away || self.is_closed || self.line.len() >= WAITING_MAX {
            return Verdict::ComeAgain;
        }
        self.line.push_back(heard);
        Verdict::Accepted
    }

    /// What to do next; `None`: nothing, until something is told or [`Listener::wake_at`] has come.
    pub fn poll(&mut self, now: Timestamp) -> Option<Wish> {
        self.give_up(now);
        if let Some(wish) = self.wishes.pop_front() {
            return Some(wish);
        }
        if self.asked.is_some() {
            return None;
        }
        while let Some((heard, look_after)) = self.next(now) {
            if look_after.is_none() && !self.hearing.asks_for_sync(now, &heard) {
                continue;
            }
            let command = Command::User {
                source: self.source.clone(),
                user: heard.user.clone(),
            };
            return Some(self.ask(now, heard, look_after, command));
        }
        None
    }

    /// When to poll, if nothing is told before; `None`: not before something is.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        match &self.asked {
            Some(asked) => Some(asked.at.plus_ms(ANSWER_MS_MAX)),
            None => self.hearing.look_at(),
        }
    }

    /// The process is about to end: what comes from now on has to come again, to another one, and what was accepted is asked for
    /// at once.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether all that was accepted has been asked for.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.line.is_empty() && self.asked.is_none() && self.hearing.look_at().is_none()
    }

    /// The store's answer to question `number`; one that is not waited for any more counts for nothing.
    pub fn answered(
        &mut self,
        now: Timestamp,
        number: u64,
        result: Result<Stamped<Reply>, StoreUnavailable>,
    ) {
        let Some(asked) = self.asked.take_if(|asked| asked.number == number) else {
            return;
        };
        match result.map(|stamped| (stamped.now, stamped.value)) {
            Ok((store_now, Reply::User { state })) if !asked.is_enqueue => {
                self.user_read(now, store_now, asked, state);
            }
            // Who was parked or removed in between has no sync.
            Ok((_, Reply::Enqueued { .. })) if asked.is_enqueue => {}
            // The next notification asks again, and the poll stands behind.
            Ok((_, Reply::Refused { .. })) | Err(_) => self.hearing.not_asked(&asked.heard.user),
            Ok((_, reply)) => panic!("a question of the webhook was answered by {reply:?}"),
        }
    }

    /// The end of an orphan was asked for, with whatever success.
    pub fn stopped(&mut self) {
        assert!(self.stops > 0, "nothing was being stopped");
        self.stops -= 1;
    }

    fn next(&mut self, now: Timestamp) -> Option<(Heard, Option<Timestamp>)> {
        if self.is_closed {
            self.line.extend(self.hearing.close());
        }
        if let Some((heard, last_at)) = self.hearing.look(now) {
            return Some((heard, Some(last_at)));
        }
        Some((self.line.pop_front()?, None))
    }

    fn ask(
        &mut self,
        now: Timestamp,
        heard: Heard,
        look_after: Option<Timestamp>,
        command: Command,
    ) -> Wish {
        assert!(self.asked.is_none(), "one question at a time");
        self.questions += 1;
        let number = self.questions;
        self.asked = Some(Asked {
            number,
            at: now,
            heard,
            look_after,
            is_enqueue: matches!(command, Command::Enqueue { .. }),
        });
        let command = Box::new(command);
        Wish::Ask { number, command }
    }

    /// An answer that does not come is taken for none.
    fn give_up(&mut self, now: Timestamp) {
        let is_late = |asked: &mut Asked| now >= asked.at.plus_ms(ANSWER_MS_MAX);
        if let Some(asked) = self.asked.take_if(is_late) {
            self.hearing.not_asked(&asked.heard.user);
        }
    }

    fn user_read(
        &mut self,
        now: Timestamp,
        store_now: Timestamp,
        asked: Asked,
        state: Option<UserState>,
    ) {
        let heard = asked.heard;
        let cursor = state.as_ref().and_then(|state| state.cursor.as_deref());
        let resource = heard.resource.clone();
        if let Some(resource) = resource.filter(|_| self.stops < STOPS_MAX)
            && self.hearing.is_orphan(store_now, &heard.channel, cursor)
        {
            self.stop(&heard, resource);
        }
        // Who is unknown or parked has no sync, whoever asks for it.
        let Some(state) = state.filter(|state| state.parked.is_none()) else {
            return;
        };
        if let (Some(last_at), Some(begun_at)) = (asked.look_after, state.last_started_at) {
            // The store's time then, at the latest: its answer was stamped after the question was sent.
            let last_at = last_at.as_ms() + (store_now.as_ms() - asked.at.as_ms());
            if begun_at.as_ms() > last_at {
                return;
            }
        }
        let job = NewJob {
            user: heard.user.clone(),
            run_at: store_now.plus_ms(DEBOUNCE_MS),
            nominal_at: None,
            priority: Priority::Now,
        };
        let command = Command::Enqueue {
            source: self.source.clone(),
            jobs: vec![job],
            checkpoint: None,
        };
        let wish = self.ask(now, heard, None, command);
        self.wishes.push_back(wish);
    }

    fn stop(&mut self, heard: &Heard, resource: String) {
        self.stops += 1;
        self.wishes.push_back(Wish::Stop(FetchRequest::StopChannel {
            user: heard.user.clone(),
            channel: heard.channel.clone(),
            resource,
        }));
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
