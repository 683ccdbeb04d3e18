//! The Sync machine: one user's job, from cursor to cursor.
//!
//! ```text
//! begin ─► calendars? ─► for each calendar: fetch page ─► write batch ─► checkpoint ─┐
//!                              ▲                                                     │ more pages
//!                              └─────────────────────────────────────────────────────┘
//!                        full pass: sweep ─► next calendar ─► ... ─► End
//! ```
//!
//! The machine asks for one thing at a time (a [`Step`]) and is told how it went ([`SyncMachine::resume`]). It holds no
//! more than one page. What it relies on, and what it guarantees:
//!
//! - A page is written before the cursor moves past it, so a crash repeats a page but never loses one; writes are
//!   idempotent and fenced, so repeating is harmless.
//! - A lost token (410) leads to one full pass in the same job, which stamps a generation of its own and sweeps what it
//!   did not see: nothing is wiped first. A second 410 in the same job is an error, and full resyncs have a budget a day.
//! - An event that Google or the graph spoilt is quarantined alone; a batch that the graph refuses is halved until the
//!   guilty event stands alone.
//! - Every request is made with leave: the first comes with the lease, each further one with a checkpoint.
//!
//! The sync protocol is Google's "Synchronize resources efficiently" guide; [`crate::google::query`] has the details.

pub mod convert;
pub mod cursor;
mod page;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::failure::{Failure, FailureKind};
use crate::google::page::{CalendarEntry, CalendarsPage, EventsPage, FetchReply, PageEnd};
use crate::google::query::{EventsFrom, EventsQuery, FetchRequest, PAGE_SIZE_DEFAULT};
use crate::graph::{CalendarRow, GraphReply, GraphWrite};
use crate::id::{CalendarId, UserId};
use crate::queue::command::{CommitOutcome, LeaseToken};
use crate::time::{DAY_MS, Timestamp};
use cursor::{CalendarCursor, Pass, SyncCursor};

/// At most this many calendars of one user are kept.
pub const CALENDARS_MAX: usize = 250;
/// At most this many pages of the list of calendars are read.
pub const CALENDAR_PAGES_MAX: u32 = 20;

/// Which of a user's calendars are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalendarSelection {
    /// The primary calendar, by Google's keyword `primary`.
    Primary,
    /// These, by id.
    List(Vec<CalendarId>),
    /// Every calendar in the user's list whose events the user may read.
    AllReadable,
}

/// How a source is synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSettings {
    /// Which calendars.
    pub calendars: CalendarSelection,
    /// Events a page, 1 to 2,500. Default 250.
    pub page_size: u32,
    /// How far the first sync looks back, in milliseconds. Default 90 days.
    pub look_back_ms: u64,
    /// Full resyncs of one calendar a day, at the most. Default 4.
    pub resyncs_a_day_max: u32,
}

impl Default for SyncSettings {
    fn default() -> Self {
        SyncSettings {
            calendars: CalendarSelection::Primary,
            page_size: PAGE_SIZE_DEFAULT,
            look_back_ms: 90 * DAY_MS,
            resyncs_a_day_max: 4,
        }
    }
}

/// What the machine wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make this request; leave for it has been obtained.
    Fetch(FetchRequest),
    /// Write this to the graph.
    Write(GraphWrite),
    /// Save the progress, and ask leave for one more request.
    Checkpoint {
        /// The cursor as it stands.
        progress: String,
    },
    /// The job is over.
    End(End),
}

/// How a step went.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Step::Fetch`].
    Fetched(Result<FetchReply, Failure>),
    /// To [`Step::Write`].
    Written(Result<GraphReply, Failure>),
    /// To [`Step::Checkpoint`]: saved. Without `wait_until`, the request may be made.
    Saved {
        /// The request has to wait until then.
        wait_until: Option<Timestamp>,
    },
}

/// How the job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// All is committed with this cursor.
    Done {
        /// The new cursor.
        cursor: String,
        /// For the history.
        outcome: CommitOutcome,
    },
    /// No leave for a request before then; the progress is saved, the job can go back.
    Wait {
        /// Until when.
        until: Timestamp,
    },
    /// Something failed; what follows depends on the kind.
    Failed(Failure),
    /// A later lease has written to the graph: this one is lost.
    LeaseLost,
}

