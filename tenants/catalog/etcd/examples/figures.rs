//! What the store takes over an etcd: commits one after the other, and how long after a commit began a
//! watch tells it. `cargo run --release -p sluice-catalog-etcd --example figures -- URL...`; leaves one key under
//! `/sluice/figures/`.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::time::Duration;

use sluice_catalog::store::{MetadataStore, Txn};
use sluice_catalog_etcd::{EtcdOptions, EtcdStore};
use tokio::time::Instant;

const COMMITS: usize = 2_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = EtcdStore::new(&EtcdOptions {
        endpoints: std::env::args().skip(1).collect(),
        prefix: "/sluice/figures/".to_owned(),
        tls: None,
        user: None,
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(5),
    })?;
    let start = store.range("").await?.revision;
    let mut watch = store.watch("", start).await?;
    let told = tokio::spawn(async move {
        let mut told = Vec::with_capacity(COMMITS);
        while told.len() < COMMITS {
            watch.next().await?;
            told.push(Instant::now());
        }
        Ok::<_, sluice_catalog::store::WatchError>(told)
    });
    let mut begun = Vec::with_capacity(COMMITS);
    let mut commits = Vec::with_capacity(COMMITS);
    for number in 0..COMMITS {
        let now = Instant::now();
        begun.push(now);
        store.commit(Txn::new().put("/number", number.to_string())).await?;
        commits.push(now.elapsed());
    }
    let told = told.await??;
    let delays = begun.iter().zip(told).map(|(begun, told)| told - *begun).collect();
    show("commit", commits);
    show("watch tells it, from the commit's begin", delays);
    Ok(())
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
}
