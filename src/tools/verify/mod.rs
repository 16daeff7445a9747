//! `sluice verify`: whether all that must hold of a cluster's data does.
//!
//! Of the bucket: the catalog's journal, each volume's manifests, each segment that they name; with `--deep`
//! every block and batch. Of the data directory, if no process has it open: the catalog and the volumes, and
//! that they fit the bucket. A process that serves meanwhile is no obstacle: what it commits or deletes
//! while this runs is looked at again before it is called missing.
//!
//! Findings are what breaks an invariant. What is unusual but right (orphans, a journal that lags) is a note.

mod local;
mod manifests;
mod orphans;
mod report;
mod segments;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use sluice_catalog::journal::{self, Image};
use sluice_format::VolumeState;
use sluice_format::key::{Keys, Name};

use super::place::{Place, cluster, open_bucket};
use super::progress::Progress;
use super::{Output, Verdict, print};
use report::Report;

pub(crate) const EXAMPLES: &str = "\
Examples:
  sluice verify --data-dir /var/lib/sluice
  sluice verify --config sluice.toml --deep
  sluice verify --bucket s3://my-bucket/prod --output json

A process that is running keeps its data directory to itself: then the bucket alone is checked.
Orphans are objects that no manifest names, left by crashes; they cost room and do no harm.

Exit codes: 0 all is well, 1 something is not (it is told), 2 it could not be checked.";

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// Which cluster, if the bucket has several and there is no data directory
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// Read every block and check it: as much is read as the bucket holds
    #[arg(long)]
    deep: bool,
    /// Delete orphans that are older than the grace time
    #[arg(long)]
    repair: bool,
    /// How old an object must be to count as an orphan, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    grace: u64,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What the checks share.
struct Checks {
    bucket: Arc<dyn ObjectStore>,
    keys: Keys,
    deep: bool,
    grace: Duration,
    /// The cluster's objects when this began.
    listed: BTreeMap<Name, Listed>,
    report: Report,
    progress: Progress,
}

/// An object as a listing shows it.
#[derive(Clone, Copy, Debug)]
struct Listed {
    len: u64,
    modified_ms: i64,
}

pub(crate) async fn run(args: VerifyArgs) -> anyhow::Result<Verdict> {
    let config = args.place.load()?;
    let bucket = open_bucket(&config)?;
    let local = local::Local::open(&config)?;
    let keys = match (&args.cluster, local.image.as_ref()) {
        (None, Some(image)) => Keys::new(image.cluster_id()?),
        (wanted, _) => cluster(&*bucket, wanted.as_deref()).await?,
    };
    let listed = list(&*bucket, &keys).await?;
    let mut checks = Checks {
        bucket,
        keys,
        deep: args.deep,
        grace: Duration::from_secs(args.grace.saturating_mul(60)),
        listed,
        report: Report::default(),
        progress: Progress::new(),
    };
    let journalled = checks.journal(&local).await?;
    let Some(image) = local.image.as_ref().or(journalled.as_ref()) else {
        anyhow::bail!("there is no catalog: no data directory, and no journal in the bucket");
    };
    let states = checks.manifests(image).await?;
    checks.segments(&states).await?;
    checks.volumes(&config, &local, &states).await?;
    checks.orphans(&states, args.repair).await?;
    checks.progress.clear();
    print(&match args.output {
        Output::Json => checks.report.to_json().to_string(),
        Output::Text => checks.report.to_string(),
    });
    Ok(if checks.report.is_clean() { Verdict::Clean } else { Verdict::Findings })
}

/// The cluster's objects. One listing of all there is: a volume's objects lie under many hashes.
async fn list(bucket: &dyn ObjectStore, keys: &Keys) -> anyhow::Result<BTreeMap<Name, Listed>> {
    let mut objects = BTreeMap::new();
    let mut listing = bucket.list(None);
    while let Some(meta) = listing.try_next().await.context("cannot list the bucket")? {
        if let Some(name) = keys.parse(meta.location.as_ref()) {
            let modified_ms = meta.last_modified.timestamp_millis();
            objects.insert(name, Listed { len: meta.size, modified_ms });
        }
    }
    Ok(objects)
}

/// The states of the volumes whose manifests can be read.
type States = BTreeMap<u32, VolumeState>;

impl Checks {
    /// The journal; gives what it holds.
    async fn journal(&mut self, local: &local::Local) -> anyhow::Result<Option<Image>> {
        let found = journal::read(&*self.bucket, &self.keys);
        let Some(found) = found.await.context("cannot read the catalog's journal")? else {
            self.report
                .finding("catalog journal", "it has no complete snapshot: a restore is impossible");
            return Ok(None);
        };
        for finding in &found.findings {
            self.report.finding("catalog journal", finding);
        }
        if let Err(error) = found.image.cluster_id() {
            self.report.finding("catalog journal", error);
        }
        if let Some(image) = &local.image
            && local.is_held()
            && *image != found.image
        {
            self.report.note(
                "the catalog's journal lags behind the catalog: a restore would bring back an older \
                 one. It catches up when the server runs",
            );
        }
        self.report.journal(&found);
        Ok(Some(found.image))
    }

    /// The length of an object: as it was listed, or as it is if it came since.
    async fn len(&self, name: Name) -> anyhow::Result<Option<u64>> {
        if let Some(listed) = self.listed.get(&name) {
            return Ok(Some(listed.len));
        }
        let key = self.keys.key(name);
        match self.bucket.head(&Path::from(key.as_str())).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot ask for {key}")),
        }
    }
}
