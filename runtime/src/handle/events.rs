//! What happens inside a node, told to whoever listens, and bounded: a listener that is slow loses events and hears how
//! many, and the node never waits for it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use kalends_core::node::io::Notice;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{Receiver, Sender};

/// So many of the newest events are kept for listeners that have not read them yet; all listeners share them.
pub const EVENTS_KEPT: usize = 1_024;

/// One thing that a listener is told.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// This happened.
    Happened(Notice),
    /// The listener was slow: so many events are lost to it. What comes next is the oldest that is kept.
    Missed {
        /// How many.
        count: u64,
    },
}

type Receiving =
    Pin<Box<dyn Future<Output = (Result<Notice, RecvError>, Receiver<Notice>)> + Send>>;

/// A stream of [`Event`]s, from [`Handle::events`](super::Handle::events). It ends when the node has stopped.
pub struct Events(Option<Receiving>);

fn receiving(mut receiver: Receiver<Notice>) -> Receiving {
    Box::pin(async move { (receiver.recv().await, receiver) })
}

impl Events {
    /// What `sender` tells from now on; nothing if it is gone.
    pub(super) fn of(sender: Option<Sender<Notice>>) -> Self {
        Events(sender.map(|sender| receiving(sender.subscribe())))
    }

    /// The next event; `None` when the node has stopped. Losing interest in the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(next) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let (told, receiver) = ready!(next.as_mut().poll(context));
        let event = match told {
            Ok(notice) => Event::Happened(notice),
            Err(RecvError::Lagged(count)) => Event::Missed { count },
            Err(RecvError::Closed) => {
                self.0 = None;
                return Poll::Ready(None);
            }
        };
        self.0 = Some(receiving(receiver));
        Poll::Ready(Some(event))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Events")
            .field("has_ended", &self.0.is_none())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_hears_how_many_it_missed_and_the_end_ends_the_stream() {
        let sender = Sender::new(2);
        let mut events = Events::of(Some(sender.clone()));
        let back = |away_ms| Notice::StoreBack { away_ms };
        for away_ms in 1..=5 {
            sender.send(back(away_ms)).unwrap();
        }
        assert_eq!(events.next().await, Some(Event::Missed { count: 3 }));
        assert_eq!(events.next().await, Some(Event::Happened(back(4))));
        drop(sender);
        assert_eq!(events.next().await, Some(Event::Happened(back(5))));
        assert_eq!(events.next().await, None);
        assert_eq!(events.next().await, None);
        assert_eq!(Events::of(None).next().await, None);
    }
}
