//! The one heap: what happens next, by time and, within a millisecond, by the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use kalends_core::time::Timestamp;

/// The most events that may wait at once: more is a world that feeds itself.
const EVENTS_WAITING_MAX: usize = 4_000_000;

/// Events by time and sequence.
pub(crate) struct Heap<E> {
    order: BinaryHeap<Reverse<(Timestamp, u64, u32)>>,
    /// The events themselves stay where they are put, so that the heap moves small keys only.
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<E> Heap<E> {
    pub(crate) fn new() -> Self {
        Heap {
            order: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }

    /// Plans `event` for `at`.
    pub(crate) fn push(&mut self, at: Timestamp, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                assert!(
                    self.slots.len() < EVENTS_WAITING_MAX,
                    "too many events wait"
                );
                self.slots.push(Some(event));
                u32::try_from(self.slots.len() - 1).expect("bounded above")
            }
        };
        self.sequence += 1;
        self.order.push(Reverse((at, self.sequence, slot)));
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<(Timestamp, E)> {
        let Reverse((at, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        let event = self.slots[slot as usize].take();
        Some((at, event.expect("a planned event is in its slot")))
    }
}
