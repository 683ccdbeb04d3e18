//! Facts into one page of HTML. Nothing in it comes from elsewhere: no script, no font, no picture, no address.

use super::escape::escape;
use super::plot::{Axis, Layer, Plot, Scale, Tone, bars};
use super::watch::{OLD_MIN, Watch};
use super::{DAY_USERS, Facts, HERD_OUTAGE_MIN, HERD_USERS};
use crate::compare::Outcome;

const STYLE: &str = include_str!("page.css");
/// Seconds of a herd's plot that share one point: the most of them is drawn.
const BIN_S: usize = 10;
/// The herd is drawn from this minute on.
const HERD_FROM_MIN: u64 = 100;

/// The page.
#[must_use]
pub fn render(facts: &Facts) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>Kalends: what the simulator saw</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    page.push_str(&head(facts));
    page.push_str("<main>\n");
    page.push_str(&failures(facts));
    page.push_str(&herd(facts));
    page.push_str(&day(facts));
    page.push_str(&gaps(facts));
    page.push_str(&lost(facts));
    page.push_str(&marks(facts));
    page.push_str("</main>\n");
    page.push_str(&format!(
        "<footer><p>Made by <code>kalends-sim report --seed {}</code>, version {}. The same seed and version make the \
         same page.</p></footer>\n</body>\n</html>\n",
        facts.seed,
        escape(&facts.version)
    ));
    page
}

fn head(facts: &Facts) -> String {
    let (together, spread) = (facts.watched.together.peak(), facts.watched.spread.peak());
    let incidents = &facts.comparison.incidents;
    let legacy: u64 = incidents.iter().map(|row| row.legacy.lost).sum();
    let kalends: u64 = incidents.iter().map(|row| row.kalends.lost).sum();
    let sizes = &facts.comparison.sizes;
    let raised = sizes.iter().filter_map(|row| row.raised.gap_p95_min).max();
    let fits = sizes.iter().find(|row| row.users == 100);
    let legacy_gap = fits.and_then(|row| row.legacy.gap_p95_min).unwrap_or(0);
    let reached = facts.marks.table().filter(|(_, _, count)| *count > 0);
    let (reached, all) = (reached.count(), facts.marks.table().count());
    format!(
        "<header>\n<h1>Kalends: what the simulator saw</h1>\n\
         <p>A fleet of the real program, played in a world of simulated servers, networks and clocks. Every number on this \
         page was measured in a run made for it.</p>\n\
         <ul class=\"tiles\">\n\
         <li><b>{} <small>min</small></b><span>between two syncs, for 95 % of them, where limits allow it; the replaced \
         service took {legacy_gap} with 100 users</span></li>\n\
         <li><b>{kalends} <small>of {}</small></b><span>users lost in four incidents; the replaced service lost \
         {legacy}</span></li>\n\
         <li><b>{spread} <small>a second</small></b><span>at most at Google when {} users are due at once after an \
         outage; {together} without spread</span></li>\n\
         <li><b>{reached} <small>of {all}</small></b><span>rare places reached in {} plans drawn from seeds</span></li>\n\
         </ul>\n</header>\n",
        raised.unwrap_or(0),
        incidents
            .iter()
            .map(|row| u64::from(row.users))
            .sum::<u64>(),
        thousands(u64::from(HERD_USERS)),
        facts.marks_plans,
    )
}

fn failures(facts: &Facts) -> String {
    if facts.failures.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "<section class=\"alarm\" aria-labelledby=\"failures\"><h2 id=\"failures\" class=\"bad\">Runs that failed</h2>\n<ul>\n",
    );
    for failure in &facts.failures {
        text.push_str(&format!("<li><code>{}</code></li>\n", escape(failure)));
    }
    text.push_str("</ul></section>\n");
    text
}

// -- the herd ----------------------------------------------------------------------------------------------------------

fn herd(facts: &Facts) -> String {
    let Watched2 { together, spread } = Watched2 {
        together: &facts.watched.together,
        spread: &facts.watched.spread,
    };
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
            min: 0.5,
            max: 2_000.0,
            scale: Scale::Log,
            ticks: [1_u32, 10, 100, 1_000]
                .map(|rate| (f64::from(rate), thousands(u64::from(rate))))
                .to_vec(),
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
            ("bands", "1: Redis away"),
        ],
        &plot.render(),
        &table(
            "Requests at Google",
            &["", "most in a second", "most in a minute", "all"],
            &[("spread evenly", spread), ("no spread", together)].map(|(name, watch)| {
                let minutes = watch.requests.chunks(60).map(|minute| minute.iter().sum());
                let minute: u32 = minutes.max().unwrap_or(0);
                let all: u32 = watch.requests.iter().sum();
                [u64::from(watch.peak()), u64::from(minute), u64::from(all)]
                    .map(thousands)
                    .into_iter()
                    .fold(vec![name.to_owned()], |mut row, cell| {
                        row.push(cell);
                        row
                    })
            }),
        ),
    )
}

