//! Prometheus' text format, read strictly.

#![allow(
    clippy::unwrap_used,
    reason = "only tests use it, and a page that is not well-formed fails them"
)]

use std::collections::{BTreeMap, BTreeSet};

/// One sample: labels and value.
pub type Sample = (BTreeMap<String, String>, f64);

/// What a page holds, by name: the kind, and the samples with their full names.
pub type Metrics = BTreeMap<String, (String, Vec<(String, Sample)>)>;

/// A page of metrics, read as strictly as the format allows: every metric has one HELP and one TYPE before its samples,
/// which stand together, and no sample comes twice.
///
/// # Panics
/// If the page is not well-formed.
#[must_use]
pub fn parse(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    let mut helped = String::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    assert!(text.ends_with('\n'), "the last line ends, too");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.len() > 5 && !help.contains('\\'), "{line}");
            name.clone_into(&mut helped);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name, helped, "HELP comes right before TYPE");
            let before = metrics.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            assert!(before.is_none(), "{name} is there twice");
            name.clone_into(&mut current);
            continue;
        }
        assert!(
            seen.insert(line.rsplit_once(' ').unwrap().0),
            "twice: {line}"
        );
        let (name, labels, value) = sample(line);
        let (kind, samples) = metrics.get_mut(&current).unwrap();
        let suffixes: &[&str] = match kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        let is_own = suffixes
            .iter()
            .any(|suffix| name == format!("{current}{suffix}"));
        assert!(is_own, "{line} stands under {current}");
        samples.push((name, (labels, value)));
    }
    metrics
}

/// The name, the labels and the value in a line of a sample.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let is_name = |text: &str| {
        let mut letters = text.chars();
        letters
            .next()
            .is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    };
    let (head, value) = line.rsplit_once(' ').unwrap();
    let value = value
        .parse()
        .unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, rest)) = head.split_once('{') else {
        assert!(is_name(head), "{line}");
        return (head.to_owned(), BTreeMap::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
        assert!(is_name(label), "{line}");
        let (text, after) = after.split_once('"').unwrap_or_else(|| panic!("{line}"));
        assert!(
            !text.contains('\\'),
            "no label of ours needs an escape: {line}"
        );
        let before = labels.insert(label.to_owned(), text.to_owned());
        assert!(before.is_none(), "{label} twice: {line}");
        rest = match after.strip_prefix(',') {
            Some(more) => more,
            None => {
                assert!(after.is_empty(), "{line}");
                after
            }
        };
    }
    (name.to_owned(), labels, value)
}
