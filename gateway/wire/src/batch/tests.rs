//! Batches: what is built can be walked, patched and validated; what is damaged is refused with the
//! right error; and kafka-protocol reads and writes the same bytes.

use bytes::{Buf, BytesMut};
use kafka_protocol::records as oracle;
use proptest::prelude::*;

use super::*;
use crate::Str;

const NO_LIMIT: usize = usize::MAX / 2;

fn rules() -> ProduceRules {
    ProduceRules {
        max_batch_bytes: 1 << 20,
        max_inflated_bytes: 16 << 20,
        walk_records: true,
        require_keys: false,
        timestamps_ms: i64::MIN..=i64::MAX,
    }
}

fn three_records(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new().compression(compression);
    builder.push(&NewRecord { timestamp_ms: 1000, key: Some(b"k"), ..NewRecord::default() });
    builder.push(&NewRecord { timestamp_ms: 3000, value: Some(b"v"), ..NewRecord::default() });
    builder.push(&NewRecord {
        timestamp_ms: 2000,
        key: Some(b""),
        value: Some(&[7; 5000]),
        headers: &[("h", Some(b"1")), ("h", None)],
    });
    builder.build()
}

/// `batch` with its bytes changed by `change` and the checksum made true again.
fn forged(batch: &Bytes, change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    change(&mut bytes);
    let crc = crc32c(&bytes[CRC_END..]);
    bytes[17..CRC_END].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[test]
fn walks_what_was_built_in_every_compression() {
    for compression in Compression::ALL {
        let batch = BatchView::new(three_records(compression)).unwrap();
        batch.check_crc().unwrap();
        assert_eq!(batch.attributes().compression(), Ok(compression));
        assert_eq!((batch.record_count(), batch.last_offset()), (3, 2));
        assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (1000, 3000));
        let records: Vec<Record> =
            batch.records(NO_LIMIT).unwrap().collect::<Result<_, _>>().unwrap();
        let timestamps: Vec<i64> = records.iter().map(|record| record.timestamp_ms).collect();
        assert_eq!(timestamps, [1000, 3000, 2000]);
        assert_eq!(
            (records[0].key.as_deref(), records[0].value.as_deref()),
            (Some(&b"k"[..]), None)
        );
        assert_eq!(records[2].value.as_deref(), Some(&[7; 5000][..]));
        let headers: Vec<_> = records[2].headers.iter().collect();
        let h = Str::from_static("h");
        assert_eq!(headers, [(h.clone(), Some(Bytes::from_static(b"1"))), (h, None)]);
        let produced = validate_produce(batch.bytes(), &rules()).unwrap();
        assert_eq!((produced[0].max_timestamp_ms, produced[0].max_timestamp_delta), (3000, 1));
    }
}

#[test]
fn snappy_may_be_one_bare_block() {
    let plain = three_records(Compression::None);
    let block = snap::raw::Encoder::new().compress_vec(&plain[HEADER_BYTES..]).unwrap();
    let mut bytes = BytesMut::from(&plain[..HEADER_BYTES]);
    bytes.extend_from_slice(&block);
    let batch = forged(&bytes.freeze(), |bytes| {
        let length = (bytes.len() - LENGTH_END) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[22] = Compression::Snappy as u8;
    });
    validate_produce(&batch, &rules()).unwrap();
}

#[test]
fn patches_keep_the_checksum_true() {
    let mut bytes = BytesMut::from(&three_records(Compression::Lz4)[..]);
    let mut batch = BatchMut::new(&mut bytes).unwrap();
    batch.set_base_offset(77);
    batch.set_partition_leader_epoch(5);
    batch.view().check_crc().unwrap();
    batch.set_max_timestamp(4000);
    batch.view().check_crc().unwrap();
    assert_eq!(batch.view().max_timestamp(), 4000);
    batch.set_log_append_time(9000);
    let batch = BatchView::new(bytes.freeze()).unwrap();
    batch.check_crc().unwrap();
    assert_eq!((batch.base_offset(), batch.partition_leader_epoch()), (77, 5));
    let records: Vec<Record> = batch.records(NO_LIMIT).unwrap().map(Result::unwrap).collect();
    assert!(records.iter().all(|record| record.timestamp_ms == 9000));
    assert_eq!(records[2].offset, 79);
}

#[test]
fn splits_batches_and_stops_at_a_torn_one() {
    let batch = three_records(Compression::None);
    let mut bytes = BytesMut::from(&batch[..]);
    bytes.extend_from_slice(&batch);
    let two = bytes.clone().freeze();
    assert_eq!(validate_produce(&two, &rules()).unwrap().len(), 2);
    bytes.extend_from_slice(&batch[..batch.len() - 1]);
    let results: Vec<_> = Batches::new(bytes.freeze()).collect();
    assert!(results[0].is_ok() && results[1].is_ok());
    assert_eq!(results[2..], [Err(BatchError::Truncated)]);
}