/// What to do once leave for a request is there.
#[derive(Clone, Debug, PartialEq)]
enum State {
    /// Reading the list of calendars.
    Listing {
        page_token: Option<String>,
        pages: u32,
        entries: Vec<CalendarEntry>,
    },
    /// Removing calendars that are not selected any more, then on to the first calendar.
    Removing { calendar: CalendarId },
    /// Waiting for a page of events of the current calendar.
    Fetching,
    /// Writing the current page.
    Writing { end: PageEnd },
    /// Sweeping after a full pass.
    Sweeping { sync_token: String },
    /// Over.
    Ended,
}

/// One user's sync, under one lease.
#[derive(Clone, Debug)]
pub struct SyncMachine {
    user: UserId,
    fence: LeaseToken,
    settings: SyncSettings,
    cursor: SyncCursor,
    state: State,
    /// The calendars that are still to do, the current one first.
    plan: VecDeque<CalendarId>,
    /// Calendars whose data has to go before anything else.
    to_remove: VecDeque<CalendarId>,
    /// Writes of the current page that are still to be done, and halves of refused ones.
    writes: VecDeque<GraphWrite>,
    /// Calendars that had their one full resync in this job.
    resynced: BTreeSet<CalendarId>,
    names: BTreeMap<CalendarId, CalendarEntry>,
    /// Requests for which leave is at hand.
    permits: u32,
    tally: Tally,
}

/// What the job did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events written or changed.
    pub upserted: u64,
    /// Events removed.
    pub deleted: u64,
    /// Events set aside.
    pub quarantined: u64,
    /// Requests made.
    pub requests: u64,
    /// Graph writes asked for.
    pub graph_writes: u64,
    /// A full pass was made.
    pub full: bool,
    /// Tokens that Google refused as malformed: a fault of ours, worth an alarm.
    pub malformed_tokens: u64,
    /// Calendars that could not be read.
    pub unavailable: u64,
}

impl SyncMachine {
    /// A job for `user` under the fencing token `fence`, going on from `cursor`, with leave for `permits` requests.
    #[must_use]
    pub fn new(
        user: UserId,
        fence: LeaseToken,
        settings: SyncSettings,
        cursor: Option<&str>,
        permits: u32,
    ) -> Self {
        SyncMachine {
            user,
            fence,
            settings,
            cursor: SyncCursor::read(cursor),
            state: State::Ended,
            plan: VecDeque::new(),
            to_remove: VecDeque::new(),
            writes: VecDeque::new(),
            resynced: BTreeSet::new(),
            names: BTreeMap::new(),
            permits,
            tally: Tally::default(),
        }
    }

    /// What the job did so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// The cursor as it stands, for handing the job back in the middle.
    #[must_use]
    pub fn progress(&self) -> String {
        self.cursor.write()
    }

    /// Begins: the first step.
    pub fn begin(&mut self, now: Timestamp) -> Step {
        assert_eq!(self.state, State::Ended, "a job begins once");
        match &self.settings.calendars {
            CalendarSelection::Primary => {
                let primary = CalendarId::new("primary").expect("a constant, valid name");
                self.select(vec![primary], now)
            }
            CalendarSelection::List(calendars) => {
                let calendars = calendars.iter().take(CALENDARS_MAX).cloned().collect();
                self.select(calendars, now)
            }
            CalendarSelection::AllReadable => {
                self.state = State::Listing {
                    page_token: None,
                    pages: 0,
                    entries: Vec::new(),
                };
                self.request()
            }
        }
    }

    /// Takes the answer to the last step and says what comes next.
    ///
    /// # Panics
    /// If the answer does not fit the last step: a fault of the caller.
    pub fn resume(&mut self, now: Timestamp, answer: Answer) -> Step {
        match answer {
            Answer::Saved {
                wait_until: Some(until),
            } => self.end(End::Wait { until }),
            Answer::Saved { wait_until: None } => {
                self.permits += 1;
                self.request()
            }
            Answer::Fetched(result) => {
                self.permits = self.permits.checked_sub(1).expect("a fetch had leave");
                self.tally.requests += 1;
                match (result, std::mem::replace(&mut self.state, State::Ended)) {
                    (Ok(FetchReply::Calendars(page)), State::Listing { pages, entries, .. }) => {
                        self.listed(now, page, pages, entries)
                    }
                    (Ok(FetchReply::Events(page)), State::Fetching) => self.fetched(now, page),
                    (Err(failure), State::Fetching) => self.fetch_failed(now, failure),
                    (Err(failure), State::Listing { .. }) => self.end(End::Failed(failure)),
                    (_, state) => panic!("a fetch was answered in state {state:?}"),
                }
            }
            Answer::Written(result) => self.written(now, result),
        }
    }

