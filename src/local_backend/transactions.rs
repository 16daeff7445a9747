//! Transactions in a process that is writer and coordinator at once, and who may write to them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use async_trait::async_trait;
use futures_util::future::join_all;
use sluice_gateway::backend::{
    AddedBy, AppendRequest, Appended, Caller, NotAdded, Producer, ProducerIdentity, Refused,
    TransactionDescription, Transactions,
};
use sluice_gateway::peers::Peers;
use sluice_model::StreamId;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::list_transactions_request::ListTransactionsRequest;
use sluice_wire::messages::list_transactions_response::{
    ListTransactionsResponse, TransactionState,
};
use sluice_wire::{ErrorCode, Str};
use sluice_writer::transaction::{Claim, Listing, Participants};
use sluice_writer::{AppendError, Unverified};

use super::LocalBackend;

pub(super) fn claim<'a>(caller: &Caller, producer: &'a Producer) -> Claim<'a> {
    Claim {
        tenant: caller.tenant,
        transactional_id: &producer.transactional_id,
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch,
    }
}

fn of_streams(streams: BTreeSet<StreamId>) -> Participants {
    Participants { streams, ..Participants::default() }
}

/// The code that a producer gets for a batch for which the coordinator did not vouch, as Kafka maps it:
/// clients know what to do with these in an answer to Produce.
fn of_produce(code: ErrorCode, not_added: NotAdded) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        // Retried without new metadata, by clients of every age.
        ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorCode::ConcurrentTransactions if not_added != NotAdded::Adds => {
            ErrorCode::NotEnoughReplicas
        }
        other => other,
    }
}

impl LocalBackend {
    /// Appends batches of which some may belong to transactions. The coordinator is asked only about
    /// those that would begin a transaction in their stream.
    pub(super) async fn append_in_transaction(
        &self,
        caller: &Caller,
        request: &AppendRequest,
        transactional_id: &Str,
    ) -> Vec<Result<Appended, Refused>> {
        // Requests that follow wait for this one until it is handed over, and it for those before it: a batch
        // that needs nobody's word must not overtake one that waits for it, or goes with such a one.
        let turn = match self.coordinator_elsewhere() {
            Some(_) => Some(self.gates.turn(caller.tenant, transactional_id).await),
            None => self.writer.transactions().turn(caller.tenant, transactional_id).await,
        };
        let adds = request.not_added == NotAdded::Adds;
        let mut elsewhere = BTreeSet::new();
        let vouchers = request.appends.iter().map(|append| {
            let voucher = self.writer.unverified(append.stream, &append.records, adds);
            voucher.unwrap_or_else(|_| {
                elsewhere.insert(append.stream);
                None
            })
        });
        let mut vouchers: Vec<Option<Unverified>> = vouchers.collect();
        let refused = if vouchers.iter().all(Option::is_none) {
            BTreeMap::new()
        } else {
            self.unvouched(caller, request, transactional_id, &vouchers).await
        };
        let appended = request.appends.iter().zip(&mut vouchers).map(|(append, voucher)| {
            let (voucher, code) = (voucher.take(), refused.get(&append.stream).copied());
            let is_elsewhere = elsewhere.contains(&append.stream);
            async move {
                match (voucher, code) {
                    // Nor if it is here by now: nobody was asked.
                    (None, _) if is_elsewhere => {
                        self.appended(append.stream, Err(AppendError::NotOwner))
                    }
                    (Some(_), Some(code)) => Err(Self::unadded(code)),
                    (Some(voucher), None) => self.append_vouched(append, request, voucher).await,
                    (None, _) => self.append_one(append, request).await,
                }
            }
        });
        let mut appended = pin!(join_all(appended));
        // Polled once, all are handed over.
        let handed_over = poll_fn(|cx| Poll::Ready(appended.as_mut().poll(cx))).await;
        drop(turn);
        match handed_over {
            Poll::Ready(answers) => answers,
            Poll::Pending => appended.await,
        }
    }

    /// The streams into which batches may not go, with the code for each.
    async fn unvouched(
        &self,
        caller: &Caller,
        request: &AppendRequest,
        transactional_id: &Str,
        vouchers: &[Option<Unverified>],
    ) -> BTreeMap<StreamId, ErrorCode> {
        let asked = request.appends.iter().zip(vouchers);
        let asked = asked.filter_map(|(append, voucher)| Some((append.stream, voucher.as_ref()?)));
        let streams: BTreeSet<StreamId> = asked.clone().map(|(stream, _)| stream).collect();
        let all = |code: ErrorCode| {
            let code = of_produce(code, request.not_added);
            streams.iter().map(|stream| (*stream, code)).collect()
        };
        let producers: BTreeSet<(i64, i16)> =
            asked.map(|(_, voucher)| (voucher.producer_id, voucher.producer_epoch)).collect();
        let (producer_id, producer_epoch) = match producers.first() {
            Some(producer) if producers.len() == 1 => *producer,
            _ => return all(ErrorCode::InvalidProducerIdMapping),
        };
        let transactional_id = transactional_id.clone();
        let producer = Producer { transactional_id, producer_id, producer_epoch };
        let missing = match request.not_added {
            NotAdded::Adds => self.add_written(caller, &producer, &streams).await.map(|()| None),
            NotAdded::Invalid => {
                let missing = self.missing(caller, &producer, &streams).await;
                missing.map(|missing| Some((missing, ErrorCode::InvalidTxnState)))
            }
            NotAdded::Abortable => {
                let missing = self.missing(caller, &producer, &streams).await;
                missing.map(|missing| Some((missing, ErrorCode::TransactionAbortable)))
            }
        };
        match missing {
            Ok(None) => BTreeMap::new(),
            Ok(Some((missing, code))) => missing.into_iter().map(|stream| (stream, code)).collect(),
            Err(code) => all(code),
        }
    }

