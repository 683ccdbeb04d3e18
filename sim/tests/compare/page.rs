//! The page holds what it must, is whole in itself, and takes no text for markup.

use std::collections::BTreeSet;

use kalends_sim::compare::{Comparison, IncidentRow, Outcome, SizeRow};
use kalends_sim::marks::Marks;
use kalends_sim::picture::{Facts, Outage, Scenes, Watched, outages, page, watch};
use kalends_sim::plan::Plan;

/// Users of the herd of a test.
const USERS: u32 = 120;

fn outcome(minutes: usize, lost: u64) -> Outcome {
    Outcome {
        failed: None,
        fan_outs: 96,
        ticks: 96,
        gap_p50_min: Some(minutes),
        gap_p95_min: Some(minutes + 1),
        duplicates_percent: 0,
        lost,
        syncs: 1,
    }
}

fn comparison() -> Comparison {
    let row = |users, minutes| SizeRow {
        users,
        legacy: outcome(minutes, 0),
        kalends: outcome(15, 0),
        raised: outcome(15, 0),
        raised_limit: 77,
    };
    Comparison {
        seed: 1,
        hours: 24,
        sizes: vec![row(100, 30), row(3_000, 285)],
        incidents: vec![IncidentRow {
            what: "a test & <an incident>",
            users: 100,
            published_lost: Some(86),
            legacy: outcome(30, 83),
            kalends: outcome(15, 0),
        }],
    }
}

/// The scenes with few users and few hours.
fn scenes() -> Scenes {
    let mut scenes = Scenes::new(1);
    for plan in [&mut scenes.together, &mut scenes.spread] {
        plan.size.users = USERS;
    }
    for plan in [&mut scenes.day, &mut scenes.legacy_day] {
        plan.size.users = 20;
        plan.size.duration_ms = 6 * 60 * 60 * 1_000;
        let end_ms = plan.size.duration_ms;
        plan.faults.retain(|fault| fault.at_ms < end_ms);
    }
    scenes
}

fn facts() -> Facts {
    let scenes = scenes();
    let seen = |plan: &Plan| {
        let (watch, report) = watch(plan);
        assert_eq!(report.failed, None);
        watch
    };
    Facts {
        seed: 1,
        version: "0.0.0-<b>".to_owned(),
        watched: Watched {
            together: seen(&scenes.together),
            spread: seen(&scenes.spread),
            day: seen(&scenes.day),
            legacy_day: seen(&scenes.legacy_day),
        },
        outages: outages(&scenes.day),
        comparison: comparison(),
        marks: Marks::default(),
        marks_plans: 3,
        failures: Vec::new(),
    }
}

#[test]
fn the_page_shows_what_was_seen_and_needs_nothing_from_elsewhere() {
    let mut facts = facts();
    let (together, spread) = (&facts.watched.together, &facts.watched.spread);
    assert!(
        together.peak() > 10 * spread.peak(),
        "{} a second together, {} spread",
        together.peak(),
        spread.peak()
    );
    let old_at_the_end =
        |watched: &kalends_sim::picture::watch::Watch| watched.ages.last().unwrap().old;
    assert_eq!(
        old_at_the_end(&facts.watched.day),
        0,
        "Kalends is fresh again"
    );
    assert_eq!(
        old_at_the_end(&facts.watched.legacy_day),
        20,
        "nobody of the others"
    );
    let worst = facts
        .watched
        .day
        .ages
        .iter()
        .map(|ages| ages.oldest_min)
        .max();
    assert!(
        (55..=80).contains(&worst.unwrap()),
        "an outage of an hour: {worst:?}"
    );

    let text = page::render(&facts);
    assert_eq!(
        text,
        page::render(&self::facts()),
        "the same facts, the same page"
    );
    for outside in [
        "http:", "https:", "src=", "url(", "@import", "<script", "<link", "<img",
    ] {
        assert!(!text.contains(outside), "{outside}");
    }
    for needed in [
        "prefers-color-scheme: dark",
        "name=\"viewport\"",
        "lang=\"en\"",
        "Google away",
        "285/286",
        "<td>83</td>",
        "process-crashed",
    ] {
        assert!(text.contains(needed), "{needed}");
    }
    let pictures = text.matches("<svg ").count();
    assert_eq!(pictures, 2 * 5, "five plots, wide and narrow");
    assert_eq!(
        text.matches("role=\"img\" aria-labelledby=").count(),
        pictures
    );
    assert_eq!(text.matches("<desc id=").count(), pictures);
    let ids: Vec<&str> = text
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "ids are unique: {ids:?}"
    );
    assert!(
        !text.contains("NaN") && !text.contains("inf"),
        "every number is one"
    );

    // Whatever a name holds, it stays a name.
    facts.outages.push(Outage {
        from_min: 10,
        to_min: 20,
        label: "\"></title><script>alert(1)</script>".to_owned(),
    });
    facts.failures.push("<img onerror=x> & more".to_owned());
    let text = page::render(&facts);
    assert!(text.contains("Runs that failed"));
    assert!(text.contains("&lt;img onerror=x&gt; &amp; more"));
    assert!(text.contains("0.0.0-&lt;b&gt;") && text.contains("a test &amp; &lt;an incident&gt;"));
    assert!(!text.contains("<script") && !text.contains("<img") && !text.contains("<b>\""));
}