    fn end(&mut self, end: End) -> Step {
        self.state = State::Ended;
        Step::End(end)
    }

    /// The request that the state calls for, or the checkpoint that gets leave for it.
    fn request(&mut self) -> Step {
        if self.permits == 0 {
            return Step::Checkpoint {
                progress: self.cursor.write(),
            };
        }
        match &self.state {
            State::Listing { page_token, .. } => Step::Fetch(FetchRequest::Calendars {
                user: self.user.clone(),
                page_token: page_token.clone(),
            }),
            State::Fetching => {
                let (calendar, cursor) = self.current();
                let pass = cursor
                    .pass
                    .as_ref()
                    .expect("a pass is under way while fetching");
                let from = match (pass.full_generation, &cursor.sync_token) {
                    (None, Some(token)) => EventsFrom::SyncToken(token.clone()),
                    _ => EventsFrom::Full {
                        window_start: cursor.window_start,
                    },
                };
                Step::Fetch(FetchRequest::Events {
                    user: self.user.clone(),
                    query: EventsQuery {
                        calendar: calendar.clone(),
                        from,
                        page_token: pass.page_token.clone(),
                        page_size: self.settings.page_size,
                    },
                })
            }
            state => panic!("no request is wanted in state {state:?}"),
        }
    }

    fn current(&self) -> (&CalendarId, &CalendarCursor) {
        let calendar = self.plan.front().expect("a calendar is under way");
        (calendar, &self.cursor.calendars[calendar])
    }

    fn current_mut(&mut self) -> &mut CalendarCursor {
        let calendar = self.plan.front().expect("a calendar is under way");
        self.cursor
            .calendars
            .get_mut(calendar)
            .expect("the current calendar has a cursor")
    }

    fn listed(
        &mut self,
        now: Timestamp,
        page: CalendarsPage,
        pages: u32,
        mut entries: Vec<CalendarEntry>,
    ) -> Step {
        entries.extend(page.calendars.into_iter().filter(CalendarEntry::readable));
        entries.truncate(CALENDARS_MAX);
        if let Some(token) = page.next_page_token {
            let pages = pages + 1;
            if pages >= CALENDAR_PAGES_MAX {
                return self.end(End::Failed(Failure::transient(format!(
                    "the list of calendars did not end after {CALENDAR_PAGES_MAX} pages"
                ))));
            }
            self.state = State::Listing {
                page_token: Some(token),
                pages,
                entries,
            };
            return self.request();
        }
        let calendars = entries.iter().map(|entry| entry.id.clone()).collect();
        self.names = entries
            .into_iter()
            .map(|entry| (entry.id.clone(), entry))
            .collect();
        self.select(calendars, now)
    }

    /// The calendars to keep are known: drop the others, then begin with the first.
    fn select(&mut self, calendars: Vec<CalendarId>, now: Timestamp) -> Step {
        let window_start = now.minus_ms(self.settings.look_back_ms);
        let selected: BTreeSet<&CalendarId> = calendars.iter().collect();
        self.to_remove = self
            .cursor
            .calendars
            .keys()
            .filter(|calendar| !selected.contains(calendar))
            .cloned()
            .collect();
        for calendar in &selected {
            self.cursor
                .calendars
                .entry((*calendar).clone())
                .or_insert_with(|| CalendarCursor::new(window_start));
        }
        // A calendar whose traversal is under way goes first: its page token will not get younger.
        let mut plan: Vec<CalendarId> = selected.into_iter().cloned().collect();
        plan.sort_by_key(|calendar| self.cursor.calendars[calendar].pass.is_none());
        self.plan = plan.into();
        self.next_removal(now)
    }

    fn next_removal(&mut self, now: Timestamp) -> Step {
        let Some(calendar) = self.to_remove.pop_front() else {
            return self.begin_calendar(now);
        };
        self.state = State::Removing {
            calendar: calendar.clone(),
        };
        self.tally.graph_writes += 1;
        Step::Write(GraphWrite::RemoveCalendar {
            user: self.user.clone(),
            fence: self.fence,
            calendar,
        })
    }

