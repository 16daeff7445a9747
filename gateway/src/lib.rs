//! Front door: listeners, sessions, dispatch, Kafka and HTTP.
//!
//! The way of a request, one module a step: `listener` accepts and counts, `session` owns a
//! connection and cuts it into frames (`frame`), `dispatch` decodes a frame and finds its handler,
//! `handlers` do what the API means through the catalog and [`backend`], and the answer goes back
//! through `line` (in order) and `outbox` (vectored). Start reading at `session` and `dispatch`.
//!
//! State: a [`Gateway`] owns only bounds (`admission`, `budget`), metrics, and what it remembers of clients
//! that push theirs (`telemetry`); a session owns its
//! connection; topics belong to the catalog, records to the backend. What always holds: the tenant of
//! a request is that of its connection; every queue and buffer has a bound, taken before the memory.

mod admission;
pub mod backend;
mod budget;
mod config;
mod context;
mod dispatch;
mod drain;
mod failure;
mod fetch_session;
mod frame;
mod gateway;
mod handlers;
pub mod http;
mod line;
mod listener;
mod metrics;
mod outbox;
pub mod peers;
mod session;
mod telemetry;
#[cfg(test)]
mod tests;
mod unsettled;

pub use config::{GatewayConfig, Limits};
pub use context::Context;
pub use gateway::Gateway;

/// The versions of an API that are announced and served; none if it is not. Of Produce, versions 0 to 2
/// are announced but refused (KAFKA-18659).
pub fn served(api: sluice_wire::ApiKey) -> Option<std::ops::RangeInclusive<i16>> {
    dispatch::SERVED.contains(&api).then(|| dispatch::announced(api))
}