#[test]
fn refuses_what_kafka_refuses() {
    let batch = three_records(Compression::None);
    let with = |change: fn(&mut [u8])| validate_produce(&forged(&batch, change), &rules());
    let wrong_count =
        |count, last_offset_delta| BatchError::WrongCount { count, last_offset_delta };
    let wrong_producer =
        |producer_id, epoch, sequence| BatchError::WrongProducer { producer_id, epoch, sequence };
    let cases = [
        (validate_produce(&Bytes::new(), &rules()), BatchError::Empty, 87),
        (validate_produce(&batch.slice(..60), &rules()), BatchError::Truncated, 2),
        (with(|b| b[16] = 1), BatchError::UnsupportedMagic(1), 43),
        (with(|b| b[9] = 1), BatchError::Truncated, 2),
        (with(|b| (b[10], b[11]) = (0, 48)), BatchError::WrongLength, 2),
        (with(|b| b[8..12].fill(0)), BatchError::WrongLength, 2),
        (with(|b| b[8..12].fill(0xff)), BatchError::WrongLength, 2),
        (with(|b| b[7] = 5), BatchError::BaseOffset(5), 87),
        (with(|b| b[22] = 5), BatchError::UnknownCompression(5), 76),
        (with(|b| b[22] = 1 << 5), BatchError::Control, 87),
        (with(|b| b[22] = 1 << 3), BatchError::LogAppendTime, 32),
        (with(|b| b[26] = 3), wrong_count(3, 3), 87),
        (with(|b| b[57..61].fill(0)), wrong_count(0, 2), 87),
        (with(|b| b[57] = 0x80), wrong_count(i32::MIN + 3, 2), 87),
        (with(|b| b[22] = 1 << 4), wrong_producer(-1, -1, -1), 87),
        (with(|b| b[43..51].fill(0)), wrong_producer(0, -1, -1), 87),
        (with(|b| (b[43..51].fill(0), b[53..57].fill(0)).1), wrong_producer(0, -1, 0), 47),
        (with(|b| b[43..53].fill(0)), wrong_producer(0, 0, -1), 87),
        (with(|b| b[50] = 0xfe), wrong_producer(-2, -1, -1), 87),
        // One record fewer than the header says, one more, an offset delta out of turn.
        (with(|b| (b[26], b[60]) = (3, 4)), BatchError::Malformed { index: 3 }, 87),
        (with(|b| (b[26], b[60]) = (1, 2)), BatchError::Malformed { index: 2 }, 87),
        (with(|b| b[64] = 2), BatchError::Malformed { index: 0 }, 87),
    ];
    for (index, (result, expected, code)) in cases.into_iter().enumerate() {
        let fault = result.expect_err("a case that must fail");
        assert_eq!(fault, expected, "case {index}");
        assert_eq!(fault.code().code(), code, "case {index}: {fault}");
    }
    let mut damaged = BytesMut::from(&batch[..]);
    damaged[100] ^= 1;
    let fault = validate_produce(&damaged.freeze(), &rules()).unwrap_err();
    assert!(matches!(fault, BatchError::WrongCrc { .. }));
    assert_eq!(fault.code(), ErrorCode::CorruptMessage);
}

#[test]
fn names_the_records_that_break_the_topics_rules() {
    let batch = three_records(Compression::Zstd);
    let keys = ProduceRules { require_keys: true, ..rules() };
    let fault = validate_produce(&batch, &keys).unwrap_err();
    assert_eq!(fault, BatchError::Refused(vec![(1, RecordFault::NoKey)]));
    assert_eq!(fault.code(), ErrorCode::InvalidRecord);

    let recent = ProduceRules { timestamps_ms: 1500..=2500, ..rules() };
    let fault = validate_produce(&batch, &recent).unwrap_err();
    let faults = vec![(0, RecordFault::Timestamp), (1, RecordFault::Timestamp)];
    assert_eq!(fault, BatchError::Refused(faults));
    assert_eq!(fault.code(), ErrorCode::InvalidTimestamp);

    let small = ProduceRules { max_batch_bytes: 100, ..rules() };
    let fault = validate_produce(&three_records(Compression::None), &small).unwrap_err();
    assert_eq!(fault.code(), ErrorCode::MessageTooLarge);
}

