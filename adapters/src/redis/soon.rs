//! Waiting for an answer that is about to come.
//!
//! A Redis on the same machine answers a small script within some 50 µs. Who sleeps meanwhile has its processor put to sleep,
//! and waking that up may take as long again. So whoever asks alone looks for the answer for a moment, turn by turn of the
//! runtime (in which everything else goes on, too), before it waits.
//!
//! Where the server is further away, looking finds nothing and costs processor time. So it is learnt: after a few times in
//! vain only one call in many looks.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

/// So many turns of the runtime an answer is looked for. A turn of one with nothing to do is one look at its sockets, a third
/// of a microsecond or more; so this is about a fifth of a millisecond.
const LOOKS_MAX: u32 = 600;
/// After so many times in a row in vain, it is mostly left.
const IN_VAIN_MAX: u32 = 3;
/// Then one in so many calls looks, as the server may have come closer.
const LOOKS_ONE_IN: u32 = 256;

/// Whether looking pays, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Soon {
    in_vain: AtomicU32,
}

impl Soon {
    /// Awaits `answer`, and looks for it at first.
    pub(super) async fn wait_for<Answer: Future>(&self, answer: Answer) -> Answer::Output {
        let mut answer = pin!(answer);
        if self.is_worth_it() {
            for _ in 0..LOOKS_MAX {
                let looked =
                    std::future::poll_fn(|context| Poll::Ready(answer.as_mut().poll(context)));
                if let Poll::Ready(answer) = looked.await {
                    self.in_vain.store(0, Ordering::Relaxed);
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        }
        self.in_vain.fetch_add(1, Ordering::Relaxed);
        answer.await
    }

    fn is_worth_it(&self) -> bool {
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        in_vain < IN_VAIN_MAX || in_vain.is_multiple_of(LOOKS_ONE_IN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that is there at the poll with this number.
    fn after(polls: u32) -> impl Future<Output = u32> {
        let mut polled = 0;
        std::future::poll_fn(move |context| {
            polled += 1;
            if polled > polls {
                return Poll::Ready(polled);
            }
            if polled > LOOKS_MAX {
                // Nobody looks any more.
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
    }

    #[tokio::test]
    async fn an_answer_that_is_near_is_looked_for() {
        let soon = Soon::default();
        for _ in 0..10 {
            assert_eq!(soon.wait_for(after(LOOKS_MAX - 1)).await, LOOKS_MAX);
        }
        assert!(soon.is_worth_it());
    }

    #[tokio::test]
    async fn where_answers_take_longer_only_one_call_in_many_looks() {
        let soon = Soon::default();
        let mut looked = 0;
        for _ in 0..10 * LOOKS_ONE_IN {
            looked += u32::from(soon.is_worth_it());
            assert_eq!(soon.wait_for(after(LOOKS_MAX + 1)).await, LOOKS_MAX + 2);
        }
        assert!((IN_VAIN_MAX..20).contains(&looked), "{looked}");
        soon.in_vain.store(LOOKS_ONE_IN, Ordering::Relaxed);
        assert_eq!(soon.wait_for(after(1)).await, 2);
        assert!(soon.is_worth_it(), "it has come closer");
    }
}
