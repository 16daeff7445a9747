//! What a message is, and the macro that turns a table into one.
//!
//! A table reads like Kafka's schema:
//!
//! ```text
//! message! {
//!     /// What the message is for.
//!     mod produce_request, versions 3..=13, flexible 9..;
//!
//!     ProduceRequest {
//!         transactional_id: Option<Str>;
//!         timeout_ms: i32 [1..] = 60000;
//!         topic_data: Vec<TopicProduceData>;
//!     }
//!     TopicProduceData {
//!         name: Str [..=12, else ignore];
//!         next: Option<Str> [3.., null 4.., tag 0];
//!     }
//! }
//! ```
//!
//! The first structure is the message; the others are its parts. `versions` are those that exist,
//! `flexible` those in the compact encoding with tagged fields (KIP-482); left out, none is. A field
//! is `name: type [versions, null versions, tag number, else ignore] = default;`, in the schema's
//! order, where
//!
//! - versions left out means every version of the message;
//! - an `Option` may be null in every version that has the field, or in those after `null`;
//! - `tag` puts the field among the tagged ones, where it is written only if it is not the default;
//! - `else ignore` drops the value in a version that lacks the field; otherwise a value that is not
//!   the default is an error there (the schema's `ignorable`);
//! - a default left out is the type's own. A nullable field for which the schema names no default is
//!   empty, not null: `= Some(..)`.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use crate::{ApiKey, DecodeError, Decoder, EncodeError, Encoder};

/// A request, a response, a header, or a piece of data that has versions of its own.
pub trait Message: Sized + Default + Clone + Debug + PartialEq {
    /// The versions that exist.
    const VERSIONS: RangeInclusive<i16>;
    /// The first version in the flexible encoding; `i16::MAX` when none is.
    const FLEXIBLE: i16;

    /// Reads the message from the decoder's place; what follows it is left.
    ///
    /// # Errors
    /// When the bytes are not this message in this version, or there is no such version.
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError>;

    /// Writes the message. On an error the encoder holds half a message: drop it.
    ///
    /// # Errors
    /// When the message cannot be said in this version, or there is no such version.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError>;
}

/// A message that a client sends.
pub trait Request: Message {
    /// Its kind.
    const KEY: ApiKey;
    /// What answers it, in the same version.
    type Response: Message;
}

/// The version that is being read or written, with what follows from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) number: i16,
    pub(crate) flexible: bool,
}

/// A structure of a table.
pub(crate) trait Part: Sized {
    /// The fewest bytes that it takes.
    fn min_bytes(version: Version) -> usize;
    fn read(decoder: &mut Decoder, version: Version) -> Result<Self, DecodeError>;
    fn write(&self, encoder: &mut Encoder, version: Version) -> Result<(), EncodeError>;
}

