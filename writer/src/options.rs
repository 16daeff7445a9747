//! How a writer works; filled from the process's configuration.

use std::time::Duration;

use sluice_model::VolumeId;
use sluice_volume::Medium;

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
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            append_queue_bytes: 64 << 20,
            append_timeout: Duration::from_secs(10),
            tail_cache_bytes: 64 << 20,
            upload_segment_bytes: 32 << 20,
            upload_max_age: Duration::from_secs(10),
            upload_max_age_idle: Duration::from_secs(600),
            multipart_above_bytes: 64 << 20,
            part_bytes: 16 << 20,
            upload_in_flight: 3,
            upload_in_flight_bytes: 96 << 20,
            retention_interval: Duration::from_secs(30),
            delete_grace: Duration::from_secs(60),
            queue_depth: 8,
        }
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
