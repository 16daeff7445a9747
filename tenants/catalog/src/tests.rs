//! The catalog over the embedded store, and over a store that loses touch.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sluice_model::topic_config::TimestampType;
use sluice_model::{
    CatalogLimits, Entropy, GroupDefaults, NodeId, TenantId, TopicDefaults, TopicId, VolumeEpoch,
    VolumeId,
};
use tokio::sync::broadcast::Receiver;

use crate::embedded::EmbeddedStore;
use crate::store::{
    self, Entry, LeaseId, MetadataStore, Outcome, Range, Revision, StoreError, Txn, Watch,
    WatchError,
};
use crate::*;

pub(crate) const A: TenantId = TenantId(1);
pub(crate) const B: TenantId = TenantId(2);

/// Mixed from a counter: every draw is another one.
struct Mixed(AtomicU64);

impl Entropy for Mixed {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let number = cluster::mix(self.0.fetch_add(1, Ordering::Relaxed));
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

fn entropy(seed: u64) -> Arc<dyn Entropy> {
    Arc::new(Mixed(AtomicU64::new(seed << 32)))
}

pub(crate) fn options(seed: u64) -> CatalogOptions {
    CatalogOptions {
        entropy: entropy(seed),
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    }
}

pub(crate) fn memory() -> Arc<dyn MetadataStore> {
    Arc::new(EmbeddedStore::in_memory(entropy(0)).unwrap())
}

pub(crate) async fn open(store: &Arc<dyn MetadataStore>, seed: u64) -> Catalog {
    Catalog::open(Arc::clone(store), options(seed)).await.unwrap()
}

fn file_volume(id: u32) -> VolumeSpec {
    let kind = VolumeKind::File;
    VolumeSpec::new(VolumeId(id), kind, format!("volume-{id}"), 1 << 30)
}

pub(crate) async fn with_volumes(store: &Arc<dyn MetadataStore>, count: u32) -> Catalog {
    let catalog = open(store, 1).await;
    for id in 0..count {
        catalog.add_volume(file_volume(id)).await.unwrap();
    }
    catalog
}

fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions, overrides: BTreeMap::new() }
}

pub(crate) fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn next(changes: &mut Receiver<Change>) -> Change {
    changes.recv().await.unwrap()
}

#[tokio::test]
async fn the_cluster_has_one_identity_for_ever() {
    let store = memory();
    let first = open(&store, 1).await;
    let id = first.cluster_id().to_owned();
    assert_eq!(id.len(), 22);
    assert_eq!(first.cluster_id_of(TenantId::OPEN), id);
    assert_ne!(first.cluster_id_of(A), first.cluster_id_of(B));
    let second = open(&store, 2).await;
    assert_eq!(second.cluster_id(), id);
    assert_eq!(second.cluster_id_of(A), first.cluster_id_of(A));
}

#[tokio::test]
async fn a_newer_or_damaged_catalog_is_refused() {
    let newer = memory();
    newer.commit(Txn::new().put("/sluice/cluster", r#"{"format":3,"id":"x"}"#)).await.unwrap();
    let refused = Catalog::open(newer, options(1)).await.err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat { found: 3, known: 2 }));

    let damaged = memory();
    open(&damaged, 1).await;
    damaged.commit(Txn::new().put("/sluice/topics/1/t", "{")).await.unwrap();
    let refused = Catalog::open(damaged, options(1)).await.err().unwrap();
    assert!(matches!(refused, OpenError::Corrupt(_)));
}

#[tokio::test]
async fn a_topic_is_found_as_soon_as_it_is_made() {
    let catalog = with_volumes(&memory(), 3).await;
    let mut changes = catalog.subscribe();
    let new = NewTopic {
        overrides: overrides(&[("message.timestamp.type", "LogAppendTime")]),
        ..new_topic("orders", 7)
    };
    let topic = catalog.create_topic(A, new).await.unwrap();
    assert_eq!((topic.tenant, &*topic.name, topic.partitions.len()), (A, "orders", 7));
    assert_eq!(topic.config.timestamp_type, TimestampType::LogAppendTime);
    assert!(!topic.id.is_internal());
    assert!(Arc::ptr_eq(&topic, &catalog.topic_by_name(A, "orders").unwrap()));
    assert!(Arc::ptr_eq(&topic, &catalog.topic_by_id(A, topic.id).unwrap()));
    assert!(Arc::ptr_eq(&topic, &catalog.topic_of_any_tenant(topic.id).unwrap()));
    assert!(matches!(next(&mut changes).await, Change::TopicCreated(t) if t.id == topic.id));
    let used: HashSet<_> = topic.partitions.iter().collect();
    assert_eq!(used.len(), 3, "a topic is spread over all volumes");
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let catalog = with_volumes(&memory(), 1).await;
    let ours = catalog.create_topic(A, new_topic("t.x", 1)).await.unwrap();
    assert!(catalog.topic_by_name(B, "t.x").is_none());
    assert!(catalog.topic_by_id(B, ours.id).is_none());
    assert!(catalog.topics(B).is_empty());
    assert_eq!(catalog.delete_topic(B, ours.id).await, Err(DeleteTopicError::NotFound));
    let grown = catalog.create_partitions(B, ours.id, 5).await;
    assert_eq!(grown.err(), Some(CreatePartitionsError::NotFound));
    let altered = catalog.update_topic_overrides(B, ours.id, |_| ()).await;
    assert_eq!(altered.err(), Some(AlterTopicError::NotFound));
    // Names are each tenant's own, and so is what they collide with.
    catalog.create_topic(B, new_topic("t_x", 1)).await.unwrap();
    let theirs = catalog.create_topic(B, new_topic("other", 2)).await.unwrap();
    assert_ne!(ours.id, theirs.id);
    let names =
        |tenant| catalog.topics(tenant).iter().map(|t| t.name.to_string()).collect::<Vec<_>>();
    assert_eq!((names(A), names(B)), (vec!["t.x".to_owned()], vec!["other".into(), "t_x".into()]));
    assert_eq!(catalog.topics_of_all_tenants().len(), 3);
}

