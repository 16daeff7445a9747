//! The words that every part of Sluice shares: ids, epochs, topic configuration, and the seams
//! through which time and randomness enter. Pure: no I/O, no runtime, no log.

pub mod id;
pub mod seam;

pub use id::{NodeId, StreamId, TenantId, TopicId, VolumeEpoch, VolumeId};
pub use seam::{Clock, Entropy};
