//! A stored batch with some of its records left out, for key compaction.
//!
//! Offsets, sequence numbers, producer, leader epoch, codec and timestamp type stay; the count, the
//! largest timestamp and the checksum become those of what is left. The last offset delta stays too:
//! a batch covers the offsets that it covered. Kafka's MemoryRecords.filterTo and KIP-534 are the
//! source of the rules.

use bytes::{BufMut, Bytes, BytesMut};

use super::build::{compress, fits, put_nullable, put_varint};
use super::inflate::inflate;
use super::patch::BatchMut;
use super::{Attributes, BatchError, BatchView, Compression, HEADER_BYTES, Record};

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// All of it, as it is.
    Same,
    /// Some of it, or all of it with a delete horizon.
    Changed {
        /// The new batch.
        batch: Bytes,
        /// How many records were left out.
        removed: u32,
    },
    /// No record.
    Nothing,
}

/// Keeps the records of which `keep` says so. If a tombstone is among them, or `marks_end` says that
/// the batch is a marker that may go, and the batch has no delete horizon yet, it gets `horizon_ms`:
/// from then on they may be removed (KIP-534).
///
/// # Errors
/// As [`Records`](super::Records): damaged or oversized content; then the batch must be kept as it is.
pub fn rewrite(
    batch: &BatchView,
    max_inflated_bytes: usize,
    horizon_ms: i64,
    marks_end: bool,
    mut keep: impl FnMut(&Record) -> bool,
) -> Result<Rewritten, BatchError> {
    let attributes = batch.attributes();
    let compression = attributes.compression()?;
    let mut kept = Vec::new();
    let mut total = 0u32;
    let mut tombstone = false;
    for record in batch.records(max_inflated_bytes)? {
        let record = record?;
        total += 1;
        if keep(&record) {
            tombstone |= record.value.is_none();
            kept.push(record);
        }
    }
    if kept.is_empty() {
        return Ok(Rewritten::Nothing);
    }
    let removed = total - kept.len() as u32;
    let new_horizon = (tombstone || marks_end) && !attributes.has_delete_horizon();
    if removed == 0 && !new_horizon {
        return Ok(Rewritten::Same);
    }
    let horizon = attributes.has_delete_horizon() || new_horizon;
    let base_timestamp_ms = match (new_horizon, horizon) {
        (true, _) => horizon_ms,
        (false, true) => batch.base_timestamp(),
        (false, false) => kept[0].timestamp_ms,
    };
    let newest = kept.iter().map(|record| record.timestamp_ms).max();
    let max_timestamp_ms = match attributes.is_log_append_time() {
        true => batch.max_timestamp(),
        false => newest.expect("at least one record is kept"),
    };
    let mut plain = BytesMut::new();
    for record in &kept {
        put_record(record, base_timestamp_ms, &mut plain);
    }
    let mut bits = attributes.0;
    if horizon {
        bits |= Attributes::DELETE_HORIZON;
    }
    let header = Header { attributes: bits, base_timestamp_ms, max_timestamp_ms };
    let records = compress(compression, None, &plain);
    Ok(Rewritten::Changed { batch: assemble(batch, &header, kept.len(), &records), removed })
}

/// The batch without any record: it keeps the place in the log, the producer and its sequence numbers.
pub fn emptied(batch: &BatchView) -> Bytes {
    let attributes = (batch.attributes().0 & !(Attributes::DELETE_HORIZON | CODEC_BITS))
        | Compression::None as i16;
    let at = batch.max_timestamp();
    let header = Header { attributes, base_timestamp_ms: at, max_timestamp_ms: at };
    assemble(batch, &header, 0, &[])
}