#[tokio::test]
async fn topics_that_may_not_be_are_refused_before_anything_is_written() {
    let store = memory();
    let catalog = open(&store, 1).await;
    let create = async |new: NewTopic| catalog.create_topic(A, new).await.unwrap_err();
    assert_eq!(create(new_topic("t", 1)).await, CreateTopicError::NoVolumes);
    catalog.add_volume(file_volume(0)).await.unwrap();
    catalog.create_topic(A, new_topic("a.b", 1)).await.unwrap();
    let before = store.range("").await.unwrap();

    assert!(matches!(create(new_topic("a b", 1)).await, CreateTopicError::InvalidName(_)));
    assert_eq!(create(new_topic("a.b", 1)).await, CreateTopicError::Exists("a.b".into()));
    let collides = create(new_topic("a_b", 1)).await;
    assert_eq!(collides.to_string(), "Topic 'a_b' collides with existing topic: a.b");
    for asked in [0, 10_001] {
        let max = 10_000;
        let refused = create(new_topic("t", asked)).await;
        assert_eq!(refused, CreateTopicError::InvalidPartitions { asked, max });
    }
    let bad = NewTopic { overrides: overrides(&[("retention.ms", "x")]), ..new_topic("t", 1) };
    assert_eq!(catalog.check_create_topic(A, &bad).err(), Some(create(bad).await));
    assert_eq!(catalog.check_create_topic(A, &new_topic("t", 1)), Ok(()));
    assert_eq!(store.range("").await.unwrap(), before);
}

#[tokio::test]
async fn tenants_have_limits() {
    let limits = CatalogLimits {
        topics_per_tenant: 2,
        partitions_per_topic: 8,
        partitions_per_tenant: 10,
        ..CatalogLimits::default()
    };
    let catalog = Catalog::open(memory(), CatalogOptions { limits, ..options(1) }).await.unwrap();
    catalog.add_volume(file_volume(0)).await.unwrap();
    let first = catalog.create_topic(A, new_topic("a", 4)).await.unwrap();
    let refused = catalog.create_topic(A, new_topic("b", 7)).await.unwrap_err();
    assert_eq!(refused, CreateTopicError::LimitReached { what: "partitions", limit: 10 });
    catalog.create_topic(A, new_topic("b", 5)).await.unwrap();
    let refused = catalog.create_topic(A, new_topic("c", 1)).await.unwrap_err();
    assert_eq!(refused, CreateTopicError::LimitReached { what: "topics", limit: 2 });
    let refused = catalog.create_partitions(A, first.id, 6).await.unwrap_err();
    assert_eq!(refused, CreatePartitionsError::LimitReached { limit: 10 });
    let refused = catalog.create_partitions(A, first.id, 9).await.unwrap_err();
    assert_eq!(refused, CreatePartitionsError::InvalidPartitions { asked: 9, max: 8 });
    // What is deleted counts no more, and another tenant has limits of its own.
    catalog.delete_topic(A, first.id).await.unwrap();
    catalog.create_topic(A, new_topic("c", 5)).await.unwrap();
    catalog.create_topic(B, new_topic("a", 8)).await.unwrap();
}

#[tokio::test]
async fn a_tenants_topics_have_another_version_after_each_change() {
    let catalog = with_volumes(&memory(), 1).await;
    assert_eq!(catalog.topics_version(A), 0);
    let mut seen = vec![0];
    let mut changed = |catalog: &Catalog| {
        let version = catalog.topics_version(A);
        assert!(!seen.contains(&version), "{version} in {seen:?}");
        seen.push(version);
    };
    let topic = catalog.create_topic(A, new_topic("a", 1)).await.unwrap();
    changed(&catalog);
    catalog.create_partitions(A, topic.id, 2).await.unwrap();
    changed(&catalog);
    catalog.create_topic(A, new_topic("b", 1)).await.unwrap();
    changed(&catalog);
    catalog.delete_topic(A, topic.id).await.unwrap();
    changed(&catalog);
    // Another tenant's changes are not seen.
    let before = catalog.topics_version(A);
    catalog.create_topic(B, new_topic("a", 1)).await.unwrap();
    assert_eq!(catalog.topics_version(A), before);
}

