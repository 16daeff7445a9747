//! A cursor over stored bytes. Every length is checked against what is left.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::Str;

use super::RecordError;

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(RecordError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(RecordError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A u32 length and that many bytes, copied so that they outlive the log's buffer.
    pub(crate) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let len = self.u32()? as usize;
        self.take(len).map(Bytes::copy_from_slice)
    }

    /// As [`Self::bytes`], checked to be UTF-8.
    pub(crate) fn text(&mut self) -> Result<Str, RecordError> {
        let len = self.u32()? as usize;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(Str::from).map_err(|_| RecordError::Text)
    }

    /// One byte, 0 or 1; after 1 a text.
    pub(crate) fn optional_text(&mut self) -> Result<Option<Str>, RecordError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            other => Err(RecordError::Unknown(other)),
        }
    }

    /// So many bytes that are UTF-8.
    pub(crate) fn short_text(&mut self, len: usize) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.take(len)?).map_err(|_| RecordError::Text)
    }

    /// Passes over so many bytes.
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), RecordError> {
        self.take(len).map(drop)
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn rest_as_text(self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.rest).map_err(|_| RecordError::Text)
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing) }
    }
}

/// Writes what [`Reader::bytes`] and [`Reader::text`] read.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("held in memory under the group's byte bound");
    out.put_u32(len);
    out.put_slice(bytes);
}

/// Writes what [`Reader::optional_text`] reads.
pub(crate) fn put_optional_text(out: &mut BytesMut, text: Option<&Str>) {
    match text {
        None => out.put_u8(0),
        Some(text) => {
            out.put_u8(1);
            put_bytes(out, text.as_bytes());
        }
    }
}
