//! What the transaction coordinator needs of its writer: producer ids, and someone who writes markers.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use sluice_catalog::Catalog;
use sluice_model::StreamId;
use sluice_wire::{ErrorCode, Str};

use super::{Inner, Writer};
use crate::error::AppendError;
use crate::group::GroupCoordinator;
use crate::sequence::SequenceError;
use crate::transaction::{Marker, Markers, ProducerIds, Told};

/// Producer ids of the cluster.
pub(crate) struct CatalogProducerIds(pub(crate) Catalog);

#[async_trait]
impl ProducerIds for CatalogProducerIds {
    async fn next(&self) -> Result<i64, ErrorCode> {
        self.0.next_producer_id().await.map_err(|error| {
            tracing::warn!(%error, "no producer id could be allocated");
            ErrorCode::CoordinatorNotAvailable
        })
    }
}

/// Writes markers to the writer's streams, and to the groups beside the coordinator, as long as there are any.
pub(crate) struct WriterMarkers {
    inner: Weak<Inner>,
    groups: Weak<GroupCoordinator>,
}

impl WriterMarkers {
    pub(crate) fn new(inner: &Arc<Inner>, groups: &Arc<GroupCoordinator>) -> Self {
        Self { inner: Arc::downgrade(inner), groups: Arc::downgrade(groups) }
    }
}

#[async_trait]
impl Markers for WriterMarkers {
    async fn tell_stream(&self, marker: Marker, stream: StreamId) -> Told {
        let Some(inner) = self.inner.upgrade() else { return Told::NotYet };
        let writer = Writer { inner };
        let Marker { producer_id, producer_epoch, coordinator_epoch, commit, .. } = marker;
        let written =
            writer.end_transaction(stream, producer_id, producer_epoch, coordinator_epoch, commit);
        match written.await {
            Ok(()) => Told::Yes,
            // Its topic was deleted, and the transaction's records with it.
            Err(AppendError::NotOwner) if !writer.exists(stream) => Told::Yes,
            Err(AppendError::NotOwner) => {
                writer.inner.other_owners.tell_stream(marker, stream).await
            }
            // A newer epoch has written there, which only a coordinator hands out that has ended this
            // transaction.
            Err(AppendError::Sequence(SequenceError::ProducerFenced)) => Told::Yes,
            Err(AppendError::TimedOut) => Told::NotYet,
            Err(error @ (AppendError::Sequence(_) | AppendError::Invalid { .. })) => {
                tracing::warn!(%stream, producer_id, %error, "a marker was refused");
                Told::NotYet
            }
        }
    }

    async fn tell_group(&self, marker: Marker, group: &Str) -> Told {
        let Some(groups) = self.groups.upgrade() else { return Told::NotYet };
        let Marker { tenant, producer_id, producer_epoch, commit, .. } = marker;
        let told = groups.end_transaction(tenant, group, producer_id, producer_epoch, commit);
        match told.await {
            Ok(()) => Told::Yes,
            Err(error) => {
                tracing::debug!(producer_id, %error, "a group was not told of a transaction's end");
                Told::NotYet
            }
        }
    }
}

impl Writer {
    fn exists(&self, stream: StreamId) -> bool {
        let topic = self.inner.around.catalog.topic_of_any_tenant(stream.topic);
        topic.is_some_and(|topic| (stream.partition as usize) < topic.partitions.len())
    }
}
