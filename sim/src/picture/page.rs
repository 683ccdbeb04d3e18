//! Facts into one page of HTML. Nothing in it comes from elsewhere: no script, no font, no picture, no address.

mod compared;
mod scenes;

use super::escape::escape;
use super::{Facts, HERD_USERS};

const STYLE: &str = include_str!("page.css");
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
    page.push_str(&scenes::herd(facts));
    page.push_str(&scenes::day(facts));
    page.push_str(&compared::gaps(facts));
    page.push_str(&compared::lost(facts));
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
    let peaks = [&facts.watched.together, &facts.watched.spread];
    let [together, spread] = peaks.map(|watch| thousands(u64::from(watch.peak())));
    let incidents = &facts.comparison.incidents;
    let legacy: u64 = incidents.iter().map(|row| row.legacy.lost).sum();
    let kalends: u64 = incidents.iter().map(|row| row.kalends.lost).sum();
    let sizes = &facts.comparison.sizes;
    let raised = sizes.iter().filter_map(|row| row.raised.gap_p95_min).max();
    let fits = sizes.iter().find(|row| row.users == 100);
    let legacy_gap = fits.and_then(|row| row.legacy.gap_p95_min).unwrap_or(0);
    let reached = facts.marks.table(false).filter(|(_, _, count)| *count > 0);
    let (reached, all) = (reached.count(), facts.marks.table(false).count());
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

// -- the marks ---------------------------------------------------------------------------------------------------------

fn marks(facts: &Facts) -> String {
    let missing = facts.marks.missing(false);
    let verdict = if missing.is_empty() {
        "<span class=\"good\">All were reached.</span>".to_owned()
    } else {
        let missing = escape(&missing.join(", "));
        format!("Too rare for so few plans, and met by the thousands of a whole batch: {missing}.")
    };
    let mut text = format!(
        "<section id=\"marks\" aria-labelledby=\"marks-h\">\n<h2 id=\"marks-h\">Rare places are reached</h2>\n\
         <p>A batch of runs that never meets what it is for proves less than it seems to. What {} plans drawn from seeds \
         met. {verdict}</p>\n<details><summary>The table of marks</summary><div class=\"scroll\"><table>\n\
         <caption>How often each was met</caption>\n<thead><tr><th scope=\"col\">mark</th>\
         <th scope=\"col\" class=\"text\">what it stands for</th><th scope=\"col\">times</th></tr></thead>\n<tbody>\n",
        facts.marks_plans
    );
    for (name, sentence, count) in facts.marks.table(false) {
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
