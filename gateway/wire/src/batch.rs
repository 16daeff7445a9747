//! Record batches of format 2 (KIP-98): reading them in place, checking what producers send,
//! patching what the broker decides, walking the records, and building batches.
//!
//! ```text
//!  0  base_offset             i64
//!  8  batch_length            i32   bytes after this field
//! 12  partition_leader_epoch  i32
//! 16  magic                   i8    2
//! 17  crc                     u32   CRC-32C of everything after this field
//! 21  attributes              i16   bits 0-2 compression, 3 LogAppendTime, 4 transactional,
//!                                   5 control, 6 base_timestamp is the delete horizon
//! 23  last_offset_delta       i32
//! 27  base_timestamp          i64   ms
//! 35  max_timestamp           i64   ms
//! 43  producer_id             i64   -1 for none
//! 51  producer_epoch          i16
//! 53  base_sequence           i32
//! 57  record_count            i32
//! 61  records, compressed as a whole
//! ```
//!
//! The base offset and the leader epoch lie before the checksummed part, so that a broker can set
//! them without touching the checksum. Batches are kept as the producer sent them; only the fields
//! that [`BatchMut`] sets are ever changed.
//!
//! What always holds: a [`BatchView`] covers exactly one batch, whose header is whole and whose
//! length field is true. That its checksum and its records are right is known only after
//! [`BatchView::check_crc`] and a walk over [`BatchView::records`], as in [`validate_produce`].

mod build;
mod inflate;
mod lz4;
mod patch;
mod records;
mod rewrite;
mod snappy;
mod validate;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use build::{BatchBuilder, NewRecord, deflate};
pub use inflate::inflate;
pub use patch::BatchMut;
pub use records::{Headers, Record, Records};
pub use rewrite::{Rewritten, emptied, recompress, rewrite};
pub use validate::{ProduceRules, Produced, validate_produce};

use crate::{ErrorCode, crc32c};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that `batch_length` counts.
const LENGTH_END: usize = 12;
/// Where the checksummed part begins.
const CRC_END: usize = 21;
/// The place of the magic byte, the same in all formats.
const MAGIC_AT: usize = 16;

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There are no batches at all.
    #[error("there is no record batch")]
    Empty,
    /// The bytes end inside a batch.
    #[error("the bytes end inside a record batch")]
    Truncated,
    /// The length field is less than a header, or there are bytes after the batch.
    #[error("the batch's length field is wrong")]
    WrongLength,
    /// A batch of format 0 or 1, or one we do not know.
    #[error("record format {0} is not accepted, only 2")]
    UnsupportedMagic(i8),
    /// The content is not what the producer checksummed.
    #[error("the batch's checksum is {stored:#010x}, its content's {computed:#010x}")]
    WrongCrc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The batch is larger than the topic allows.
    #[error("the batch has {len_bytes} bytes, {max_bytes} are allowed")]
    TooLarge {
        /// The batch's size.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The records take more room uncompressed than is allowed.
    #[error("the records take more than {max_bytes} bytes uncompressed")]
    InflatedTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// A compression that does not exist.
    #[error("compression type {0} does not exist")]
    UnknownCompression(u8),
    /// The compressed data is damaged.
    #[error("the compressed records are damaged")]
    Damaged,
    /// Offsets that the client gave: they are the broker's to give.
    #[error("the batch's base offset is {0}, not 0")]
    BaseOffset(i64),
    /// The record count is not positive, or does not fit the offsets.
    #[error("the batch claims {count} records and a last offset delta of {last_offset_delta}")]
    WrongCount {
        /// The record count in the header.
        count: i32,
        /// The last offset delta in the header.
        last_offset_delta: i32,
    },
    /// A control batch from a client.
    #[error("clients may not write control batches")]
    Control,
    /// LogAppendTime claimed by a client.
    #[error("clients may not claim LogAppendTime")]
    LogAppendTime,
    /// Producer id, epoch, sequence and the transactional bit contradict each other.
    #[error("producer id {producer_id}, epoch {epoch} and sequence {sequence} do not fit together")]
    WrongProducer {
        /// The producer id.
        producer_id: i64,
        /// The producer epoch.
        epoch: i16,
        /// The base sequence.
        sequence: i32,
    },
    /// A record that cannot be read, or bytes after the last one.
    #[error("record {index} is malformed")]
    Malformed {
        /// The record's index in the batch.
        index: i32,
    },
    /// Records that can be read but break a rule of the topic.
    #[error("{} or more records break a rule of the topic", .0.len())]
    Refused(Vec<(i32, RecordFault)>),
}

/// Which rule of the topic a record breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// No key, but the topic is compacted.
    #[error("a compacted topic takes no record without a key")]
    NoKey,
    /// The timestamp is too far in the past or the future.
    #[error("the timestamp is outside the accepted range")]
    Timestamp,
}

impl BatchError {
    /// Kafka's code for it. Only what a damaged transmission may explain is CORRUPT_MESSAGE, which
    /// clients retry: where the checksum is right, sending the same bytes again cannot help.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated | Self::WrongLength | Self::WrongCrc { .. } => {
                ErrorCode::CorruptMessage
            }
            Self::UnsupportedMagic(_) => ErrorCode::UnsupportedForMessageFormat,
            Self::TooLarge { .. } | Self::InflatedTooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::UnknownCompression(_) => ErrorCode::UnsupportedCompressionType,
            Self::LogAppendTime => ErrorCode::InvalidTimestamp,
            Self::Refused(faults)
                if faults.iter().any(|(_, fault)| *fault == RecordFault::Timestamp) =>
            {
                ErrorCode::InvalidTimestamp
            }
            // An epoch that no producer has is older than any.
            Self::WrongProducer { producer_id: 0.., epoch: ..0, sequence: 0.. } => {
                ErrorCode::InvalidProducerEpoch
            }
            Self::Empty
            | Self::Damaged
            | Self::WrongCount { .. }
            | Self::Control
            | Self::BaseOffset(_)
            | Self::WrongProducer { .. }
            | Self::Malformed { .. }
            | Self::Refused(_) => ErrorCode::InvalidRecord,
        }
    }
}

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks, framed as xerial's Java library does, or one bare block.
    Snappy = 2,
    /// LZ4 frames with independent blocks.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Compression {
    /// All five.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];
}

