//! What a cluster tells of itself: who leads which partition, and the topic of the run.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use sluice_wire::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use sluice_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use sluice_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use sluice_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::time::{Instant, sleep};

use super::{CallError, Connection, Credentials, Endpoint};
use crate::workload::Topic;

const RETRY_AFTER: Duration = Duration::from_millis(100);
const DELETE_TIMEOUT_MS: i32 = 30_000;

/// A place in a log that a cluster tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Its first offset.
    Start,
    /// After the last one that was written.
    End,
    /// After the last one that those may read who read what is committed.
    Stable,
}

/// One partition, as the cluster tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) leader: i32,
    pub(crate) leader_epoch: i32,
}

/// A topic's partitions by index, with who leads them.
#[derive(Clone, Debug)]
pub(crate) struct Leaders {
    pub(crate) topic_id: Uuid,
    pub(crate) partitions: Vec<Partition>,
}

/// A cluster, by the addresses that it was given and those that it tells.
#[derive(Debug)]
pub(crate) struct Cluster {
    bootstrap: Vec<String>,
    credentials: Option<Credentials>,
    /// Address by node id, as last told.
    nodes: Mutex<HashMap<i32, String>>,
}

impl Cluster {
    /// The cluster behind a list of `host:port`, separated by commas, to whoever shows these credentials.
    pub(crate) fn new(bootstrap: &str, credentials: Option<Credentials>) -> Self {
        let bootstrap = bootstrap.split(',').map(|address| address.trim().to_owned());
        Self { bootstrap: bootstrap.collect(), credentials, nodes: Mutex::default() }
    }

    /// The list that it was made from.
    #[cfg(feature = "librdkafka")]
    pub(crate) fn bootstrap(&self) -> String {
        self.bootstrap.join(",")
    }

    fn endpoint(&self, address: String, client_id: &Str) -> Endpoint {
        Endpoint { address, client_id: client_id.clone(), credentials: self.credentials.clone() }
    }

    /// A connection to any server that was named.
    pub(crate) async fn any(&self, client_id: &Str) -> Result<Connection, CallError> {
        let mut failure = None;
        for address in &self.bootstrap {
            let endpoint = self.endpoint(address.clone(), client_id);
            match Connection::open(endpoint).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("splitting gives at least one address"))
    }

    /// A connection to one server.
    pub(crate) async fn node(&self, node: i32, client_id: &Str) -> Result<Connection, CallError> {
        let address = self.nodes.lock().get(&node).cloned();
        let Some(address) = address else {
            return Err(CallError::refused(
                format!("node {node}"),
                ErrorCode::LeaderNotAvailable.code(),
            ));
        };
        self.at(address, client_id).await
    }

    /// A connection to one server by its address.
    pub(crate) async fn at(
        &self,
        address: String,
        client_id: &Str,
    ) -> Result<Connection, CallError> {
        Connection::open(self.endpoint(address, client_id)).await
    }

    /// Makes a topic, and waits until all its partitions have leaders.
    pub(crate) async fn create(
        &self,
        connection: &Connection,
        name: &str,
        topic: &Topic,
        limit: Duration,
    ) -> Result<Leaders, CallError> {
        let until = Instant::now() + limit;
        let config = |(name, value): (&String, &String)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.into(),
                num_partitions: i32::try_from(topic.partitions).unwrap_or(i32::MAX),
                replication_factor: topic.replication_factor,
                configs: topic.configs.iter().map(config).collect(),
                ..Default::default()
            }],
            timeout_ms: i32::try_from(limit.as_millis()).unwrap_or(i32::MAX),
            ..Default::default()
        };
        let answer = connection.call(&request).await?;
        let error = answer.topics.first().map_or(0, |topic| topic.error_code);
        if error != 0 {
            return Err(CallError::refused(format!("creating topic {name}"), error));
        }
        loop {
            match self.leaders(connection, name).await {
                Ok(leaders) if leaders.partitions.len() == topic.partitions as usize => {
                    return Ok(leaders);
                }
                Err(error) if !error.is_retriable() || Instant::now() > until => return Err(error),
                Ok(_) | Err(_) => sleep(RETRY_AFTER).await,
            }
        }
    }

    /// Who leads the partitions of a topic now.
    pub(crate) async fn leaders(
        &self,
        connection: &Connection,
        name: &str,
    ) -> Result<Leaders, CallError> {
        let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..Default::default()
        };
        // Clients know topics by name up to version 12; an id is told from version 10 on.
        let answer = connection.call(&request).await?;
        let nodes = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, format!("{}:{}", broker.host, broker.port)));
        self.nodes.lock().extend(nodes);
        let refused = |code| CallError::refused(format!("metadata of topic {name}"), code);
        let topic = answer.topics.into_iter().next();
        let topic = topic.ok_or_else(|| refused(ErrorCode::UnknownTopicOrPartition.code()))?;
        let faults = topic.partitions.iter().map(|partition| partition.error_code);
        if let Some(code) = std::iter::once(topic.error_code).chain(faults).find(|code| *code != 0)
        {
            return Err(refused(code));
        }
        let sorted: BTreeMap<i32, Partition> = topic
            .partitions
            .iter()
            .map(|partition| {
                let (leader, leader_epoch) = (partition.leader_id, partition.leader_epoch);
                (partition.partition_index, Partition { leader, leader_epoch })
            })
            .collect();
        Ok(Leaders { topic_id: topic.topic_id, partitions: sorted.into_values().collect() })
    }

    /// This bound of each partition.
    pub(crate) async fn bounds(
        &self,
        client_id: &Str,
        name: &str,
        leaders: &Leaders,
        bound: Bound,
    ) -> Result<Vec<i64>, CallError> {
        // ListOffsets has these for times.
        let timestamp = if bound == Bound::Start { -2 } else { -1 };
        let mut by_leader: BTreeMap<i32, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (index, partition) in (0..).zip(&leaders.partitions) {
            by_leader.entry(partition.leader).or_default().push(ListOffsetsPartition {
                partition_index: index,
                timestamp,
                ..Default::default()
            });
        }
        let mut bounds = vec![0; leaders.partitions.len()];
        for (leader, partitions) in by_leader {
            let request = ListOffsetsRequest {
                replica_id: -1,
                isolation_level: (bound == Bound::Stable).into(),
                topics: vec![ListOffsetsTopic { name: name.into(), partitions }],
                ..Default::default()
            };
            let answer = self.node(leader, client_id).await?.call(&request).await?;
            for partition in answer.topics.into_iter().flat_map(|topic| topic.partitions) {
                if partition.error_code != 0 {
                    let what = format!("bounds of partition {}", partition.partition_index);
                    return Err(CallError::refused(what, partition.error_code));
                }
                let index = usize::try_from(partition.partition_index).ok();
                if let Some(bound) = index.and_then(|index| bounds.get_mut(index)) {
                    *bound = partition.offset;
                }
            }
        }
        Ok(bounds)
    }

    /// Deletes a topic.
    pub(crate) async fn delete(
        &self,
        connection: &Connection,
        name: &str,
    ) -> Result<(), CallError> {
        // Version 6 takes structures, older ones names; a server of either kind understands one of them.
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }],
            timeout_ms: DELETE_TIMEOUT_MS,
            ..Default::default()
        };
        let answer = connection.call(&request).await?;
        match answer.responses.first().map_or(0, |topic| topic.error_code) {
            0 => Ok(()),
            code => Err(CallError::refused(format!("deleting topic {name}"), code)),
        }
    }
}
