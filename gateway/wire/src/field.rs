//! How each type of Kafka's schema lies on the wire, in the old encoding and in the flexible one
//! (KIP-482).
//!
//! ```text
//!                  old                               flexible
//! string           i16 length, bytes                 uvarint length + 1, bytes
//! bytes, records   i32 length, bytes                 uvarint length + 1, bytes
//! array            i32 count, elements               uvarint count + 1, elements
//! null of these    length or count -1                0
//! structure        its fields                        its fields, its tagged fields
//! nullable one     i8 1 and the structure, or -1     the same
//! ```

use bytes::Bytes;

use crate::table::{Part, Version};
use crate::{Chain, DecodeError, Decoder, EncodeError, Encoder, Str, Uuid};

/// The longest string in either encoding, as Kafka's clients and brokers take none that is longer.
const MAX_STRING_BYTES: usize = i16::MAX as usize;

/// A type that a table's field may have. `nullable` says whether null is allowed in this version; a
/// type that has no null refuses it always.
pub(crate) trait Field: Sized {
    /// The fewest bytes that a value takes.
    fn min_bytes(version: Version) -> usize;
    fn read(decoder: &mut Decoder, version: Version, nullable: bool) -> Result<Self, DecodeError>;
    fn write(
        &self,
        encoder: &mut Encoder,
        version: Version,
        nullable: bool,
    ) -> Result<(), EncodeError>;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Field for $number {
            fn min_bytes(_: Version) -> usize {
                size_of::<Self>()
            }

            #[inline]
            fn read(decoder: &mut Decoder, _: Version, _: bool) -> Result<Self, DecodeError> {
                decoder.array().map(Self::from_be_bytes)
            }

            fn write(&self, encoder: &mut Encoder, _: Version, _: bool) -> Result<(), EncodeError> {
                encoder.put(&self.to_be_bytes());
                Ok(())
            }
        }
    )*};
}

numbers!(i8, i16, u16, i32, i64, f64);

impl Field for bool {
    fn min_bytes(_: Version) -> usize {
        1
    }

    fn read(decoder: &mut Decoder, _: Version, _: bool) -> Result<Self, DecodeError> {
        decoder.array::<1>().map(|[byte]| byte != 0)
    }

    fn write(&self, encoder: &mut Encoder, _: Version, _: bool) -> Result<(), EncodeError> {
        encoder.put(&[u8::from(*self)]);
        Ok(())
    }
}

impl Field for Uuid {
    fn min_bytes(_: Version) -> usize {
        16
    }

    fn read(decoder: &mut Decoder, _: Version, _: bool) -> Result<Self, DecodeError> {
        decoder.array().map(Self)
    }

    fn write(&self, encoder: &mut Encoder, _: Version, _: bool) -> Result<(), EncodeError> {
        encoder.put(&self.0);
        Ok(())
    }
}

/// Types with a length or count before them: how they are read when it is not null, and how written.
trait Counted: Sized {
    /// Bytes of the length in the old encoding; in the flexible one it is at least one.
    const OLD_LENGTH_BYTES: usize = 4;

    #[inline]
    fn read_len(decoder: &mut Decoder, version: Version) -> Result<Option<usize>, DecodeError> {
        if version.flexible { decoder.compact_len() } else { decoder.i32_len() }
    }

    fn read_content(
        decoder: &mut Decoder,
        version: Version,
        len: usize,
    ) -> Result<Self, DecodeError>;

    fn write_len(
        encoder: &mut Encoder,
        version: Version,
        len: Option<usize>,
    ) -> Result<(), EncodeError> {
        if version.flexible { encoder.compact_len(len) } else { encoder.i32_len(len) }
    }

    fn len(&self) -> usize;

    fn write_content(&self, encoder: &mut Encoder, version: Version) -> Result<(), EncodeError>;
}

impl Counted for Str {
    const OLD_LENGTH_BYTES: usize = 2;

    #[inline]
    fn read_len(decoder: &mut Decoder, version: Version) -> Result<Option<usize>, DecodeError> {
        if version.flexible { decoder.compact_len() } else { decoder.i16_len() }
    }

    #[inline]
    fn read_content(decoder: &mut Decoder, _: Version, len: usize) -> Result<Self, DecodeError> {
        if len > MAX_STRING_BYTES {
            return Err(DecodeError::StringTooLong);
        }
        Self::try_from(decoder.slice(len)?)
    }

    fn write_len(
        encoder: &mut Encoder,
        version: Version,
        len: Option<usize>,
    ) -> Result<(), EncodeError> {
        if len > Some(MAX_STRING_BYTES) {
            return Err(EncodeError::TooLong);
        }
        if version.flexible { encoder.compact_len(len) } else { encoder.i16_len(len) }
    }

    fn len(&self) -> usize {
        self.as_bytes().len()
    }