/// The attributes of a batch. Bits that Kafka has not given a meaning are kept and not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`] for types 5 to 7.
    pub fn compression(self) -> Result<Compression, BatchError> {
        match (self.0 & 7) as u8 {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            unknown => Err(BatchError::UnknownCompression(unknown)),
        }
    }

    /// Whether the broker's clock gave the timestamp: then `max_timestamp` is that of every record.
    pub fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds a transaction marker and not users' records.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether `base_timestamp` says when tombstones may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// One batch, over borrowed or reference-counted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchView<B = Bytes> {
    bytes: B,
}

/// The size of the batch at the front of `bytes`, which is there in full and has a whole header.
fn batch_size(bytes: &[u8]) -> Result<usize, BatchError> {
    let magic = *bytes.get(MAGIC_AT).ok_or(BatchError::Truncated)? as i8;
    if magic != 2 {
        return Err(BatchError::UnsupportedMagic(magic));
    }
    let size = i64::from(i32::from_be_bytes(field(bytes, 8))) + LENGTH_END as i64;
    if size < HEADER_BYTES as i64 {
        return Err(BatchError::WrongLength);
    }
    usize::try_from(size).ok().filter(|size| *size <= bytes.len()).ok_or(BatchError::Truncated)
}

/// The fixed-size field at `at`, which the caller knows to be there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the header is whole")
}

impl<B: AsRef<[u8]>> BatchView<B> {
    /// Views `bytes`, which must be exactly one batch.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::WrongLength`] or [`BatchError::UnsupportedMagic`].
    pub fn new(bytes: B) -> Result<Self, BatchError> {
        if batch_size(bytes.as_ref())? != bytes.as_ref().len() {
            return Err(BatchError::WrongLength);
        }
        Ok(Self { bytes })
    }

    fn at<const N: usize>(&self, at: usize) -> [u8; N] {
        field(self.bytes.as_ref(), at)
    }

    /// The whole batch.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The whole batch.
    pub fn into_bytes(self) -> B {
        self.bytes
    }

    /// The batch's size in bytes, all included.
    pub fn len_bytes(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// The offset of the first record.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.at(0))
    }

    /// The offset of the last record, which compaction may have removed.
    pub fn last_offset(&self) -> i64 {
        self.base_offset().wrapping_add(i64::from(self.last_offset_delta()))
    }

    /// The length field: the bytes after it.
    pub fn batch_length(&self) -> i32 {
        i32::from_be_bytes(self.at(8))
    }

    /// The epoch of the leader that took the batch; -1 from a producer.
    pub fn partition_leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.at(12))
    }

    /// The format, always 2.
    pub fn magic(&self) -> i8 {
        i8::from_be_bytes(self.at(MAGIC_AT))
    }

    /// The checksum in the header.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.at(17))
    }

    /// Compression, timestamp type, transactional, control.
    pub fn attributes(&self) -> Attributes {
        Attributes(i16::from_be_bytes(self.at(21)))
    }

    /// The last record's offset less the base offset.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.at(23))
    }

    /// What the records' timestamps are relative to, in ms.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.at(27))
    }

    /// The largest timestamp, in ms, as the producer says unless the broker has set it.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.at(35))
    }

    /// The producer's id, -1 for none.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.at(43))
    }

    /// The producer's epoch, -1 for none.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.at(51))
    }

    /// The sequence number of the first record, -1 for none.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.at(53))
    }

    /// The sequence number of the last record, -1 for none. Sequence numbers go from 0 to
    /// `i32::MAX` and around.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            none if none < 0 => -1,
            base => base.wrapping_add(self.last_offset_delta()) & i32::MAX,
        }
    }

    /// How many records the header says there are.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.at(57))
    }

    /// Checks the checksum.
    ///
    /// # Errors
    /// [`BatchError::WrongCrc`].
    pub fn check_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.crc(), crc32c(&self.bytes.as_ref()[CRC_END..]));
        if stored == computed { Ok(()) } else { Err(BatchError::WrongCrc { stored, computed }) }
    }
}

impl BatchView<Bytes> {
    /// Takes the first batch off `bytes`.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::WrongLength`] or [`BatchError::UnsupportedMagic`];
    /// `bytes` is as it was.
    pub fn split_off(bytes: &mut Bytes) -> Result<Self, BatchError> {
        let size = batch_size(bytes)?;
        Ok(Self { bytes: bytes.split_to(size) })
    }

    /// Walks the records, inflating as it goes and at most `max_inflated_bytes` in all.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`]; and see [`Records`].
    pub fn records(&self, max_inflated_bytes: usize) -> Result<Records, BatchError> {
        Records::new(self, max_inflated_bytes)
    }
}

/// Splits back-to-back batches. Ends after the first error, and at the end of the bytes; bytes that
/// are left over, such as a batch cut short by a fetch limit, are an error.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// The batches in `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<BatchView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::split_off(&mut self.rest);
        if batch.is_err() {
            self.rest.clear();
        }
        Some(batch)
    }
}
