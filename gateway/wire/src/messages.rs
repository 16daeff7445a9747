//! The message tables: every request and response that Sluice can read and write, in every version.
//!
//! One module a message, named as Kafka's schema file is. The tables were drawn from the schemas of
//! Kafka 4.3.0; how to read one is told in `table.rs`. A new version of a message is a change here
//! (and nowhere else, but for the handler). Unstable versions are left out.

pub mod header;

mod acls;
mod admin;
mod authentication;
mod cluster;
mod consumer_groups;
mod groups;
mod nodes;
mod produce_fetch;
mod share_groups;
mod share_state;
mod streams_groups;
mod telemetry;
mod topics;
mod transactions;

pub use acls::*;
pub use admin::*;
pub use authentication::*;
pub use cluster::*;
pub use consumer_groups::*;
pub use groups::*;
pub use nodes::*;
pub use produce_fetch::*;
pub use share_groups::*;
pub use share_state::*;
pub use streams_groups::*;
pub use telemetry::*;
pub use topics::*;
pub use transactions::*;
