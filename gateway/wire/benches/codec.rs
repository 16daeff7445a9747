//! Produce decode and fetch encode, beside kafka-protocol in the same run.
//!
//! `cargo bench -p sluice-wire`: one group a shape, one line a codec; compare within a group.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_wire::messages::fetch_response::{FetchResponse, FetchableTopicResponse, PartitionData};
use sluice_wire::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use sluice_wire::{Chain, Decoder, Encoder, Message, Str, crc32c};

const PRODUCE: i16 = 9;
const FETCH: i16 = 12;

/// (name, partitions, records of 1 KiB in each): a small request of a quick producer, a usual batch,
/// and one that a fetch over many partitions gives.
const SHAPES: [(&str, i32, usize); 3] = [
    ("1 partition x 1 KiB", 1, 1),
    ("1 partition x 64 KiB", 1, 64),
    ("50 partitions x 16 KiB", 50, 16),
];

fn batch(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(&NewRecord { value: Some(&[b'x'; 1024]), ..NewRecord::default() });
    }
    builder.build()
}

fn produce_request(partitions: i32, records: usize) -> Bytes {
    let batch = batch(records);
    let partition_data = (0..partitions)
        .map(|index| PartitionProduceData { index, records: Some(Chain::from(batch.clone())) })
        .collect();
    let topic = TopicProduceData {
        name: Str::from_static("orders"),
        partition_data,
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    let mut encoder = Encoder::new();
    request.encode(&mut encoder, PRODUCE).expect("the request is of this version");
    encoder.into_chain().to_bytes()
}

fn produce_decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("produce decode");
    for (name, partitions, records) in SHAPES {
        let body = produce_request(partitions, records);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(BenchmarkId::new("sluice-wire", name), |b| {
            b.iter(|| ProduceRequest::decode(&mut Decoder::new(black_box(body.clone())), PRODUCE));
        });
        group.bench_function(BenchmarkId::new("kafka-protocol", name), |b| {
            b.iter(|| oracle::ProduceRequest::decode(&mut black_box(body.clone()), PRODUCE));
        });
    }
    group.finish();
}

/// The answer as one chain ready for a vectored write, against one contiguous buffer.
fn fetch_encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch encode");
    for (name, partitions, records) in SHAPES {
        let batch = batch(records);
        let ours = FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: Str::from_static("orders"),
                partitions: (0..partitions)
                    .map(|partition_index| PartitionData {
                        partition_index,
                        records: Some(Chain::from(batch.clone())),
                        ..PartitionData::default()
                    })
                    .collect(),
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        };
        let theirs = oracle::FetchResponse::default().with_responses(vec![
            oracle::fetch_response::FetchableTopicResponse::default()
                .with_topic(StrBytes::from_static_str("orders").into())
                .with_partitions(
                    (0..partitions)
                        .map(|index| {
                            oracle::fetch_response::PartitionData::default()
                                .with_partition_index(index)
                                .with_aborted_transactions(Some(vec![]))
                                .with_records(Some(batch.clone()))
                        })
                        .collect(),
                ),
        ]);
        group.throughput(Throughput::Bytes((batch.len() * partitions as usize) as u64));
        group.bench_function(BenchmarkId::new("sluice-wire", name), |b| {
            b.iter(|| {
                let mut encoder = Encoder::framed();
                black_box(&ours).encode(&mut encoder, FETCH).expect("of this version");
                encoder.into_frame()
            });
        });
        group.bench_function(BenchmarkId::new("kafka-protocol", name), |b| {
            b.iter(|| {
                let mut bytes = BytesMut::new();
                black_box(&theirs).encode(&mut bytes, FETCH).expect("of this version");
                bytes.freeze()
            });
        });
    }
    group.finish();
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for len in [1 << 10, 64 << 10, 1 << 20] {
        let bytes = vec![7; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| crc32c(black_box(&bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, produce_decode, fetch_encode, checksum);
criterion_main!(benches);
