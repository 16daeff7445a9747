//! Front door: listeners, sessions, dispatch, Kafka and HTTP.

pub mod backend;
pub mod http;
