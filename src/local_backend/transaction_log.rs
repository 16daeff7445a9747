//! [`TransactionLog`] in one process.

use async_trait::async_trait;
use sluice_gateway::backend::{
    ActiveProducer, Caller, EndMarker, NotAdded, OffsetsInTransaction, TransactionLog,
};
use sluice_model::StreamId;
use sluice_wire::ErrorCode;
use sluice_writer::group::{TransactionalCommit, TransactionalOffset};
use sluice_writer::transaction::Participants;

use super::transactions::claim;
use super::{LocalBackend, group_caller};

/// The code that a producer gets when the coordinator did not vouch, as Kafka maps it: clients know what to
/// do with these in an answer to TxnOffsetCommit.
fn of_commit(code: ErrorCode, not_added: NotAdded) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::NotCoordinator => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::ConcurrentTransactions if not_added != NotAdded::Adds => {
            ErrorCode::CoordinatorNotAvailable
        }
        other => other,
    }
}

impl LocalBackend {
    /// Whether the group is part of the producer's transaction, or becomes part of it.
    async fn vouch(&self, caller: &Caller, commit: &OffsetsInTransaction) -> Result<(), ErrorCode> {
        let coordinator = self.writer.transactions();
        let claim = claim(caller, &commit.producer);
        let groups = [commit.group_id.clone()].into();
        let participants = Participants { groups, ..Participants::default() };
        let code = match commit.not_added {
            NotAdded::Adds => return coordinator.add(claim, participants, true).await,
            NotAdded::Invalid => ErrorCode::InvalidTxnState,
            NotAdded::Abortable => ErrorCode::TransactionAbortable,
        };
        let missing = coordinator.missing(claim, &participants).await?;
        if missing.groups.is_empty() { Ok(()) } else { Err(code) }
    }
}

#[async_trait]
impl TransactionLog for LocalBackend {
    async fn active_producers(
        &self,
        _caller: &Caller,
        stream: StreamId,
    ) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let producers = self.writer.active_producers(stream).map_err(|error| error.code())?;
        let shown = producers.into_iter().map(|producer| ActiveProducer {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.open_since.unwrap_or(-1),
        });
        Ok(shown.collect())
    }

    async fn end_in_stream(&self, stream: StreamId, marker: EndMarker) -> Result<(), ErrorCode> {
        let EndMarker { producer_id, producer_epoch, coordinator_epoch, commit } = marker;
        let ended = self.writer.end_transaction(
            stream,
            producer_id,
            producer_epoch,
            coordinator_epoch,
            commit,
        );
        ended.await.map_err(|error| error.code())
    }

    async fn commit_in_transaction(
        &self,
        caller: &Caller,
        commit: OffsetsInTransaction,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let offsets = commit.offsets.iter().map(|offset| TransactionalOffset {
            topic: offset.topic,
            partition: offset.partition,
            offset: offset.offset,
            leader_epoch: offset.leader_epoch,
            metadata: offset.metadata.clone(),
        });
        let pending = TransactionalCommit {
            group_id: commit.group_id.clone(),
            producer_id: commit.producer.producer_id,
            producer_epoch: commit.producer.producer_epoch,
            generation_id: commit.generation_id,
            member_id: commit.member_id.clone(),
            group_instance_id: commit.group_instance_id.clone(),
            offsets: offsets.collect(),
        };
        let not_added = commit.not_added;
        let (group_caller, commit) = (group_caller(caller), &commit);
        let vouch = || async move {
            self.vouch(caller, commit).await.map_err(|code| of_commit(code, not_added))
        };
        self.writer.groups().commit_transactional(&group_caller, &pending, vouch).await
    }
}
