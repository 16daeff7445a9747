//! What each API does: checks every field as Kafka does, resolves the tenant's names and ids, and
//! asks the catalog or the backend. A handler is an async function of the gateway, the request's
//! context and the decoded request; `dispatch` has the table of them.
//!
//! They own no state. The tenant is always the context's, and what is another tenant's is treated
//! exactly as what does not exist.

pub(crate) mod alter_configs;
pub(crate) mod api_versions;
mod broker_configs;
pub(crate) mod cluster;
pub(crate) mod commits;
pub(crate) mod config_resources;
pub(crate) mod consumer_groups;
pub(crate) mod controller;
pub(crate) mod create_topics;
pub(crate) mod describe_configs;
pub(crate) mod describe_producers;
pub(crate) mod describe_topic_partitions;
pub(crate) mod fetch;
pub(crate) mod groups;
mod internal_topics;
pub(crate) mod log_dirs;
pub(crate) mod markers;
pub(crate) mod metadata;
pub(crate) mod offsets;
pub(crate) mod permitted;
pub(crate) mod produce;
pub(crate) mod producers;
pub(crate) mod replicas;
pub(crate) mod resolve;
pub(crate) mod share_groups;
pub(crate) mod streams_groups;
pub(crate) mod telemetry;
pub(crate) mod topics;
pub(crate) mod transactional_commits;
pub(crate) mod transactions;
