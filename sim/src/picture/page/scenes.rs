//! What was watched: a herd after an outage, and a day with four outages.

use super::super::plot::{Axis, Layer, Plot, Scale, Tone};
use super::super::watch::{Ages, OLD_MIN, Watch};
use super::super::{DAY_USERS, Facts, HERD_OUTAGE_MIN, HERD_USERS, Outage};
use super::{section, table, thousands};

/// Seconds of the herd's plot that share one point: the most of them is drawn.
const BIN_S: usize = 10;
/// The herd is drawn from this minute on.
const HERD_FROM_MIN: u64 = 100;

pub(super) fn herd(facts: &Facts) -> String {
    let (together, spread) = (&facts.watched.together, &facts.watched.spread);
    let (away, back) = HERD_OUTAGE_MIN;
    let users = thousands(u64::from(HERD_USERS));
    let plot = Plot {
        id: "herd-plot".to_owned(),
        title: "Requests a second at Google after an outage, with and without spread".to_owned(),
        description: format!(
            "{users} users are due at once when Redis comes back in minute {back}. Without spread up to {} requests reach \
             Google in a second, and again at every tick; spread evenly at most {}.",
            together.peak(),
            spread.peak()
        ),
        x: Axis {
            label: "minutes since the start".to_owned(),
            min: HERD_FROM_MIN as f64,
            max: 180.0,
            scale: Scale::Linear,
            ticks: (10..=18)
                .map(|ten| (f64::from(ten * 10), (ten * 10).to_string()))
                .collect(),
        },
        y: Axis {
            label: "requests a second".to_owned(),
            min: 0.3,
            max: 2_000.0,
            scale: Scale::Log,
            ticks: std::iter::once((0.3, "0".to_owned()))
                .chain(
                    [1_u32, 10, 100, 1_000]
                        .map(|rate| (f64::from(rate), thousands(u64::from(rate)))),
                )
                .collect(),
        },
        layers: vec![
            Layer::Band {
                from: away.max(HERD_FROM_MIN) as f64,
                to: back as f64,
                label: "Redis away".to_owned(),
            },
            area(Tone::Legacy, together),
            line(Tone::Legacy, together),
            area(Tone::Kalends, spread),
            line(Tone::Kalends, spread),
        ],
    };
    section(
        "herd",
        "A herd after an outage is spread, not released",
        &format!(
            "Redis is away for an hour; {users} users are due when it comes back, with no limit on jobs. Requests a second at \
             Google (the most in each {BIN_S} seconds, on a logarithmic scale)."
        ),
        &[
            (Tone::Kalends.class(), "spread evenly (the default)"),
            (Tone::Legacy.class(), "no spread, no jitter"),
            ("bands", "Redis away"),
        ],
        &plot.render(),
        &table(
            "Requests at Google",
            &["", "most in a second", "most in a minute", "all"],
            &[
                herd_row("spread evenly", spread),
                herd_row("no spread", together),
            ],
        ),
    )
}

fn herd_row(name: &str, watch: &Watch) -> Vec<String> {
    let minutes = watch.requests.chunks(60);
    let minute = minutes.map(|seconds| seconds.iter().sum::<u32>()).max();
    let all: u32 = watch.requests.iter().sum();
    let numbers = [watch.peak(), minute.unwrap_or(0), all];
    let cells = numbers.map(|number| thousands(u64::from(number)));
    std::iter::once(name.to_owned()).chain(cells).collect()
}

/// Minutes and the most requests in a second, for each stretch of [`BIN_S`] seconds.
fn rates(watch: &Watch) -> Vec<(f64, f64)> {
    let bins = watch.requests.chunks(BIN_S).enumerate();
    bins.map(|(bin, seconds)| {
        let most = seconds.iter().copied().max().unwrap_or(0);
        ((bin * BIN_S) as f64 / 60.0, f64::from(most))
    })
    .filter(|(minute, _)| *minute >= HERD_FROM_MIN as f64)
    .collect()
}

fn line(tone: Tone, watch: &Watch) -> Layer {
    Layer::Line {
        tone,
        points: rates(watch),
        dots: false,
        dashed: false,
    }
}

fn area(tone: Tone, watch: &Watch) -> Layer {
    let points = rates(watch).into_iter();
    Layer::Range {
        tone,
        points: points.map(|(minute, rate)| (minute, 0.3, rate)).collect(),
    }
}

// -- the day -----------------------------------------------------------------------------------------------------------

/// What the numbers over the bands of a narrow plot stand for.
fn numbered(outages: &[Outage]) -> String {
    let entries = outages.iter().enumerate();
    let entries: Vec<String> = entries
        .map(|(place, outage)| format!("{}: {}", place + 1, outage.label))
        .collect();
    entries.join(", ")
}

fn hours() -> Axis {
    Axis {
        label: "hours since the start".to_owned(),
        min: 0.0,
        max: 1_440.0,
        scale: Scale::Linear,
        ticks: (0..=8)
            .map(|third| (f64::from(third * 180), (third * 3).to_string()))
            .collect(),
    }
}

