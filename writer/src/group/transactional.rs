//! Offsets that are committed by a transaction: they wait until it ends.

use std::sync::Arc;

use sluice_model::{TenantId, TopicId};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cell::{Cell, CellState};
use super::commits::{Durable, RECORD_BYTES, wait};
use super::journal::{Done, Write};
use super::log::{LogError, LogRecord};
use super::record::Key;
use super::record::offset::Committed;
use super::record::pending::{PendingOffset, TransactionEnd};
use super::{GroupCaller, GroupCoordinator};

/// So often the transaction's coordinator is asked when transactions end meanwhile.
const ASKED_AT_MOST: usize = 4;

/// TxnOffsetCommit, by topic id.
#[derive(Clone, Debug)]
pub struct TransactionalCommit {
    /// The group.
    pub group_id: Str,
    /// Whose transaction.
    pub producer_id: i64,
    /// Its producer epoch.
    pub producer_epoch: i16,
    /// The member's generation or epoch; -1 from clients that do not tell.
    pub generation_id: i32,
    /// The member; empty for none.
    pub member_id: Str,
    /// Its instance id.
    pub group_instance_id: Option<Str>,
    /// What is committed.
    pub offsets: Vec<TransactionalOffset>,
}

/// One offset of a [`TransactionalCommit`].
#[derive(Clone, Debug)]
pub struct TransactionalOffset {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The leader epoch of the last record consumed; -1 for none.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: Option<Str>,
}

impl GroupCoordinator {
    /// Makes offsets wait for the end of a transaction: one code for each, or one for all. Answers when
    /// that is durable.
    ///
    /// `vouch` asks the transaction's coordinator whether the group is part of the producer's open
    /// transaction. It is asked when the producer has no offset waiting here, and again if a transaction
    /// ends meanwhile.
    pub async fn commit_transactional<V, W>(
        &self,
        caller: &GroupCaller,
        commit: &TransactionalCommit,
        vouch: V,
    ) -> Result<Vec<ErrorCode>, ErrorCode>
    where
        V: Fn() -> W + Send + Sync,
        W: Future<Output = Result<(), ErrorCode>> + Send,
    {
        let timeout = self.shared.config.commit_timeout;
        let commit = self.commit_vouched(caller, commit, vouch);
        tokio::time::timeout(timeout, commit)
            .await
            .unwrap_or_else(|_| Err(LogError::Unavailable.code()))
    }

    async fn commit_vouched<V, W>(
        &self,
        caller: &GroupCaller,
        commit: &TransactionalCommit,
        vouch: V,
    ) -> Result<Vec<ErrorCode>, ErrorCode>
    where
        V: Fn() -> W,
        W: Future<Output = Result<(), ErrorCode>>,
    {
        let shared = &self.shared;
        shared.check_active()?;
        let TransactionalCommit { group_id, producer_id, producer_epoch, .. } = commit;
        if group_id.is_empty() || group_id.len() > shared.config.max_group_id_bytes {
            return Err(ErrorCode::InvalidGroupId);
        }
        let journal = shared.journal().map_err(LogError::code)?;
        let mut room = Some(journal.room(size_of(commit)).await.map_err(LogError::code)?);
        for _ in 0..ASKED_AT_MOST {
            let voucher = shared.vouchers.ask(caller.tenant, group_id, *producer_id);
            let known = shared.with_group(caller.tenant, group_id, |_, state| {
                state.offsets.pending().epoch_of(*producer_id)
            });
            match known.flatten() {
                Some(newer) if newer > *producer_epoch => {
                    return Err(ErrorCode::InvalidProducerEpoch);
                }
                Some(same) if same == *producer_epoch => {}
                _ => vouch().await?,
            }
            let decide = |cell: &Arc<Cell>, state: &mut CellState| {
                // Looked at under the group's lock, so that an end that comes after finds the offsets.
                if !voucher.holds() {
                    return Ok(None);
                }
                self.make_pending(cell, state, commit, room.take()).map(Some)
            };
            let decided = if commit.generation_id < 0 {
                let limit = shared.config.max_groups_per_tenant;
                shared
                    .with_group_or_new(caller.tenant, group_id, limit, decide)
                    .unwrap_or(Err(ErrorCode::PolicyViolation))?
            } else {
                shared
                    .with_group(caller.tenant, group_id, decide)
                    .unwrap_or(Err(ErrorCode::IllegalGeneration))?
            };
            let Some((codes, durable)) = decided else { continue };
            if let Some(durable) = durable {
                wait(durable).await.map_err(LogError::code)?;
            }
            return Ok(codes);
        }
        Err(ErrorCode::CoordinatorNotAvailable)
    }

