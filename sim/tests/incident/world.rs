//! One node among an emulated Google, a queue and a graph that all misbehave by a seed, and its recording.

use std::collections::BTreeMap;

use kalends_core::failure::{Failure, FailureKind};
use kalends_core::google::failure::{classify, retry_after_ms};
use kalends_core::google::page::{
    EventsPage, FetchReply, UnreadableItem, read_calendars, read_events,
};
use kalends_core::google::push::{is_stopped, read_watched, stop_body, watch_body};
use kalends_core::google::query::FetchRequest;
use kalends_core::graph::{GraphCounts, GraphReply, GraphWrite};
use kalends_core::id::{ScheduleName, SourceName, UserId, WorkerId};
use kalends_core::node::Node;
use kalends_core::node::io::{EffectId, EffectResult, Input, Notice, Op, Output};
use kalends_core::node::settings::{NodeSettings, SourceDefinition};
use kalends_core::policy::schedule::ScheduleDefinition;
use kalends_core::policy::spread::Spread;
use kalends_core::port::StoreUnavailable;
use kalends_core::push::PushSettings;
use kalends_core::queue::Queue;
use kalends_core::queue::command::{Command, Stamped};
use kalends_core::queue::state::SourceSettings;
use kalends_core::rng::{KalendsRng, substream, uniform};
use kalends_core::sync::{CalendarSelection, SyncSettings};
use kalends_core::time::{HOUR_MS, MINUTE_MS, Timestamp};
use kalends_sim::google::{Fault, GoogleEmulator, GoogleSettings};
use kalends_sim::http::{Delivery, Request};
use kalends_sim::incident::{End, Key, Recording, Said, Told, Turn};

/// 2026-11-02, a Monday, at midnight UTC.
pub(crate) const MIDNIGHT: Timestamp = Timestamp::from_ms(1_793_577_600_000);
/// More turns than any run needs.
const TURNS_MAX: usize = 200_000;
/// What no journal may hold: it is planted in every text that a person, Google or a server writes.
pub(crate) const PLANTED: &str = "planted";

pub(crate) fn name(text: &str) -> SourceName {
    SourceName::new(text).unwrap()
}

pub(crate) fn settings(seed: u64, users: Vec<UserId>) -> NodeSettings {
    let mut settings = NodeSettings::new(WorkerId::new("recorded-1").unwrap(), seed);
    settings.sources.push(SourceDefinition {
        name: name("google-calendar"),
        settings: SourceSettings {
            jobs: None,
            ..SourceSettings::default()
        },
        sync: SyncSettings {
            calendars: match seed % 3 {
                0 => CalendarSelection::Primary,
                _ => CalendarSelection::AllReadable,
            },
            page_size: 10,
            // Short lives, so that channels are renewed and stopped within a run; the pace of polls stays as it is.
            push: seed.is_multiple_of(4).then_some(PushSettings {
                life_ms: 2 * HOUR_MS,
                poll_ms: 10 * MINUTE_MS,
            }),
            ..SyncSettings::default()
        },
        enroll: users.into_iter().map(|user| (user, 77)).collect(),
    });
    settings.schedules.push((
        ScheduleName::new("calendar-sync").unwrap(),
        ScheduleDefinition {
            source: name("google-calendar"),
            cron: "*/15 * * * *".parse().unwrap(),
            time_zone: "Europe/Berlin".parse().unwrap(),
            catch_up: "once".parse().unwrap(),
        },
    ));
    if seed.is_multiple_of(2) {
        settings.spread = Spread::Phase;
    }
    settings
}

pub(crate) struct World {
    node: Node,
    pub(crate) google: GoogleEmulator,
    pub(crate) queue: Queue,
    pub(crate) now: Timestamp,
    pending: BTreeMap<(Timestamp, EffectId), EffectResult>,
    wake_at: Timestamp,
    rng: KalendsRng,
    store_away_until: Timestamp,
    told: Vec<Told>,
    pub(crate) finished: bool,
    pub(crate) notices: Vec<Notice>,
    recording: Recording,
    /// Each file's lines.
    pub(crate) files: Vec<Vec<Vec<u8>>>,
    faults: bool,
}

