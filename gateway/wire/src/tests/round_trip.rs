//! What is written is read back the same, in every version; and what a version cannot say is an
//! error, or dropped where the schema says so.

use bytes::{Bytes, BytesMut};

use super::{Any, Side, all, decode_all};
use crate::messages::fetch_request::FetchRequest;
use crate::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use crate::messages::offset_commit_request::OffsetCommitRequest;
use crate::messages::produce_request::{ProduceRequest, TopicProduceData};
use crate::{
    ApiKey, Chain, DecodeError, Decoder, EncodeError, Encoder, Message, Request, Str, Uuid,
};

#[test]
fn every_message_comes_back() {
    for (side, key, version) in all() {
        for seed in 0..60 {
            let message = Any::generate(side, key, seed, version);
            let bytes = message.encode(version).unwrap();
            let back = decode_all(side, key, bytes, version);
            assert_eq!(back, Ok(message), "{side:?} {key} v{version} seed {seed}");
        }
    }
}

/// Floats aside, a message is its bytes: reading a prefix must fail, and one byte more is left over.
#[test]
fn truncated_and_overlong_bodies_are_noticed() {
    for (side, key, version) in all() {
        let message = Any::generate(side, key, 7, version);
        let bytes = message.encode(version).unwrap();
        for len in 0..bytes.len() {
            let back = decode_all(side, key, bytes.slice(..len), version);
            assert!(back.is_err(), "{side:?} {key} v{version} cut to {len} of {}", bytes.len());
        }
        let mut longer = BytesMut::from(&bytes[..]);
        longer.extend_from_slice(&[0]);
        let back = decode_all(side, key, longer.freeze(), version);
        assert_eq!(back, Err(DecodeError::Trailing(1)), "{side:?} {key} v{version}");
    }
}

#[test]
fn default_messages_can_be_said_in_the_newest_version() {
    for &key in ApiKey::ALL {
        let version = *key.versions().end();
        let zeros = Bytes::from_static(&[0; 64]);
        for side in [Side::Request, Side::Response] {
            // A message of zeros is mostly empty: enough to see that encoding accepts its own.
            if let Ok(message) = Any::decode(side, key, &mut Decoder::new(zeros.clone()), version) {
                assert!(message.encode(version).is_ok(), "{side:?} {key} v{version}");
            }
        }
    }
}

fn encode<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version)?;
    Ok(encoder.into_chain().to_bytes())
}

#[test]
fn versions_that_do_not_exist_are_refused() {
    for version in [2, 14, i16::MIN, i16::MAX] {
        let message = "ProduceRequest";
        assert_eq!(
            ProduceRequest::decode(&mut Decoder::new(Bytes::new()), version),
            Err(DecodeError::NoSuchVersion { message, version })
        );
        assert_eq!(
            encode(&ProduceRequest::default(), version),
            Err(EncodeError::NoSuchVersion { message, version })
        );
    }
}

#[test]
fn a_field_that_the_version_lacks_is_an_error_unless_the_schema_lets_it_go() {
    // generation_id_or_member_epoch matters, group_instance_id matters from 7 on.
    let commit = OffsetCommitRequest {
        group_instance_id: Some(Str::from_static("i")),
        ..OffsetCommitRequest::default()
    };
    assert!(encode(&commit, 7).is_ok());
    assert_eq!(
        encode(&commit, 6),
        Err(EncodeError::FieldNotInVersion {
            structure: "OffsetCommitRequest",
            field: "group_instance_id",
            version: 6
        })
    );
    // A topic's id is dropped where only its name is sent.
    let topic = |topic_id| ProduceRequest {
        topic_data: vec![TopicProduceData {
            name: Str::from_static("t"),
            topic_id,
            partition_data: vec![],
        }],
        ..ProduceRequest::default()
    };
    assert_eq!(encode(&topic(Uuid([1; 16])), 12), encode(&topic(Uuid::ZERO), 12));
}