    fn begin_calendar(&mut self, now: Timestamp) -> Step {
        if self.plan.is_empty() {
            return self.done();
        }
        let fingerprint = EventsQuery::fingerprint(self.settings.page_size);
        let cursor = self.current_mut();
        let token_is_good = cursor.sync_token.is_some() && cursor.fingerprint == fingerprint;
        match &cursor.pass {
            Some(_) if cursor.fingerprint == fingerprint => {}
            _ if token_is_good => {
                cursor.pass = Some(Pass {
                    full_generation: None,
                    page_token: None,
                });
            }
            _ => return self.begin_full_pass(now),
        }
        self.tally.full |= self
            .current()
            .1
            .pass
            .as_ref()
            .is_some_and(|p| p.full_generation.is_some());
        self.state = State::Fetching;
        self.request()
    }

    /// Starts over with a full pass. The generation is this job's fencing token: larger than any before.
    fn begin_full_pass(&mut self, now: Timestamp) -> Step {
        let fence = self.fence.0;
        let fingerprint = EventsQuery::fingerprint(self.settings.page_size);
        let budget = self.settings.resyncs_a_day_max;
        let calendar = self.plan.front().expect("a calendar is under way").clone();
        let cursor = self.current_mut();
        cursor.sync_token = None;
        cursor.pass = None;
        let first = cursor.generation == 0;
        if !first && !cursor.spend_resync(now, budget) {
            return self.end(End::Failed(Failure::permanent(format!(
                "calendar {calendar} used up its {budget} full resyncs of today; it goes on tomorrow (UTC), \
                 or raise the budget"
            ))));
        }
        cursor.fingerprint = fingerprint;
        cursor.pass = Some(Pass {
            full_generation: Some(fence),
            page_token: None,
        });
        self.tally.full = true;
        self.state = State::Fetching;
        self.request()
    }

    fn fetched(&mut self, now: Timestamp, page: EventsPage) -> Step {
        let calendar = self.plan.front().expect("a calendar is under way").clone();
        let row = self.calendar_row(&calendar, &page);
        let row_hash = page::row_hash(&row);
        let cursor = self
            .cursor
            .calendars
            .get_mut(&calendar)
            .expect("it has a cursor");
        cursor.unavailable_since = None;
        let batch = page::batch(cursor, page.events, page.unreadable);
        self.tally.quarantined += batch.quarantined;
        let generation = match &cursor.pass {
            Some(Pass {
                full_generation: Some(generation),
                ..
            }) => *generation,
            _ => cursor.generation,
        };
        let row_is_new = cursor.row_hash != row_hash;
        cursor.row_hash = row_hash;
        if row_is_new || !batch.upserts.is_empty() || !batch.deletions.is_empty() {
            self.writes.push_back(GraphWrite::Apply {
                user: self.user.clone(),
                fence: self.fence,
                calendar: row,
                generation,
                upserts: batch.upserts,
                deletions: batch.deletions,
            });
        }
        self.state = State::Writing { end: page.end };
        self.next_write(now)
    }

    fn calendar_row(&self, calendar: &CalendarId, page: &EventsPage) -> CalendarRow {
        let entry = self.names.get(calendar);
        let from = |listed: Option<&Option<String>>, paged: &Option<String>| {
            listed.and_then(Clone::clone).or_else(|| paged.clone())
        };
        CalendarRow {
            id: calendar.clone(),
            name: from(entry.map(|entry| &entry.summary), &page.summary),
            time_zone: from(entry.map(|entry| &entry.time_zone), &page.time_zone),
            access_role: from(entry.map(|entry| &entry.access_role), &page.access_role),
        }
    }

    fn next_write(&mut self, now: Timestamp) -> Step {
        if let Some(write) = self.writes.front() {
            self.tally.graph_writes += 1;
            return Step::Write(write.clone());
        }
        let State::Writing { end } = std::mem::replace(&mut self.state, State::Ended) else {
            panic!("a page was written in state {:?}", self.state);
        };
        match end {
            PageEnd::Next(token) => {
                let pass = self
                    .current_mut()
                    .pass
                    .as_mut()
                    .expect("a pass is under way");
                pass.page_token = Some(token);
                self.state = State::Fetching;
                self.request()
            }
            PageEnd::Done { sync_token: None } => self.end(End::Failed(Failure::transient(
                "Google ended the pages without a sync token; the old one is kept",
            ))),
            PageEnd::Done {
                sync_token: Some(sync_token),
            } => self.pass_done(now, sync_token),
        }
    }

