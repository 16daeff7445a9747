//! Reading an object volume's log back: a few objects ahead, their frames in order. It owns nothing but
//! its place; the chain is sealed before it begins.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::PutPayload;
use sluice_model::{VolumeEpoch, VolumeId};

use super::chain::Chain;
use super::layout::{Entry, HEADER_BYTES, Header, Link, TrimState, Undecodable};
use super::log::{Foundation, Kept, ObjectLog, Spot};
use super::store::Created;
use crate::buffer::frame_len;
use crate::error::RecoveryError;
use crate::frame::{self, FrameHeader, NotAHeader, Seed, crc32c};
use crate::volume::{Lsn, RecoveredFrame, Recovery, Volume};

/// How many objects are asked for at once.
const AHEAD: usize = 4;

pub(super) struct ObjectRecovery {
    base: Foundation,
    last: Header,
    leftovers: Vec<(VolumeEpoch, u64)>,
    objects: BoxStream<'static, (VolumeEpoch, u64, Option<Bytes>)>,
    /// Of the object that was read last.
    frames: VecDeque<RecoveredFrame>,
    kept: VecDeque<Kept>,
    /// Up to where the log was read; none before the first object.
    end: Option<u64>,
}

impl ObjectRecovery {
    pub(super) fn new(base: Foundation, chain: Chain) -> Self {
        let places = chain.ranges.into_iter();
        let places = places.flat_map(|(epoch, range)| range.map(move |position| (epoch, position)));
        let (bucket, log) = (base.bucket.clone(), base.log.clone());
        let objects = stream::iter(places.collect::<Vec<_>>()).map(move |(epoch, position)| {
            let (bucket, at) =
                (bucket.clone(), log.clone().join(super::layout::name(epoch, position)));
            async move { (epoch, position, bucket.get(&at).await) }
        });
        Self {
            base,
            last: chain.last,
            leftovers: chain.leftovers,
            objects: objects.buffered(AHEAD).boxed(),
            frames: VecDeque::new(),
            kept: VecDeque::new(),
            end: None,
        }
    }

    fn corrupt(&self) -> RecoveryError {
        let at = Lsn(self.end.unwrap_or(self.last.trim.lsn));
        RecoveryError::Corrupt { at, durable: Lsn(self.last.end) }
    }

    /// Takes in one object.
    async fn read(
        &mut self,
        epoch: VolumeEpoch,
        position: u64,
        bytes: Option<Bytes>,
    ) -> Result<(), RecoveryError> {
        let Some(bytes) = bytes else {
            // Either it is lost, or the next owner has trimmed it.
            let next = self.base.bucket.head(&self.base.at(self.base.start)).await;
            return Err(next.map_or_else(|| self.corrupt(), |_| RecoveryError::Fenced));
        };
        let header = match Entry::decode(&bytes) {
            Ok(Entry::Object(header)) => header,
            Err(Undecodable::Unsupported(version)) => {
                let at = Lsn(self.end.unwrap_or(self.last.trim.lsn));
                return Err(RecoveryError::Unsupported { at, version });
            }
            Ok(Entry::Seal(_)) | Err(Undecodable::Invalid) => return Err(self.corrupt()),
        };
        let Link { id, uuid, epoch: of, position: at, .. } = header.link;
        let follows = self.end.is_none_or(|end| end == header.first);
        if (id, uuid, of, at) != (self.base.volume.id, self.base.volume.uuid, epoch, position)
            || !follows
            || bytes.len() != HEADER_BYTES + header.body_bytes as usize
        {
            return Err(self.corrupt());
        }
        self.end = Some(header.first);
        let frames = parse(&bytes, &header, &self.base.volume.uuid).map_err(|why| match why {
            NotAHeader::Invalid => self.corrupt(),
            NotAHeader::Unsupported(version) => {
                RecoveryError::Unsupported { at: Lsn(header.first), version }
            }
        })?;
        self.end = Some(header.end);
        let spots = frames.iter().map(|(spot, _)| *spot).collect();
        self.kept.push_back(Kept { epoch, position, end: header.end, frames: spots });
        let trim = self.last.trim.lsn;
        let found = frames.into_iter().map(|(_, frame)| frame);
        self.frames.extend(found.filter(|frame| frame.lsn.0 >= trim));
        Ok(())
    }
}