#[test]
fn null_needs_a_version_that_allows_it() {
    let all_topics = MetadataRequest { topics: None, ..MetadataRequest::default() };
    assert_eq!(encode(&all_topics, 0), Err(EncodeError::UnexpectedNull));
    assert_eq!(encode(&all_topics, 1).as_deref(), Ok(&[0xff; 4][..]));
    let null_array = Bytes::from_static(&[0xff; 4]);
    let decode = |version| MetadataRequest::decode(&mut Decoder::new(null_array.clone()), version);
    assert_eq!(decode(0), Err(DecodeError::UnexpectedNull));
    assert_eq!(decode(1), Ok(all_topics));
    // By the schema the default is the empty array: no topics.
    assert_eq!(MetadataRequest::default().topics, Some(vec![]));
    let by_id = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: None, ..Default::default() }]),
        ..MetadataRequest::default()
    };
    assert_eq!(encode(&by_id, 9), Err(EncodeError::UnexpectedNull));
    assert!(encode(&by_id, 10).is_ok());
}

#[test]
fn strings_keep_to_the_limit_of_16_bits() {
    let with_rack = |len: usize| FetchRequest {
        rack_id: Str::from("r".repeat(len)),
        ..FetchRequest::default()
    };
    for version in [11, 12] {
        let longest = encode(&with_rack(32767), version).unwrap();
        assert!(FetchRequest::decode(&mut Decoder::new(longest), version).is_ok());
        assert_eq!(encode(&with_rack(32768), version), Err(EncodeError::TooLong));
    }
}

#[test]
fn defaults_are_the_schemas() {
    let fetch = FetchRequest::default();
    assert_eq!((fetch.replica_id, fetch.max_bytes, fetch.session_epoch), (-1, i32::MAX, -1));
    assert_eq!(fetch.replica_state.replica_id, -1);
    assert_eq!((fetch.cluster_id, fetch.rack_id), (None, Str::default()));
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    // Heartbeat v4: group id, generation, member id, instance id null, then two unknown tags.
    let body = [2, b'g', 0, 0, 0, 1, 2, b'm', 0, 2, 5, 3, 1, 2, 3, 100, 0];
    let mut decoder = Decoder::new(Bytes::copy_from_slice(&body));
    let request =
        crate::messages::heartbeat_request::HeartbeatRequest::decode(&mut decoder, 4).unwrap();
    decoder.finish().unwrap();
    assert_eq!((request.group_id.as_str(), request.generation_id), ("g", 1));
}

#[test]
fn decoding_copies_no_records_and_encoding_splices_them() {
    let records = Bytes::from(vec![5; 4096]);
    let request = ProduceRequest {
        topic_data: vec![TopicProduceData {
            partition_data: vec![
                crate::messages::produce_request::PartitionProduceData {
                    index: 3,
                    records: Some(Chain::from(records.clone())),
                };
                3
            ],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let mut encoder = Encoder::framed();
    request.encode(&mut encoder, 9).unwrap();
    let frame = encoder.into_frame().unwrap();
    assert_eq!(frame.pieces().len(), 7, "three splices and what lies around them");
    assert!(frame.pieces().iter().filter(|piece| piece.as_ptr() == records.as_ptr()).count() == 3);
    let bytes = frame.to_bytes();
    assert_eq!(bytes[..4], ((bytes.len() - 4) as i32).to_be_bytes());

    let body = bytes.slice(4..);
    let back = ProduceRequest::decode(&mut Decoder::new(body.clone()), 9).unwrap();
    assert_eq!(back, request);
    let inside = body.as_ptr_range();
    for partition in &back.topic_data[0].partition_data {
        let piece = &partition.records.as_ref().unwrap().pieces()[0];
        assert!(inside.contains(&piece.as_ptr()));
    }
}

#[test]
fn api_keys_know_their_numbers_and_headers() {
    for &key in ApiKey::ALL {
        assert_eq!(ApiKey::from_code(key.code()), Some(key));
    }
    assert_eq!(ApiKey::ALL.len(), 75);
    assert_eq!(ApiKey::from_code(4), None);
    assert_eq!(ProduceRequest::KEY, ApiKey::Produce);
    assert_eq!(ApiKey::Produce.versions(), 3..=13);
    assert_eq!(ApiKey::InitProducerId.versions(), 0..=5);
    assert_eq!(ApiKey::Produce.request_header_version(8), 1);
    assert_eq!(ApiKey::Produce.request_header_version(9), 2);
    assert_eq!(ApiKey::ApiVersions.request_header_version(99), 2);
    assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
    assert_eq!(ApiKey::OffsetDelete.response_header_version(0), 0);
    let internal: Vec<i16> =
        ApiKey::ALL.iter().filter(|key| key.is_between_brokers()).map(|key| key.code()).collect();
    assert_eq!(internal, [27, 83, 84, 85, 86, 87]);
}
