//! Names of objects in the bucket.
//!
//! Every key begins with four hex digits of a hash, so that no prefix is hot, and none depends on
//! the order of listings:
//!
//! ```text
//! {hash}/{cluster}/segments/{volume}/{epoch}-{sequence}     hash over volume, epoch and sequence
//! {hash}/{cluster}/snapshots/{volume}/{epoch}-{sequence}    likewise
//! {hash}/{cluster}/manifests/{volume}/{version}             hash over the volume alone: one directory
//! ```
//!
//! A segment's name carries the epoch of the owner that wrote it and a number which that owner counts
//! up, so no two owners can ever write the same name. Manifest versions are created if absent: of two
//! owners that both try, one loses.

use crate::SegmentId;
use crate::crc32c;

/// Names within one cluster's part of a bucket.
#[derive(Clone, Debug)]
pub struct Keys {
    cluster: String,
}

impl Keys {
    /// Names for the cluster with this id.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self { cluster: cluster.into() }
    }

    /// The key of a segment.
    pub fn segment(&self, id: SegmentId) -> String {
        let SegmentId { volume, epoch, sequence } = id;
        let name = format!("segments/{volume}/{epoch}-{sequence}");
        self.hashed(&name, &name)
    }

    /// The key of a coordinator snapshot.
    pub fn snapshot(&self, id: SegmentId) -> String {
        let SegmentId { volume, epoch, sequence } = id;
        let name = format!("snapshots/{volume}/{epoch}-{sequence}");
        self.hashed(&name, &name)
    }

    /// The key of a version of a volume's manifest.
    pub fn manifest(&self, volume: u32, version: u64) -> String {
        // Twenty digits hold any version, so that a person sees them in order.
        format!("{}/{version:020}", self.manifests(volume))
    }

    /// The directory that holds a volume's manifests and nothing else.
    pub fn manifests(&self, volume: u32) -> String {
        let name = format!("manifests/{volume}");
        self.hashed(&name, &name)
    }

    /// The version in a manifest's key; none for a foreign object.
    pub fn manifest_version(key: &str) -> Option<u64> {
        let name = key.rsplit('/').next()?;
        (name.len() == 20).then(|| name.parse().ok())?
    }

    fn hashed(&self, over: &str, name: &str) -> String {
        let hash = crc32c(over.as_bytes()) >> 16;
        format!("{hash:04x}/{}/{name}", self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_stable() {
        let keys = Keys::new("c");
        let id = SegmentId { volume: 1, epoch: 2, sequence: 3 };
        assert!(keys.segment(id).ends_with("/c/segments/1/2-3"));
        assert_ne!(keys.segment(id), keys.snapshot(id));
        let manifest = keys.manifest(7, 12);
        assert!(manifest.ends_with("/c/manifests/7/00000000000000000012"), "{manifest}");
        assert_eq!(Keys::manifest_version(&manifest), Some(12));
        assert_eq!(Keys::manifest_version("x/y/00000000000000000012.tmp"), None);
    }
}
