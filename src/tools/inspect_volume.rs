//! `sluice volume inspect`: what lies on one volume.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use sluice_volume::{EndOfLog, InspectedFrame, LogEnd, Medium, Slot, SuperblockFields, inspect};
use sluice_writer::{Entry, EntryKind, decode_payload};

use super::table::Table;
use super::{Output, Verdict, bytes, print};

pub(crate) const EXAMPLES: &str = "\
Examples:
  sluice volume inspect ./sluice-data/volumes/0.wal
  sluice volume inspect /dev/nvme1n1 --frames --output json

It takes no lock and fences nobody. A volume that is in use changes while it is looked at: look again
before you believe a damage.

Exit codes: 0 the volume is whole, 1 something is wrong, 2 it could not be read.";

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The volume's file or block device
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print each frame and what it holds
    #[arg(long)]
    frames: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// The log, walked to its end.
#[derive(Default)]
struct Log {
    frames: u64,
    payload_bytes: u64,
    entries: u64,
    /// Frames whose payload is not what a writer writes.
    problems: Vec<String>,
    rows: Vec<Vec<String>>,
    json: Vec<Value>,
    end: Option<EndOfLog>,
}

pub(crate) async fn run(args: InspectArgs) -> anyhow::Result<Verdict> {
    let medium = Medium::File { path: args.path.clone(), size_bytes: 0 };
    let name = args.path.display().to_string();
    let seen = inspect(&medium).await.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
    let mut log = Log::default();
    if let Some(mut frames) = seen.frames() {
        let unreadable = |error| anyhow::anyhow!("{name}: cannot read its log: {error}");
        while let Some(frame) = frames.next().await.map_err(unreadable)? {
            log.add(&frame, args.frames);
        }
        log.end = Some(frames.end().await.map_err(unreadable)?);
    }
    if seen.current.is_none() {
        log.problems.push("no superblock is valid: this is no volume, or both are damaged".into());
    }
    for (slot, number) in seen.slots.iter().zip(0..) {
        if seen.current.is_some() && !matches!(slot, Slot::Valid(_)) {
            log.problems.push(format!("slot {number} is {}", slot_text(slot)));
        }
    }
    if let Some(beyond) = log.end.and_then(|end| end.durable_beyond) {
        log.problems.push(format!(
            "the log was durable up to {beyond}, and can be read less far: acknowledged frames are \
             damaged, or the volume is in use"
        ));
    }
    match args.output {
        Output::Json => {
            let slots: Vec<Value> = seen.slots.iter().map(slot_json).collect();
            print(
                &json!({
                    "path": name, "device_bytes": seen.device_bytes, "slots": slots,
                    "current": seen.current.as_ref().map(fields_json), "frames": log.frames,
                    "entries": log.entries, "payload_bytes": log.payload_bytes, "log": log.json,
                    "end": log.end.map(|end| json!({
                        "head": end.head.0, "why": end_text(end.why),
                        "durable_beyond": end.durable_beyond.map(|lsn| lsn.0),
                    })),
                    "problems": log.problems,
                })
                .to_string(),
            );
        }
        Output::Text => print(&text(&name, seen.device_bytes, &seen.slots, seen.current, &log)),
    }
    Ok(if log.problems.is_empty() { Verdict::Clean } else { Verdict::Findings })
}

impl Log {
    fn add(&mut self, frame: &InspectedFrame, listed: bool) {
        self.frames += 1;
        self.payload_bytes += frame.payload.len() as u64;
        let decoded = decode_payload(&frame.payload);
        let entries = match &decoded {
            Ok(entries) => entries.as_slice(),
            Err(error) => {
                self.problems.push(format!("the frame at lsn {}: {error}", frame.lsn));
                &[]
            }
        };
        self.entries += entries.len() as u64;
        if listed {
            let what: Vec<String> = entries.iter().map(|(entry, _)| entry_text(entry)).collect();
            self.rows.push(vec![
                frame.lsn.to_string(),
                frame.end.to_string(),
                frame.epoch.0.to_string(),
                bytes(frame.payload.len() as u64),
                what.join("; "),
            ]);
            self.json.push(json!({
                "lsn": frame.lsn.0, "end": frame.end.0, "epoch": frame.epoch.0,
                "device_offset": frame.device_offset, "payload_bytes": frame.payload.len(),
                "entries": entries.iter().map(|(entry, _)| entry_json(entry)).collect::<Vec<_>>(),
            }));
        }
    }
}

