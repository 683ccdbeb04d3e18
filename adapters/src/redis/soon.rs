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
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    /// Waits for an answer that comes after so many turns of the runtime; how often it was looked at.
    async fn looks(soon: &Soon, turns: u32) -> u32 {
        let (sender, mut receiver) = oneshot::channel();
        tokio::spawn(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            let _ = sender.send(());
        });
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let answer = std::future::poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            std::pin::Pin::new(&mut receiver).poll(context)
        });
        soon.wait_for(answer).await.expect("the answer comes");
        looks.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn an_answer_that_is_near_is_looked_for() {
        let soon = Soon::default();
        for _ in 0..10 {
            let looks = looks(&soon, LOOKS_MAX / 2).await;
            assert!((LOOKS_MAX / 4..LOOKS_MAX).contains(&looks), "{looks}");
        }
    }

    #[tokio::test]
    async fn where_answers_take_longer_only_one_call_in_many_looks() {
        let soon = Soon::default();
        let mut looked = 0;
        for _ in 0..3 * LOOKS_ONE_IN {
            let looks = looks(&soon, LOOKS_MAX + 10).await;
            let has_looked = looks >= LOOKS_MAX;
            assert!(has_looked || looks <= 2, "{looks}");
            looked += u32::from(has_looked);
        }
        assert_eq!(looked, IN_VAIN_MAX + 2);
        // The server has come closer: the next one that looks finds it so.
        soon.in_vain.store(LOOKS_ONE_IN, Ordering::Relaxed);
        for _ in 0..10 {
            assert!(looks(&soon, 5).await > 2);
        }
    }
}
