//! Write-ahead-log volumes: on-disk format, group writes, fencing, recovery.
//!
//! A volume is one device (a file, a block device, a simulated disk) or a directory of the bucket. It holds
//! the tail of many streams until segments do. It takes frames (opaque payloads of up to 8 MiB), writes each with one
//! device write, says in order which are durable, and gives them back after a crash. The format is in
//! `docs/formats.md`, section "Volume"; the contract of all kinds is [`Volume`] and [`Recovery`].
//!
//! Where things are: [`FrameBuf`] gathers a payload; `frame` and `superblock` are the bytes on disk;
//! `ring` decides where a frame goes and what is durable (pure, no I/O); `log` joins it to a `disk`;
//! `reserve` keeps other hosts off a block device; `scan` reads the log after a restart; `file`, `block`
//! and `sim` are the kinds of volume, and `object`: in the bucket, with the same frames and ring, a log of
//! its own.
//!
//! What always holds: nothing is said to be durable before all that precedes it is; nothing durable is
//! overwritten before it is trimmed; what a recovery yields is exactly what was appended, from the trim
//! point on, without a hole; after an open under a larger epoch no older owner's bytes are ever read.
//!
//! What it does not do: it knows nothing of streams, batches or manifests, and it does not decide when
//! to trim.

mod block;
mod buffer;
mod chunks;
mod disk;
mod error;
mod file;
mod frame;
mod geometry;
mod inspect;
mod local;
mod log;
mod medium;
mod object;
mod pool;
mod reserve;
mod ring;
mod scan;
pub mod sim;
mod superblock;
mod volume;
mod walk;

#[cfg(test)]
mod conformance;

pub use block::{BlockOptions, BlockVolume};
pub use buffer::FrameBuf;
pub use error::{
    AppendError, CloseError, CreateError, NotDurable, OpenError, ReadError, RecoveryError,
    TooLarge, TrimError,
};
pub use file::{CreateOptions, FileVolume, OpenOptions};
pub use frame::MAX_PAYLOAD_BYTES;
pub use inspect::{
    EndOfLog, Frames, InspectError, InspectedFrame, Inspection, Slot, SuperblockFields, inspect,
};
pub use local::Engine;
pub use medium::Medium;
pub use object::{ObjectCosts, ObjectOptions, ObjectVolume};
pub use reserve::Reservations;
pub use volume::{Durable, Health, Kind, Lsn, RecoveredFrame, Recovery, Ticket, Usage, Volume};
pub use walk::LogEnd;
