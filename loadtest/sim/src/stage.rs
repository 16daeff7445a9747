//! What the hosts of one run share: the parts of the world that outlive a host's crash, and the
//! director's wishes. Everything that is a choice of the seed and holds for the whole run is in
//! [`Profile`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sluice_catalog::Topic;
use sluice_model::{Clock, VolumeId};
use sluice_volume::CreateOptions;
use sluice_volume::sim::SimDevice;
use sluice_writer::{MoveOptions, WriterOptions};

use crate::bucket::{BucketServer, BucketService};
use crate::check::{BucketCheck, LogCheck, TransactionCheck};
use crate::history::History;
use crate::host::WriterService;
use crate::metadata::{MetadataServer, MetadataService};
use crate::net::Service;
use crate::random::Random;

/// The hosts that can own volumes.
pub(crate) const WRITERS: [&str; 2] = ["writer-0", "writer-1"];
/// Idempotent producers, and after them plain ones.
pub(crate) const IDEMPOTENT: u32 = 5;
pub(crate) const PLAIN: u32 = 1;
/// Transactional ones, after them.
pub(crate) const TRANSACTIONAL: u32 = 3;
/// The topic of which nothing is ever deleted.
pub(crate) const KEPT: &str = "kept";
/// Wall-clock time at the start: some day in 2026.
const START_MS: i64 = 1_790_000_000_000;

/// What the seed says of the whole run.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) volumes: u32,
    pub(crate) volume_bytes: u64,
    pub(crate) options: WriterOptions,
    pub(crate) most_value_bytes: u64,
    /// The longest rest of a producer between two requests.
    pub(crate) rest_ms: u64,
    /// How long faults are injected.
    pub(crate) load: Duration,
    /// The mean time between two faults, ms.
    pub(crate) calm_ms: u64,
}

impl Profile {
    fn of(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let fat = random.per_mille(350);
        let options = WriterOptions {
            append_queue_bytes: 8 << 20,
            append_timeout: random.ms(800, 3000),
            tail_cache_bytes: *random.pick(&[0, 16 << 10, 256 << 10]),
            upload_segment_bytes: *random.pick(&[8 << 10, 64 << 10, 512 << 10]),
            upload_max_age: random.ms(50, 1500),
            retention_interval: random.ms(200, 1500),
            delete_grace: random.ms(0, 3000),
            queue_depth: random.between(1, 8) as usize,
            moves: MoveOptions {
                hold: random.ms(200, 1500),
                patience: random.ms(100, 3000),
                lent_interval: random.ms(100, 2000),
            },
            ..WriterOptions::default()
        };
        Self {
            volumes: random.between(1, 2) as u32,
            volume_bytes: *random.pick(&[7 << 20, 9 << 20, 16 << 20]),
            options,
            most_value_bytes: if fat { 60_000 } else { 400 },
            rest_ms: random.between(5, 60),
            load: random.ms(6_000, 12_000),
            calm_ms: random.between(150, 900),
        }
    }
}

/// Who should own volumes, and how they should let go.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    pub(crate) own: AtomicBool,
    /// Let go by handing over, not by losing the device.
    pub(crate) gentle: AtomicBool,
    /// Whether the host has the volumes, or is about to.
    pub(crate) busy: AtomicBool,
    /// Whether the host serves now.
    pub(crate) serves: AtomicBool,
}

/// What the director breaks on purpose on a disk, until it mends it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rot {
    pub(crate) volume: u32,
    pub(crate) offset: u64,
    pub(crate) mask: u8,
}

/// The world.
pub(crate) struct Stage {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) history: History,
    pub(crate) logs: Mutex<LogCheck>,
    pub(crate) transactions: Mutex<TransactionCheck>,
    pub(crate) objects: Arc<Mutex<BucketCheck>>,
    pub(crate) bucket: BucketServer,
    pub(crate) bucket_service: BucketService,
    pub(crate) metadata: MetadataServer,
    pub(crate) metadata_service: MetadataService,
    pub(crate) writer_service: WriterService,
    pub(crate) devices: Vec<SimDevice>,
    pub(crate) wishes: [Wish; 2],
    /// How far each writer's wall clock is off, ms.
    pub(crate) skews: [AtomicI64; 2],
    /// Made by the first client, once.
    pub(crate) topics: Mutex<Vec<Arc<Topic>>>,
    /// No new records from now on.
    pub(crate) wind_down: AtomicBool,
    /// Producers that have nothing left to be acknowledged.
    pub(crate) settled: Mutex<Vec<u32>>,
    /// A client has just heard of an acknowledgement.
    pub(crate) just_acknowledged: AtomicBool,
    pub(crate) rot: Mutex<Option<Rot>>,
    /// Times that each host was started, so that no start repeats another's choices.
    pub(crate) starts: AtomicI64,
}

impl Stage {
    pub(crate) fn new(seed: u64, history: History) -> Arc<Self> {
        let profile = Profile::of(seed);
        let objects = Arc::new(Mutex::new(BucketCheck::new(history.clone())));
        let devices = (0..profile.volumes).map(|id| {
            let uuid = [id as u8 + 1; 16];
            let options = CreateOptions::new(VolumeId(id), uuid, profile.volume_bytes);
            SimDevice::create(options, Random::new(seed, 100 + u64::from(id)).next())
                .expect("the sizes to choose from are large enough")
        });
        Arc::new(Self {
            devices: devices.collect(),
            logs: Mutex::new(LogCheck::new(history.clone(), IDEMPOTENT..IDEMPOTENT + PLAIN)),
            transactions: Mutex::new(TransactionCheck::new(history.clone())),
            bucket: BucketServer::new(Random::new(seed, 2), Arc::clone(&objects), history.clone()),
            objects,
            bucket_service: Service::new(80),
            metadata: MetadataServer::default(),
            metadata_service: Service::new(2379),
            writer_service: Service::new(9092),
            wishes: Default::default(),
            skews: Default::default(),
            topics: Mutex::default(),
            wind_down: AtomicBool::new(false),
            settled: Mutex::default(),
            just_acknowledged: AtomicBool::new(false),
            rot: Mutex::new(None),
            starts: AtomicI64::new(0),
            seed,
            profile,
            history,
        })
    }

    /// Choices of a part of the run that has this label, different at each call.
    pub(crate) fn random(&self, label: u64) -> Random {
        let start = self.starts.fetch_add(1, Ordering::Relaxed) as u64;
        Random::new(self.seed, label << 20 | start)
    }

    /// Whether this host owns the volumes now, as far as it knows.
    pub(crate) fn serves(&self, host: usize) -> bool {
        self.wishes[host].serves.load(Ordering::Relaxed)
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.lock().iter().find(|topic| &*topic.name == name).cloned()
    }
}

/// A host's wall clock: the run's time, off by what the director says.
pub(crate) struct HostClock {
    pub(crate) stage: Arc<Stage>,
    pub(crate) host: usize,
}

impl Clock for HostClock {
    fn wall_ms(&self) -> i64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        START_MS + elapsed as i64 + self.stage.skews[self.host].load(Ordering::Relaxed)
    }
}

/// The time that producers put into records: nobody's clock.
pub(crate) fn producer_time_ms() -> i64 {
    START_MS + turmoil::sim_elapsed().unwrap_or_default().as_millis() as i64
}
