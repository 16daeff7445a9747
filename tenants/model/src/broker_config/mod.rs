//! Broker configs that a tenant sets on its cluster: on one broker, or on all of them. Kafka 4.3's dynamic
//! broker configs (KIP-226), how their values are checked, and how they are reported.
//!
//! Those that are defaults of topics are the defaults of the tenant's topics (`TopicDefaults::of_tenant`).
//! Those that would change the machine or its listeners are refused, as Kafka refuses what is read at a
//! start alone. The rest is about parts that Sluice does not have: kept, reported, and without effect,
//! which the documentation of each says. Names that Kafka does not know are for plugins of a broker's
//! owner; Kafka keeps them, and so are they kept here, as secrets that are never shown.
//!
//! What is set is kept verbatim. Does not know who may change a config.

mod table;

use std::collections::BTreeMap;

use crate::config::{ConfigEntry, ConfigKey, ConfigSource, InvalidConfig, Value, shown};
use crate::limits::{MAX_BROKER_CONFIGS, MAX_CONFIG_VALUE_BYTES, MAX_CONFIGURED_NAME_BYTES};

/// What is set on a broker, by name, verbatim.
type Set = BTreeMap<String, String>;

/// Why broker configs are refused. The text is for the client and worded as Kafka's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidBrokerConfig(String);

impl From<InvalidConfig> for InvalidBrokerConfig {
    fn from(invalid: InvalidConfig) -> Self {
        Self(invalid.to_string())
    }
}

/// What the table has of that name: its type, default and documentation. `None` for what clients cannot
/// change and for what Kafka does not know.
pub fn key(name: &str) -> Option<&'static ConfigKey> {
    table::of_topics(name).or_else(|| table::inert(name).map(|inert| &inert.key))
}

/// Whether this could be all that is set on a broker, or on all brokers, on which `before` is set now.
pub fn check(set: &Set, before: &Set, all_brokers: bool) -> Result<(), InvalidBrokerConfig> {
    let refuse = |text: String| Err(InvalidBrokerConfig(text));
    if set.len() > MAX_BROKER_CONFIGS {
        return refuse(format!("A broker cannot have more than {MAX_BROKER_CONFIGS} configs."));
    }
    if let Some(names) = names(set, table::is_fixed) {
        return refuse(format!("Cannot update these configs dynamically: {names}"));
    }
    for (name, text) in set {
        match key(name) {
            Some(key) => drop(key.parse(text)?),
            None if name.is_empty() || name.len() > MAX_CONFIGURED_NAME_BYTES => {
                return refuse("The name of a config has 1 to 1024 bytes.".to_owned());
            }
            None if text.len() > MAX_CONFIG_VALUE_BYTES => {
                return refuse(format!("The value of {} is too long.", shown(name)));
            }
            None => {}
        }
        check_threads(name, text, before)?;
    }
    let of_one = |name: &str| table::inert(name).is_some_and(|inert| inert.one_broker);
    match names(set, of_one).filter(|_| all_brokers) {
        Some(names) => refuse(format!(
            "Cannot update these configs at default cluster level, broker id must be specified: {names}"
        )),
        None => Ok(()),
    }
}

/// The names that are so, as Kafka lists them.
fn names(set: &Set, so: impl Fn(&str) -> bool) -> Option<String> {
    let names: Vec<_> = set.keys().filter(|name| so(name)).map(|name| shown(name)).collect();
    (!names.is_empty()).then(|| format!("[{}]", names.join(", ")))
}

fn check_threads(name: &str, text: &str, before: &Set) -> Result<(), InvalidBrokerConfig> {
    let Some(inert) = table::inert(name).filter(|inert| inert.threads) else { return Ok(()) };
    let number = |text: &str| match inert.key.parse(text) {
        Ok(Value::Long(number)) => Some(number),
        _ => None,
    };
    let old = before.get(name).and_then(|text| number(text)).or_else(|| number(inert.key.default));
    let (Some(new), Some(old)) = (number(text), old) else { return Ok(()) };
    let rule = match new {
        _ if new < old / 2 => "at least half",
        _ if new > old.saturating_mul(2) => "not greater than double",
        _ => return Ok(()),
    };
    Err(InvalidBrokerConfig(format!(
        "Dynamic thread count update validation failed for {name}={new}, value should be {rule} the \
         current value {old}"
    )))
}

/// The configs without effect that are set on a broker or on all of them, as the broker reports them,
/// sorted by name.
pub fn describe<'a>(cluster: &'a Set, broker: &'a Set) -> impl Iterator<Item = ConfigEntry> + 'a {
    table::INERT.iter().filter_map(move |inert| {
        let key = &inert.key;
        let place = |set: &'a Set, source| set.get(key.name).map(|text| (text.as_str(), source));
        let places = [
            place(broker, ConfigSource::DynamicBroker),
            place(cluster, ConfigSource::DynamicDefaultBroker),
        ];
        let is_set = places.iter().any(Option::is_some);
        let default = Some((key.name, key.default));
        is_set.then(|| key.entry(None, places.into_iter().flatten(), default))
    })
}

#[cfg(test)]
mod tests;
