//! The machine itself: what each answer means, and what is wanted next.

mod trouble;
mod watching;

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::cursor::{CalendarCursor, Pass, SyncCursor};
use super::{
    Answer, CALENDAR_PAGES_MAX, CALENDARS_MAX, CalendarSelection, End, Step, SyncSettings, Tally,
    page,
};
use crate::failure::Failure;
use crate::google::page::{CalendarEntry, CalendarsPage, EventsPage, FetchReply, PageEnd};
use crate::google::query::{EventsFrom, EventsQuery, FetchRequest};
use crate::graph::{CalendarRow, GraphWrite};
use crate::id::{CalendarId, UserId};
use crate::mutant::{Mutant, planted};
use crate::queue::command::{CommitOutcome, LeaseToken};
use crate::time::Timestamp;

/// Calendars of birthdays and contacts do not tell deletions by increments: they are read in full each time.
pub const FULL_ONLY_SUFFIX: &str = "#contacts@group.v.calendar.google.com";

/// What is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    /// Reading the list of calendars.
    Listing {
        page_token: Option<String>,
        pages: u32,
        listed: u64,
        entries: Vec<CalendarEntry>,
    },
    /// Removing a calendar that is not selected any more.
    Removing { calendar: CalendarId },
    /// Waiting for a page of events of the current calendar.
    Fetching,
    /// Writing the current page.
    Writing { end: PageEnd },
    /// Sweeping after a full pass.
    Sweeping { sync_token: String },
    /// Saving what was done before the failure is told.
    Failing { failure: Failure },
    /// Making or stopping a push channel, when all else is done.
    Watching { asked: watching::Asked },
    /// Not begun, or over.
    Ended,
}

/// Why a calendar is read in full; only one of the reasons is a loss that has a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FullPass {
    /// The token was lost.
    Lost,
    /// The first sync, another query, a page token that is too old, or a calendar that is always read in full.
    Planned,
}

