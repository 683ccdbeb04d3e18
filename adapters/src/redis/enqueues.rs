//! Enqueues, gathered: what many callers of one process enqueue at the same moment goes in one script.
//!
//! A web application enqueues one job a request, and many requests at a time. A script costs ten times what one job in it
//! does, so callers who come while a script is under way wait for its answer and go together. A lone caller waits for
//! nobody: it asks at once, itself, and looks for the answer (`soon`). If it does not look, the others soon go without it.
//!
//! Commands are taken in the order in which they came, each with a reply of its own, as if each were a script of its own
//! and all had come in one millisecond. Of whoever loses patience the jobs may be enqueued or not, as ever when a caller
//! does not wait for the answer. When a script fails, all who wait hear it: the next one would mostly fail alike, after a time of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kalends_core::id::SourceName;
use kalends_core::port::StoreUnavailable;
use kalends_core::queue::command::{NewJob, Reply};
use kalends_core::time::Timestamp;
use tokio::sync::{Notify, oneshot};

use super::asker::Asker;
use super::jobs::{Answered, ENQUEUE_PAGE};
use super::soon::Soon;
use super::stamped;

/// A command with more jobs is a batch already, and goes by itself.
const GATHERED_JOBS_MAX: usize = 32;
/// Commands that wait for company at the most; who comes then goes by itself.
const WAITING_MAX: usize = 4_096;
/// The others wait for the one who asks for itself, but no longer than this, in milliseconds: whoever called it may do something else
/// before it looks for the answer.
const FIRST_MS_MAX: u64 = 20;

/// A command and who waits for its answer.
#[derive(Debug)]
struct Waiting {
    source: SourceName,
    jobs: Vec<NewJob>,
    sender: oneshot::Sender<Answered>,
}

/// The enqueues of one process.
#[derive(Debug)]
pub(super) struct Enqueues {
    asker: Arc<Asker>,
    soon: Soon,
    state: Mutex<State>,
    /// The one who asks for itself has its answer, or is given up.
    first_ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Who asks for itself now, by number.
    first: Option<u64>,
    firsts: u64,
    /// A task sends what waits, until nothing does.
    is_sent: bool,
}

impl Enqueues {
    pub(super) fn new(asker: Arc<Asker>) -> Arc<Self> {
        Arc::new(Enqueues {
            asker,
            soon: Soon::default(),
            state: Mutex::default(),
            first_ended: Notify::new(),
        })
    }

    /// Enqueues, alone or with whoever else does now.
    pub(super) async fn take(self: &Arc<Self>, source: SourceName, jobs: Vec<NewJob>) -> Answered {
        if jobs.len() > GATHERED_JOBS_MAX {
            return self.asker.enqueue(None, source, jobs, None).await;
        }
        match self.way(source, jobs) {
            Way::First(number, source, jobs) => {
                let _first = First {
                    enqueues: self,
                    number,
                };
                let answer = self.asker.enqueue(None, source, jobs, None);
                self.soon.wait_for(answer).await
            }
            Way::WithOthers(receiver) => receiver.await.unwrap_or_else(|_| {
                Err(StoreUnavailable {
                    detail: "nobody sent it, as the process is ending; whether the jobs were enqueued is not known"
                        .to_owned(),
                })
            }),
            Way::Alone(source, jobs) => self.asker.enqueue(None, source, jobs, None).await,
        }
    }

    fn way(self: &Arc<Self>, source: SourceName, jobs: Vec<NewJob>) -> Way {
        let mut state = self.state();
        if state.first.is_none() && !state.is_sent {
            assert!(state.waiting.is_empty(), "who waits is sent");
            state.firsts += 1;
            state.first = Some(state.firsts);
            return Way::First(state.firsts, source, jobs);
        }
        if state.waiting.len() >= WAITING_MAX {
            return Way::Alone(source, jobs);
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting {
            source,
            jobs,
            sender,
        });
        if !state.is_sent {
            state.is_sent = true;
            let others = Others {
                enqueues: Arc::clone(self),
                are_done: false,
            };
            // A task of its own: whoever began it may lose patience.
            tokio::spawn(async move {
                others.enqueues.send().await;
                others.done();
            });
        }
        Way::WithOthers(receiver)
    }

    /// Sends what waits, until nothing does.
    async fn send(&self) {
        let first_ended = self.first_ended.notified();
        let _ = tokio::time::timeout(Duration::from_millis(FIRST_MS_MAX), first_ended).await;
        loop {
            // What became ready in the same turn of the runtime comes along.
            tokio::task::yield_now().await;
            let Some(batch) = self.next_batch() else {
                return;
            };
            let commands: Vec<&[NewJob]> = batch.iter().map(|one| one.jobs.as_slice()).collect();
            let answered = self.asker.enqueue_each(None, &batch[0].source, &commands);
            let answered = answered.await;
            if let Err(unavailable) = &answered {
                // Those who wait would each have to find out in their turn.
                for one in self.state().waiting.drain(..) {
                    let _ = one.sender.send(Err(unavailable.clone()));
                }
            }
            tell(answered, batch);
        }
    }

