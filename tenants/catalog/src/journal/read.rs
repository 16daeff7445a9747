//! Reading a journal back: the newest complete snapshot and the changes after it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use sluice_format::key::{CLUSTERS, Keys};

use super::Image;
use super::object::{Body, JournalObject};
use crate::store::Revision;

/// What a journal says.
#[derive(Clone, Debug)]
pub struct Journalled {
    /// The map as of `revision`.
    pub image: Image,
    /// How far it reaches.
    pub revision: Revision,
    /// When its last object was written, ms since the epoch, by the writer's clock.
    pub written_ms: i64,
    /// The journal epoch of its last object.
    pub epoch: u32,
    /// The number of its last object.
    pub sequence: u64,
    /// How many objects there are, old ones that are not collected yet included.
    pub objects: usize,
    /// What is damaged or missing. The rest was read as far as it holds together.
    pub findings: Vec<String>,
}

/// The clusters that have a marker in the bucket, sorted.
pub async fn clusters(bucket: &dyn ObjectStore) -> Result<Vec<String>, Error> {
    let listed: Vec<_> = bucket.list(Some(&Path::from(CLUSTERS))).try_collect().await?;
    let names = listed.iter().filter_map(|meta| meta.location.filename());
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort_unstable();
    Ok(names)
}

/// Reads a cluster's journal; none if there is no complete snapshot.
pub async fn read(bucket: &dyn ObjectStore, keys: &Keys) -> Result<Option<Journalled>, Error> {
    let sequences = sequences(bucket, keys).await?;
    let mut findings = Vec::new();
    let mut reader = Reader { bucket, keys, findings: &mut findings };
    for sequence in sequences.iter().rev().copied() {
        let Some(last) = reader.get(sequence).await? else { continue };
        // A base whose snapshot is damaged: what came before it may do.
        let mut base = last.base;
        loop {
            if let Some(mut found) = reader.replay(base, sequence).await? {
                found.objects = sequences.len();
                found.findings = findings;
                return Ok(Some(found));
            }
            let Some(before) = sequences.iter().rev().find(|found| **found < base) else { break };
            let Some(object) = reader.get(*before).await? else { break };
            base = object.base;
        }
    }
    Ok(None)
}

/// The numbers of a journal's objects, ascending.
pub(super) async fn sequences(bucket: &dyn ObjectStore, keys: &Keys) -> Result<Vec<u64>, Error> {
    let prefix = Path::from(keys.catalog_journal());
    let mut listing = bucket.list(Some(&prefix));
    let mut sequences = Vec::new();
    while let Some(meta) = listing.try_next().await? {
        if let Some(sequence) = Keys::manifest_version(meta.location.as_ref()) {
            sequences.push(sequence);
        }
    }
    sequences.sort_unstable();
    Ok(sequences)
}

/// An object of the journal; `Err` in the inner result says what is wrong with it.
pub(super) async fn get(
    bucket: &dyn ObjectStore,
    keys: &Keys,
    sequence: u64,
) -> Result<Result<JournalObject, String>, Error> {
    let key = keys.catalog(sequence);
    let bytes = match bucket.get(&Path::from(key.as_str())).await {
        Ok(found) => found.bytes().await?,
        Err(Error::NotFound { .. }) => return Ok(Err(format!("{key} is missing"))),
        Err(error) => return Err(error),
    };
    Ok(match JournalObject::decode(&bytes) {
        Ok(object) if object.sequence == sequence => Ok(object),
        Ok(_) => Err(format!("{key} is another object")),
        Err(error) => Err(format!("{key}: {error}")),
    })
}

struct Reader<'a> {
    bucket: &'a dyn ObjectStore,
    keys: &'a Keys,
    findings: &'a mut Vec<String>,
}

impl Reader<'_> {
    async fn get(&mut self, sequence: u64) -> Result<Option<JournalObject>, Error> {
        let got = get(self.bucket, self.keys, sequence).await?;
        Ok(got.map_err(|why| self.finding(why)).ok())
    }

    fn finding(&mut self, why: String) {
        if !self.findings.contains(&why) {
            self.findings.push(why);
        }
    }

    /// The state from the snapshot that begins at `base`, and what follows it up to `newest` without
    /// a gap. None if there is no whole snapshot there.
    async fn replay(&mut self, base: u64, newest: u64) -> Result<Option<Journalled>, Error> {
        let mut found: Option<Journalled> = None;
        // The parts of a snapshot that is not complete yet.
        let mut gathered: (u32, BTreeMap<String, Bytes>) = (0, BTreeMap::new());
        for sequence in base..=newest {
            let Some(object) = self.get(sequence).await? else { return Ok(found) };
            if let Some(found) = &found
                && object.epoch < found.epoch
            {
                self.finding(format!("{}: its epoch went back", self.keys.catalog(sequence)));
                return Ok(Some(found.clone()));
            }
            let JournalObject { epoch, written_ms, body, .. } = object;
            let revision = match body {
                Body::Snapshot { revision, part, parts, entries } => {
                    if part == 0 {
                        gathered = (0, BTreeMap::new());
                    }
                    if part != gathered.0 {
                        // Parts of a snapshot that another process began and nobody ended.
                        continue;
                    }
                    gathered.0 += 1;
                    gathered.1.extend(entries);
                    if gathered.0 < parts {
                        continue;
                    }
                    let image = Image::new(std::mem::take(&mut gathered.1));
                    gathered.0 = 0;
                    found = Some(Journalled {
                        image,
                        revision,
                        written_ms,
                        epoch,
                        sequence,
                        objects: 0,
                        findings: Vec::new(),
                    });
                    revision
                }
                Body::Changes { after, upto, changes } => {
                    let Some(found) = &mut found else { continue };
                    if after != found.revision {
                        let key = self.keys.catalog(sequence);
                        let why =
                            format!("{key}: revisions up to {} are missing before it", after.0);
                        self.finding(why);
                        return Ok(Some(found.clone()));
                    }
                    for (key, value) in changes.into_iter().flat_map(|change| change.events) {
                        found.image.set(key, value);
                    }
                    upto
                }
            };
            if let Some(found) = &mut found {
                found.revision = revision;
                (found.epoch, found.sequence, found.written_ms) = (epoch, sequence, written_ms);
            }
        }
        Ok(found)
    }
}
