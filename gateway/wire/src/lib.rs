//! Kafka's wire protocol: primitives, message tables and record-batch views.
//!
//! Pure: no I/O, no clock, no log, no state between calls. Decoding takes a frame as [`bytes::Bytes`]
//! and hands out slices of it; encoding gives a [`Chain`] in which large byte fields are spliced,
//! not copied.
//!
//! What always holds: bytes from the network never cause a panic, and decoding a frame takes no more
//! memory than [`Decoder`]'s budget, whatever the counts in it claim.
//!
//! Start reading at [`messages`] (the tables), then `table.rs` (what a table expands to) and
//! `field.rs` (how each type lies on the wire). [`ApiKey`] says which requests exist.

mod api_key;
mod chain;
mod decoder;
mod encoder;
mod error_code;
mod field;
mod table;
mod text;
mod uuid;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod tests;

pub mod batch;
pub mod messages;
pub mod scan;

pub use api_key::{AnyRequest, AnyResponse, ApiKey};
pub use chain::Chain;
pub use decoder::{DecodeError, Decoder};
pub use encoder::{EncodeError, Encoder};
pub use error_code::ErrorCode;
pub use messages::header;
pub use table::{Message, Request};
pub use text::Str;
pub use uuid::Uuid;

/// CRC-32C (Castagnoli), the checksum of record batches and of Sluice's own formats.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The crate's common type is u64; a 32-bit checksum lies in its low half.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
