//! A topic's configs as DescribeConfigs and CreateTopics report them.

use std::collections::BTreeMap;

use super::TopicDefaults;
use super::table::{KEYS, server_default, topics_default};
use crate::config::{ConfigEntry, ConfigSource};

/// All configs of a topic with these overrides, sorted by name. None of them is a secret and none is
/// read-only.
pub fn describe(
    overrides: &BTreeMap<String, String>,
    defaults: &TopicDefaults,
) -> impl Iterator<Item = ConfigEntry> {
    KEYS.iter().map(move |key| {
        let set = overrides.get(key.name).map(|text| (text.as_str(), ConfigSource::Topic));
        key.entry(set, defaults.places(key.name), topics_default(key))
    })
}

/// The same configs as a broker has them, under its names in the synonyms.
pub fn describe_server(defaults: &TopicDefaults) -> impl Iterator<Item = ConfigEntry> {
    KEYS.iter().map(|key| key.entry(None, defaults.places(key.name), server_default(key)))
}