/// The frames of an object, and where each lies in it.
fn parse(
    bytes: &Bytes,
    object: &Header,
    uuid: &[u8; 16],
) -> Result<Vec<(Spot, RecoveredFrame)>, NotAHeader> {
    let seed = seed(uuid);
    let mut frames = Vec::new();
    let (mut at, mut end) = (HEADER_BYTES, object.first);
    while at < bytes.len() {
        let header = FrameHeader::decode(&bytes[at..], &seed)?;
        let payload = at + frame::HEADER_BYTES;
        let next = payload + header.payload_len as usize;
        let is_next = header.prev_end == end && header.epoch == object.link.epoch.0;
        if !is_next || next > bytes.len() {
            return Err(NotAHeader::Invalid);
        }
        let payload = bytes.slice(payload..next);
        if crc32c(&payload) != header.payload_crc {
            return Err(NotAHeader::Invalid);
        }
        end = header.lsn + frame_len(payload.len()) as u64;
        // An object is a little larger than 16 MiB at most.
        let spot = Spot { lsn: header.lsn, at: at as u32, payload_len: header.payload_len };
        let epoch = object.link.epoch;
        frames.push((spot, RecoveredFrame { lsn: Lsn(header.lsn), end: Lsn(end), epoch, payload }));
        at = next;
    }
    let is_whole = end == object.end && frames.len() == object.frames as usize;
    if is_whole { Ok(frames) } else { Err(NotAHeader::Invalid) }
}

/// The part of the uuid that frames carry.
pub(super) fn seed(uuid: &[u8; 16]) -> Seed {
    let mut seed = Seed::default();
    seed.copy_from_slice(&uuid[..12]);
    seed
}

#[async_trait]
impl Recovery for ObjectRecovery {
    fn id(&self) -> VolumeId {
        self.base.volume.id
    }

    fn epoch(&self) -> VolumeEpoch {
        self.base.epoch
    }

    fn trim(&self) -> Lsn {
        Lsn(self.last.trim.lsn)
    }

    fn hint(&self) -> u64 {
        self.last.trim.hint
    }

    async fn next(&mut self) -> Result<Option<RecoveredFrame>, RecoveryError> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(Some(frame));
            }
            let Some((epoch, position, bytes)) = self.objects.next().await else { break };
            self.read(epoch, position, bytes).await?;
        }
        // The last object is always there, and says where the log ends.
        if self.end == Some(self.last.end) { Ok(None) } else { Err(self.corrupt()) }
    }

    async fn finish(mut self: Box<Self>) -> Result<Arc<dyn Volume>, RecoveryError> {
        while self.next().await?.is_some() {}
        let Self { base, last, leftovers, mut kept, .. } = *self;
        // The epoch's first object, without frames: the next opener finds the log's state in it.
        let position = base.start;
        let trim = TrimState { position: last.trim.position.min(position), ..last.trim };
        let begin = Header {
            link: base.link(position),
            durable: position,
            first: last.end,
            end: last.end,
            trim,
            frames: 0,
            body_bytes: 0,
            frames_crc: crc32c(&[]),
        };
        let bytes = begin.encode();
        let payload = PutPayload::from(bytes.to_vec());
        match base.bucket.create(&base.at(position), &bytes, payload, |_| ()).await {
            Created::Won => {}
            Created::Lost(_) => return Err(RecoveryError::Fenced),
        }
        kept.push_back(Kept { epoch: base.epoch, position, end: last.end, frames: Vec::new() });
        Ok(Arc::new(ObjectLog::new(base, trim, last.end, kept, leftovers)))
    }
}
