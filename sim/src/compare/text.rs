//! A comparison for a terminal: tables, and a plot of gaps against users.

use super::{Comparison, Outcome};

/// The longest bar of the plot, in characters.
const BAR_CHARS: usize = 48;
/// Bars begin at this gap and grow with its logarithm, in minutes.
const BAR_FROM_MIN: f64 = 7.5;

fn gaps(outcome: &Outcome) -> String {
    match (outcome.gap_p50_min, outcome.gap_p95_min) {
        (Some(p50), Some(p95)) => format!("{p50}/{p95}"),
        _ => "none".to_owned(),
    }
}

fn verdict(outcome: &Outcome) -> String {
    match &outcome.failed {
        None => outcome.lost.to_string(),
        Some(invariant) => format!("BROKEN: {invariant}"),
    }
}

/// The whole comparison as text.
#[must_use]
pub fn render(comparison: &Comparison) -> String {
    let mut text = format!(
        "{} hours, seed {}. Gaps are minutes between two syncs of one user, half of them / 95 % of them at most.\n\
         Kalends makes one fan-out less: everybody's first sync comes with the enrolment.\n\n",
        comparison.hours, comparison.seed
    );
    text.push_str(
        "        |        replaced service         |  Kalends, 10 a minute  |  Kalends, limit as advised\n",
    );
    text.push_str(
        "  users | fan-outs     gaps  doubled  lost | fan-outs    gaps  lost | limit  fan-outs  gaps  lost\n",
    );
    for row in &comparison.sizes {
        let (legacy, kalends, raised) = (&row.legacy, &row.kalends, &row.raised);
        text.push_str(&format!(
            "{:>7} | {:>3} of {:<3} {:>8}  {:>5} %  {:>4} | {:>8} {:>7}  {:>4} | {:>5}  {:>8} {:>5}  {:>4}\n",
            row.users,
            legacy.fan_outs,
            legacy.ticks,
            gaps(legacy),
            legacy.duplicates_percent,
            verdict(legacy),
            kalends.fan_outs,
            gaps(kalends),
            verdict(kalends),
            row.raised_limit,
            raised.fan_outs,
            gaps(raised),
            verdict(raised),
        ));
    }
    text.push_str(
        "\nusers lost (of 100): not synced any more at the end       published  replaced  Kalends\n",
    );
    for row in &comparison.incidents {
        let published = row
            .published_lost
            .map_or("-".to_owned(), |lost| lost.to_string());
        text.push_str(&format!(
            "{:<57} {:>9} {:>9} {:>8}\n",
            row.what,
            published,
            verdict(&row.legacy),
            verdict(&row.kalends)
        ));
    }
    text.push('\n');
    text.push_str(&plot(comparison));
    text
}

/// Bars: the gap within which 95 % of all syncs come, on a logarithmic scale.
fn plot(comparison: &Comparison) -> String {
    let mut text =
        String::from("95 % of the gaps are at most so long (each doubling is as wide)\n");
    let all = comparison.sizes.iter().flat_map(|row| {
        [&row.legacy, &row.kalends, &row.raised].map(|outcome| outcome.gap_p95_min.unwrap_or(0))
    });
    let longest = all.max().unwrap_or(0).max(16) as f64;
    let octaves = (longest / BAR_FROM_MIN).log2();
    for row in &comparison.sizes {
        for (name, sign, outcome) in [
            ("replaced", '▓', &row.legacy),
            ("Kalends", '█', &row.kalends),
            ("  raised", '█', &row.raised),
        ] {
            let minutes = outcome.gap_p95_min.unwrap_or(0);
            let share = (minutes as f64 / BAR_FROM_MIN).max(1.0).log2() / octaves;
            let chars = (share * BAR_CHARS as f64).round() as usize;
            let bar: String = std::iter::repeat_n(sign, chars.min(BAR_CHARS)).collect();
            let users = if name == "replaced" {
                row.users.to_string()
            } else {
                String::new()
            };
            text.push_str(&format!("{users:>7} {name:<9} {bar} {minutes} min\n"));
        }
    }
    text
}
