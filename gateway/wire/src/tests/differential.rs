//! The codec against kafka-protocol: the same bytes for the same message, in both directions, for
//! every request, response and version that kafka-protocol knows.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as oracle;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::{Any, Side, all, decode_all};
use crate::header::{RequestHeader, ResponseHeader};
use crate::{ApiKey, Decoder, Encoder, Message, Str};

/// Messages generated for each request or response in each version.
const SEEDS: u64 = 40;

/// What kafka-protocol 0.18 does not have, and Kafka 4.3.0 has: checked by golden bytes instead.
const NOT_IN_ORACLE: [(ApiKey, i16); 12] = [
    (ApiKey::ListOffsets, 11),
    (ApiKey::OffsetCommit, 10),
    (ApiKey::OffsetFetch, 10),
    (ApiKey::WriteTxnMarkers, 2),
    (ApiKey::DescribeLogDirs, 5),
    (ApiKey::ShareFetch, 2),
    (ApiKey::ShareAcknowledge, 2),
    (ApiKey::WriteShareGroupState, 1),
    (ApiKey::ReadShareGroupStateSummary, 1),
    (ApiKey::StreamsGroupHeartbeat, 0),
    (ApiKey::StreamsGroupDescribe, 0),
    (ApiKey::DescribeShareGroupOffsets, 1),
];

#[derive(Debug, PartialEq)]
enum Theirs {
    Request(oracle::RequestKind),
    Response(oracle::ResponseKind),
}

impl Theirs {
    /// `None` if kafka-protocol has no such version; its table of versions is not true of all its
    /// messages, so it is asked by decoding.
    fn decode(side: Side, key: ApiKey, body: &Bytes, version: i16) -> Option<Self> {
        let key = oracle::ApiKey::try_from(key.code()).ok()?;
        let mut rest = body.clone();
        let message = match side {
            Side::Request => {
                oracle::RequestKind::decode(key, &mut rest, version).map(Self::Request)
            }
            Side::Response => {
                oracle::ResponseKind::decode(key, &mut rest, version).map(Self::Response)
            }
        };
        match message {
            Ok(message) => {
                assert!(rest.is_empty(), "{key:?} v{version}: kafka-protocol leaves bytes");
                Some(message)
            }
            Err(error) if error.root_cause().to_string().starts_with("specified version") => None,
            Err(error) => panic!("{side:?} {key:?} v{version}: {error:?}"),
        }
    }

    fn encode(&self, version: i16) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Request(message) => message.encode(&mut bytes, version),
            Self::Response(message) => message.encode(&mut bytes, version),
        }
        .unwrap_or_else(|error| panic!("v{version}: {error:?}"));
        bytes.freeze()
    }
}

#[test]
fn both_sides_write_and_read_the_same_bytes() {
    let mut compared = 0;
    let mut lacking = Vec::new();
    for (side, key, version) in all() {
        for seed in 0..SEEDS {
            let context = format!("{side:?} {key} v{version} seed {seed}");
            let ours = Any::generate(side, key, seed, version);
            let ours_bytes = ours.encode(version).expect(&context);
            let Some(theirs) = Theirs::decode(side, key, &ours_bytes, version) else {
                lacking.push((key, version));
                break;
            };
            compared += 1;
            let theirs_bytes = theirs.encode(version);
            assert_eq!(ours_bytes, theirs_bytes, "{context}");
            let read_back = decode_all(side, key, theirs_bytes, version).expect(&context);
            let again = read_back.encode(version).expect(&context);
            assert_eq!(again, ours_bytes, "{context}");
            assert_eq!(Theirs::decode(side, key, &again, version), Some(theirs), "{context}");
        }
    }
    println!("{compared} messages compared");
    lacking.dedup();
    assert_eq!(lacking, NOT_IN_ORACLE);
}

#[test]
fn header_versions_are_the_same() {
    for (_, key, version) in all() {
        let theirs = oracle::ApiKey::try_from(key.code()).ok();
        if let Some(theirs) = theirs.filter(|_| !NOT_IN_ORACLE.contains(&(key, version))) {
            let context = format!("{key} v{version}");
            assert_eq!(
                key.request_header_version(version),
                theirs.request_header_version(version),
                "{context}"
            );
            assert_eq!(
                key.response_header_version(version),
                theirs.response_header_version(version),
                "{context}"
            );
        }
    }
}

#[test]
fn headers_are_the_same_bytes() {
    for client_id in [None, Some(""), Some("rdkafka")] {
        for version in RequestHeader::VERSIONS {
            let ours = RequestHeader {
                request_api_key: 3,
                request_api_version: 12,
                correlation_id: -7,
                client_id: client_id.map(Str::from),
            };
            let mut encoder = Encoder::new();
            ours.encode(&mut encoder, version).unwrap();
            let bytes = encoder.into_chain().to_bytes();
            let theirs = oracle::RequestHeader::decode(&mut bytes.clone(), version).unwrap();
            let mut theirs_bytes = BytesMut::new();
            theirs.encode(&mut theirs_bytes, version).unwrap();
            assert_eq!(bytes, theirs_bytes);
            assert_eq!(RequestHeader::decode(&mut Decoder::new(bytes), version), Ok(ours));
        }
    }
    for version in ResponseHeader::VERSIONS {
        let ours = ResponseHeader { correlation_id: 99 };
        let mut encoder = Encoder::new();
        ours.encode(&mut encoder, version).unwrap();
        let bytes = encoder.into_chain().to_bytes();
        let theirs = oracle::ResponseHeader::decode(&mut bytes.clone(), version).unwrap();
        let mut theirs_bytes = BytesMut::new();
        theirs.encode(&mut theirs_bytes, version).unwrap();
        assert_eq!(bytes, theirs_bytes);
        assert_eq!(ResponseHeader::decode(&mut Decoder::new(bytes), version), Ok(ours));
    }
}
