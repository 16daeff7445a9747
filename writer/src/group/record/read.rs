//! A cursor over stored bytes. Every length is checked against what is left.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::Str;

use super::RecordError;

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(RecordError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(RecordError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A u32 length and that many bytes, copied so that they outlive the log's buffer.
    pub(super) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let len = self.u32()? as usize;
        self.take(len).map(Bytes::copy_from_slice)
    }

    /// As [`Self::bytes`], checked to be UTF-8.
    pub(super) fn text(&mut self) -> Result<Str, RecordError> {
        let len = self.u32()? as usize;
        let bytes = self.take(len)?;
        std::str::from_utf8(bytes).map(Str::from).map_err(|_| RecordError::Text)
    }

    /// One byte, 0 or 1; after 1 a text.
    pub(super) fn optional_text(&mut self) -> Result<Option<Str>, RecordError> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            other => Err(RecordError::Unknown(other)),
        }
    }

    pub(super) fn rest_as_text(self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.rest).map_err(|_| RecordError::Text)
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing) }
    }
}

/// Writes what [`Reader::bytes`] and [`Reader::text`] read.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("held in memory under the group's byte bound");
    out.put_u32(len);
    out.put_slice(bytes);
}

/// Writes what [`Reader::optional_text`] reads.
pub(super) fn put_optional_text(out: &mut BytesMut, text: Option<&Str>) {
    match text {
        None => out.put_u8(0),
        Some(text) => {
            out.put_u8(1);
            put_bytes(out, text.as_bytes());
        }
    }
}
