//! Tests over all messages alike. What concerns one type is tested beside it.

mod differential;
mod golden;
mod hostile;
mod round_trip;

use bytes::Bytes;

use crate::{AnyRequest, AnyResponse, ApiKey, DecodeError, Decoder, EncodeError, Encoder};

/// A request or a response, so that one test covers both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Request,
    Response,
}

#[derive(Clone, Debug, PartialEq)]
enum Any {
    Request(AnyRequest),
    Response(AnyResponse),
}

impl Any {
    fn decode(
        side: Side,
        key: ApiKey,
        decoder: &mut Decoder,
        version: i16,
    ) -> Result<Self, DecodeError> {
        match side {
            Side::Request => AnyRequest::decode(key, decoder, version).map(Self::Request),
            Side::Response => AnyResponse::decode(key, decoder, version).map(Self::Response),
        }
    }

    fn generate(side: Side, key: ApiKey, seed: u64, version: i16) -> Self {
        let source = &mut crate::generate::Source(seed);
        match side {
            Side::Request => Self::Request(AnyRequest::generate(key, source, version)),
            Side::Response => Self::Response(AnyResponse::generate(key, source, version)),
        }
    }

    fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut encoder = Encoder::new();
        match self {
            Self::Request(message) => message.encode(&mut encoder, version)?,
            Self::Response(message) => message.encode(&mut encoder, version)?,
        }
        Ok(encoder.into_chain().to_bytes())
    }
}

/// Reads a whole body.
fn decode_all(side: Side, key: ApiKey, body: Bytes, version: i16) -> Result<Any, DecodeError> {
    let mut decoder = Decoder::new(body);
    let message = Any::decode(side, key, &mut decoder, version)?;
    decoder.finish()?;
    Ok(message)
}

/// Every message in every version.
fn all() -> impl Iterator<Item = (Side, ApiKey, i16)> {
    ApiKey::ALL.iter().flat_map(|&key| {
        key.versions().flat_map(move |version| {
            [Side::Request, Side::Response].map(|side| (side, key, version))
        })
    })
}
