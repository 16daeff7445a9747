//! The ring alone: places, order, zeros.

use super::*;
use crate::geometry::RING_OFFSET;
use crate::volume::Ticket;

const RING_BYTES: u64 = 1 << 20;

fn ring(depth: usize, ahead_bytes: u64, head: u64) -> Ring {
    let geometry = Geometry::new(RING_OFFSET + RING_BYTES, RING_BYTES).unwrap();
    Ring::new(geometry, depth, ahead_bytes, head, head)
}

/// Takes a frame of these many blocks into flight.
fn begin(ring: &mut Ring, blocks: usize) -> (u64, bool, Ticket) {
    let payload_len = blocks * 4096 - HEADER_BYTES;
    let place = ring.place(payload_len).unwrap();
    let (settle, ticket) = Ticket::new(Lsn(place.lsn));
    let frame = Bytes::from(vec![0; blocks * 4096]);
    let at_once = ring.begin(place, frame, payload_len, settle);
    (place.lsn, at_once, ticket)
}

async fn is_settled(ticket: &mut Ticket) -> bool {
    tokio::select! { biased; settled = ticket => settled.is_ok(), () = std::future::ready(()) => false }
}

#[tokio::test]
async fn only_a_prefix_is_durable() {
    let mut ring = ring(8, 0, 0);
    let (first, _, mut one) = begin(&mut ring, 1);
    let (second, _, mut two) = begin(&mut ring, 2);
    let (third, _, mut three) = begin(&mut ring, 1);
    assert_eq!((first, second, third), (0, 4096, 12_288));
    ring.written(third);
    ring.written(second);
    assert_eq!(ring.usage().durable, Lsn(0));
    assert!(!is_settled(&mut three).await);
    // Told twice, as nothing forbids: no harm.
    ring.written(second);
    ring.written(first);
    assert_eq!(ring.usage().durable, ring.usage().head);
    for ticket in [&mut one, &mut two, &mut three] {
        assert!(is_settled(ticket).await);
    }
    ring.written(first);
    assert!(ring.is_idle());
}

#[tokio::test]
async fn a_place_tells_what_precedes_it() {
    let mut ring = ring(8, 0, RING_BYTES - 8192);
    let (lsn, _, ticket) = begin(&mut ring, 1);
    let place = ring.place(8000).unwrap();
    let expected =
        Place { lsn: RING_BYTES, end: RING_BYTES + 8192, prev_end: lsn + 4096, durable: lsn };
    assert_eq!(place, expected);
    ring.written(lsn);
    assert_eq!(ring.place(8000).unwrap().durable, lsn + 4096);
    ticket.await.unwrap();
}

#[test]
fn zeros_are_written_ahead_of_small_frames_on_the_first_lap() {
    let mut ring = ring(8, 2 * PREWRITE_BYTES, 0);
    let (lsn, at_once, _one) = begin(&mut ring, 1);
    assert!(at_once);
    assert_eq!(ring.next_prewrite(), None, "a frame is in flight");
    ring.written(lsn);
    assert_eq!(ring.next_prewrite(), Some(4096..4096 + PREWRITE_BYTES));
    assert_eq!(ring.next_prewrite(), None, "one at a time");
    // What would race it is held until it is done.
    let (held, at_once, _two) = begin(&mut ring, 1);
    assert!(!at_once);
    let waiting = ring.prewritten(true).into_iter().map(|(lsn, _)| lsn).collect::<Vec<_>>();
    assert_eq!(waiting, [held]);
    assert!(ring.prewritten(true).is_empty());
    ring.written(held);
    let next = 4096 + PREWRITE_BYTES;
    assert_eq!(ring.next_prewrite(), Some(next..next + PREWRITE_BYTES));
    let (ahead_of_it, at_once, _three) = begin(&mut ring, 1);
    assert!(at_once);
    ring.prewritten(true);
    ring.written(ahead_of_it);
    assert_eq!(ring.next_prewrite(), None, "there is enough");
    // Large frames do not need it.
    let (large, _, _four) = begin(&mut ring, 60);
    ring.written(large);
    assert_eq!(ring.next_prewrite(), None);
}

#[test]
fn zeros_end_with_the_first_lap_and_after_a_failure() {
    let mut last = ring(8, PREWRITE_BYTES, RING_BYTES - 8192);
    let (lsn, _, _one) = begin(&mut last, 1);
    last.written(lsn);
    assert_eq!(last.next_prewrite(), Some(RING_BYTES - 4096..RING_BYTES));
    last.prewritten(true);
    assert_eq!(last.next_prewrite(), None);
    let mut later = ring(8, PREWRITE_BYTES, 3 * RING_BYTES + 4096);
    assert_eq!(later.next_prewrite(), None);
    let mut failing = ring(8, PREWRITE_BYTES, 0);
    assert!(failing.next_prewrite().is_some());
    failing.prewritten(false);
    assert_eq!(failing.next_prewrite(), None);
}
