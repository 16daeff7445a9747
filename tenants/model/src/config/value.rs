//! Parsing and checking one value, by the rules of Kafka's `ConfigDef`.

use std::fmt;

use super::ConfigType as Kind;
use super::{Check, ConfigKey};
use crate::group_config::OffsetReset;
use crate::limits::MAX_CONFIG_VALUE_BYTES;

/// A config that is refused. The text is for the client that sent it and is worded as Kafka's, since
/// tools show it and some look into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(String);

impl InvalidConfig {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// `kind` is the resource's: topic or group.
    pub(crate) fn unknown(kind: &str, name: &str) -> Self {
        Self(format!("Unknown {kind} config name: {}", shown(name)))
    }

    fn value(key: &ConfigKey, text: &str, reason: &str) -> Self {
        Self(format!("Invalid value {} for configuration {}: {reason}", shown(text), key.name))
    }
}

/// At most 128 characters of what the client sent, so that errors stay small.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(128).collect()
}

/// A value that has been checked; displays as Kafka reports it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    Long(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Long(value) => value.fmt(f),
            // `1.0`, as Java writes it.
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Text(value) => value.fmt(f),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// The items of a canonical list.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|item| !item.is_empty())
}

/// Java's `String.trim`.
fn trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

impl ConfigKey {
    /// Parses and checks a value of this key.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, InvalidConfig> {
        if text.len() > MAX_CONFIG_VALUE_BYTES {
            return Err(InvalidConfig::value(self, text, "the value is too long"));
        }
        let refuse = |reason: &str| Err(InvalidConfig::value(self, text, reason));
        let trimmed = trim(text);
        let value = match self.kind {
            Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Value::Bool(true),
            Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Value::Bool(false),
            Kind::Boolean => return refuse("Expected value to be either true or false"),
            Kind::String => Value::Text(trimmed.to_owned()),
            Kind::Int => match trimmed.parse::<i32>() {
                Ok(number) => Value::Long(number.into()),
                Err(_) => return refuse("Not a number of type INT"),
            },
            Kind::Long => match trimmed.parse() {
                Ok(number) => Value::Long(number),
                Err(_) => return refuse("Not a number of type LONG"),
            },
            Kind::Double => match trimmed.parse::<f64>() {
                Ok(number) if number.is_finite() => Value::Double(number),
                _ => return refuse("Not a number of type DOUBLE"),
            },
            Kind::List if trimmed.is_empty() => Value::List(Vec::new()),
            Kind::List => Value::List(trimmed.split(',').map(|i| trim(i).to_owned()).collect()),
        };
        match self.check.refusal(&value) {
            None => Ok(value),
            Some(reason) => refuse(&reason),
        }
    }
}

impl Check {
    /// Why the value is refused, if it is.
    fn refusal(&self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::AtLeast(min), Value::Long(number)) => {
                (number < min).then(|| format!("Value must be at least {min}"))
            }
            (Self::Between(min, _), Value::Long(number)) if number < min => {
                Some(format!("Value must be at least {min}"))
            }
            (Self::Between(_, max), Value::Long(number)) => {
                (number > max).then(|| format!("Value must be no more than {max}"))
            }
            (Self::GzipLevel, Value::Long(level)) => (!matches!(level, -1 | 1..=9))
                .then(|| "Value must be between 1 and 9 or equal to -1".to_owned()),
            (Self::Ratio, Value::Double(ratio)) if *ratio < 0.0 => {
                Some("Value must be at least 0".to_owned())
            }
            (Self::Ratio, Value::Double(ratio)) => {
                (*ratio > 1.0).then(|| "Value must be no more than 1".to_owned())
            }
            (Self::OneOf(names), Value::Text(text)) => (!names.contains(&text.as_str()))
                .then(|| format!("String must be one of: {}", names.join(", "))),
            (Self::SomeOf(names), Value::List(items)) => some_of(names, items),
            (Self::Replicas, Value::List(items)) => replicas(items),
            (Self::OffsetReset, Value::Text(text)) => OffsetReset::parse(text).is_none().then(|| {
                format!(
                    "Invalid value `{}` for configuration share.auto.offset.reset. The value must be \
                     either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.",
                    shown(text)
                )
            }),
            _ => None,
        }
    }
}

fn some_of(names: &[&str], items: &[String]) -> Option<String> {
    if items.iter().enumerate().any(|(at, item)| items[..at].contains(item)) {
        return Some("values must not be duplicated".to_owned());
    }
    items
        .iter()
        .any(|item| !names.contains(&item.as_str()))
        .then(|| format!("String must be one of: {}", names.join(", ")))
}

/// `*`, or `partition:broker` pairs.
fn replicas(items: &[String]) -> Option<String> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let pair = |item: &String| {
        item.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
    };
    let good = matches!(items, [only] if only == "*") || items.iter().all(pair);
    (!good).then(|| {
        "must be the literal '*' or a list of [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            .to_owned()
    })
}
