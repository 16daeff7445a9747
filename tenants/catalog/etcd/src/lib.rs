//! The catalog's store over etcd 3.4 and later: [`MetadataStore`](sluice_catalog::store::MetadataStore)
//! on etcd's v3 API.
//!
//! The state is etcd's; here is none but the connection in use. All keys lie under one prefix, so that one
//! etcd serves several clusters; etcd's revisions are those of all of them together, and so grow by more
//! than one between two changes of this map.
//!
//! *Members.* One is used at a time: the first of those configured that answers and knows a leader. When a call to
//! it fails or takes too long it is passed over, watches through it end, and the next call finds another.
//! *What is tried again* within a call's deadline: reads and what may be done twice, and changes that
//! certainly did not reach etcd. A change whose answer was lost is the caller's, as the contract says.
//!
//! The messages are prost's, made from etcd's definitions (`proto/generate`), and the calls are tonic's.
//! The etcd-client crate is not used: building it takes protoc on each machine that builds Sluice; it
//! spreads calls over members that are down as over those that are up; it panics on an event
//! of a kind that it does not know; and it hides whether a watch's answer goes on in the next one.

mod assemble;
mod failure;
mod members;
mod options;
mod proto;
mod range;
mod session;
mod store;
mod watch;

#[cfg(test)]
mod tests;

pub use options::{EtcdOptions, InvalidOptions, Tls, User, is_endpoint, is_prefix};
pub use store::EtcdStore;