fn text(
    name: &str,
    device_bytes: u64,
    slots: &[Slot],
    current: Option<SuperblockFields>,
    log: &Log,
) -> String {
    let mut out = format!("{name}: {}\n\n", bytes(device_bytes));
    let mut table = Table::new(&[
        "SLOT",
        "STATE",
        "VOLUME",
        "COUNTER",
        "EPOCH",
        "LOG EPOCH",
        "TRIM",
        "LOG START",
        "DURABLE",
        "CLEAN",
        "RING",
    ]);
    for (number, slot) in slots.iter().enumerate() {
        let mut row = vec![number.to_string(), slot_text(slot)];
        if let Slot::Valid(fields) = slot {
            row.extend([
                fields.id.to_string(),
                fields.counter.to_string(),
                fields.epoch.0.to_string(),
                fields.log_epoch.0.to_string(),
                fields.trim.to_string(),
                fields.log_start.to_string(),
                fields.durable.to_string(),
                if fields.clean { "yes" } else { "no" }.to_owned(),
                bytes(fields.ring_bytes),
            ]);
        }
        table.row(row);
    }
    out.push_str(&table.to_string());
    if let (Some(current), Some(end)) = (current, log.end) {
        out.push_str(&format!(
            "\nlog from lsn {} to {}: {} frames, {} entries, {}; it ends there: {}\n",
            current.trim,
            end.head,
            log.frames,
            log.entries,
            bytes(log.payload_bytes),
            end_text(end.why)
        ));
    }
    if !log.rows.is_empty() {
        let mut frames = Table::new(&["LSN", "END", "EPOCH", "PAYLOAD", "HOLDS"]);
        log.rows.iter().for_each(|row| frames.row(row.clone()));
        out.push_str(&format!("\n{frames}"));
    }
    for problem in &log.problems {
        out.push_str(&format!("\nproblem: {problem}"));
    }
    out
}

fn entry_text(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Batches { base_offset, count } => {
            format!("{} {count} batches from {base_offset}", entry.stream)
        }
        EntryKind::LogStart(offset) => format!("{} log start {offset}", entry.stream),
    }
}

fn entry_json(entry: &Entry) -> Value {
    let (kind, offset, count) = match entry.kind {
        EntryKind::Batches { base_offset, count } => ("batches", base_offset, count),
        EntryKind::LogStart(offset) => ("log_start", offset, 0),
    };
    json!({
        "topic": entry.stream.topic.to_string(), "partition": entry.stream.partition,
        "kind": kind, "offset": offset, "batches": count, "bytes": entry.data_len,
    })
}

fn slot_text(slot: &Slot) -> String {
    match slot {
        Slot::Valid(_) => "valid".to_owned(),
        Slot::Blank => "blank".to_owned(),
        Slot::Invalid => "invalid".to_owned(),
        Slot::Unsupported { version } => format!("of version {version}, unknown here"),
        Slot::Unreadable(error) => format!("unreadable: {error}"),
        other => format!("{other:?}"),
    }
}

fn slot_json(slot: &Slot) -> Value {
    match slot {
        Slot::Valid(fields) => json!({ "state": "valid", "superblock": fields_json(fields) }),
        other => json!({ "state": slot_text(other) }),
    }
}

fn fields_json(fields: &SuperblockFields) -> Value {
    let uuid: String = fields.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "volume": fields.id.0, "uuid": uuid, "counter": fields.counter, "epoch": fields.epoch.0,
        "log_epoch": fields.log_epoch.0, "log_start": fields.log_start.0, "trim": fields.trim.0,
        "durable": fields.durable.0, "clean": fields.clean, "hint": fields.hint,
        "device_bytes": fields.device_bytes, "ring_offset": fields.ring_offset,
        "ring_bytes": fields.ring_bytes, "window_bytes": fields.window_bytes,
    })
}

fn end_text(end: LogEnd) -> String {
    match end {
        LogEnd::Clean => "it was closed in order".to_owned(),
        LogEnd::Full => "the ring is full".to_owned(),
        LogEnd::Blank => "nothing was written there".to_owned(),
        LogEnd::NotAFrame => "what follows is no frame of this volume".to_owned(),
        LogEnd::EarlierLap { lsn } => {
            format!("what follows is an earlier lap's frame, of lsn {lsn}")
        }
        LogEnd::EarlierEpoch { epoch } => {
            format!("what follows is a dead frame of volume epoch {}", epoch.0)
        }
        LogEnd::Unchained { previous_end } => {
            format!("what follows is a frame that follows lsn {previous_end}")
        }
        LogEnd::Torn { epoch, payload_bytes } => {
            format!("a frame of {payload_bytes} bytes of volume epoch {} is torn", epoch.0)
        }
        LogEnd::Unsupported { version } => format!("a frame of version {version}, unknown here"),
        other => format!("{other:?}"),
    }
}
