//! The commands about sources, schedules and users.

use std::slice;

use kalends_core::id::{ScheduleName, SourceName, UserId};
use kalends_core::policy::limit::Limit;
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Command, Refusal, Reply};
use kalends_core::queue::state::{ParkReason, ScheduleState, SourceSettings, UserState};
use kalends_core::queue::{SCHEDULES_MAX, SOURCES_MAX};
use kalends_core::time::Timestamp;

use super::asker::{Answer, Asker, Scope, misread};
use super::jobs::{Answered, park_reason};
use super::outcome;
use super::scripts::SCRIPTS;
use super::wire::{Unreadable, Value, Writer};
use super::{refused, stamped, unknown_source};

/// Users that one script enrolls, connects or removes at the most.
const USERS_PAGE: usize = 100;
/// How often a definition is tried again because somebody else changed it in between.
const DEFINE_TRIES_MAX: u32 = 10;

impl Asker {
    pub(super) async fn define_source(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        settings: SourceSettings,
    ) -> Answered {
        let scope = Scope::Of(slice::from_ref(&source));
        let defined = serde_json::to_string(&settings).expect("plain data becomes JSON");
        let write = |writer: &mut Writer, _: &[SourceName]| {
            write_settings(writer, &settings);
            writer.text(&defined);
        };
        loop {
            let answer = self.ask(&SCRIPTS.define_source, scope, now, write).await?;
            match answer.word.as_str() {
                "look_again" => while self.more(&SCRIPTS.look_again, scope, now).await? {},
                "full" => {
                    let what = format!("there are {SOURCES_MAX} sources already");
                    return Ok(refused(answer.now, Refusal::TooLarge { what }));
                }
                _ => {
                    let is_changed = !answer.rest.is_empty();
                    while is_changed && self.more(&SCRIPTS.trim_history, scope, now).await? {}
                    return Ok(stamped(answer.now, Reply::Done));
                }
            }
        }
    }

    /// Runs a script that works page by page, and says whether there is another page.
    async fn more(
        &self,
        script: &redis::Script,
        scope: Scope<'_>,
        now: Option<Timestamp>,
    ) -> Result<bool, StoreUnavailable> {
        let answer = self.ask(script, scope, now, |_, _| {}).await?;
        let [more] = answer.fields().map_err(misread)?;
        more.flag().map_err(misread)
    }

