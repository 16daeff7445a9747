//! `sluice restore`: a new data directory from the bucket alone.
//!
//! The catalog comes from its journal, what each volume has in the bucket from its manifests. New, empty
//! volumes take the place of the lost ones: under an epoch far above any that the old cluster may
//! have, and with a log that begins where no lsn of the old one was. A manifest under that epoch makes
//! the bucket's data the new cluster's: an old owner that still runs finds its next commit refused, and
//! stops. No object of the bucket is changed or deleted; manifests are added.
//!
//! What was acknowledged and only on the lost volumes is gone. The report says how far the rest reaches.

mod build;
mod copy;
mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use object_store::ObjectStore;
use serde_json::json;
use sluice_format::key::Keys;

use super::place::{cluster, load, make_bucket, open_bucket};
use super::progress::Progress;
use super::table::Table;
use super::{Output, Verdict, bytes, print, time};
use crate::config::Config;
use plan::Plan;

pub(crate) const EXAMPLES: &str = "\
Examples:
  sluice restore --from s3://my-bucket/prod --data-dir /var/lib/sluice
                    says what would come back, and changes nothing
  sluice restore --from s3://my-bucket/prod --data-dir /var/lib/sluice --yes
  sluice restore --from file:/mnt/copy --bucket-url file:/srv/bucket --data-dir /srv/sluice --yes
                    copies the cluster's objects first; the bucket they come from stays as it is

Without --bucket-url the restored cluster takes over the bucket it was restored from: whatever process
of the old cluster still runs is cut off from it, and what that process acknowledges from then on is
lost. Stop it first. Afterwards start `sluice up` with the same bucket.url and data_dir.

Exit codes: 0 restored (or, without --yes, could be), 1 restored, and something in the bucket is damaged,
2 not restored.";

/// What to restore, and where to.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The bucket to restore from: `file:PATH` or `s3://BUCKET/PREFIX`
    #[arg(long, value_name = "URL")]
    from: String,
    /// Which cluster, if the bucket has several
    #[arg(long, value_name = "ID")]
    cluster: Option<String>,
    /// The new data directory; it must be empty or not there [key: data_dir]
    #[arg(long, visible_alias = "data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Copy the cluster's objects to this bucket, and restore there
    #[arg(long, value_name = "URL")]
    bucket_url: Option<String>,
    /// Do it. Without this flag it is only said what would be done
    #[arg(long)]
    yes: bool,
    /// Give up streams whose topics the journal does not know
    #[arg(long)]
    drop_unknown_topics: bool,
    /// Configuration file, for the bucket's settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(crate) async fn run(args: RestoreArgs) -> anyhow::Result<Verdict> {
    check_empty(&args.data_dir)?;
    let data_dir = args.data_dir.to_str().context("the data directory's path is not UTF-8")?;
    let configured = |flag, url: &str| {
        load(args.config.clone(), Some(data_dir.to_owned()), Some((flag, url.to_owned())))
    };
    let config = configured("--from", &args.from)?;
    let from = open_bucket(&config)?;
    let keys = cluster(&*from, args.cluster.as_deref()).await?;
    let plan = Plan::read(&from, &keys).await?;
    if !plan.unknown_streams.is_empty() && !args.drop_unknown_topics {
        bail!(
            "the bucket has {} streams of topics that the catalog's journal does not know: topics that \
             were deleted just before, or created after the journal's last object. Their records \
             would be gone. Add --drop-unknown-topics to go on without them. The first: {}",
            plan.unknown_streams.len(),
            plan.unknown_streams[0]
        );
    }
    if !args.yes {
        report(&args, &plan, None);
        return Ok(Verdict::Clean);
    }
    let bucket = match &args.bucket_url {
        None => from,
        Some(url) => copied(&configured("--bucket-url", url)?, &from, &keys).await?,
    };
    let built = build::build(&config, &bucket, &keys, &plan).await?;
    report(&args, &plan, Some(&built));
    Ok(if plan.findings.is_empty() { Verdict::Clean } else { Verdict::Findings })
}

/// A directory in which something lies is somebody's.
fn check_empty(data_dir: &Path) -> anyhow::Result<()> {
    let entries = match std::fs::read_dir(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot look into {}", data_dir.display()))?,
    };
    if entries.count() > 0 {
        bail!(
            "{} is not empty: choose a new directory, or move away what is there (also what a restore \
             that was cut short has left)",
            data_dir.display()
        );
    }
    Ok(())
}

