//! How the value of a key is read, shown and described, by its Rust type: `bool` is a switch, `u32`
//! a count, `u64` bytes, `Duration` a time. The types that only the configuration has are in
//! [`super::values`].

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sluice_model::units::{millis, parse_size, parse_time, show_size, show_time};

/// Both ends are allowed; in bytes, milliseconds or a count, as the type has it.
pub(super) type Bounds = Option<(u64, u64)>;

/// Why a value was not taken. The value in place is unchanged.
#[derive(Debug)]
pub(super) struct Refusal {
    /// More than "this is not what is allowed".
    pub(super) reason: Option<String>,
    /// The value may hold a secret: it must not be printed.
    pub(super) hide: bool,
}

impl Refusal {
    /// The value is not of the kind that [`Setting::allowed`] tells.
    pub(super) const NOT_ALLOWED: Self = Self { reason: None, hide: false };

    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), hide: false }
    }

    pub(super) fn secret(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), hide: true }
    }
}

/// A value that a key can have.
pub(super) trait Setting {
    /// Reads `text` into place.
    fn set(&mut self, text: &str, bounds: Bounds) -> Result<(), Refusal>;

    /// The value as it is written in an environment variable; empty for one that is not set.
    fn show(&self) -> String;

    /// What may be written, after "must be".
    fn allowed(&self, bounds: Bounds) -> String;

    /// The value as it is written in the file; `None` for one that is not set.
    fn toml(&self) -> Option<String> {
        Some(toml_string(&self.show()))
    }
}

/// A TOML basic string.
pub(super) fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn within(value: u64, bounds: Bounds) -> bool {
    bounds.is_none_or(|(min, max)| (min..=max).contains(&value))
}

fn range(bounds: Bounds, show: impl Fn(u64) -> String) -> String {
    bounds.map_or_else(String::new, |(min, max)| format!(" from {} to {}", show(min), show(max)))
}

/// A value that is one of a few words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// All words, in the order in which they are told, with what they mean.
    const ALL: &[(&str, Self)];
}

impl<T: Choice> Setting for T {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let found = T::ALL.iter().find(|(word, _)| *word == text);
        *self = found.ok_or(Refusal::NOT_ALLOWED)?.1;
        Ok(())
    }

    fn show(&self) -> String {
        let found = T::ALL.iter().find(|(_, value)| value == self);
        found.map_or_else(String::new, |(word, _)| (*word).to_owned())
    }

    fn allowed(&self, _: Bounds) -> String {
        let words: Vec<&str> = T::ALL.iter().map(|(word, _)| *word).collect();
        let (last, others) = words.split_last().expect("a choice has words");
        format!("{} or {last}", others.join(", "))
    }
}

impl Setting for bool {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        *self = text.parse().map_err(|_| Refusal::NOT_ALLOWED)?;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn allowed(&self, _: Bounds) -> String {
        "true or false".to_owned()
    }

    fn toml(&self) -> Option<String> {
        Some(self.show())
    }
}

impl Setting for u32 {
    fn set(&mut self, text: &str, bounds: Bounds) -> Result<(), Refusal> {
        let value = text.parse().map_err(|_| Refusal::NOT_ALLOWED)?;
        if !within(u64::from(value), bounds) {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = value;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn allowed(&self, bounds: Bounds) -> String {
        format!("a whole number{}", range(bounds, |value| value.to_string()))
    }

    fn toml(&self) -> Option<String> {
        Some(self.show())
    }
}

impl Setting for u64 {
    fn set(&mut self, text: &str, bounds: Bounds) -> Result<(), Refusal> {
        let bytes = parse_size(text).ok_or(Refusal::NOT_ALLOWED)?;
        if !within(bytes, bounds) {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = bytes;
        Ok(())
    }

    fn show(&self) -> String {
        show_size(*self)
    }

    fn allowed(&self, bounds: Bounds) -> String {
        format!("a size{}, such as 64MiB", range(bounds, show_size))
    }
}

impl Setting for Duration {
    fn set(&mut self, text: &str, bounds: Bounds) -> Result<(), Refusal> {
        let time = parse_time(text).ok_or(Refusal::NOT_ALLOWED)?;
        if !within(millis(time), bounds) {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = time;
        Ok(())
    }

    fn show(&self) -> String {
        show_time(*self)
    }

    fn allowed(&self, bounds: Bounds) -> String {
        let range = range(bounds, |ms| show_time(Self::from_millis(ms)));
        format!("a time{range} with its unit (ms, s, m, h, d), such as 10s")
    }
}

impl Setting for PathBuf {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        if text.is_empty() || text.contains('\0') {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = Self::from(text);
        Ok(())
    }

    fn show(&self) -> String {
        self.display().to_string()
    }

    fn allowed(&self, _: Bounds) -> String {
        "a path".to_owned()
    }
}

impl Setting for SocketAddr {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        // Names are not looked up: what is bound must not depend on a resolver. One name is certain.
        let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        *self = match port {
            Some(port) => Self::from((Ipv4Addr::LOCALHOST, port)),
            None => text.parse().map_err(|_| Refusal::NOT_ALLOWED)?,
        };
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn allowed(&self, _: Bounds) -> String {
        "an IP address and a port, such as 127.0.0.1:9092 or [::1]:9092".to_owned()
    }
}

/// An empty text is "not set".
impl<T: Setting + Blank> Setting for Option<T> {
    fn set(&mut self, text: &str, bounds: Bounds) -> Result<(), Refusal> {
        if text.is_empty() {
            *self = None;
            return Ok(());
        }
        let mut value = T::blank();
        value.set(text, bounds)?;
        *self = Some(value);
        Ok(())
    }

    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }

    fn allowed(&self, bounds: Bounds) -> String {
        T::blank().allowed(bounds)
    }

    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(T::toml)
    }
}

/// A value to read another into; never seen outside.
pub(super) trait Blank {
    fn blank() -> Self;
}

impl Blank for SocketAddr {
    fn blank() -> Self {
        Self::from(([127, 0, 0, 1], 0))
    }
}

impl Blank for PathBuf {
    fn blank() -> Self {
        Self::new()
    }
}

/// Topic configs: `name=value` pairs with semicolons between (values may hold commas).
impl Setting for BTreeMap<String, String> {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let mut entries = Self::new();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').ok_or(Refusal::NOT_ALLOWED)?;
            let (name, value) = (name.trim(), value.trim());
            if name.is_empty() {
                return Err(Refusal::NOT_ALLOWED);
            }
            if entries.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(Refusal::because(format!("{name} is given twice")));
            }
        }
        *self = entries;
        Ok(())
    }

    fn show(&self) -> String {
        let pairs: Vec<String> =
            self.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(";")
    }

    fn allowed(&self, _: Bounds) -> String {
        "topic configs with their values, such as retention.ms=60000;cleanup.policy=delete"
            .to_owned()
    }

    fn toml(&self) -> Option<String> {
        let pairs: Vec<String> = self
            .iter()
            .map(|(name, value)| format!("{} = {}", toml_string(name), toml_string(value)))
            .collect();
        Some(if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) })
    }
}
