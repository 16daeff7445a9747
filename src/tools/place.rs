//! What a tool works on: flags and configuration as `sluice up` takes them, the bucket, the cluster's id.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use object_store::ObjectStore;
use sluice_bucket::BucketMetrics;
use sluice_catalog::journal;
use sluice_format::key::Keys;

use crate::bucket;
use crate::cli;
use crate::config::{BucketUrl, Config};
use crate::seams::SystemEntropy;

/// Where the cluster is.
#[derive(Debug, Default, Args)]
pub(crate) struct Place {
    /// Configuration file, as for `sluice up` [default: the one that SLUICE_CONFIG names, or none]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Data directory [key: data_dir]
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    pub(super) data_dir: Option<String>,
    /// Bucket, `file:PATH` or `s3://BUCKET/PREFIX` [key: bucket.url]
    #[arg(long, visible_alias = "bucket-url", value_name = "URL")]
    pub(super) bucket: Option<String>,
}

impl Place {
    /// The configuration that `sluice up` would run with, these flags over it.
    pub(super) fn load(&self) -> anyhow::Result<Config> {
        load(
            self.config.clone(),
            self.data_dir.clone(),
            self.bucket.clone().map(|b| ("--bucket", b)),
        )
    }
}

pub(super) fn load(
    file: Option<PathBuf>,
    data_dir: Option<String>,
    bucket: Option<(&'static str, String)>,
) -> anyhow::Result<Config> {
    let data_dir = data_dir.map(|dir| ("data_dir", "--data-dir", dir));
    let bucket = bucket.map(|(flag, url)| ("bucket.url", flag, url));
    let flags = data_dir.into_iter().chain(bucket).collect();
    let environment = std::env::vars_os().collect();
    let loaded = cli::load(file, environment, flags).map_err(anyhow::Error::msg)?;
    Ok(loaded.config)
}

/// The bucket of a cluster that is there: a directory is not made.
pub(super) fn open_bucket(config: &Config) -> anyhow::Result<Arc<dyn ObjectStore>> {
    if let BucketUrl::Directory(path) = config.bucket_url()
        && !path.is_dir()
    {
        bail!(
            "there is no bucket at {}: say where it is with --bucket or --config",
            path.display()
        );
    }
    make_bucket(config)
}

/// The bucket, of which a directory is made if it is not there.
pub(super) fn make_bucket(config: &Config) -> anyhow::Result<Arc<dyn ObjectStore>> {
    // Nobody asks a tool for metrics.
    Ok(Arc::new(bucket::open(config, Arc::new(SystemEntropy), BucketMetrics::default())?))
}

/// The cluster that is asked for, or the only one in the bucket.
pub(super) async fn cluster(
    bucket: &dyn ObjectStore,
    wanted: Option<&str>,
) -> anyhow::Result<Keys> {
    let known =
        journal::clusters(bucket).await.context("cannot list the clusters in the bucket")?;
    match (wanted, known.as_slice()) {
        (Some(wanted), _) if known.iter().any(|id| id == wanted) => Ok(Keys::new(wanted)),
        (Some(wanted), _) => {
            bail!("the bucket has no cluster {wanted}; it has: {}", listed(&known))
        }
        (None, [only]) => Ok(Keys::new(only)),
        (None, _) => bail!("choose a cluster with --cluster; the bucket has: {}", listed(&known)),
    }
}

fn listed(clusters: &[String]) -> String {
    if clusters.is_empty() { "none".to_owned() } else { clusters.join(", ") }
}
