//! A stream on its way from one volume to another, as manifests have it.
//!
//! Nothing is copied: the volume that a stream goes to names the extents where they lie, in segments that
//! the other volume's owners wrote. A segment is deleted by the owner of the volume in its name, its
//! *home*, and by nobody else; so a home that lets a stream go keeps those of its own segments listed that
//! the stream names (they are *lent*), until it has seen that the stream names them no more.
//!
//! ```text
//!   source                        target
//!   open ──Seal──▶ sealed         (absent, or departed)
//!                    │               │ Adopt: what the source's Seal carries
//!    Unseal ◀────────┤               ▼
//!   (given up)       └─Depart─▶   open, once the catalog says that the stream is there
//!                    departed
//!                       │ Return: what the stream names no more
//! ```
//!
//! ```text
//! step:   kind u8, topic 16, partition u32, then
//!   1 seal    carried             the stream as it is, for the target to read
//!   2 unseal  nothing
//!   3 adopt   carried             the stream as it is from now on
//!   4 depart  lent: count u32, count * segment id 16
//!   5 return  returned: count u32, count * segment id 16
//! carried:    stream (as in a full manifest) | segments: count u32, count * (id 16, length u64)
//! departed:   topic 16, partition u32, moves u32, lent: count u32, count * segment id 16
//! ```
//!
//! The count of moves of a stream orders what different volumes say of it: the largest is the truth. It is
//! one more in the target than in the source, and two more in a source that gave the move up, so that what
//! a target may have adopted counts for less.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, BytesMut};

use crate::cursor::Cursor;
use crate::manifest::{decode_stream, encode_stream, put_key, take_key};
use crate::segment::SegmentId;
use crate::state::{SegmentState, StreamState, Violation, VolumeState, release};
use crate::{FormatError, StreamKey};

const WHAT: &str = "step of a move";

/// A stream with all that a volume has to know to serve it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// The stream; open.
    pub stream: StreamState,
    /// The segments that its extents lie in, and their lengths, ascending.
    pub segments: Vec<(SegmentId, u64)>,
}

impl Carried {
    /// The stream of a volume's state, for another volume to adopt; an empty one if it has no records yet.
    pub fn of(state: &VolumeState, key: &StreamKey) -> Self {
        let mut stream = state.streams.get(key).cloned().unwrap_or_default();
        stream.sealed = false;
        let named: BTreeSet<SegmentId> = stream.extents.iter().map(|e| e.segment).collect();
        let len = |id| state.segments.get(&id).map_or(0, |segment| segment.len);
        Self { segments: named.into_iter().map(|id| (id, len(id))).collect(), stream }
    }

    fn is_whole(&self) -> bool {
        let extents = self.stream.extents.iter();
        let named: BTreeSet<SegmentId> = extents.map(|extent| extent.segment).collect();
        let carried = self.segments.iter().map(|(id, _)| *id);
        !self.stream.sealed && carried.eq(named) && self.stream.check().is_ok()
    }
}

/// What one commit does to a stream that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// The source: nothing of the stream changes from now on. All of it is in the bucket.
    Seal(Box<Carried>),
    /// The source: the move was given up.
    Unseal,
    /// The target: the stream is here as soon as the catalog says so.
    Adopt(Box<Carried>),
    /// The stream is another volume's; of its segments those that have their home here are lent.
    Depart(Vec<SegmentId>),
    /// The stream, wherever it is, does not name these any more.
    Return(Vec<SegmentId>),
}

/// A stream that is another volume's now, and was here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// Its count of moves when it went.
    pub moves: u32,
    /// Segments that have their home here, and that it may still name.
    pub lent: BTreeSet<SegmentId>,
}

impl VolumeState {
    /// Whether a step may be taken.
    pub(crate) fn check_step(&self, key: &StreamKey, step: &MoveStep) -> Result<(), Violation> {
        let stream = self.streams.get(key);
        let departed = self.departed.get(key);
        let fits = match step {
            MoveStep::Seal(carried) => {
                departed.is_none()
                    && stream.is_none_or(|stream| !stream.sealed)
                    && **carried == Carried::of(self, key)
            }
            MoveStep::Unseal => stream.is_some_and(|stream| stream.sealed),
            MoveStep::Adopt(carried) => {
                let newer = |moves: u32| moves < carried.stream.moves;
                let same_len = |(id, len): &(SegmentId, u64)| {
                    self.segments.get(id).is_none_or(|known| known.len == *len)
                };
                carried.is_whole()
                    && carried.segments.iter().all(same_len)
                    && stream.is_none_or(|stream| newer(stream.moves))
                    && departed.is_none_or(|departed| newer(departed.moves))
            }
            MoveStep::Depart(lent) => stream.is_some_and(|stream| {
                lent.iter().all(|id| stream.extents.iter().any(|extent| extent.segment == *id))
            }),
            MoveStep::Return(returned) => departed
                .is_some_and(|departed| returned.iter().all(|id| departed.lent.contains(id))),
        };
        if fits { Ok(()) } else { Err(Violation::Move) }
    }

