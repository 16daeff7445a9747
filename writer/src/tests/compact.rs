//! Compaction in a running writer: what consumers find in the bucket before and after.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sluice_format::segment::split_block;
use sluice_format::{StreamState, TransactionSection};
use sluice_model::StreamId;
use sluice_wire::batch::{BatchBuilder, Batches, Compression, NewRecord};

use super::cluster::{Cluster, append, batch, stream, transactional, until_bucket};
use crate::recovery::key_of;
use crate::{CompactionOptions, Writer};

/// Key and value by offset.
type Log = BTreeMap<i64, (Option<String>, Option<String>)>;

fn text(bytes: &Option<Bytes>) -> Option<String> {
    bytes.as_ref().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

/// A cluster that uploads every batch at once, and compacts all the time.
async fn eager() -> Cluster {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    cluster.options.retention_interval = Duration::from_millis(20);
    cluster.options.compaction = CompactionOptions {
        interval: Duration::from_millis(10),
        min_age: Duration::ZERO,
        bytes_per_second: 1 << 40,
        ..CompactionOptions::default()
    };
    cluster
}

fn keyed(records: &[(&str, Option<&str>)], timestamp_ms: i64, compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new().compression(compression);
    for (key, value) in records {
        builder.push(&NewRecord {
            timestamp_ms,
            key: Some(key.as_bytes()),
            value: value.map(str::as_bytes),
            headers: &[("h", Some(b"v"))],
        });
    }
    builder.build()
}

fn in_state(writer: &Writer, stream: StreamId) -> StreamState {
    let (_, state) = writer.bucket_states().next().unwrap();
    let state = state.read();
    state.streams.get(&key_of(stream)).cloned().unwrap_or_default()
}

/// All records of a stream in the bucket, read as a stranger would. Segments that are replaced meanwhile
/// are looked for anew.
async fn log(cluster: &Cluster, writer: &Writer, stream: StreamId) -> Log {
    'again: loop {
        let state = in_state(writer, stream);
        let mut out = Log::new();
        let mut at = state.extents.front().map_or(0, |extent| extent.base_offset);
        for extent in &state.extents {
            assert_eq!(extent.base_offset, at, "extents are contiguous");
            let key = Path::from(cluster.keys().segment(extent.segment));
            let Ok(mut bytes) = cluster.bucket.get_range(&key, extent.data_range()).await else {
                continue 'again;
            };
            let mut blocks = 0;
            while !bytes.is_empty() {
                let block = split_block(&mut bytes).unwrap();
                assert_eq!(block.base_offset, at, "blocks cover the extent's offsets");
                for batch in Batches::new(block.payload) {
                    let batch = batch.unwrap();
                    batch.check_crc().unwrap();
                    assert!(batch.base_offset() >= block.base_offset);
                    assert!(batch.last_offset() < block.end_offset);
                    for record in batch.records(1 << 20).unwrap() {
                        let record = record.unwrap();
                        if record.offset < state.log_start {
                            continue;
                        }
                        let entry = (text(&record.key), text(&record.value));
                        assert!(out.insert(record.offset, entry).is_none(), "an offset twice");
                    }
                }
                at = block.end_offset;
                blocks += 1;
            }
            assert_eq!(blocks, extent.blocks);
            at = at.max(if blocks == 0 { extent.end_offset } else { at });
        }
        assert_eq!(at, state.end_offset);
        return out;
    }
}

async fn segments_in_bucket(cluster: &Cluster) -> usize {
    let objects: Vec<_> = cluster.bucket.list(None).try_collect().await.unwrap();
    objects.iter().filter(|object| object.location.as_ref().contains("/segments/")).count()
}

#[tokio::test]
async fn max_compaction_lag_holds_for_records_that_would_wait_for_their_upload() {
    let mut cluster = eager().await;
    // Next to nothing would stay on the volume for an hour.
    cluster.options.upload_segment_bytes = 1 << 20;
    cluster.options.upload_max_age = Duration::from_secs(3600);
    cluster.options.upload_max_age_idle = Duration::from_secs(3600);
    let configs = [("cleanup.policy", "compact"), ("max.compaction.lag.ms", "1")];
    let topic = cluster.topic("t", &configs).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    for value in ["1", "2", "3"] {
        let records = keyed(&[("k", Some(value))], 1_000_000, Compression::None);
        append(&writer, a, &records).await.unwrap();
    }
    until_bucket(&writer, |state| {
        let stream = state.streams.get(&key_of(a));
        stream.is_some_and(|stream| stream.cleaned_to == 3)
    })
    .await;
    let log = log(&cluster, &writer, a).await;
    assert_eq!(log.into_values().collect::<Vec<_>>(), [(Some("k".into()), Some("3".into()))]);
}

