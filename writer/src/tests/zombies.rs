//! Owners that do not know that they are owners no more: the catalog's news do not reach them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::store::{
    self, Entry, LeaseId, MetadataStore, Outcome, Range, Revision, StoreError, Txn, Watch,
    WatchError,
};
use sluice_model::VolumeId;

use super::cluster::{Cluster, Kind, append, sequenced, stream};
use super::upload::in_bucket;
use crate::{OpenError, Writer};

/// Lies over the metadata store of one process.
pub(super) struct Veil {
    /// Its watches show nothing new.
    pub(super) blind: AtomicBool,
    /// Its transactions are refused.
    pub(super) refuse: AtomicBool,
}

impl Veil {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { blind: AtomicBool::new(false), refuse: AtomicBool::new(false) })
    }

    pub(super) fn over(self: &Arc<Self>, store: EmbeddedStore) -> Arc<dyn MetadataStore> {
        Arc::new(Veiled { store, veil: Arc::clone(self) })
    }
}

struct Veiled {
    store: EmbeddedStore,
    veil: Arc<Veil>,
}

struct VeiledWatch {
    watch: Box<dyn Watch>,
    veil: Arc<Veil>,
}

#[async_trait]
impl Watch for VeiledWatch {
    async fn next(&mut self) -> Result<store::Change, WatchError> {
        let change = self.watch.next().await;
        while self.veil.blind.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        change
    }
}

#[async_trait]
impl MetadataStore for Veiled {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.store.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        if self.veil.refuse.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("veiled".to_owned()));
        }
        self.store.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let watch = self.store.watch(prefix, after).await?;
        Ok(Box::new(VeiledWatch { watch, veil: Arc::clone(&self.veil) }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.store.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.store.revoke_lease(lease).await
    }
}

/// What an owner acknowledged, appending for as long as it is one: the number of its last batch, and whether any
/// was acknowledged that it was given after the other's take.
async fn append_on(
    zombie: Writer,
    stream: sluice_model::StreamId,
    taken: Arc<AtomicBool>,
) -> (i32, bool) {
    let mut next = 0;
    loop {
        let was_taken = taken.load(Ordering::Acquire);
        match append(&zombie, stream, &sequenced(9, 0, next, 1)).await {
            Ok(done) => {
                assert_eq!(done.base_offset, i64::from(next));
                next += 1;
                if was_taken {
                    return (next, true);
                }
            }
            Err(error) => {
                assert_eq!(error.code(), sluice_wire::ErrorCode::NotLeaderOrFollower);
                return (next, false);
            }
        }
    }
}

/// The bucket itself keeps a blind owner out. Files and devices of one machine are kept by a lock for as long as
/// it lives: there nobody else becomes the owner before it lets go.
#[tokio::test]
async fn a_blind_owner_gets_nothing_acknowledged_after_another_has_taken_its_volume() {
    for kind in Kind::all() {
        let cluster = Cluster::of(kind, 1, 64 << 20).await;
        let topic = cluster.topic("t", &[]).await;
        let a = stream(&topic, 0);
        let veil = Veil::new();
        let catalog = cluster.catalog_through(|store| veil.over(store)).await;
        let zombie = Writer::new(cluster.parts(1, catalog));
        zombie.take(&cluster.place(0), Duration::from_secs(20)).await.unwrap();
        append(&zombie, a, &sequenced(8, 0, 0, 1)).await.unwrap_or_else(|error| panic!("{error}"));
        zombie.release(VolumeId(0), Duration::from_secs(20)).await.unwrap();
        zombie.take(&cluster.place(0), Duration::from_secs(20)).await.unwrap();
        zombie.delete_records(a, 0).await.unwrap();
        veil.blind.store(true, Ordering::Relaxed);

        let b = stream(&topic, 1);
        let taken = Arc::new(AtomicBool::new(false));
        let appends = tokio::spawn(append_on(zombie.clone(), b, Arc::clone(&taken)));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let other = cluster.empty(2);
        if kind == Kind::Object {
            other.take(&cluster.place(0), Duration::from_secs(20)).await.unwrap();
            taken.store(true, Ordering::Release);
        } else {
            let error = other.take(&cluster.place(0), Duration::from_millis(300)).await;
            let cause = error.unwrap_err().cause;
            assert!(matches!(cause, OpenError::TookTooLong { .. }), "{cause}");
            assert!(!zombie.volumes().is_empty(), "nobody has taken it, and it does not know");
            // It opens its eyes: from here on it lets go by itself.
            veil.blind.store(false, Ordering::Relaxed);
            other.take(&cluster.place(0), Duration::from_secs(20)).await.unwrap();
            taken.store(true, Ordering::Release);
        }
        let (acknowledged, any_after) = appends.await.unwrap();
        assert!(!any_after, "{kind:?}: an append was acknowledged after the take");
        assert!(acknowledged > 0, "{kind:?}: nothing was appended before the take");
        let end = other.offsets(b).unwrap().high_watermark;
        assert!(end >= i64::from(acknowledged), "{kind:?}: {end} of {acknowledged} are there");
        // One more than was acknowledged may be there: its answer was lost. A retry finds it.
        let last = append(&other, b, &sequenced(9, 0, acknowledged, 1)).await.unwrap();
        assert_eq!(last.base_offset, i64::from(acknowledged));
        other.inner.volumes.get(VolumeId(0)).unwrap().flush().await;
        let there = in_bucket(&cluster, &other, b).await;
        assert_eq!(there, (0..=i64::from(acknowledged)).collect::<Vec<_>>());
        assert!(zombie.volumes().is_empty());
        other.close(Duration::ZERO).await;
    }
}