#[test]
fn inflates_no_more_than_allowed() {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { value: Some(&vec![0; 3 << 20]), ..NewRecord::default() });
    let size = builder.records_bytes();
    for compression in &Compression::ALL[1..] {
        let batch = BatchView::new(builder.clone().compression(*compression).build()).unwrap();
        assert!(batch.len_bytes() < size / 15, "{compression:?}");
        let walk = |limit| batch.records(limit).unwrap().collect::<Result<Vec<_>, _>>();
        assert_eq!(walk(size).unwrap().len(), 1, "{compression:?}");
        let over = BatchError::InflatedTooLarge { max_bytes: size - 1 };
        assert_eq!(walk(size - 1), Err(over), "{compression:?}");
        assert!(walk(0).is_err(), "{compression:?}");
    }
}

#[test]
fn lz4_frames_that_kafka_refuses() {
    let info = lz4_flex::frame::FrameInfo::new;
    let frame = |info| {
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        std::io::Write::write_all(&mut encoder, &[7; 100_000]).unwrap();
        Bytes::from(encoder.finish().unwrap())
    };
    let inflate = |frame: Bytes| {
        let mut inflater = inflate::Inflater::new(Compression::Lz4, frame, NO_LIMIT)?.unwrap();
        let mut out = BytesMut::new();
        while inflater.inflate_more(&mut out)? > 0 {}
        Ok::<_, BatchError>(out)
    };
    let linked = info().block_mode(lz4_flex::frame::BlockMode::Linked);
    assert_eq!(inflate(frame(linked)), Err(BatchError::Damaged));
    let checked = info().block_checksums(true).content_checksum(true).content_size(Some(100_000));
    let good = frame(checked);
    assert_eq!(inflate(good.clone()).unwrap(), vec![7; 100_000]);
    // Magic, flags, sizes, header checksum, first block: any flipped bit is noticed.
    for at in 0..40 {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at] ^= 0x10;
        assert_eq!(inflate(bytes.freeze()), Err(BatchError::Damaged), "byte {at}");
    }
}

fn to_oracle(compression: Compression) -> oracle::Compression {
    match compression {
        Compression::None => oracle::Compression::None,
        Compression::Gzip => oracle::Compression::Gzip,
        Compression::Snappy => oracle::Compression::Snappy,
        Compression::Lz4 => oracle::Compression::Lz4,
        Compression::Zstd => oracle::Compression::Zstd,
    }
}

type Content = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn contents() -> impl Strategy<Value = Vec<Content>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300));
    let headers = proptest::collection::vec(("[a-z]{0,5}", bytes()), 0..3);
    proptest::collection::vec((0i64..1 << 45, bytes(), bytes(), headers), 1..20)
}

fn build(contents: &[Content], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new().compression(compression).producer(9, 1, 40);
    for (timestamp_ms, key, value, headers) in contents {
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.push(&NewRecord {
            timestamp_ms: *timestamp_ms,
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        });
    }
    builder.build()
}