impl World {
    pub(crate) fn new(seed: u64, users: u32, faults: bool) -> Self {
        let mut google = GoogleSettings::new(seed, users, 25, MIDNIGHT);
        google.calendars_per_user = 3;
        google.empty_page_every = 4;
        let google = GoogleEmulator::new(google);
        let ids = google.users().map(|user| UserId::new(&user.email).unwrap());
        let settings = settings(seed, ids.collect());
        let (recording, head) = Recording::new(&settings, Key::new(seed, 0x5ec2e7));
        let mut world = World {
            node: Node::new(MIDNIGHT, settings),
            google,
            queue: Queue::new(),
            now: MIDNIGHT,
            pending: BTreeMap::new(),
            wake_at: MIDNIGHT,
            rng: substream(seed, "world"),
            store_away_until: MIDNIGHT,
            told: Vec::new(),
            finished: false,
            notices: Vec::new(),
            recording,
            files: vec![vec![head]],
            faults,
        };
        world.turn();
        world
    }

    fn dice(&mut self, sides: u64) -> bool {
        self.faults && uniform(&mut self.rng, sides - 1) == 0
    }

    fn tell(&mut self, input: Option<Input>) {
        let calendar_hash = match &input {
            Some(Input::Done {
                id,
                result: EffectResult::Fetch(Ok(FetchReply::Events(page))),
            }) => self.node.calendar_hash(*id, page),
            _ => None,
        };
        let told = self.recording.hider().told(input.as_ref(), calendar_hash);
        self.told.push(told);
        match input {
            Some(input) => self.node.handle_input(self.now, input),
            None => self.node.handle_timeout(self.now),
        }
    }

    fn turn(&mut self) {
        let mut said = Vec::new();
        loop {
            let output = self.node.poll_output();
            said.push(Said::of(&output, self.recording.hider()));
            match output {
                Output::Effect { id, op } => self.begin(id, op),
                Output::Cancel { id } => self.pending.retain(|(_, other), _| *other != id),
                Output::Notice(notice) => self.notices.push(notice),
                Output::Timeout { at, .. } => {
                    self.wake_at = at;
                    break;
                }
                Output::Finished => {
                    self.finished = true;
                    break;
                }
            }
        }
        let turn = Turn {
            at: self.now,
            told: std::mem::take(&mut self.told),
            said,
        };
        let (line, agrees) = self.recording.turn(turn);
        self.files.last_mut().unwrap().push(line.to_vec());
        if let Err(error) = agrees {
            panic!("the shadow decided otherwise: {error}: {error:?}");
        }
    }

    pub(crate) fn rotate(&mut self) {
        let (last, head) = self.recording.rotate().unwrap();
        self.files.last_mut().unwrap().push(last);
        self.files.push(vec![head]);
    }

    pub(crate) fn end(&mut self, end: End) {
        let line = self.recording.end(end).to_vec();
        self.files.last_mut().unwrap().push(line);
    }

    pub(crate) fn shut_down(&mut self, deadline_ms: u64) {
        let deadline = self.now.plus_ms(deadline_ms);
        self.tell(Some(Input::Shutdown { deadline }));
        self.turn();
    }

    pub(crate) fn run(&mut self, minutes: u64) {
        let until = self.now.plus_ms(minutes * MINUTE_MS);
        for _ in 0..TURNS_MAX {
            let next = self.pending.keys().next().map(|(at, _)| *at);
            let next = next.map_or(self.wake_at, |at| at.min(self.wake_at));
            if self.finished || next > until {
                self.now = self.now.max(until);
                return;
            }
            self.now = self.now.max(next);
            let mut told = 0;
            while told < 8
                && let Some(entry) = self.pending.first_entry()
                && entry.key().0 <= self.now
            {
                let ((_, id), result) = entry.remove_entry();
                self.tell(Some(Input::Done { id, result }));
                told += 1;
            }
            if told == 0 {
                self.tell(None);
            } else if self.dice(10) {
                self.tell(Some(Input::Wake));
            }
            self.turn();
        }
        panic!("a run does not end");
    }

