//! The chain of epochs: how a new owner finds the log's end, closes it to every older owner, and knows that
//! it did. The argument is in `docs/formats.md`, section "Object volume".
//!
//! What always holds when [`Opener::close_chain`] succeeds: the seal of this opener is the one object that
//! can ever lie behind the log's last, so nothing of an older epoch becomes part of the log any more.
//!
//! It trusts neither the order nor the completeness of a listing: what was found in one is checked by
//! asking for objects by name, and looked at again until nothing changes.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use object_store::PutPayload;
use object_store::path::Path;
use sluice_model::VolumeEpoch;

use super::layout::{self, Descriptor, Entry, Header, Link, SEAL_BYTES, Seal, Undecodable};
use super::store::{Bucket, Created};
use crate::error::OpenError;

/// How often the log may turn out to have changed before an open gives up. Each time somebody else
/// has made progress.
const MOST_ROUNDS: u32 = 1000;
/// How often an object may be found missing before it counts as lost.
const LOST_AFTER: u32 = 4;
/// How many races for the end of the log are lost before it is stopped further ahead.
const RACES: u32 = 2;
/// How far ahead, in positions, at first.
const STOP_AHEAD: u64 = 16;

/// The log as its new owner found it.
pub(super) struct Chain {
    /// The last object of the log.
    pub(super) last: Header,
    /// Positions from the trim point on, by epoch, in order.
    pub(super) ranges: Vec<(VolumeEpoch, Range<u64>)>,
    /// The new epoch's first position.
    pub(super) start: u64,
    /// The epoch before the new one.
    pub(super) previous: VolumeEpoch,
    /// Objects that are no part of the log any more or never were, in order of position.
    pub(super) leftovers: Vec<(VolumeEpoch, u64)>,
}

/// A new owner at its volume.
pub(super) struct Opener<'a> {
    pub(super) bucket: &'a Bucket,
    /// The directory of the log's objects.
    pub(super) log: &'a Path,
    pub(super) volume: Descriptor,
    pub(super) epoch: VolumeEpoch,
    /// Random: tells this opener's seals from those of another under the same epoch.
    pub(super) nonce: [u8; 16],
}

/// Whether each name belongs to a seal.
type Listing = BTreeMap<(VolumeEpoch, u64), bool>;

/// The last epoch in a listing, and where its log ends there.
struct View {
    /// At the position where the log ends.
    end: Link,
    last: Header,
    /// What lies at that position.
    seal: Option<Seal>,
}

/// Why a listing gives no view.
enum NoView {
    /// What it named is not there (any more), or the other way round: look again.
    Changed,
    /// So it is, but what should be there is not at this place.
    Missing(VolumeEpoch, u64),
    Failed(OpenError),
}

impl From<OpenError> for NoView {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

impl Opener<'_> {
    /// Finds the end of the log and seals it.
    pub(super) async fn close_chain(&self) -> Result<Chain, OpenError> {
        // A seal that was there before the listing began.
        let mut known: Option<Seal> = None;
        let (mut missing, mut races) = (((VolumeEpoch(0), 0), 0), 0);
        for _ in 0..MOST_ROUNDS {
            let listing = self.list().await;
            let view = match self.view(&listing).await {
                Ok(view) => view,
                Err(NoView::Changed) => continue,
                Err(NoView::Missing(epoch, position)) => {
                    let again = if missing.0 == (epoch, position) { missing.1 + 1 } else { 1 };
                    missing = ((epoch, position), again);
                    if again >= LOST_AFTER {
                        return Err(self.lost(epoch, position));
                    }
                    continue;
                }
                Err(NoView::Failed(error)) => return Err(error),
            };
            let at = view.end;
            let target = match view.seal {
                Some(seal) if seal.next > self.epoch || self.is_rival(&seal) => {
                    return Err(OpenError::Fenced { stored: seal.next });
                }
                // Put meanwhile, perhaps where an object was that is trimmed by now: look once more.
                Some(seal) if known != Some(seal) => {
                    known = Some(seal);
                    continue;
                }
                Some(seal) if seal.next == self.epoch => return self.found(&listing, &view).await,
                // The epoch that it names has nothing yet: it ends where it begins.
                Some(seal) => Link {
                    epoch: seal.next,
                    position: at.position + 1,
                    start: at.position + 1,
                    previous: at.epoch,
                    ..at
                },
                None => at,
            };
            known = self.seal(target).await;
            if known.is_none() {
                races += 1;
                if races > RACES {
                    // An owner that is faster than this. It gets no further than here.
                    let ahead = STOP_AHEAD << (races - RACES).min(20);
                    self.seal(Link { position: target.position + ahead, ..target }).await;
                }
            }
        }
        Err(OpenError::Io(io::Error::other("the volume changes faster than it can be opened")))
    }

    fn is_rival(&self, seal: &Seal) -> bool {
        seal.next == self.epoch && seal.nonce != self.nonce
    }

    /// Puts this opener's seal at a place, if that is free.
    async fn seal(&self, at: Link) -> Option<Seal> {
        let seal = Seal { link: at, next: self.epoch, nonce: self.nonce };
        let bytes = seal.encode();
        let payload = PutPayload::from(bytes.to_vec());
        let created = self.bucket.create(&self.at(&at), &bytes, payload, |_| ()).await;
        (created == Created::Won).then_some(seal)
    }

    async fn list(&self) -> Listing {
        let found = self.bucket.list(self.log).await;
        let known = found.into_iter().filter_map(|(name, size)| {
            Some((layout::parse_name(&name)?, size == SEAL_BYTES as u64))
        });
        known.collect()
    }