    fn write_content(&self, encoder: &mut Encoder, _: Version) -> Result<(), EncodeError> {
        encoder.put_str(self);
        Ok(())
    }
}

impl Counted for Bytes {
    #[inline]
    fn read_content(decoder: &mut Decoder, _: Version, len: usize) -> Result<Self, DecodeError> {
        decoder.slice(len)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn write_content(&self, encoder: &mut Encoder, _: Version) -> Result<(), EncodeError> {
        encoder.put_bytes(self);
        Ok(())
    }
}

impl Counted for Chain {
    #[inline]
    fn read_content(decoder: &mut Decoder, _: Version, len: usize) -> Result<Self, DecodeError> {
        decoder.slice(len).map(Self::from)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn write_content(&self, encoder: &mut Encoder, _: Version) -> Result<(), EncodeError> {
        for piece in self.pieces() {
            encoder.put_bytes(piece);
        }
        Ok(())
    }
}

impl<T: Field> Counted for Vec<T> {
    #[inline]
    fn read_content(
        decoder: &mut Decoder,
        version: Version,
        len: usize,
    ) -> Result<Self, DecodeError> {
        let mut elements = decoder.vec(len, T::min_bytes(version))?;
        for _ in 0..len {
            elements.push(T::read(decoder, version, false)?);
        }
        Ok(elements)
    }

    fn len(&self) -> usize {
        Self::len(self)
    }

    fn write_content(&self, encoder: &mut Encoder, version: Version) -> Result<(), EncodeError> {
        self.iter().try_for_each(|element| element.write(encoder, version, false))
    }
}

macro_rules! counted_fields {
    ($($({$($generic:tt)*})? $counted:ty),*) => {$(
        impl$(<$($generic)*>)? Field for $counted {
            fn min_bytes(version: Version) -> usize {
                if version.flexible { 1 } else { <Self as Counted>::OLD_LENGTH_BYTES }
            }

            #[inline]
            fn read(
                decoder: &mut Decoder,
                version: Version,
                _: bool,
            ) -> Result<Self, DecodeError> {
                let len = Self::read_len(decoder, version)?.ok_or(DecodeError::UnexpectedNull)?;
                Self::read_content(decoder, version, len)
            }

            fn write(
                &self,
                encoder: &mut Encoder,
                version: Version,
                _: bool,
            ) -> Result<(), EncodeError> {
                Self::write_len(encoder, version, Some(Counted::len(self)))?;
                self.write_content(encoder, version)
            }
        }

        impl$(<$($generic)*>)? Field for Option<$counted> {
            fn min_bytes(version: Version) -> usize {
                <$counted as Field>::min_bytes(version)
            }

            #[inline]
            fn read(
                decoder: &mut Decoder,
                version: Version,
                nullable: bool,
            ) -> Result<Self, DecodeError> {
                match <$counted>::read_len(decoder, version)? {
                    Some(len) => <$counted>::read_content(decoder, version, len).map(Some),
                    None if nullable => Ok(None),
                    None => Err(DecodeError::UnexpectedNull),
                }
            }

            fn write(
                &self,
                encoder: &mut Encoder,
                version: Version,
                nullable: bool,
            ) -> Result<(), EncodeError> {
                match self {
                    Some(value) => value.write(encoder, version, nullable),
                    None if nullable => <$counted>::write_len(encoder, version, None),
                    None => Err(EncodeError::UnexpectedNull),
                }
            }
        }
    )*};
}

counted_fields!(Str, Bytes, Chain, {T: Field} Vec<T>);

impl<P: Part> Field for P {
    fn min_bytes(version: Version) -> usize {
        <P as Part>::min_bytes(version)
    }

    fn read(decoder: &mut Decoder, version: Version, _: bool) -> Result<Self, DecodeError> {
        Part::read(decoder, version)
    }

    fn write(&self, encoder: &mut Encoder, version: Version, _: bool) -> Result<(), EncodeError> {
        Part::write(self, encoder, version)
    }
}

impl<P: Part> Field for Option<P> {
    fn min_bytes(_: Version) -> usize {
        1
    }

    fn read(decoder: &mut Decoder, version: Version, nullable: bool) -> Result<Self, DecodeError> {
        match decoder.array::<1>()? {
            [mark] if (mark as i8) >= 0 => Part::read(decoder, version).map(Some),
            _ if nullable => Ok(None),
            _ => Err(DecodeError::UnexpectedNull),
        }
    }

    fn write(
        &self,
        encoder: &mut Encoder,
        version: Version,
        nullable: bool,
    ) -> Result<(), EncodeError> {
        match self {
            Some(part) => {
                encoder.put(&[1]);
                Part::write(part, encoder, version)
            }
            None if nullable => {
                encoder.put(&[0xff]);
                Ok(())
            }
            None => Err(EncodeError::UnexpectedNull),
        }
    }
}