    fn begin(&mut self, id: EffectId, op: Op) {
        let result = match op {
            Op::Store(command) => self.store(*command),
            Op::Fetch(request) => Some(self.fetch(&request)),
            Op::Graph(write) => Some(self.graph(&write)),
        };
        if let Some(result) = result {
            let delay_ms = 1 + uniform(&mut self.rng, 200);
            self.pending
                .insert((self.now.plus_ms(delay_ms), id), result);
        }
    }

    fn store(&mut self, command: Command) -> Option<EffectResult> {
        if self.dice(400) {
            self.store_away_until = self.now.plus_ms(90_000);
        }
        if self.now < self.store_away_until {
            let detail = format!("redis://:{PLANTED}@10.0.0.1 does not answer");
            return Some(EffectResult::Store(Err(StoreUnavailable { detail })));
        }
        let now = self.now.plus_ms(1_234);
        let value = self.queue.apply(now, command);
        if self.dice(60) {
            return None;
        }
        Some(EffectResult::Store(Ok(Stamped { now, value })))
    }

    fn fetch(&mut self, request: &FetchRequest) -> EffectResult {
        let user = request.user().as_str().to_owned();
        let fault = match uniform(&mut self.rng, 60) {
            _ if !self.faults => None,
            0 => Some(Fault::Error {
                status: 410,
                reason: "fullSyncRequired".to_owned(),
            }),
            1 => Some(Fault::LimitedUntil {
                until: self.now.plus_ms(3_000),
                status: 429,
                retry_after_s: Some(2),
            }),
            2 => Some(Fault::Error {
                status: 401,
                reason: "authError".to_owned(),
            }),
            3 => Some(Fault::Html { status: 503 }),
            4 => Some(Fault::CutBody),
            5 => Some(Fault::NoSyncToken),
            6 => Some(Fault::Error {
                status: 403,
                reason: "userRateLimitExceeded".to_owned(),
            }),
            7 => {
                self.google.expire_sync_tokens(&user).unwrap();
                None
            }
            8 => {
                return EffectResult::Panicked {
                    detail: format!("{PLANTED} in a panic"),
                };
            }
            9 => {
                let calendars = self.google.calendars(&user).unwrap();
                if calendars.len() > 1 {
                    let last = calendars.last().unwrap();
                    self.google.remove_calendar(self.now, &user, last).unwrap();
                }
                None
            }
            _ => None,
        };
        if let Some(fault) = fault {
            self.google.inject(Some(&user), fault).unwrap();
        }
        for _ in 0..uniform(&mut self.rng, 2) {
            let change = self.google.random_change(self.now, &user, &mut self.rng);
            let _ = self.google.apply(self.now, &user, &change.unwrap());
        }
        EffectResult::Fetch(self.ask(request, &user))
    }

    fn ask(&mut self, request: &FetchRequest, user: &str) -> Result<FetchReply, Failure> {
        let segments: Vec<String> = request
            .path_segments()
            .iter()
            .map(|segment| segment.replace('%', "%25").replace('#', "%23"))
            .collect();
        let access = self.google.users().find(|access| access.email == user);
        let mut asked = Request::get(&format!("/calendar/v3/{}", segments.join("/"))).with_header(
            "authorization",
            format!("Bearer {}", access.unwrap().refresh_token),
        );
        match request {
            FetchRequest::Calendars { .. } | FetchRequest::Events { .. } => {}
            FetchRequest::Watch {
                channel, life_ms, ..
            } => {
                asked.method = "POST".to_owned();
                let expires_at = self.now.plus_ms(*life_ms);
                let address = "https://hooks.example.com/";
                asked.body = watch_body(channel, address, PLANTED, expires_at).into();
            }
            FetchRequest::StopChannel {
                channel, resource, ..
            } => {
                asked.method = "POST".to_owned();
                let resource = resource.strip_prefix(&format!("{PLANTED} "));
                asked.body = stop_body(channel, resource.unwrap()).into();
            }
        }
        for (name, value) in request.parameters() {
            asked = asked.with_query(name, value);
        }
        let response = self.google.handle(self.now, &asked);
        if response.delivery != Delivery::Whole {
            return Err(Failure::transient(format!("{PLANTED}: cut off")));
        }
        let is_stop = matches!(request, FetchRequest::StopChannel { .. });
        if is_stop && is_stopped(response.status) {
            return Ok(FetchReply::Stopped);
        }
        if response.status != 200 {
            let retry = response.header("retry-after");
            let retry_ms = retry.and_then(|value| retry_after_ms(value, None, self.now));
            let failure = classify(response.status, retry_ms, &response.body);
            let detail = format!("{PLANTED}: {failure}");
            return Err(Failure::new(failure.kind, detail));
        }
        match request {
            FetchRequest::Calendars { .. } => {
                Ok(FetchReply::Calendars(read_calendars(&response.body)?))
            }
            FetchRequest::Events { .. } => {
                let mut page = read_events(&response.body)?;
                self.make_hostile(&mut page);
                Ok(FetchReply::Events(page))
            }
            FetchRequest::Watch { .. } => {
                let mut made = read_watched(&response.body)?;
                made.resource = format!("{PLANTED} {}", made.resource);
                Ok(FetchReply::Watched(made))
            }
            FetchRequest::StopChannel { .. } => Ok(FetchReply::Stopped),
        }
    }

