//! Ends of attempts, gathered: what comes to an end at the same moment goes in one script.
//!
//! A process with fifty slots ends fifty jobs at about the same time. One script for all of them costs a fraction of
//! fifty. Whoever comes while a batch is under way waits for the next, a moment later; nobody waits for company.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{Command, Reply, Stamped};
use tokio::sync::oneshot;

use super::asker::Asker;
use super::jobs::Answered;

/// Ends in one script at the most: it stays short.
const BATCH_MAX: usize = 100;
/// Batches under way at the same time at the most: the server works on one while the next is on its way.
const BATCHES_MAX: u32 = 2;

/// The ends of one process.
#[derive(Debug)]
pub(super) struct Ends {
    asker: Arc<Asker>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<(Command, oneshot::Sender<Answered>)>,
    under_way: u32,
}

impl Ends {
    pub(super) fn new(asker: Arc<Asker>) -> Arc<Self> {
        Arc::new(Ends {
            asker,
            state: Mutex::default(),
        })
    }

    /// Ends one attempt, together with whatever else ends now.
    pub(super) async fn end(self: &Arc<Self>, end: Command) -> Answered {
        let (sender, receiver) = oneshot::channel();
        let is_sent_now = {
            let mut state = self.state();
            state.waiting.push((end, sender));
            let sends = state.under_way < BATCHES_MAX;
            state.under_way += u32::from(sends);
            sends
        };
        if is_sent_now {
            // A task of its own: whoever began it may lose patience, the others have not.
            let ends = Arc::clone(self);
            tokio::spawn(async move { ends.send().await });
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
            let batch: Vec<(Command, oneshot::Sender<Answered>)> = {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state.under_way -= 1;
                    return;
                }
                let count = state.waiting.len().min(BATCH_MAX);
                state.waiting.drain(..count).collect()
            };
            let (ends, senders): (Vec<Command>, Vec<_>) = batch.into_iter().unzip();
            let answered = self.asker.finish(None, &ends).await;
            for (index, sender) in senders.into_iter().enumerate() {
                let answer = match &answered {
                    Ok((now, replies)) => Ok(Stamped {
                        now: *now,
                        value: reply_at(replies, index),
                    }),
                    Err(unavailable) => Err(unavailable.clone()),
                };
                // Whoever does not wait any more does not want to know.
                let _ = sender.send(answer);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reply_at(replies: &[Reply], index: usize) -> Reply {
    replies
        .get(index)
        .expect("finish gives a reply for each end")
        .clone()
}
