//! Walking the records of a batch one at a time.
//!
//! ```text
//! length varint, then: attributes i8, timestamp delta varlong, offset delta varint,
//! key length varint (-1 null), key, value length varint (-1 null), value,
//! header count varint, headers: key length varint, key, value length varint (-1 null), value
//! ```
//! Varints are zigzag-coded, as in protobuf's sint types.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

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

    /// As they lie in the record, after their count.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Keys and values. A key that is not UTF-8 comes with replacement characters.
    pub fn iter(&self) -> impl Iterator<Item = (Str, Option<Bytes>)> + use<> {
        let raw = self.raw.clone();
        let mut at = 0;
        (0..self.count).map(move |_| {
            let mut cursor = Cursor { bytes: &raw, at };
            let (key, value) = cursor.header().expect("checked when the record was read");
            at = cursor.at;
            let (key, value) = (raw.slice(key), value.map(|range| raw.slice(range)));
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
    /// All of it, and how far it was walked.
    Plain(Bytes, usize),
    /// What is not yet walked of what was inflated.
    Inflated(BytesMut),
}

/// What validation wants of a record: no bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skimmed {
    pub(super) offset_delta: i32,
    pub(super) timestamp_ms: i64,
    pub(super) has_key: bool,
}

impl Records {
    pub(super) fn new(batch: &BatchView, max_inflated_bytes: usize) -> Result<Self, BatchError> {
        let data = batch.bytes().slice(HEADER_BYTES..);
        let compression = batch.attributes().compression()?;
        let inflater = Inflater::new(compression, data.clone(), max_inflated_bytes)?;
        let data = match inflater {
            None => Data::Plain(data, 0),
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
            Data::Plain(bytes, at) => &bytes[*at..],
            Data::Inflated(buffer) => buffer,
        }
    }

    /// Has the next record in the buffer. Gives the length of its length field, and of its body; none
    /// at the end.
    fn locate(&mut self) -> Result<Option<(usize, usize)>, BatchError> {
        let malformed = BatchError::Malformed { index: self.index };
        if self.index >= self.count {
            let rest = !self.buffered().is_empty() || self.more()?;
            return if rest { Err(malformed) } else { Ok(None) };
        }
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
        Ok(Some((prefix, len)))
    }

    fn read(&mut self) -> Result<Option<Record>, BatchError> {
        let Some((prefix, len)) = self.locate()? else {
            return Ok(None);
        };
        let body = match &mut self.data {
            Data::Plain(bytes, at) => {
                let start = *at + prefix;
                *at = start + len;
                bytes.slice(start..*at)
            }
            Data::Inflated(buffer) => {
                buffer.advance(prefix);
                buffer.split_to(len).freeze()
            }
        };
        let shape = Shape::of(&body).ok_or(BatchError::Malformed { index: self.index })?;
        self.index += 1;
        Ok(Some(Record {
            offset: self.base_offset.wrapping_add(i64::from(shape.offset_delta)),
            offset_delta: shape.offset_delta,
            timestamp_ms: self.timestamp_ms(&shape),
            key: shape.key.map(|range| body.slice(range)),
            value: shape.value.map(|range| body.slice(range)),
            headers: Headers { raw: body.slice(shape.headers), count: shape.header_count },
        }))
    }

    /// As the iterator, without taking hold of any bytes.
    pub(super) fn skim(&mut self) -> Result<Option<Skimmed>, BatchError> {
        let Some((prefix, len)) = self.locate()? else {
            return Ok(None);
        };
        let shape = Shape::of(&self.buffered()[prefix..prefix + len])
            .ok_or(BatchError::Malformed { index: self.index })?;
        match &mut self.data {
            Data::Plain(_, at) => *at += prefix + len,
            Data::Inflated(buffer) => buffer.advance(prefix + len),
        }
        self.index += 1;
        Ok(Some(Skimmed {
            offset_delta: shape.offset_delta,
            timestamp_ms: self.timestamp_ms(&shape),
            has_key: shape.key.is_some(),
        }))
    }

    fn timestamp_ms(&self, shape: &Shape) -> i64 {
        let created_ms = || self.base_timestamp_ms.wrapping_add(shape.timestamp_delta_ms);
        self.append_timestamp_ms.unwrap_or_else(created_ms)
    }
}

/// Where the parts of a record's body lie in it.
struct Shape {
    timestamp_delta_ms: i64,
    offset_delta: i32,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
    header_count: usize,
}

impl Shape {
    /// None if the body is malformed.
    fn of(body: &[u8]) -> Option<Self> {
        let mut cursor = Cursor { bytes: body, at: 0 };
        // The attributes of a record have no meaning yet.
        cursor.take(1)?;
        let timestamp_delta_ms = cursor.varlong()?;
        let offset_delta = cursor.varint()?;
        let key = cursor.nullable()?;
        let value = cursor.nullable()?;
        let header_count = usize::try_from(cursor.varint()?).ok()?;
        let headers = cursor.at..body.len();
        for _ in 0..header_count {
            cursor.header()?;
        }
        (cursor.at == body.len()).then_some(Self {
            timestamp_delta_ms,
            offset_delta,
            key,
            value,
            headers,
            header_count,
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

/// A position in a record's body; gives ranges of it.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, len: usize) -> Option<Range<usize>> {
        let start = self.at;
        (len <= self.bytes.len() - start).then(|| {
            self.at = start + len;
            start..self.at
        })
    }

    fn varlong(&mut self) -> Option<i64> {
        let Varint::Value(value, size) = varint(&self.bytes[self.at..]) else { return None };
        self.at += size;
        Some(value)
    }

    fn varint(&mut self) -> Option<i32> {
        i32::try_from(self.varlong()?).ok()
    }

    /// A length, -1 for null, and that many bytes.
    fn nullable(&mut self) -> Option<Option<Range<usize>>> {
        match self.varint()? {
            -1 => Some(None),
            len => self.take(usize::try_from(len).ok()?).map(Some),
        }
    }

    fn header(&mut self) -> Option<(Range<usize>, Option<Range<usize>>)> {
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
