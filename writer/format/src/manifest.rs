//! Manifests: numbered, immutable objects, created if absent, that say what a volume has in the bucket.
//!
//! ```text
//! 0   magic "SLMANFST"
//! 8   format version u16 | kind u8 (1 full, 2 change) | zero u8 | volume u32
//! 16  manifest version u64
//! 24  base version u64: the newest full manifest at or before this one
//! 32  epoch u32 | zero u32 | trim lsn u64
//! 48  body (below), then crc u32 over all before it
//!
//! body: has snapshot u8, [snapshot id 16, offset i64]
//!       segments: count u32, count * (id 16, length u64 [, full: live extents u32])
//!       removed streams (change only): count u32, count * (topic 16, partition u32)
//!       streams: count u32, count * stream
//!       changes only: replacements: count u32, count * replacement
//!       changes only: cleaned: count u32, count * (topic 16, partition u32, offset i64)
//!       full: departed: count u32, count * departed; change: moves: count u32, count * step: see `moves.rs`
//! stream: topic 16, partition u32, log start i64, end offset i64,
//!         [full: cleaned offset i64, moves u32, epoch base i32, sealed u8]
//!         extents: count u32, count * extent            (a change has at most one)
//!         epochs: count u32, count * (epoch u32, start i64)
//!         producers: see `transactions.rs`
//! replacement: topic 16, partition u32, base offset i64, end offset i64,
//!         replaced: count u32, count * segment id 16, extents: count u32, count * extent
//! ```
//!
//! The state at version N is the full manifest at N's base version with the changes after it applied,
//! up to N. A full manifest is a commit like any other: it holds the state *after* its own change.
//! Rule for change: a new format version; readers refuse what is newer than they know.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use crate::cursor::Cursor;
use crate::moves::{MoveStep, decode_departed, decode_steps, encode_departed, encode_steps};
use crate::segment::{Extent, SegmentId, checked};
use crate::state::{CoordinatorSnapshot, ProducerSnapshot, SegmentState, StreamState, VolumeState};
use crate::transactions::{decode_producers, encode_producers};
use crate::{FormatError, StreamKey, crc32c};

const MAGIC: &[u8; 8] = b"SLMANFST";
/// 2 added replacements and cleaned offsets, 3 sections of extents and open transactions, 5 streams that move.
const VERSION: u16 = 5;
const FULL: u8 = 1;
const CHANGE: u8 = 2;
const WHAT: &str = "manifest";

/// What one commit does to one stream. `epochs` and `producers` replace what was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamUpdate {
    /// The first offset that exists.
    pub log_start: i64,
    /// One past the last offset in the bucket.
    pub end_offset: i64,
    /// What was added, if anything.
    pub extent: Option<Extent>,
    /// (leader epoch, first offset written under it), ascending.
    pub epochs: Vec<(u32, i64)>,
    /// Producers as of `end_offset`.
    pub producers: Vec<ProducerSnapshot>,
}

/// A contiguous run of a stream's extents gives way to others over the same offsets. It holds only as
/// long as the extents to be replaced are there; a change with one that does not is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The stream.
    pub stream: StreamKey,
    /// Where the first replaced extent begins.
    pub base_offset: i64,
    /// Where the last one ends.
    pub end_offset: i64,
    /// The segments in which the replaced extents lie, one for each extent, in order of offsets.
    pub replaced: Vec<SegmentId>,
    /// What takes their place: contiguous, over the same offsets, in segments that the same change adds.
    pub extents: Vec<Extent>,
}

/// One commit. Removed streams go first, then replacements, then updates of streams. A commit with steps of
/// moves has nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeChange {
    /// The volume epoch of the committer.
    pub epoch: u32,
    /// The write-ahead log is replayed from here after the commit.
    pub trim_lsn: u64,
    /// New segments and their lengths.
    pub added_segments: Vec<(SegmentId, u64)>,
    /// Streams that were deleted.
    pub removed_streams: Vec<StreamKey>,
    /// Streams that changed, ascending.
    pub streams: Vec<(StreamKey, StreamUpdate)>,
    /// Compacted extents, ascending by stream and offset.
    pub replacements: Vec<Replacement>,
    /// Offsets up to which key compaction has gone, ascending by stream.
    pub cleaned: Vec<(StreamKey, i64)>,
    /// A new coordinator snapshot, if one was taken.
    pub coordinator: Option<CoordinatorSnapshot>,
    /// Streams that move to or from other volumes, ascending.
    pub moves: Vec<(StreamKey, MoveStep)>,
}