fn read(batch: &BatchView) -> Vec<Content> {
    let owned = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| bytes.to_vec());
    batch
        .records(NO_LIMIT)
        .unwrap()
        .map(Result::unwrap)
        .map(|record| {
            let headers = record.headers.iter();
            let headers = headers.map(|(key, value)| (key.to_string(), owned(&value))).collect();
            (record.timestamp_ms, owned(&record.key), owned(&record.value), headers)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn kafka_protocol_reads_ours(contents in contents(), which in 0..5usize) {
        let compression = Compression::ALL[which];
        let batch = build(&contents, compression);
        prop_assert_eq!(&read(&BatchView::new(batch.clone()).unwrap()), &contents);
        let mut rest = batch;
        let set = oracle::RecordBatchDecoder::decode(&mut rest).unwrap();
        prop_assert_eq!(set.compression, to_oracle(compression));
        prop_assert_eq!(set.records.len(), contents.len());
        for (at, (record, content)) in set.records.iter().zip(&contents).enumerate() {
            prop_assert_eq!(record.offset, at as i64);
            prop_assert_eq!(record.timestamp, content.0);
            prop_assert_eq!(record.key.as_deref(), content.1.as_deref());
            prop_assert_eq!(record.value.as_deref(), content.2.as_deref());
            prop_assert_eq!((record.producer_id, record.producer_epoch), (9, 1));
        }
    }

    #[test]
    fn we_read_kafka_protocols(contents in contents(), which in 0..5usize) {
        let compression = Compression::ALL[which];
        let records: Vec<oracle::Record> = contents.iter().enumerate().map(|(at, content)| {
            oracle::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: 9,
                producer_epoch: 1,
                timestamp_type: oracle::TimestampType::Creation,
                offset: at as i64,
                sequence: 40 + at as i32,
                timestamp: content.0,
                key: content.1.clone().map(Bytes::from),
                value: content.2.clone().map(Bytes::from),
                headers: Default::default(),
            }
        }).collect();
        let options =
            oracle::RecordEncodeOptions { version: 2, compression: to_oracle(compression) };
        let mut bytes = BytesMut::new();
        oracle::RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        let mut produced = validate_produce(&bytes.freeze(), &rules()).unwrap();
        prop_assert_eq!(produced.len(), 1);
        let batch = produced.pop().unwrap().batch;
        prop_assert_eq!((batch.base_sequence(), batch.producer_id()), (40, 9));
        let expected: Vec<Content> =
            contents.into_iter().map(|(t, key, value, _)| (t, key, value, vec![])).collect();
        prop_assert_eq!(read(&batch), expected);
    }

    #[test]
    fn damage_under_a_true_checksum_never_panics(
        which in 0..5usize,
        flips in proptest::collection::vec((21..6000usize, any::<u8>()), 1..6),
        cut in 0..6000usize,
    ) {
        let batch = three_records(Compression::ALL[which]);
        let cut = HEADER_BYTES + cut % (batch.len() - HEADER_BYTES + 1);
        let forged = forged(&batch.slice(..cut), |bytes| {
            let len = bytes.len();
            for (at, with) in flips {
                bytes[21 + (at - 21) % (len - 21)] ^= with;
            }
            bytes[8..12].copy_from_slice(&((len - LENGTH_END) as i32).to_be_bytes());
        });
        let view = BatchView::new(forged.clone()).unwrap();
        if let Ok(records) = view.records(1 << 20) {
            for record in records.flatten() {
                prop_assert!(record.headers.iter().count() == record.headers.len());
            }
        }
        let _ = validate_produce(&forged, &rules());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = Bytes::from(bytes);
        let _ = validate_produce(&bytes, &rules());
        for batch in Batches::new(bytes.clone()).flatten() {
            let _ = batch.records(1 << 20).map(Iterator::count);
        }
        bytes.advance(bytes.len());
    }
}

#[test]
fn recompressing_changes_the_codec_and_nothing_else() {
    for from in Compression::ALL {
        let mut builder = BatchBuilder::new()
            .compression(from)
            .base_offset(7)
            .partition_leader_epoch(3)
            .producer(11, 2, 5)
            .transactional();
        for at in 0..50 {
            let value = format!("value {at} value {at} value {at}");
            let headers: &[(&str, Option<&[u8]>)] = &[("h", None)];
            builder.push(&NewRecord {
                timestamp_ms: 1_000 + at,
                key: Some(b"key"),
                value: Some(value.as_bytes()),
                headers,
            });
        }
        let batch = BatchView::new(builder.build()).unwrap();
        let records = |batch: &BatchView| -> Vec<Record> {
            batch.records(1 << 20).unwrap().map(Result::unwrap).collect()
        };
        for to in Compression::ALL {
            let made = recompress(&batch, to, None, 1 << 20).unwrap();
            assert_eq!(made.is_none(), from == to);
            let Some(made) = made else { continue };
            let made = BatchView::new(made).unwrap();
            made.check_crc().unwrap();
            assert_eq!(made.attributes().compression().unwrap(), to);
            assert!(made.attributes().is_transactional());
            assert_eq!(records(&made), records(&batch), "{from:?} to {to:?}");
            let header = |b: &BatchView| {
                let producer = (b.producer_id(), b.producer_epoch(), b.base_sequence());
                let times = (b.base_timestamp(), b.max_timestamp());
                let place = (b.base_offset(), b.last_offset(), b.partition_leader_epoch());
                (producer, times, place, b.record_count())
            };
            assert_eq!(header(&made), header(&batch));
        }
        // The bound holds before the records are there in full.
        if from != Compression::None {
            let refused = recompress(&batch, Compression::None, None, 100);
            assert!(matches!(refused, Err(BatchError::InflatedTooLarge { max_bytes: 100 })));
        }
    }
}

#[test]
fn levels_that_kafka_allows_are_taken() {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { value: Some(&[7; 1000]), ..NewRecord::default() });
    let batch = BatchView::new(builder.build()).unwrap();
    for (to, level) in [
        (Compression::Gzip, -1),
        (Compression::Gzip, 1),
        (Compression::Gzip, 9),
        (Compression::Zstd, -131_072),
        (Compression::Zstd, 22),
    ] {
        let made = recompress(&batch, to, Some(level), 1 << 20).unwrap().unwrap();
        let made = BatchView::new(made).unwrap();
        assert_eq!(made.records(1 << 20).unwrap().count(), 1, "{to:?} {level}");
    }
}
