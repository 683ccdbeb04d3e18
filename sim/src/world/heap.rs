//! The one heap: what happens next, by time and, within a millisecond, by the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use kalends_core::time::Timestamp;

/// The most events that may wait at once: more is a world that feeds itself.
const EVENTS_WAITING_MAX: usize = 4_000_000;
/// Bits for the number of a slot.
const SLOT_BITS: u32 = 22;
/// So many slots have a number.
const SLOTS_MAX: usize = 1 << SLOT_BITS;
/// The most events in one run: what is left of 64 bits beside the slot.
const SEQUENCE_MAX: u64 = 1 << (64 - SLOT_BITS);
/// Flipped, numbers with a sign sort as ones without.
const SIGN: u64 = 1 << 63;
const _: () = assert!(EVENTS_WAITING_MAX <= SLOTS_MAX, "every slot has a number");

/// Events by time and sequence.
pub(crate) struct Heap<E> {
    order: BinaryHeap<Reverse<u128>>,
    /// The events themselves stay where they are put, so that the heap moves small keys only.
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

/// Time, sequence and slot as one number that sorts by them in this order: the heap compares one and moves 16 bytes.
fn pack(at: Timestamp, sequence: u64, slot: u32) -> u128 {
    let time = u128::from(at.as_ms().cast_unsigned() ^ SIGN);
    time << 64 | u128::from(sequence) << SLOT_BITS | u128::from(slot)
}

/// What [`pack`] made of time and slot.
fn unpack(packed: u128) -> (Timestamp, u32) {
    let time = (packed >> 64) as u64 ^ SIGN;
    let slot = (packed & (SLOTS_MAX as u128 - 1)) as u32;
    (Timestamp::from_ms(time.cast_signed()), slot)
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
        assert!(self.sequence < SEQUENCE_MAX, "too many events in one run");
        self.order.push(Reverse(pack(at, self.sequence, slot)));
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<(Timestamp, E)> {
        let Reverse(packed) = self.order.pop()?;
        let (at, slot) = unpack(packed);
        self.free.push(slot);
        let event = self.slots[slot as usize].take();
        Some((at, event.expect("a planned event is in its slot")))
    }
}