pub(super) fn day(facts: &Facts) -> String {
    let (kalends, legacy) = (&facts.watched.day, &facts.watched.legacy_day);
    let bands = || {
        facts.outages.iter().map(|outage| Layer::Band {
            from: outage.from_min as f64,
            to: outage.to_min as f64,
            label: outage.label.clone(),
        })
    };
    let oldest = kalends.ages.iter().map(|ages| ages.oldest_min).max();
    let oldest = oldest.unwrap_or(0);
    let top = (oldest + 15).div_ceil(15) * 15;
    let series = |of: fn(&Ages) -> u64| -> Vec<(f64, f64)> {
        let ages = kalends.ages.iter();
        ages.map(|ages| (ages.at_min as f64, of(ages) as f64))
            .collect()
    };
    let line = |tone, points| Layer::Line {
        tone,
        points,
        dots: false,
        dashed: false,
    };
    let under = |tone, points: Vec<(f64, f64)>| Layer::Range {
        tone,
        points: points.iter().map(|(x, y)| (*x, 0.0, *y)).collect(),
    };
    let step = if top > 120 { 30 } else { 15 };
    let age = Plot {
        id: "age-plot".to_owned(),
        title: "How old the users' graphs are, through a day with four outages".to_owned(),
        description: format!(
            "Between outages half of the users are a few minutes old and nobody much older than a quarter of an hour; in an \
             outage of an hour the age grows to {oldest} minutes at most, and falls at once when it is over."
        ),
        x: hours(),
        y: Axis {
            label: "minutes".to_owned(),
            min: 0.0,
            max: top as f64,
            scale: Scale::Linear,
            ticks: (0..=top / step)
                .map(|tick| ((tick * step) as f64, format!("{}", tick * step)))
                .collect(),
        },
        layers: bands()
            .chain([
                line(Tone::Muted, series(|ages| ages.oldest_min)),
                line(Tone::Raised, series(|ages| ages.p95_min)),
                line(Tone::Kalends, series(|ages| ages.p50_min)),
            ])
            .collect(),
    };
    let old = |watch: &Watch| -> Vec<(f64, f64)> {
        let ages = watch.ages.iter();
        ages.map(|ages| (ages.at_min as f64, ages.old as f64))
            .collect()
    };
    let legacy_end = legacy.ages.last().map_or(0, |ages| ages.old);
    let kalends_end = kalends.ages.last().map_or(0, |ages| ages.old);
    let old_plot = Plot {
        id: "old-plot".to_owned(),
        title: format!("Users older than {OLD_MIN} minutes on the same day"),
        description: format!(
            "At the end of the day {legacy_end} of {DAY_USERS} users of the replaced service are older than an hour, and \
             {kalends_end} of Kalends's."
        ),
        x: hours(),
        y: Axis {
            label: "users".to_owned(),
            min: 0.0,
            max: f64::from(DAY_USERS),
            scale: Scale::Linear,
            ticks: (0..=4)
                .map(|quarter| {
                    let users = quarter * DAY_USERS / 4;
                    (f64::from(users), users.to_string())
                })
                .collect(),
        },
        layers: bands()
            .chain([
                under(Tone::Legacy, old(legacy)),
                line(Tone::Legacy, old(legacy)),
                under(Tone::Kalends, old(kalends)),
                line(Tone::Kalends, old(kalends)),
            ])
            .collect(),
    };
    let numbered = numbered(&facts.outages);
    let rows: Vec<Vec<String>> = (1..=24)
        .filter_map(|hour| {
            let at = |watch: &Watch| {
                let mut ages = watch.ages.iter();
                ages.find(|ages| ages.at_min == hour * 60).copied()
            };
            let (ours, theirs) = (at(kalends)?, at(legacy)?);
            let cells = [
                ours.p50_min,
                ours.p95_min,
                ours.oldest_min,
                ours.old,
                theirs.old,
            ];
            let mut row = vec![format!("{hour}:00")];
            row.extend(cells.map(|cell| cell.to_string()));
            Some(row)
        })
        .collect();
    let first = section(
        "day",
        "Fresh again as soon as an outage is over",
        &format!(
            "{DAY_USERS} users for a day, every quarter of an hour, 10 jobs a minute. How long ago a user's graph was as the \
             calendar stood at Google, in minutes."
        ),
        &[
            ("k", "half of the users are younger"),
            ("r", "95 % are younger"),
            ("m", "the oldest"),
            ("bands wide", "outage"),
            ("bands narrow", numbered.as_str()),
        ],
        &age.render(),
        &table(
            "Ages in minutes, and users older than an hour",
            &[
                "hour",
                "p50",
                "p95",
                "oldest",
                "old: Kalends",
                "old: replaced",
            ],
            &rows,
        ),
    );
    let second = section(
        "old",
        "The same day with the service that Kalends replaces",
        &format!(
            "Users (of {DAY_USERS}) whose graph is older than an hour. A failed sync and a 429 leave a user of the replaced \
             service in a state from which no rule leads back; its Redis and its status in Neo4j are never away here."
        ),
        &[
            ("l", "replaced service"),
            ("k", "Kalends"),
            ("bands wide", "outage"),
            ("bands narrow", numbered.as_str()),
        ],
        &old_plot.render(),
        "",
    );
    first + &second
}