    /// The other nodes, if the coordinator of transactions is on one of them.
    fn coordinator_elsewhere(&self) -> Option<&Peers> {
        self.peers.as_deref().filter(|peers| peers.coordinator_elsewhere().is_some())
    }

    /// Has the coordinator add streams that a producer writes to.
    async fn add_written(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: &BTreeSet<StreamId>,
    ) -> Result<(), ErrorCode> {
        if let Some(peers) = self.coordinator_elsewhere() {
            return peers.add_streams(caller, producer, streams).await;
        }
        let coordinator = self.writer.transactions();
        coordinator.add(claim(caller, producer), of_streams(streams.clone()), true).await
    }

    /// Asks the coordinator which streams were not added.
    async fn missing(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: &BTreeSet<StreamId>,
    ) -> Result<BTreeSet<StreamId>, ErrorCode> {
        if let Some(peers) = self.coordinator_elsewhere() {
            return peers.not_added(caller, producer, streams).await;
        }
        let coordinator = self.writer.transactions();
        let participants = of_streams(streams.clone());
        Ok(coordinator.missing(claim(caller, producer), &participants).await?.streams)
    }

    fn unadded(code: ErrorCode) -> Refused {
        let message = match code {
            ErrorCode::InvalidTxnState | ErrorCode::TransactionAbortable => {
                "the partition was not added to the transaction".to_owned()
            }
            other => other.message().to_owned(),
        };
        Refused {
            code,
            message: Some(message),
            record_errors: Vec::new(),
            // Said before anybody looks at the log, as in Kafka.
            log_start: -1,
        }
    }
}

#[async_trait]
impl Transactions for LocalBackend {
    async fn init_producer_id(
        &self,
        caller: &Caller,
        request: InitProducerIdRequest,
    ) -> Result<ProducerIdentity, ErrorCode> {
        let coordinator = self.writer.transactions();
        let Some(id) = request.transactional_id else {
            let producer_id = coordinator.new_producer(caller.tenant).await?;
            return Ok(ProducerIdentity { producer_id, producer_epoch: 0 });
        };
        let was = (request.producer_id, request.producer_epoch);
        let was = (was != (-1, -1)).then_some(was);
        let given =
            coordinator.init_producer(caller.tenant, &id, request.transaction_timeout_ms, was);
        let (producer_id, producer_epoch) = given.await?;
        Ok(ProducerIdentity { producer_id, producer_epoch })
    }

    async fn add_streams(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
        by: AddedBy,
    ) -> Result<(), ErrorCode> {
        let coordinator = self.writer.transactions();
        let at_write = by == AddedBy::Write;
        coordinator.add(claim(caller, producer), of_streams(streams), at_write).await
    }

    async fn not_added(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
    ) -> Result<BTreeSet<StreamId>, ErrorCode> {
        let coordinator = self.writer.transactions();
        let missing = coordinator.missing(claim(caller, producer), &of_streams(streams)).await?;
        Ok(missing.streams)
    }

    async fn add_group(
        &self,
        caller: &Caller,
        producer: &Producer,
        group_id: Str,
    ) -> Result<(), ErrorCode> {
        let groups = Participants { groups: [group_id].into(), ..Participants::default() };
        self.writer.transactions().add(claim(caller, producer), groups, false).await
    }

    async fn end_transaction(
        &self,
        caller: &Caller,
        producer: &Producer,
        commit: bool,
        bumps_epoch: bool,
    ) -> Result<Option<ProducerIdentity>, ErrorCode> {
        let coordinator = self.writer.transactions();
        let next = coordinator.end(claim(caller, producer), commit, bumps_epoch).await?;
        Ok(next
            .map(|(producer_id, producer_epoch)| ProducerIdentity { producer_id, producer_epoch }))
    }

    async fn describe_transaction(
        &self,
        caller: &Caller,
        transactional_id: &Str,
    ) -> Result<TransactionDescription, ErrorCode> {
        let found = self.writer.transactions().describe(caller.tenant, transactional_id)?;
        let (producer_id, producer_epoch) = (found.producer_id, found.producer_epoch);
        Ok(TransactionDescription {
            state: Str::from_static(found.state),
            timeout_ms: found.timeout_ms,
            started_ms: found.started_ms,
            producer: ProducerIdentity { producer_id, producer_epoch },
            streams: found.streams,
        })
    }

    async fn list_transactions(
        &self,
        caller: &Caller,
        request: ListTransactionsRequest,
    ) -> ListTransactionsResponse {
        let wanted = Listing {
            states: request.state_filters,
            producer_ids: request.producer_id_filters,
            longer_than_ms: request.duration_filter,
            pattern: request.transactional_id_pattern,
        };
        match self.writer.transactions().list(caller.tenant, &wanted) {
            Ok((found, unknown)) => ListTransactionsResponse {
                unknown_state_filters: unknown,
                transaction_states: found
                    .into_iter()
                    .map(|found| TransactionState {
                        transactional_id: found.transactional_id,
                        producer_id: found.producer_id,
                        transaction_state: Str::from_static(found.state),
                    })
                    .collect(),
                ..Default::default()
            },
            Err(code) => ListTransactionsResponse { error_code: code.code(), ..Default::default() },
        }
    }
}
