//! The software of the hosts: writers, and the clients that produce, consume and administrate.

mod admin;
mod auditor;
mod consumer;
mod producer;
mod writer;

pub(crate) use admin::{administrate, set_up};
pub(crate) use auditor::{Source, audit};
pub(crate) use consumer::consume;
pub(crate) use producer::produce;
pub(crate) use writer::own;

use std::sync::Arc;

use bytes::Bytes;
use sluice_catalog::{Catalog, CatalogOptions};
use sluice_model::{CatalogLimits, Entropy, GroupDefaults, StreamId, TopicDefaults};

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
}

#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) epoch: i32,
    pub(crate) log_start: i64,
    pub(crate) high_watermark: i64,
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
