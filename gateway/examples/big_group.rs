//! How long a big consumer group takes to rebalance over real connections, and what it costs the server in
//! memory: members of the consumer protocol (KIP-848), each on a connection of its own, that beat as often as
//! they are told and, as clients do, at once when they have to give partitions back or take them up.
//!
//!     cargo run --release -p sluice-gateway --example big_group -- 127.0.0.1:9092 PID 500 1000
//!
//! The server's process id is for its memory. Shown: the time until every member owns its part of the
//! partitions after all joined at once, after one more came, after one left and after a tenth left; and the
//! server's resident memory for connections, members, and groups of one member.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use sluice_wire::header::{RequestHeader, ResponseHeader};
use sluice_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use sluice_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use sluice_wire::{Decoder, Encoder, Message, Request, Str};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Groups of one member, for their memory.
const SMALL_GROUPS: usize = 2_000;
const SMALL_GROUPS_A_CONNECTION: usize = 100;
const FEW_PARTITIONS: usize = 10;
/// Longer than any rebalance here may take.
const LIMIT: Duration = Duration::from_secs(120);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection with one request on its way.
struct Connection(TcpStream);

impl Connection {
    async fn open(address: &str) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self(socket))
    }

    async fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Failure> {
        let mut encoder = Encoder::framed();
        let header = RequestHeader {
            request_api_key: R::KEY.code(),
            request_api_version: version,
            correlation_id: 1,
            client_id: Some("big-group".into()),
        };
        header.encode(&mut encoder, R::KEY.request_header_version(version))?;
        request.encode(&mut encoder, version)?;
        self.0.write_all(&encoder.into_frame()?.to_bytes()).await?;
        let mut frame = BytesMut::zeroed(usize::try_from(self.0.read_i32().await?)?);
        self.0.read_exact(&mut frame).await?;
        let mut decoder = Decoder::new(frame.freeze());
        ResponseHeader::decode(&mut decoder, R::KEY.response_header_version(version))?;
        Ok(R::Response::decode(&mut decoder, version)?)
    }
}

/// A member as its client keeps it.
struct Member {
    connection: Connection,
    group: Str,
    topic: Str,
    id: Str,
    epoch: i32,
    owned: Vec<TopicPartitions>,
    interval: Duration,
}

impl Member {
    fn new(connection: Connection, group: &str, topic: &str, number: usize) -> Self {
        Self {
            connection,
            group: group.into(),
            topic: topic.into(),
            id: format!("{number:022}").into(),
            epoch: 0,
            owned: Vec::new(),
            interval: Duration::from_secs(5),
        }
    }

    fn owns(&self) -> usize {
        self.owned.iter().map(|topic| topic.partitions.len()).sum()
    }

    /// One heartbeat; whether what the member owns has changed, of which the server is to hear at once.
    async fn beat(&mut self) -> Result<bool, Failure> {
        let joins = self.epoch == 0;
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            subscribed_topic_names: joins.then(|| vec![self.topic.clone()]),
            topic_partitions: Some(self.owned.clone()),
            ..Default::default()
        };
        let answer = self.connection.call(&request, 1).await?;
        if answer.error_code != 0 {
            return Err(format!("refused: {:?}", answer.error_message).into());
        }
        self.epoch = answer.member_epoch;
        self.interval = Duration::from_millis(u64::try_from(answer.heartbeat_interval_ms)?);
        let Some(assignment) = answer.assignment else { return Ok(false) };
        let topics = assignment.topic_partitions.into_iter();
        let owned: Vec<_> = topics
            .map(|t| TopicPartitions { topic_id: t.topic_id, partitions: t.partitions })
            .collect();
        let changed = owned != self.owned;
        self.owned = owned;
        Ok(changed)
    }

    async fn leave(&mut self) -> Result<(), Failure> {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: -1,
            ..Default::default()
        };
        let answer = self.connection.call(&request, 1).await?;
        if answer.error_code == 0 { Ok(()) } else { Err("may not leave".into()) }
    }

    /// Beats until it is told to leave; what it owns goes to its place in `owns`.
    async fn live(
        mut self,
        owns: Arc<Mutex<Vec<Option<usize>>>>,
        place: usize,
        mut leave: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        loop {
            while self.beat().await? {
                owns.lock()[place] = Some(self.owns());
            }
            owns.lock()[place] = Some(self.owns());
            let leaves = tokio::select! {
                () = tokio::time::sleep(self.interval) => false,
                told = leave.wait_for(|leave| *leave) => told.is_ok(),
            };
            if leaves {
                owns.lock()[place] = None;
                return self.leave().await;
            }
        }
    }
}

struct Bench {
    address: String,
    pid: u32,
    topic: String,
    partitions: usize,
    owns: Arc<Mutex<Vec<Option<usize>>>>,
    living: Vec<Living>,
}

/// A member that beats, until it is told to leave.
struct Living {
    leave: watch::Sender<bool>,
    task: JoinHandle<Result<(), Failure>>,
}