#[tokio::test]
async fn many_small_extents_become_few_and_nothing_is_lost() {
    let cluster = eager().await;
    let topic = cluster.topic("t", &[]).await;
    let (a, b) = (stream(&topic, 0), stream(&topic, 1));
    let writer = cluster.start().await;
    // A producer is known from here on, so that every extent of `b` has something to say.
    append(&writer, b, &transactional(9, 0, 0, 1)).await.unwrap();
    for n in 0..150 {
        append(&writer, a, &batch(2, 300, 1_000_000)).await.unwrap();
        if n % 3 == 0 {
            append(&writer, b, &batch(1, 300, 1_000_000)).await.unwrap();
        }
        let end = (n + 1) * 2;
        until_bucket(&writer, |state| {
            state.streams.get(&key_of(a)).is_some_and(|stream| stream.end_offset == end)
        })
        .await;
    }
    until_bucket(&writer, |state| {
        let len = |stream| state.streams[&key_of(stream)].extents.len();
        len(a) < 40 && len(b) < 40
    })
    .await;
    assert_eq!(
        log(&cluster, &writer, a).await.into_keys().collect::<Vec<_>>(),
        (0..300).collect::<Vec<_>>()
    );
    assert_eq!(
        log(&cluster, &writer, b).await.into_keys().collect::<Vec<_>>(),
        (0..51).collect::<Vec<_>>()
    );
    let merged = in_state(&writer, b).extents[0];
    let key = Path::from(cluster.keys().segment(merged.segment));
    let section = cluster.bucket.get_range(&key, merged.section_range()).await.unwrap();
    let section = TransactionSection::decode(&section).unwrap();
    assert_eq!(section.producers[0].open_since, Some(0), "what extents said is kept");
    writer.close(Duration::ZERO).await;

    let writer = cluster.start().await;
    let (_, state) = writer.bucket_states().next().unwrap();
    state.read().validate().unwrap();
    assert_eq!(log(&cluster, &writer, a).await.len(), 300, "the next owner finds the same");
    assert_eq!(append(&writer, a, &batch(1, 10, 5)).await.unwrap().base_offset, 300);
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_last_record_of_each_key_at_its_offset() {
    let cluster = eager().await;
    let config = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01")];
    let topic = cluster.topic("t", &config).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    let mut last = BTreeMap::new();
    let mut offset = 0;
    for round in 0..30 {
        let keys: Vec<String> = (0..5).map(|n| format!("k{}", (round * 3 + n * 7) % 11)).collect();
        let values: Vec<String> = (0..5).map(|n| format!("{round}-{n}")).collect();
        let records: Vec<_> =
            keys.iter().zip(&values).map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
        let codec = Compression::ALL[round % 5];
        append(&writer, a, &keyed(&records, 1_000_000, codec)).await.unwrap();
        for (key, value) in keys.into_iter().zip(values) {
            last.insert(key, (offset, value));
            offset += 1;
        }
    }
    until_bucket(&writer, |state| {
        state.streams.get(&key_of(a)).is_some_and(|stream| stream.cleaned_to == offset)
    })
    .await;
    let mut wanted = Log::new();
    for (key, (offset, value)) in last {
        wanted.insert(offset, (Some(key), Some(value)));
    }
    assert_eq!(log(&cluster, &writer, a).await, wanted);
    let offsets = writer.offsets(a).unwrap();
    assert_eq!((offsets.log_start, offsets.high_watermark), (0, offset));
    until_objects(&cluster, |count| count <= 4).await;
}

/// Waits until the bucket has as many segments as wanted.
async fn until_objects(cluster: &Cluster, wanted: impl Fn(usize) -> bool) {
    let poll = async {
        while !wanted(segments_in_bucket(cluster).await) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.expect("replaced segments go");
}

#[tokio::test]
async fn tombstones_outlive_the_first_cleaning_by_their_time() {
    let cluster = eager().await;
    let config = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.0"),
        ("delete.retention.ms", "60000"),
    ];
    let topic = cluster.topic("t", &config).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    let cleaned = async |to: i64| {
        until_bucket(&writer, |state| {
            state.streams.get(&key_of(a)).is_some_and(|stream| stream.cleaned_to == to)
        })
        .await;
    };
    let put = async |records: &[(&str, Option<&str>)]| {
        append(&writer, a, &keyed(records, 1_000_000, Compression::Zstd)).await.unwrap();
    };
    put(&[("a", Some("1")), ("b", Some("1"))]).await;
    put(&[("a", None)]).await;
    cleaned(3).await;
    let entry = |key: &str, value: Option<&str>| (Some(key.to_owned()), value.map(str::to_owned));
    let there = log(&cluster, &writer, a).await;
    assert_eq!(there, Log::from([(1, entry("b", Some("1"))), (2, entry("a", None))]));

    // One ms before its time it is still there, whatever else is cleaned.
    cluster.clock.0.fetch_add(59_999, Ordering::Relaxed);
    put(&[("c", Some("1"))]).await;
    cleaned(4).await;
    assert!(log(&cluster, &writer, a).await.contains_key(&2));
    cluster.clock.0.fetch_add(1, Ordering::Relaxed);
    put(&[("d", Some("1"))]).await;
    cleaned(5).await;
    let there = log(&cluster, &writer, a).await;
    assert_eq!(there.into_keys().collect::<Vec<_>>(), [1, 3, 4]);
}

#[tokio::test]
async fn young_records_are_left_alone() {
    let cluster = eager().await;
    let config = [
        ("cleanup.policy", "compact"),
        ("min.compaction.lag.ms", "10000"),
        ("min.cleanable.dirty.ratio", "0.0"),
    ];
    let topic = cluster.topic("t", &config).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    for at in [980_000, 985_000, 995_000, 999_000] {
        append(&writer, a, &keyed(&[("k", Some("v"))], at, Compression::None)).await.unwrap();
    }
    until_bucket(&writer, |state| {
        state.streams.get(&key_of(a)).is_some_and(|s| s.end_offset == 4 && s.cleaned_to == 2)
    })
    .await;
    let there = log(&cluster, &writer, a).await;
    assert_eq!(there.into_keys().collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn a_topic_with_both_policies_is_cleaned_and_retired() {
    let cluster = eager().await;
    // Each record is worth a cleaning, however the first ones were grouped.
    let config = [
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "60000"),
        ("min.cleanable.dirty.ratio", "0.0"),
    ];
    let topic = cluster.topic("t", &config).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    for (n, key) in ["x", "x", "y", "x"].iter().enumerate() {
        let at = 1_000_000 + n as i64 * 40_000;
        append(&writer, a, &keyed(&[(key, Some("v"))], at, Compression::None)).await.unwrap();
    }
    until_bucket(&writer, |s| s.streams.get(&key_of(a)).is_some_and(|s| s.cleaned_to == 4)).await;
    cluster.clock.0.store(1_000_000 + 120_000 + 60_000 + 1, Ordering::Relaxed);
    until_bucket(&writer, |state| state.streams[&key_of(a)].log_start == 4).await;
    until_objects(&cluster, |count| count == 0).await;
}

#[tokio::test]
async fn deleting_a_topic_amid_compaction_leaves_nothing() {
    let cluster = eager().await;
    let config = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.0")];
    let writer = cluster.start().await;
    for round in 0..5 {
        let topic = cluster.topic("t", &config).await;
        let a = stream(&topic, 0);
        for _ in 0..20 {
            append(&writer, a, &keyed(&[("k", Some("v"))], 5, Compression::None)).await.unwrap();
            if round > 2 {
                tokio::task::yield_now().await;
            }
        }
        cluster.catalog.delete_topic(topic.tenant, topic.id).await.unwrap();
        until_bucket(&writer, |state| !state.streams.contains_key(&key_of(a))).await;
    }
    assert_eq!(writer.volumes().len(), 1);
    let (_, state) = writer.bucket_states().next().unwrap();
    state.read().validate().unwrap();
    // What remains is the coordinator's log, which notes deleted topics.
    until_objects(&cluster, |count| count <= state.read().segments.len()).await;
}

#[tokio::test]
async fn damage_ends_the_job_and_removes_nothing() {
    let mut cluster = eager().await;
    let topic = cluster.topic("t", &[("cleanup.policy", "compact")]).await;
    let a = stream(&topic, 0);
    cluster.options.compaction.enabled = false;
    let writer = cluster.start().await;
    for n in 0..3 {
        append(&writer, a, &keyed(&[("k", Some("v"))], 5, Compression::None)).await.unwrap();
        until_bucket(&writer, |s| s.streams.get(&key_of(a)).is_some_and(|s| s.end_offset == n + 1))
            .await;
    }
    let damaged = in_state(&writer, a).extents[1];
    let key = Path::from(cluster.keys().segment(damaged.segment));
    let good = cluster.bucket.get(&key).await.unwrap().bytes().await.unwrap();
    let mut bad = good.to_vec();
    bad[damaged.position as usize + 60] ^= 1;
    cluster.bucket.put(&key, Bytes::from(bad).into()).await.unwrap();
    writer.close(Duration::ZERO).await;

    cluster.options.compaction.enabled = true;
    let writer = cluster.start().await;
    let before = in_state(&writer, a);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(writer.volumes().len(), 1);
    assert_eq!(in_state(&writer, a), before, "every source is still there");
    // Whole again, and a new owner: it is cleaned.
    cluster.bucket.put(&key, good.into()).await.unwrap();
    writer.close(Duration::ZERO).await;
    let writer = cluster.start().await;
    until_bucket(&writer, |s| s.streams[&key_of(a)].cleaned_to == 3).await;
    assert_eq!(log(&cluster, &writer, a).await.into_keys().collect::<Vec<_>>(), [2]);
}

/// Numbers that look random, the same in each run.
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Appends, uploads, merges, cleanings and deletions in whatever order they come: at every moment what is
/// in the bucket is what was appended there, and in the end nothing else is.
#[tokio::test]
async fn any_history_reads_as_the_model_says() {
    for seed in 1..=4 {
        let mut dice = seed;
        let cluster = eager().await;
        let plain = cluster.topic("plain", &[]).await;
        let config = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.0")];
        let compacted = cluster.topic("compacted", &config).await;
        let (plain, compacted) = (stream(&plain, 0), stream(&compacted, 0));
        let writer = cluster.start().await;
        let mut models: BTreeMap<StreamId, Log> =
            BTreeMap::from([(plain, Log::new()), (compacted, Log::new())]);
        let mut log_start = 0;
        for step in 0..120 {
            let to = if random(&mut dice, 3) == 0 { plain } else { compacted };
            let count = 1 + random(&mut dice, 6);
            let keys: Vec<_> = (0..count).map(|_| format!("k{}", random(&mut dice, 9))).collect();
            let values: Vec<_> = (0..count).map(|n| format!("{seed}-{step}-{n}")).collect();
            let records: Vec<_> =
                keys.iter().zip(&values).map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
            let codec = Compression::ALL[random(&mut dice, 5) as usize];
            let base = append(&writer, to, &keyed(&records, 5, codec)).await.unwrap().base_offset;
            let model = models.get_mut(&to).unwrap();
            for (n, (key, value)) in keys.into_iter().zip(values).enumerate() {
                model.insert(base + n as i64, (Some(key), Some(value)));
            }
            if random(&mut dice, 15) == 0 && !models[&plain].is_empty() {
                let end = *models[&plain].keys().next_back().unwrap() + 1;
                log_start = log_start.max(random(&mut dice, end as u64 + 1) as i64);
                writer.delete_records(plain, log_start).await.unwrap();
            }
            if random(&mut dice, 20) == 0 {
                for (stream, model) in &models {
                    for (offset, entry) in log(&cluster, &writer, *stream).await {
                        assert_eq!(
                            Some(&entry),
                            model.get(&offset),
                            "seed {seed}, offset {offset}"
                        );
                    }
                }
            }
        }
        let ends = models
            .iter()
            .map(|(id, model)| (key_of(*id), model.keys().next_back().map_or(0, |last| last + 1)));
        let ends: Vec<_> = ends.collect();
        until_bucket(&writer, |state| {
            ends.iter().all(|(key, end)| {
                let done = |s: &StreamState| {
                    s.end_offset == *end && (*key != key_of(compacted) || s.cleaned_to == *end)
                };
                *end == 0 || state.streams.get(key).is_some_and(done)
            })
        })
        .await;
        until_bucket(&writer, |s| {
            s.streams.get(&key_of(plain)).is_none_or(|s| s.log_start == log_start)
        })
        .await;
        let rest = models.get_mut(&plain).unwrap().split_off(&log_start);
        assert_eq!(log(&cluster, &writer, plain).await, rest, "seed {seed}");
        let mut last = BTreeMap::new();
        for (offset, (key, value)) in &models[&compacted] {
            last.insert(key.clone(), (*offset, value.clone()));
        }
        let wanted: Log = last.into_iter().map(|(key, (at, value))| (at, (key, value))).collect();
        assert_eq!(log(&cluster, &writer, compacted).await, wanted, "seed {seed}");
    }
}