    /// What goes next; `None` if nobody waits, and then nobody is sent any more.
    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        state.first = None;
        // Whoever does not wait any more enqueues nothing.
        state.waiting.retain(|one| !one.sender.is_closed());
        state.is_sent = !state.waiting.is_empty();
        state.is_sent.then(|| next_batch(&mut state.waiting))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a command goes.
enum Way {
    /// Nothing is under way: at once, and those who come meanwhile follow it.
    First(u64, SourceName, Vec<NewJob>),
    /// With whoever waits, too.
    WithOthers(oneshot::Receiver<Answered>),
    /// Too many wait.
    Alone(SourceName, Vec<NewJob>),
}

/// The one who asks for itself. When it has its answer, or is given up, the others go on.
struct First<'a> {
    enqueues: &'a Enqueues,
    number: u64,
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        let mut state = self.enqueues.state();
        // The others may have gone on without it.
        if state.first == Some(self.number) {
            state.first = None;
            if state.is_sent {
                self.enqueues.first_ended.notify_one();
            }
        }
    }
}

/// The others. Should they not be sent (their runtime ends), who waits hears so, and the next one is the first again.
struct Others {
    enqueues: Arc<Enqueues>,
    are_done: bool,
}

impl Others {
    fn done(mut self) {
        self.are_done = true;
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        if !self.are_done {
            let mut state = self.enqueues.state();
            state.waiting.clear();
            state.is_sent = false;
        }
    }
}

/// The first that waits and all of the same source, as far as they fit into one script. The others keep their order.
fn next_batch(waiting: &mut VecDeque<Waiting>) -> Vec<Waiting> {
    let first = waiting.front().expect("somebody waits");
    let source = first.source.clone();
    let (mut batch, mut jobs, mut is_full) = (Vec::new(), 0, false);
    for one in std::mem::take(waiting) {
        let is_of_it = one.source == source;
        is_full |= is_of_it && jobs + one.jobs.len() > ENQUEUE_PAGE;
        if is_of_it && !is_full {
            jobs += one.jobs.len();
            batch.push(one);
        } else {
            waiting.push_back(one);
        }
    }
    assert!(!batch.is_empty(), "one command fits into a script");
    batch
}

/// Whoever does not wait any more does not want to know.
fn tell(answered: Result<(Timestamp, Vec<Reply>), StoreUnavailable>, batch: Vec<Waiting>) {
    match answered {
        Ok((now, replies)) => {
            assert_eq!(replies.len(), batch.len(), "each command has a reply");
            for (one, reply) in batch.into_iter().zip(replies) {
                let _ = one.sender.send(Ok(stamped(now, reply)));
            }
        }
        Err(unavailable) => {
            for one in batch {
                let _ = one.sender.send(Err(unavailable.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kalends_core::id::UserId;
    use kalends_core::queue::command::Priority;

    use super::*;

    fn waiting(source: &str, jobs: usize) -> Waiting {
        let job = NewJob {
            user: UserId::new("ada").unwrap(),
            run_at: Timestamp::from_ms(0),
            nominal_at: None,
            priority: Priority::Scheduled,
        };
        Waiting {
            source: SourceName::new(source).unwrap(),
            jobs: vec![job; jobs],
            sender: oneshot::channel().0,
        }
    }

    fn shown<'a>(some: impl IntoIterator<Item = &'a Waiting>) -> Vec<(String, usize)> {
        let one = |one: &Waiting| (one.source.to_string(), one.jobs.len());
        some.into_iter().map(one).collect()
    }

    #[test]
    fn a_batch_is_of_one_source_and_fits_into_a_script_and_nobody_overtakes() {
        let mut commands = VecDeque::new();
        for (source, jobs) in [
            ("a", 32),
            ("b", 1),
            ("a", 32),
            ("a", 32),
            ("a", 32),
            ("a", 2),
        ] {
            commands.push_back(waiting(source, jobs));
        }
        let named = |list: &[(&str, usize)]| {
            let own = |(source, jobs): &(&str, usize)| ((*source).to_owned(), *jobs);
            list.iter().map(own).collect::<Vec<_>>()
        };
        let batch = next_batch(&mut commands);
        assert_eq!(shown(&batch), named(&[("a", 32), ("a", 32), ("a", 32)]));
        assert_eq!(shown(&commands), named(&[("b", 1), ("a", 32), ("a", 2)]));
        assert_eq!(shown(&next_batch(&mut commands)), named(&[("b", 1)]));
        let last = next_batch(&mut commands);
        assert_eq!(shown(&last), named(&[("a", 32), ("a", 2)]));
        assert!(commands.is_empty());
    }
}
