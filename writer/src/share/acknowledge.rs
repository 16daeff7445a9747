//! ShareAcknowledge, and the acknowledgements that a ShareFetch brings along.

use std::future::Future;
use std::pin::Pin;

use sluice_model::TenantId;
use sluice_wire::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use sluice_wire::messages::share_acknowledge_response::{
    PartitionData, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::key::ShareKey;
use super::partition::AckRange;
use super::session::{self, SessionKey};
use super::{Shares, check_ids};
use crate::group::log::LogError;

/// Tells when what was staged is durable, or why it is not.
pub(super) type Staged = Pin<Box<dyn Future<Output = Said> + Send>>;

/// What became of one partition's acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: ErrorCode,
    pub(super) message: Option<Str>,
}

impl Said {
    const DONE: Self = Self { code: ErrorCode::None, message: None };

    fn refused(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

/// One partition's acknowledgements as a request brings them.
pub(super) struct Acks {
    pub(super) topic: Uuid,
    pub(super) partition: i32,
    pub(super) ranges: Vec<AckRange>,
}

/// What a request may say, by its version and kind.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    /// Renewing came with version 2 (KIP-1222).
    pub(super) highest_type: i8,
    /// The request says that it renews.
    pub(super) renew: bool,
}

impl Allowed {
    pub(super) fn of(version: i16, is_renew_ack: bool) -> Self {
        let highest_type = if version >= 2 { RENEW } else { RENEW - 1 };
        Self { highest_type, renew: version >= 2 && is_renew_ack }
    }
}

const RENEW: i8 = 4;

/// Waits for the log.
pub(super) fn settled(
    durable: Result<oneshot::Receiver<Result<(), LogError>>, LogError>,
) -> Staged {
    Box::pin(async move {
        let result = match durable {
            Ok(durable) => durable.await.unwrap_or(Err(LogError::NotOwner)),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => Said::DONE,
            Err(error) => Said::refused(error.code()),
        }
    })
}

impl Shares {
    /// ShareAcknowledge, versions 1 and 2. Answers when what is said is durable.
    pub async fn acknowledge(
        &self,
        tenant: TenantId,
        version: i16,
        request: ShareAcknowledgeRequest,
    ) -> ShareAcknowledgeResponse {
        match self.acknowledge_checked(tenant, version, request).await {
            Ok(answer) => answer,
            Err((code, message)) => ShareAcknowledgeResponse {
                error_code: code.code(),
                error_message: Some(Str::from_static(message)),
                ..Default::default()
            },
        }
    }

    async fn acknowledge_checked(
        &self,
        tenant: TenantId,
        version: i16,
        request: ShareAcknowledgeRequest,
    ) -> Result<ShareAcknowledgeResponse, (ErrorCode, &'static str)> {
        let plain = |code: ErrorCode| (code, code.message());
        check_ids(request.group_id.as_ref(), request.member_id.as_ref())?;
        self.shared.check_active().map_err(plain)?;
        let group = request.group_id.unwrap_or_default();
        let member = request.member_id.unwrap_or_default();
        let key = SessionKey { group, member };
        let of = self.shared.tenant(tenant);
        let epoch = request.share_session_epoch;
        of.sessions.lock().acknowledge(&key, epoch, Instant::now()).map_err(plain)?;
        let allowed = Allowed::of(version, request.is_renew_ack);
        let mut answers = Vec::with_capacity(request.topics.len());
        let mut staged = Vec::new();
        for topic in request.topics {
            for partition in topic.partitions {
                let ranges = partition.acknowledgement_batches.into_iter().map(|batch| AckRange {
                    first: batch.first_offset,
                    last: batch.last_offset,
                    types: batch.acknowledge_types,
                });
                let ranges = ranges.collect();
                let partition = partition.partition_index;
                let acks = Acks { topic: topic.topic_id, partition, ranges };
                staged.push((acks.topic, partition, self.stage(tenant, &key, allowed, &acks)));
            }
        }
        let released = if epoch == session::FINAL {
            let streams = of.sessions.lock().end(&key).unwrap_or_default();
            self.release(tenant, &key, &streams)
        } else {
            Vec::new()
        };
        for (topic_id, partition_index, said) in staged {
            let said = said.await;
            let data = PartitionData {
                partition_index,
                error_code: said.code.code(),
                error_message: said.message,
                ..Default::default()
            };
            let topic = |answer: &&mut ShareAcknowledgeTopicResponse| answer.topic_id == topic_id;
            match answers.iter_mut().find(topic) {
                Some(answer) => answer.partitions.push(data),
                None => {
                    let partitions = vec![data];
                    answers.push(ShareAcknowledgeTopicResponse { topic_id, partitions });
                }
            }
        }
        for release in released {
            release.await;
        }
        let lock_ms = self.shared.settings_of(tenant, &key.group).record_lock_duration_ms;
        Ok(ShareAcknowledgeResponse {
            acquisition_lock_timeout_ms: lock_ms,
            responses: answers,
            ..Default::default()
        })
    }