    fn pass_done(&mut self, now: Timestamp, sync_token: String) -> Step {
        let (calendar, cursor) = self.current();
        let pass = cursor.pass.as_ref().expect("a pass is under way");
        if let Some(generation) = pass.full_generation {
            let sweep = GraphWrite::Sweep {
                user: self.user.clone(),
                fence: self.fence,
                calendar: calendar.clone(),
                generation,
            };
            self.tally.graph_writes += 1;
            self.state = State::Sweeping { sync_token };
            return Step::Write(sweep);
        }
        self.calendar_done(now, sync_token)
    }

    fn calendar_done(&mut self, now: Timestamp, sync_token: String) -> Step {
        let cursor = self.current_mut();
        let pass = cursor.pass.take().expect("a pass is under way");
        if let Some(generation) = pass.full_generation {
            cursor.generation = generation;
        }
        cursor.sync_token = Some(sync_token);
        self.plan.pop_front();
        self.begin_calendar(now)
    }

    fn done(&mut self) -> Step {
        let tally = self.tally;
        let outcome = if self.tally.unavailable > 0
            && self
                .cursor
                .calendars
                .values()
                .all(|cursor| cursor.unavailable_since.is_some())
        {
            CommitOutcome::Skipped {
                note: "none of the calendars can be read".to_owned(),
            }
        } else {
            CommitOutcome::Synced {
                upserted: tally.upserted,
                deleted: tally.deleted,
                quarantined: tally.quarantined,
                requests: tally.requests,
                full: tally.full,
            }
        };
        self.end(End::Done {
            cursor: self.cursor.write(),
            outcome,
        })
    }

    fn fetch_failed(&mut self, now: Timestamp, failure: Failure) -> Step {
        let calendar = self.plan.front().expect("a calendar is under way").clone();
        match failure.kind {
            FailureKind::Gone { malformed } => {
                self.tally.malformed_tokens += u64::from(malformed);
                if !self.resynced.insert(calendar) {
                    return self.end(End::Failed(Failure::permanent(format!(
                        "Google refused the token again, after a full resync in the same job: {failure}"
                    ))));
                }
                self.begin_full_pass(now)
            }
            FailureKind::CalendarUnavailable => {
                self.tally.unavailable += 1;
                let cursor = self.current_mut();
                cursor.pass = None;
                cursor.unavailable_since.get_or_insert(now);
                self.plan.pop_front();
                self.begin_calendar(now)
            }
            _ => {
                self.state = State::Fetching;
                self.end(End::Failed(failure))
            }
        }
    }

    fn written(&mut self, now: Timestamp, result: Result<GraphReply, Failure>) -> Step {
        let failure = match result {
            Ok(GraphReply::Fenced) => return self.end(End::LeaseLost),
            Ok(GraphReply::Written(counts)) => {
                self.tally.upserted += counts.upserted;
                self.tally.deleted += counts.deleted;
                return match std::mem::replace(&mut self.state, State::Ended) {
                    State::Removing { calendar } => {
                        self.cursor.calendars.remove(&calendar);
                        self.next_removal(now)
                    }
                    State::Writing { end } => {
                        self.writes.pop_front();
                        self.state = State::Writing { end };
                        self.next_write(now)
                    }
                    State::Sweeping { sync_token } => self.calendar_done(now, sync_token),
                    state => panic!("a write was answered in state {state:?}"),
                };
            }
            Err(failure) => failure,
        };
        let refused = matches!(failure.kind, FailureKind::TooLarge | FailureKind::Rejected);
        if !refused || !matches!(self.state, State::Writing { .. }) {
            return self.end(End::Failed(failure));
        }
        let write = self
            .writes
            .pop_front()
            .expect("the refused write is still at hand");
        match page::split(write) {
            page::Split::Halves(halves) => {
                let [first, second] = *halves;
                self.writes.push_front(second);
                self.writes.push_front(first);
                self.next_write(now)
            }
            page::Split::One { id } => {
                self.tally.quarantined += 1;
                let reason = format!("the graph refused it: {failure}");
                self.current_mut().quarantine(&id, &reason);
                self.next_write(now)
            }
            page::Split::None => self.end(End::Failed(failure)),
        }
    }
}

#[cfg(test)]
mod tests;
