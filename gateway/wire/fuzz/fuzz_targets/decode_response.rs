//! A response body of any kind: two bytes of key, two of version, then the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_wire::{AnyResponse, ApiKey, Decoder, Encoder};

fuzz_target!(|data: &[u8]| {
    let Some((head, body)) = data.split_first_chunk::<4>() else { return };
    let Some(key) = ApiKey::from_code(i16::from_be_bytes([head[0], head[1]])) else { return };
    let version = i16::from_be_bytes([head[2], head[3]]);
    let mut decoder = Decoder::new(Bytes::copy_from_slice(body));
    let Ok(response) = AnyResponse::decode(key, &mut decoder, version) else { return };
    let mut encoder = Encoder::new();
    response.encode(&mut encoder, version).expect("what was read can be written");
});
