//! [`Decoder`]: a cursor over one frame that checks every length before it believes it.
//!
//! Two guards keep a hostile frame small. A count is refused when the bytes that are left could not
//! hold that many elements, and the memory that arrays take is charged to a budget that grows with
//! the frame. Strings, byte fields and records take none: they are slices of the frame.

use bytes::Bytes;

/// The budget is this many bytes for each byte of the frame...
const BUDGET_PER_BYTE: usize = 16;
/// ...and this many for any frame, so that short frames of short names pass.
const BUDGET_BASE_BYTES: usize = 64 * 1024;

/// Why bytes are not a message. Nothing of the message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A fixed-size value or a counted field goes past the end.
    #[error("the frame ends inside a field")]
    Truncated,
    /// A variable-length integer has more bytes or bits than its type.
    #[error("a variable-length integer is too long")]
    VarintTooLong,
    /// A length or count that is negative and does not mean null.
    #[error("a length or count is negative")]
    NegativeLength,
    /// A string of more than 32767 bytes.
    #[error("a string is too long")]
    StringTooLong,
    /// Null where the schema allows none in this version.
    #[error("a field is null that may not be")]
    UnexpectedNull,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    NotUtf8,
    /// A tagged field whose content is shorter or longer than its size says.
    #[error("a tagged field's size is wrong")]
    TaggedSize,
    /// The arrays of the frame would take more memory than its budget.
    #[error("the frame's arrays take too much memory")]
    OverBudget,
    /// Bytes are left after the last field.
    #[error("{0} bytes are left after the message")]
    Trailing(usize),
    /// The message has no such version.
    #[error("{message} has no version {version}")]
    NoSuchVersion {
        /// The message's name in Kafka's schema.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// A cursor over one frame's bytes.
#[derive(Debug)]
pub struct Decoder {
    frame: Bytes,
    at: usize,
    /// One past the last byte that may be read: the frame's end, or that of a tagged field.
    end: usize,
    budget_bytes: usize,
}

impl Decoder {
    /// Reads `frame` from its first byte, with a fresh memory budget.
    pub fn new(frame: Bytes) -> Self {
        let end = frame.len();
        let budget_bytes = end.saturating_mul(BUDGET_PER_BYTE).saturating_add(BUDGET_BASE_BYTES);
        Self { frame, at: 0, end, budget_bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// What is left, as a slice of the frame; it stays to be read.
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.at..self.end)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when something is.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes =
            self.frame[self.at..self.end].first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(*bytes)
    }

    /// The next `len` bytes as a slice of the frame.
    #[inline]
    pub(crate) fn slice(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let slice = self.frame.slice(self.at..self.at + len);
        self.at += len;
        Ok(slice)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned variable-length integer of at most 32 bits (KIP-482).
    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u32, DecodeError> {
        // Lengths and counts are mostly below 128.
        match self.frame[self.at..self.end].first() {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_uvarint(),
        }
    }

    #[cold]
    fn long_uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::VarintTooLong);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// A length in the compact form: one more than the length, zero for null.
    #[inline]
    pub(crate) fn compact_len(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    /// A length as a signed 32-bit integer, -1 for null.
    #[inline]
    pub(crate) fn i32_len(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.i32()? {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| DecodeError::NegativeLength),
        }
    }

    /// A length as a signed 16-bit integer, -1 for null.
    #[inline]
    pub(crate) fn i16_len(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.i16()? {
            -1 => Ok(None),
            len => usize::try_from(len).map(Some).map_err(|_| DecodeError::NegativeLength),
        }
    }

    /// An empty vector with room for `count` elements, of which each takes at least `min_bytes` of
    /// the frame: refused when the frame cannot hold them or the budget not pay for them.
    #[inline]
    pub(crate) fn vec<T>(&mut self, count: usize, min_bytes: usize) -> Result<Vec<T>, DecodeError> {
        if count > self.remaining() / min_bytes.max(1) {
            return Err(DecodeError::Truncated);
        }
        let cost = count.saturating_mul(size_of::<T>());
        self.budget_bytes = self.budget_bytes.checked_sub(cost).ok_or(DecodeError::OverBudget)?;
        Ok(Vec::with_capacity(count))
    }

    /// Reads a section of tagged fields into `part`. `known` is given each tag with a decoder that
    /// ends where the field does, and says whether it knows the tag; what it does not is skipped.
    #[inline]
    pub(crate) fn tagged<P>(
        &mut self,
        part: &mut P,
        known: impl Fn(&mut P, u32, &mut Self) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            if size > self.remaining() {
                return Err(DecodeError::Truncated);
            }
            let outer = std::mem::replace(&mut self.end, self.at + size);
            if !known(part, tag, self)? {
                self.at = self.end;
            }
            if self.at != self.end {
                return Err(DecodeError::TaggedSize);
            }
            self.end = outer;
        }
        Ok(())
    }
}
