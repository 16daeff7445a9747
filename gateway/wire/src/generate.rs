//! Messages by seed, for tests: every field that a version has gets a value, of any shape that the
//! version allows.

use bytes::Bytes;

use crate::table::Version;
use crate::{Chain, Str, Uuid};

/// A stream of numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Source(pub(crate) u64);

impl Source {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> usize {
        (self.next() % end) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

pub(crate) trait Generate {
    fn generate(source: &mut Source, version: Version, nullable: bool) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Generate for $number {
            /// Small, extreme or any.
            fn generate(source: &mut Source, _: Version, _: bool) -> Self {
                match source.below(4) {
                    0 => source.below(5) as Self,
                    1 => Self::MAX,
                    2 => Self::MIN,
                    _ => source.next() as Self,
                }
            }
        }
    )*};
}

numbers!(i8, i16, u16, i32, i64, f64);

impl Generate for bool {
    fn generate(source: &mut Source, _: Version, _: bool) -> Self {
        source.below(2) == 1
    }
}

impl Generate for Uuid {
    fn generate(source: &mut Source, _: Version, _: bool) -> Self {
        Self(source.bytes(16).try_into().expect("as many as were asked for"))
    }
}

impl Generate for Str {
    /// Mostly short; sometimes so long that its compact length takes two bytes; not only ASCII.
    fn generate(source: &mut Source, _: Version, _: bool) -> Self {
        let len = if source.below(16) == 0 { 100 + source.below(400) } else { source.below(12) };
        let letters = ['a', 'z', '.', '-', 'é', '水', '🌊', '\0'];
        let text: String = (0..len).map(|_| letters[source.below(8)]).collect();
        Self::from(text)
    }
}

impl Generate for Bytes {
    /// Sometimes so long that encoding splices it.
    fn generate(source: &mut Source, _: Version, _: bool) -> Self {
        let len = if source.below(4) == 0 { source.below(2000) } else { source.below(20) };
        Self::from(source.bytes(len))
    }
}

impl Generate for Chain {
    fn generate(source: &mut Source, version: Version, nullable: bool) -> Self {
        (0..source.below(4)).map(|_| Bytes::generate(source, version, nullable)).collect()
    }
}

impl<T: Generate> Generate for Vec<T> {
    fn generate(source: &mut Source, version: Version, _: bool) -> Self {
        (0..source.below(4)).map(|_| T::generate(source, version, false)).collect()
    }
}

impl<T: Generate> Generate for Option<T> {
    fn generate(source: &mut Source, version: Version, nullable: bool) -> Self {
        if nullable && source.below(4) == 0 {
            None
        } else {
            Some(T::generate(source, version, nullable))
        }
    }
}
