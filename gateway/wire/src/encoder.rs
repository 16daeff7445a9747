//! [`Encoder`]: writes a message into one growing buffer and splices large byte fields in between.
//!
//! The buffer holds everything small. A large field is kept as it is with the place in the buffer
//! where it belongs; [`Encoder::into_chain`] cuts the buffer at those places. Since the buffer stays
//! in one piece until then, the frame's length is patched in at the end.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Chain, Str};

/// Byte fields from this size on are spliced; below it, a copy is cheaper than another piece in a
/// vectored write.
const SPLICE_BYTES: usize = 512;

/// Why a message cannot be written in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message has no such version.
    #[error("{message} has no version {version}")]
    NoSuchVersion {
        /// The message's name in Kafka's schema.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is set that the version does not have, and leaving it out would change the meaning.
    #[error("version {version} has no {structure}.{field}, but it is set")]
    FieldNotInVersion {
        /// The structure's name in Kafka's schema.
        structure: &'static str,
        /// The field's name here.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null that the version does not let be null.
    #[error("a field is null that may not be in this version")]
    UnexpectedNull,
    /// A string over 32767 bytes, or an array, byte field or frame over 2 GiB.
    #[error("a string, array, byte field or frame is too long")]
    TooLong,
}

/// Writes messages. [`Encoder::new`] starts with nothing; [`Encoder::framed`] leaves room for the
/// length that goes before every message on a connection.
#[derive(Debug, Default)]
pub struct Encoder {
    small: BytesMut,
    /// (place in `small`, what is spliced in there), in order.
    spliced: Vec<(usize, Bytes)>,
    spliced_bytes: usize,
    /// Inside how many tagged fields we are: their size must be known, so nothing is spliced there.
    tagged_depth: u32,
    framed: bool,
}

impl Encoder {
    /// An empty encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder for `[length: i32][header][body]`: write header and body, then take
    /// [`Encoder::into_frame`].
    pub fn framed() -> Self {
        let mut encoder = Self { framed: true, ..Self::default() };
        encoder.small.put_i32(0);
        encoder
    }

    /// Bytes written so far, the length field of a frame included.
    pub fn len(&self) -> usize {
        self.small.len() + self.spliced_bytes
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written.
    pub fn into_chain(self) -> Chain {
        let mut small = self.small.freeze();
        if self.spliced.is_empty() {
            return Chain::from(small);
        }
        let mut chain = Chain::new();
        let mut cut = 0;
        for (place, bytes) in self.spliced {
            chain.push(small.split_to(place - cut));
            chain.push(bytes);
            cut = place;
        }
        chain.push(small);
        chain
    }

    /// What was written into an [`Encoder::framed`], with its length before it.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] when the length does not fit 31 bits.
    ///
    /// # Panics
    /// If the encoder was not made by [`Encoder::framed`].
    pub fn into_frame(mut self) -> Result<Chain, EncodeError> {
        assert!(self.framed, "the encoder has no room for the length");
        let len = i32::try_from(self.len() - 4).map_err(|_| EncodeError::TooLong)?;
        self.small[..4].copy_from_slice(&len.to_be_bytes());
        Ok(self.into_chain())
    }

    /// Adds bytes that are encoded already.
    pub fn raw(&mut self, bytes: &Bytes) {
        self.put_bytes(bytes);
    }

    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.small.put_slice(bytes);
    }

    /// Byte-field content: spliced when it is large, else copied.
    #[inline]
    pub(crate) fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_BYTES || self.tagged_depth > 0 {
            self.put(bytes);
        } else {
            self.spliced_bytes += bytes.len();
            self.spliced.push((self.small.len(), bytes.clone()));
        }
    }

    #[inline]
    pub(crate) fn put_str(&mut self, text: &Str) {
        self.put(text.as_bytes());
    }

    #[inline]
    pub(crate) fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.small.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.small.put_u8(value as u8);
    }

    /// A length in the compact form: one more than the length, zero for null.
    #[inline]
    pub(crate) fn compact_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        match len.map(i32::try_from) {
            None => self.uvarint(0),
            Some(Ok(len)) if len < i32::MAX => self.uvarint(len as u32 + 1),
            Some(_) => return Err(EncodeError::TooLong),
        }
        Ok(())
    }

    /// A length as a signed 32-bit integer, -1 for null.
    #[inline]
    pub(crate) fn i32_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        let len = len.map_or(Ok(-1), i32::try_from).map_err(|_| EncodeError::TooLong)?;
        self.put(&len.to_be_bytes());
        Ok(())
    }

    /// A length as a signed 16-bit integer, -1 for null.
    #[inline]
    pub(crate) fn i16_len(&mut self, len: Option<usize>) -> Result<(), EncodeError> {
        let len = len.map_or(Ok(-1), i16::try_from).map_err(|_| EncodeError::TooLong)?;
        self.put(&len.to_be_bytes());
        Ok(())
    }

    /// One tagged field: its tag, its size, and what `content` writes.
    pub(crate) fn tagged(
        &mut self,
        tag: u32,
        content: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.uvarint(tag);
        let start = self.small.len();
        self.tagged_depth += 1;
        content(self)?;
        self.tagged_depth -= 1;
        // The size goes before the content but is known only now; tagged fields are rare and small,
        // so the content is moved rather than measured first.
        let end = self.small.len();
        let size = u32::try_from(end - start).map_err(|_| EncodeError::TooLong)?;
        self.uvarint(size);
        let size_len = self.small.len() - end;
        self.small[start..].rotate_right(size_len);
        Ok(())
    }
}
