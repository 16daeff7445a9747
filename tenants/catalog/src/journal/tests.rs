//! A journal over a bucket in memory, written, read back, and put into a new store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use sluice_format::key::Keys;
use sluice_model::{
    CatalogLimits, Clock, Entropy, GroupDefaults, NodeId, TenantId, TopicDefaults, VolumeEpoch,
    VolumeId,
};

use super::*;
use crate::cluster::mix;
use crate::embedded::EmbeddedStore;
use crate::store::{MetadataStore, Txn};
use crate::{Catalog, CatalogOptions, NewTopic, NodeSpec, Roles, VolumeKind, VolumeSpec};

struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let number = mix(self.0.fetch_add(1, Ordering::Relaxed));
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

struct Noon;

impl Clock for Noon {
    fn wall_ms(&self) -> i64 {
        43_200_000
    }
}

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(Counter(AtomicU64::new(1)))
}

/// A bucket in memory that refuses puts while it is down, and loses answers to puts.
#[derive(Debug, Default)]
struct Bucket {
    inner: InMemory,
    down: AtomicBool,
    lost_answers: AtomicU64,
    puts: AtomicU64,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bucket")
    }
}

fn refused() -> object_store::Error {
    object_store::Error::Generic { store: "bucket", source: "no answer".into() }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        if self.down.load(Ordering::Relaxed) {
            return Err(refused());
        }
        let done = self.inner.put_opts(at, bytes, how).await?;
        self.puts.fetch_add(1, Ordering::Relaxed);
        let lost = |left: u64| left.checked_sub(1);
        match self.lost_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lost) {
            Ok(_) => Err(refused()),
            Err(_) => Ok(done),
        }
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, how).await
    }
    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, how).await
    }
    fn delete_stream(
        &self,
        which: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(which)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

struct Rig {
    store: EmbeddedStore,
    bucket: Arc<Bucket>,
    keys: Keys,
    metrics: JournalMetrics,
}

impl Rig {
    fn new() -> Self {
        Self {
            store: EmbeddedStore::in_memory(entropy()).expect("a store"),
            bucket: Arc::default(),
            keys: Keys::new("c"),
            metrics: JournalMetrics::default(),
        }
    }

    fn journal(&self, options: JournalOptions) -> Journal {
        Journal::start(JournalParts {
            store: Arc::new(self.store.clone()),
            bucket: Arc::clone(&self.bucket) as _,
            keys: self.keys.clone(),
            clock: Arc::new(Noon),
            entropy: entropy(),
            options,
            metrics: self.metrics.clone(),
        })
    }

    async fn put(&self, key: &str, value: impl Into<Bytes>) {
        let key = format!("/sluice/{key}");
        self.store.commit(Txn::new().put(key, value)).await.expect("committed");
    }

    async fn delete(&self, key: &str) {
        let key = format!("/sluice/{key}");
        self.store.commit(Txn::new().delete(key)).await.expect("committed");
    }

    /// Until the journal shows what the store has.
    async fn caught_up(&self) {
        for _ in 0..600 {
            let wanted = Image::of(self.store.range("/sluice/").await.expect("a range"));
            if self.read().await.is_some_and(|found| found.image == wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the journal never caught up");
    }

    async fn read(&self) -> Option<Journalled> {
        read(&*self.bucket, &self.keys).await.expect("the bucket answers")
    }

    async fn sequences(&self) -> Vec<u64> {
        read::sequences(&*self.bucket, &self.keys).await.expect("a listing")
    }

    async fn damage(&self, sequence: u64) {
        let path = Path::from(self.keys.catalog(sequence));
        let bytes = self.bucket.get(&path).await.expect("it").bytes().await.expect("bytes");
        let mut bytes = bytes.to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        self.bucket.inner.put(&path, bytes.into()).await.expect("put");
    }
}

const CLOSE: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn what_is_read_back_is_what_the_store_has() {
    let rig = Rig::new();
    rig.put("a", "1").await;
    let journal = rig.journal(JournalOptions::default());
    rig.caught_up().await;
    rig.put("b", "2").await;
    rig.put("a", "3").await;
    rig.delete("b").await;
    rig.put("c", "").await;
    journal.close(CLOSE).await;
    let found = rig.read().await.expect("a journal");
    assert_eq!(found.image, Image::of(rig.store.range("").await.expect("a range")));
    assert_eq!((found.image.len(), found.findings.len()), (2, 0));
    assert_eq!((found.revision.0, found.written_ms, found.epoch), (5, 43_200_000, 1));
    assert_eq!(rig.metrics.lag(), Duration::ZERO);
    assert_eq!(clusters(&*rig.bucket).await.expect("a listing"), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_burst_shares_an_object_and_idling_makes_none() {
    let rig = Rig::new();
    let _journal = rig.journal(JournalOptions::default());
    rig.caught_up().await;
    let before = rig.sequences().await.len();
    for number in 0..300 {
        rig.put(&format!("k{number}"), "v").await;
    }
    rig.caught_up().await;
    assert_eq!(rig.sequences().await.len(), before + 1);
    let puts = rig.bucket.puts.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.bucket.puts.load(Ordering::Relaxed), puts, "idle");
}

#[tokio::test(start_paused = true)]
async fn keys_under_leases_are_not_journalled() {
    let rig = Rig::new();
    let _journal = rig.journal(JournalOptions::default());
    let lease = rig.store.grant_lease(Duration::from_secs(5)).await.expect("a lease");
    rig.put("x", "1").await;
    rig.caught_up().await;
    // It moves under the lease, and is gone for the journal; then the lease ends.
    rig.store.commit(Txn::new().put_leased("/sluice/x", "2", lease)).await.expect("committed");
    rig.caught_up().await;
    let objects = rig.sequences().await.len();
    rig.store.commit(Txn::new().put_leased("/sluice/x", "3", lease)).await.expect("committed");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(rig.store.get("/sluice/x").await.expect("an answer").is_none(), "the lease has ended");
    assert_eq!(rig.sequences().await.len(), objects, "no word of it");
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_the_later_one_goes_on_and_the_other_ends() {
    let rig = Rig::new();
    let first = rig.journal(JournalOptions::default());
    rig.put("a", "1").await;
    rig.caught_up().await;
    let other = Rig {
        store: EmbeddedStore::in_memory(entropy()).expect("a store"),
        bucket: Arc::clone(&rig.bucket),
        keys: rig.keys.clone(),
        metrics: JournalMetrics::default(),
    };
    other.put("theirs", "2").await;
    let second = other.journal(JournalOptions::default());
    other.caught_up().await;
    rig.put("a", "lost").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(rig.metrics.lag() > Duration::from_secs(20), "the first one shows that it is cut off");
    other.put("more", "3").await;
    second.close(CLOSE).await;
    first.close(CLOSE).await;
    let found = rig.read().await.expect("a journal");
    assert_eq!(found.image, Image::of(other.store.range("").await.expect("a range")));
    assert_eq!((found.epoch, found.findings.len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_is_away_delays_the_journal_and_no_commit() {
    let rig = Rig::new();
    let journal = rig.journal(JournalOptions::default());
    rig.caught_up().await;
    rig.bucket.down.store(true, Ordering::Relaxed);
    // More than the store keeps for watches: a snapshot has to make up for it.
    for number in 0..5000 {
        rig.put(&format!("k{}", number % 10), format!("{number}")).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(rig.metrics.lag() >= Duration::from_secs(60), "{:?}", rig.metrics.lag());
    rig.bucket.lost_answers.store(2, Ordering::Relaxed);
    rig.bucket.down.store(false, Ordering::Relaxed);
    rig.caught_up().await;
    journal.close(CLOSE).await;
    assert!(rig.read().await.expect("a journal").findings.is_empty());
}

#[tokio::test(start_paused = true)]
async fn snapshots_replace_what_came_before_and_one_more_is_kept() {
    let rig = Rig::new();
    let options = JournalOptions {
        interval: Duration::from_millis(10),
        part_bytes: 200,
        objects_per_snapshot: 3,
        ..JournalOptions::default()
    };
    let journal = rig.journal(options);
    for number in 0..200 {
        rig.put(&format!("k{}", number % 20), vec![number as u8; 50]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rig.caught_up().await;
    journal.close(CLOSE).await;
    let sequences = rig.sequences().await;
    assert!(sequences[0] > 50, "old ones are gone: {sequences:?}");
    assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{sequences:?}");
    let whole = rig.read().await.expect("a journal");
    let last = read::get(&*rig.bucket, &rig.keys, whole.sequence).await.expect("an answer");
    let base = last.expect("an object").base;
    // With the newest snapshot damaged the one before and what follows it do.
    rig.damage(base + 1).await;
    let found = rig.read().await.expect("a journal");
    assert_eq!((found.findings.len(), found.sequence), (1, base - 1), "{:?}", found.findings);
    assert_eq!(found.image.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn reading_ends_where_a_change_is_damaged_or_missing() {
    let rig = Rig::new();
    let journal = rig.journal(JournalOptions::default());
    rig.caught_up().await;
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        rig.put(key, value).await;
        rig.caught_up().await;
    }
    journal.close(CLOSE).await;
    let last = rig.read().await.expect("a journal").sequence;
    rig.damage(last - 1).await;
    let found = rig.read().await.expect("a journal");
    assert_eq!((found.image.len(), found.sequence, found.findings.len()), (1, last - 2, 1));
    rig.bucket.delete(&Path::from(rig.keys.catalog(last - 1))).await.expect("gone");
    let found = rig.read().await.expect("a journal");
    assert_eq!((found.image.len(), found.findings.len()), (1, 1), "{:?}", found.findings);
    // Whoever goes on begins with a snapshot, whatever is damaged.
    rig.damage(last).await;
    let _journal = rig.journal(JournalOptions::default());
    rig.caught_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_catalog_comes_back_from_its_journal() {
    let rig = Rig::new();
    let options = || CatalogOptions {
        entropy: entropy(),
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    let store = Arc::new(rig.store.clone());
    let catalog = Catalog::open(store, options()).await.expect("a catalog");
    let journal = rig.journal(JournalOptions::default());
    let node = NodeSpec {
        id: NodeId(1),
        kafka_host: "h".into(),
        kafka_port: 1,
        rack: None,
        peer: None,
        roles: Roles::ALL,
    };
    let _node = catalog.register_node(node, Duration::from_secs(9)).await.expect("registered");
    let spec = VolumeSpec::new(VolumeId(0), VolumeKind::File, "volumes/0.wal", 1 << 20);
    catalog.add_volume(spec.clone()).await.expect("added");
    let tenant = TenantId(3);
    let overrides = BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]);
    for number in 0..300 {
        let name = format!("t{number}");
        let new = NewTopic { name, partitions: 2, overrides: overrides.clone() };
        catalog.create_topic(tenant, new).await.expect("created");
    }
    let given_out = catalog.next_producer_id().await.expect("an id");
    journal.close(CLOSE).await;

    let mut image = rig.read().await.expect("a journal").image;
    assert_eq!(image.cluster_id().expect("an id"), catalog.cluster_id());
    assert_eq!(image.topics().expect("topics").len(), 300);
    assert_eq!(image.volumes().expect("volumes")[0].spec, spec);
    image.set_volume(spec, None, VolumeEpoch(70));
    image.raise_producer_ids(given_out + 5, 1 << 20).expect("parses");
    let store = EmbeddedStore::in_memory(entropy()).expect("a store");
    image.write_to(&store).await.expect("written");
    assert!(matches!(image.write_to(&store).await, Err(ImageError::NotEmpty)));
    let again = Catalog::open(Arc::new(store), options()).await.expect("a catalog");
    assert_eq!(again.cluster_id(), catalog.cluster_id());
    assert_eq!(again.topics(tenant), catalog.topics(tenant));
    assert!(again.nodes().is_empty());
    assert_eq!(again.volume(VolumeId(0)).expect("a volume").epoch, VolumeEpoch(70));
    assert!(again.next_producer_id().await.expect("an id") >= given_out + 5 + (1 << 20));
}
