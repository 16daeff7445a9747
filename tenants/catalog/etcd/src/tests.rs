//! The store over a real etcd: the contract, and what etcd's own faults make of it. Every test starts
//! an etcd of its own.

mod catalog;
mod faults;
mod proxy;
mod secure;
mod server;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sluice_catalog::store::{MetadataStore, Outcome, Revision, StoreError, Txn, conformance};

use crate::tests::server::Etcd;
use crate::{EtcdOptions, EtcdStore};

/// How long a call may take here, where nothing else is said.
const REQUEST: Duration = Duration::from_secs(20);

fn options(endpoints: Vec<String>) -> EtcdOptions {
    EtcdOptions {
        endpoints,
        prefix: "/sluice/test/".to_owned(),
        tls: None,
        user: None,
        connect_timeout: Duration::from_secs(5),
        request_timeout: REQUEST,
    }
}

fn open(options: &EtcdOptions) -> Arc<dyn MetadataStore> {
    Arc::new(EtcdStore::new(options).unwrap())
}

async fn committed(store: &Arc<dyn MetadataStore>, txn: Txn) -> Revision {
    match store.commit(txn).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("the conditions hold"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds() {
    let etcd = Etcd::start(1).await;
    let number = AtomicU32::new(0);
    conformance::all(async || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        open(&EtcdOptions { prefix: format!("/sluice/{number}/"), ..options(etcd.endpoints()) })
    })
    .await;
}

#[tokio::test]
async fn maps_of_one_etcd_are_strangers() {
    let etcd = Etcd::start(1).await;
    let map = |prefix: &str| {
        open(&EtcdOptions { prefix: prefix.to_owned(), ..options(etcd.endpoints()) })
    };
    let (ours, theirs) = (map("/sluice/a/"), map("/sluice/ab/"));
    let first = committed(&ours, Txn::new().put("/x", "ours")).await;
    let mut watch = ours.watch("", first).await.unwrap();
    let other = committed(&theirs, Txn::new().if_absent("/x").put("/x", "theirs")).await;
    assert_eq!(theirs.get("/x").await.unwrap().unwrap().mod_revision, other);
    assert_eq!(ours.get("/x").await.unwrap().unwrap().mod_revision, first);

    // What changes nothing is told with a revision that a watch of this map reaches, whatever others do.
    assert_eq!(committed(&ours, Txn::new().delete("/none")).await, first);
    assert_eq!(committed(&ours, Txn::new().if_unchanged("/x", first)).await, first);
    let deleted = committed(&ours, Txn::new().delete("/x")).await;
    committed(&theirs, Txn::new().put("/x", "again")).await;
    assert_eq!(committed(&ours, Txn::new().delete("/x")).await, deleted);
    assert_eq!(watch.next().await.unwrap().revision, deleted);
}

#[tokio::test]
async fn one_that_is_down_is_passed_over_and_none_is_told() {
    let etcd = Etcd::start(1).await;
    let nobody = server::free_address();
    let mut endpoints = vec![format!("http://{nobody}")];
    let short = Duration::from_secs(2);
    let none = EtcdOptions { request_timeout: short, ..options(endpoints.clone()) };
    let refused = open(&none).get("/a").await;
    let Err(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains(&nobody.to_string()) && why.contains("refused"), "{why}");

    endpoints.extend(etcd.endpoints());
    let store = open(&options(endpoints));
    committed(&store, Txn::new().put("/a", "1")).await;
    assert!(store.get("/a").await.unwrap().is_some());
}
