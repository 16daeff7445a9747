//! What a topic may be called: Kafka's rules (`org.apache.kafka.common.internals.Topic`). Names are
//! a tenant's own; nothing here knows tenants, and nothing is ever put before or into a name.

/// The longest name, in bytes; all legal characters are ASCII.
pub const MAX_NAME_BYTES: usize = 249;

/// Where Kafka keeps its groups' offsets. Here a topic of that name stays empty.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// The names that Kafka keeps for itself (its `Topic.INTERNAL_TOPICS`).
const INTERNAL: [&str; 3] = [CONSUMER_OFFSETS, "__transaction_state", "__share_group_state"];

/// Whether clients are told that a topic of that name is the cluster's own: they leave it out of patterns, and may
/// not produce to it.
pub fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Why a string is no topic name. The text is for the client that sent the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopicName {
    /// No characters at all.
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    /// `.` or `..`.
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(&'static str),
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("Topic name is invalid: the name has {0} characters, and {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// A character outside the legal set.
    #[error(
        "Topic name is invalid: '{0}' contains one or more characters other than ASCII \
         alphanumerics, '.', '_' and '-'"
    )]
    IllegalCharacter(String),
}

/// Checks a name that a client gave.
pub fn validate(name: &str) -> Result<(), InvalidTopicName> {
    match name {
        "" => return Err(InvalidTopicName::Empty),
        "." => return Err(InvalidTopicName::Dots(".")),
        ".." => return Err(InvalidTopicName::Dots("..")),
        _ => {}
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidTopicName::TooLong(name.chars().count()));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !name.bytes().all(legal) {
        return Err(InvalidTopicName::IllegalCharacter(name.to_owned()));
    }
    Ok(())
}

/// The form under which `.` and `_` are the same, or `None` for a name that has neither. Two names
/// of one tenant with the same form may not both exist: metric names cannot tell them apart.
pub fn collision_form(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_rules() {
        for good in ["a", "A-z_0.9", "...", "_", &"x".repeat(249)] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        assert_eq!(validate(""), Err(InvalidTopicName::Empty));
        assert_eq!(validate("."), Err(InvalidTopicName::Dots(".")));
        assert_eq!(validate(".."), Err(InvalidTopicName::Dots("..")));
        assert_eq!(validate(&"x".repeat(250)), Err(InvalidTopicName::TooLong(250)));
        for bad in ["a b", "a/b", "ä", "a\0", "a:b", "a\n"] {
            assert_eq!(validate(bad), Err(InvalidTopicName::IllegalCharacter(bad.into())), "{bad}");
        }
    }

    #[test]
    fn names_that_metrics_cannot_tell_apart_share_a_form() {
        assert_eq!(collision_form("a.b_c"), collision_form("a_b.c"));
        assert_ne!(collision_form("a.b"), collision_form("a.c"));
        assert_eq!(collision_form("a-b"), None);
    }
}
