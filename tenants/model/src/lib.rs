//! The words that every part of Sluice shares: ids, epochs, topic names and configuration, limits, units,
//! and the seams through which time and randomness enter. Pure: no I/O, no runtime, no log.

pub mod broker_config;
pub mod client_metrics;
pub mod config;
pub mod group_config;
pub mod id;
pub mod limits;
pub mod pace;
pub mod random;
pub mod seam;
pub mod topic_config;
pub mod topic_name;
pub mod units;

pub use group_config::{GroupConfigs, GroupDefaults, GroupSettings};
pub use id::{NodeId, StreamId, TenantId, TopicId, VolumeEpoch, VolumeId};
pub use limits::CatalogLimits;
pub use pace::SendPace;
pub use random::SplitMix64;
pub use seam::{Clock, Entropy};
pub use topic_config::{TopicConfig, TopicDefaults};