#[tokio::test]
async fn a_topic_that_is_made_again_is_another() {
    let catalog = with_volumes(&memory(), 1).await;
    catalog.create_topic(A, new_topic("stays", 1)).await.unwrap();
    let first = catalog.create_topic(A, new_topic("a_b", 1)).await.unwrap();
    let mut changes = catalog.subscribe();
    catalog.delete_topic(A, first.id).await.unwrap();
    assert!(
        catalog.topic_by_name(A, "a_b").is_none() && catalog.topic_by_id(A, first.id).is_none()
    );
    assert!(matches!(next(&mut changes).await, Change::TopicDeleted(t) if t.id == first.id));
    assert_eq!(catalog.delete_topic(A, first.id).await, Err(DeleteTopicError::NotFound));
    // The name is free again, and with it those that it collided with.
    catalog.create_topic(A, new_topic("a.b", 1)).await.unwrap();
    let again = catalog.topic_by_name(A, "a.b").unwrap();
    assert_ne!(first.id, again.id);
}

#[tokio::test]
async fn partitions_are_added_and_keep_their_places() {
    let catalog = with_volumes(&memory(), 4).await;
    let topic = catalog.create_topic(A, new_topic("t", 3)).await.unwrap();
    let mut changes = catalog.subscribe();
    assert_eq!(catalog.check_create_partitions(A, topic.id, 8), Ok(()));
    let grown = catalog.create_partitions(A, topic.id, 8).await.unwrap();
    assert_eq!((grown.id, &grown.partitions[..3]), (topic.id, &topic.partitions[..]));
    for volume in 0..4 {
        assert_eq!(grown.partitions.iter().filter(|v| v.0 == volume).count(), 2);
    }
    assert!(matches!(next(&mut changes).await, Change::TopicChanged { old, new }
        if old.partitions.len() == 3 && new.partitions.len() == 8));
    for asked in [8, 3, 0] {
        let refused =
            CreatePartitionsError::NotMore { topic: Arc::clone(&topic.name), current: 8, asked };
        assert_eq!(catalog.check_create_partitions(A, topic.id, asked), Err(refused.clone()));
        assert_eq!(catalog.create_partitions(A, topic.id, asked).await, Err(refused));
    }
}

#[tokio::test]
async fn overrides_change_and_are_checked_as_a_whole() {
    let defaults = TopicDefaults::new(overrides(&[("retention.ms", "1000")])).unwrap();
    let options = CatalogOptions { topic_defaults: defaults, ..options(1) };
    let catalog = Catalog::open(memory(), options).await.unwrap();
    catalog.add_volume(file_volume(0)).await.unwrap();
    let topic = catalog.create_topic(A, new_topic("t", 1)).await.unwrap();
    assert_eq!(topic.config.retention_ms, Some(1000));
    let set = |name: &'static str, value: &'static str| {
        move |o: &mut BTreeMap<String, String>| drop(o.insert(name.to_owned(), value.to_owned()))
    };
    let update = async |edit| catalog.update_topic_overrides(A, topic.id, edit).await;
    let changed = update(set("retention.ms", "7")).await.unwrap();
    assert_eq!(changed.config.retention_ms, Some(7));
    let mut changes = catalog.subscribe();
    assert!(matches!(
        update(set("retention.ms", "x")).await,
        Err(AlterTopicError::InvalidConfig(_))
    ));
    let same = update(set("retention.ms", "7")).await.unwrap();
    assert!(Arc::ptr_eq(&same, &changed));
    assert!(changes.try_recv().is_err(), "nothing has changed");
    let back = catalog.update_topic_overrides(A, topic.id, BTreeMap::clear).await.unwrap();
    assert_eq!((back.config.retention_ms, back.overrides.len()), (Some(1000), 0));
    assert!(matches!(next(&mut changes).await, Change::TopicChanged { .. }));
}

