//! Share groups' records (KIP-932): which records of a stream a share group's members have, may have, or are
//! done with.
//!
//! [`Shares`] serves ShareFetch and ShareAcknowledge, and says and sets where groups stand. Each share
//! partition is a pure state machine ([`partition`]) in a cell with one lock ([`cell`]); one task lets go of
//! locks that have run out ([`crate::alarm`]), one writes states to the coordinator log ([`journal`]). Who the
//! members of a group are is the group coordinator's: as in Kafka, a member fetches under a session
//! ([`session`]), and what it acquired is its own for as long as the lock holds and the session lasts.
//!
//! What always holds:
//! - A record that the group may see is delivered until a member accepts or rejects it, or it was
//!   delivered as often as the group's limit says; to one member at a time.
//! - An acknowledgement is answered with success only when it is durable. After a crash, locks are gone and
//!   what was acknowledged is not delivered again.
//! - Durable state changes only in [`CoordinatorState::apply`], live and at recovery alike.
//! - Keys are (tenant, group, stream): no request sees a group or a stream of another tenant.
//!
//! It reads streams through [`ShareSource`] and knows nothing of volumes or the bucket.
//!
//! [`CoordinatorState::apply`]: crate::group::log::CoordinatorState::apply

mod acknowledge;
mod cell;
mod deliver;
mod fetch;
mod journal;
mod key;
mod metrics;
mod offsets;
mod partition;
mod session;
mod settings;
mod shared;
mod source;
mod spans;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::encoding::DescriptorEncoder;
use sluice_model::{GroupConfigs, StreamId, TenantId, TopicId};
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::acknowledge::settled;
use self::journal::Journal;
use self::metrics::ShareCensus;
use self::session::SessionKey;
use self::shared::Shared;
use crate::group::Topics;
use crate::group::log::{CoordinatorLog, CoordinatorState, LogError};
use crate::group::record::RecordError;

pub(crate) use self::key::SHARE_KINDS;
pub use self::metrics::ShareMetrics;
pub use self::offsets::Standing;
pub use self::session::ShareClient;
pub use self::settings::ShareLimits;
pub use self::shared::LeaderEpochOf;
pub use self::source::{ShareSource, SourceRead, Watching};

/// A member id is a uuid as text, or whatever else a client makes of so many bytes.
const MAX_MEMBER_ID_BYTES: usize = 36;

/// See the module. Made empty, filled by [`CoordinatorState::apply`], then [started](Self::start). Requests'
/// futures may be dropped at any await: what was queued for the log still becomes durable, and what
/// was acquired for a client that has gone is released when its lock runs out.
pub struct Shares {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Shares {
    /// Without share partitions, still loading.
    pub fn new(
        limits: ShareLimits,
        topics: Arc<dyn Topics>,
        configs: Arc<dyn GroupConfigs>,
        leader_epoch: LeaderEpochOf,
        metrics: ShareMetrics,
    ) -> Self {
        let shared = Arc::new(Shared::new(limits, topics, configs, leader_epoch, metrics));
        Self { shared, tasks: Mutex::default() }
    }

    /// What there is now, for a collector; [`ShareMetrics`] has its own.
    pub(crate) fn encode_census(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        ShareCensus(&self.shared).encode(encoder)
    }

    /// Recovery is complete: requests are served. Needs a tokio runtime; call it once.
    pub fn start(&self, log: Arc<dyn CoordinatorLog>) {
        let (journal, writes) = Journal::new();
        self.shared.set_journal(Some(journal));
        // The journal's task is not aborted: it ends when the queue is empty.
        tokio::spawn(journal::run(writes, log, Arc::downgrade(&self.shared)));
        let alarms = Arc::clone(&self.shared.alarms);
        let alarm = tokio::spawn(crate::alarm::run(alarms, Arc::downgrade(&self.shared)));
        self.tasks.lock().push(alarm.abort_handle());
    }

    /// The volume has gone to another owner, or the process ends: refuses what comes. What is queued is
    /// still appended.
    pub fn close(&self) {
        self.shared.set_journal(None);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        for cell in self.shared.cells(None) {
            cell.lock().wake_watchers();
        }
    }

