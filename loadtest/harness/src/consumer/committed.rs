//! Which batches of an answer a consumer that reads what is committed must leave out, by the list of aborted
//! transactions in it (KIP-98).

use std::collections::HashSet;

use sluice_wire::batch::BatchView;
use sluice_wire::messages::fetch_response::AbortedTransaction;

/// A control record's key: version, then type; 0 is an abort.
const ABORT: i16 = 0;

/// The aborted transactions of one partition's answer.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    /// By first offset, last one first.
    ahead: Vec<AbortedTransaction>,
    /// Producers whose aborted transaction has begun and not ended.
    open: HashSet<i64>,
}

impl Aborted {
    pub(super) fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
        Self { ahead: aborted, open: HashSet::new() }
    }

    /// Whether a batch is left out. Batches come in order.
    pub(super) fn leaves_out(&mut self, batch: &BatchView) -> bool {
        while let Some(next) = self.ahead.last()
            && next.first_offset <= batch.last_offset()
        {
            self.open.insert(next.producer_id);
            self.ahead.pop();
        }
        if batch.attributes().is_control() {
            if is_abort(batch) {
                self.open.remove(&batch.producer_id());
            }
            return true;
        }
        batch.attributes().is_transactional() && self.open.contains(&batch.producer_id())
    }
}

fn is_abort(batch: &BatchView) -> bool {
    let marker = batch.records(batch.len_bytes()).ok().and_then(|mut records| records.next()?.ok());
    let key = marker.and_then(|marker| marker.key).unwrap_or_default();
    key.get(2..4).is_some_and(|kind| kind == ABORT.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use sluice_wire::batch::{BatchBuilder, NewRecord};

    use super::*;

    fn batch(producer: i64, offset: i64, marker: Option<i16>) -> BatchView {
        let mut builder =
            BatchBuilder::new().base_offset(offset).producer(producer, 0, 0).transactional();
        let key = marker.map(|kind| [0i16.to_be_bytes(), kind.to_be_bytes()].concat());
        if marker.is_some() {
            builder = builder.control();
        }
        builder.push(&NewRecord { key: key.as_deref(), value: Some(b"v"), ..NewRecord::default() });
        BatchView::new(builder.build()).expect("a batch")
    }

    #[test]
    fn a_transaction_is_left_out_from_its_first_offset_to_its_marker() {
        let aborted = |producer_id, first_offset| AbortedTransaction { producer_id, first_offset };
        let mut list = Aborted::new(vec![aborted(1, 6), aborted(1, 0), aborted(2, 3)]);
        let left_out: Vec<bool> = [
            batch(1, 0, None),
            batch(2, 1, None),
            batch(1, 2, Some(0)),
            batch(2, 3, None),
            batch(1, 4, None),
            batch(1, 5, Some(1)),
            batch(1, 6, None),
            batch(2, 7, Some(0)),
            batch(2, 8, None),
        ]
        .iter()
        .map(|batch| list.leaves_out(batch))
        .collect();
        assert_eq!(left_out, [true, false, true, true, false, true, true, true, false]);
    }
}