#[tokio::test]
async fn what_a_tenant_sets_on_its_brokers_are_the_defaults_of_its_topics() {
    let store = memory();
    let opened = async |seed, node| {
        let options = CatalogOptions { node: Some(NodeId(node)), ..options(seed) };
        Catalog::open(Arc::clone(&store), options).await.unwrap()
    };
    let (one, two) = (opened(1, 1).await, opened(2, 2).await);
    one.add_volume(file_volume(0)).await.unwrap();
    let plain = one.create_topic(A, new_topic("plain", 1)).await.unwrap();
    let own = NewTopic { overrides: overrides(&[("retention.ms", "7")]), ..new_topic("own", 1) };
    let own = one.create_topic(A, own).await.unwrap();
    let theirs = one.create_topic(B, new_topic("plain", 1)).await.unwrap();
    let set = async |broker: &str, value: &str| {
        let pairs = overrides(&[("log.retention.ms", value), ("background.threads", "9")]);
        let edit = |stored: &mut BTreeMap<String, String>| stored.clone_from(&pairs);
        one.update_resource(A, ResourceKind::Broker, broker, edit).await
    };
    let retention = |catalog: &Catalog, topic: &Topic| {
        catalog.topic_of_any_tenant(topic.id).unwrap().config.retention_ms
    };
    let week = Some(604_800_000);
    let mut changes = one.subscribe();
    let mut changes_of_two = two.subscribe();
    set("", "3000").await.unwrap();
    assert_eq!(retention(&one, &plain), Some(3000));
    assert!(matches!(next(&mut changes).await, Change::TopicChanged { old, new }
        if old.config.retention_ms == week && new.config.retention_ms == Some(3000)));
    assert_eq!((retention(&one, &own), retention(&one, &theirs)), (Some(7), week));
    assert!(changes.try_recv().is_err(), "of the other topics nothing has changed");
    // What is set on one broker holds there.
    set("2", "2000").await.unwrap();
    assert_eq!(retention(&one, &plain), Some(3000));
    while retention(&two, &plain) != Some(2000) {
        next(&mut changes_of_two).await;
    }
    // New topics have it from the beginning, and a start finds it again.
    let later = one.create_topic(A, new_topic("later", 1)).await.unwrap();
    assert_eq!(later.config.retention_ms, Some(3000));
    assert_eq!(retention(&opened(3, 2).await, &later), Some(2000));
    // Refused as a whole: a bad value, and defaults that no topic could have.
    assert!(matches!(set("", "x").await, Err(AlterResourceError::InvalidBroker(_))));
    let pairs = overrides(&[
        ("log.cleaner.min.compaction.lag.ms", "11"),
        ("log.cleaner.max.compaction.lag.ms", "10"),
    ]);
    let conflict = one.check_resource(A, ResourceKind::Broker, "", &pairs);
    assert!(matches!(conflict, Err(AlterResourceError::InvalidBroker(_))));
    // When the last is taken away, all is as it was.
    for broker in ["", "2"] {
        one.update_resource(A, ResourceKind::Broker, broker, BTreeMap::clear).await.unwrap();
    }
    assert_eq!(retention(&one, &plain), week);
    while retention(&two, &plain) != week {
        next(&mut changes_of_two).await;
    }
}