/// The batch with its records compressed in another way, everything else being as it was; `None` if they
/// are compressed in that way already, at whatever level, as Kafka leaves them.
///
/// # Errors
/// As [`Records`](super::Records), as far as inflating goes: damaged or oversized content.
pub fn recompress(
    batch: &BatchView,
    to: Compression,
    level: Option<i32>,
    max_inflated_bytes: usize,
) -> Result<Option<Bytes>, BatchError> {
    let attributes = batch.attributes();
    let from = attributes.compression()?;
    if from == to {
        return Ok(None);
    }
    let records = batch.bytes().slice(HEADER_BYTES..);
    let plain = inflate(from, records, max_inflated_bytes)?;
    let header = Header {
        attributes: (attributes.0 & !CODEC_BITS) | to as i16,
        base_timestamp_ms: batch.base_timestamp(),
        max_timestamp_ms: batch.max_timestamp(),
    };
    let count = usize::try_from(batch.record_count()).unwrap_or(0);
    Ok(Some(assemble(batch, &header, count, &compress(to, level, &plain))))
}

/// The bits of the attributes that name the codec.
const CODEC_BITS: i16 = 7;

struct Header {
    attributes: i16,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// A batch with `batch`'s place, producer and leader epoch.
fn assemble(batch: &BatchView, header: &Header, count: usize, records: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + records.len());
    out.put_i64(batch.base_offset());
    out.put_i32(fits(HEADER_BYTES - super::LENGTH_END + records.len()) as i32);
    out.put_i32(batch.partition_leader_epoch());
    out.put_i8(2);
    out.put_u32(0);
    out.put_i16(header.attributes);
    out.put_i32(batch.last_offset_delta());
    out.put_i64(header.base_timestamp_ms);
    out.put_i64(header.max_timestamp_ms);
    out.put_i64(batch.producer_id());
    out.put_i16(batch.producer_epoch());
    out.put_i32(batch.base_sequence());
    out.put_i32(fits(count) as i32);
    out.put_slice(records);
    BatchMut::new(&mut out).expect("the header was written above").seal();
    out.freeze()
}

