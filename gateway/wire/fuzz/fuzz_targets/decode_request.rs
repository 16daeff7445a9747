//! A whole request as it comes from a connection: header, then the body that the header names. What is
//! accepted can be written, and comes back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_wire::header::RequestHeader;
use sluice_wire::{AnyRequest, Decoder, Encoder};

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(Bytes::copy_from_slice(data));
    let Ok((header, Some(key))) = RequestHeader::read(&mut decoder) else { return };
    let version = header.request_api_version;
    let Ok(request) = AnyRequest::decode(key, &mut decoder, version) else { return };
    let mut encoder = Encoder::new();
    request.encode(&mut encoder, version).expect("what was read can be written");
    let written = encoder.into_chain().to_bytes();
    let again = AnyRequest::decode(key, &mut Decoder::new(written.clone()), version);
    let mut encoder = Encoder::new();
    again.expect("what was written can be read").encode(&mut encoder, version).expect("as before");
    assert_eq!(encoder.into_chain().to_bytes(), written);
});
