//! What groups and transactions are asked goes, as it came, to the node that has their coordinators, and its answer
//! back.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_model::NodeId;
use sluice_wire::{ApiKey, Chain, Decoder};

use super::link::Question;
use super::pool::{Manner, Peers, asker};
use crate::context::{Context, Origin};
use crate::dispatch::{Handler, Reply};
use crate::gateway::Core;

/// A request that another node answers.
pub(crate) struct Forward {
    core: Arc<Core>,
    peers: Arc<Peers>,
    to: NodeId,
    ctx: Context,
    correlation_id: i32,
    body: Bytes,
}

/// Whether the coordinators answer it, and nobody else.
const fn is_for_coordinators(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::JoinGroup
            | ApiKey::SyncGroup
            | ApiKey::Heartbeat
            | ApiKey::LeaveGroup
            | ApiKey::OffsetCommit
            | ApiKey::OffsetFetch
            | ApiKey::OffsetDelete
            | ApiKey::DescribeGroups
            | ApiKey::ListGroups
            | ApiKey::DeleteGroups
            | ApiKey::ConsumerGroupHeartbeat
            | ApiKey::ConsumerGroupDescribe
            | ApiKey::ShareGroupHeartbeat
            | ApiKey::ShareGroupDescribe
            | ApiKey::ShareFetch
            | ApiKey::ShareAcknowledge
            | ApiKey::DescribeShareGroupOffsets
            | ApiKey::AlterShareGroupOffsets
            | ApiKey::DeleteShareGroupOffsets
            | ApiKey::StreamsGroupHeartbeat
            | ApiKey::StreamsGroupDescribe
            | ApiKey::InitProducerId
            | ApiKey::AddPartitionsToTxn
            | ApiKey::AddOffsetsToTxn
            | ApiKey::EndTxn
            | ApiKey::TxnOffsetCommit
            | ApiKey::DescribeTransactions
            | ApiKey::ListTransactions
    )
}

impl Forward {
    /// The request in `ctx`, whose body is next in `decoder`, if another node is to answer it.
    pub(crate) fn of(
        core: &Arc<Core>,
        ctx: &Context,
        correlation_id: i32,
        decoder: &Decoder,
    ) -> Option<Self> {
        let peers = core.peers.as_ref().filter(|_| ctx.origin == Origin::Client)?;
        if !is_for_coordinators(ctx.api) {
            return None;
        }
        let to = peers.coordinator_elsewhere()?;
        if ctx.api == ApiKey::ShareFetch {
            ctx.connected.note_share_fetch();
        }
        Some(Self {
            core: Arc::clone(core),
            peers: Arc::clone(peers),
            to,
            ctx: ctx.clone(),
            correlation_id,
            body: decoder.rest(),
        })
    }

    /// The other node's answer. Without one `here` answers: the coordinators that are not here say so, and the client
    /// looks for them again.
    pub(crate) async fn or(self, here: Handler) -> Reply {
        let Some(answer) = self.ask().await else {
            // Owners may be changing: the client would ask in vain before they have.
            self.peers.changed(super::routing::SETTLE).await;
            return here.await;
        };
        // What it would have taken of the budget is free before the answer takes its part.
        drop(here);
        let lease = self.core.answer_budget.take_up_to(answer.len());
        let mut head = BytesMut::with_capacity(8);
        head.put_u32(answer.len() as u32);
        head.put_i32(self.correlation_id);
        let mut framed = Chain::from(head.freeze());
        framed.push(answer.slice(4..));
        // The code in the answer is counted where the answer was made.
        Reply { outcome: Ok(Some(framed)), error: 0, lease }
    }

    async fn ask(&self) -> Option<Bytes> {
        if self.peers.sends_away() {
            return None;
        }
        let link = self.peers.link(self.to, self.ctx.caller.connection)?;
        let manner = Manner { client_version: self.ctx.version, names_are_ids: false };
        let question = Question {
            api: self.ctx.api,
            version: self.ctx.version,
            client_id: self.ctx.caller.client_id.clone(),
            asker: asker(&self.ctx.caller, self.ctx.client_port, manner),
        };
        let asked = link.ask(question, |encoder| {
            encoder.raw(&self.body);
            Ok(())
        });
        let answer = match asked {
            Ok(asked) => asked.answer().await,
            Err(error) => Err(error),
        };
        answer
            .inspect_err(|error| {
                tracing::debug!(api = self.ctx.api.name(), node = self.to.0, %error, "not passed on");
            })
            .ok()
    }
}