    fn make_hostile(&mut self, page: &mut EventsPage) {
        page.summary = Some(format!("{PLANTED} calendar"));
        for index in 0..page.events.len() {
            let what = uniform(&mut self.rng, if self.faults { 40 } else { 0 });
            let event = &mut page.events[index];
            event.summary = Some(format!("{PLANTED} \u{202e} lunch \"\\\n"));
            event.description = Some(format!("call ya29.{PLANTED}, ada@example.com"));
            event.location = Some(format!("{PLANTED} street"));
            let start = event.start.clone().unwrap_or_default();
            match what {
                1 => event.id = None,
                2 => event.id = Some(format!("{PLANTED}{}", "i".repeat(1_100))),
                3 => event.id = Some(String::new()),
                4 => event.start = None,
                5 => event.end = None,
                6 => std::mem::swap(&mut event.start, &mut event.end),
                7 => event.description = Some("x".repeat(1_100_000)),
                8 => event.status = Some(PLANTED.to_owned()),
                9 => event.etag = Some(format!("\"{PLANTED}\"")),
                10 => event.etag = None,
                11 => event.updated = Some(PLANTED.to_owned()),
                12 => {
                    let mut bad = start;
                    bad.date_time = Some(format!("{PLANTED}-01-01T00:00:00Z"));
                    event.start = Some(bad);
                }
                13 => {
                    let mut bad = start;
                    bad.date = Some("2026-13-01".to_owned());
                    bad.date_time = None;
                    event.end = Some(bad);
                }
                14 => event.status = Some("cancelled".to_owned()),
                15 => event.recurring_event_id = Some(PLANTED.to_owned()),
                16 => event.recurrence = vec![format!("RRULE:X-{PLANTED}")],
                17 => {
                    let twin = event.clone();
                    page.events.push(twin);
                }
                18 => page.unreadable.push(UnreadableItem {
                    id: Some(format!("{PLANTED}-id")),
                    reason: format!("{PLANTED}: must be"),
                }),
                19 => page.access_role = Some(PLANTED.to_owned()),
                20 => page.time_zone = Some(format!("{PLANTED}/Zone")),
                21 => page.summary = Some("another".to_owned()),
                _ => {}
            }
        }
    }

    fn graph(&mut self, write: &GraphWrite) -> EffectResult {
        let refused =
            |kind| EffectResult::Graph(Err(Failure::new(kind, format!("{PLANTED} graph"))));
        match uniform(&mut self.rng, 50) {
            _ if !self.faults => {}
            0 => {
                return refused(FailureKind::Transient {
                    retry_after_ms: None,
                });
            }
            1 | 2 => return refused(FailureKind::Rejected),
            3 => return refused(FailureKind::NotReady),
            4 => return EffectResult::Graph(Ok(GraphReply::Fenced)),
            5 => return refused(FailureKind::TooLarge),
            _ => {}
        }
        let upserted = match write {
            GraphWrite::Apply { upserts, .. } => upserts.len() as u64,
            _ => 0,
        };
        EffectResult::Graph(Ok(GraphReply::Written(GraphCounts {
            upserted,
            deleted: 0,
        })))
    }
}
