//! Kalends beside the service that it replaces.

use super::super::Facts;
use super::super::plot::{Axis, Layer, Plot, Scale, Tone, bars};
use super::{section, table, thousands};
use crate::compare::{Outcome, SizeRow};

pub(super) fn gaps(facts: &Facts) -> String {
    let sizes = &facts.comparison.sizes;
    let series = |of: fn(&SizeRow) -> &Outcome| -> Vec<(f64, f64, f64)> {
        let rows = sizes.iter().filter_map(|row| {
            let outcome = of(row);
            let (p50, p95) = (outcome.gap_p50_min?, outcome.gap_p95_min?);
            Some((f64::from(row.users), p50 as f64, p95 as f64))
        });
        rows.collect()
    };
    let sides = [
        (Tone::Legacy, series(|row| &row.legacy)),
        (Tone::Kalends, series(|row| &row.kalends)),
        (Tone::Raised, series(|row| &row.raised)),
    ];
    let layers = sides.iter().flat_map(|(tone, points)| {
        let line = |dashed, dots, points: Vec<(f64, f64)>| Layer::Line {
            tone: *tone,
            points,
            dots,
            dashed,
        };
        let (low, high): (Vec<_>, Vec<_>) = points
            .iter()
            .map(|(users, p50, p95)| ((*users, *p50), (*users, *p95)))
            .unzip();
        let range = Layer::Range {
            tone: *tone,
            points: points.clone(),
        };
        [range, line(true, false, low), line(false, true, high)]
    });
    let most = sizes.iter().map(|row| row.users).max().unwrap_or(1);
    let least = sizes.iter().map(|row| row.users).min().unwrap_or(1);
    let plot = Plot {
        id: "gaps-plot".to_owned(),
        title: "Minutes between two syncs of one user, against the number of users".to_owned(),
        description: "The replaced service takes 30 minutes for few users and hours for many. Kalends takes 15 minutes \
                      for as many users as the limit lets through, and for all of them when the limit is raised as it \
                      advises."
            .to_owned(),
        x: Axis {
            label: "users".to_owned(),
            min: f64::from(least) * 0.9,
            max: f64::from(most) * 1.1,
            scale: Scale::Log,
            ticks: sizes
                .iter()
                .map(|row| (f64::from(row.users), thousands(u64::from(row.users))))
                .collect(),
        },
        y: Axis {
            label: "minutes".to_owned(),
            min: 10.0,
            max: 400.0,
            scale: Scale::Log,
            ticks: [15, 30, 60, 120, 240]
                .map(|minutes| (f64::from(minutes), format!("{minutes}")))
                .to_vec(),
        },
        layers: layers.collect(),
    };
    let rows: Vec<Vec<String>> = sizes
        .iter()
        .map(|row| {
            vec![
                thousands(u64::from(row.users)),
                format!("{} of {}", row.legacy.fan_outs, row.legacy.ticks),
                gap(&row.legacy),
                format!("{} %", row.legacy.duplicates_percent),
                gap(&row.kalends),
                row.raised_limit.to_string(),
                gap(&row.raised),
            ]
        })
        .collect();
    section(
        "gaps",
        "Every fifteen minutes means every fifteen minutes",
        "Minutes between two syncs of one user (both scales logarithmic): 95 % of them are at most as long as the line with \
         dots, half of them as the broken one. Under 10 jobs a minute 150 users fit into a quarter of an hour; above that \
         Kalends says so and spaces everybody evenly.",
        &[
            ("l", "replaced service"),
            ("k", "Kalends, the same limit"),
            ("r", "Kalends, the limit raised as it advises"),
        ],
        &plot.render(),
        &table(
            "Gaps in minutes, p50/p95. Limits in jobs a minute.",
            &[
                "users",
                "fan-outs",
                "replaced",
                "doubled jobs",
                "Kalends",
                "limit",
                "Kalends, raised",
            ],
            &rows,
        ),
    )
}

fn gap(outcome: &Outcome) -> String {
    match (outcome.gap_p50_min, outcome.gap_p95_min) {
        (Some(p50), Some(p95)) => format!("{p50}/{p95}"),
        _ => "none".to_owned(),
    }
}

pub(super) fn lost(facts: &Facts) -> String {
    let incidents = &facts.comparison.incidents;
    let rows: Vec<_> = incidents
        .iter()
        .map(|row| {
            let published = row.published_lost.map(|lost| (Tone::Muted, lost));
            let measured = [
                (Tone::Legacy, row.legacy.lost),
                (Tone::Kalends, row.kalends.lost),
            ];
            let parts = published.into_iter().chain(measured).collect();
            (row.what.to_owned(), parts)
        })
        .collect();
    let most = incidents.iter().map(|row| row.users).max().unwrap_or(1);
    let drawing = bars(
        "lost-plot",
        "Users that are not synced any more after an incident",
        "The replaced service loses most of its users in each incident, near what was published of it; Kalends loses none.",
        f64::from(most),
        &rows,
    );
    let cells: Vec<Vec<String>> = incidents
        .iter()
        .map(|row| {
            let published = row.published_lost.map(|lost| lost.to_string());
            vec![
                row.what.to_owned(),
                row.users.to_string(),
                published.unwrap_or_else(|| "not known".to_owned()),
                row.legacy.lost.to_string(),
                row.kalends.lost.to_string(),
            ]
        })
        .collect();
    section(
        "lost",
        "Nobody is lost",
        &format!("Users (of {most}) who are not synced any more at the end."),
        &[
            ("m", "replaced service, as published"),
            ("l", "replaced service, as simulated"),
            ("k", "Kalends"),
        ],
        &drawing,
        &table(
            "Users lost",
            &["what happens", "users", "published", "replaced", "Kalends"],
            &cells,
        ),
    )
}