#[tokio::test]
async fn racing_mutations_all_count() {
    let store = memory();
    with_volumes(&store, 2).await;
    let catalogs = [open(&store, 3).await, open(&store, 4).await];
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..20 {
        let catalog = catalogs[at % 2].clone();
        tasks.spawn(async move { catalog.create_topic(A, new_topic("t", 1)).await.is_ok() });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);

    // Whoever lost may not see it yet.
    let mut changes = catalogs[1].subscribe();
    let id = match catalogs[1].topic_by_name(A, "t") {
        Some(topic) => topic.id,
        None => match next(&mut changes).await {
            Change::TopicCreated(topic) => topic.id,
            other => panic!("{other:?}"),
        },
    };
    let keys = ["retention.ms", "retention.bytes", "segment.ms", "flush.ms", "delete.retention.ms"];
    let mut tasks = tokio::task::JoinSet::new();
    for (at, key) in keys.into_iter().enumerate() {
        let catalog = catalogs[at % 2].clone();
        tasks.spawn(async move {
            let edit = |o: &mut BTreeMap<_, _>| drop(o.insert(key.to_owned(), "9".to_owned()));
            while catalog.update_topic_overrides(A, id, edit).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
    let record = store.get("/sluice/topics/1/t").await.unwrap().unwrap();
    let text = String::from_utf8(record.value.to_vec()).unwrap();
    assert!(keys.iter().all(|key| text.contains(key)), "{text}");
}

#[tokio::test]
async fn a_restart_finds_everything() {
    let dir = tempfile::TempDir::new().unwrap();
    let disk = EmbeddedStore::open(dir.path(), entropy(9)).await.unwrap();
    let store: Arc<dyn MetadataStore> = Arc::new(disk.clone());
    let catalog = with_volumes(&store, 2).await;
    for at in 0..30 {
        let overrides = overrides(&[("retention.ms", &at.to_string())]);
        let new = NewTopic { overrides, ..new_topic(&format!("t{at:02}"), at + 1) };
        catalog.create_topic(if at % 2 == 0 { A } else { B }, new).await.unwrap();
    }
    catalog.claim_volume(VolumeId(1), NodeId(5), VolumeEpoch(0)).await.unwrap();
    let ids = catalog.allocate_producer_ids(10).await.unwrap();
    let before = (catalog.topics(A), catalog.topics(B), catalog.volumes());
    let id = catalog.cluster_id().to_owned();
    drop(catalog);
    disk.close().await;

    let disk = EmbeddedStore::open(dir.path(), entropy(9)).await.unwrap();
    let catalog = Catalog::open(Arc::new(disk), options(5)).await.unwrap();
    assert_eq!((catalog.topics(A), catalog.topics(B), catalog.volumes()), before);
    assert_eq!(catalog.cluster_id(), id);
    assert_eq!(catalog.allocate_producer_ids(1).await.unwrap(), ids.end..ids.end + 1);
}

#[tokio::test]
async fn an_epoch_has_one_owner() {
    let store = memory();
    let catalog = with_volumes(&store, 1).await;
    let volume = VolumeId(0);
    assert_eq!(catalog.add_volume(file_volume(0)).await, Err(AddVolumeError::Exists(volume)));
    let missing = catalog.claim_volume(VolumeId(9), NodeId(1), VolumeEpoch(0)).await;
    assert_eq!(missing, Err(ClaimError::NotFound(VolumeId(9))));
    for round in 0..10 {
        let mut tasks = tokio::task::JoinSet::new();
        for node in 1..=8 {
            let catalog = catalog.clone();
            tasks.spawn(async move {
                (node, catalog.claim_volume(volume, NodeId(node), VolumeEpoch(round)).await)
            });
        }
        let results = tasks.join_all().await;
        let winners: Vec<_> = results.iter().filter(|(_, claim)| claim.is_ok()).collect();
        assert_eq!(winners.len(), 1);
        let (node, claim) = winners[0];
        assert_eq!(*claim, Ok(VolumeEpoch(round + 1)));
        let seen = catalog.volume(volume).unwrap();
        assert_eq!((seen.owner, seen.epoch), (Some(NodeId(*node)), VolumeEpoch(round + 1)));
    }
    let last = format!(
        r#"{{"spec":{{"id":0,"kind":"file","location":"v","size_bytes":1}},"epoch":{}}}"#,
        i32::MAX
    );
    store.commit(Txn::new().put("/sluice/volumes/0", last)).await.unwrap();
    let claim = catalog.claim_volume(volume, NodeId(1), VolumeEpoch::MAX).await;
    assert_eq!(claim, Err(ClaimError::Exhausted(volume)));
}

#[tokio::test]
async fn an_owner_gives_up_its_own_volume_and_no_other() {
    let store = memory();
    let catalog = with_volumes(&store, 1).await;
    let (volume, a, b) = (VolumeId(0), NodeId(1), NodeId(2));
    let none = catalog.release_volume(VolumeId(9), a, VolumeEpoch(0)).await;
    assert_eq!(none, Err(ReleaseVolumeError::NotFound(VolumeId(9))));
    let first = catalog.claim_volume(volume, a, VolumeEpoch(0)).await.unwrap();
    for (node, epoch) in [(b, first), (a, VolumeEpoch(0)), (a, VolumeEpoch(2))] {
        let refused = catalog.release_volume(volume, node, epoch).await;
        let kept = ReleaseVolumeError::NotOwner { id: volume, owner: Some(a), epoch: first };
        assert_eq!(refused, Err(kept));
    }
    for _ in 0..2 {
        catalog.release_volume(volume, a, first).await.unwrap();
        let seen = catalog.volume(volume).unwrap();
        assert_eq!((seen.owner, seen.epoch), (None, first), "an epoch is never given twice");
    }
    let second = catalog.claim_volume(volume, b, first).await.unwrap();
    assert_eq!(second, VolumeEpoch(2));
    let late = catalog.release_volume(volume, a, first).await;
    let kept = ReleaseVolumeError::NotOwner { id: volume, owner: Some(b), epoch: second };
    assert_eq!(late, Err(kept), "the next owner keeps it");
}

#[tokio::test]
async fn nodes_that_add_volumes_at_once_add_what_is_missing() {
    let store = memory();
    // Three of all nodes together, and two files of each node.
    let next = |known: &[VolumeSpec]| VolumeId(known.last().map_or(0, |spec| spec.id.0 + 1));
    let shared = move |known: &[VolumeSpec]| {
        let have = known.iter().filter(|spec| spec.kind == VolumeKind::Object).count();
        (have < 3).then(|| VolumeSpec::new(next(known), VolumeKind::Object, "", 1))
    };
    let mut nodes = Vec::new();
    for node in 0..8 {
        let catalog = open(&store, 10 + node).await;
        let home = Some(NodeId(node as i32));
        let own = move |known: &[VolumeSpec]| {
            let have = known.iter().filter(|spec| spec.home == home).count();
            let spec = VolumeSpec::new(next(known), VolumeKind::File, "f", 1);
            (have < 2).then_some(VolumeSpec { home, ..spec })
        };
        nodes.push(tokio::spawn(async move {
            catalog.add_volumes(shared).await.unwrap();
            let added = catalog.add_volumes(own).await.unwrap();
            assert_eq!(added, 2);
            let seen = catalog.volumes();
            assert_eq!(seen.iter().filter(|v| v.spec.home.is_none()).count(), 3);
            assert_eq!(seen.iter().filter(|v| v.spec.home == home).count(), 2);
            assert_eq!(catalog.add_volumes(own).await.unwrap(), 0);
        }));
    }
    for node in nodes {
        node.await.unwrap();
    }
    let ids: Vec<_> = open(&store, 1).await.volumes().iter().map(|v| v.spec.id.0).collect();
    assert_eq!(ids, Vec::from_iter(0..19));
}

#[tokio::test]
async fn who_shall_own_a_volume_is_noted_beside_who_does() {
    let catalog = with_volumes(&memory(), 1).await;
    let id = VolumeId(0);
    let epoch = catalog.claim_volume(id, NodeId(1), VolumeEpoch(0)).await.unwrap();
    catalog.want_volume(id, Some(NodeId(2))).await.unwrap();
    let volume = catalog.volume(id).unwrap();
    assert_eq!((volume.owner, volume.epoch), (Some(NodeId(1)), epoch));
    assert_eq!(volume.wanted, Some(NodeId(2)));
    catalog.release_volume(id, NodeId(1), epoch).await.unwrap();
    catalog.claim_volume(id, NodeId(3), epoch).await.unwrap();
    assert_eq!(catalog.volume(id).unwrap().wanted, Some(NodeId(2)), "a claim clears nothing");
    catalog.settle_volume(id, NodeId(3)).await.unwrap();
    assert_eq!(catalog.volume(id).unwrap().wanted, Some(NodeId(2)), "that is not who was wanted");
    catalog.settle_volume(id, NodeId(2)).await.unwrap();
    assert_eq!(catalog.read_volume(id).await.unwrap().unwrap().wanted, None);
    let absent = catalog.want_volume(VolumeId(9), None).await;
    assert_eq!(absent, Err(WantVolumeError::NotFound(VolumeId(9))));
}

#[test]
fn a_volume_is_reached_by_writers_of_its_home_or_zone() {
    let writer =
        |id, rack: Option<&str>| NodeSpec { rack: rack.map(str::to_owned), ..node(id, 9092) };
    let spec = file_volume(1);
    assert!(spec.is_reached_by(&writer(1, None)) && spec.is_reached_by(&writer(2, Some("a"))));
    let roles = Roles { writer: false, ..Roles::ALL };
    assert!(!spec.is_reached_by(&NodeSpec { roles, ..writer(1, None) }));
    let at_home = VolumeSpec { home: Some(NodeId(1)), ..spec.clone() };
    assert!(at_home.is_reached_by(&writer(1, None)) && !at_home.is_reached_by(&writer(2, None)));
    let in_zone = VolumeSpec { zone: Some("a".to_owned()), ..spec.clone() };
    assert!(in_zone.is_reached_by(&writer(2, Some("a"))));
    assert!(
        !in_zone.is_reached_by(&writer(2, Some("b"))) && !in_zone.is_reached_by(&writer(2, None))
    );
    let shared = VolumeSpec { location: "/shared/1.wal".to_owned(), ..spec.clone() };
    assert!(shared.is_shared_file() && !spec.is_shared_file());
    let at_home = VolumeSpec { home: Some(NodeId(1)), ..shared };
    assert!(!at_home.is_shared_file());
}

#[tokio::test]
async fn partitions_go_where_a_live_node_is() {
    let store = memory();
    let catalog = with_volumes(&store, 1).await;
    let gone = VolumeSpec { home: Some(NodeId(7)), ..file_volume(1) };
    catalog.add_volume(gone).await.unwrap();
    let _node = catalog.register_node(node(1, 9092), TTL).await.unwrap();
    let topic = catalog.create_topic(A, new_topic("t", 4)).await.unwrap();
    assert_eq!(topic.partitions[..], [VolumeId(0); 4]);
    let _home = catalog.register_node(node(7, 9093), TTL).await.unwrap();
    let topic = catalog.create_topic(A, new_topic("u", 2)).await.unwrap();
    assert!(topic.partitions.contains(&VolumeId(1)));
}

#[tokio::test]
async fn no_producer_id_is_given_out_twice() {
    let store = memory();
    let catalogs = [open(&store, 1).await, open(&store, 2).await, open(&store, 3).await];
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..30 {
        let catalog = catalogs[at % 3].clone();
        tasks.spawn(async move {
            let mut ids: Vec<i64> = Vec::new();
            for _ in 0..100 {
                ids.push(catalog.next_producer_id().await.unwrap());
            }
            ids.extend(catalog.allocate_producer_ids(3).await.unwrap());
            ids
        });
    }
    let ids = tasks.join_all().await.concat();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    assert!(ids.iter().all(|id| (0..10_000).contains(id)));
    store
        .commit(Txn::new().put("/sluice/producer-ids", r#"{"next":9223372036854775807}"#))
        .await
        .unwrap();
    assert_eq!(catalogs[0].allocate_producer_ids(1).await, Err(AllocateError::Exhausted));
}

fn node(id: i32, port: u16) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        kafka_host: "localhost".to_owned(),
        kafka_port: port,
        rack: None,
        peer: None,
        roles: Roles::ALL,
    }
}

const TTL: Duration = Duration::from_secs(9);

#[tokio::test(start_paused = true)]
async fn nodes_live_as_long_as_their_lease() {
    let store = memory();
    let catalog = open(&store, 1).await;
    let other = open(&store, 2).await;
    let mut changes = other.subscribe();
    let first = catalog.register_node(node(1, 9092), TTL).await.unwrap();
    let second = catalog.register_node(node(2, 9093), TTL).await.unwrap();
    assert_eq!(catalog.nodes().iter().map(|n| n.spec.id.0).collect::<Vec<_>>(), [1, 2]);
    for _ in 0..2 {
        assert!(matches!(next(&mut changes).await, Change::NodeChanged(_)));
    }
    tokio::time::sleep(TTL * 10).await;
    assert_eq!(other.nodes().len(), 2);
    first.deregister().await.unwrap();
    assert!(matches!(next(&mut changes).await, Change::NodeGone(n) if n.spec.id == NodeId(1)));
    drop(second);
    assert!(matches!(next(&mut changes).await, Change::NodeGone(n) if n.spec.id == NodeId(2)));
    assert!(other.nodes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_takes_its_place_and_the_old_one_learns_it() {
    let store = memory();
    let (old_life, new_life) = (open(&store, 1).await, open(&store, 2).await);
    let old = old_life.register_node(node(1, 9092), TTL).await.unwrap();
    let _new = new_life.register_node(node(1, 9999), TTL).await.unwrap();
    assert_eq!(new_life.node(NodeId(1)).unwrap().spec.kafka_port, 9999);
    let mut state = old.state();
    state.wait_for(|state| *state == RegistrationState::Replaced).await.unwrap();
    tokio::time::sleep(TTL * 10).await;
    assert_eq!(old_life.node(NodeId(1)).unwrap().spec.kafka_port, 9999);
    old.deregister().await.unwrap();
    assert_eq!(new_life.nodes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_steers_is_seen_by_all_and_goes_with_its_node() {
    let store = memory();
    let (catalog, other) = (open(&store, 1).await, open(&store, 2).await);
    let first = catalog.register_node(node(1, 9092), TTL).await.unwrap();
    let second = other.register_node(node(2, 9093), TTL).await.unwrap();
    let (one, two) = (first.handle(), second.handle());
    assert!(one.campaign().await.unwrap() && one.campaign().await.unwrap());
    let load = NodeLoad { in_bytes: 7, volumes: [(VolumeId(3), 9)].into(), ..NodeLoad::default() };
    one.publish_load(&load).await.unwrap();
    one.leave().await.unwrap();
    other.drain_node(NodeId(2)).await.unwrap();
    two.leave().await.unwrap();
    assert!(!two.campaign().await.unwrap());
    assert_eq!((other.balancer(), other.loads().len()), (Some(NodeId(1)), 1));
    assert_eq!(*other.loads()[&NodeId(1)], load);
    let drains = [(NodeId(1), Drain::Leaving), (NodeId(2), Drain::Told)];
    assert_eq!(other.drains(), drains.into());
    first.deregister().await.unwrap();
    second.deregister().await.unwrap();
    let last = open(&store, 3).await;
    assert_eq!((last.balancer(), last.loads().len()), (None, 0));
    assert_eq!(last.drains(), [(NodeId(2), Drain::Told)].into(), "an operator said so");
    last.undrain_node(NodeId(2)).await.unwrap();
    assert!(last.drains().is_empty() && last.is_balancing());
    last.set_balancing(false).await.unwrap();
    assert!(!last.is_balancing());
    let decision = |at_ms| Decision {
        at_ms,
        volume: VolumeId(1),
        from: NodeId(1),
        to: NodeId(2),
        why: "it had more".to_owned(),
    };
    for at_ms in 0..DECISIONS_KEPT as i64 + 2 {
        last.note_decisions(&[decision(at_ms)]).await.unwrap();
    }
    let kept = last.decisions().await.unwrap();
    assert_eq!((kept.len(), kept[0].at_ms), (DECISIONS_KEPT, 2));
}

/// A lease that the store does not keep alive counts as over before the store can end it, also when the store does
/// not answer at all.
#[tokio::test(start_paused = true)]
async fn a_tenure_ends_before_its_lease_and_does_not_come_back() {
    for silent_for in [Duration::ZERO, TTL * 2] {
        tenure_with(silent_for).await;
    }
}

async fn tenure_with(silent_for: Duration) {
    let cut = Arc::new(AtomicBool::new(false));
    let store: Arc<dyn MetadataStore> = Arc::new(Flaky {
        inner: EmbeddedStore::in_memory(entropy(0)).unwrap(),
        delay: Duration::ZERO,
        cut: Arc::clone(&cut),
        error: WatchError::Interrupted("cut".to_owned()),
        silent_for,
    });
    let catalog = open(&store, 1).await;
    let registration = catalog.register_node(node(1, 9092), TTL).await.unwrap();
    let tenure = registration.handle().tenure();
    let mut state = registration.state();
    tokio::time::sleep(TTL * 5).await;
    assert!(tenure.holds() && *state.borrow() == RegistrationState::Live);
    let begun = tokio::time::Instant::now();
    cut.store(true, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrationState::Lapsed).await.unwrap();
    assert!(!tenure.holds() && begun.elapsed() < TTL && begun.elapsed() > TTL / 2);
    assert!(catalog.node(NodeId(1)).is_some(), "the store still has the lease");
    tokio::time::sleep(TTL * 3).await;
    cut.store(false, Ordering::Relaxed);
    state.wait_for(|state| *state == RegistrationState::Live).await.unwrap();
    assert!(registration.handle().tenure().holds() && !tenure.holds());
}

/// A store whose watches are slow, and end when they are told to; then leases cannot be kept alive.
struct Flaky {
    inner: EmbeddedStore,
    delay: Duration,
    cut: Arc<AtomicBool>,
    error: WatchError,
    /// Before it says that a lease cannot be kept alive.
    silent_for: Duration,
}

struct FlakyWatch {
    inner: Box<dyn Watch>,
    delay: Duration,
    cut: Arc<AtomicBool>,
    error: WatchError,
}

#[async_trait]
impl Watch for FlakyWatch {
    async fn next(&mut self) -> Result<store::Change, WatchError> {
        loop {
            if self.cut.load(Ordering::Relaxed) {
                return Err(self.error.clone());
            }
            tokio::select! {
                change = self.inner.next() => {
                    tokio::time::sleep(self.delay).await;
                    return change;
                }
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }
}

#[async_trait]
impl MetadataStore for Flaky {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        if self.cut.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("cut".to_owned()));
        }
        self.inner.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.inner.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(FlakyWatch {
            inner: self.inner.watch(prefix, after).await?,
            delay: self.delay,
            cut: Arc::clone(&self.cut),
            error: self.error.clone(),
        }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        if self.cut.load(Ordering::Relaxed) {
            tokio::time::sleep(self.silent_for).await;
            return Err(StoreError::Unavailable("cut".to_owned()));
        }
        self.inner.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_that_lost_touch_catches_up() {
    for error in [WatchError::Compacted, WatchError::Interrupted("gone".to_owned())] {
        let inner = EmbeddedStore::in_memory(entropy(0)).unwrap();
        let sound: Arc<dyn MetadataStore> = Arc::new(inner.clone());
        let catalog = with_volumes(&sound, 2).await;
        let kept = catalog.create_topic(A, new_topic("kept", 2)).await.unwrap();
        let gone = catalog.create_topic(A, new_topic("gone", 2)).await.unwrap();
        let replaced = catalog.create_topic(A, new_topic("replaced", 2)).await.unwrap();

        let cut = Arc::new(AtomicBool::new(false));
        let delay = Duration::ZERO;
        let silent_for = Duration::ZERO;
        let flaky = Flaky { inner, delay, cut: Arc::clone(&cut), error: error.clone(), silent_for };
        let follower = Catalog::open(Arc::new(flaky), options(2)).await.unwrap();
        let registration = follower.register_node(node(1, 1), TTL).await.unwrap();
        let mut state = registration.state();
        let mut changes = follower.subscribe();
        cut.store(true, Ordering::Relaxed);
        // The follower's watch must have noticed before anything happens.
        tokio::time::sleep(Duration::from_millis(10)).await;
        state.wait_for(|state| *state == RegistrationState::Lapsed).await.unwrap();
        catalog.delete_topic(A, gone.id).await.unwrap();
        catalog.delete_topic(A, replaced.id).await.unwrap();
        catalog.create_topic(A, new_topic("replaced", 1)).await.unwrap();
        catalog.create_topic(A, new_topic("new", 1)).await.unwrap();
        catalog.create_partitions(A, kept.id, 3).await.unwrap();
        assert!(follower.topic_by_name(A, "new").is_none());
        cut.store(false, Ordering::Relaxed);

        state.wait_for(|state| *state == RegistrationState::Live).await.unwrap();
        let mut followed: BTreeMap<_, TopicId> =
            [&kept, &gone, &replaced].map(|t| (t.name.to_string(), t.id)).into();
        let ids = |topics: Vec<Arc<Topic>>| -> BTreeMap<_, _> {
            topics.iter().map(|t| (t.name.to_string(), t.id)).collect()
        };
        while followed != ids(catalog.topics(A)) {
            match next(&mut changes).await {
                Change::TopicCreated(t) => drop(followed.insert(t.name.to_string(), t.id)),
                Change::TopicDeleted(t) => drop(followed.remove(&*t.name)),
                Change::TopicReplaced { old, new } => {
                    assert_eq!(followed.insert(new.name.to_string(), new.id), Some(old.id));
                }
                _ => {}
            }
        }
        assert_eq!(follower.topics(A), catalog.topics(A));
        assert_eq!(catalog.node(NodeId(1)).unwrap().spec, node(1, 1));
        // Placement goes by loads that are right again.
        assert_eq!(follower.topics_of_all_tenants().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mutation_returns_when_lookups_show_it() {
    let inner = EmbeddedStore::in_memory(entropy(0)).unwrap();
    let (delay, cut) = (Duration::from_secs(1), Arc::default());
    let slow: Arc<dyn MetadataStore> = Arc::new(Flaky {
        inner,
        delay,
        cut,
        error: WatchError::Compacted,
        silent_for: Duration::ZERO,
    });
    let catalog = with_volumes(&slow, 2).await;
    assert_eq!(catalog.volumes().len(), 2);
    let topic = catalog.create_topic(A, new_topic("t", 1)).await.unwrap();
    assert!(catalog.topic_by_name(A, "t").is_some());
    catalog.create_partitions(A, topic.id, 2).await.unwrap();
    assert_eq!(catalog.topic_by_id(A, topic.id).unwrap().partitions.len(), 2);
    let set = |o: &mut BTreeMap<_, _>| drop(o.insert("retention.ms".to_owned(), "7".to_owned()));
    catalog.update_topic_overrides(A, topic.id, set).await.unwrap();
    assert_eq!(catalog.topic_by_id(A, topic.id).unwrap().config.retention_ms, Some(7));
    catalog.claim_volume(VolumeId(1), NodeId(1), VolumeEpoch(0)).await.unwrap();
    assert_eq!(catalog.volume(VolumeId(1)).unwrap().epoch, VolumeEpoch(1));
    let _node = catalog.register_node(node(1, 1), TTL).await.unwrap();
    assert_eq!(catalog.nodes().len(), 1);
    catalog.delete_topic(A, topic.id).await.unwrap();
    assert!(catalog.topic_by_id(A, topic.id).is_none());
}
