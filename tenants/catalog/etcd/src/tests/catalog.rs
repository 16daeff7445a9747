//! The catalog over etcd: it follows what others do, through everything that etcd does to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_catalog::store::{MetadataStore, Txn};
use sluice_catalog::{
    Catalog, CatalogOptions, Change, NewTopic, NodeSpec, RegistrationState, Roles, VolumeKind,
    VolumeSpec,
};
use sluice_model::{
    CatalogLimits, Entropy, GroupDefaults, NodeId, TenantId, TopicDefaults, VolumeId,
};
use tokio::sync::broadcast::error::RecvError;

use super::proxy::Proxy;
use super::server::Etcd;
use super::{committed, open, options};
use crate::EtcdOptions;

const TENANT: TenantId = TenantId(1);

/// Every draw is another one.
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

async fn catalog(store: &Arc<dyn MetadataStore>, seed: u64) -> Catalog {
    let options = CatalogOptions {
        entropy: Arc::new(Counted(AtomicU64::new(seed << 32))),
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    Catalog::open(Arc::clone(store), options).await.unwrap()
}

fn topic(name: &str) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions: 3, overrides: BTreeMap::new() }
}

fn volume() -> VolumeSpec {
    let location = "volumes/0.wal".to_owned();
    VolumeSpec::new(VolumeId(0), VolumeKind::File, location, 1 << 30)
}

/// Waits until the catalog shows a topic, or shows it no more.
async fn shown(catalog: &Catalog, name: &str, there: bool) {
    let mut changes = catalog.subscribe();
    while catalog.topic_by_name(TENANT, name).is_some() != there {
        let change: Result<Change, RecvError> = changes.recv().await;
        assert!(!matches!(change, Err(RecvError::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_does_another_sees() {
    let etcd = Etcd::start(1).await;
    let ours = catalog(&open(&options(etcd.endpoints())), 1).await;
    let theirs = catalog(&open(&options(etcd.endpoints())), 2).await;
    assert_eq!(ours.cluster_id(), theirs.cluster_id());
    ours.add_volume(volume()).await.unwrap();
    let created = ours.create_topic(TENANT, topic("orders")).await.unwrap();
    assert_eq!(ours.topic_by_name(TENANT, "orders").unwrap().id, created.id, "at once");
    shown(&theirs, "orders", true).await;
    assert_eq!(theirs.topic_by_name(TENANT, "orders").unwrap().id, created.id);
    assert!(theirs.create_topic(TENANT, topic("orders")).await.is_err(), "it exists");
    theirs.delete_topic(TENANT, created.id).await.unwrap();
    shown(&ours, "orders", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_is_cut_off_answers_and_catches_up() {
    let etcd = Etcd::start(1).await;
    let proxy = Proxy::to(etcd.address()).await;
    let store = open(&EtcdOptions {
        request_timeout: Duration::from_secs(4),
        ..options(vec![proxy.endpoint()])
    });
    let ours = catalog(&store, 1).await;
    let other = open(&options(etcd.endpoints()));
    let theirs = catalog(&other, 2).await;
    ours.add_volume(volume()).await.unwrap();
    let kept = ours.create_topic(TENANT, topic("kept")).await.unwrap();
    shown(&theirs, "kept", true).await;
    let gone = theirs.create_topic(TENANT, topic("gone")).await.unwrap();
    shown(&ours, "gone", true).await;

    proxy.cut();
    theirs.delete_topic(TENANT, gone.id).await.unwrap();
    theirs.create_topic(TENANT, topic("new")).await.unwrap();
    // What it missed is no longer kept: it has to read everything again.
    let now = other.range("").await.unwrap().revision;
    etcd.ctl(&["compaction", &now.0.to_string()]);
    assert!(ours.create_topic(TENANT, topic("other")).await.is_err(), "etcd cannot be reached");
    assert_eq!(&*ours.topic_by_id(TENANT, kept.id).unwrap().name, "kept");
    assert!(ours.topic_by_name(TENANT, "gone").is_some(), "as it was");

    proxy.heal();
    shown(&ours, "new", true).await;
    shown(&ours, "gone", false).await;
    shown(&ours, "kept", true).await;
    ours.create_topic(TENANT, topic("last")).await.unwrap();
    shown(&theirs, "last", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_when_etcd_does() {
    let mut etcd = Etcd::start(1).await;
    let short = Duration::from_secs(1);
    let store = open(&EtcdOptions { request_timeout: short, ..options(etcd.endpoints()) });
    let ours = catalog(&store, 1).await;
    let spec = NodeSpec {
        id: NodeId(7),
        kafka_host: "127.0.0.1".to_owned(),
        kafka_port: 9092,
        rack: None,
        peer: None,
        roles: Roles::ALL,
    };
    let registration = ours.register_node(spec, Duration::from_secs(2)).await.unwrap();
    let mut state = registration.state();
    etcd.kill(0);
    state.wait_for(|state| *state == RegistrationState::Lapsed).await.unwrap();
    assert!(ours.node(NodeId(7)).is_some(), "the view is as it was");
    etcd.restart(0);
    state.wait_for(|state| *state == RegistrationState::Live).await.unwrap();
    // An etcd that took part again without the node would have let its lease end by now.
    let fresh = catalog(&open(&options(etcd.endpoints())), 2).await;
    assert!(fresh.node(NodeId(7)).is_some());
    registration.deregister().await.unwrap();
    let fresh = catalog(&open(&options(etcd.endpoints())), 3).await;
    assert!(fresh.node(NodeId(7)).is_none());
}

#[tokio::test]
async fn a_key_that_is_no_text_stops_nobody() {
    let etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    let ours = catalog(&store, 1).await;
    ours.add_volume(volume()).await.unwrap();
    etcd.ctl_bytes(&[b"put", b"/sluice/test//sluice/topics/1/\xff", b"x"]);
    ours.create_topic(TENANT, topic("behind")).await.unwrap();
    assert_eq!(catalog(&store, 2).await.topics(TENANT).len(), 1);
    committed(&store, Txn::new().put("/x", "")).await;
}
