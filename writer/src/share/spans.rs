//! From a piece of a stream to what [`partition`](super::partition) needs to know of it, and back to the
//! part of it that is sent.

use std::collections::BTreeSet;

use bytes::Bytes;
use sluice_wire::batch::BatchView;
use sluice_wire::{Chain, scan};

use super::partition::{Acquired, Span};

/// A control record's key: version i16, type i16; 0 is an abort marker.
const ABORT_KEY: [u8; 4] = [0, 0, 0, 0];
/// A control batch holds one small record.
const MAX_CONTROL_BYTES: usize = 1 << 10;

/// The batches that end after `from`, in order. `aborted` has (producer id, first offset) of the aborted
/// transactions among them.
pub(super) fn of(records: &Chain, aborted: &[(i64, i64)], from: i64) -> Vec<Span> {
    let mut pending: Vec<_> = aborted.iter().map(|(producer, first)| (*first, *producer)).collect();
    pending.sort_unstable_by(|a, b| b.cmp(a));
    let mut open = BTreeSet::new();
    let mut spans = Vec::new();
    for piece in records.pieces() {
        for span in scan::spans(piece) {
            let mut is_aborted = false;
            if !aborted.is_empty() {
                while let Some((_, producer)) =
                    pending.pop_if(|(first, _)| *first < span.end_offset)
                {
                    open.insert(producer);
                }
                is_aborted = is_of_aborted(piece.slice(span.start..span.end), &mut open);
            }
            if span.end_offset > from {
                spans.push(Span {
                    base: span.base_offset,
                    end: span.end_offset,
                    aborted: is_aborted,
                });
            }
        }
    }
    spans
}

/// Whether a batch belongs to one of the `open` aborted transactions; its marker ends one.
fn is_of_aborted(batch: Bytes, open: &mut BTreeSet<i64>) -> bool {
    let Ok(view) = BatchView::new(batch) else { return false };
    let attributes = view.attributes();
    if attributes.is_control() {
        let key = view.records(MAX_CONTROL_BYTES).ok().and_then(|mut records| records.next());
        if let Some(Ok(record)) = key
            && record.key.is_some_and(|key| key.starts_with(&ABORT_KEY))
        {
            open.remove(&view.producer_id());
        }
        return false;
    }
    attributes.is_transactional() && open.contains(&view.producer_id())
}

/// The batches that hold something of what was acquired, and those between.
pub(super) fn trimmed(records: &Chain, acquired: &[Acquired]) -> Chain {
    let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else {
        return Chain::new();
    };
    let mut out = Chain::new();
    for piece in records.pieces() {
        let mut wanted = scan::spans(piece)
            .filter(|span| span.end_offset > first.first && span.base_offset < last.end);
        if let Some(begin) = wanted.next() {
            let end = wanted.last().map_or(begin.end, |span| span.end);
            out.push(piece.slice(begin.start..end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use sluice_wire::batch::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(base: i64, records: usize, make: impl Fn(BatchBuilder) -> BatchBuilder) -> Bytes {
        let mut builder = make(BatchBuilder::new().base_offset(base));
        for _ in 0..records {
            let (key, value) = (Some(&ABORT_KEY[..]), Some(&b"v"[..]));
            builder.push(&NewRecord { timestamp_ms: 1, key, value, headers: &[] });
        }
        builder.build()
    }

    #[test]
    fn aborted_batches_are_told_until_their_marker() {
        let of_producer = |id: i64| move |b: BatchBuilder| b.producer(id, 0, 0).transactional();
        let chain: Chain = [
            batch(0, 2, of_producer(1)),
            batch(2, 2, of_producer(2)),
            batch(4, 1, |b| b.producer(1, 0, -1).transactional().control()),
            batch(5, 1, of_producer(1)),
            batch(6, 1, |b| b),
        ]
        .into_iter()
        .collect();
        let spans = of(&chain, &[(1, 0)], 1);
        let told: Vec<_> = spans.iter().map(|s| (s.base, s.end, s.aborted)).collect();
        let expected = [(0, 2, true), (2, 4, false), (4, 5, false), (5, 6, false), (6, 7, false)];
        assert_eq!(told, expected);
        assert!(of(&chain, &[], 0).iter().all(|span| !span.aborted));
        assert_eq!(of(&chain, &[], 5).len(), 2);
    }

    #[test]
    fn what_holds_nothing_acquired_is_not_sent() {
        let pieces = [batch(0, 2, |b| b), batch(2, 2, |b| b), batch(4, 2, |b| b)];
        let one: Chain = Bytes::from(pieces.concat()).into();
        let many: Chain = pieces.iter().cloned().collect();
        for chain in [one, many] {
            let acquired = |first, end| Acquired { first, end, deliveries: 1 };
            assert_eq!(trimmed(&chain, &[acquired(3, 4)]).to_bytes(), pieces[1]);
            let both = [acquired(1, 2), acquired(2, 3)];
            assert_eq!(trimmed(&chain, &both).to_bytes(), pieces[..2].concat());
            assert!(trimmed(&chain, &[]).is_empty());
        }
    }
}