    pub(super) async fn operate(&self, now: Option<Timestamp>, command: Command) -> Answered {
        let (source, act) = match &command {
            Command::Pause { source, .. } => (source.clone(), "pause"),
            Command::Resume { source } => (source.clone(), "resume"),
            Command::SetLimit { source, .. } => (Some(source.clone()), "limit"),
            other => panic!("no operation on sources: {other:?}"),
        };
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer.text(act);
            match &command {
                Command::Pause { reason, .. } => writer.text(reason).none(),
                Command::SetLimit { jobs, .. } => write_limit(writer, *jobs),
                _ => writer.none().none(),
            };
        };
        let (script, scope) = match &source {
            Some(source) => (&SCRIPTS.operate, Scope::Of(slice::from_ref(source))),
            None => (&SCRIPTS.operate_all, Scope::All),
        };
        let answer = self.ask(script, scope, now, write).await?;
        match (answer.word.as_str(), command) {
            ("unknown", Command::SetLimit { source, .. }) => {
                Ok(unknown_source(answer.now, &source))
            }
            _ => Ok(stamped(answer.now, Reply::Done)),
        }
    }

    pub(super) async fn define_schedule(
        &self,
        now: Option<Timestamp>,
        schedule: ScheduleName,
        definition: ScheduleDefinition,
    ) -> Answered {
        let scope = Scope::Of(slice::from_ref(&definition.source));
        let text = serde_json::to_string(&definition).expect("plain data becomes JSON");
        for _ in 0..DEFINE_TRIES_MAX {
            let name = |writer: &mut Writer, _: &[SourceName]| {
                writer.text(schedule.as_str());
            };
            let answer = self.ask(&SCRIPTS.schedule, scope, now, name).await?;
            let at = answer.now;
            let [known, row] = answer.fields().map_err(misread)?;
            if !known.flag().map_err(misread)? {
                return Ok(unknown_source(at, &definition.source));
            }
            let state = row.maybe(read_schedule).map_err(misread)?;
            let seen = state.as_ref().map_or(0, |state| state.revision);
            match state {
                Some(state) if state.definition == definition => {
                    return Ok(stamped(at, Reply::Schedule { state }));
                }
                Some(_) => {
                    if let Some(first) = definition.next_after(at) {
                        self.due_by_latest(now, &definition.source, first).await?;
                    }
                }
                None => {}
            }
            let write = |writer: &mut Writer, _: &[SourceName]| {
                writer.text(schedule.as_str()).text(&text).number(seen);
            };
            let answer = self
                .ask(&SCRIPTS.define_schedule, scope, now, write)
                .await?;
            let at = answer.now;
            match answer.word.as_str() {
                "changed" => {}
                "unknown" => return Ok(unknown_source(at, &definition.source)),
                "full" => {
                    let what = format!("there are {SCHEDULES_MAX} schedules already; remove one");
                    return Ok(refused(at, Refusal::TooLarge { what }));
                }
                _ => {
                    let [row] = answer.fields().map_err(misread)?;
                    let state = read_schedule(row).map_err(misread)?;
                    return Ok(stamped(at, Reply::Schedule { state }));
                }
            }
        }
        Err(StoreUnavailable {
            detail: format!(
                "the schedule {schedule} is being changed by others again and again; try again"
            ),
        })
    }

    async fn due_by_latest(
        &self,
        now: Option<Timestamp>,
        source: &SourceName,
        latest: Timestamp,
    ) -> Result<(), StoreUnavailable> {
        let scope = Scope::Of(slice::from_ref(source));
        loop {
            let write = |writer: &mut Writer, _: &[SourceName]| {
                writer.time(latest);
            };
            let answer = self.ask(&SCRIPTS.due_by_latest, scope, now, write).await?;
            let [more] = answer.fields().map_err(misread)?;
            if !more.flag().map_err(misread)? {
                return Ok(());
            }
        }
    }

    pub(super) async fn remove_schedule(
        &self,
        now: Option<Timestamp>,
        schedule: ScheduleName,
    ) -> Answered {
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer.text(schedule.as_str());
        };
        let scope = Scope::Of(&[]);
        let answer = self
            .ask(&SCRIPTS.remove_schedule, scope, now, write)
            .await?;
        Ok(stamped(answer.now, Reply::Done))
    }

    pub(super) async fn tick(&self, now: Option<Timestamp>, command: Command) -> Answered {
        let Command::Tick {
            schedule,
            revision,
            after,
            at,
            missed,
            fire,
        } = command
        else {
            panic!("the caller has just seen which command it is");
        };
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer
                .text(schedule.as_str())
                .number(revision)
                .time(after)
                .time(at);
            writer.number(missed).flag(fire);
        };
        let answer = self.ask(&SCRIPTS.tick, Scope::Of(&[]), now, write).await?;
        let now = answer.now;
        let word = answer.word.clone();
        if word == "invalid" {
            let what = format!("the tick {at} must be later than {after} and not later than {now}");
            return Ok(refused(now, Refusal::Invalid { what }));
        }
        let [row] = answer.fields().map_err(misread)?;
        let state = row.maybe(read_schedule).map_err(misread)?;
        Ok(stamped(
            now,
            match (word.as_str(), state) {
                ("ok", Some(state)) => Reply::Fired { state },
                (_, state) => Reply::AlreadyFired { state },
            },
        ))
    }

    pub(super) async fn schedules(&self, now: Option<Timestamp>) -> Answered {
        let answer = self
            .ask(&SCRIPTS.schedules, Scope::Of(&[]), now, |_, _| {})
            .await?;
        let now = answer.now;
        let read = || -> Result<Vec<(ScheduleName, ScheduleState)>, Unreadable> {
            let [all] = answer.fields()?;
            let mut schedules = Vec::new();
            let mut values = all.list()?.into_iter();
            while let (Some(name), Some(row)) = (values.next(), values.next()) {
                schedules.push((name.name::<ScheduleName>()?, read_schedule(row)?));
            }
            schedules.sort_by(|left, right| left.0.cmp(&right.0));
            Ok(schedules)
        };
        let schedules = read().map_err(misread)?;
        Ok(stamped(now, Reply::Schedules { schedules }))
    }

    pub(super) async fn enroll(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        users: Vec<UserId>,
        due_at: Timestamp,
    ) -> Answered {
        let mut enrolled = Vec::new();
        let mut pages = users.chunks(USERS_PAGE);
        let mut page = pages.next().unwrap_or_default();
        loop {
            let write = |writer: &mut Writer, _: &[SourceName]| {
                write_users(writer, page.iter());
                writer.time(due_at);
            };
            let scope = Scope::Of(slice::from_ref(&source));
            let answer = self.ask(&SCRIPTS.enroll, scope, now, write).await?;
            let at = answer.now;
            if answer.word == "unknown" {
                return Ok(unknown_source(at, &source));
            }
            let places = read_places(answer).map_err(misread)?;
            enrolled.extend(
                places
                    .into_iter()
                    .filter_map(|place| page.get(place).cloned()),
            );
            match pages.next() {
                Some(next) => page = next,
                None => {
                    let users = enrolled;
                    return Ok(stamped(at, Reply::Enrolled { source, users }));
                }
            }
        }
    }

    pub(super) async fn connect(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        grants: Vec<(UserId, u64)>,
        due_at: Timestamp,
        force: bool,
    ) -> Answered {
        let mut unparked = Vec::new();
        let mut pages = grants.chunks(USERS_PAGE);
        let mut page = pages.next().unwrap_or_default();
        loop {
            let write = |writer: &mut Writer, _: &[SourceName]| {
                write_users(writer, page.iter().map(|(user, _)| user));
                writer.list(page.len());
                for (_, grant) in page {
                    // Larger than what Lua can hold exactly, so a text.
                    writer.text(&format!("{grant:x}"));
                }
                writer.time(due_at).flag(force);
            };
            let scope = Scope::Of(slice::from_ref(&source));
            let answer = self.ask(&SCRIPTS.connect, scope, now, write).await?;
            let at = answer.now;
            if answer.word == "unknown" {
                return Ok(unknown_source(at, &source));
            }
            let places = read_places(answer).map_err(misread)?.into_iter();
            unparked
                .extend(places.filter_map(|place| page.get(place).map(|(user, _)| user.clone())));
            match pages.next() {
                Some(next) => page = next,
                None => {
                    let users = unparked;
                    return Ok(stamped(at, Reply::Enrolled { source, users }));
                }
            }
        }
    }

    pub(super) async fn unenroll(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        users: Vec<UserId>,
    ) -> Answered {
        let mut count = 0;
        let mut pages = users.chunks(USERS_PAGE);
        let mut page = pages.next().unwrap_or_default();
        loop {
            let write = |writer: &mut Writer, _: &[SourceName]| write_users(writer, page.iter());
            let scope = Scope::Of(slice::from_ref(&source));
            let answer = self.ask(&SCRIPTS.unenroll, scope, now, write).await?;
            let at = answer.now;
            let [removed] = answer.fields().map_err(misread)?;
            count += removed.number::<u64>().map_err(misread)?;
            match pages.next() {
                Some(next) => page = next,
                None => return Ok(stamped(at, Reply::Count { count })),
            }
        }
    }

    pub(super) async fn due_users(
        &self,
        now: Option<Timestamp>,
        source: SourceName,
        due_by: Timestamp,
        after: Option<(Timestamp, UserId)>,
        limit: u32,
    ) -> Answered {
        let write = |writer: &mut Writer, _: &[SourceName]| {
            writer.time(due_by);
            match &after {
                Some((at, user)) => writer.time(*at).text(user.as_str()),
                None => writer.none().none(),
            };
            writer.number(u64::from(limit));
        };
        let scope = Scope::Of(slice::from_ref(&source));
        let answer = self.ask(&SCRIPTS.due_users, scope, now, write).await?;
        let now = answer.now;
        let read = || -> Result<Reply, Unreadable> {
            let [pairs, due_total] = answer.fields()?;
            let mut users = Vec::new();
            let mut values = pairs.list()?.into_iter();
            while let (Some(user), Some(at)) = (values.next(), values.next()) {
                users.push((at.time()?, user.name()?));
            }
            Ok(Reply::DueUsers {
                users,
                due_total: due_total.maybe(|total| total.number::<u64>())?,
            })
        };
        read().map(|reply| stamped(now, reply)).map_err(misread)
    }
}

