//! Building batches: for the broker's own records, load generators and tests.

use std::io::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::patch::BatchMut;
use super::snappy::XERIAL_MAGIC;
use super::{Attributes, Compression, HEADER_BYTES};

/// The blocks into which data is cut for snappy, as xerial's library does.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// A record to put into a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Keys and values.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Gathers records, whose offsets follow each other, into one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    attributes: i16,
    base_offset: i64,
    partition_leader_epoch: i32,
    producer: (i64, i16, i32),
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    count: i32,
    /// Room for the header, then the records: what is not compressed is never copied.
    batch: BytesMut,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch as a producer without idempotence makes it: base offset 0, leader epoch -1.
    pub fn new() -> Self {
        Self {
            compression: Compression::None,
            attributes: 0,
            base_offset: 0,
            partition_leader_epoch: -1,
            producer: (-1, -1, -1),
            base_timestamp_ms: -1,
            max_timestamp_ms: -1,
            count: 0,
            batch: BytesMut::zeroed(HEADER_BYTES),
        }
    }

    /// Takes room for so many bytes of records at once.
    #[must_use]
    pub fn with_room(mut self, records_bytes: usize) -> Self {
        self.batch.reserve(records_bytes);
        self
    }

    /// Sets how the records are compressed.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets the offset of the first record.
    #[must_use]
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.base_offset = offset;
        self
    }

    /// Sets the leader epoch.
    #[must_use]
    pub fn partition_leader_epoch(mut self, epoch: i32) -> Self {
        self.partition_leader_epoch = epoch;
        self
    }

    /// Makes the batch an idempotent producer's.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes |= Attributes::TRANSACTIONAL;
        self
    }

    /// Makes the batch a control batch.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes |= Attributes::CONTROL;
        self
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If a key, a value or the record takes 2 GiB or more.
    pub fn push(&mut self, record: &NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp_ms = record.timestamp_ms;
            self.max_timestamp_ms = record.timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(record.timestamp_ms);
        let delta_ms = record.timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let out = &mut self.batch;
        // The length stands before the record: counted, so that nothing is written twice.
        let headers = record.headers.iter();
        let headers =
            headers.map(|(key, value)| nullable_len(Some(key.as_bytes())) + nullable_len(*value));
        let body_len = 1
            + varint_len(delta_ms)
            + varint_len(i64::from(self.count))
            + nullable_len(record.key)
            + nullable_len(record.value)
            + varint_len(record.headers.len() as i64)
            + headers.sum::<usize>();
        let body_len = fits(body_len);
        out.reserve(varint_len(body_len) + body_len as usize);
        put_varint(out, body_len);
        out.put_i8(0);
        put_varint(out, delta_ms);
        put_varint(out, i64::from(self.count));
        put_nullable(out, record.key);
        put_nullable(out, record.value);
        put_varint(out, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_nullable(out, Some(key.as_bytes()));
            put_nullable(out, *value);
        }
        self.count += 1;
    }

    /// How many records there are.
    pub fn record_count(&self) -> i32 {
        self.count
    }

    /// Bytes of the records so far, before compression.
    pub fn records_bytes(&self) -> usize {
        self.batch.len() - HEADER_BYTES
    }

    /// The batch, with its checksum.
    ///
    /// # Panics
    /// If there is no record, or the batch takes 2 GiB or more.
    pub fn build(self) -> Bytes {
        assert!(self.count > 0, "a batch holds at least one record");
        let mut batch = match self.compression {
            Compression::None => self.batch,
            codec => {
                let records = compress(codec, None, &self.batch[HEADER_BYTES..]);
                let mut batch = BytesMut::with_capacity(HEADER_BYTES + records.len());
                batch.put_bytes(0, HEADER_BYTES);
                batch.put_slice(&records);
                batch
            }
        };
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let batch_length = fits(batch.len() - super::LENGTH_END) as i32;
        let mut header = &mut batch[..HEADER_BYTES];
        header.put_i64(self.base_offset);
        header.put_i32(batch_length);
        header.put_i32(self.partition_leader_epoch);
        header.put_i8(2);
        header.put_u32(0);
        header.put_i16(self.attributes | self.compression as i16);
        header.put_i32(self.count - 1);
        header.put_i64(self.base_timestamp_ms);
        header.put_i64(self.max_timestamp_ms);
        header.put_i64(producer_id);
        header.put_i16(producer_epoch);
        header.put_i32(base_sequence);
        header.put_i32(self.count);
        BatchMut::new(&mut batch).expect("the header was written above").seal();
        batch.freeze()
    }
}

/// A length that fits the format's signed 32 bits.
pub(super) fn fits(len: usize) -> i64 {
    i64::from(i32::try_from(len).expect("records are far below 2 GiB"))
}

pub(super) fn put_varint(out: &mut impl BufMut, value: i64) {
    let mut zigzag = (value << 1 ^ value >> 63) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

/// The bytes that [`put_varint`] writes.
fn varint_len(value: i64) -> usize {
    let zigzag = (value << 1 ^ value >> 63) as u64;
    // Seven bits a byte, and one byte at least.
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}

/// The bytes that [`put_nullable`] writes.
fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint_len(fits(bytes.len())) + bytes.len())
}

pub(super) fn put_nullable(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, fits(bytes.len()));
            out.put_slice(bytes);
        }
    }
}

/// Compresses as the records of a batch are; at the library's level.
pub fn deflate(compression: Compression, data: &[u8]) -> Bytes {
    compress(compression, None, data).into()
}

/// `level` is that of gzip (0 to 9) or zstd; the others have none here. `None` leaves it to the library.
pub(super) fn compress(compression: Compression, level: Option<i32>, data: &[u8]) -> Vec<u8> {
    const MEMORY: &str = "writing to memory does not fail";
    match compression {
        Compression::None => data.to_vec(),
        Compression::Gzip => {
            let level = level.and_then(|level| u32::try_from(level).ok()).map(|level| level.min(9));
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(data).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Compression::Snappy => {
            let mut out = Vec::new();
            out.put_slice(XERIAL_MAGIC);
            out.put_i32(1);
            out.put_i32(1);
            for block in data.chunks(SNAPPY_BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(block).expect(MEMORY);
                out.put_i32(fits(block.len()) as i32);
                out.put_slice(&block);
            }
            out
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).expect(MEMORY);
            encoder.finish().expect(MEMORY)
        }
        Compression::Zstd => zstd::encode_all(data, level.unwrap_or(0)).expect(MEMORY),
    }
}
