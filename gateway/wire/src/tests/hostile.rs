//! Bytes that nobody should have sent: no panic, and an answer in time that is linear in the frame.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::{Any, Side, all, decode_all};
use crate::header::RequestHeader;
use crate::messages::heartbeat_request::HeartbeatRequest;
use crate::messages::metadata_request::MetadataRequest;
use crate::{ApiKey, DecodeError, Decoder, Message};

fn metadata(version: i16, body: &[u8]) -> Result<MetadataRequest, DecodeError> {
    MetadataRequest::decode(&mut Decoder::new(Bytes::copy_from_slice(body)), version)
}

#[test]
fn counts_are_checked_against_what_is_left() {
    assert_eq!(metadata(1, &i32::MAX.to_be_bytes()), Err(DecodeError::Truncated));
    assert_eq!(metadata(1, &(-2i32).to_be_bytes()), Err(DecodeError::NegativeLength));
    assert_eq!(metadata(9, &[0xff, 0xff, 0xff, 0xff, 0x0f]), Err(DecodeError::Truncated));
    assert_eq!(metadata(9, &[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(DecodeError::VarintTooLong));
    assert_eq!(metadata(9, &[0x80, 0x80, 0x80, 0x80, 0x80]), Err(DecodeError::VarintTooLong));
    // Two topics are claimed; each takes at least a length of two bytes, and three are left.
    assert_eq!(metadata(1, &[0, 0, 0, 2, 0, 0, 0]), Err(DecodeError::Truncated));
    assert!(metadata(1, &[0, 0, 0, 2, 0, 0, 0, 0]).is_ok());
}

#[test]
fn lengths_are_checked_against_what_is_left() {
    assert_eq!(metadata(1, &[0, 0, 0, 1, 0x7f, 0xff, 0]), Err(DecodeError::Truncated));
    assert_eq!(metadata(1, &[0, 0, 0, 1, 0xff, 0xff]), Err(DecodeError::UnexpectedNull));
    assert_eq!(metadata(1, &[0, 0, 0, 1, 0xff, 0xfe]), Err(DecodeError::NegativeLength));
    assert_eq!(metadata(1, &[0, 0, 0, 1, 0, 1, 0xff]), Err(DecodeError::NotUtf8));
    let mut long = BytesMut::from(&[2, 0x81, 0x80, 0x02][..]);
    long.put_bytes(b'a', 40_000);
    assert_eq!(metadata(9, &long), Err(DecodeError::StringTooLong));
}

/// Empty strings are the worst there is: one byte of frame for each structure of arrays.
#[test]
fn arrays_of_nothing_run_into_the_budget() {
    let count = 1 << 20;
    let mut body = BytesMut::new();
    body.put_i32(count);
    body.put_bytes(0, 2 * count as usize);
    assert_eq!(metadata(1, &body), Err(DecodeError::OverBudget));
}

#[test]
fn millions_of_tagged_fields_are_skipped_one_by_one() {
    let head = [2, b'g', 0, 0, 0, 1, 2, b'm', 0];
    let heartbeat = |tail: &[u8], fill: usize| {
        let mut body = BytesMut::from(&head[..]);
        body.put_slice(tail);
        body.put_bytes(0, fill);
        HeartbeatRequest::decode(&mut Decoder::new(body.freeze()), 4)
    };
    // 2^21 fields of two bytes each: tag 0, size 0.
    assert!(heartbeat(&[0x80, 0x80, 0x80, 0x01], 2 << 21).is_ok());
    assert_eq!(heartbeat(&[0x80, 0x80, 0x80, 0x01], 100), Err(DecodeError::Truncated));
    assert_eq!(heartbeat(&[0xff, 0xff, 0xff, 0xff, 0x0f], 100), Err(DecodeError::Truncated));
    // One field whose size goes past the end.
    assert_eq!(heartbeat(&[1, 0, 9], 8), Err(DecodeError::Truncated));
}

#[test]
fn a_known_tagged_field_must_have_its_size() {
    // Fetch v12 up to the tags, then cluster_id (tag 0) as a string of one letter in `size` bytes.
    let fetch = |size: u8| {
        let mut body = BytesMut::new();
        body.put_bytes(0, 4 + 4 + 4 + 4 + 1 + 4 + 4);
        body.put_slice(&[1, 1, 1, 1, 0, size, 2, b'c', 0, 0]);
        crate::messages::fetch_request::FetchRequest::decode(&mut Decoder::new(body.freeze()), 12)
    };
    assert_eq!(fetch(1), Err(DecodeError::Truncated));
    assert!(fetch(2).is_ok());
    assert_eq!(fetch(3), Err(DecodeError::TaggedSize));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        for (side, key, version) in all() {
            let _ = Any::decode(side, key, &mut Decoder::new(bytes.clone()), version);
        }
        let _ = RequestHeader::read(&mut Decoder::new(bytes));
    }

    /// Bytes near to a message get further than arbitrary ones. What is accepted can be written, and
    /// comes back: the codec has no message that it reads and cannot write.
    #[test]
    fn mutated_messages_are_refused_or_stand(
        seed in any::<u64>(),
        which in 0..1000usize,
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let every: Vec<(Side, ApiKey, i16)> = all().collect();
        let (side, key, version) = every[which % every.len()];
        let message = Any::generate(side, key, seed, version);
        let mut bytes = BytesMut::from(&message.encode(version).unwrap()[..]);
        for (at, with) in flips {
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= with;
            }
        }
        if let Ok(message) = decode_all(side, key, bytes.freeze(), version) {
            let again = message.encode(version).unwrap();
            let back = decode_all(side, key, again.clone(), version).unwrap();
            prop_assert_eq!(back.encode(version).unwrap(), again);
        }
    }
}
