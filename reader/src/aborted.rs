//! Which transactions were aborted of what lies in the bucket. Extents say so in their sections, where the
//! marker is; see [`sluice_format::transactions`] for how many of them are to be looked at.

use std::ops::Range;

use futures_util::{StreamExt, TryStreamExt, stream};
use sluice_format::segment::Extent;
use sluice_format::{AbortedTransaction, StreamKey, TransactionSection};

use crate::load::told;
use crate::read::{ReadError, Reader};

/// Sections that one read asks for at once.
const AT_ONCE: usize = 8;

/// What a consumer needs of an extent's section.
#[derive(Debug, Default)]
struct Aborted {
    /// By the offset of their markers, ascending.
    transactions: Vec<AbortedTransaction>,
    /// Where the oldest transaction began that was open at the extent's end.
    first_open: Option<i64>,
}

impl From<TransactionSection> for Aborted {
    fn from(section: TransactionSection) -> Self {
        let open = section.producers.iter().filter_map(|producer| producer.open_since);
        Self { first_open: open.min(), transactions: section.aborted }
    }
}

impl Reader {
    /// The aborted transactions that may have records in `range`, which lies in the bucket, of those whose
    /// marker lies in the bucket. By their markers.
    pub async fn aborted(
        &self,
        volume: u32,
        stream: StreamKey,
        range: &Range<i64>,
    ) -> Result<Vec<AbortedTransaction>, ReadError> {
        let mut found = Vec::new();
        let mut at = range.start;
        loop {
            let extents = self.extents_for(volume, stream, at, range.end)?;
            let Some(last) = extents.last().map(|extent| extent.end_offset) else {
                return Ok(found);
            };
            let sections = stream::iter(extents).map(|extent| async move {
                let section = self.section(&extent).await?;
                Ok::<_, ReadError>((extent.end_offset, section))
            });
            let mut sections = sections.buffered(AT_ONCE);
            while let Some((end, section)) = sections.try_next().await? {
                for aborted in &section.transactions {
                    if aborted.last_offset >= range.start && aborted.first_offset < range.end {
                        found.push(*aborted);
                    }
                    // Whatever ends later has begun behind the range.
                    if aborted.last_stable_offset >= range.end {
                        return Ok(found);
                    }
                }
                let settled = section.first_open.is_none_or(|first| first >= range.end);
                if end >= range.end && settled {
                    return Ok(found);
                }
            }
            at = last;
        }
    }

    /// The extents from the one that holds `at` on, up to the one in which `end` is reached; a few if that is
    /// passed. None at the end of what is in the bucket.
    fn extents_for(
        &self,
        volume: u32,
        stream: StreamKey,
        at: i64,
        end: i64,
    ) -> Result<Vec<Extent>, ReadError> {
        let state = self.state(volume).ok_or(ReadError::NotHere)?;
        let state = state.read();
        let stream = state.streams.get(&stream).ok_or(ReadError::NotHere)?;
        let Some(first) = stream.extent_at(at) else { return Ok(Vec::new()) };
        if stream.extents[first].base_offset > at {
            return Err(ReadError::NotHere);
        }
        let mut out = Vec::new();
        for extent in stream.extents.range(first..) {
            out.push(*extent);
            if out.len() >= AT_ONCE || at < end && extent.end_offset >= end {
                break;
            }
        }
        Ok(out)
    }

    /// What an extent's section says.
    async fn section(&self, extent: &Extent) -> Result<Aborted, ReadError> {
        let range = extent.section_range();
        if range.is_empty() {
            return Ok(Aborted::default());
        }
        let read = || self.decoded(extent.segment, range.clone(), TransactionSection::decode);
        let mut done = read().await;
        if self.is_worth_another(&done) {
            done = told(read().await);
        }
        done.map(Aborted::from)
    }
}
