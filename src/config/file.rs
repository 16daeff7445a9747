//! The TOML file as a flat list of keys with their values and lines. What the keys mean is not known
//! here, but for one: the table of topic configs is one value.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{GROUP_DEFAULTS, TOPIC_DEFAULTS};

/// A key that the file gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Dotted, as in the table of keys.
    pub(super) name: String,
    /// Counted from 1.
    pub(super) line: usize,
    /// The value as text, or the name of a TOML type that no key has.
    pub(super) value: Result<String, &'static str>,
}

/// A file that is not TOML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Counted from 1.
    pub(super) line: usize,
    /// Without any text of the file: a line may hold a secret.
    pub(super) reason: String,
}

/// Reads the file's text.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Malformed> {
    let table = DeTable::parse(text).map_err(|error| Malformed {
        line: line_of(text, error.span()),
        reason: error.message().to_owned(),
    })?;
    let mut entries = Vec::new();
    flatten(text, "", table.get_ref(), &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

fn flatten(text: &str, above: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = join(above, key.get_ref());
        let line = line_of(text, Some(key.span()));
        match value.get_ref() {
            DeValue::Table(configs) if [TOPIC_DEFAULTS, GROUP_DEFAULTS].contains(&&*name) => {
                entries.push(Entry { name, line, value: kafka_configs(configs) });
            }
            DeValue::Table(inner) => flatten(text, &name, inner, entries),
            _ => entries.push(Entry { name, line, value: scalar(value) }),
        }
    }
}

/// The table as `name=value;...`. `retention.ms = 1` without quotes makes tables within the table:
/// the same is meant.
fn kafka_configs(table: &DeTable<'_>) -> Result<String, &'static str> {
    fn walk(above: &str, table: &DeTable<'_>, pairs: &mut Vec<String>) -> Result<(), &'static str> {
        for (key, value) in table {
            let name = join(above, key.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                walk(&name, inner, pairs)?;
                continue;
            }
            let value = scalar(value)?;
            if value.contains(';') || name.contains([';', '=']) {
                return Err("a config with a semicolon");
            }
            pairs.push(format!("{name}={value}"));
        }
        Ok(())
    }
    let mut pairs = Vec::new();
    walk("", table, &mut pairs)?;
    Ok(pairs.join(";"))
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Result<String, &'static str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) => Ok(value.to_string()),
            Err(_) => Err("a number that is too large"),
        },
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Datetime(_) => Err("a date"),
        DeValue::Array(_) => Err("an array"),
        DeValue::Table(_) => Err("a table"),
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let end = span.map_or(0, |span| span.start.min(text.len()));
    1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
}