/// What a manifest holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestBody {
    /// The whole state at this version.
    Full(VolumeState),
    /// The difference to the version before.
    Change(VolumeChange),
}

/// One version of a volume's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The volume.
    pub volume: u32,
    /// This version.
    pub version: u64,
    /// The newest full version at or before this one.
    pub base_version: u64,
    /// The content.
    pub body: ManifestBody,
}

impl Manifest {
    /// The volume epoch of the committer.
    pub fn epoch(&self) -> u32 {
        match &self.body {
            ManifestBody::Full(state) => state.epoch,
            ManifestBody::Change(change) => change.epoch,
        }
    }

    /// The object's bytes.
    pub fn encode(&self) -> Bytes {
        let (kind, trim_lsn, coordinator) = match &self.body {
            ManifestBody::Full(state) => (FULL, state.trim_lsn, state.coordinator),
            ManifestBody::Change(change) => (CHANGE, change.trim_lsn, change.coordinator),
        };
        let mut out = BytesMut::with_capacity(256);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u32_le(self.volume);
        out.put_u64_le(self.version);
        out.put_u64_le(self.base_version);
        out.put_u32_le(self.epoch());
        out.put_u32_le(0);
        out.put_u64_le(trim_lsn);
        match coordinator {
            Some(snapshot) => {
                out.put_u8(1);
                snapshot.id.encode(&mut out);
                out.put_i64_le(snapshot.offset);
            }
            None => out.put_u8(0),
        }
        match &self.body {
            ManifestBody::Full(state) => encode_full(state, &mut out),
            ManifestBody::Change(change) => encode_change(change, &mut out),
        }
        out.put_u32_le(crc32c(&out));
        out.freeze()
    }

    /// Reads a manifest; a full one is checked against every invariant of [`VolumeState`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut cursor = Cursor::new(bytes, WHAT);
        if cursor.array::<8>()? != *MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        let format = cursor.u16()?;
        if format != VERSION {
            return Err(FormatError::Version { what: WHAT, found: format, newest: VERSION });
        }
        let mut cursor = Cursor::new(&checked(bytes, WHAT)?[10..], WHAT);
        let kind = cursor.u8()?;
        cursor.u8()?;
        let volume = cursor.u32()?;
        let version = cursor.u64()?;
        let base_version = cursor.u64()?;
        let epoch = cursor.u32()?;
        cursor.u32()?;
        let trim_lsn = cursor.u64()?;
        let coordinator = match cursor.u8()? {
            0 => None,
            _ => Some(CoordinatorSnapshot {
                id: SegmentId::decode(&mut cursor)?,
                offset: cursor.i64()?,
            }),
        };
        let body = match kind {
            FULL => {
                let state = decode_full(&mut cursor, version, epoch, trim_lsn, coordinator)?;
                ManifestBody::Full(state)
            }
            CHANGE => {
                ManifestBody::Change(decode_change(&mut cursor, epoch, trim_lsn, coordinator)?)
            }
            _ => return Err(FormatError::Invalid { what: WHAT, why: "its kind is unknown" }),
        };
        cursor.finish()?;
        let full = matches!(body, ManifestBody::Full(_));
        if base_version > version || full != (base_version == version) {
            return Err(FormatError::Invalid { what: WHAT, why: "its base version is wrong" });
        }
        Ok(Self { volume, version, base_version, body })
    }
}

pub(crate) fn put_key(key: StreamKey, out: &mut BytesMut) {
    out.put_slice(&key.topic);
    out.put_u32_le(key.partition);
}

