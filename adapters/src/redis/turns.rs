//! Turns, gathered: what ends and is claimed at the same moment goes in one script.
//!
//! A process with fifty slots ends fifty jobs at about the same time, and claims as many. One script for all of that costs
//! a fraction of fifty-one. Ends that come while a script is under way wait for its answer and go together, with the next
//! claim if there is one; when they are many, they do not wait. With nothing under way nobody waits for company.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Command, Reply, Stamped};
use kalends_core::time::Timestamp;
use tokio::sync::oneshot;

use super::asker::Asker;
use super::jobs::Answered;
use super::turn::Turned;

/// Ends in one script at the most: it stays short.
const ENDS_MAX: usize = 80;
/// Scripts under way at the same time at the most: the server works on one while the next is on its way.
const UNDER_WAY_MAX: u32 = 2;
/// So many ends are worth a script of their own beside one that is under way.
const ENDS_ALONE_MIN: usize = 40;

/// A command and who waits for its answer.
type Waiting = (Command, oneshot::Sender<Answered>);

/// The turns of one process.
#[derive(Debug)]
pub(super) struct Turns {
    asker: Arc<Asker>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ends: Vec<Waiting>,
    claims: Vec<Waiting>,
    under_way: u32,
}

impl Turns {
    pub(super) fn new(asker: Arc<Asker>) -> Arc<Self> {
        Arc::new(Turns {
            asker,
            state: Mutex::default(),
        })
    }

    /// The end of an attempt, or a claim, together with whatever else ends and is claimed now.
    pub(super) async fn take(self: &Arc<Self>, command: Command) -> Answered {
        let (sender, receiver) = oneshot::channel();
        let is_sent_now = {
            let mut state = self.state();
            match command {
                Command::Claim { .. } => state.claims.push((command, sender)),
                end => state.ends.push((end, sender)),
            }
            let sends = match state.under_way {
                0 => true,
                1..UNDER_WAY_MAX => !state.claims.is_empty() || state.ends.len() >= ENDS_ALONE_MIN,
                _ => false,
            };
            state.under_way += u32::from(sends);
            sends
        };
        if is_sent_now {
            // A task of its own: whoever began it may lose patience, the others have not.
            let turns = Arc::clone(self);
            tokio::spawn(async move { turns.send().await });
        }
        receiver.await.unwrap_or_else(|_| {
            Err(StoreUnavailable {
                detail: "the process is ending; whether the job's end was written is not known"
                    .to_owned(),
            })
        })
    }

    async fn send(&self) {
        loop {
            // What became ready in the same turn of the runtime comes along.
            tokio::task::yield_now().await;
            let (ends, claim) = {
                let mut state = self.state();
                let count = state.ends.len().min(ENDS_MAX);
                let ends: Vec<Waiting> = state.ends.drain(..count).collect();
                // Its ends go before a claim: they may make room for what it asks.
                let claims = usize::from(state.ends.is_empty()).min(state.claims.len());
                let claim = state.claims.drain(..claims).next();
                if ends.is_empty() && claim.is_none() {
                    state.under_way -= 1;
                    return;
                }
                (ends, claim)
            };
            let (ends, senders): (Vec<Command>, Vec<_>) = ends.into_iter().unzip();
            let (claim, claimer) = claim.unzip();
            let turned = self.asker.turn(None, &ends, claim.as_ref()).await;
            tell(turned, senders, claimer);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever does not wait any more does not want to know.
fn tell(
    turned: Turned,
    senders: Vec<oneshot::Sender<Answered>>,
    claimer: Option<oneshot::Sender<Answered>>,
) {
    let (now, replies, claimed) = match turned {
        Ok(turned) => turned,
        Err(unavailable) => {
            for sender in senders.into_iter().chain(claimer) {
                let _ = sender.send(Err(unavailable.clone()));
            }
            return;
        }
    };
    assert_eq!(
        replies.len(),
        senders.len(),
        "a turn gives a reply for each end"
    );
    for (sender, reply) in senders.into_iter().zip(replies) {
        let _ = sender.send(Ok(stamped(now, reply)));
    }
    if let Some(claimer) = claimer {
        let claimed = claimed.expect("a turn with a claim answers it");
        let _ = claimer.send(Ok(stamped(now, claimed)));
    }
}

fn stamped(now: Timestamp, value: Reply) -> Stamped<Reply> {
    Stamped { now, value }
}
