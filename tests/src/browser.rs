//! A browser as far as a consent needs one: it asks for an address and follows where it is sent.

use crate::http_client::text_of;

/// The answer to `GET url`, an `http` address with a port: the status, where it leads, and all of it as text.
///
/// # Panics
/// If nobody answers there.
#[must_use]
pub fn visit(url: &str) -> (u16, Option<String>, String) {
    let rest = url.strip_prefix("http://").expect("an http address");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let answer = text_of(
        authority,
        "GET",
        &format!("/{path}"),
        &[&format!("Host: {authority}")],
        "",
    );
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let place = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_place = name.eq_ignore_ascii_case("location");
        is_place.then(|| value.trim().to_owned())
    });
    (status.unwrap_or_default(), place, answer)
}
