//! Which writer has which volume, and when that changes: claims of orphans, handovers, drains, balance.
//!
//! [`Members`] is one process's part in it. It follows the catalog, and tells its [`sluice_writer::Writer`] what to take
//! and what to release; how that is done is the writer's. Who should have a volume is said by pure functions over what
//! the catalog shows ([`plan`] for orphans, [`balance`] for moves), which all nodes compute alike.
//!
//! What always holds: a volume is claimed only if it has no owner, or one that is not alive, or this node; a
//! claim is bound to the epoch that was looked at, so of many that claim at once one wins. Safety does
//! not depend on anything here: the catalog gives each epoch once, and the medium keeps older owners out.
//! The one exception is a file that several hosts share, whose lock may hold on one host alone: there owners are kept
//! apart in time, by leases ([`Members`], "Shared files").
//!
//! It does not know clients, listeners, buckets or the configuration.

pub mod balance;
mod balancer;
mod keeper;
pub mod load;
mod members;
mod metrics;
pub mod notice;
pub mod plan;

#[cfg(test)]
mod tests;

pub use members::{End, Locate, Members, MembersOptions, MembersParts, StartError};
pub use metrics::ClusterMetrics;
