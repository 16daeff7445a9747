//! What a comparison plays: servers, workloads, numbers of partitions, rounds, and in which order.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Workload;
use crate::amount::{Rate, Size, Time};

/// The workloads of a comparison, in the order in which a server plays them. What loads most is last: what it leaves
/// behind would be in the figures of the others.
pub const WORKLOADS: [&str; 4] = ["produce", "tail", "catch-up", "max"];

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Apache Kafka as it ships: it acknowledges what is in memory.
    Kafka,
    /// Apache Kafka that flushes each message.
    KafkaFlush,
    /// Tansu, on the S3 server.
    Tansu,
    /// Sluice with its volume in a file.
    SluiceFile,
    /// Sluice with its volume on a block device.
    SluiceBlock,
    /// Sluice with its volume in the bucket.
    SluiceObject,
    /// A server that is there already.
    Other,
}

impl Kind {
    /// Those that are started here.
    pub const STARTED: [Self; 6] = [
        Self::Kafka,
        Self::KafkaFlush,
        Self::Tansu,
        Self::SluiceFile,
        Self::SluiceBlock,
        Self::SluiceObject,
    ];

    /// What `--only` and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::KafkaFlush => "kafka-flush",
            Self::Tansu => "tansu",
            Self::SluiceFile => "sluice-file",
            Self::SluiceBlock => "sluice-block",
            Self::SluiceObject => "sluice-object",
            Self::Other => "other",
        }
    }

    /// How it runs, for reports: what a reader must know to judge the figures.
    pub fn described(self) -> &'static str {
        match self {
            Self::Kafka => {
                "Apache Kafka, one process in KRaft mode, with the settings and the 1 GiB heap that it ships with; it \
                 acknowledges what is in the page cache: not durable against power loss"
            }
            Self::KafkaFlush => {
                "the same with log.flush.interval.messages=1: durable when it acknowledges"
            }
            Self::Tansu => {
                "Tansu with its storage on the S3 server, at its defaults; durable in the bucket when it acknowledges"
            }
            Self::SluiceFile => {
                "Sluice at its defaults, the volume in a file; durable on the disk when it acknowledges"
            }
            Self::SluiceBlock => {
                "Sluice at its defaults, the volume on a loop device of 1 GiB (direct I/O) over a file on the same disk; \
                 durable on it when it acknowledges"
            }
            Self::SluiceObject => {
                "Sluice at its defaults, the volume in the bucket; durable in the bucket when it acknowledges"
            }
            Self::Other => {
                "a server that was there already: its start and its cost are not measured"
            }
        }
    }

    /// Whether it is one of ours.
    pub fn is_sluice(self) -> bool {
        matches!(self, Self::SluiceFile | Self::SluiceBlock | Self::SluiceObject)
    }

    /// Whether it cannot run without the S3 server.
    pub fn needs_store(self) -> bool {
        matches!(self, Self::Tansu | Self::SluiceObject)
    }
}

/// A server that is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// What reports call it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it is, if it is there already.
    pub address: Option<String>,
}

impl Peer {
    /// A server that is started here.
    pub fn started(kind: Kind) -> Self {
        Self { name: kind.name().to_owned(), kind, address: None }
    }

    /// A server that is there already.
    ///
    /// # Errors
    /// Words for the user: it is not `NAME=HOST:PORT`, or the name does not fit into names of files.
    pub fn other(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: write NAME=HOST:PORT, the name in letters, digits, dashes");
        let (name, address) = text.split_once('=').ok_or_else(wrong)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || !name.chars().all(fits) || !address.contains(':') {
            return Err(wrong());
        }
        let address = Some(address.to_owned());
        Ok(Self { name: name.to_owned(), kind: Kind::Other, address })
    }
}

/// What is wrong with a plan, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// Which workloads, and how they differ from those that come with the program.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    /// Names out of [`WORKLOADS`]; all if it is empty.
    pub names: Vec<String>,
    /// Another rate than 80 MiB/s, and than a quarter of it while somebody catches up.
    pub rate: Option<Rate>,
    /// Takes a few seconds each: good for a look, not for figures.
    pub is_quick: bool,
}

/// What a comparison plays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The servers.
    pub peers: Vec<Peer>,
    /// How often all is played.
    pub rounds: u32,
    /// Numbers of partitions, each with a server of its own.
    pub partitions: Vec<u32>,
    /// Name and workload.
    pub workloads: Vec<(String, Workload)>,
    /// Whether Sluice's bucket is on the S3 server; else it is a directory.
    pub with_store: bool,
    /// Whether the S3 server's data lie on another disk than those of the servers, as in earnest.
    #[serde(default)]
    pub store_apart: bool,
}

/// One server that plays the workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// From 0.
    pub(super) round: u32,
    pub(super) peer: Peer,
    pub(super) partitions: u32,
}

