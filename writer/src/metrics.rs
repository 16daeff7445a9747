//! What a writer counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::ownership::TakePhase;
use crate::share::ShareMetrics;
use crate::transaction::TransactionMetrics;

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
    /// Frames after which a volume that is filling up held appends back for a moment.
    pub paced: Counter,
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
    /// Bytes of the log that are in the bucket and committed.
    pub uploaded_bytes: Counter,
    /// Bytes of manifests written.
    pub manifest_bytes: Counter,
    /// Segments on their way.
    pub uploads_in_flight: Gauge,
    /// From a segment's oldest frame being durable to the segment's commit, seconds.
    pub upload_seconds: Histogram,
    /// Of an upload: putting the segment, seconds.
    pub put_seconds: Histogram,
    /// Writing a manifest, seconds.
    pub commit_seconds: Histogram,
    /// Of an upload: trimming the volume, seconds.
    pub trim_seconds: Histogram,
    /// PUT requests to the bucket: segments, manifests, snapshots.
    pub puts: Counter,
    /// Objects deleted.
    pub deletes: Counter,
    /// Uploads or commits that failed and were tried again.
    pub upload_errors: Counter,
    /// Extents removed by retention.
    pub retired_extents: Counter,
    /// Objects found in the bucket that nothing names.
    pub orphans: Counter,
    /// Compactions that put extents together.
    pub compactions: Counter,
    /// Cleanings of streams of compacted topics.
    pub cleanings: Counter,
    /// Records that cleanings removed.
    pub cleaned_records: Counter,
    /// Bytes of segments that compaction wrote.
    pub compacted_bytes: Counter,
    /// Compactions that failed: the bucket did not answer, or what it gave was damaged.
    pub compaction_errors: Counter,
    /// Volumes that come and go.
    pub ownership: OwnershipMetrics,
    /// Of the transaction coordinator.
    pub transactions: TransactionMetrics,
    /// Of share groups' records.
    pub shares: ShareMetrics,
}

/// Volumes that a writer takes, releases and loses.
#[derive(Clone, Debug)]
pub struct OwnershipMetrics {
    /// Volumes that are served now.
    pub volumes: Gauge,
    /// Volumes that were lost.
    pub lost: Counter,
    takes: Family<PhaseLabels, Histogram>,
    failed: Family<PhaseLabels, Counter>,
    releases: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

fn phase_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
}

impl Default for OwnershipMetrics {
    fn default() -> Self {
        Self {
            volumes: Gauge::default(),
            lost: Counter::default(),
            takes: Family::new_with_constructor(phase_seconds),
            failed: Family::default(),
            releases: phase_seconds(),
        }
    }
}

impl OwnershipMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register("writer_volumes", "Volumes that are served", self.volumes.clone());
        registry.register("writer_volumes_lost", "Volumes that were lost", self.lost.clone());
        registry.register(
            "writer_take_seconds",
            "Time to take a volume, by phase",
            self.takes.clone(),
        );
        registry.register(
            "writer_takes_failed",
            "Volumes that were not taken, by the phase that failed",
            self.failed.clone(),
        );
        registry.register(
            "writer_release_seconds",
            "Time that a volume is served by nobody when it is released",
            self.releases.clone(),
        );
    }

    pub(crate) fn taken(&self, spent: &[Duration; TakePhase::ALL.len()]) {
        for phase in TakePhase::ALL {
            let labels = PhaseLabels { phase: phase.name() };
            self.takes.get_or_create(&labels).observe(spent[phase as usize].as_secs_f64());
        }
    }

    pub(crate) fn take_failed(&self, phase: TakePhase) {
        self.failed.get_or_create(&PhaseLabels { phase: phase.name() }).inc();
    }

    pub(crate) fn released(&self, pause: Duration) {
        self.releases.observe(pause.as_secs_f64());
    }
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
            paced: Counter::default(),
            tail_cache_bytes: Gauge::default(),
            unuploaded_bytes: Gauge::default(),
            volume_reads: Counter::default(),
            segments: Counter::default(),
            segment_bytes: Counter::default(),
            uploaded_bytes: Counter::default(),
            manifest_bytes: Counter::default(),
            uploads_in_flight: Gauge::default(),
            upload_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 18)),
            put_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            commit_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            trim_seconds: Histogram::new(exponential_buckets(0.000_1, 2.0, 18)),
            puts: Counter::default(),
            deletes: Counter::default(),
            upload_errors: Counter::default(),
            retired_extents: Counter::default(),
            orphans: Counter::default(),
            compactions: Counter::default(),
            cleanings: Counter::default(),
            cleaned_records: Counter::default(),
            compacted_bytes: Counter::default(),
            compaction_errors: Counter::default(),
            ownership: OwnershipMetrics::default(),
            transactions: TransactionMetrics::default(),
            shares: ShareMetrics::default(),
        }
    }
}

