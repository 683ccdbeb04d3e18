//! What is counted is shown, and no user is.

use kalends_core::failure::Failure;
use kalends_core::id::{ScheduleName, SourceName, UserId};

use super::*;

fn sync(user: &str) -> JobKey {
    JobKey::Sync {
        source: SourceName::google_calendar(),
        user: UserId::new(user).unwrap(),
    }
}

#[test]
fn notices_become_counts_without_names_of_users() {
    let metrics = Metrics::new(Timestamp::from_ms(1_500), 5);
    let key = sync("planted-user@example.com");
    metrics.observe(&Notice::JobStarted {
        key: key.clone(),
        attempt: 1,
    });
    metrics.observe(&Notice::JobDone {
        key: key.clone(),
        outcome: CommitOutcome::Synced {
            upserted: 3,
            deleted: 2,
            quarantined: 1,
            requests: 1,
            full: false,
        },
        duration_ms: 70,
    });
    metrics.observe(&Notice::JobFailed {
        key,
        failure: Failure::permanent("planted-detail"),
        parked: true,
    });
    metrics.observe(&Notice::TicksMissed {
        schedule: ScheduleName::new("quarter").unwrap(),
        count: 4,
    });
    let text = metrics.render(None, true);
    for line in [
        "kalends_job_attempts_total 1",
        "kalends_jobs_total{outcome=\"synced\"} 1",
        "kalends_jobs_total{outcome=\"parked\"} 1",
        "kalends_jobs_total{outcome=\"failed\"} 0",
        "kalends_events_total{change=\"upserted\"} 3",
        "kalends_ticks_missed_total{schedule=\"quarter\"} 4",
        "kalends_job_duration_seconds_bucket{kind=\"sync\",le=\"0.05\"} 0",
        "kalends_job_duration_seconds_bucket{kind=\"sync\",le=\"0.1\"} 1",
        "kalends_store_up 0",
        "kalends_ready 1",
        "process_start_time_seconds 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    assert!(!text.contains("planted"), "{text}");
}

#[test]
fn every_status_has_its_label() {
    let metrics = Arc::new(Metrics::new(Timestamp::EPOCH, 1));
    let observer = metrics.google_observer();
    for status in [200, 401, 404, 418, 429, 503] {
        observer(Endpoint::Calendar, Some(status));
    }
    observer(Endpoint::Token, None);
    let text = metrics.render(None, false);
    for line in [
        "kalends_google_requests_total{status=\"4xx\"} 1",
        "kalends_google_requests_total{status=\"429\"} 1",
        "kalends_google_requests_total{status=\"5xx\"} 1",
        "kalends_google_token_requests_total{status=\"none\"} 1",
        "kalends_google_token_requests_total{status=\"2xx\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
}