impl Plan {
    /// A plan.
    ///
    /// # Errors
    /// What makes no sense, in words.
    pub fn new(
        peers: Vec<Peer>,
        rounds: u32,
        partitions: Vec<u32>,
        workloads: &Workloads,
        with_store: bool,
    ) -> Result<Self, Invalid> {
        let twice = |names: &[&str]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
        };
        let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        if let Some(name) = twice(&names) {
            return Err(Invalid(format!("two servers have the name {name}")));
        }
        if peers.is_empty() || rounds == 0 || partitions.is_empty() || partitions.contains(&0) {
            let words = "at least one server, one round and one partition are needed";
            return Err(Invalid(words.to_owned()));
        }
        let known = |name: &&String| !WORKLOADS.contains(&name.as_str());
        if let Some(unknown) = workloads.names.iter().find(known) {
            let all = WORKLOADS.join(", ");
            return Err(Invalid(format!("there is no workload {unknown}: write some of {all}")));
        }
        let chosen = WORKLOADS.iter().filter(|name| {
            workloads.names.is_empty() || workloads.names.iter().any(|chosen| chosen == *name)
        });
        let workloads = chosen.map(|name| Ok(((*name).to_owned(), adapted(name, workloads)?)));
        let workloads = workloads.collect::<Result<_, Invalid>>()?;
        Ok(Self { peers, rounds, partitions, workloads, with_store, store_apart: false })
    }

    /// All turns, in order. Who begins differs from round to round: nobody has the warm, or the tired, machine always.
    pub(super) fn turns(&self) -> Vec<Turn> {
        let mut turns = Vec::new();
        for round in 0..self.rounds {
            for (place, partitions) in self.partitions.iter().enumerate() {
                let first = (round as usize + place) % self.peers.len();
                let order = self.peers[first..].iter().chain(&self.peers[..first]);
                turns.extend(order.map(|peer| Turn {
                    round,
                    peer: peer.clone(),
                    partitions: *partitions,
                }));
            }
        }
        turns
    }
}

/// A workload of a comparison, with what the user wants otherwise.
fn adapted(name: &str, wanted: &Workloads) -> Result<Workload, Invalid> {
    let invalid = |error: &dyn std::fmt::Display| Invalid(error.to_string());
    let text = Workload::built_in(&format!("peers-{name}"));
    let text = text.ok_or_else(|| invalid(&format!("{name} does not come with the program")))?;
    let mut workload = Workload::parse(text).map_err(|error| invalid(&error))?;
    if let Some(rate) = wanted.rate {
        let quarter = match rate {
            Rate::Max => return Err(Invalid("the rate must be a number".to_owned())),
            Rate::Bytes(bytes) => Rate::Bytes(bytes / 4),
            Rate::Records(records) => Rate::Records(records / 4),
        };
        match &mut workload.search {
            Some(search) => (search.from, search.least) = (rate, Some(quarter)),
            None if workload.backlog.is_some() => workload.produce.rate = Some(quarter),
            None => workload.produce.rate = Some(rate),
        }
    }
    if wanted.is_quick {
        let is_search = workload.search.is_some();
        workload.duration = Time(Duration::from_secs(if is_search { 1 } else { 2 }));
        workload.warm_up = Time(Duration::from_millis(500));
        if let Some(search) = &mut workload.search {
            search.precision_percent = 50;
        }
        if let Some(backlog) = &mut workload.backlog {
            backlog.size = Size(64 << 20);
        }
    }
    workload.check().map_err(|error| invalid(&error))?;
    Ok(workload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(peers: &[&str], workloads: &Workloads) -> Result<Plan, Invalid> {
        let peers = peers.iter().map(|name| Peer::other(&format!("{name}=host:1")));
        let peers = peers.collect::<Result<_, _>>().expect("names");
        Plan::new(peers, 3, vec![3, 100], workloads, true)
    }

    #[test]
    fn each_server_begins_as_often_as_it_can_and_plays_all() {
        let plan = plan(&["a", "b", "c"], &Workloads::default()).expect("a plan");
        let turns = plan.turns();
        assert_eq!(turns.len(), 3 * 2 * 3);
        let order = |from: usize| -> Vec<&str> {
            turns[from..from + 3].iter().map(|turn| turn.peer.name.as_str()).collect()
        };
        assert_eq!((order(0), order(3)), (vec!["a", "b", "c"], vec!["b", "c", "a"]));
        assert_eq!((order(6), order(12)), (vec!["b", "c", "a"], vec!["c", "a", "b"]));
        for round in 0..3 {
            for partitions in [3, 100] {
                let those = turns
                    .iter()
                    .filter(|turn| turn.round == round && turn.partitions == partitions);
                assert_eq!(those.count(), 3);
            }
        }
        assert_eq!(plan.workloads.len(), WORKLOADS.len());
    }

    #[test]
    fn workloads_are_chosen_and_adapted() {
        let wanted = Workloads {
            names: vec!["catch-up".to_owned(), "tail".to_owned()],
            rate: Some(Rate::Bytes(8 << 20)),
            is_quick: true,
        };
        let plan = plan(&["a"], &wanted).expect("a plan");
        let [(tail, first), (catch_up, second)] = &plan.workloads[..] else { panic!("{plan:?}") };
        assert_eq!((tail.as_str(), catch_up.as_str()), ("tail", "catch-up"));
        assert_eq!(first.produce.rate, Some(Rate::Bytes(8 << 20)));
        assert_eq!(second.produce.rate, Some(Rate::Bytes(2 << 20)));
        assert_eq!(first.duration, Time(Duration::from_secs(2)));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let unknown = Workloads { names: vec!["tails".to_owned()], ..Workloads::default() };
        let error = plan(&["a"], &unknown).expect_err("unknown").to_string();
        assert!(error.contains("no workload tails: write some of produce, tail"), "{error}");
        let error = plan(&["a", "a"], &Workloads::default()).expect_err("twice").to_string();
        assert!(error.contains("two servers have the name a"), "{error}");
        assert!(plan(&[], &Workloads::default()).is_err());
        for wrong in ["a", "=h:1", "a/b=h:1", "a=h"] {
            assert!(Peer::other(wrong).is_err(), "{wrong}");
        }
    }
}