    fn make_pending(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        commit: &TransactionalCommit,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(Vec<ErrorCode>, Option<Durable>), ErrorCode> {
        let shared = &self.shared;
        let instance = commit.group_instance_id.as_deref();
        state.check_settled()?;
        let mut partitions = commit.offsets.iter().map(|offset| (offset.topic, offset.partition));
        state.kind.check_transactional_commit(
            &commit.member_id,
            instance,
            commit.generation_id,
            &mut partitions,
        )?;
        let committed_ms = shared.clock.wall_ms();
        let order = shared.order();
        let mut records = Vec::new();
        let mut codes = Vec::with_capacity(commit.offsets.len());
        for offset in &commit.offsets {
            let metadata = offset.metadata.as_deref().unwrap_or("");
            let held = state.offsets.len() + records.len();
            codes.push(if self.is_metadata_too_large(metadata) {
                ErrorCode::OffsetMetadataTooLarge
            } else if held >= shared.config.max_offsets_per_group
                && state.offsets.get(offset.topic, offset.partition).is_none()
            {
                ErrorCode::InvalidCommitOffsetSize
            } else {
                let key = Key::Pending {
                    tenant: cell.tenant(),
                    group: cell.id(),
                    producer_id: commit.producer_id,
                    topic: offset.topic,
                    partition: offset.partition,
                };
                let value = PendingOffset {
                    producer_epoch: commit.producer_epoch,
                    superseded: false,
                    order,
                    offset: Committed {
                        offset: offset.offset,
                        leader_epoch: offset.leader_epoch,
                        committed_ms,
                        expires_ms: -1,
                        metadata: Box::from(metadata),
                    },
                };
                records.push(LogRecord { key: key.encode(), value: Some(value.encode()) });
                ErrorCode::None
            });
        }
        if records.is_empty() {
            return Ok((codes, None));
        }
        let (done, durable) = oneshot::channel();
        let write = Write { cell: Some(Arc::clone(cell)), records, done: Done::Caller(done), room };
        shared.queue(state, write).map_err(|(_, error)| error.code())?;
        Ok((codes, Some(durable)))
    }

    /// The producer's transaction is decided: its offsets in the group are committed, or forgotten.
    /// Durable when it returns. May be repeated; a group that has none of its offsets is left as it is.
    pub async fn end_transaction(
        &self,
        tenant: TenantId,
        group_id: &Str,
        producer_id: i64,
        producer_epoch: i16,
        commit: bool,
    ) -> Result<(), LogError> {
        let shared = &self.shared;
        let journal = shared.journal()?;
        let room = journal.room(RECORD_BYTES + group_id.len()).await?;
        // Before the group is looked at: a commit that has its word from before will not take it.
        shared.vouchers.void(tenant, group_id, producer_id);
        let queued = shared.with_group(tenant, group_id, |cell, state| {
            // What is queued may be offsets of this transaction.
            if state.pending == 0 && state.offsets.pending().epoch_of(producer_id).is_none() {
                return Ok(None);
            }
            let key = Key::TransactionEnd { tenant, group: group_id, producer_id }.encode();
            let value = TransactionEnd { producer_epoch, commit }.encode();
            let (done, durable) = oneshot::channel();
            let write = Write {
                cell: Some(Arc::clone(cell)),
                records: vec![LogRecord { key, value: Some(value) }],
                done: Done::Caller(done),
                room: Some(room),
            };
            shared.queue(state, write).map_err(|(_, error)| error)?;
            Ok(Some(durable))
        });
        match queued.transpose()?.flatten() {
            Some(durable) => wait(durable).await,
            None => Ok(()),
        }
    }
}

/// About the bytes that the records of a commit take.
fn size_of(commit: &TransactionalCommit) -> usize {
    let offsets = commit.offsets.iter().map(|offset| {
        let metadata = offset.metadata.as_ref().map_or(0, |text| text.len());
        RECORD_BYTES + commit.group_id.len() + metadata
    });
    offsets.sum()
}
