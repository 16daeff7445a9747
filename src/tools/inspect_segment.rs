//! `sluice segment inspect`: what one segment holds.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use serde_json::{Value, json};
use sluice_format::{Extent, StreamKey};
use sluice_model::{StreamId, TopicId};
use sluice_wire::batch::BatchView;

use super::place::{Place, open_bucket};
use super::segment::{Block, Problem, Segment};
use super::table::Table;
use super::{Output, Verdict, bytes, print, time};

pub(crate) const EXAMPLES: &str = "\
Examples:
  sluice segment inspect ./sluice-data/bucket/3f2a/CLUSTER/segments/0/1-0
  sluice segment inspect --config sluice.toml 3f2a/CLUSTER/segments/0/1-0 --records

Exit codes: 0 the segment is whole, 1 something in it is wrong, 2 it could not be read.";

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A file, or a key in the bucket
    #[arg(value_name = "FILE|KEY")]
    segment: String,
    /// Print the header of each record batch
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    place: Place,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// What was found in one extent.
struct Seen {
    stream: StreamKey,
    extent: Extent,
    /// Each block, or what is wrong with it.
    blocks: Vec<Result<Block, Problem>>,
    /// What is wrong with the index.
    index: Option<Problem>,
}

impl Seen {
    fn problems(&self) -> impl Iterator<Item = String> {
        let blocks = self.blocks.iter().filter_map(|block| block.as_ref().err());
        blocks.chain(&self.index).map(ToString::to_string)
    }

    fn batches(&self) -> impl Iterator<Item = &BatchView> {
        self.blocks.iter().flatten().flat_map(|block| &block.batches)
    }
}

pub(crate) async fn run(args: InspectArgs) -> anyhow::Result<Verdict> {
    let (bucket, path) = locate(&args)?;
    let opened = Segment::open(bucket, path).await;
    let segment = match opened {
        Ok(segment) => segment,
        Err(problem @ (Problem::Bucket(_) | Problem::Missing)) => {
            anyhow::bail!("{} {problem}", args.segment)
        }
        Err(problem) => {
            let name = &args.segment;
            match args.output {
                Output::Json => {
                    print(&json!({ "segment": name, "problem": problem.to_string() }).to_string());
                }
                Output::Text => print(&format!("{name} is no whole segment: {problem}")),
            }
            return Ok(Verdict::Findings);
        }
    };
    let mut clean = true;
    let mut extents = Vec::new();
    let mut lines = Table::new(&[
        "STREAM",
        "OFFSETS",
        "LARGEST TIMESTAMP",
        "POSITION",
        "BYTES",
        "BLOCKS",
        "BATCHES",
        "CHECK",
    ]);
    let mut records = Table::new(&[
        "STREAM",
        "OFFSETS",
        "TIMESTAMPS",
        "RECORDS",
        "BYTES",
        "PRODUCER",
        "SEQUENCE",
        "ATTRIBUTES",
    ]);
    for (stream, extent) in &segment.directory {
        let seen = look(&segment, *stream, *extent).await?;
        clean &= seen.problems().next().is_none();
        match args.output {
            Output::Json => extents.push(to_json(&seen, args.records)),
            Output::Text => {
                lines.row(row(&seen));
                if args.records {
                    seen.batches().for_each(|batch| records.row(batch_row(*stream, batch)));
                }
            }
        }
    }
    let id = segment.id;
    match args.output {
        Output::Json => print(
            &json!({
                "volume": id.volume, "epoch": id.epoch, "sequence": id.sequence,
                "bytes": segment.len, "extents": extents,
            })
            .to_string(),
        ),
        Output::Text => {
            let (count, len) = (segment.directory.len(), bytes(segment.len));
            print(&format!(
                "segment {}-{} of volume {}: {count} extents, {len}\n\n{lines}",
                id.epoch, id.sequence, id.volume
            ));
            if args.records {
                print(&format!("\n{records}"));
            }
        }
    }
    Ok(if clean { Verdict::Clean } else { Verdict::Findings })
}

/// A file that is there is meant as one; all else is a key.
fn locate(args: &InspectArgs) -> anyhow::Result<(Arc<dyn ObjectStore>, object_store::path::Path)> {
    let file = Path::new(&args.segment);
    if file.is_file() {
        let path = object_store::path::Path::from_filesystem_path(file)
            .with_context(|| format!("cannot use the path {}", file.display()))?;
        return Ok((Arc::new(LocalFileSystem::new()), path));
    }
    let bucket = open_bucket(&args.place.load()?)
        .with_context(|| format!("there is no file {}, and it is no key", args.segment))?;
    let path = object_store::path::Path::parse(&args.segment)
        .with_context(|| format!("{} is no key", args.segment))?;
    Ok((bucket, path))
}

