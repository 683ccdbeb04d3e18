//! Emptying a removed user's graph.
//!
//! Whoever still writes for this user (a slot whose lease is gone, but who has not heard of it) must not write again what
//! was removed. So it is done under a fencing token larger than any that was handed out so far: from the first removal on
//! the graph refuses older ones. The user's own node, which carries that token, goes last; and the graph keeps the token, so
//! that whoever slept longer cannot make the node again ([`Graph::remove_user`]).

use std::time::Duration;

use kalends_core::failure::Failure;
use kalends_core::graph::{GraphReply, GraphWrite};
use kalends_core::id::UserId;
use kalends_core::port::Graph;
use kalends_core::queue::command::LeaseToken;
use kalends_core::time::Timestamp;

/// How often the graph is looked through at the most: what a last write put there goes the second time.
const ROUNDS_MAX: u32 = 4;

/// Removes the user's calendars, events, contacts and at last the node; `now` is the store's time. If there was anything, the
/// node stays for `linger_ms` milliseconds (a lease's length): so long somebody may write who has not heard that the lease is
/// gone. How many calendars there were.
///
/// # Errors
/// As the graph says. What was removed stays removed; it can be done again.
pub async fn purge(
    graph: &dyn Graph,
    user: &UserId,
    now: Timestamp,
    linger_ms: u64,
) -> Result<u64, Failure> {
    // Tokens are at least the store's time in microseconds, so the next one is larger again.
    let fence = LeaseToken(now.as_ms().unsigned_abs().saturating_mul(1_000));
    let mut removed = 0;
    let mut lingered = linger_ms == 0;
    for _ in 0..ROUNDS_MAX {
        let calendars = graph.snapshot(user).await?.calendars;
        if calendars.is_empty() && removed > 0 && !lingered {
            lingered = true;
            tokio::time::sleep(Duration::from_millis(linger_ms)).await;
            continue;
        }
        if calendars.is_empty() {
            let is_gone = graph.remove_user(user, fence).await?;
            // A first write may have come in between: then the node stays, with what it wrote.
            if is_gone || graph.snapshot(user).await?.calendars.is_empty() {
                return Ok(removed);
            }
            continue;
        }
        for calendar in calendars {
            let remove = GraphWrite::RemoveCalendar {
                user: user.clone(),
                fence,
                calendar: calendar.id,
            };
            match graph.write(remove).await? {
                GraphReply::Written(_) => removed += 1,
                GraphReply::Fenced => {
                    return Err(Failure::transient(
                        "the user is being synced under a later lease; remove the user from the configuration and from \
                         the store, then purge again",
                    ));
                }
            }
        }
    }
    Err(Failure::transient(
        "calendars of the user come again as they are removed; is another installation writing to this graph?",
    ))
}
