//! The cluster's metadata: topics, configs of groups and metrics subscriptions, placement, nodes, volumes
//! and producer ids, on a small strongly consistent store.
//!
//! [`store`] is the contract of a store, [`embedded`] the durable one for a single process. On top of
//! either lies [`Catalog`]: a view in memory that follows the store, for the data path, and mutations
//! through compare-and-set. The state is the store's; the view is a copy that is never ahead of it.
//! [`journal`] copies the store to the bucket, so that the bucket alone can become a new cluster. What
//! lies where in the bucket is not here: that is in manifests beside the data.

pub mod embedded;
pub mod journal;
pub mod store;

mod catalog;
mod cluster;
mod configs;
mod follower;
mod layout;
mod moves;
mod nodes;
mod placement;
mod producer_ids;
mod steering;
mod topics;
mod view;
mod volumes;

#[cfg(test)]
mod tests;

pub use catalog::{Catalog, CatalogOptions, Change, OpenError};
pub use cluster::ClusterId;
pub use configs::{AlterResourceError, ResourceKind};
pub use moves::{Move, MoveStreamError, StreamPlace};
pub use nodes::{
    Node, NodeRegistration, NodeSpec, PeerAddress, RegisterError, RegistrationState, Roles, Tenure,
};
pub use producer_ids::AllocateError;
pub use steering::{DECISIONS_KEPT, Decision, Drain, NodeHandle, NodeLoad};
pub use topics::{
    AlterTopicError, CreatePartitionsError, CreateTopicError, DeleteTopicError, NewTopic, Topic,
};
pub use volumes::{
    AddVolumeError, ClaimError, ReleaseVolumeError, Volume, VolumeKind, VolumeSpec, WantVolumeError,
};
