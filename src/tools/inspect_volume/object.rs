//! An object volume: its log lies in the bucket.

use std::sync::Arc;

use serde_json::json;
use sluice_model::Entropy;
use sluice_volume::{ObjectLook, OpenError, RecoveredFrame, RecoveryError};

use super::super::place::{cluster, open_bucket};
use super::super::{Output, Verdict, bytes, print};
use super::{Frame, InspectArgs, Log, hex};
use crate::seams::SystemEntropy;
use crate::volumes::{Bucket, in_bucket};

/// A volume in the bucket: it has no superblocks, its objects say all.
pub(super) async fn run(args: &InspectArgs, id: u32) -> anyhow::Result<Verdict> {
    let config = args.place.load()?;
    let bucket = open_bucket(&config)?;
    let keys = cluster(&*bucket, args.cluster.as_deref()).await?;
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let lies_in = Bucket { store: &bucket, keys: &keys, entropy: &entropy };
    let medium = in_bucket(&config, id, 0, &lies_in);
    let name = medium.to_string();
    let mut seen = match medium.look().await {
        Ok(seen) => seen,
        Err(error @ OpenError::LostObject(_)) => {
            return Ok(show(args, &name, None, &Log::damaged(error.to_string())));
        }
        Err(error) => anyhow::bail!("{name}: {error}"),
    };
    let mut log = Log::default();
    loop {
        match seen.next().await {
            Ok(Some(frame)) => {
                let RecoveredFrame { lsn, end, epoch, payload } = frame;
                log.add(&Frame { lsn, end, epoch, payload, device_offset: None }, args.frames);
            }
            Ok(None) => break,
            Err(error @ (RecoveryError::Io(_) | RecoveryError::Fenced)) => {
                anyhow::bail!("{name}: {error}; look again")
            }
            Err(error) => {
                log.problems.push(error.to_string());
                break;
            }
        }
    }
    Ok(show(args, &name, Some(&seen), &log))
}

fn show(args: &InspectArgs, name: &str, seen: Option<&ObjectLook>, log: &Log) -> Verdict {
    match args.output {
        Output::Json => {
            let volume = seen.map(|seen| {
                json!({
                    "volume": seen.id.0, "uuid": hex(&seen.uuid), "size_bytes": seen.size_bytes,
                    "epoch": seen.epoch.0, "trim": seen.trim.0, "end": seen.end.0, "hint": seen.hint,
                    "objects": seen.objects, "leftovers": seen.leftovers,
                })
            });
            print(
                &json!({
                    "path": name, "volume": volume, "frames": log.frames, "entries": log.entries,
                    "payload_bytes": log.payload_bytes, "log": log.json, "problems": log.problems,
                })
                .to_string(),
            );
        }
        Output::Text => {
            let mut out = name.to_owned();
            if let Some(seen) = seen {
                out.push_str(&format!(
                    ": volume {}, {}, epoch {}\nlog from lsn {} to {}: {} objects, {} frames, {} \
                     entries, {}; {} objects beside it are to be deleted\n",
                    seen.id,
                    bytes(seen.size_bytes),
                    seen.epoch.0,
                    seen.trim,
                    seen.end,
                    seen.objects,
                    log.frames,
                    log.entries,
                    bytes(log.payload_bytes),
                    seen.leftovers
                ));
            }
            log.list(&mut out);
            print(&out);
        }
    }
    log.verdict()
}
