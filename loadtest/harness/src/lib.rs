//! The load harness: what `sluice loadtest` runs. It loads any Kafka server as clients do, measures what it
//! gives and what it costs, and proves that nothing was lost, changed, doubled or reordered.
//!
//! [`run()`] does one [`Workload`] and gives a [`Report`]. Start reading at `run.rs` and `run/script.rs` (the phases),
//! then `producer.rs`, `consumer.rs` and `verify.rs`; `fault.rs` for what is done to servers meanwhile, `fleet.rs` for a
//! load from many processes.
//!
//! What always holds: the load is an open loop, latencies count from when a record was due; memory is bounded by
//! the workload's buffers, whatever the server does; the server is met on the network only.

pub mod amount;
mod client;
mod consumer;
mod crew;
pub mod fault;
pub mod first;
mod fleet;
mod http;
mod keys;
mod load;
mod null_server;
mod observe;
mod outage;
mod pace;
pub mod page;
pub mod peers;
mod process;
mod producer;
mod random;
pub mod repeat;
pub mod report;
mod run;
mod scrape;
pub mod servers;
pub mod spread;
mod stamp;
mod stats;
pub mod summary;
mod timeline;
pub mod verify;
pub mod workload;

#[cfg(test)]
mod tests;

pub use client::{Account, CallError};
pub use fleet::{
    AgentError, AgentOptions, Coordinator, Driver, LocalProcesses, Token, TokenError, agent,
};
pub use null_server::NullServer;
pub use report::Report;
pub use run::{Error, Options, Progress, run, run_on};
pub use scrape::Bucket;
pub use workload::Workload;
