//! The catalog's journal in the bucket: snapshots and changes of the store, so that the bucket alone
//! can become a new cluster.
//!
//! A task follows the store's watch, beside the path of commits, and writes numbered objects, each
//! created if absent ([`object`] has the bytes). At most about one object a second while there are
//! changes, none while there are not. What the bucket does not take is tried again for ever; the
//! store keeps the changes meanwhile, or a new snapshot makes up for them.
//!
//! What always holds: the numbers are dense, but for old ones that are collected from below; of two
//! processes that both journal one cluster, the one that came later takes the next number for its
//! epoch, and the other finds it taken and ends: their objects never interleave. Keys under leases
//! (which processes are alive) are not journalled. Values may hold what is to be kept secret, such as
//! hashes of passwords: the objects are as readable as the rest of the bucket, and no more.
//!
//! It does not know what keys mean: that is [`image`]'s, for those who read a journal back.

mod image;
mod object;
mod read;
mod write;

pub use image::{Image, ImageError, ListedTopic};
pub use read::{Journalled, clusters, read};
pub use write::{Journal, JournalMetrics, JournalOptions, JournalParts};

#[cfg(test)]
mod tests;