/// The two runs of the herd.
struct Watched2<'a> {
    together: &'a Watch,
    spread: &'a Watch,
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
        points: points.map(|(minute, rate)| (minute, 0.5, rate)).collect(),
    }
}

// -- the day -----------------------------------------------------------------------------------------------------------

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

fn day(facts: &Facts) -> String {
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
    let series = |of: fn(&super::watch::Ages) -> u64| -> Vec<(f64, f64)> {
        let ages = kalends.ages.iter();
        ages.map(|ages| (ages.at_min as f64, of(ages) as f64))
            .collect()
    };
    let line = |tone, points, dashed| Layer::Line {
        tone,
        points,
        dots: false,
        dashed,
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
                .map(|tick| ((tick * step) as f64, format!("{} min", tick * step)))
                .collect(),
        },
        layers: bands()
            .chain([
                line(Tone::Muted, series(|ages| ages.oldest_min), false),
                line(Tone::Raised, series(|ages| ages.p95_min), false),
                line(Tone::Kalends, series(|ages| ages.p50_min), false),
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
                line(Tone::Legacy, old(legacy), false),
                line(Tone::Kalends, old(kalends), false),
            ])
            .collect(),
    };
    let numbered: Vec<String> = facts
        .outages
        .iter()
        .enumerate()
        .map(|(number, outage)| format!("{}: {}", number + 1, outage.label))
        .collect();
    let numbered = numbered.join(", ");
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
            ("bands", numbered.as_str()),
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
            ("bands", numbered.as_str()),
        ],
        &old_plot.render(),
        "",
    );
    first + &second
}

// -- the comparison ----------------------------------------------------------------------------------------------------

fn gaps(facts: &Facts) -> String {
    let sizes = &facts.comparison.sizes;
    let series = |of: fn(&crate::compare::SizeRow) -> &Outcome| -> Vec<(f64, f64, f64)> {
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

fn lost(facts: &Facts) -> String {
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

// -- the marks ---------------------------------------------------------------------------------------------------------

fn marks(facts: &Facts) -> String {
    let missing = facts.marks.missing();
    let verdict = if missing.is_empty() {
        "<span class=\"good\">All were reached.</span>".to_owned()
    } else {
        let missing = escape(&missing.join(", "));
        format!("<span class=\"bad\">Never reached here:</span> {missing}.")
    };
    let mut text = format!(
        "<section id=\"marks\" aria-labelledby=\"marks-h\">\n<h2 id=\"marks-h\">Rare places are reached</h2>\n\
         <p>A batch of runs that never meets what it is for proves less than it seems to. What {} plans drawn from seeds \
         met. {verdict}</p>\n<details><summary>The table of marks</summary><div class=\"scroll\"><table>\n\
         <caption>How often each was met</caption>\n<thead><tr><th scope=\"col\">mark</th>\
         <th scope=\"col\" class=\"text\">what it stands for</th><th scope=\"col\">times</th></tr></thead>\n<tbody>\n",
        facts.marks_plans
    );
    for (name, sentence, count) in facts.marks.table() {
        text.push_str(&format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td class=\"text\">{}</td><td>{}</td></tr>\n",
            escape(name),
            escape(sentence),
            thousands(count)
        ));
    }
    text.push_str("</tbody></table></div></details>\n</section>\n");
    text
}

// -- pieces ------------------------------------------------------------------------------------------------------------

fn section(
    id: &str,
    title: &str,
    text: &str,
    legend: &[(&str, &str)],
    drawing: &str,
    table: &str,
) -> String {
    let entries: String = legend
        .iter()
        .map(|(class, what)| format!("<li class=\"{class}\">{}</li>", escape(what)))
        .collect();
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-h\">\n<h2 id=\"{id}-h\">{}</h2>\n<p>{}</p>\n\
         <ul class=\"legend\">{entries}</ul>\n{drawing}{table}</section>\n",
        escape(title),
        escape(text)
    )
}

fn table(caption: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!(
        "<details><summary>The numbers</summary><div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>",
        escape(caption)
    );
    for cell in head {
        text.push_str(&format!("<th scope=\"col\">{}</th>", escape(cell)));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            let cell = escape(cell);
            text.push_str(&if place == 0 {
                format!("<th scope=\"row\">{cell}</th>")
            } else {
                format!("<td>{cell}</td>")
            });
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div></details>\n");
    text
}

/// A number with commas.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
