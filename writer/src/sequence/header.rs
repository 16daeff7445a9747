//! What the header of a batch says that matters to sequencing, and the markers that end transactions.
//!
//! ```text
//! marker    a control batch with one record (KIP-98):
//!   key       version i16 (0), type i16 (0 abort, 1 commit)
//!   value     version i16 (0), coordinator epoch i32
//! ```
//!
//! Integers are big-endian. The format is Kafka's, and clients read it.

use bytes::Bytes;
use sluice_wire::batch::{BatchBuilder, BatchView, NewRecord};

/// Bound for the records of a control batch.
const MAX_MARKER_BYTES: usize = 4096;
/// The sequence of batches that take none.
const NO_SEQUENCE: i32 = -1;

/// What the header of a batch says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// -1 for a producer that is not idempotent.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Offsets that it takes: last offset delta + 1.
    pub offsets: i64,
    /// Its largest timestamp, ms.
    pub max_timestamp: i64,
    /// What it is to a transaction.
    pub part: Part,
}

/// What a batch is to its producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Not part of one.
    Outside,
    /// Records in it.
    Inside,
    /// The marker that ends it.
    End(Marker),
    /// A control batch of a type that ends nothing.
    Control,
}

/// How a transaction ended, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Whether it was committed.
    pub(crate) commit: bool,
    /// The epoch of the transaction's coordinator.
    pub(crate) coordinator_epoch: i32,
}

impl Marker {
    /// The control batch that says it.
    pub(crate) fn batch(self, producer_id: i64, producer_epoch: i16, timestamp_ms: i64) -> Bytes {
        let mut builder = BatchBuilder::new()
            .producer(producer_id, producer_epoch, NO_SEQUENCE)
            .transactional()
            .control();
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let key = [0, 0, 0, u8::from(self.commit)];
        let (key, value) = (Some(&key[..]), Some(&value[..]));
        builder.push(&NewRecord { timestamp_ms, key, value, headers: &[] });
        builder.build()
    }

    fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let commit = match key {
            [_, _, 0, 0] => false,
            [_, _, 0, 1] => true,
            _ => return None,
        };
        let epoch = value.get(2..6).and_then(|epoch| epoch.first_chunk());
        // A value that cannot be read ends the transaction all the same, and fences nobody.
        Some(Self {
            commit,
            coordinator_epoch: epoch.map_or(-1, |epoch| i32::from_be_bytes(*epoch)),
        })
    }
}

impl BatchHeader {
    /// Of a batch that was checked.
    pub(crate) fn of<B: AsRef<[u8]>>(batch: &BatchView<B>) -> Self {
        Self {
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
            offsets: i64::from(batch.last_offset_delta()) + 1,
            max_timestamp: batch.max_timestamp(),
            part: part_of(batch),
        }
    }

    pub(super) fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + self.offsets - 1;
        // Sequences wrap from the largest i32 to 0.
        (last % (i64::from(i32::MAX) + 1)) as i32
    }
}

fn part_of<B: AsRef<[u8]>>(batch: &BatchView<B>) -> Part {
    let attributes = batch.attributes();
    if !attributes.is_control() {
        return if attributes.is_transactional() { Part::Inside } else { Part::Outside };
    }
    // Markers are ours, and never compressed.
    let marker = BatchView::new(Bytes::copy_from_slice(batch.bytes().as_ref()))
        .and_then(|batch| batch.records(MAX_MARKER_BYTES))
        .ok()
        .and_then(|mut records| {
            let record = records.next()?.ok()?;
            Marker::read(record.key.as_deref()?, record.value.as_deref().unwrap_or_default())
        });
    marker.map_or(Part::Control, Part::End)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_read_back_and_are_kafkas_bytes() {
        for (commit, coordinator_epoch) in [(true, 0), (false, 7), (true, i32::MAX)] {
            let marker = Marker { commit, coordinator_epoch };
            let bytes = marker.batch(77, 3, 1234);
            let batch = BatchView::new(&bytes[..]).unwrap();
            batch.check_crc().unwrap();
            let header = BatchHeader::of(&batch);
            let expected = BatchHeader {
                producer_id: 77,
                producer_epoch: 3,
                base_sequence: -1,
                offsets: 1,
                max_timestamp: 1234,
                part: Part::End(marker),
            };
            assert_eq!(header, expected);
            // One record: length, attributes, time delta, offset delta, key, value, no headers.
            let mut record = vec![0x20, 0, 0, 0, 8, 0, 0, 0, u8::from(commit), 12, 0, 0];
            record.extend(coordinator_epoch.to_be_bytes());
            record.push(0);
            assert_eq!(bytes[61..], record);
        }
    }

    #[test]
    fn a_control_batch_of_another_type_ends_nothing() {
        let mut builder = BatchBuilder::new().producer(1, 0, -1).control();
        let key = Some(&[0, 0, 0, 2][..]);
        builder.push(&NewRecord { timestamp_ms: 0, key, value: None, headers: &[] });
        let bytes = builder.build();
        assert_eq!(BatchHeader::of(&BatchView::new(&bytes[..]).unwrap()).part, Part::Control);
    }
}
