//! Which topics a consumer group subscribes to, read from its members' subscriptions.

use std::collections::BTreeSet;

use sluice_wire::Str;

use super::Group;

impl Group {
    /// `None` when that cannot be known: another protocol type, or bytes that do not parse.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        if !self.is_consumer() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.roster.iter() {
            for topic in topics_of(&member.metadata(self.protocol.as_deref()))? {
                topics.insert(Str::from(topic));
            }
        }
        Some(topics)
    }
}

/// The topics of a ConsumerProtocolSubscription. Every version begins as version 0 does: version
/// i16, topics array (count i32, then strings with a length of i16); the rest is not looked at.
fn topics_of(bytes: &[u8]) -> Option<Vec<&str>> {
    let (version, rest) = bytes.split_first_chunk()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    if count > rest.len() / 2 {
        return None;
    }
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        let (len, after) = rest.split_first_chunk()?;
        let len = usize::try_from(i16::from_be_bytes(*len)).ok()?;
        let (topic, after) = after.split_at_checked(len)?;
        topics.push(std::str::from_utf8(topic).ok()?);
        rest = after;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_topics_of_any_version() {
        let bytes =
            [&[0, 3][..], &[0, 0, 0, 2], &[0, 1, b'a'], &[0, 2, b'b', b'c'], &[0xff; 9]].concat();
        assert_eq!(topics_of(&bytes), Some(vec!["a", "bc"]));
    }

    #[test]
    fn bytes_that_are_no_subscription_are_unknown() {
        assert_eq!(topics_of(&[]), None);
        assert_eq!(topics_of(&[0, 0, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(topics_of(&[0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
        assert_eq!(topics_of(&[0, 0, 0, 0, 0, 1, 0, 9, b'a']), None);
        assert_eq!(topics_of(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff]), None);
    }
}
