//! Walking over stored batches by their headers alone: no record is touched and nothing is copied.
//!
//! The bytes come from a volume or a segment and their checksums were verified; still, a length that
//! does not fit ends the walk instead of panicking.

use bytes::Bytes;

use crate::batch::{BatchView, HEADER_BYTES as BATCH_HEADER_BYTES};

/// Where the length field ends: it counts what follows it.
const LENGTH_END: usize = 12;

/// One batch among others, back to back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpan {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Offset of its first record.
    pub base_offset: i64,
    /// One past the offset of its last record.
    pub end_offset: i64,
    /// Largest timestamp, ms.
    pub max_timestamp: i64,
}

/// The batches in `bytes`, in order; ends before the first that is not whole.
pub fn spans(bytes: &[u8]) -> impl Iterator<Item = BatchSpan> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let span = span_at(bytes, start)?;
        start = span.end;
        Some(span)
    })
}

fn span_at(bytes: &[u8], start: usize) -> Option<BatchSpan> {
    let header = bytes.get(start..start.checked_add(BATCH_HEADER_BYTES)?)?;
    let len = usize::try_from(i32::from_be_bytes(array(header, 8))).ok()?;
    let end = start.checked_add(LENGTH_END)?.checked_add(len)?;
    if end > bytes.len() || end < start + BATCH_HEADER_BYTES {
        return None;
    }
    let base_offset = i64::from_be_bytes(array(header, 0));
    let last_delta = i32::from_be_bytes(array(header, 23));
    Some(BatchSpan {
        start,
        end,
        base_offset,
        end_offset: base_offset.checked_add(i64::from(last_delta))?.checked_add(1)?,
        max_timestamp: i64::from_be_bytes(array(header, 35)),
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// Some of the batches of a piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Whole batches, in the memory of the piece.
    pub batches: Bytes,
    /// Whether nothing that follows in the piece was left out: else what lies behind the piece does not
    /// follow these batches.
    pub to_end: bool,
}

/// Whole batches from the one that holds `offset` on, up to `max_bytes`; if `at_least_one`, the first
/// comes however large it is.
pub fn select(bytes: &Bytes, offset: i64, max_bytes: u64, at_least_one: bool) -> Selected {
    let mut range: Option<(usize, usize)> = None;
    let mut to_end = true;
    for span in spans(bytes).skip_while(|span| span.end_offset <= offset) {
        let start = range.map_or(span.start, |(start, _)| start);
        let fits = (span.end - start) as u64 <= max_bytes;
        if !(fits || at_least_one && range.is_none()) {
            to_end = false;
            break;
        }
        range = Some((start, span.end));
        if !fits {
            to_end = span.end == bytes.len();
            break;
        }
    }
    let batches = range.map_or_else(Bytes::new, |(start, end)| bytes.slice(start..end));
    Selected { batches, to_end }
}

/// The first record at or after `from_offset` whose timestamp is at least `timestamp_ms`: its offset and
/// timestamp. Reads the records of the batches that may have one, inflating up to
/// `max_inflated_bytes` each; of a batch whose records cannot be read the first offset stands for all.
pub fn find_timestamp(
    bytes: &Bytes,
    timestamp_ms: i64,
    from_offset: i64,
    max_inflated_bytes: usize,
) -> Option<(i64, i64)> {
    let candidates =
        spans(bytes).filter(|s| s.max_timestamp >= timestamp_ms && s.end_offset > from_offset);
    for span in candidates {
        let unread = Some((span.base_offset.max(from_offset), span.max_timestamp));
        let Ok(batch) = BatchView::new(bytes.slice(span.start..span.end)) else {
            return unread;
        };
        let Ok(records) = batch.records(max_inflated_bytes) else {
            return unread;
        };
        for record in records {
            match record {
                Ok(record)
                    if record.timestamp_ms >= timestamp_ms && record.offset >= from_offset =>
                {
                    return Some((record.offset, record.timestamp_ms));
                }
                Ok(_) => {}
                Err(_) => return unread,
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, records: i32, body: usize) -> Vec<u8> {
        let mut out = vec![0; BATCH_HEADER_BYTES + body];
        out[..8].copy_from_slice(&base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&((BATCH_HEADER_BYTES - 12 + body) as i32).to_be_bytes());
        out[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        out[35..43].copy_from_slice(&(base_offset * 10).to_be_bytes());
        out
    }

    #[test]
    fn selects_whole_batches_around_an_offset() {
        let bytes = Bytes::from([batch(0, 10, 39), batch(10, 10, 39), batch(20, 1, 39)].concat());
        let taken = |offset, max_bytes, at_least_one| {
            let taken = select(&bytes, offset, max_bytes, at_least_one);
            let offsets: Vec<_> = spans(&taken.batches).map(|span| span.base_offset).collect();
            (offsets, taken.to_end)
        };
        assert_eq!(taken(0, 1000, false), (vec![0, 10, 20], true));
        assert_eq!(taken(15, 1000, false), (vec![10, 20], true), "begins inside a batch");
        assert_eq!(taken(15, 100, false), (vec![10], false));
        assert_eq!(taken(15, 99, false), (vec![], false));
        assert_eq!(taken(15, 1, true), (vec![10], false), "one whole batch all the same");
        assert_eq!(taken(20, 1, true), (vec![20], true));
        assert_eq!(taken(21, 1000, true), (vec![], true));
    }

    #[test]
    fn a_length_that_does_not_fit_ends_the_walk() {
        let mut bytes = [batch(0, 1, 9), batch(1, 1, 9)].concat();
        for bad in [-1, 0, 5, 1000, i32::MAX, i32::MIN] {
            bytes[70 + 8..70 + 12].copy_from_slice(&bad.to_be_bytes());
            assert_eq!(spans(&bytes).count(), 1, "length {bad}");
        }
        assert_eq!(spans(&bytes[..69]).count(), 0);
    }
}
