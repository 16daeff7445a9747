//! Walking the records of a batch one at a time.
//!
//! ```text
//! length varint, then: attributes i8, timestamp delta varlong, offset delta varint,
//! key length varint (-1 null), key, value length varint (-1 null), value,
//! header count varint, headers: key length varint, key, value length varint (-1 null), value
//! ```
//! Varints are zigzag-coded, as in protobuf's sint types.

use bytes::{Bytes, BytesMut};

use super::inflate::Inflater;
use super::{BatchError, BatchView, HEADER_BYTES};
use crate::Str;

/// One record. Its bytes are slices of the batch, or of a piece of what was inflated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The absolute offset: true once the batch has its base offset.
    pub offset: i64,
    /// The offset less the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since the epoch: the producer's, or the broker's with LogAppendTime.
    pub timestamp_ms: i64,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// The headers, in order.
    pub headers: Headers,
}

/// The headers of a record, checked and kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    raw: Bytes,
    count: usize,
}

impl Headers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys and values. A key that is not UTF-8 comes with replacement characters.
    pub fn iter(&self) -> impl Iterator<Item = (Str, Option<Bytes>)> + use<> {
        let mut cursor = Cursor(self.raw.clone());
        (0..self.count).map(move |_| {
            let (key, value) = cursor.header().expect("checked when the record was read");
            let key = Str::try_from(key.clone())
                .unwrap_or_else(|_| Str::from(String::from_utf8_lossy(&key).into_owned()));
            (key, value)
        })
    }
}

/// An iterator over the records of one batch. Ends after the first error.
///
/// Errors are [`BatchError::Malformed`] for a record that cannot be read, for fewer records than the
/// header says, and for bytes after the last one; [`BatchError::Damaged`] and
/// [`BatchError::InflatedTooLarge`] for compressed data.
pub struct Records {
    inflater: Option<Inflater>,
    /// What is not yet walked of the plain or inflated data.
    data: Data,
    base_offset: i64,
    base_timestamp_ms: i64,
    append_timestamp_ms: Option<i64>,
    count: i32,
    index: i32,
    done: bool,
}

enum Data {
    Plain(Bytes),
    Inflated(BytesMut),
}

impl Records {
    pub(super) fn new(batch: &BatchView, max_inflated_bytes: usize) -> Result<Self, BatchError> {
        let data = batch.bytes().slice(HEADER_BYTES..);
        let compression = batch.attributes().compression()?;
        let inflater = Inflater::new(compression, data.clone(), max_inflated_bytes)?;
        let data = match inflater {
            None => Data::Plain(data),
            Some(_) => Data::Inflated(BytesMut::new()),
        };
        let append_time = batch.attributes().is_log_append_time();
        Ok(Self {
            inflater,
            data,
            base_offset: batch.base_offset(),
            base_timestamp_ms: batch.base_timestamp(),
            append_timestamp_ms: append_time.then(|| batch.max_timestamp()),
            count: batch.record_count(),
            index: 0,
            done: false,
        })
    }

    /// Inflates the next piece; false at the end.
    fn more(&mut self) -> Result<bool, BatchError> {
        match (&mut self.inflater, &mut self.data) {
            (Some(inflater), Data::Inflated(buffer)) => Ok(inflater.inflate_more(buffer)? > 0),
            _ => Ok(false),
        }
    }

    fn buffered(&self) -> &[u8] {
        match &self.data {
            Data::Plain(bytes) => bytes,
            Data::Inflated(buffer) => buffer,
        }
    }

    /// Takes the next record's body off the data.
    fn next_body(&mut self) -> Result<Bytes, BatchError> {
        let malformed = BatchError::Malformed { index: self.index };
        let (len, prefix) = loop {
            match varint(self.buffered()) {
                Varint::Value(value, size) => {
                    let len = i32::try_from(value).ok().and_then(|len| usize::try_from(len).ok());
                    let Some(len) = len else { return Err(malformed) };
                    break (len, size);
                }
                Varint::Short if self.more()? => {}
                Varint::Short | Varint::TooLong => return Err(malformed),
            }
        };
        while self.buffered().len() < prefix + len {
            if !self.more()? {
                return Err(malformed);
            }
        }
        let mut body = match &mut self.data {
            Data::Plain(bytes) => bytes.split_to(prefix + len),
            Data::Inflated(buffer) => buffer.split_to(prefix + len).freeze(),
        };
        Ok(body.split_off(prefix))
    }

    fn read(&mut self) -> Result<Option<Record>, BatchError> {
        if self.index >= self.count {
            let rest = !self.buffered().is_empty() || self.more()?;
            let index = self.index;
            return if rest { Err(BatchError::Malformed { index }) } else { Ok(None) };
        }
        let body = self.next_body()?;
        let record = self.parse(body).ok_or(BatchError::Malformed { index: self.index })?;
        self.index += 1;
        Ok(Some(record))
    }

    fn parse(&self, body: Bytes) -> Option<Record> {
        let mut cursor = Cursor(body);
        // The attributes of a record have no meaning yet.
        cursor.take(1)?;
        let timestamp_delta_ms = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key = cursor.nullable()?;
        let value = cursor.nullable()?;
        let count = usize::try_from(cursor.varint()?).ok()?;
        let raw = cursor.0.clone();
        for _ in 0..count {
            cursor.header()?;
        }
        cursor.0.is_empty().then(|| Record {
            offset: self.base_offset.wrapping_add(i64::from(offset_delta)),
            offset_delta,
            timestamp_ms: self
                .append_timestamp_ms
                .unwrap_or_else(|| self.base_timestamp_ms.wrapping_add(timestamp_delta_ms)),
            key,
            value,
            headers: Headers { raw, count },
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let next = self.read().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Bytes that are taken off the front.
struct Cursor(Bytes);

impl Cursor {
    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.0.len()).then(|| self.0.split_to(len))
    }

    fn varlong(&mut self) -> Option<i64> {
        let Varint::Value(value, size) = varint(&self.0) else { return None };
        self.take(size)?;
        Some(value)
    }

    fn varint(&mut self) -> Option<i32> {
        i32::try_from(self.varlong()?).ok()
    }

    /// A length, -1 for null, and that many bytes.
    fn nullable(&mut self) -> Option<Option<Bytes>> {
        match self.varint()? {
            -1 => Some(None),
            len => self.take(usize::try_from(len).ok()?).map(Some),
        }
    }

    fn header(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        Some((self.nullable()??, self.nullable()?))
    }
}

enum Varint {
    /// The value and how many bytes it took.
    Value(i64, usize),
    /// It goes on after the end.
    Short,
    TooLong,
}

/// The zigzag-coded integer at the front.
fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            return Varint::Value((value >> 1) as i64 ^ -((value & 1) as i64), place + 1);
        }
    }
    if bytes.len() < 10 { Varint::Short } else { Varint::TooLong }
}