/// One user's sync, under one lease.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SyncMachine {
    user: UserId,
    fence: LeaseToken,
    settings: SyncSettings,
    /// Of the query, as far as it is known: see [`SyncMachine::with_fingerprint`].
    fingerprint: Option<u64>,
    cursor: SyncCursor,
    /// The cursor's text with what was read from it: most syncs change nothing, and leave it as it is.
    read: Option<(String, SyncCursor)>,
    state: State,
    /// The calendars that are still to do, the current one first.
    plan: VecDeque<CalendarId>,
    /// Calendars whose data has to go before anything else.
    to_remove: VecDeque<CalendarId>,
    /// Writes of the current page that are still to be done, and halves of refused ones.
    writes: VecDeque<GraphWrite>,
    /// Calendars that had their one full resync in this job.
    resynced: BTreeSet<CalendarId>,
    /// Calendars whose pass began anew in this job because its page token was too old.
    begun_anew: BTreeSet<CalendarId>,
    /// The graph took an empty batch after it had refused an event: it is the event, not the graph.
    graph_is_willing: bool,
    /// The first failure that concerned one calendar; the others were done all the same.
    failed: Option<Failure>,
    /// Requests for which leave is at hand.
    permits: u32,
    /// The calendars of this job in the order of the plan, for their push channels.
    #[serde(default)]
    to_watch: Vec<CalendarId>,
    /// Push channels that this job made or stopped, or tried to.
    #[serde(default)]
    push_requests: u32,
    tally: Tally,
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
        let text = cursor.map(str::to_owned);
        let cursor = SyncCursor::read(cursor);
        SyncMachine {
            user,
            fence,
            settings,
            fingerprint: None,
            // What could not be read is written anew.
            read: text
                .filter(|_| cursor != SyncCursor::default())
                .map(|text| (text, cursor.clone())),
            cursor,
            state: State::Ended,
            plan: VecDeque::new(),
            to_remove: VecDeque::new(),
            writes: VecDeque::new(),
            resynced: BTreeSet::new(),
            begun_anew: BTreeSet::new(),
            graph_is_willing: false,
            failed: None,
            permits,
            to_watch: Vec::new(),
            push_requests: 0,
            tally: Tally::default(),
        }
    }

    /// The same machine, told what [`EventsQuery::fingerprint`] says of its page size: that is the same for all jobs of a
    /// source, and takes longer than the rest of a sync that finds nothing new.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: u64) -> Self {
        self.fingerprint = Some(fingerprint);
        self
    }

    fn fingerprint(&self) -> u64 {
        let page_size = self.settings.page_size;
        self.fingerprint
            .unwrap_or_else(|| EventsQuery::fingerprint(page_size))
    }

    /// What the job did so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Begins: the first step.
    ///
    /// # Panics
    /// If called twice.
    pub fn begin(&mut self, now: Timestamp) -> Step {
        assert_eq!(self.state, State::Ended, "a job begins once");
        let round = std::mem::take(&mut self.cursor.round);
        match &self.settings.calendars {
            CalendarSelection::Primary => {
                let primary = CalendarId::new("primary").expect("a constant, valid name");
                self.select(vec![primary], &round, now)
            }
            CalendarSelection::List(calendars) => {
                let calendars = calendars.iter().take(CALENDARS_MAX).cloned().collect();
                self.select(calendars, &round, now)
            }
            CalendarSelection::AllReadable if !round.is_empty() => {
                // The list was read when this round began; what is left of it is still to do.
                let calendars = self.cursor.calendars.keys().cloned().collect();
                self.select(calendars, &round, now)
            }
            CalendarSelection::AllReadable => {
                self.state = State::Listing {
                    page_token: None,
                    pages: 0,
                    listed: 0,
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
            Answer::Saved { .. }
                if planted(Mutant::CursorBeforeWrite)
                    && matches!(self.state, State::Writing { .. }) =>
            {
                self.next_write(now)
            }
            Answer::Saved { wait_until } => self.saved(wait_until),
            Answer::Fetched(result) => {
                self.permits = self.permits.checked_sub(1).expect("a fetch had leave");
                self.tally.requests += 1;
                match (result, std::mem::replace(&mut self.state, State::Ended)) {
                    (Ok(FetchReply::Calendars(page)), state) => self.listed(now, page, state),
                    (Ok(FetchReply::Events(page)), State::Fetching) => self.fetched(now, page),
                    (Err(failure), State::Fetching) => self.fetch_failed(now, failure),
                    (Ok(FetchReply::Watched(made)), State::Watching { asked }) => {
                        self.watched(now, asked, made)
                    }
                    (Ok(FetchReply::Stopped), State::Watching { asked }) => {
                        self.channel_stopped(now, asked)
                    }
                    (Err(failure), State::Watching { asked }) => {
                        self.push_refused(now, asked, &failure)
                    }
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

    fn saved(&mut self, wait_until: Option<Timestamp>) -> Step {
        if let State::Failing { failure } = &self.state {
            let failure = failure.clone();
            return self.end(End::Failed(failure));
        }
        if let Some(until) = wait_until {
            return self.must_wait(until);
        }
        self.permits += 1;
        self.request()
    }

    /// What it has just asked Google for may be asked for at `until` only: the sync ends, to go on then; or is done, if nothing
    /// but a channel is left, which is not worth the wait.
    pub fn must_wait(&mut self, until: Timestamp) -> Step {
        if matches!(self.state, State::Watching { .. }) {
            self.state = State::Ended;
            return self.done();
        }
        self.end(End::Wait { until })
    }

    /// The cursor with what is left of this round, so that whoever goes on does not begin it anew.
    fn progress(&mut self) -> String {
        let whole = self.plan.len() == self.cursor.calendars.len();
        self.cursor.round = if whole {
            Vec::new()
        } else {
            self.plan.iter().cloned().collect()
        };
        self.cursor_text()
    }

    fn cursor_text(&self) -> String {
        match &self.read {
            Some((text, read)) if *read == self.cursor => text.clone(),
            _ => self.cursor.write(),
        }
    }

    /// The request that the state calls for, or the checkpoint that gets leave for it.
    fn request(&mut self) -> Step {
        if self.permits == 0 {
            return Step::Checkpoint {
                progress: self.progress(),
                requests: 1,
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
            State::Watching { asked } => Step::Fetch(self.push_request(asked)),
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

    // -- which calendars -------------------------------------------------------------------------------------------

    fn listed(&mut self, now: Timestamp, page: CalendarsPage, state: State) -> Step {
        let State::Listing {
            pages,
            listed,
            mut entries,
            ..
        } = state
        else {
            panic!("a list of calendars came in state {state:?}");
        };
        let listed = listed + page.calendars.len() as u64;
        entries.extend(page.calendars.into_iter().filter(CalendarEntry::readable));
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
                listed,
                entries,
            };
            return self.request();
        }
        if listed == 0 {
            // Everybody has a primary calendar: an empty list is a bad answer, and would empty the graph.
            return self.end(End::Failed(Failure::transient(
                "Google listed no calendar at all; nothing is removed for that",
            )));
        }
        // Those that are kept already stay, whatever the order in which Google lists them.
        entries.sort_by_key(|entry| !self.cursor.calendars.contains_key(&entry.id));
        entries.truncate(CALENDARS_MAX);
        let window_start = now.minus_ms(self.settings.look_back_ms);
        for entry in &entries {
            let cursor = self.cursor.calendars.entry(entry.id.clone());
            cursor
                .or_insert_with(|| Box::new(CalendarCursor::new(window_start)))
                .title = entry.summary.clone();
        }
        let calendars = entries.into_iter().map(|entry| entry.id).collect();
        self.select(calendars, &[], now)
    }

    /// The calendars to keep are known: drop the others, then do those that are left of `round`, or all.
    fn select(&mut self, calendars: Vec<CalendarId>, round: &[CalendarId], now: Timestamp) -> Step {
        let window_start = now.minus_ms(self.settings.look_back_ms);
        let mut selected = calendars.clone();
        selected.sort_unstable();
        selected.dedup();
        let is_selected = |calendar: &CalendarId| selected.binary_search(calendar).is_ok();
        let kept = self.cursor.calendars.keys();
        self.to_remove = kept.filter(|kept| !is_selected(kept)).cloned().collect();
        for calendar in &selected {
            let cursor = self.cursor.calendars.entry(calendar.clone());
            cursor.or_insert_with(|| Box::new(CalendarCursor::new(window_start)));
        }
        let left: Vec<CalendarId> = round
            .iter()
            .filter(|calendar| is_selected(calendar))
            .cloned()
            .collect();
        let mut plan = if left.is_empty() {
            // In the order in which they were listed, each once: no decision hangs on how an id is spelt.
            let mut seen = BTreeSet::new();
            let listed = calendars.into_iter();
            listed
                .filter(|calendar| seen.insert(calendar.clone()))
                .collect()
        } else {
            left
        };
        // A calendar whose traversal is under way goes first: its page token will not get younger.
        plan.sort_by_key(|calendar| self.cursor.calendars[calendar].pass.is_none());
        if self.concerns_push() {
            self.to_watch = plan.clone();
        }
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
        self.write(GraphWrite::RemoveCalendar {
            user: self.user.clone(),
            fence: self.fence,
            calendar,
        })
    }

    fn write(&mut self, write: GraphWrite) -> Step {
        self.tally.graph_writes += 1;
        Step::Write(write)
    }

    // -- one calendar ----------------------------------------------------------------------------------------------

    fn begin_calendar(&mut self, now: Timestamp) -> Step {
        let Some(calendar) = self.plan.front() else {
            return self.finish(now);
        };
        let full_only = calendar.as_str().ends_with(FULL_ONLY_SUFFIX);
        let fingerprint = self.fingerprint();
        let cursor = self.current_mut();
        let same_query = cursor.fingerprint == fingerprint;
        match (&cursor.pass, &cursor.sync_token) {
            // Somebody may have read its first page already and written what is gone by now, under this generation; and
            // the token of a pass that is read from its first page again says nothing of what was gone before.
            (Some(pass), _)
                if same_query && pass.full_generation.is_some() && pass.page_token.is_none() =>
            {
                return self.begin_full_pass(now, FullPass::Planned);
            }
            (Some(pass), _) if same_query => {
                self.tally.full |= pass.full_generation.is_some();
            }
            (_, Some(_)) if same_query && !full_only => {
                cursor.pass = Some(Pass::incremental());
            }
            (None, None) if same_query && cursor.generation > 0 => {
                return self.begin_full_pass(now, FullPass::Lost);
            }
            _ => return self.begin_full_pass(now, FullPass::Planned),
        }
        self.state = State::Fetching;
        self.request()
    }

    /// Starts over with a full pass, under a generation that is larger than any before: what an earlier, broken-off
    /// pass saw may be gone by now.
    fn begin_full_pass(&mut self, now: Timestamp, why: FullPass) -> Step {
        let fence = self.fence.0;
        let fingerprint = self.fingerprint();
        let budget = self.settings.resyncs_a_day_max;
        let cursor = self.current_mut();
        let begun = cursor
            .pass
            .take()
            .and_then(|pass| pass.full_generation)
            .unwrap_or(0);
        let generation = fence.max(cursor.generation + 1).max(begun + 1);
        cursor.sync_token = None;
        cursor.fingerprint = fingerprint;
        if why == FullPass::Lost && !cursor.spend_resync(now, budget) {
            return self.calendar_failed(
                now,
                Failure::permanent(format!(
                    "the {budget} full resyncs of today are used up; it goes on tomorrow (UTC)"
                )),
            );
        }
        cursor.pass = Some(Pass::full(generation));
        self.tally.full = true;
        self.state = State::Fetching;
        self.request()
    }

    /// The calendar's own properties, as the page and the user's list tell them.
    fn row(&self, page: &EventsPage) -> CalendarRow {
        let (calendar, cursor) = self.current();
        CalendarRow {
            id: calendar.clone(),
            name: cursor.title.clone().or_else(|| page.summary.clone()),
            time_zone: page.time_zone.clone(),
            access_role: page.access_role.clone(),
        }
    }

    /// The hash by which it is seen whether `page`, the answer that is waited for, changes the calendar's own properties;
    /// `None` if no page is waited for.
    #[must_use]
    pub fn row_hash(&self, page: &EventsPage) -> Option<u64> {
        (self.state == State::Fetching).then(|| page::row_hash(&self.row(page)))
    }

    fn fetched(&mut self, now: Timestamp, mut page: EventsPage) -> Step {
        if planted(Mutant::EmptyPageEnds)
            && page.events.is_empty()
            && let PageEnd::Next(token) = &page.end
        {
            page.end = PageEnd::Done {
                sync_token: Some(token.clone()),
            };
        }
        let (calendar, cursor) = self.current();
        let calendar = calendar.clone();
        let row = self.row(&page);
        let row_hash = page::row_hash(&row);
        if let Err(failure) = trouble::check_end(&page.end, cursor.pass.as_ref()) {
            return self.calendar_failed(now, failure);
        }
        let room = self.cursor.quarantine_room();
        let cursor = self
            .cursor
            .calendars
            .get_mut(&calendar)
            .expect("it has a cursor");
        cursor.unavailable_since = None;
        let batch = page::batch(cursor, page.events, page.unreadable, room);
        self.tally.quarantined += batch.quarantined;
        let pass = cursor
            .pass
            .as_ref()
            .expect("a pass is under way while fetching");
        let generation = pass.full_generation.unwrap_or(cursor.generation);
        if planted(Mutant::GoneWipesFirst) && pass.full_generation.is_some() && pass.pages == 0 {
            self.writes.push_back(GraphWrite::Sweep {
                user: self.user.clone(),
                fence: self.fence,
                calendar: calendar.clone(),
                generation,
            });
        }
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
        self.spare(batch.set_aside);
        self.state = State::Writing { end: page.end };
        if planted(Mutant::CursorBeforeWrite) {
            return self.save_ahead();
        }
        self.next_write(now)
    }

    /// What the graph has of events that are set aside must outlive the sweep of a full pass: Google has them still.
    fn spare(&mut self, ids: impl IntoIterator<Item = String>) {
        let (calendar, cursor) = self.current();
        let pass = cursor.pass.as_ref().expect("a pass is under way");
        let events: Vec<String> = ids.into_iter().collect();
        if let Some(generation) = pass.full_generation
            && !events.is_empty()
        {
            let spare = GraphWrite::Spare {
                user: self.user.clone(),
                fence: self.fence,
                calendar: calendar.clone(),
                generation,
                events,
            };
            self.writes.push_back(spare);
        }
    }

    fn next_write(&mut self, now: Timestamp) -> Step {
        if let Some(write) = self.writes.front() {
            let write = write.clone();
            return self.write(write);
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
                pass.pages += 1;
                self.state = State::Fetching;
                self.request()
            }
            PageEnd::Done { sync_token } => {
                self.pass_done(now, sync_token.expect("checked when the page came"))
            }
        }
    }

    fn pass_done(&mut self, now: Timestamp, sync_token: String) -> Step {
        let (calendar, cursor) = self.current();
        let pass = cursor.pass.as_ref().expect("a pass is under way");
        if let Some(generation) = pass.full_generation
            && !planted(Mutant::GoneWithoutSweep)
        {
            let sweep = GraphWrite::Sweep {
                user: self.user.clone(),
                fence: self.fence,
                calendar: calendar.clone(),
                generation,
            };
            self.state = State::Sweeping { sync_token };
            return self.write(sweep);
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

    /// This calendar is given up for now; the user's others are done all the same, and the failure is told at the end.
    fn calendar_failed(&mut self, now: Timestamp, failure: Failure) -> Step {
        let calendar = self.plan.pop_front().expect("a calendar is under way");
        let detail = format!("calendar {calendar}: {failure}");
        self.failed
            .get_or_insert(Failure::new(failure.kind, detail));
        let cursor = self
            .cursor
            .calendars
            .get_mut(&calendar)
            .expect("it has a cursor");
        // What is left of the pass is of no use; the token, if there is one, stays.
        cursor.pass = None;
        self.begin_calendar(now)
    }

    fn done(&mut self) -> Step {
        if let Some(failure) = self.failed.take() {
            self.state = State::Failing { failure };
            return Step::Checkpoint {
                progress: self.progress(),
                requests: 0,
            };
        }
        let tally = self.tally;
        let mut cursors = self.cursor.calendars.values();
        let none_is_there =
            tally.unavailable > 0 && cursors.all(|cursor| cursor.unavailable_since.is_some());
        let outcome = if none_is_there {
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
        self.cursor.round = Vec::new();
        self.end(End::Done {
            cursor: self.cursor_text(),
            outcome,
        })
    }
}