impl Bench {
    /// Joins members on connections that are open already.
    fn join(&mut self, connections: Vec<Connection>) {
        for connection in connections {
            let place = self.living.len();
            self.owns.lock().push(Some(0));
            let member = Member::new(connection, "big", &self.topic, place);
            let (leave, told) = watch::channel(false);
            let task = tokio::spawn(member.live(Arc::clone(&self.owns), place, told));
            self.living.push(Living { leave, task });
        }
    }

    fn leave(&self, count: usize) {
        let there: Vec<usize> = {
            let owns = self.owns.lock();
            owns.iter().enumerate().filter(|(_, o)| o.is_some()).map(|(place, _)| place).collect()
        };
        for place in there.into_iter().take(count) {
            // Its place says so at once: its partitions are nobody's.
            self.owns.lock()[place] = None;
            self.living[place].leave.send_replace(true);
        }
    }

    /// Waits until all partitions are owned, by all members alike.
    async fn settled(&self, what: &str) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            {
                let owns = self.owns.lock();
                let owns: Vec<usize> = owns.iter().copied().flatten().collect();
                let least = self.partitions / owns.len();
                let most = self.partitions.div_ceil(owns.len());
                let fair = owns.iter().all(|owned| (least..=most).contains(owned));
                if fair && owns.iter().sum::<usize>() == self.partitions {
                    break;
                }
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("{what}: not settled").into());
            }
            for living in &self.living {
                if living.task.is_finished() && begun.elapsed() > LIMIT / 2 {
                    return Err(format!("{what}: a member has ended").into());
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        println!("{what}: {} ms", begun.elapsed().as_millis());
        Ok(())
    }

    fn rss_kib(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or("no VmRSS")?.parse()?)
    }
}

async fn connections(address: &str, count: usize) -> Result<Vec<Connection>, Failure> {
    let mut made = Vec::with_capacity(count);
    for _ in 0..count {
        made.push(Connection::open(address).await?);
    }
    Ok(made)
}

fn each(what: &str, before: u64, after: u64, count: usize) {
    let bytes = after.saturating_sub(before) * 1024 / count as u64;
    println!("{what}: {bytes} bytes each ({before} to {after} KiB of {count})");
}

async fn run(arguments: &[String]) -> Result<(), Failure> {
    let [address, pid, members, partitions] = arguments else {
        return Err("usage: big_group ADDRESS PID MEMBERS PARTITIONS".into());
    };
    let (members, partitions): (usize, usize) = (members.parse()?, partitions.parse()?);
    let topic = format!("big-{}", std::process::id());
    let mut control = Connection::open(address).await?;
    let creates = |name: String, partitions: usize| -> Result<CreatableTopic, Failure> {
        Ok(CreatableTopic {
            name: name.into(),
            num_partitions: i32::try_from(partitions)?,
            replication_factor: 1,
            ..Default::default()
        })
    };
    let few = creates(few(&topic), FEW_PARTITIONS)?;
    let topics = vec![creates(topic.clone(), partitions)?, few];
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let made = control.call(&request, 7).await?;
    if made.topics.iter().any(|topic| topic.error_code != 0) {
        return Err(format!("the topic is not made: {made:?}").into());
    }
    let mut bench = Bench {
        address: address.clone(),
        pid: pid.parse()?,
        topic,
        partitions,
        owns: Arc::default(),
        living: Vec::new(),
    };
    let empty = bench.rss_kib()?;
    let sockets = connections(address, members - 1).await?;
    let connected = bench.rss_kib()?;
    each("connections", empty, connected, members - 1);
    bench.join(sockets);
    bench.settled(&format!("{} join at once", members - 1)).await?;
    let joined = bench.rss_kib()?;
    each("members, connected", connected, joined, members - 1);
    let last = connections(address, 1).await?;
    bench.join(last);
    bench.settled("the last one joins").await?;
    bench.leave(1);
    bench.settled("one leaves").await?;
    bench.leave(members / 10);
    bench.settled("a tenth leaves").await?;
    small_groups(&bench).await
}

/// The topic of the small groups.
fn few(topic: &str) -> String {
    format!("{topic}-few")
}

/// Many groups of one member each.
async fn small_groups(bench: &Bench) -> Result<(), Failure> {
    let mut sockets = connections(&bench.address, SMALL_GROUPS / SMALL_GROUPS_A_CONNECTION).await?;
    let before = bench.rss_kib()?;
    let mut number = 0;
    while let Some(mut connection) = sockets.pop() {
        for _ in 0..SMALL_GROUPS_A_CONNECTION {
            number += 1;
            let group = format!("small-{number}");
            let mut member = Member::new(connection, &group, &few(&bench.topic), number);
            member.beat().await?;
            connection = member.connection;
        }
    }
    let what = format!("groups of one member, {FEW_PARTITIONS} partitions");
    each(&what, before, bench.rss_kib()?, SMALL_GROUPS);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("big_group: {error}");
            ExitCode::FAILURE
        }
    }
}