    /// Stages one partition's acknowledgements: when this returns, they are in order with those of other
    /// requests.
    pub(super) fn stage(
        &self,
        tenant: TenantId,
        key: &SessionKey,
        allowed: Allowed,
        acks: &Acks,
    ) -> Staged {
        match self.try_stage(tenant, key, allowed, acks) {
            Ok(Some(staged)) => staged,
            Ok(None) => Box::pin(std::future::ready(Said::DONE)),
            Err(said) => Box::pin(std::future::ready(said)),
        }
    }

    fn try_stage(
        &self,
        tenant: TenantId,
        key: &SessionKey,
        allowed: Allowed,
        acks: &Acks,
    ) -> Result<Option<Staged>, Said> {
        check_shape(&acks.ranges, allowed).map_err(Said::refused)?;
        let stream = self.stream(tenant, acks.topic, acks.partition).map_err(Said::refused)?;
        if acks.ranges.is_empty() {
            return Ok(None);
        }
        let gone = || Said::refused(ErrorCode::UnknownTopicOrPartition);
        let key_of = ShareKey { group: key.group.clone(), stream };
        let cell = self.shared.cell(tenant, &key_of).ok_or_else(gone)?;
        let mut state = cell.lock();
        // A lock that has run out is not waited for: it is the alarm that is late, not the client.
        self.shared.expire(&cell, &mut state);
        let rules = self.shared.rules(&cell);
        let live = state.live.as_mut().ok_or_else(gone)?;
        let said = live.acknowledge(Instant::now(), &rules, &key.member, &acks.ranges);
        let ticket = said.map_err(|refusal| Said {
            code: refusal.code(),
            message: Some(Str::from(refusal.to_string())),
        })?;
        self.shared.metrics.acknowledged(&acks.ranges);
        self.shared.arm(&cell, &mut state);
        let Some(ticket) = ticket else { return Ok(None) };
        Ok(Some(settled(self.shared.persist_and_tell(&cell, &mut state, ticket))))
    }
}

/// Whether ranges are in order, and have types that the request may have.
fn check_shape(ranges: &[AckRange], allowed: Allowed) -> Result<(), ErrorCode> {
    let mut previous = -1;
    for range in ranges {
        let types = &range.types;
        let offsets = range.last.checked_sub(range.first).and_then(|count| count.checked_add(1));
        let in_order = range.first <= range.last && range.first >= previous;
        let one_each = i64::try_from(types.len()).ok() == offsets;
        let known = types.iter().all(|code| (0..=allowed.highest_type).contains(code));
        let renews = types.contains(&RENEW);
        let shaped = in_order && !types.is_empty() && (types.len() == 1 || one_each);
        if !shaped || !known || (renews && !allowed.renew) {
            return Err(ErrorCode::InvalidRequest);
        }
        previous = range.last;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked_before_anything_is_done() {
        let range = |first, last, types: &[i8]| AckRange { first, last, types: types.to_vec() };
        let check = |ranges: &[AckRange]| check_shape(ranges, Allowed::of(1, false));
        let bad = Err(ErrorCode::InvalidRequest);
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[range(0, 2, &[1]), range(3, 4, &[0, 3])]), Ok(()));
        assert_eq!(check(&[range(2, 1, &[1])]), bad);
        assert_eq!(check(&[range(i64::MIN, i64::MAX, &[1])]), bad);
        assert_eq!(check(&[range(3, 4, &[1]), range(0, 2, &[1])]), bad);
        assert_eq!(check(&[range(0, 2, &[])]), bad);
        assert_eq!(check(&[range(0, 2, &[1, 1])]), bad);
        assert_eq!(check(&[range(0, 2, &[4])]), bad);
        assert_eq!(check(&[range(0, 2, &[-1])]), bad);
        let renew = [range(0, 2, &[4])];
        assert_eq!(check_shape(&renew, Allowed::of(2, false)), bad);
        assert_eq!(check_shape(&renew, Allowed::of(1, true)), bad);
        assert_eq!(check_shape(&renew, Allowed::of(2, true)), Ok(()));
    }
}
