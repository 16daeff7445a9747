//! Names of objects in the bucket.
//!
//! Every key begins with four hex digits of a hash, so that no prefix is hot, and none depends on
//! the order of listings:
//!
//! ```text
//! {hash}/{cluster}/segments/{volume}/{epoch}-{sequence}     hash over volume, epoch and sequence
//! {hash}/{cluster}/snapshots/{volume}/{epoch}-{sequence}    likewise
//! {hash}/{cluster}/manifests/{volume}/{version}             hash over the volume alone: one directory
//! {hash}/{cluster}/wal/{volume}/...                        hash over the volume alone: a volume in the bucket
//! {hash}/{cluster}/catalog/{sequence}                       hash over `catalog`: one directory
//! clusters/{cluster}                                        written once: which clusters are here
//! ```
//!
//! A segment's name carries the epoch of the owner that wrote it and a number which that owner counts
//! up, so no two owners can ever write the same name. Manifest versions are created if absent: of two
//! owners that both try, one loses.

use crate::SegmentId;
use crate::crc32c;

/// The directory of the markers, one a cluster, by which a tool that knows the bucket alone finds out
/// whose data lies there.
pub const CLUSTERS: &str = "clusters";

/// What the name of an object says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    /// A segment.
    Segment(SegmentId),
    /// A coordinator snapshot.
    Snapshot(SegmentId),
    /// A version of a volume's manifest.
    Manifest {
        /// The volume.
        volume: u32,
        /// The version.
        version: u64,
    },
    /// An object of the catalog's journal.
    Catalog {
        /// Its number.
        sequence: u64,
    },
}

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

    /// The directory of a volume that lies in the bucket. What is in it is the volume's own.
    pub fn wal(&self, volume: u32) -> String {
        let name = format!("wal/{volume}");
        self.hashed(&name, &name)
    }

    /// The key of an object of the catalog's journal.
    pub fn catalog(&self, sequence: u64) -> String {
        format!("{}/{sequence:020}", self.catalog_journal())
    }

    /// The directory that holds the catalog's journal and nothing else.
    pub fn catalog_journal(&self) -> String {
        self.hashed("catalog", "catalog")
    }

    /// The object that says that this cluster's data lies in the bucket.
    pub fn marker(&self) -> String {
        format!("{CLUSTERS}/{}", self.cluster)
    }

    /// What a key of this cluster names; none for a foreign object, one under the wrong hash included.
    pub fn parse(&self, key: &str) -> Option<Name> {
        let (_, rest) = key.split_once('/')?;
        let mut parts = rest.strip_prefix(self.cluster.as_str())?.strip_prefix('/')?.split('/');
        let name = match (parts.next()?, parts.next()?, parts.next()) {
            ("segments", volume, Some(name)) => Name::Segment(numbered(volume, name)?),
            ("snapshots", volume, Some(name)) => Name::Snapshot(numbered(volume, name)?),
            ("manifests", volume, Some(version)) => {
                Name::Manifest { volume: volume.parse().ok()?, version: version.parse().ok()? }
            }
            ("catalog", sequence, None) => Name::Catalog { sequence: sequence.parse().ok()? },
            _ => return None,
        };
        (parts.next().is_none() && self.key(name) == key).then_some(name)
    }

    /// The key of what is named.
    pub fn key(&self, name: Name) -> String {
        match name {
            Name::Segment(id) => self.segment(id),
            Name::Snapshot(id) => self.snapshot(id),
            Name::Manifest { volume, version } => self.manifest(volume, version),
            Name::Catalog { sequence } => self.catalog(sequence),
        }
    }

    fn hashed(&self, over: &str, name: &str) -> String {
        let hash = crc32c(over.as_bytes()) >> 16;
        format!("{hash:04x}/{}/{name}", self.cluster)
    }
}

fn numbered(volume: &str, name: &str) -> Option<SegmentId> {
    let (epoch, sequence) = name.split_once('-')?;
    Some(SegmentId {
        volume: volume.parse().ok()?,
        epoch: epoch.parse().ok()?,
        sequence: sequence.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_names() {
        let keys = Keys::new("c");
        let id = SegmentId { volume: 1, epoch: 2, sequence: 3 };
        let names = [
            Name::Segment(id),
            Name::Snapshot(id),
            Name::Manifest { volume: 7, version: 12 },
            Name::Catalog { sequence: 9 },
        ];
        for name in names {
            let key = keys.key(name);
            assert_eq!(keys.parse(&key), Some(name), "{key}");
            assert_eq!(Keys::new("d").parse(&key), None);
            assert_eq!(keys.parse(&format!("{key}/x")), None);
            let (hash, rest) = key.split_once('/').unwrap();
            let other = if hash == "0000" { "0001" } else { "0000" };
            assert_eq!(keys.parse(&format!("{other}/{rest}")), None);
        }
        assert_eq!(keys.parse(&format!("{}/volume", keys.wal(1))), None, "not the writer's");
        for foreign in ["", "clusters/c", "0000/c", "0000/c/segments/1/2", "0000/c/segments/+1/2-3"]
        {
            assert_eq!(keys.parse(foreign), None, "{foreign}");
        }
    }

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
