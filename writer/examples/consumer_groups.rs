//! How long a consumer group takes to rebalance, and what it costs in memory.
//!
//! `cargo run --release -p sluice-writer --example consumer_groups -- 500 1000`: so many members over so many
//! partitions, on a coordinator whose log is memory. Each member says every 20 ms what it has. Shown: the
//! time until all are stable after all have joined at once, after a tenth has left, and after a topic grew;
//! and bytes a member, with its records as they are stored.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use peak_alloc::PeakAlloc;
use sluice_model::{Clock, Entropy, GroupConfigs, GroupSettings, TenantId, TopicId};
use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use sluice_wire::{Str, Uuid};
use sluice_writer::group::log::{CoordinatorLog, CoordinatorState, LogError, LogRecord};
use sluice_writer::group::{GroupCaller, GroupConfig, GroupCoordinator, TopicShape, Topics};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const TENANT: TenantId = TenantId(1);
const TOPIC: TopicId = TopicId([7; 16]);
const BEAT: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Seams(AtomicU64);

impl Clock for Seams {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

impl Entropy for Seams {
    fn fill(&self, out: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let len = out.len().min(8);
        out[..len].copy_from_slice(&count[..len]);
    }
}

/// One topic that grows.
struct OneTopic(AtomicI32);

impl Topics for OneTopic {
    fn name(&self, _tenant: TenantId, topic: TopicId) -> Option<Str> {
        (topic == TOPIC).then(|| Str::from_static("topic"))
    }

    fn find(&self, _tenant: TenantId, name: &str) -> Option<TopicShape> {
        let partitions = self.0.load(Ordering::Relaxed);
        (name == "topic").then_some(TopicShape { id: TOPIC, partitions })
    }

    fn names(&self, _tenant: TenantId) -> Vec<Str> {
        vec![Str::from_static("topic")]
    }

    fn version(&self, _tenant: TenantId) -> u64 {
        self.0.load(Ordering::Relaxed).unsigned_abs().into()
    }
}

impl GroupConfigs for OneTopic {
    fn settings(&self, _tenant: TenantId, _group: &str) -> Arc<GroupSettings> {
        Arc::new(GroupSettings::default())
    }
}

/// Applies at once, and counts.
struct MemoryLog {
    state: Weak<GroupCoordinator>,
    records: AtomicU64,
    bytes: AtomicU64,
}

#[async_trait]
impl CoordinatorLog for MemoryLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<(), LogError> {
        let state = self.state.upgrade().ok_or(LogError::NotOwner)?;
        for record in records {
            self.records.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(record.len_bytes() as u64, Ordering::Relaxed);
            state.apply(&record.key, record.value.as_deref()).map_err(|_| LogError::Unavailable)?;
        }
        Ok(())
    }
}

struct Member {
    id: Str,
    epoch: i32,
    owned: Vec<TopicPartitions>,
}

struct Bench {
    groups: Arc<GroupCoordinator>,
    log: Arc<MemoryLog>,
    caller: GroupCaller,
    members: Vec<Member>,
}

impl Bench {
    async fn beat(&mut self, at: usize) -> anyhow::Result<()> {
        let member = &mut self.members[at];
        let joins = member.epoch == 0;
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Str::from_static("g"),
            member_id: member.id.clone(),
            member_epoch: member.epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![Str::from_static("topic")]),
            topic_partitions: Some(member.owned.clone()),
            ..Default::default()
        };
        let answer = self.groups.consumer_group_heartbeat(&self.caller, 1, request).await;
        ensure!(answer.error_code == 0, "refused: {:?}", answer.error_message);
        member.epoch = answer.member_epoch;
        if let Some(assignment) = answer.assignment {
            let topics = assignment.topic_partitions.into_iter();
            member.owned = topics
                .map(|topic| TopicPartitions {
                    topic_id: Uuid(topic.topic_id.0),
                    partitions: topic.partitions,
                })
                .collect();
        }
        Ok(())
    }

    async fn settle(&mut self, what: &str, partitions: usize) -> anyhow::Result<()> {
        let (records, bytes) = self.logged();
        let start = Instant::now();
        let mut rounds = 0;
        loop {
            let next = Instant::now() + BEAT;
            rounds += 1;
            for at in 0..self.members.len() {
                self.beat(at).await?;
            }
            let owned: usize = self
                .members
                .iter()
                .flat_map(|m| &m.owned)
                .map(|topic| topic.partitions.len())
                .sum();
            if owned == partitions && self.is_stable().await {
                break;
            }
            ensure!(start.elapsed() < Duration::from_secs(60), "does not settle");
            tokio::time::sleep_until(next).await;
        }
        let took = start.elapsed().as_millis();
        let (records, bytes) = (self.logged().0 - records, (self.logged().1 - bytes) >> 10);
        #[expect(clippy::print_stdout, reason = "the result")]
        {
            println!(
                "{what}: stable after {took} ms, {rounds} rounds; logged {records} records, {bytes} KiB"
            );
        }
        Ok(())
    }

    fn logged(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.log.records), count(&self.log.bytes))
    }

    async fn is_stable(&self) -> bool {
        let group_ids = vec![Str::from_static("g")];
        let request = ConsumerGroupDescribeRequest { group_ids, ..Default::default() };
        let answer = self.groups.consumer_group_describe(&self.caller, request).await;
        answer.groups.first().is_some_and(|group| group.group_state == "Stable")
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        Some(text) => text.parse().context("members, partitions"),
        None => Ok(default),
    };
    let (members, partitions) = (number(500)?, number(1_000)?);
    let seams = Arc::new(Seams::default());
    let topic = Arc::new(OneTopic(AtomicI32::new(i32::try_from(partitions)?)));
    let groups = Arc::new(GroupCoordinator::new(
        GroupConfig::default(),
        Arc::clone(&seams) as _,
        seams as _,
        Arc::clone(&topic) as _,
        Arc::clone(&topic) as _,
    ));
    let log = Arc::new(MemoryLog {
        state: Arc::downgrade(&groups),
        records: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    });
    groups.start(Arc::clone(&log) as _);
    let caller = GroupCaller {
        tenant: TENANT,
        client_id: Str::from_static("bench"),
        client_host: Str::from_static("/127.0.0.1"),
    };
    let clients = (0..members)
        .map(|n| Member { id: Str::from(format!("{n:022}")), epoch: 0, owned: Vec::new() })
        .collect();
    let mut bench = Bench { groups, log, caller, members: clients };
    let before = ALLOCATED.current_usage();
    bench.settle("all join at once", partitions).await?;
    let member_bytes = (ALLOCATED.current_usage().saturating_sub(before)) / members;
    for member in bench.members.split_off(members - members / 10) {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: Str::from_static("g"),
            member_id: member.id,
            member_epoch: -1,
            ..Default::default()
        };
        bench.groups.consumer_group_heartbeat(&bench.caller, 1, request).await;
    }
    bench.settle("a tenth leaves", partitions).await?;
    topic.0.fetch_add(i32::try_from(partitions / 10)?, Ordering::Relaxed);
    bench.settle("the topic grows by a tenth", partitions + partitions / 10).await?;
    #[expect(clippy::print_stdout, reason = "the result")]
    {
        println!(
            "{member_bytes} bytes a member, with its share of the group and the client's part here"
        );
    }
    Ok(())
}
