//! What the transaction coordinator needs of its writer: producer ids, and someone who writes markers.

use std::sync::Weak;

use async_trait::async_trait;
use sluice_catalog::Catalog;
use sluice_model::StreamId;
use sluice_wire::{ErrorCode, Str};

use super::{Inner, Writer};
use crate::error::AppendError;
use crate::sequence::SequenceError;
use crate::transaction::{Marker, Markers, ProducerIds, Told};

/// Producer ids of the cluster.
pub(super) struct CatalogProducerIds(pub(super) Catalog);

#[async_trait]
impl ProducerIds for CatalogProducerIds {
    async fn next(&self) -> Result<i64, ErrorCode> {
        self.0.next_producer_id().await.map_err(|error| {
            tracing::warn!(%error, "no producer id could be allocated");
            ErrorCode::CoordinatorNotAvailable
        })
    }
}

/// Writes markers to the writer's streams and groups, as long as there is a writer.
pub(super) struct WriterMarkers(pub(super) Weak<Inner>);

#[async_trait]
impl Markers for WriterMarkers {
    async fn tell_stream(&self, marker: Marker, stream: StreamId) -> Told {
        let Some(inner) = self.0.upgrade() else { return Told::NotYet };
        let writer = Writer { inner };
        let Marker { producer_id, producer_epoch, coordinator_epoch, commit, .. } = marker;
        let written =
            writer.end_transaction(stream, producer_id, producer_epoch, coordinator_epoch, commit);
        match written.await {
            Ok(()) => Told::Yes,
            // Its topic was deleted, and the transaction's records with it.
            Err(AppendError::NotOwner) if !writer.exists(stream) => Told::Yes,
            // A newer epoch has written there, which only a coordinator hands out that has ended this
            // transaction.
            Err(AppendError::Sequence(SequenceError::ProducerFenced)) => Told::Yes,
            Err(AppendError::NotOwner | AppendError::TimedOut) => Told::NotYet,
            Err(error @ (AppendError::Sequence(_) | AppendError::Invalid { .. })) => {
                tracing::warn!(%stream, producer_id, %error, "a marker was refused");
                Told::NotYet
            }
        }
    }

    async fn tell_group(&self, marker: Marker, group: &Str) -> Told {
        let Some(inner) = self.0.upgrade() else { return Told::NotYet };
        let Marker { tenant, producer_id, producer_epoch, commit, .. } = marker;
        let told = inner.groups.end_transaction(tenant, group, producer_id, producer_epoch, commit);
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
        let topic = self.inner.catalog.topic_of_any_tenant(stream.topic);
        topic.is_some_and(|topic| (stream.partition as usize) < topic.partitions.len())
    }
}
