//! [`Chain`]: bytes in several pieces, so that record data travels from the log to the socket
//! without being copied.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// A rope of byte pieces. Two chains are equal when their bytes are, however they are cut.
#[derive(Clone, Default)]
pub struct Chain {
    pieces: Pieces,
    len: usize,
}

/// One piece, the usual case when decoding, takes no allocation.
#[derive(Clone)]
enum Pieces {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Pieces {
    fn default() -> Self {
        Self::One(Bytes::new())
    }
}

impl Chain {
    /// An empty chain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a piece; an empty one is dropped.
    pub fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let was_empty = self.is_empty();
        self.len += piece.len();
        match &mut self.pieces {
            Pieces::Many(pieces) => pieces.push(piece),
            Pieces::One(first) if was_empty => *first = piece,
            Pieces::One(first) => {
                self.pieces = Pieces::Many(vec![std::mem::take(first), piece]);
            }
        }
    }

    /// Appends all pieces of another chain.
    pub fn append(&mut self, other: Self) {
        for piece in other.into_pieces() {
            self.push(piece);
        }
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces in order; none is empty.
    pub fn pieces(&self) -> &[Bytes] {
        match &self.pieces {
            Pieces::One(piece) if piece.is_empty() => &[],
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(pieces) => pieces,
        }
    }

    /// The pieces in order; none is empty.
    pub fn into_pieces(self) -> Vec<Bytes> {
        match self.pieces {
            Pieces::One(piece) if piece.is_empty() => Vec::new(),
            Pieces::One(piece) => vec![piece],
            Pieces::Many(pieces) => pieces,
        }
    }

    /// The bytes in one piece: no copy when there is only one.
    pub fn to_bytes(&self) -> Bytes {
        match &self.pieces {
            Pieces::One(piece) => piece.clone(),
            Pieces::Many(pieces) => {
                let mut whole = BytesMut::with_capacity(self.len);
                for piece in pieces {
                    whole.extend_from_slice(piece);
                }
                whole.freeze()
            }
        }
    }
}

impl From<Bytes> for Chain {
    #[inline]
    fn from(piece: Bytes) -> Self {
        Self { len: piece.len(), pieces: Pieces::One(piece) }
    }
}

impl FromIterator<Bytes> for Chain {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        let mut chain = Self::new();
        for piece in pieces {
            chain.push(piece);
        }
        chain
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |chain: &Self| chain.pieces().to_vec().into_iter().flatten();
        self.len == other.len && bytes(self).eq(bytes(other))
    }
}

impl Eq for Chain {}

// Record data is neither readable nor for logs: only its size shows.
impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({} bytes in {} pieces)", self.len, self.pieces().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_pushed_and_compares_by_bytes() {
        let mut chain = Chain::new();
        assert!(chain.is_empty() && chain.pieces().is_empty());
        for piece in ["ab", "", "c", "def"] {
            chain.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!((chain.len(), chain.pieces().len()), (6, 3));
        assert_eq!(chain.to_bytes(), "abcdef");
        assert_eq!(chain, Chain::from(Bytes::from_static(b"abcdef")));
        assert_ne!(chain, Chain::from(Bytes::from_static(b"abcdeg")));
        assert_eq!(chain.clone().into_pieces().concat(), b"abcdef");
    }
}
