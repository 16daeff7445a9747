//! Identifiers. Each is a newtype, so that one cannot be passed for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A tenant: the owner of a virtual cluster. The number is internal and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The tenant of listeners that authenticate nobody (see `sluice_tenants`).
    pub const OPEN: Self = Self(0);
}

/// A topic's identity for all time: 128 random bits, as Kafka's topic ids. A topic that is deleted
/// and created again under its old name has another id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// The all-zero id, which on the wire means "no id".
    pub const ZERO: Self = Self([0; 16]);

    /// The internal topic whose one stream is the coordinator log of a volume. Kafka keeps ids with
    /// eight leading zero bytes for itself; tenants' ids are never drawn from that range.
    pub const fn coordinator_log() -> Self {
        let mut id = [0; 16];
        id[15] = 0x10;
        Self(id)
    }

    /// Whether the id is one that only Sluice itself uses.
    pub fn is_internal(&self) -> bool {
        self.0[..8] == [0; 8]
    }
}

impl fmt::Display for TopicId {
    /// Lower-case hex, 32 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// What a string lacks to be a topic id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a topic id is 32 hexadecimal digits")]
pub struct ParseTopicIdError;

impl std::str::FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseTopicIdError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| ParseTopicIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl Serialize for TopicId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TopicId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index, from 0.
    pub partition: u32,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One write-ahead log on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub u32);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Grows by one each time a volume is opened by an owner; 0 before the first. It is also the leader
/// epoch that Kafka clients see for the volume's partitions, so it stays below 2^31.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct VolumeEpoch(pub u32);

impl VolumeEpoch {
    /// The largest epoch: Kafka's leader epochs are signed 32-bit numbers.
    pub const MAX: Self = Self(i32::MAX as u32);

    /// The epoch as Kafka clients see it.
    pub fn leader_epoch(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }
}

/// A process of the cluster, and the broker id under which clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub i32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_text_round_trips() {
        let id = TopicId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("+0000000000000000000000000000000".parse::<TopicId>(), Err(ParseTopicIdError));
        assert!(TopicId::coordinator_log().is_internal());
    }
}