impl WriterMetrics {
    /// Registers all.
    pub fn register(&self, registry: &mut Registry) {
        self.ownership.register(registry);
        self.transactions.register(registry);
        self.shares.register(registry);
        for (name, help, counter) in [
            ("writer_appends", "Batches that became durable", &self.appends),
            ("writer_append_bytes", "Bytes of batches that became durable", &self.append_bytes),
            ("writer_duplicates", "Batches recognised as retries", &self.duplicates),
            ("writer_frames", "Frames written to volumes", &self.frames),
            ("writer_frame_bytes", "Bytes written to volumes", &self.frame_bytes),
            ("writer_stalls", "Times a full volume held appends back", &self.stalls),
            ("writer_paced", "Frames after which a filling volume slowed appends", &self.paced),
            ("writer_volume_reads", "Frames read back from volumes", &self.volume_reads),
            ("writer_segments", "Segments put into the bucket", &self.segments),
            ("writer_segment_bytes", "Bytes of segments put into the bucket", &self.segment_bytes),
            (
                "writer_uploaded_bytes",
                "Bytes of the log committed to the bucket",
                &self.uploaded_bytes,
            ),
            ("writer_manifest_bytes", "Bytes of manifests written", &self.manifest_bytes),
            ("writer_bucket_puts", "PUT requests to the bucket", &self.puts),
            ("writer_bucket_deletes", "Objects deleted from the bucket", &self.deletes),
            ("writer_upload_errors", "Uploads that failed and were retried", &self.upload_errors),
            ("writer_retired_extents", "Extents removed by retention", &self.retired_extents),
            ("writer_orphans", "Objects in the bucket that nothing names", &self.orphans),
            ("writer_compactions", "Compactions that put extents together", &self.compactions),
            ("writer_cleanings", "Cleanings of streams of compacted topics", &self.cleanings),
            ("writer_cleaned_records", "Records that cleanings removed", &self.cleaned_records),
            (
                "writer_compacted_bytes",
                "Bytes of segments that compaction wrote",
                &self.compacted_bytes,
            ),
            ("writer_compaction_errors", "Compactions that failed", &self.compaction_errors),
        ] {
            registry.register(name, help, counter.clone());
        }
        for (name, help, histogram) in [
            ("writer_append_seconds", "Time from hand-over to durable", &self.append_seconds),
            (
                "writer_upload_seconds",
                "Age of a segment's oldest frame when the segment is committed",
                &self.upload_seconds,
            ),
            ("writer_upload_put_seconds", "Time to put a segment", &self.put_seconds),
            ("writer_commit_seconds", "Time to commit a manifest", &self.commit_seconds),
            ("writer_trim_seconds", "Time to trim a volume", &self.trim_seconds),
        ] {
            registry.register(name, help, histogram.clone());
        }
        registry.register(
            "writer_uploads_in_flight",
            "Segments on their way to the bucket",
            self.uploads_in_flight.clone(),
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
