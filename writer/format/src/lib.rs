//! What lies in the bucket: segments with their block indexes, manifests, and the names of both.
//!
//! Pure: bytes in, values out; no I/O, no clock, no log. Every persisted byte is covered by a CRC32C
//! that is checked when it is read. Integers are little-endian, as everywhere in Sluice's own formats
//! (Kafka's batches inside keep Kafka's order). `docs/formats.md` has the byte diagrams and the rule
//! for change.

pub mod cursor;
pub mod key;
pub mod manifest;
pub mod moves;
pub mod segment;
pub mod snapshot;
pub mod state;
pub mod transactions;

pub use manifest::{Manifest, ManifestBody, Replacement, StreamUpdate, VolumeChange};
pub use moves::{Carried, Departed, MoveStep};
pub use segment::{Extent, SegmentId};
pub use state::{StreamState, VolumeState};
pub use transactions::{AbortedTransaction, TransactionSection};

/// One partition's log, as formats name it: the topic's 16-byte id and the partition's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The topic's id.
    pub topic: [u8; 16],
    /// The partition's index.
    pub partition: u32,
}

/// Bytes that are not what the format says. Never retried: the object is damaged or foreign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It ends too early.
    #[error("{what} is cut short")]
    Truncated {
        /// Which structure.
        what: &'static str,
    },
    /// It is not this kind of object.
    #[error("{what} has the wrong magic number")]
    Magic {
        /// Which structure.
        what: &'static str,
    },
    /// It was written by a newer Sluice.
    #[error("{what} has format version {found}; this build reads up to {newest}")]
    Version {
        /// Which structure.
        what: &'static str,
        /// The version found.
        found: u16,
        /// The newest version known.
        newest: u16,
    },
    /// A checksum differs.
    #[error("{what} fails its checksum")]
    Checksum {
        /// Which structure.
        what: &'static str,
    },
    /// The checksum holds but the content contradicts itself.
    #[error("{what} is invalid: {why}")]
    Invalid {
        /// Which structure.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// CRC32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The checksum of a 32-bit algorithm always fits.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
