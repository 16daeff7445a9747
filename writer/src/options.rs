//! How a writer works; filled from the process's configuration.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sluice_catalog::Tenure;
use sluice_format::VolumeState;
use sluice_model::{VolumeEpoch, VolumeId};
use sluice_volume::{Medium, Reservations};

/// Bounds and triggers of one volume's owner.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Appends that wait or are in flight, in bytes; more wait before they are queued.
    pub append_queue_bytes: u32,
    /// An append that is not durable after this time is answered with a retriable error, even if the
    /// client would wait longer.
    pub append_timeout: Duration,
    /// Durable frames kept in memory for consumers at the tail.
    pub tail_cache_bytes: u64,
    /// Un-uploaded bytes that make a segment due.
    pub upload_segment_bytes: u64,
    /// Age of the oldest un-uploaded frame that makes a segment due, if that is worth its requests: a few
    /// MiB, or asked for by readers.
    pub upload_max_age: Duration,
    /// That age when there is next to nothing to upload; what is between waits in inverse proportion.
    pub upload_max_age_idle: Duration,
    /// Segments that are on their way to the bucket at once, at most.
    pub upload_in_flight: usize,
    /// Their bytes at most, unless it is one alone.
    pub upload_in_flight_bytes: u64,
    /// Larger objects are put in parts. More parallel, but each part is a PUT: segments of the usual size
    /// are better put as one, since several are on their way at once anyway.
    pub multipart_above_bytes: u64,
    /// The length of such a part.
    pub part_bytes: u64,
    /// How often retention looks for what to remove.
    pub retention_interval: Duration,
    /// How long a segment stays in the bucket after the last reference to it is gone, so that reads
    /// that began before can end.
    pub delete_grace: Duration,
    /// Frames in flight to the device.
    pub queue_depth: usize,
    /// Whether volumes on block devices fence by persistent reservation.
    pub reservations: Reservations,
    /// Compaction of what is in the bucket.
    pub compaction: CompactionOptions,
    /// Objects in the bucket that nothing names.
    pub orphans: OrphanOptions,
    /// Streams that move from volume to volume.
    pub moves: MoveOptions,
}

/// How long what takes part in a move of a stream waits.
#[derive(Clone, Debug)]
pub struct MoveOptions {
    /// Appends of the stream are held so long, at most, while its last records are uploaded; if that takes longer
    /// the stream is served on, and it is tried again later.
    pub hold: Duration,
    /// A stream that is sealed waits so long for the owner of its next volume; then it stays where it is.
    pub patience: Duration,
    /// How often it is looked whether segments that were lent are named still.
    pub lent_interval: Duration,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(1),
            patience: Duration::from_secs(3),
            lent_interval: Duration::from_secs(600),
        }
    }
}

/// When objects that no manifest names are looked for and deleted.
#[derive(Clone, Debug)]
pub struct OrphanOptions {
    /// How often the bucket is listed.
    pub interval: Duration,
    /// Younger objects stay: a reader may hold a state that still names them.
    pub grace: Duration,
}

impl Default for OrphanOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(24 * 3600), grace: Duration::from_secs(3600) }
    }
}

/// How a volume's part of the bucket is compacted.
#[derive(Clone, Debug)]
pub struct CompactionOptions {
    /// Whether it is at all; topics with `cleanup.policy=compact` grow without end if it is not.
    pub enabled: bool,
    /// How often it looks for what to do.
    pub interval: Duration,
    /// Segments younger than this are not merged: much of what is short-lived is gone by then.
    pub min_age: Duration,
    /// Bytes read and written a second, at most.
    pub bytes_per_second: u64,
    /// New segments are closed at this size; a job holds about as much in memory.
    pub segment_bytes: u64,
    /// What key compaction's map of keys may take in memory.
    pub key_map_bytes: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(15),
            min_age: Duration::from_secs(300),
            bytes_per_second: 64 << 20,
            segment_bytes: 16 << 20,
            key_map_bytes: 64 << 20,
        }
    }
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            append_queue_bytes: 64 << 20,
            append_timeout: Duration::from_secs(10),
            tail_cache_bytes: 64 << 20,
            upload_segment_bytes: 32 << 20,
            upload_max_age: Duration::from_secs(10),
            upload_max_age_idle: Duration::from_secs(60),
            multipart_above_bytes: 64 << 20,
            part_bytes: 16 << 20,
            upload_in_flight: 3,
            upload_in_flight_bytes: 96 << 20,
            retention_interval: Duration::from_secs(30),
            delete_grace: Duration::from_secs(60),
            queue_depth: 8,
            reservations: Reservations::Auto,
            compaction: CompactionOptions::default(),
            orphans: OrphanOptions::default(),
            moves: MoveOptions::default(),
        }
    }
}

/// The set of volumes of a writer changes.
pub enum Shift {
    /// The volume is about to be served: a reader of the same process attaches itself to what it has in the bucket.
    Taken {
        /// The volume.
        volume: VolumeId,
        /// What it has in the bucket; changes with each commit.
        state: Arc<RwLock<VolumeState>>,
    },
    /// The volume is served no more.
    Gone {
        /// The volume.
        volume: VolumeId,
    },
}

/// Told of each [`Shift`], of one volume in order. Must not block.
pub type OnShift = Arc<dyn Fn(Shift) + Send + Sync>;

/// On what terms a volume is taken.
#[derive(Clone, Debug)]
pub struct TakeTerms {
    /// How long a bucket or a device that does not answer is waited for, from the claim on.
    pub patience: Duration,
    /// The epoch that the catalog must still have it under: if another claims it first it is left alone. `None` to
    /// claim it under whatever epoch lookups show.
    pub expected: Option<VolumeEpoch>,
    /// For a medium that does not fence by itself: nothing is acknowledged once this does not hold.
    pub tenure: Option<Tenure>,
}

impl TakeTerms {
    /// Whoever has it.
    pub fn patient(patience: Duration) -> Self {
        Self { patience, expected: None, tenure: None }
    }
}

/// Where a volume lies.
#[derive(Clone, Debug)]
pub struct VolumePlace {
    /// The volume.
    pub id: VolumeId,
    /// What it lies on.
    pub medium: Medium,
}
