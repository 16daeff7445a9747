//! What a producer's batches must satisfy before they are stored. The rules are those of Kafka's
//! LogValidator and UnifiedLog for appends by clients; where Kafka rewrites, we refuse.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::{BatchError, BatchView, Batches, RecordFault};

/// How many records at fault an error names; one is enough for the batch to be refused.
const MAX_FAULTS: usize = 64;

/// The limits and rules of a topic.
#[derive(Clone, Debug)]
pub struct ProduceRules {
    /// The largest batch, all included (`max.message.bytes`).
    pub max_batch_bytes: usize,
    /// The most that the records of a batch may take uncompressed.
    pub max_inflated_bytes: usize,
    /// Whether to read every record, which inflates compressed ones. Without it the rules on single
    /// records are not checked and the header is believed.
    pub walk_records: bool,
    /// Whether every record needs a key (a compacted topic).
    pub require_keys: bool,
    /// The timestamps that records may have, in ms; -1, "none", is always let through. The whole
    /// range if the topic uses LogAppendTime.
    pub timestamps_ms: RangeInclusive<i64>,
}

/// A batch that passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The batch as it was sent.
    pub batch: BatchView,
    /// The largest timestamp of its records, in ms: found by the walk, else the header's.
    pub max_timestamp_ms: i64,
    /// The offset delta of the first record with that timestamp: found by the walk, else the last.
    pub max_timestamp_delta: i32,
}

/// Checks the batches of one partition in a Produce request: whole, of format 2, their checksums
/// right, header and (if asked for) records consistent, and within the topic's rules. Nothing is
/// copied.
///
/// # Errors
/// The first fault found; for faults of single records, those of the first batch that has any.
pub fn validate_produce(
    records: &Bytes,
    rules: &ProduceRules,
) -> Result<Vec<Produced>, BatchError> {
    if records.is_empty() {
        return Err(BatchError::Empty);
    }
    Batches::new(records.clone()).map(|batch| validate(batch?, rules)).collect()
}

fn validate(batch: BatchView, rules: &ProduceRules) -> Result<Produced, BatchError> {
    let (len_bytes, max_bytes) = (batch.len_bytes(), rules.max_batch_bytes);
    if len_bytes > max_bytes {
        return Err(BatchError::TooLarge { len_bytes, max_bytes });
    }
    batch.check_crc()?;
    check_header(&batch)?;
    if rules.walk_records || !header_in_time(&batch, rules) {
        return walk(batch, rules);
    }
    Ok(Produced {
        max_timestamp_ms: batch.max_timestamp(),
        max_timestamp_delta: batch.last_offset_delta(),
        batch,
    })
}

/// Whether the times in the header lie within the bounds: if not, the records are walked to tell which are
/// at fault. A base of -1 is that of records without times.
fn header_in_time(batch: &BatchView, rules: &ProduceRules) -> bool {
    [batch.base_timestamp(), batch.max_timestamp()]
        .iter()
        .all(|time| *time == -1 || rules.timestamps_ms.contains(time))
}

fn check_header(batch: &BatchView) -> Result<(), BatchError> {
    if batch.base_offset() != 0 {
        return Err(BatchError::BaseOffset(batch.base_offset()));
    }
    let attributes = batch.attributes();
    attributes.compression()?;
    if attributes.is_control() {
        return Err(BatchError::Control);
    }
    if attributes.is_log_append_time() {
        return Err(BatchError::LogAppendTime);
    }
    let (count, last_offset_delta) = (batch.record_count(), batch.last_offset_delta());
    if count <= 0 || last_offset_delta != count - 1 {
        return Err(BatchError::WrongCount { count, last_offset_delta });
    }
    let (producer_id, epoch) = (batch.producer_id(), batch.producer_epoch());
    let sequence = batch.base_sequence();
    let consistent = match producer_id {
        -1 => !attributes.is_transactional(),
        id => id >= 0 && epoch >= 0 && sequence >= 0,
    };
    if !consistent {
        return Err(BatchError::WrongProducer { producer_id, epoch, sequence });
    }
    Ok(())
}

fn walk(batch: BatchView, rules: &ProduceRules) -> Result<Produced, BatchError> {
    let mut max: Option<(i64, i32)> = None;
    let mut faults = Vec::new();
    let mut records = batch.records(rules.max_inflated_bytes)?;
    let mut index = -1;
    while let Some(record) = records.skim()? {
        index += 1;
        if record.offset_delta != index {
            return Err(BatchError::Malformed { index });
        }
        let fault = if rules.require_keys && !record.has_key {
            Some(RecordFault::NoKey)
        } else if record.timestamp_ms != -1 && !rules.timestamps_ms.contains(&record.timestamp_ms) {
            Some(RecordFault::Timestamp)
        } else {
            None
        };
        if let Some(fault) = fault
            && faults.len() < MAX_FAULTS
        {
            faults.push((index, fault));
        }
        if max.is_none_or(|(timestamp_ms, _)| record.timestamp_ms > timestamp_ms) {
            max = Some((record.timestamp_ms, index));
        }
    }
    if !faults.is_empty() {
        return Err(BatchError::Refused(faults));
    }
    let (max_timestamp_ms, max_timestamp_delta) = max.expect("the count is positive");
    Ok(Produced { batch, max_timestamp_ms, max_timestamp_delta })
}
