//! The client of the bucket that everybody in a process shares.
//!
//! [`Bucket`] wraps an object store as an object store again, so that nobody else has to know of it. It
//! owns the one policy of how requests are made: how many at once and a second ([`limit`]), how long one
//! may take, whether and when it is tried again ([`budget`], [`Failure`]), and when a second one races a
//! slow first ([`hedge`]). It counts every request ([`BucketMetrics`]).
//!
//! What always holds: an outage multiplies no load (retries are a share of requests); foreground requests
//! go before background ones, which are never starved; a create whose outcome is unknown is never tried
//! again here, because the answer to the second try would hide what became of the first. Nothing is
//! cached. It does not know what the objects are, and checks no checksums: whoever finds damaged bytes
//! asks again.

mod budget;
mod delete;
mod failure;
mod hedge;
pub mod http;
mod limit;
mod list;
mod metrics;
mod multipart;
mod options;
mod pace;
mod paced;
mod store;
#[cfg(test)]
mod tests;
mod tries;

pub use failure::{Failure, Refusal};
pub use metrics::BucketMetrics;
pub use options::{BucketOptions, Class};
pub use store::Bucket;
