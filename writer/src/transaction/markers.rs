//! Telling everyone who took part how a transaction ended.
//!
//! A prepared transaction's markers are written to all its streams and groups, again and again until
//! each is written or has nothing to be told; then the transaction is complete. One task does it for
//! each prepared transaction, and takes up at recovery what an earlier owner left.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream;
use sluice_model::{StreamId, TenantId};
use sluice_wire::Str;

use super::cell::Cell;
use super::shared::Shared;
use super::state::State;

/// Markers of one transaction that are being written at once.
const IN_FLIGHT: usize = 64;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Whose topics and groups.
    pub tenant: TenantId,
    /// The producer that wrote.
    pub producer_id: i64,
    /// The producer epoch of the marker: the producer's, or a newer one, which fences it.
    pub producer_epoch: i16,
    /// The leader epoch of the coordinator's log.
    pub coordinator_epoch: i32,
    /// Or aborted.
    pub commit: bool,
}

/// What became of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is durable, or there is nobody to be told any more.
    Yes,
    /// It is not known to be durable: tell again.
    NotYet,
}

/// Where markers go. Each call may be repeated with the same marker, and may be dropped at any await.
#[async_trait]
pub trait Markers: Send + Sync + 'static {
    /// Writes the marker to a stream. A stream of a deleted topic needs none.
    async fn tell_stream(&self, marker: Marker, stream: StreamId) -> Told;
    /// Makes the offsets that the transaction has committed to the group real, or drops them.
    async fn tell_group(&self, marker: Marker, group: &Str) -> Told;
}

/// Streams that other nodes own.
#[async_trait]
pub trait OtherOwners: Send + Sync + 'static {
    /// Writes the marker to a stream that is not this node's. A stream that has heard of a newer producer epoch needs
    /// none.
    async fn tell_stream(&self, marker: Marker, stream: StreamId) -> Told;
}

/// There are no other nodes: whoever is to own a stream later is told then.
#[derive(Clone, Copy, Debug)]
pub struct NoOtherOwners;

#[async_trait]
impl OtherOwners for NoOtherOwners {
    async fn tell_stream(&self, _marker: Marker, _stream: StreamId) -> Told {
        Told::NotYet
    }
}

enum Part {
    Stream(StreamId),
    Group(Str),
}

/// Completes a prepared transaction. Ends early only with the coordinator.
pub(crate) async fn complete(shared: Weak<Shared>, cell: Arc<Cell>) {
    let Some((marker, mut left)) = prepared(&shared, &cell) else { return };
    let mut is_told = false;
    while !left.is_empty() {
        let Some((sink, backoff)) = shared.upgrade().and_then(|shared| shared.markers()) else {
            return;
        };
        let tell = |part: Part| async {
            let told = match &part {
                Part::Stream(stream) => sink.tell_stream(marker, *stream).await,
                Part::Group(group) => sink.tell_group(marker, group).await,
            };
            (told == Told::NotYet).then_some(part)
        };
        let untold = stream::iter(left).map(tell).buffer_unordered(IN_FLIGHT);
        left = untold.filter_map(std::future::ready).collect().await;
        if left.is_empty() {
            break;
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(left = left.len(), "markers of a transaction wait; trying again");
        }
        tokio::time::sleep(backoff).await;
    }
    if let Some(shared) = shared.upgrade() {
        shared.completed(&cell);
    }
}

/// The marker of the transaction that the cell has prepared, and who has to be told.
fn prepared(shared: &Weak<Shared>, cell: &Cell) -> Option<(Marker, Vec<Part>)> {
    let coordinator_epoch = shared.upgrade()?.coordinator_epoch();
    let state = cell.lock();
    let transaction = state.machine.durable().filter(|durable| durable.state.is_prepared())?;
    let marker = Marker {
        tenant: cell.tenant,
        producer_id: transaction.producer_id,
        producer_epoch: transaction.epoch,
        coordinator_epoch,
        commit: transaction.state == State::PrepareCommit,
    };
    let streams = transaction.streams.iter().copied().map(Part::Stream);
    let groups: &BTreeSet<Str> = &transaction.groups;
    Some((marker, streams.chain(groups.iter().cloned().map(Part::Group)).collect()))
}
