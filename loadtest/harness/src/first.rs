//! The first record: how long a client waits for a server that has just been started.

use std::time::Duration;

use sluice_model::Entropy;
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_wire::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use sluice_wire::{Str, Uuid};
use tokio::time::{Instant, sleep};

use crate::client::{CallError, Cluster};
use crate::workload::Topic;

/// The last version of Produce that knows topics by name.
const LAST_WITH_NAMES: i16 = 12;
const RETRY_AFTER: Duration = Duration::from_millis(2);

/// Makes a topic of one partition and writes one record with acks=all; what fails and may be repeated is, until
/// `limit`. Returns when it is acknowledged; the topic is deleted then.
///
/// # Errors
/// When it is not acknowledged in time, or refused for good.
pub async fn record(
    bootstrap: &str,
    entropy: &dyn Entropy,
    limit: Duration,
) -> Result<Instant, CallError> {
    let until = Instant::now() + limit;
    let name = format!("loadtest-first-{:08x}", entropy.random_u64() as u32);
    let client_id = Str::from_static("loadtest");
    let cluster = Cluster::new(bootstrap, None);
    let topic = Topic { partitions: 1, ..Topic::default() };
    let connection = again(until, async || cluster.any(&client_id).await).await?;
    let create = async || cluster.create(&connection, &name, &topic, limit).await;
    let leaders = again(until, create).await?;
    let value = [0; 100];
    let mut batch = BatchBuilder::new();
    batch.push(&NewRecord { value: Some(&value), ..Default::default() });
    let batch = batch.build();
    let most = if leaders.topic_id == Uuid::ZERO { LAST_WITH_NAMES } else { i16::MAX };
    let write = async || {
        let leader = leaders.partitions.first().map_or(-1, |partition| partition.leader);
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: i32::try_from(limit.as_millis()).unwrap_or(i32::MAX),
            topic_data: vec![TopicProduceData {
                name: Str::from(&name),
                topic_id: leaders.topic_id,
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(batch.clone().into()),
                }],
            }],
            ..Default::default()
        };
        let leader = cluster.node(leader, &client_id).await?;
        let answer = leader.send_at_most(&request, most)?.answer().await?;
        let partition =
            answer.responses.first().and_then(|topic| topic.partition_responses.first());
        match partition.map_or(0, |partition| partition.error_code) {
            0 => Ok(()),
            code => Err(CallError::refused("the first record", code)),
        }
    };
    again(until, write).await?;
    let acknowledged = Instant::now();
    // It is in nobody's way if it stays.
    let _ = cluster.delete(&connection, &name).await;
    Ok(acknowledged)
}

async fn again<T>(
    until: Instant,
    mut once: impl AsyncFnMut() -> Result<T, CallError>,
) -> Result<T, CallError> {
    loop {
        match once().await {
            Err(error) if error.is_retriable() && Instant::now() < until => {
                sleep(RETRY_AFTER).await;
            }
            outcome => return outcome,
        }
    }
}
