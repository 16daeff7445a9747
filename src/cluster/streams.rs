//! A partition's move to another volume: asked for, and waited for.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use sluice_catalog::{Catalog, MoveStreamError};
use sluice_model::{TenantId, VolumeId};
use tokio::time::Instant;

use super::steer::{LOOK_EVERY, answer, progress};
use crate::tools::{Output, Verdict};

/// `TOPIC/PARTITION`, as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    topic: String,
    index: u32,
}

impl std::str::FromStr for Partition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.rsplit_once('/').and_then(|(topic, index)| {
            Some(Self { topic: topic.to_owned(), index: index.parse().ok()? })
        });
        parsed.ok_or(
            "it must be a topic's name, a slash and the partition's number, such as orders/3",
        )
    }
}

pub(super) async fn move_stream(
    catalog: &Catalog,
    partition: &Partition,
    tenant: u32,
    to: u32,
    within: Duration,
    output: Output,
) -> anyhow::Result<Verdict> {
    let Partition { topic, index } = partition;
    let (tenant, to) = (TenantId(tenant), VolumeId(to));
    let found = catalog.topic_by_name(tenant, topic);
    let id = found.with_context(|| format!("there is no topic {topic}"))?.id;
    let begun = Instant::now();
    let mut changes = catalog.subscribe();
    match catalog.move_stream(tenant, id, *index, to).await {
        Ok(moving) => progress(&format!(
            "{topic}/{index} is on volume {}; waiting until it is on volume {to}",
            moving.from
        )),
        Err(MoveStreamError::There(_)) => {}
        Err(error) => return Err(error.into()),
    }
    while begun.elapsed() < within {
        let now = catalog.topic_by_id(tenant, id).context("the topic was deleted meanwhile")?;
        let at = now.partitions.get(*index as usize).copied();
        let is_moving = catalog
            .moves()
            .iter()
            .any(|moving| moving.stream.topic == id && moving.stream.partition == *index);
        match (at == Some(to), is_moving) {
            (true, _) => {
                let took_ms = begun.elapsed().as_millis() as u64;
                let text = format!("{topic}/{index} is on volume {to}, after {took_ms} ms");
                let json =
                    json!({"topic": topic, "partition": index, "volume": to.0, "took_ms": took_ms});
                answer(output, &text, &json);
                return Ok(Verdict::Clean);
            }
            (false, false) => bail!(
                "the move came to nothing: the owner of volume {to} did not take the partition in, or uploads are \
                 too slow; the log of the node that has it says why"
            ),
            (false, true) => {}
        }
        let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
    }
    progress(&format!("not done within {within:?}; the owners of both volumes go on with it"));
    Ok(Verdict::Incomplete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_topic_and_a_number() {
        let topic = "a.b".to_owned();
        assert_eq!("a.b/3".parse(), Ok(Partition { topic, index: 3 }));
        for wrong in ["", "a", "a/", "a/x", "a/-1"] {
            assert!(wrong.parse::<Partition>().is_err(), "{wrong}");
        }
    }
}
