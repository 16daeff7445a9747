//! What a writer counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Counters of all volumes of a writer.
#[derive(Clone, Debug)]
pub struct WriterMetrics {
    /// Batches that became durable.
    pub appends: Counter,
    /// Their bytes.
    pub append_bytes: Counter,
    /// Batches recognised as retries.
    pub duplicates: Counter,
    /// Frames written.
    pub frames: Counter,
    /// Bytes written to volumes, with headers.
    pub frame_bytes: Counter,
    /// From hand-over to durable, seconds.
    pub append_seconds: Histogram,
    /// Times that a full volume held appends back.
    pub stalls: Counter,
    /// Bytes of frames in memory.
    pub tail_cache_bytes: Gauge,
    /// Bytes on volumes that are not in the bucket.
    pub unuploaded_bytes: Gauge,
    /// Frames read back from volumes.
    pub volume_reads: Counter,
    /// Segments put.
    pub segments: Counter,
    /// Their bytes.
    pub segment_bytes: Counter,
    /// PUT requests to the bucket: segments, manifests, snapshots.
    pub puts: Counter,
    /// Objects deleted.
    pub deletes: Counter,
    /// Uploads or commits that failed and were tried again.
    pub upload_errors: Counter,
    /// Extents removed by retention.
    pub retired_extents: Counter,
}

impl Default for WriterMetrics {
    fn default() -> Self {
        Self {
            append_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 18)),
            appends: Counter::default(),
            append_bytes: Counter::default(),
            duplicates: Counter::default(),
            frames: Counter::default(),
            frame_bytes: Counter::default(),
            stalls: Counter::default(),
            tail_cache_bytes: Gauge::default(),
            unuploaded_bytes: Gauge::default(),
            volume_reads: Counter::default(),
            segments: Counter::default(),
            segment_bytes: Counter::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            upload_errors: Counter::default(),
            retired_extents: Counter::default(),
        }
    }
}

impl WriterMetrics {
    /// Registers all.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("writer_appends", "Batches that became durable", &self.appends),
            ("writer_append_bytes", "Bytes of batches that became durable", &self.append_bytes),
            ("writer_duplicates", "Batches recognised as retries", &self.duplicates),
            ("writer_frames", "Frames written to volumes", &self.frames),
            ("writer_frame_bytes", "Bytes written to volumes", &self.frame_bytes),
            ("writer_stalls", "Times a full volume held appends back", &self.stalls),
            ("writer_volume_reads", "Frames read back from volumes", &self.volume_reads),
            ("writer_segments", "Segments put into the bucket", &self.segments),
            ("writer_segment_bytes", "Bytes of segments put into the bucket", &self.segment_bytes),
            ("writer_bucket_puts", "PUT requests to the bucket", &self.puts),
            ("writer_bucket_deletes", "Objects deleted from the bucket", &self.deletes),
            ("writer_upload_errors", "Uploads that failed and were retried", &self.upload_errors),
            ("writer_retired_extents", "Extents removed by retention", &self.retired_extents),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "writer_append_seconds",
            "Time from hand-over to durable",
            self.append_seconds.clone(),
        );
        registry.register(
            "writer_tail_cache_bytes",
            "Bytes of durable frames in memory",
            self.tail_cache_bytes.clone(),
        );
        registry.register(
            "writer_unuploaded_bytes",
            "Bytes on volumes that are not in the bucket",
            self.unuploaded_bytes.clone(),
        );
    }
}
