//! The writer as a whole, on a real volume file and a bucket in memory that can be made to fail.

mod bucket;
mod cluster;
mod compact;
mod groups;
#[path = "../volume/src/conformance/loop_device.rs"]
#[expect(dead_code, reason = "the volumes' own tests look at the bytes too")]
mod loop_device;
mod moves;
mod order;
mod orphans;
mod ownership;
mod pipeline;
mod restart;
mod transactions;
mod upload;
mod zombies;
