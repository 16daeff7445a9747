//! What was read of one stream, cut to what a consumer of committed records may see.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_format::AbortedTransaction;
use sluice_model::StreamId;
use sluice_reader::{Bounds, ReadError, Reader};
use sluice_wire::{Chain, scan};

use super::key_of;

/// Whole batches, and what a consumer of committed records has to leave out of them.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) chain: Chain,
    /// (producer id, first offset) of transactions that were aborted.
    pub(super) aborted: Vec<(i64, i64)>,
    /// The offset behind the last batch; known if there is a bound to what may be seen.
    end: Option<i64>,
}

impl Records {
    /// The batches of `chain` below the last stable offset, if that is a bound.
    pub(super) fn new(chain: Chain, stable: Option<i64>) -> Self {
        let Some(stable) = stable else {
            return Self { chain, ..Self::default() };
        };
        let mut kept = Chain::default();
        let mut end = None;
        for piece in chain.into_pieces() {
            let mut len = 0;
            for span in scan::spans(&piece) {
                if span.base_offset >= stable {
                    break;
                }
                len = span.end;
                end = Some(span.end_offset);
            }
            let whole = len == piece.len();
            kept.push(piece.slice(..len));
            if !whole {
                break;
            }
        }
        Self { chain: kept, aborted: Vec::new(), end }
    }

    /// With those of `aborted` that may have records here.
    pub(super) fn with(mut self, aborted: &[AbortedTransaction]) -> Self {
        let Some(end) = self.end else { return self };
        let here = aborted.iter().filter(|transaction| transaction.first_offset < end);
        let known: BTreeSet<_> = self.aborted.iter().copied().collect();
        let new = here.map(|transaction| (transaction.producer_id, transaction.first_offset));
        // The tail and the bucket may both have it.
        self.aborted.extend(new.filter(|transaction| !known.contains(transaction)));
        self
    }
}

/// Reads from the bucket; see [`Reader::read`].
pub(super) async fn read_bucket(
    reader: &Arc<Reader>,
    volume: u32,
    stream: StreamId,
    offset: i64,
    bounds: Bounds,
    stable: Option<i64>,
) -> Result<Records, ReadError> {
    let chain = reader.read(volume, key_of(stream), offset, bounds).await?;
    let records = Records::new(chain, stable);
    let Some(end) = records.end else { return Ok(records) };
    let aborted = reader.aborted(volume, key_of(stream), &(offset..end)).await?;
    Ok(records.with(&aborted))
}
