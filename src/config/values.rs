//! The types of values that only the configuration has. Each reads from text, and what it shows
//! reads back as the same value.

use std::fmt;
use std::path::PathBuf;

use super::setting::{Blank, Bounds, Choice, Refusal, Setting};
use sluice_model::units::show_size;

/// A host name or address, and a port, as clients are told them. IPv6 addresses have no brackets
/// in `host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Blank for HostPort {
    fn blank() -> Self {
        Self { host: String::new(), port: 0 }
    }
}

impl Setting for HostPort {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let (host, port) = text.rsplit_once(':').ok_or(Refusal::NOT_ALLOWED)?;
        let port: u16 = port.parse().map_err(|_| Refusal::NOT_ALLOWED)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match bracketed {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        };
        if !good || port == 0 {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = Self { host: bracketed.unwrap_or(host).to_owned(), port };
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn allowed(&self, _: Bounds) -> String {
        "a host and a port, such as kafka.example.com:9092".to_owned()
    }
}

/// RFC 1123, section 2.1: labels of letters, digits and hyphens, 253 characters in all. Underscores
/// too, because container networks use them.
fn is_host_name(host: &str) -> bool {
    host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// How large each new volume is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeSize {
    /// 1 GiB, or less when the disk is small.
    Auto,
    /// Bytes.
    Bytes(u64),
}

impl Setting for VolumeSize {
    fn set(&mut self, text: &str, bounds: Bounds) -> Result<(), Refusal> {
        if text == "auto" {
            *self = Self::Auto;
            return Ok(());
        }
        let mut bytes = 0_u64;
        Setting::set(&mut bytes, text, bounds)?;
        *self = Self::Bytes(bytes);
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Bytes(bytes) => show_size(*bytes),
        }
    }

    fn allowed(&self, bounds: Bounds) -> String {
        format!("auto, or {}", 0_u64.allowed(bounds))
    }
}

/// Where the bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BucketUrl {
    /// A local directory.
    Directory(PathBuf),
    /// An S3 bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// What every key begins with; empty, or without slashes at its ends.
        prefix: String,
    },
}

impl Blank for BucketUrl {
    fn blank() -> Self {
        Self::Directory(PathBuf::new())
    }
}

impl Setting for BucketUrl {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        if text.contains('@') {
            return Err(Refusal::secret(NO_CREDENTIALS_IN_URLS));
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('\0') {
                return Err(Refusal::NOT_ALLOWED);
            }
            *self = Self::Directory(PathBuf::from(path));
            return Ok(());
        }
        let rest = text.strip_prefix("s3://").ok_or(Refusal::NOT_ALLOWED)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket_name(bucket) {
            return Err(Refusal::because(
                "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens",
            ));
        }
        let prefix = prefix.trim_matches('/');
        if prefix.contains(['?', '#', '\0'])
            || prefix.split('/').any(|part| part == "." || part == "..")
            || prefix.contains("//")
        {
            return Err(Refusal::because("the prefix must be plain names with / between"));
        }
        *self = Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Directory(path) => format!("file:{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => format!("s3://{bucket}"),
            Self::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
        }
    }

    fn allowed(&self, _: Bounds) -> String {
        "file:PATH or s3://BUCKET/PREFIX".to_owned()
    }
}

const NO_CREDENTIALS_IN_URLS: &str = "holds an @, as URLs with credentials do: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY \
     in the environment instead";

/// S3's rules for names of general purpose buckets, without its reserved prefixes.
fn is_bucket_name(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && !name.contains("..")
}

/// The address of an S3 service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(crate) String);

impl Endpoint {
    /// Whether it is spoken to without TLS.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }
}

impl Blank for Endpoint {
    fn blank() -> Self {
        Self(String::new())
    }
}

impl Setting for Endpoint {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        if text.contains('@') {
            return Err(Refusal::secret(NO_CREDENTIALS_IN_URLS));
        }
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let host = rest.ok_or(Refusal::NOT_ALLOWED)?;
        if host.is_empty() || host.contains(['?', '#', ' ', '\0']) {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = Self(text.trim_end_matches('/').to_owned());
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn allowed(&self, _: Bounds) -> String {
        "a URL, such as https://s3.eu-central-1.amazonaws.com".to_owned()
    }
}

/// An S3 region's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region(pub(crate) String);

impl Blank for Region {
    fn blank() -> Self {
        Self(String::new())
    }
}

impl Setting for Region {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let good = text.len() <= 64
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !good {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = Self(text.to_owned());
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn allowed(&self, _: Bounds) -> String {
        "a region's name, such as eu-central-1".to_owned()
    }
}

/// What is logged: a level, and levels of single modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogFilter(pub(crate) String);

impl LogFilter {
    const LEVELS: [&'static str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
}

impl Setting for LogFilter {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        // tracing would take a misspelled level for the name of a module, and log all of it.
        let good = text.split(',').all(|part| match part.split_once('=') {
            Some((module, level)) => {
                !module.is_empty()
                    && module.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:".contains(&b))
                    && Self::LEVELS.contains(&level)
            }
            None => Self::LEVELS.contains(&part),
        });
        if !good {
            return Err(Refusal::NOT_ALLOWED);
        }
        *self = Self(text.to_owned());
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn allowed(&self, _: Bounds) -> String {
        "off, error, warn, info, debug or trace, also for single modules: info,sluice_writer=debug"
            .to_owned()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines: one object a line.
    Json,
}

impl Choice for LogFormat {
    const ALL: &[(&str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}
