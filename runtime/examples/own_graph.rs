//! Events go somewhere else than to Neo4j: here, to a table in memory that announces what changes, as a search index, a cache
//! or a queue of messages would.
//!
//! ```sh
//! cargo run -p kalends --example own_graph
//! ```
//!
//! A sink keeps the rules of [`kalends_core::graph`]: it refuses what a lost lease sends (the fence), may be sent the same
//! batch twice, never takes an older state of an event for a newer one, and removes what a full pass did not see only when
//! it is told to sweep.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kalends::clock::SystemClock;
use kalends::emulate::face::{self, FaceOptions};
use kalends::prelude::*;
use kalends_adapters::google::{GoogleAuth, GoogleSettings, RefreshTokens};
use kalends_adapters::secret::Secret;
use kalends_core::graph::{EventRow, GraphCounts};
use kalends_core::queue::command::LeaseToken;
use kalends_sim::google::{GoogleEmulator, GoogleSettings as EmulatorSettings, UserAccess};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Changes that are announced and not read yet; a full channel makes the sink wait, and so the sync.
const ANNOUNCED_MAX: usize = 256;

/// What is announced: which event, and its new title; `None`: it is gone.
type Change = (String, Option<String>);

type EventKey = (UserId, CalendarId, String);

#[derive(Default)]
struct Table {
    /// The largest token that wrote for each user.
    fences: BTreeMap<UserId, LeaseToken>,
    /// Each event, and the full pass that saw it last.
    events: BTreeMap<EventKey, (EventRow, u64)>,
}

/// A table of events.
struct Sink {
    table: Mutex<Table>,
    changes: mpsc::Sender<Change>,
}

impl Table {
    /// Removes the events of a calendar for which `is_gone` holds.
    fn remove(
        &mut self,
        user: &UserId,
        calendar: &CalendarId,
        changes: &mut Vec<Change>,
        is_gone: impl Fn(&EventRow, u64) -> bool,
    ) {
        self.events.retain(|(whose, of, id), (row, generation)| {
            let goes = whose == user && of == calendar && is_gone(row, *generation);
            if goes {
                changes.push((id.clone(), None));
            }
            !goes
        });
    }

    fn upsert(&mut self, key: EventKey, row: EventRow, generation: u64, changes: &mut Vec<Change>) {
        let (user, calendar, id) = key.clone();
        if let Some(until_ms) = row.series_until_ms {
            // The series was cut: what was an exception beyond the cut is no more.
            self.remove(&user, &calendar, changes, |other, _| {
                let original = other.original_start.as_ref();
                other.series_id.as_ref() == Some(&id)
                    && original.is_some_and(|start| start.epoch_ms > until_ms)
            });
        }
        match self.events.get_mut(&key) {
            // Seen by this pass all the same, so that its sweep spares it.
            Some((known, seen)) if known.version > row.version || *known == row => {
                *seen = generation;
            }
            _ => {
                changes.push((id, Some(row.name.clone().unwrap_or_default())));
                self.events.insert(key, (row, generation));
            }
        }
    }

    /// What a write changes; `None` if a later lease wrote before.
    fn apply(&mut self, write: GraphWrite) -> Option<Vec<Change>> {
        let fence = match &write {
            GraphWrite::Apply { fence, .. }
            | GraphWrite::Spare { fence, .. }
            | GraphWrite::Sweep { fence, .. }
            | GraphWrite::RemoveCalendar { fence, .. } => *fence,
        };
        let largest = self.fences.entry(write.user().clone()).or_insert(fence);
        if fence < *largest {
            return None;
        }
        *largest = fence;
        let mut changes = Vec::new();
        match write {
            GraphWrite::Apply {
                user,
                calendar,
                generation,
                upserts,
                deletions,
                ..
            } => {
                for gone in deletions {
                    // A series takes its exceptions along.
                    self.remove(&user, &calendar.id, &mut changes, |row, _| {
                        let is_it = row.id == gone.id || row.series_id.as_ref() == Some(&gone.id);
                        is_it && row.version <= gone.version
                    });
                }
                for row in upserts {
                    let key = (user.clone(), calendar.id.clone(), row.id.clone());
                    self.upsert(key, row, generation, &mut changes);
                }
            }
            GraphWrite::Spare {
                user,
                calendar,
                generation,
                events,
                ..
            } => {
                for id in events {
                    let key = (user.clone(), calendar.clone(), id);
                    if let Some((_, seen)) = self.events.get_mut(&key) {
                        *seen = generation;
                    }
                }
            }
            GraphWrite::Sweep {
                user,
                calendar,
                generation,
                ..
            } => self.remove(&user, &calendar, &mut changes, |_, seen| seen < generation),
            GraphWrite::RemoveCalendar { user, calendar, .. } => {
                self.remove(&user, &calendar, &mut changes, |_, _| true);
            }
        }
        Some(changes)
    }
}