fn write_users<'a>(writer: &mut Writer, users: impl ExactSizeIterator<Item = &'a UserId>) {
    writer.list(users.len());
    for user in users {
        writer.text(user.as_str());
    }
}

fn write_limit(writer: &mut Writer, limit: Option<Limit>) -> &mut Writer {
    match limit {
        Some(limit) => writer
            .number(u64::from(limit.count))
            .number(limit.window_ms),
        None => writer.none().none(),
    }
}

fn write_settings(writer: &mut Writer, settings: &SourceSettings) {
    writer.list(9);
    write_limit(writer, settings.jobs);
    write_limit(writer, settings.requests_project);
    write_limit(writer, settings.requests_user);
    for number in [
        settings.keep_completed,
        settings.keep_failed,
        settings.stalls_max,
    ] {
        writer.number(u64::from(number));
    }
}

fn read_places(answer: Answer) -> Result<Vec<usize>, Unreadable> {
    let [places] = answer.fields()?;
    places.list()?.iter().map(Value::number).collect()
}

fn read_schedule(row: Value) -> Result<ScheduleState, Unreadable> {
    let [definition, _, revision, last_tick_at, fired, missed] = row.fields()?;
    let definition = definition.text()?;
    Ok(ScheduleState {
        definition: serde_json::from_str(&definition)
            .map_err(|_| Unreadable("a schedule is none"))?,
        revision: revision.number()?,
        last_tick_at: last_tick_at.time()?,
        fired: fired.number()?,
        missed: missed.number()?,
    })
}

