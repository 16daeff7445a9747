//! The writer as a whole, on a real volume file and a bucket in memory that can be made to fail.

mod bucket;
mod cluster;
mod compact;
mod groups;
mod order;
mod orphans;
mod pipeline;
mod restart;
mod transactions;
mod upload;
