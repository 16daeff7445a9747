//! Streams that are to be, or are being, moved to other volumes: what the owners of both volumes follow.
//!
//! ```text
//!              move_stream           publish_seal                   finish_move
//!   (no move) ────────────▶ wanted ────────────────▶ sealed ────────────────────▶ (no move), there
//!                             │       by the source    │       by the target
//!                             └────────────────────────┴─────────▶ (no move), where it was
//!                                           give_up_move
//! ```
//!
//! A move is one key beside the topic's. Each step is one transaction that expects the key as it was read, so
//! of a target that finishes and a source that gives up one succeeds. The topic's record names the
//! target from the transaction on that ends the move.

use std::sync::Arc;

use sluice_model::{StreamId, TenantId, TopicId, VolumeId};

use crate::catalog::Catalog;
use crate::layout::{self, MoveRecord, TopicRecord};
use crate::store::{Outcome, Revision, StoreError, Txn};

/// A stream that moves, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub stream: StreamId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The volume that it lies on.
    pub from: VolumeId,
    /// The volume that it goes to.
    pub to: VolumeId,
    /// The version of the source's manifest from which on it is sealed there; none before.
    pub sealed: Option<u64>,
}

impl Move {
    pub(crate) fn from_record(stream: StreamId, record: &MoveRecord) -> Self {
        let MoveRecord { tenant, from, to, sealed } = *record;
        Self { stream, tenant, from, to, sealed }
    }
}

/// Where the store says that a stream is, and whether it moves. Each is as of a moment of its own, the move
/// first.
#[derive(Debug)]
pub struct StreamPlace {
    /// The volume that it lies on; none if it does not exist (any more).
    pub volume: Option<VolumeId>,
    /// Its move.
    pub moving: Option<Move>,
    /// Another one after each step of a move, and for each move.
    pub moved: Revision,
    move_key: String,
    topic: Option<(String, TopicRecord, Revision)>,
}

/// Why a stream is not going to move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveStreamError {
    /// The tenant has no such partition.
    #[error("there is no such partition")]
    NotFound,
    /// There is no such volume.
    #[error("there is no volume {0}; choose one of those that the cluster has")]
    NoVolume(VolumeId),
    /// It is there already.
    #[error("the partition is on volume {0} already")]
    There(VolumeId),
    /// It moves to another volume.
    #[error("the partition is being moved to volume {0}; wait until it is there")]
    UnderWay(VolumeId),
    /// Retry: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