    /// A member has left its group or was fenced: its session ends, and what it has is released.
    pub fn member_left(&self, tenant: TenantId, group: &Str, member: &Str) {
        let key = SessionKey { group: group.clone(), member: member.clone() };
        self.end_session(tenant, &key);
    }

    /// A connection has ended: so do the sessions that began on it, and what their members have is released.
    pub fn connection_lost(&self, client: ShareClient) {
        let of = self.shared.tenant(client.tenant);
        let lost = of.sessions.lock().of_connection(client.connection);
        for key in lost {
            self.shared.metrics.sessions_lost.inc();
            self.end_session(client.tenant, &key);
        }
    }

    fn end_session(&self, tenant: TenantId, key: &SessionKey) {
        let ended = self.shared.tenant(tenant).sessions.lock().end(key);
        if let Some(streams) = ended {
            // Nobody waits for it: if it cannot be made durable, the locks run out.
            drop(self.release(tenant, key, &streams));
        }
    }

    /// A topic was deleted: share groups forget what they have of it. Safe to call again.
    pub async fn forget_topic(&self, tenant: TenantId, topic: TopicId) -> Result<(), LogError> {
        for cell in self.shared.cells(Some(tenant)) {
            if cell.key.stream.topic == topic {
                self.forget(&cell).await?;
            }
        }
        Ok(())
    }

    /// The stream of a partition, if the topic is the tenant's.
    fn stream(&self, tenant: TenantId, topic: Uuid, partition: i32) -> Result<StreamId, ErrorCode> {
        let topic = TopicId(topic.0);
        let topics = &self.shared.topics;
        let name = topics.name(tenant, topic).filter(|_| !topic.is_internal());
        let name = name.ok_or(ErrorCode::UnknownTopicId)?;
        let shape = topics.find(tenant, &name).filter(|shape| shape.id == topic);
        let shape = shape.ok_or(ErrorCode::UnknownTopicId)?;
        match u32::try_from(partition) {
            Ok(index) if partition < shape.partitions => Ok(StreamId { topic, partition: index }),
            _ => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    /// All that a member has of some streams is to be released. What is staged is queued when this returns; what
    /// it gives tells for each stream when that is durable.
    fn release(
        &self,
        tenant: TenantId,
        key: &SessionKey,
        streams: &[StreamId],
    ) -> Vec<acknowledge::Staged> {
        let mut staged = Vec::new();
        for stream in streams {
            let key_of = key::ShareKey { group: key.group.clone(), stream: *stream };
            let Some(cell) = self.shared.cell(tenant, &key_of) else { continue };
            let mut state = cell.lock();
            let rules = self.shared.rules(&cell);
            let Some(live) = &mut state.live else { continue };
            self.shared.metrics.timed_out.inc_by(live.expire(Instant::now(), &rules));
            if let Some(ticket) = live.release(&key.member, &rules) {
                let durable = self.shared.persist_and_tell(&cell, &mut state, ticket);
                staged.push(settled(durable));
            }
        }
        staged
    }

    async fn forget(&self, cell: &Arc<cell::Cell>) -> Result<(), LogError> {
        // Nobody loads it meanwhile.
        let _fetching = cell.fetching.lock().await;
        cell.lock().unload();
        self.shared.replace(cell, None).await
    }
}

impl CoordinatorState for Shares {
    fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        self.shared.apply(key, value)
    }

    fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        self.shared.snapshot(emit);
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}

/// What a member id or a group id must be at least.
fn check_ids(group: Option<&Str>, member: Option<&Str>) -> Result<(), (ErrorCode, &'static str)> {
    if group.is_none() {
        return Err((ErrorCode::InvalidRequest, "Invalid group id in the request."));
    }
    match member {
        Some(id) if !id.is_empty() && id.len() <= MAX_MEMBER_ID_BYTES => Ok(()),
        _ => Err((ErrorCode::InvalidRequest, "Invalid member id in the request.")),
    }
}
