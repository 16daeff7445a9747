//! Contiguous bytes of a segment, on the pages that they lie on.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use sluice_format::FormatError;

use super::{PAGE_BYTES, pages_of};

/// Bytes from a position on, without gaps.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    start: u64,
    parts: Vec<Bytes>,
    len: u64,
    is_of_pages: bool,
}

impl Span {
    /// `parts`, which follow each other from `start` on.
    pub(crate) fn new(start: u64, parts: Vec<Bytes>) -> Self {
        let len = parts.iter().map(|part| part.len() as u64).sum();
        Self { start, parts, len, is_of_pages: false }
    }

    /// The pages of `range`. After a short one there is nothing.
    pub(super) fn of_pages(range: &Range<u64>, pages: impl Iterator<Item = Bytes>) -> Self {
        let mut parts = Vec::new();
        for page in pages {
            let is_short = (page.len() as u64) < PAGE_BYTES;
            parts.push(page);
            if is_short {
                break;
            }
        }
        let start = pages_of(range).start * PAGE_BYTES;
        Self { is_of_pages: true, ..Self::new(start, parts) }
    }

    /// Whether it is made of pages, and not of what was asked for alone.
    pub(crate) fn is_of_pages(&self) -> bool {
        self.is_of_pages
    }

    /// The position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// Bytes of memory that a slice of each part keeps.
    pub(crate) fn held(&self) -> u64 {
        self.len
    }

    /// The bytes of `range`, if they lie on one part.
    pub(super) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let mut start = self.start;
        for part in &self.parts {
            let end = start + part.len() as u64;
            if start <= range.start && range.end <= end {
                let at = |position: u64| (position - start) as usize;
                return Some(part.slice(at(range.start)..at(range.end)));
            }
            start = end;
        }
        None
    }

    /// The bytes of `range`: a slice, or a copy if they lie on several parts.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if they are not all here.
    pub(crate) fn bytes(&self, range: Range<u64>) -> Result<Bytes, FormatError> {
        if range.start < self.start || range.end > self.end() {
            return Err(FormatError::Truncated { what: "segment" });
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut at = (range.start - self.start) as usize;
        let mut left = (range.end - range.start) as usize;
        let mut copied = BytesMut::new();
        for part in &self.parts {
            if at >= part.len() {
                at -= part.len();
                continue;
            }
            let now = left.min(part.len() - at);
            if now == left && copied.is_empty() {
                return Ok(part.slice(at..at + now));
            }
            if copied.is_empty() {
                copied.reserve(left);
            }
            copied.extend_from_slice(&part[at..at + now]);
            (at, left) = (0, left - now);
            if left == 0 {
                break;
            }
        }
        Ok(copied.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_on_one_part_are_shared_and_others_put_together() {
        let part = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let span = Span::new(10, vec![part(b"abc"), part(b"defg"), part(b"h")]);
        assert_eq!((span.end(), span.held()), (18, 8));
        let all = b"abcdefgh";
        for start in 10..=18u64 {
            for end in start..=18 {
                let bytes = span.bytes(start..end).unwrap();
                assert_eq!(bytes, all[start as usize - 10..end as usize - 10], "{start}..{end}");
                if let Some(slice) = span.slice(&(start..end)) {
                    assert_eq!(slice, bytes, "{start}..{end}");
                }
            }
        }
        assert!(span.slice(&(13..17)).is_some() && span.slice(&(12..14)).is_none());
        assert!(span.slice(&(9..11)).is_none() && span.slice(&(17..19)).is_none());
        assert!(span.bytes(9..11).is_err());
        assert!(span.bytes(17..19).is_err());
        assert!(Span::new(5, Vec::new()).bytes(5..5).unwrap().is_empty());
    }

    #[test]
    fn a_short_page_is_the_last() {
        let page = Bytes::from(vec![0; PAGE_BYTES as usize]);
        let range = PAGE_BYTES + 5..4 * PAGE_BYTES;
        let span = Span::of_pages(&range, [page.clone(), page.slice(..7), page].into_iter());
        assert_eq!(span.end(), 2 * PAGE_BYTES + 7);
    }
}