pub(crate) fn take_key(cursor: &mut Cursor<'_>) -> Result<StreamKey, FormatError> {
    Ok(StreamKey { topic: cursor.array()?, partition: cursor.u32()? })
}

fn encode_full(state: &VolumeState, out: &mut BytesMut) {
    out.put_u32_le(state.segments.len() as u32);
    for (id, segment) in &state.segments {
        id.encode(out);
        out.put_u64_le(segment.len);
        out.put_u32_le(segment.live_extents);
    }
    out.put_u32_le(state.streams.len() as u32);
    for (key, stream) in &state.streams {
        encode_stream(*key, stream, out);
    }
    encode_departed(&state.departed, out);
}

/// A stream as a full manifest has it.
pub(crate) fn encode_stream(key: StreamKey, stream: &StreamState, out: &mut BytesMut) {
    put_key(key, out);
    out.put_i64_le(stream.log_start);
    out.put_i64_le(stream.end_offset);
    out.put_i64_le(stream.cleaned_to);
    out.put_u32_le(stream.moves);
    out.put_i32_le(stream.epoch_base);
    out.put_u8(u8::from(stream.sealed));
    out.put_u32_le(stream.extents.len() as u32);
    for extent in &stream.extents {
        extent.encode(key, out);
    }
    encode_epochs_and_producers(&stream.epochs, &stream.producers, out);
}

fn encode_change(change: &VolumeChange, out: &mut BytesMut) {
    out.put_u32_le(change.added_segments.len() as u32);
    for (id, len) in &change.added_segments {
        id.encode(out);
        out.put_u64_le(*len);
    }
    out.put_u32_le(change.removed_streams.len() as u32);
    for key in &change.removed_streams {
        put_key(*key, out);
    }
    out.put_u32_le(change.streams.len() as u32);
    for (key, update) in &change.streams {
        put_key(*key, out);
        out.put_i64_le(update.log_start);
        out.put_i64_le(update.end_offset);
        out.put_u32_le(u32::from(update.extent.is_some()));
        if let Some(extent) = &update.extent {
            extent.encode(*key, out);
        }
        encode_epochs_and_producers(&update.epochs, &update.producers, out);
    }
    out.put_u32_le(change.replacements.len() as u32);
    for replacement in &change.replacements {
        put_key(replacement.stream, out);
        out.put_i64_le(replacement.base_offset);
        out.put_i64_le(replacement.end_offset);
        out.put_u32_le(replacement.replaced.len() as u32);
        for id in &replacement.replaced {
            id.encode(out);
        }
        out.put_u32_le(replacement.extents.len() as u32);
        for extent in &replacement.extents {
            extent.encode(replacement.stream, out);
        }
    }
    out.put_u32_le(change.cleaned.len() as u32);
    for (key, offset) in &change.cleaned {
        put_key(*key, out);
        out.put_i64_le(*offset);
    }
    encode_steps(&change.moves, out);
}

fn encode_epochs_and_producers(
    epochs: &[(u32, i64)],
    producers: &[ProducerSnapshot],
    out: &mut BytesMut,
) {
    out.put_u32_le(epochs.len() as u32);
    for (epoch, start) in epochs {
        out.put_u32_le(*epoch);
        out.put_i64_le(*start);
    }
    encode_producers(producers, out);
}

fn decode_full(
    cursor: &mut Cursor<'_>,
    version: u64,
    epoch: u32,
    trim_lsn: u64,
    coordinator: Option<CoordinatorSnapshot>,
) -> Result<VolumeState, FormatError> {
    let mut segments = BTreeMap::new();
    for _ in 0..cursor.count(28)? {
        let id = SegmentId::decode(cursor)?;
        segments.insert(id, SegmentState { len: cursor.u64()?, live_extents: cursor.u32()? });
    }
    let mut streams = BTreeMap::new();
    for _ in 0..cursor.count(65)? {
        let (key, stream) = decode_stream(cursor, true)?;
        streams.insert(key, stream);
    }
    let departed = decode_departed(cursor)?;
    let state = VolumeState { version, epoch, trim_lsn, streams, segments, coordinator, departed };
    state
        .validate()
        .map_err(|_| FormatError::Invalid { what: WHAT, why: "its state contradicts itself" })?;
    Ok(state)
}