    async fn view(&self, listing: &Listing) -> Result<View, NoView> {
        let Some((&(epoch, first), _)) = listing.last_key_value() else {
            return Err(NoView::Missing(VolumeEpoch(0), 0));
        };
        if epoch >= self.epoch {
            return Err(OpenError::Fenced { stored: epoch }.into());
        }
        let of_epoch: BTreeMap<u64, bool> =
            listing.range((epoch, 0)..=(epoch, first)).map(|(at, seal)| (at.1, *seal)).collect();
        let newest = of_epoch.iter().rev().find(|(_, is_seal)| !**is_seal);
        // The newest object knows of every trim that was begun before it was made. There is always one
        // that is younger than what a trim removed: the one that carried the trim.
        let (link, from, durable) = match newest {
            Some((&position, _)) => {
                let header = self.object(epoch, position).await?.ok_or(NoView::Changed)?;
                let from = header.trim.position.max(header.link.start);
                (header.link, from, header.durable)
            }
            None => {
                let seal = self.sealed(epoch, first).await?.ok_or(NoView::Changed)?;
                (seal.link, seal.link.start, 0)
            }
        };
        let mut end = from;
        while of_epoch.get(&end) == Some(&false) {
            end += 1;
        }
        let is_sealed = of_epoch.contains_key(&end);
        if durable > end {
            // All before `durable` was there. It was trimmed just now, or was not listed, or is lost.
            if !is_sealed && self.entry(epoch, end).await?.is_some() {
                return Err(NoView::Changed);
            }
            return Err(NoView::Missing(epoch, end));
        }
        let seal = match is_sealed {
            true => Some(self.sealed(epoch, end).await?.ok_or(NoView::Changed)?),
            false => None,
        };
        let link = Link { position: end, ..link };
        // Asked for after the listing: as long as it is there, nothing behind it was removed, since
        // objects are removed one by one, in order.
        let last = self.last_before(&link).await?;
        Ok(View { end: link, last, seal })
    }

    /// The last object of the log before a place where an epoch ends.
    async fn last_before(&self, end: &Link) -> Result<Header, NoView> {
        let mut end = *end;
        loop {
            if end.position > end.start {
                let (epoch, position) = (end.epoch, end.position - 1);
                return self.object(epoch, position).await?.ok_or(NoView::Missing(epoch, position));
            }
            let Some(before) = end.start.checked_sub(1) else {
                return Err(NoView::Missing(end.epoch, end.start));
            };
            let seal = self.sealed(end.previous, before).await?;
            end = seal.ok_or(NoView::Missing(end.previous, before))?.link;
        }
    }

    /// What the new owner has to know, once its seal is the end.
    async fn found(&self, listing: &Listing, view: &View) -> Result<Chain, OpenError> {
        let first = view.last.trim.position;
        let mut ranges = Vec::new();
        let mut end = view.end;
        loop {
            ranges.push((end.epoch, end.start.max(first)..end.position));
            if end.start <= first {
                break;
            }
            let (epoch, position) = (end.previous, end.start - 1);
            let seal = self.sealed(epoch, position).await?;
            end = seal.ok_or_else(|| self.lost(epoch, position))?.link;
        }
        ranges.reverse();
        let is_of_log = |(epoch, position): (VolumeEpoch, u64)| {
            ranges.iter().any(|(of, range)| *of == epoch && range.contains(&position))
        };
        let objects = listing.iter().filter(|(_, is_seal)| !**is_seal).map(|(at, _)| *at);
        let mut leftovers: Vec<_> = objects.filter(|at| !is_of_log(*at)).collect();
        leftovers.sort_by_key(|(epoch, position)| (*position, *epoch));
        Ok(Chain {
            last: view.last,
            ranges,
            start: view.end.position + 1,
            previous: view.end.epoch,
            leftovers,
        })
    }

    async fn object(&self, epoch: VolumeEpoch, position: u64) -> Result<Option<Header>, OpenError> {
        match self.entry(epoch, position).await? {
            Some(Entry::Object(header)) => Ok(Some(header)),
            Some(Entry::Seal(_)) | None => Ok(None),
        }
    }

    async fn sealed(&self, epoch: VolumeEpoch, position: u64) -> Result<Option<Seal>, OpenError> {
        match self.entry(epoch, position).await? {
            Some(Entry::Seal(seal)) => Ok(Some(seal)),
            Some(Entry::Object(_)) | None => Ok(None),
        }
    }

    async fn entry(&self, epoch: VolumeEpoch, position: u64) -> Result<Option<Entry>, OpenError> {
        let at = self.log.clone().join(layout::name(epoch, position));
        let Some(bytes) = self.bucket.head(&at).await else { return Ok(None) };
        let entry = Entry::decode(&bytes).map_err(|why| match why {
            Undecodable::Unsupported(version) => OpenError::Unsupported(version.into()),
            Undecodable::Invalid => self.lost(epoch, position),
        })?;
        let link = entry.link();
        let is_ours = (link.epoch, link.position) == (epoch, position)
            && (link.id, link.uuid) == (self.volume.id, self.volume.uuid);
        if is_ours { Ok(Some(entry)) } else { Err(self.lost(epoch, position)) }
    }

    fn at(&self, link: &Link) -> Path {
        self.log.clone().join(link.name())
    }

    fn lost(&self, epoch: VolumeEpoch, position: u64) -> OpenError {
        OpenError::LostObject(self.log.clone().join(layout::name(epoch, position)).to_string())
    }
}