#[async_trait]
impl Graph for Sink {
    async fn write(&self, write: GraphWrite) -> Result<GraphReply, Failure> {
        let applied = {
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            table.apply(write)
        };
        let Some(changes) = applied else {
            return Ok(GraphReply::Fenced);
        };
        let mut counts = GraphCounts::default();
        for change in changes {
            match &change.1 {
                Some(_) => counts.upserted += 1,
                None => counts.deleted += 1,
            }
            let sent = self.changes.send(change).await;
            sent.map_err(|_| Failure::permanent("nobody listens to the changes any more"))?;
        }
        Ok(GraphReply::Written(counts))
    }

    async fn snapshot(&self, _: &UserId) -> Result<GraphSnapshot, Failure> {
        // Only comparisons with the calendar ask for it, and nobody compares here.
        Err(Failure::permanent("this sink is not read back"))
    }
}

/// The one user of the emulated Google.
struct OneUser(UserAccess);

impl RefreshTokens for OneUser {
    fn refresh_token(&self, _: &UserId) -> Option<Secret> {
        Some(Secret::new(self.0.refresh_token.clone()))
    }
}

/// Syncs a user of an emulated Google with `events` events into a sink; what it announced.
///
/// # Errors
/// If something of it fails.
pub(crate) async fn run(events: u32) -> Result<Vec<Change>, Box<dyn Error>> {
    let emulator = GoogleEmulator::new(EmulatorSettings::new(7, 1, events, SystemClock.now()));
    let access = emulator.users().next().ok_or("the emulator has one user")?;
    let user = UserId::new(&access.email)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let google_url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(face::serve(
        listener,
        Arc::new(Mutex::new(emulator)),
        Arc::new(SystemClock),
        FaceOptions::default(),
        std::future::pending(),
    ));

    let folder = tempfile::tempdir()?;
    let (changes, mut announced) = mpsc::channel(ANNOUNCED_MAX);
    let kalends = Kalends::builder()
        .folder(folder.path())
        .google(GoogleSettings {
            api_base_url: format!("{google_url}/calendar/v3"),
            token_url: format!("{google_url}/token"),
            request_timeout_ms: 20_000,
            auth: GoogleAuth::RefreshTokens {
                client_id: "my-client".to_owned(),
                client_secret: Secret::new("my-client-secret"),
                tokens: Arc::new(OneUser(access)),
            },
        })
        .graph(Arc::new(Sink {
            table: Mutex::default(),
            changes,
        }))
        .user(user, 1)
        .start()
        .await?;
    let mut happening = kalends.handle().events();
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            // In this order: what was announced before the job ended is read before its end.
            biased;
            Some(change) = announced.recv() => seen.push(change),
            event = happening.next() => match event {
                Some(Event::Happened(Notice::JobDone { key: JobKey::Sync { .. }, .. })) => break,
                Some(Event::Happened(Notice::JobFailed { failure, .. })) => return Err(failure.into()),
                Some(_) => {}
                None => return Err("it ended before the sync did".into()),
            },
        }
    }
    kalends.shutdown(5_000).await;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for (id, title) in run(20).await? {
        match title {
            Some(title) => println!("{id}: {title}"),
            None => println!("{id}: gone"),
        }
    }
    Ok(())
}
