//! What is durable of a group, beside its offsets: the values of its records, as they are in the log.
//! A group's machine can be made of it at any time. Changed only by durable records.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::record::ModernKind;

/// The parts of a group with member epochs: what follows the group in their keys, and the values.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    kind: ModernKind,
    values: BTreeMap<Bytes, Bytes>,
}

impl Parts {
    pub(crate) fn kind(&self) -> ModernKind {
        self.kind
    }

    /// By key, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.values.iter()
    }
}

/// The records of one group.
#[derive(Clone, Debug, Default)]
pub(crate) enum Stored {
    /// None: there never was a group, or it only keeps offsets.
    #[default]
    Nothing,
    /// The metadata of a classic group.
    Classic(Bytes),
    /// Parts of one of the newer kinds; never without any.
    Modern(Box<Parts>),
}

impl Stored {
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// A classic group's metadata, which takes the place of all that was there.
    pub(crate) fn set_classic(&mut self, metadata: &[u8]) {
        *self = Self::Classic(Bytes::copy_from_slice(metadata));
    }

    /// One part. A value takes the place of what there was of another kind; a tombstone of another
    /// kind's part says nothing.
    pub(crate) fn set_part(&mut self, kind: ModernKind, part: &[u8], value: Option<&[u8]>) {
        match (self, value) {
            (Self::Modern(parts), Some(value)) if parts.kind == kind => {
                parts.values.insert(Bytes::copy_from_slice(part), Bytes::copy_from_slice(value));
            }
            (this, Some(value)) => {
                let values = [(Bytes::copy_from_slice(part), Bytes::copy_from_slice(value))];
                *this = Self::Modern(Box::new(Parts { kind, values: values.into() }));
            }
            (this, None) => {
                let Self::Modern(parts) = this else { return };
                if parts.kind == kind {
                    parts.values.remove(part);
                    if parts.values.is_empty() {
                        *this = Self::Nothing;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: ModernKind = ModernKind::Consumer;

    #[test]
    fn a_group_is_of_one_kind_at_a_time() {
        let mut stored = Stored::default();
        stored.set_part(KIND, b"a", None);
        assert!(stored.is_nothing());
        stored.set_classic(b"metadata");
        // A tombstone says nothing about a group of another kind, a value makes it one of its own.
        stored.set_part(KIND, b"a", None);
        assert!(matches!(&stored, Stored::Classic(bytes) if bytes == "metadata"));
        stored.set_part(KIND, b"a", Some(b"1"));
        stored.set_part(KIND, b"b", Some(b"2"));
        let Stored::Modern(parts) = &stored else { panic!("{stored:?}") };
        let values: Vec<_> = parts.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert_eq!(values, [(&b"a"[..], &b"1"[..]), (b"b", b"2")]);
        stored.set_part(KIND, b"a", None);
        stored.set_part(KIND, b"b", None);
        assert!(stored.is_nothing());
    }
}