fn decode_change(
    cursor: &mut Cursor<'_>,
    epoch: u32,
    trim_lsn: u64,
    coordinator: Option<CoordinatorSnapshot>,
) -> Result<VolumeChange, FormatError> {
    let count = cursor.count(24)?;
    let added_segments = (0..count)
        .map(|_| Ok((SegmentId::decode(cursor)?, cursor.u64()?)))
        .collect::<Result<_, FormatError>>()?;
    let count = cursor.count(20)?;
    let removed_streams =
        (0..count).map(|_| take_key(cursor)).collect::<Result<_, FormatError>>()?;
    let count = cursor.count(48)?;
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let (key, stream) = decode_stream(cursor, false)?;
        let StreamState { log_start, end_offset, mut extents, epochs, producers, .. } = stream;
        let extent = extents.pop_front();
        if !extents.is_empty() {
            return Err(FormatError::Invalid { what: WHAT, why: "a change adds several extents" });
        }
        streams.push((key, StreamUpdate { log_start, end_offset, extent, epochs, producers }));
    }
    let count = cursor.count(44)?;
    let replacements =
        (0..count).map(|_| decode_replacement(cursor)).collect::<Result<_, FormatError>>()?;
    let count = cursor.count(28)?;
    let cleaned = (0..count)
        .map(|_| Ok((take_key(cursor)?, cursor.i64()?)))
        .collect::<Result<_, FormatError>>()?;
    let moves = decode_steps(cursor)?;
    Ok(VolumeChange {
        epoch,
        trim_lsn,
        added_segments,
        removed_streams,
        streams,
        replacements,
        cleaned,
        coordinator,
        moves,
    })
}

fn decode_replacement(cursor: &mut Cursor<'_>) -> Result<Replacement, FormatError> {
    let stream = take_key(cursor)?;
    let base_offset = cursor.i64()?;
    let end_offset = cursor.i64()?;
    let count = cursor.count(16)?;
    let replaced =
        (0..count).map(|_| SegmentId::decode(cursor)).collect::<Result<_, FormatError>>()?;
    let extents = decode_extents(cursor, stream)?.into();
    Ok(Replacement { stream, base_offset, end_offset, replaced, extents })
}

fn decode_extents(
    cursor: &mut Cursor<'_>,
    key: StreamKey,
) -> Result<VecDeque<Extent>, FormatError> {
    let count = cursor.count(Extent::ENCODED_LEN)?;
    let mut extents = VecDeque::with_capacity(count);
    for _ in 0..count {
        let (of, extent) = Extent::decode(cursor)?;
        if of != key {
            return Err(FormatError::Invalid { what: WHAT, why: "an extent is of another stream" });
        }
        extents.push_back(extent);
    }
    Ok(extents)
}

/// A stream as a full manifest has it; a change has no more than its offsets, extents, epochs and producers.
pub(crate) fn decode_stream(
    cursor: &mut Cursor<'_>,
    full: bool,
) -> Result<(StreamKey, StreamState), FormatError> {
    let key = take_key(cursor)?;
    let log_start = cursor.i64()?;
    let end_offset = cursor.i64()?;
    let mut stream = StreamState { log_start, end_offset, ..StreamState::default() };
    if full {
        stream.cleaned_to = cursor.i64()?;
        stream.moves = cursor.u32()?;
        stream.epoch_base = cursor.i32()?;
        stream.sealed = cursor.u8()? != 0;
    }
    stream.extents = decode_extents(cursor, key)?;
    let count = cursor.count(12)?;
    stream.epochs = (0..count)
        .map(|_| Ok((cursor.u32()?, cursor.i64()?)))
        .collect::<Result<_, FormatError>>()?;
    stream.producers = decode_producers(cursor)?;
    Ok((key, stream))
}

#[cfg(test)]
mod tests;