/// A user with the cursor, as `users.lua` gives them.
pub(super) fn read_user(cursor: Value, state: Value) -> Result<UserState, Unreadable> {
    let [
        enrolled_at,
        due_at,
        parked,
        grant,
        started,
        succeeded,
        ended,
        error,
        gate,
        streak,
    ] = state.fields()?;
    let grant = grant.maybe(Value::text)?;
    let ended = ended.maybe(Value::text)?;
    Ok(UserState {
        enrolled_at: enrolled_at.time()?,
        due_at: due_at.time()?,
        parked: park_reason(parked.number()?)?,
        grant: grant
            .map(|grant| u64::from_str_radix(&grant, 16))
            .transpose()
            .map_err(|_| Unreadable("a grant is none"))?,
        cursor: cursor.maybe(Value::text)?,
        last_started_at: started.maybe_time()?,
        last_success_at: succeeded.maybe_time()?,
        last_outcome: ended.map(|text| outcome::from_text(&text)).transpose()?,
        last_error: error.maybe(Value::text)?,
        gate_until: gate.maybe_time()?,
        limited_in_a_row: streak.number()?,
    })
}

/// Why a user is parked, as a number.
pub(super) fn park_number(park: Option<ParkReason>) -> u64 {
    match park {
        None => 0,
        Some(ParkReason::NeedsReauth) => 1,
        Some(ParkReason::Operator) => 2,
    }
}
