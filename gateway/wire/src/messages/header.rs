//! The headers before every request and response. Their version follows from the request's kind and
//! version: [`ApiKey::request_header_version`] and [`ApiKey::response_header_version`].
//!
//! They are not tables because of one quirk: the client id keeps its old encoding in the flexible
//! version 2, so that a broker can read the header of an ApiVersions request that it does not know.

use crate::ApiKey;
use crate::field::Field;
use crate::messages::asker::Asker;
use crate::table::prelude::*;

const OLD: Version = Version { number: 1, flexible: false };

/// The header of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHeader {
    /// The request's kind. Read it as a plain number: it may be one that we do not know.
    pub request_api_key: i16,
    /// The request's version.
    pub request_api_version: i16,
    /// Comes back in the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Str>,
}

impl Default for RequestHeader {
    fn default() -> Self {
        Self {
            request_api_key: 0,
            request_api_version: 0,
            correlation_id: 0,
            client_id: Some(Str::default()),
        }
    }
}

impl RequestHeader {
    /// Reads a header whose version is not known beforehand: it follows from the first four bytes.
    /// `None` stands for a kind of request that we do not know, and then the client id is the last
    /// thing that was read.
    ///
    /// # Errors
    /// When the bytes are no header.
    pub fn read(decoder: &mut Decoder) -> Result<(Self, Option<ApiKey>), DecodeError> {
        let header = Self::decode(decoder, 1)?;
        let key = ApiKey::from_code(header.request_api_key);
        if key.is_some_and(|key| key.is_flexible(header.request_api_version)) {
            decoder.tagged(&mut (), |_, _, _| Ok(false))?;
        }
        Ok((header, key))
    }
}

impl Message for RequestHeader {
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const FLEXIBLE: i16 = 2;

    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::NoSuchVersion { message: "RequestHeader", version });
        }
        let header = Self {
            request_api_key: decoder.i16()?,
            request_api_version: decoder.i16()?,
            correlation_id: decoder.i32()?,
            client_id: Field::read(decoder, OLD, true)?,
        };
        if version >= Self::FLEXIBLE {
            decoder.tagged(&mut (), |_, _, _| Ok(false))?;
        }
        Ok(header)
    }

    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::NoSuchVersion { message: "RequestHeader", version });
        }
        encoder.put(&self.request_api_key.to_be_bytes());
        encoder.put(&self.request_api_version.to_be_bytes());
        encoder.put(&self.correlation_id.to_be_bytes());
        self.client_id.write(encoder, OLD, true)?;
        if version >= Self::FLEXIBLE {
            encoder.uvarint(0);
        }
        Ok(())
    }
}

/// The header of a request between nodes of a cluster: the version 2 of [`RequestHeader`], whatever the request's kind
/// and version, with who asks among its tagged fields. The body after it is as in any request.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRequestHeader {
    /// The header itself.
    pub request: RequestHeader,
    /// On whose behalf; none for what nodes have to say to each other.
    pub asker: Option<Asker>,
}

impl NodeRequestHeader {
    /// Where [`Asker`] stands: far above the tags that Kafka gives out one by one.
    const ASKER_TAG: u32 = 10_000;
    const ASKER_VERSION: i16 = 0;

    /// Reads the header.
    ///
    /// # Errors
    /// When the bytes are no such header.
    pub fn decode(decoder: &mut Decoder) -> Result<Self, DecodeError> {
        let request = RequestHeader::decode(decoder, 1)?;
        let mut asker = None;
        decoder.tagged(&mut asker, |asker, tag, field| {
            if tag != Self::ASKER_TAG {
                return Ok(false);
            }
            *asker = Some(Asker::decode(field, Self::ASKER_VERSION)?);
            Ok(true)
        })?;
        Ok(Self { request, asker })
    }

    /// Writes the header.
    ///
    /// # Errors
    /// When a text is too long for its field.
    pub fn encode(&self, encoder: &mut Encoder) -> Result<(), EncodeError> {
        self.request.encode(encoder, 1)?;
        encoder.uvarint(u32::from(self.asker.is_some()));
        match &self.asker {
            Some(asker) => {
                encoder.tagged(Self::ASKER_TAG, |e| asker.encode(e, Self::ASKER_VERSION))
            }
            None => Ok(()),
        }
    }
}

/// The header of a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResponseHeader {
    /// That of the request.
    pub correlation_id: i32,
}

impl Message for ResponseHeader {
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const FLEXIBLE: i16 = 1;

    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::NoSuchVersion { message: "ResponseHeader", version });
        }
        let header = Self { correlation_id: decoder.i32()? };
        if version >= Self::FLEXIBLE {
            decoder.tagged(&mut (), |_, _, _| Ok(false))?;
        }
        Ok(header)
    }

    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::NoSuchVersion { message: "ResponseHeader", version });
        }
        encoder.put(&self.correlation_id.to_be_bytes());
        if version >= Self::FLEXIBLE {
            encoder.uvarint(0);
        }
        Ok(())
    }
}