async fn look(segment: &Segment, stream: StreamKey, extent: Extent) -> anyhow::Result<Seen> {
    let mut seen = Seen { stream, extent, blocks: Vec::new(), index: None };
    match segment.index(&extent).await {
        Err(Problem::Bucket(error)) => return Err(error.into()),
        Err(problem) => seen.index = Some(problem),
        Ok(entries) => {
            for entry in entries {
                match segment.block(entry).await {
                    Err(Problem::Bucket(error)) => return Err(error.into()),
                    block => seen.blocks.push(block),
                }
            }
        }
    }
    Ok(seen)
}

fn name(stream: StreamKey) -> String {
    StreamId { topic: TopicId(stream.topic), partition: stream.partition }.to_string()
}

fn offsets(base: i64, end: i64) -> String {
    format!("{base}..{end}")
}

fn row(seen: &Seen) -> [String; 8] {
    let extent = &seen.extent;
    let problems: Vec<String> = seen.problems().collect();
    [
        name(seen.stream),
        offsets(extent.base_offset, extent.end_offset),
        time(extent.max_timestamp),
        extent.position.to_string(),
        bytes(u64::from(extent.data_len)),
        extent.blocks.to_string(),
        seen.batches().count().to_string(),
        if problems.is_empty() { "ok".to_owned() } else { problems.join("; ") },
    ]
}

fn batch_row(stream: StreamKey, batch: &BatchView) -> [String; 8] {
    let (id, epoch) = (batch.producer_id(), batch.producer_epoch());
    [
        name(stream),
        offsets(batch.base_offset(), batch.last_offset() + 1),
        format!("{} to {}", time(batch.base_timestamp()), time(batch.max_timestamp())),
        batch.record_count().to_string(),
        bytes(batch.len_bytes() as u64),
        if id < 0 { "-".to_owned() } else { format!("{id}/{epoch}") },
        if id < 0 { "-".to_owned() } else { batch.base_sequence().to_string() },
        attributes(batch),
    ]
}

fn attributes(batch: &BatchView) -> String {
    let attributes = batch.attributes();
    let compression = match attributes.compression() {
        Ok(compression) => format!("{compression:?}").to_lowercase(),
        Err(error) => error.to_string(),
    };
    let more = [
        (attributes.is_transactional(), "transactional"),
        (attributes.is_control(), "control"),
        (attributes.is_log_append_time(), "log append time"),
    ];
    let more = more.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned());
    std::iter::once(compression).chain(more).collect::<Vec<_>>().join(", ")
}

fn to_json(seen: &Seen, records: bool) -> Value {
    let extent = &seen.extent;
    let blocks = seen.blocks.iter().map(|block| match block {
        Err(problem) => json!({ "problem": problem.to_string() }),
        Ok(Block { entry, batches }) => {
            let headers = batches.iter().filter(|_| records).map(batch_json);
            json!({
                "base_offset": entry.base_offset, "end_offset": entry.end_offset,
                "max_timestamp": entry.max_timestamp, "position": entry.position,
                "bytes": entry.len, "batches": batches.len(),
                "records": headers.collect::<Vec<_>>(),
            })
        }
    });
    json!({
        "topic": TopicId(seen.stream.topic).to_string(), "partition": seen.stream.partition,
        "base_offset": extent.base_offset, "end_offset": extent.end_offset,
        "max_timestamp": extent.max_timestamp, "leader_epoch": extent.leader_epoch,
        "position": extent.position, "bytes": extent.data_len,
        "blocks": blocks.collect::<Vec<_>>(), "problems": seen.problems().collect::<Vec<_>>(),
    })
}

fn batch_json(batch: &BatchView) -> Value {
    json!({
        "base_offset": batch.base_offset(), "last_offset": batch.last_offset(),
        "records": batch.record_count(), "bytes": batch.len_bytes(),
        "base_timestamp": batch.base_timestamp(), "max_timestamp": batch.max_timestamp(),
        "producer_id": batch.producer_id(), "producer_epoch": batch.producer_epoch(),
        "base_sequence": batch.base_sequence(), "leader_epoch": batch.partition_leader_epoch(),
        "attributes": attributes(batch),
    })
}