macro_rules! message {
    (
        $(#[$doc:meta])*
        mod $module:ident, versions $versions:expr $(, flexible $flexible:literal..)?;

        $message:ident $fields:tt
        $($part:ident $part_fields:tt)*
    ) => {
        $(#[$doc])*
        pub mod $module {
            use crate::table::prelude::*;

            structure! { $(#[$doc])* $message $fields }
            $(structure! {
                #[doc = concat!("A part of [`", stringify!($message), "`].")]
                $part $part_fields
            })*

            impl Message for $message {
                const VERSIONS: RangeInclusive<i16> = $versions;
                const FLEXIBLE: i16 = first_of!([$($flexible)?] i16::MAX);

                fn decode(decoder: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
                    if !Self::VERSIONS.contains(&version) {
                        return Err(DecodeError::NoSuchVersion {
                            message: stringify!($message),
                            version,
                        });
                    }
                    let flexible = version >= Self::FLEXIBLE;
                    Part::read(decoder, Version { number: version, flexible })
                }

                fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
                    if !Self::VERSIONS.contains(&version) {
                        return Err(EncodeError::NoSuchVersion {
                            message: stringify!($message),
                            version,
                        });
                    }
                    let flexible = version >= Self::FLEXIBLE;
                    Part::write(self, encoder, Version { number: version, flexible })
                }
            }
        }
    };
}

/// One structure of a table. Each field becomes one arm of `read`, `write` and `min_bytes`; there is
/// no recursion over the fields, which keeps the build quick.
macro_rules! structure {
    (
        $(#[$doc:meta])*
        $name:ident {
            $(
                $field:ident: $type:ty
                $([
                    $versions:expr
                    $(, null $null:expr)?
                    $(, tag $tag:literal)?
                    $(, else $ignore:ident)?
                ])?
                $(= $default:expr)?;
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                #[doc = concat!(
                    "Versions `", first_of!([$(stringify!($versions))?] "all"), "`",
                    $($(", null in `", stringify!($null), "`",)?)?
                    $($(", tag ", stringify!($tag),)?)?
                    $(", by default `", stringify!($default), "`",)?
                    "."
                )]
                pub $field: $type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: first_of!([$($default)?] Default::default()),)* }
            }
        }

        #[cfg(test)]
        impl crate::generate::Generate for $name {
            fn generate(
                source: &mut crate::generate::Source,
                version: Version,
                _: bool,
            ) -> Self {
                let _ = &source;
                Self {
                    $($field: if in_versions!(version $($versions)?) {
                        let nullable = in_versions!(version $($($null)?)?);
                        crate::generate::Generate::generate(source, version, nullable)
                    } else {
                        first_of!([$($default)?] Default::default())
                    },)*
                }
            }
        }

        impl Part for $name {
            fn min_bytes(version: Version) -> usize {
                let mut bytes = usize::from(version.flexible);
                $(
                    if when_tagged!([$($($tag)?)?] { false } { true }) && in_versions!(version $($versions)?) {
                        bytes += <$type as Field>::min_bytes(version);
                    }
                )*
                bytes
            }

            fn read(decoder: &mut Decoder, version: Version) -> Result<Self, DecodeError> {
                let mut part = Self {
                    $(
                        $field: if when_tagged!([$($($tag)?)?] { false } { true }) && in_versions!(version $($versions)?) {
                            let nullable = in_versions!(version $($($null)?)?);
                            Field::read(decoder, version, nullable)?
                        } else {
                            first_of!([$($default)?] Default::default())
                        },
                    )*
                };
                if version.flexible {
                    decoder.tagged(&mut part, |_part, _tag, _decoder| {
                        $(when_tagged!([$($($tag)?)?] {
                            if _tag == first_of!([$($($tag)?)?] 0)
                                && in_versions!(version $($versions)?)
                            {
                                let nullable = in_versions!(version $($($null)?)?);
                                _part.$field = Field::read(_decoder, version, nullable)?;
                                return Ok(true);
                            }
                        } {});)*
                        Ok(false)
                    })?;
                }
                Ok(part)
            }

            fn write(&self, encoder: &mut Encoder, version: Version) -> Result<(), EncodeError> {
                $(
                    if in_versions!(version $($versions)?) {
                        when_tagged!([$($($tag)?)?] {} {
                            let nullable = in_versions!(version $($($null)?)?);
                            Field::write(&self.$field, encoder, version, nullable)?;
                        });
                    } else if !first_of!([$($(ignored!($ignore))?)?] false)
                        && is_set!(self.$field $(, $default)?)
                    {
                        return Err(EncodeError::FieldNotInVersion {
                            structure: stringify!($name),
                            field: stringify!($field),
                            version: version.number,
                        });
                    }
                )*
                if version.flexible {
                    // A tagged field that is set but not in this version was refused or dropped above.
                    let tags = 0 $(+ when_tagged!([$($($tag)?)?] {
                        u32::from(
                            in_versions!(version $($versions)?)
                                && is_set!(self.$field $(, $default)?)
                        )
                    } { 0 }))*;
                    encoder.uvarint(tags);
                    $(when_tagged!([$($($tag)?)?] {
                        if in_versions!(version $($versions)?)
                            && is_set!(self.$field $(, $default)?)
                        {
                            let tag = first_of!([$($($tag)?)?] 0);
                            encoder.tagged(tag, |encoder| {
                                let nullable = in_versions!(version $($($null)?)?);
                                Field::write(&self.$field, encoder, version, nullable)
                            })?;
                        }
                    } {});)*
                }
                Ok(())
            }
        }
    };
}

/// The tokens in the brackets if there are any, else those after them.
macro_rules! first_of {
    ([] $otherwise:expr) => {
        $otherwise
    };
    ([$($given:tt)+] $otherwise:expr) => {
        $($given)+
    };
}

/// The first block for a field with a tag, the second for one without.
macro_rules! when_tagged {
    ([] { $($then:tt)* } { $($otherwise:tt)* }) => { $($otherwise)* };
    ([$tag:literal] { $($then:tt)* } { $($otherwise:tt)* }) => { $($then)* };
}

/// Whether the version lies in the range; no range is every version.
macro_rules! in_versions {
    ($version:ident) => {
        true
    };
    ($version:ident $range:expr) => {
        RangeBounds::<i16>::contains(&($range), &$version.number)
    };
}

/// Whether a field has another value than its default.
macro_rules! is_set {
    ($field:expr) => {
        differs(&$field, &Default::default())
    };
    ($field:expr, $default:expr) => {
        differs(&$field, &$default)
    };
}

/// The only word that may follow `else`.
macro_rules! ignored {
    (ignore) => {
        true
    };
}

pub(crate) use {first_of, ignored, in_versions, is_set, message, structure, when_tagged};

/// What the expansion of a table needs in scope.
pub(crate) mod prelude {
    pub(crate) use std::ops::{RangeBounds, RangeInclusive};

    pub(crate) use bytes::Bytes;

    pub(crate) use super::{
        Message, Part, Version, differs, first_of, ignored, in_versions, is_set, structure,
        when_tagged,
    };
    pub(crate) use crate::field::Field;
    pub(crate) use crate::{Chain, DecodeError, Decoder, EncodeError, Encoder, Str, Uuid};
}

/// `!=` with both sides of one type, so that the type of a default follows from the field's.
pub(crate) fn differs<T: PartialEq>(value: &T, default: &T) -> bool {
    value != default
}
