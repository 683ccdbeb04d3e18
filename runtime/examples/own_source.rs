//! Calendars from somewhere else than Google: here, the rota of a team, which the program holds in memory.
//!
//! ```sh
//! cargo run -p kalends --example own_source
//! ```
//!
//! A source answers one question: a page of events, either of everything or of what changed since a token. The token is the
//! source's own; Kalends keeps it and brings it back. Here it is the number of the last change.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use kalends::prelude::*;
use kalends_adapters::embedded::EmbeddedStore;
use kalends_core::google::event::{ApiEvent, ApiTime};
use kalends_core::google::page::{EventsPage, PageEnd};
use kalends_core::google::query::EventsFrom;

/// Somebody's day on duty. One that is taken back stays, so that whoever saw it is told.
struct Shift {
    id: &'static str,
    who: String,
    day: &'static str,
    is_cancelled: bool,
    /// The number of the change that made it so.
    changed: u64,
}

/// The rota of one team.
#[derive(Default)]
struct Rota(Mutex<Vec<Shift>>);

impl Rota {
    /// Puts `who` on duty on `day` (`yyyy-mm-dd`), instead of whoever was; nobody, if it is empty.
    fn put(&self, id: &'static str, day: &'static str, who: &str) {
        let mut shifts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = shifts.iter().map(|shift| shift.changed).max();
        shifts.retain(|shift| shift.id != id);
        shifts.push(Shift {
            id,
            who: who.to_owned(),
            day,
            is_cancelled: who.is_empty(),
            changed: newest.unwrap_or(0) + 1,
        });
    }
}

fn event(shift: &Shift) -> ApiEvent {
    let day = ApiTime {
        date: Some(shift.day.to_owned()),
        ..ApiTime::default()
    };
    let status = if shift.is_cancelled {
        "cancelled"
    } else {
        "confirmed"
    };
    ApiEvent {
        id: Some(shift.id.to_owned()),
        // Orders the states of one event: an older one never overwrites a newer one.
        etag: Some(format!("\"{}\"", shift.changed)),
        status: Some(status.to_owned()),
        summary: Some(format!("{} is on duty", shift.who)),
        start: Some(day.clone()),
        end: Some(day),
        ..ApiEvent::default()
    }
}

#[async_trait]
impl Source for Rota {
    async fn fetch(&self, request: FetchRequest) -> Result<FetchReply, Failure> {
        let FetchRequest::Events { query, .. } = request else {
            // Asked only with `CalendarSelection::AllReadable`.
            return Err(Failure::permanent("a rota has no list of calendars"));
        };
        let since = match query.from {
            EventsFrom::Full { .. } => 0,
            EventsFrom::SyncToken(token) => token.parse().map_err(|_| {
                // A token that is of no use leads to one full pass.
                Failure::new(FailureKind::Gone { malformed: true }, "not a token of ours")
            })?,
        };
        let shifts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = shifts.iter().map(|shift| shift.changed).max().unwrap_or(0);
        let changed = shifts.iter().filter(|shift| shift.changed > since);
        Ok(FetchReply::Events(EventsPage {
            summary: Some("Rota".to_owned()),
            time_zone: None,
            access_role: None,
            events: changed.map(event).collect(),
            unreadable: Vec::new(),
            // A rota is short: one page is all.
            end: PageEnd::Done {
                sync_token: Some(newest.to_string()),
            },
        }))
    }
}

/// Waits for the end of the next sync.
async fn synced(events: &mut Events) -> Result<(), Box<dyn Error>> {
    while let Some(event) = events.next().await {
        match event {
            Event::Happened(Notice::JobDone {
                key: JobKey::Sync { .. },
                ..
            }) => return Ok(()),
            Event::Happened(Notice::JobFailed { failure, .. }) => return Err(failure.into()),
            _ => {}
        }
    }
    Err("it ended before the sync did".into())
}

/// Syncs a rota, changes it, syncs it again; what the graph held after each.
///
/// # Errors
/// If something of it fails.
pub(crate) async fn run() -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = Arc::new(EmbeddedStore::open(
        folder.path(),
        Arc::new(kalends::clock::SystemClock),
    )?);
    let rota = Arc::new(Rota::default());
    rota.put("monday", "2030-06-03", "Ada");
    rota.put("tuesday", "2030-06-04", "Grace");

    let team = UserId::new("team-a")?;
    let source = SourceName::new("rota")?;
    let kalends = Kalends::builder()
        .store(store.clone())
        .graph(store.clone())
        .source(rota.clone())
        .source_name(source.clone())
        .no_schedule()
        .start()
        .await?;
    let handle = kalends.handle();
    let mut events = handle.events();
    let mut changes = handle.readiness_changes();
    changes
        .wait_for(|readiness| *readiness == Readiness::Ready)
        .await?;

    let mut seen = Vec::new();
    let names = || async {
        let snapshot = store.snapshot(&team).await?;
        let names = snapshot
            .events
            .into_iter()
            .filter_map(|event| event.row.name);
        Ok::<Vec<String>, Failure>(names.collect())
    };
    handle.enroll(source.clone(), team.clone(), 0).await?;
    synced(&mut events).await?;
    seen.push(names().await?);

    rota.put("monday", "2030-06-03", "");
    rota.put("tuesday", "2030-06-04", "Edsger");
    handle.enqueue_sync(source, team.clone()).await?;
    synced(&mut events).await?;
    seen.push(names().await?);

    kalends.shutdown(5_000).await;
    store.close().await;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for (number, names) in run().await?.iter().enumerate() {
        println!("after sync {}: {}", number + 1, names.join(", "));
    }
    Ok(())
}