    pub(crate) fn take_step(&mut self, key: &StreamKey, step: &MoveStep) {
        match step {
            MoveStep::Seal(_) => self.streams.entry(*key).or_default().sealed = true,
            MoveStep::Unseal => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.sealed = false;
                    stream.moves += 2;
                }
            }
            MoveStep::Adopt(carried) => {
                // First what is new, so that nothing is let go of that is named again.
                for (id, len) in &carried.segments {
                    let new = SegmentState { len: *len, live_extents: 0 };
                    self.segments.entry(*id).or_insert(new);
                }
                for extent in &carried.stream.extents {
                    hold(&mut self.segments, extent.segment);
                }
                self.let_go(key);
                self.departed.remove(key);
                self.streams.insert(*key, carried.stream.clone());
            }
            MoveStep::Depart(lent) => {
                let moves = self.streams.get(key).map_or(0, |stream| stream.moves);
                for id in lent {
                    hold(&mut self.segments, *id);
                }
                self.let_go(key);
                let lent = lent.iter().copied().collect();
                self.departed.insert(*key, Departed { moves, lent });
            }
            MoveStep::Return(returned) => {
                let Self { departed, segments, .. } = self;
                if let Some(departed) = departed.get_mut(key) {
                    for id in returned.iter().filter(|id| departed.lent.remove(id)) {
                        release(segments, *id);
                    }
                }
            }
        }
    }

    /// Names nothing any more for the stream.
    pub(crate) fn let_go(&mut self, key: &StreamKey) {
        let Self { streams, departed, segments, .. } = self;
        if let Some(stream) = streams.remove(key) {
            for extent in &stream.extents {
                release(segments, extent.segment);
            }
        }
        for id in departed.remove(key).iter().flat_map(|departed| &departed.lent) {
            release(segments, *id);
        }
    }
}

fn hold(segments: &mut BTreeMap<SegmentId, SegmentState>, id: SegmentId) {
    if let Some(segment) = segments.get_mut(&id) {
        segment.live_extents += 1;
    }
}

pub(crate) fn encode_steps(steps: &[(StreamKey, MoveStep)], out: &mut BytesMut) {
    out.put_u32_le(steps.len() as u32);
    for (key, step) in steps {
        let kind = match step {
            MoveStep::Seal(_) => 1,
            MoveStep::Unseal => 2,
            MoveStep::Adopt(_) => 3,
            MoveStep::Depart(_) => 4,
            MoveStep::Return(_) => 5,
        };
        out.put_u8(kind);
        put_key(*key, out);
        match step {
            MoveStep::Seal(carried) | MoveStep::Adopt(carried) => {
                encode_stream(*key, &carried.stream, out);
                out.put_u32_le(carried.segments.len() as u32);
                for (id, len) in &carried.segments {
                    id.encode(out);
                    out.put_u64_le(*len);
                }
            }
            MoveStep::Unseal => {}
            MoveStep::Depart(ids) | MoveStep::Return(ids) => encode_ids(ids.iter(), out),
        }
    }
}

pub(crate) fn decode_steps(
    cursor: &mut Cursor<'_>,
) -> Result<Vec<(StreamKey, MoveStep)>, FormatError> {
    let count = cursor.count(21)?;
    (0..count).map(|_| decode_step(cursor)).collect()
}

fn decode_step(cursor: &mut Cursor<'_>) -> Result<(StreamKey, MoveStep), FormatError> {
    let kind = cursor.u8()?;
    let key = take_key(cursor)?;
    let step = match kind {
        1 => MoveStep::Seal(Box::new(decode_carried(cursor, key)?)),
        2 => MoveStep::Unseal,
        3 => MoveStep::Adopt(Box::new(decode_carried(cursor, key)?)),
        4 => MoveStep::Depart(decode_ids(cursor)?),
        5 => MoveStep::Return(decode_ids(cursor)?),
        _ => return Err(FormatError::Invalid { what: WHAT, why: "its kind is unknown" }),
    };
    Ok((key, step))
}

fn decode_carried(cursor: &mut Cursor<'_>, key: StreamKey) -> Result<Carried, FormatError> {
    let (of, stream) = decode_stream(cursor, true)?;
    if of != key {
        return Err(FormatError::Invalid { what: WHAT, why: "it carries another stream" });
    }
    let count = cursor.count(24)?;
    let segments = (0..count)
        .map(|_| Ok((SegmentId::decode(cursor)?, cursor.u64()?)))
        .collect::<Result<_, FormatError>>()?;
    Ok(Carried { stream, segments })
}

pub(crate) fn encode_departed(departed: &BTreeMap<StreamKey, Departed>, out: &mut BytesMut) {
    out.put_u32_le(departed.len() as u32);
    for (key, Departed { moves, lent }) in departed {
        put_key(*key, out);
        out.put_u32_le(*moves);
        encode_ids(lent.iter(), out);
    }
}

pub(crate) fn decode_departed(
    cursor: &mut Cursor<'_>,
) -> Result<BTreeMap<StreamKey, Departed>, FormatError> {
    let mut all = BTreeMap::new();
    for _ in 0..cursor.count(28)? {
        let key = take_key(cursor)?;
        let moves = cursor.u32()?;
        let lent = decode_ids(cursor)?.into_iter().collect();
        all.insert(key, Departed { moves, lent });
    }
    Ok(all)
}

fn encode_ids<'a>(ids: impl ExactSizeIterator<Item = &'a SegmentId>, out: &mut BytesMut) {
    out.put_u32_le(ids.len() as u32);
    ids.for_each(|id| id.encode(out));
}

fn decode_ids(cursor: &mut Cursor<'_>) -> Result<Vec<SegmentId>, FormatError> {
    let count = cursor.count(16)?;
    (0..count).map(|_| SegmentId::decode(cursor)).collect()
}

#[cfg(test)]
mod tests;