fn put_record(record: &Record, base_timestamp_ms: i64, out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_i8(0);
    put_varint(&mut body, record.timestamp_ms.wrapping_sub(base_timestamp_ms));
    put_varint(&mut body, i64::from(record.offset_delta));
    put_nullable(&mut body, record.key.as_deref());
    put_nullable(&mut body, record.value.as_deref());
    put_varint(&mut body, record.headers.len() as i64);
    body.put_slice(record.headers.raw());
    put_varint(out, fits(body.len()));
    out.put_slice(&body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::batch::{BatchBuilder, NewRecord};

    const LIMIT: usize = 1 << 20;

    fn batch(compression: Compression, values: &[(i64, Option<&[u8]>)]) -> BatchView {
        let mut builder = BatchBuilder::new()
            .compression(compression)
            .base_offset(100)
            .partition_leader_epoch(3)
            .producer(7, 1, 40);
        for (n, (timestamp_ms, value)) in values.iter().enumerate() {
            let key = format!("key {n}");
            builder.push(&NewRecord {
                timestamp_ms: *timestamp_ms,
                key: Some(key.as_bytes()),
                value: *value,
                headers: &[("h", Some(b"v")), ("none", None)],
            });
        }
        BatchView::new(builder.build()).unwrap()
    }

    fn records(batch: &BatchView) -> Vec<Record> {
        batch.records(LIMIT).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_tombstone_gets_a_horizon_once_and_times_stay() {
        let first = batch(Compression::Lz4, &[(50, Some(b"a")), (40, None), (60, Some(b"c"))]);
        let Rewritten::Changed { batch: bytes, removed: 1 } =
            rewrite(&first, LIMIT, 9_000, false, |record| record.offset != 102).unwrap()
        else {
            panic!("one record goes");
        };
        let second = BatchView::new(bytes).unwrap();
        second.check_crc().unwrap();
        assert!(second.attributes().has_delete_horizon());
        assert_eq!((second.base_timestamp(), second.max_timestamp()), (9_000, 50));
        assert_eq!(records(&second), records(&first)[..2]);
        let again = rewrite(&second, LIMIT, 99_000, false, |_| true).unwrap();
        assert_eq!(again, Rewritten::Same, "the horizon stays what it was");
        let Rewritten::Changed { batch: bytes, .. } =
            rewrite(&second, LIMIT, 99_000, false, |record| record.value.is_some()).unwrap()
        else {
            panic!("the tombstone goes");
        };
        let third = BatchView::new(bytes).unwrap();
        assert_eq!((third.base_timestamp(), third.last_offset()), (9_000, 102));
        assert_eq!(records(&third), records(&first)[..1]);
    }

    #[test]
    fn an_emptied_batch_keeps_its_place_and_sequence() {
        for compression in Compression::ALL {
            let full = batch(compression, &[(50, Some(b"a")), (60, None)]);
            let empty = BatchView::new(emptied(&full)).unwrap();
            empty.check_crc().unwrap();
            assert_eq!(empty.len_bytes(), HEADER_BYTES);
            assert_eq!(records(&empty), []);
            let place = |b: &BatchView| {
                (b.base_offset(), b.last_offset(), b.producer_id(), b.last_sequence())
            };
            assert_eq!(place(&empty), place(&full));
            assert_eq!(rewrite(&empty, LIMIT, 0, false, |_| true), Ok(Rewritten::Nothing));
        }
    }

    #[test]
    fn the_time_of_the_broker_stays() {
        let mut bytes = batch(Compression::None, &[(50, Some(b"a")), (60, None)]).bytes().to_vec();
        BatchMut::new(&mut bytes).unwrap().set_log_append_time(777);
        let stamped = BatchView::new(Bytes::from(bytes)).unwrap();
        let Rewritten::Changed { batch: bytes, .. } =
            rewrite(&stamped, LIMIT, 9_000, false, |record| record.value.is_none()).unwrap()
        else {
            panic!("one record goes");
        };
        let left = BatchView::new(bytes).unwrap();
        assert!(left.attributes().is_log_append_time());
        assert_eq!(records(&left)[0].timestamp_ms, 777);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_as_it_was(
            values in proptest::collection::vec((0i64..1000, proptest::option::of("[a-z]{0,20}"), any::<bool>()), 1..40),
            codec in 0usize..5,
        ) {
            let given: Vec<_> =
                values.iter().map(|(at, v, _)| (*at, v.as_ref().map(String::as_bytes))).collect();
            let before = batch(Compression::ALL[codec], &given);
            let all = records(&before);
            let wanted: Vec<_> = all.iter().zip(&values).filter(|(_, v)| v.2).map(|(r, _)| r.clone()).collect();
            let kept = |record: &Record| values[record.offset_delta as usize].2;
            match rewrite(&before, LIMIT, 5_000, false, kept).unwrap() {
                Rewritten::Nothing => prop_assert!(wanted.is_empty()),
                Rewritten::Same => prop_assert_eq!(wanted.len(), all.len()),
                Rewritten::Changed { batch, removed } => {
                    let after = BatchView::new(batch).unwrap();
                    after.check_crc().unwrap();
                    prop_assert_eq!(&records(&after), &wanted);
                    prop_assert_eq!(removed as usize, all.len() - wanted.len());
                    prop_assert_eq!(after.attributes().compression(), before.attributes().compression());
                    prop_assert_eq!(after.max_timestamp(), wanted.iter().map(|r| r.timestamp_ms).max().unwrap());
                    prop_assert_eq!(
                        (after.base_offset(), after.last_offset(), after.base_sequence(), after.partition_leader_epoch()),
                        (100, before.last_offset(), 40, 3)
                    );
                    let has_tombstone = wanted.iter().any(|record| record.value.is_none());
                    prop_assert_eq!(after.attributes().has_delete_horizon(), has_tombstone);
                }
            }
        }
    }
}
