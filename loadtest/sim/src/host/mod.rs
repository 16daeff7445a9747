//! The software of the hosts: writers, and the clients that produce, consume and administrate.

mod admin;
mod auditor;
mod consumer;
mod producer;
mod restless;
mod transactions;
mod transactor;
mod writer;

pub(crate) use admin::{administrate, set_up};
pub(crate) use auditor::{Source, audit};
pub(crate) use consumer::consume;
pub(crate) use producer::produce;
pub(crate) use transactor::transact;
pub(crate) use writer::own;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use sluice_catalog::{Catalog, CatalogOptions};
use sluice_model::{CatalogLimits, Entropy, GroupDefaults, StreamId, TopicDefaults};
use sluice_wire::ErrorCode;

use crate::metadata::MetadataClient;
use crate::net::Service;
use crate::stage::Stage;

/// What travels to a writer and back.
pub(crate) type WriterService = Service<Ask, Answer>;

#[derive(Debug)]
pub(crate) enum Ask {
    /// Batches of one stream, appended in this order; one answer each.
    Produce {
        stream: StreamId,
        batches: Vec<Bytes>,
    },
    Fetch {
        stream: StreamId,
        offset: i64,
        max_bytes: u64,
    },
    DeleteRecords {
        stream: StreamId,
        offset: i64,
    },
    /// A step of a transactional producer.
    Transact(Step),
}

/// A transactional producer as it presents itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) id: u32,
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// It speaks the second generation of the protocol (KIP-890): streams join a transaction with the first
    /// batch, and each transaction has an epoch of its own.
    pub(crate) is_new: bool,
}

#[derive(Debug)]
pub(crate) enum Step {
    Init {
        id: u32,
        timeout_ms: i32,
    },
    /// In the first generation, before anything is written.
    Add {
        by: Identity,
        streams: BTreeSet<StreamId>,
    },
    Write {
        by: Identity,
        stream: StreamId,
        batch: Bytes,
    },
    End {
        by: Identity,
        commit: bool,
    },
}

/// What is answered to a step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// The producer id and epoch to go on with.
    Is(i64, i16),
    Added,
    /// The base offset.
    At(i64),
}

#[derive(Debug)]
pub(crate) enum Answer {
    /// Of the batch with this index: its base offset and the epoch.
    Produced {
        index: usize,
        result: Result<(i64, i32), Refusal>,
    },
    Fetched(Result<Fetched, Refusal>),
    Deleted(Result<i64, Refusal>),
    Transacted(Result<Done, ErrorCode>),
}

#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) epoch: i32,
    pub(crate) log_start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    /// Transactions with records in what was read that were aborted: (producer id, first offset).
    pub(crate) aborted: BTreeSet<(i64, i64)>,
    /// None if the offset is out of range.
    pub(crate) records: Option<Bytes>,
}

/// Why a writer did not do it.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    NotOwner,
    /// Anything else, by its text.
    Failed(String),
}

/// This host's view of the catalog; tries until the store answers.
async fn open_catalog(stage: &Stage, entropy: &Arc<dyn Entropy>) -> Catalog {
    loop {
        let store = MetadataClient::Remote(stage.metadata_service.clone());
        let options = CatalogOptions {
            entropy: Arc::clone(entropy),
            node: None,
            topic_defaults: TopicDefaults::default(),
            group_defaults: GroupDefaults::default(),
            limits: CatalogLimits::default(),
        };
        match Catalog::open(Arc::new(store), options).await {
            Ok(catalog) => return catalog,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(200)).await,
        }
    }
}