impl Catalog {
    /// Says that a stream is to move to a volume. The owners of both volumes see to it; it may be given up if one
    /// of them is not there. Follow [`crate::Change::MoveGone`], then look at the topic. To say the same again
    /// changes nothing.
    pub async fn move_stream(
        &self,
        tenant: TenantId,
        topic: TopicId,
        partition: u32,
        to: VolumeId,
    ) -> Result<Move, MoveStreamError> {
        if self.volume(to).is_none() {
            return Err(MoveStreamError::NoVolume(to));
        }
        if self.topic_by_id(tenant, topic).is_none() {
            return Err(MoveStreamError::NotFound);
        }
        let stream = StreamId { topic, partition };
        loop {
            let place = self.place_of(stream).await?;
            let from = place.volume.ok_or(MoveStreamError::NotFound)?;
            match place.moving {
                Some(under_way) if under_way.to == to => return Ok(under_way),
                Some(under_way) => return Err(MoveStreamError::UnderWay(under_way.to)),
                None if from == to => return Err(MoveStreamError::There(to)),
                None => {}
            }
            let record = MoveRecord { tenant, from, to, sealed: None };
            let Some((topic_key, _, since)) = &place.topic else {
                return Err(MoveStreamError::NotFound);
            };
            let txn = Txn::new()
                .if_unchanged(topic_key, *since)
                .if_absent(&place.move_key)
                .put(&place.move_key, layout::encode(&record));
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(Move::from_record(stream, &record));
            }
        }
    }

    /// The streams that move, by topic and partition.
    pub fn moves(&self) -> Vec<Arc<Move>> {
        self.inner.shared.view.read().moves().cloned().collect()
    }

    /// The leader epoch of a stream, whoever serves it; none if nobody ever has, or while it is sealed, when
    /// nobody does.
    pub fn leader_epoch(&self, stream: StreamId) -> Option<i32> {
        let view = self.inner.shared.view.read();
        if view.moving(stream).is_some_and(|moving| moving.sealed.is_some()) {
            return None;
        }
        let topic = view.topic_by_id(stream.topic)?;
        let volume = view.volume(*topic.partitions.get(stream.partition as usize)?)?;
        (volume.epoch.0 > 0).then(|| topic.leader_epoch(stream.partition, volume.epoch))
    }

    /// Where a stream is and whether it moves, as the store has it now, and not as lookups may still have it.
    pub async fn place_of(&self, stream: StreamId) -> Result<StreamPlace, StoreError> {
        let move_key = layout::stream_move(stream);
        // The move first: who finds none, and then the stream on its own volume, knows that no move took it away
        // unless its own volume has begun another.
        let moving = match self.inner.store.get(&move_key).await? {
            None => None,
            Some(entry) => {
                let record: MoveRecord = layout::decode(&move_key, &entry.value)?;
                Some((Move::from_record(stream, &record), entry.mod_revision))
            }
        };
        let of_view = self.topic_of_any_tenant(stream.topic).map(|topic| topic.tenant);
        let tenant = of_view.or_else(|| moving.map(|(moving, _)| moving.tenant));
        let topic = match tenant {
            Some(tenant) => self.stored_topic(tenant, stream.topic).await?,
            None => None,
        };
        let volume = topic
            .as_ref()
            .and_then(|(_, record, _)| record.partitions.get(stream.partition as usize).copied());
        let moved = moving.map_or_else(Revision::default, |(_, moved)| moved);
        Ok(StreamPlace { volume, moving: moving.map(|(moving, _)| moving), move_key, moved, topic })
    }

    /// The source says that the stream is sealed, and all of it in the bucket, from a version of its manifest
    /// on. False if the move has changed since it was looked at.
    pub async fn publish_seal(
        &self,
        place: &StreamPlace,
        version: u64,
    ) -> Result<bool, StoreError> {
        let Some(Move { tenant, from, to, .. }) = place.moving else { return Ok(false) };
        let record = MoveRecord { tenant, from, to, sealed: Some(version) };
        let txn = Txn::new()
            .if_unchanged(&place.move_key, place.moved)
            .put(&place.move_key, layout::encode(&record));
        Ok(matches!(self.commit(txn).await?, Outcome::Committed(_)))
    }

    /// The target has taken the stream in: it is there from now on, and its leader epoch is the volume's and
    /// `epoch_base`. False if the move or the topic has changed since it was looked at; look again.
    pub async fn finish_move(
        &self,
        place: &StreamPlace,
        epoch_base: i32,
    ) -> Result<bool, StoreError> {
        let (Some(moving), Some((topic_key, record, since))) = (place.moving, &place.topic) else {
            return Ok(false);
        };
        let mut record = record.clone();
        let Some(partition) = record.partitions.get_mut(moving.stream.partition as usize) else {
            return Ok(false);
        };
        *partition = moving.to;
        record.epoch_bases.insert(moving.stream.partition, epoch_base);
        let txn = Txn::new()
            .if_unchanged(&place.move_key, place.moved)
            .if_unchanged(topic_key, *since)
            .put(topic_key, layout::encode(&record))
            .delete(&place.move_key);
        Ok(matches!(self.commit(txn).await?, Outcome::Committed(_)))
    }

    /// The stream stays where it is. False if the move has changed since it was looked at: it may be finished.
    pub async fn give_up_move(&self, place: &StreamPlace) -> Result<bool, StoreError> {
        if place.moving.is_none() {
            return Ok(false);
        }
        let txn = Txn::new().if_unchanged(&place.move_key, place.moved).delete(&place.move_key);
        Ok(matches!(self.commit(txn).await?, Outcome::Committed(_)))
    }
}

#[cfg(test)]
mod tests;