async fn copied(
    config: &Config,
    from: &Arc<dyn ObjectStore>,
    keys: &Keys,
) -> anyhow::Result<Arc<dyn ObjectStore>> {
    let to = make_bucket(config)?;
    let mut progress = Progress::new();
    let copied = copy::cluster(from, &to, keys, &mut progress).await;
    progress.clear();
    copied?;
    Ok(to)
}

fn report(args: &RestoreArgs, plan: &Plan, built: Option<&build::Built>) {
    match args.output {
        Output::Json => print(&to_json(plan, built).to_string()),
        Output::Text => print(&to_text(args, plan, built)),
    }
}

fn to_text(args: &RestoreArgs, plan: &Plan, built: Option<&build::Built>) -> String {
    let journal = &plan.journal;
    let mut out = format!(
        "cluster {}\ncatalog: {} topics, {} volumes, as of {} (revision {}, journal object {})\n\n",
        plan.cluster,
        plan.topics,
        plan.volumes.len(),
        time(journal.written_ms),
        journal.revision.0,
        journal.sequence
    );
    let mut table = Table::new(&[
        "VOLUME",
        "KIND",
        "LAST COMMIT",
        "MANIFEST",
        "STREAMS",
        "RECORD OFFSETS",
        "BYTES",
    ]);
    for volume in &plan.volumes {
        table.row([
            volume.spec.id.to_string(),
            format!("{:?}", volume.spec.kind).to_lowercase(),
            volume.committed_ms.map_or_else(|| "never".to_owned(), time),
            volume.state.version.to_string(),
            volume.state.streams.len().to_string(),
            volume.records().to_string(),
            bytes(volume.bytes()),
        ]);
    }
    out.push_str(&table.to_string());
    out.push_str(
        "\nThis is the recovery point: what was acknowledged after a volume's last commit and lay on \
         that volume alone is gone. (Object volumes keep their log in the bucket: of theirs only \
         records of topics that were created after the catalog's time above are gone.)\n",
    );
    for finding in &plan.findings {
        out.push_str(&format!("damaged: {finding}\n"));
    }
    for stream in &plan.unknown_streams {
        out.push_str(&format!("given up: {stream}\n"));
    }
    let target = args.bucket_url.as_deref().unwrap_or(&args.from);
    match built {
        None if args.bucket_url.is_none() => out.push_str(&format!(
            "\nNothing was changed. With --yes the new cluster TAKES OVER {target}: processes of the old \
             cluster that still run are cut off from it. Stop them first.\n"
        )),
        None => out.push_str("\nNothing was changed. Add --yes to copy and restore.\n"),
        Some(built) => {
            let dir = args.data_dir.display();
            out.push_str(&format!("\nRestored to {dir}, under these volume epochs:"));
            for (volume, epoch) in &built.epochs {
                out.push_str(&format!(" {volume}: {epoch}"));
            }
            out.push_str(&format!(
                "\nNow start `sluice up` with data_dir = \"{dir}\" and bucket.url = \"{target}\".\n"
            ));
        }
    }
    out
}

fn to_json(plan: &Plan, built: Option<&build::Built>) -> serde_json::Value {
    let journal = &plan.journal;
    let volumes = plan.volumes.iter().map(|volume| {
        let streams = volume.state.streams.iter().map(|(key, stream)| {
            json!({
                "topic": sluice_model::TopicId(key.topic).to_string(),
                "partition": key.partition,
                "log_start": stream.log_start, "end_offset": stream.end_offset,
            })
        });
        json!({
            "volume": volume.spec.id.0, "kind": volume.spec.kind,
            "manifest": volume.state.version, "epoch": volume.state.epoch,
            "committed_ms": volume.committed_ms,
            "records": volume.records(), "bytes": volume.bytes(),
            "streams": streams.collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster": plan.cluster, "topics": plan.topics,
        "journal": {
            "revision": journal.revision.0, "sequence": journal.sequence, "epoch": journal.epoch,
            "written_ms": journal.written_ms,
        },
        "volumes": volumes.collect::<Vec<_>>(),
        "findings": plan.findings, "given_up": plan.unknown_streams,
        "restored": built.is_some(),
        "epochs": built.map(|built| built.epochs.clone()),
    })
}
