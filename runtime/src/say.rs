//! What a person reads: standard output for answers, standard error for complaints and progress.
//!
//! The standard macros panic when nobody reads (`kalends status | head -1`); that is nobody's fault, so these go on.

use std::io::Write as _;

/// Writes `text` to standard output, at once.
pub fn say(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
}

/// Writes `text` to standard error.
pub fn complain(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
