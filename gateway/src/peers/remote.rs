//! What a writer asks other writers: whether a transaction may write here, and that one ends there.

use std::collections::BTreeSet;

use sluice_model::{StreamId, TenantId};
use sluice_wire::ErrorCode;

use super::pool::{Owner, Peers};
use crate::backend::{
    Caller, EndMarker, OffsetFound, OffsetQuery, Producer, ReadAnswer, ReadRequest,
};

impl Peers {
    /// Asks the coordinator of transactions, which is on another node, to add streams that a producer writes to.
    ///
    /// # Errors
    /// The coordinator's codes; COORDINATOR_NOT_AVAILABLE if it cannot be asked.
    pub async fn add_streams(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: &BTreeSet<StreamId>,
    ) -> Result<(), ErrorCode> {
        let failed = self.ask_coordinator(caller, producer, streams, false).await?;
        failed.first().map_or(Ok(()), |(_, code)| Err(*code))
    }

    /// Asks the coordinator of transactions, which is on another node, which of the streams were not added.
    ///
    /// # Errors
    /// As [`Self::add_streams`].
    pub async fn not_added(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: &BTreeSet<StreamId>,
    ) -> Result<BTreeSet<StreamId>, ErrorCode> {
        let failed = self.ask_coordinator(caller, producer, streams, true).await?;
        match failed.iter().find(|(_, code)| *code != ErrorCode::TransactionAbortable) {
            Some((_, code)) => Err(*code),
            None => Ok(failed.into_iter().map(|(stream, _)| stream).collect()),
        }
    }

    async fn ask_coordinator(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: &BTreeSet<StreamId>,
        verify_only: bool,
    ) -> Result<Vec<(StreamId, ErrorCode)>, ErrorCode> {
        let node = self.coordinator_elsewhere().ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let streams: Vec<StreamId> = streams.iter().copied().collect();
        self.add_partitions(node, caller, producer, &streams, verify_only).await
    }

    /// Reads one stream at the node that owns it.
    ///
    /// # Errors
    /// As `Backend::read`, for each of the reads; NOT_LEADER_OR_FOLLOWER if no other node owns the stream.
    pub async fn read_at_owner(
        &self,
        caller: &Caller,
        stream: StreamId,
        request: &ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        match self.owner_of(stream) {
            Owner::Node(node) => self.read(node, caller, request).await,
            Owner::Here | Owner::Nobody => {
                vec![Err(ErrorCode::NotLeaderOrFollower); request.reads.len()]
            }
        }
    }

    /// Finds an offset at the node that owns the stream.
    ///
    /// # Errors
    /// As `Backend::find_offset`; NOT_LEADER_OR_FOLLOWER if no other node owns the stream.
    pub async fn find_offset_at_owner(
        &self,
        caller: &Caller,
        stream: StreamId,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode> {
        match self.owner_of(stream) {
            Owner::Node(node) => self.find_offset(node, caller, stream, None, false, query).await,
            Owner::Here | Owner::Nobody => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Ends a transaction in a stream of another node.
    ///
    /// # Errors
    /// As `TransactionLog::end_in_stream`; NOT_LEADER_OR_FOLLOWER if nobody who could be reached owns the stream.
    pub async fn end_in_stream(
        &self,
        tenant: TenantId,
        stream: StreamId,
        marker: EndMarker,
    ) -> Result<(), ErrorCode> {
        match self.owner_of(stream) {
            Owner::Node(node) => {
                self.write_marker(node, &Self::own_caller(tenant), stream, marker).await
            }
            Owner::Here | Owner::Nobody => Err(ErrorCode::NotLeaderOrFollower),
        }
    }
}
