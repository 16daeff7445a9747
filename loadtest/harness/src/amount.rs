//! Amounts in workloads and reports as people write them: `1KiB`, `30s`, `80MiB/s`, `5000/s`. Each
//! reads and shows by the same rules as in the server's configuration.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_model::units::{parse_size, parse_time, show_size, show_time};

/// Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

/// A span of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub Duration);

/// How much is produced in a second, over all producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Rate {
    /// As fast as it goes: the next record is due when there is room for it. Latencies are then those of
    /// a closed loop, and say little about a service that is not saturated.
    Max,
    /// Bytes of record values.
    Bytes(u64),
    /// Records.
    Records(u64),
}

impl Rate {
    /// Records a second, for records of this size; none for [`Rate::Max`].
    pub fn records_per_second(self, record_bytes: u64) -> Option<f64> {
        match self {
            Self::Max => None,
            Self::Bytes(bytes) => Some(bytes as f64 / record_bytes as f64),
            Self::Records(records) => Some(records as f64),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self).ok_or_else(|| {
            format!("\"{text}\" is no size: write a whole number and B, KiB, MiB or GiB")
        })
    }
}

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_time(text).map(Self).ok_or_else(|| {
            format!("\"{text}\" is no time: write a whole number and ms, s, m, h or d")
        })
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = match text.strip_suffix("/s") {
            None if text == "max" => Some(Self::Max),
            None => None,
            Some(amount) if amount.chars().all(|c| c.is_ascii_digit()) => {
                amount.parse().ok().map(Self::Records)
            }
            Some(amount) => parse_size(amount).map(Self::Bytes),
        };
        rate.ok_or_else(|| format!("\"{text}\" is no rate: write 80MiB/s, 5000/s (records) or max"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show_size(self.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&show_time(self.0))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.pad("max"),
            Self::Bytes(bytes) => f.pad(&format!("{}/s", show_size(*bytes))),
            Self::Records(records) => f.pad(&format!("{records}/s")),
        }
    }
}

macro_rules! as_text {
    ($($amount:ident)*) => {$(
        impl TryFrom<String> for $amount {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$amount> for String {
            fn from(amount: $amount) -> Self {
                amount.to_string()
            }
        }
    )*};
}

as_text!(Size Time Rate);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_and_show() {
        for (text, rate) in [
            ("max", Rate::Max),
            ("80MiB/s", Rate::Bytes(80 << 20)),
            ("5000/s", Rate::Records(5000)),
            ("0/s", Rate::Records(0)),
        ] {
            assert_eq!(text.parse(), Ok(rate));
            assert_eq!(rate.to_string(), text);
        }
        for text in ["", "5000", "80MiB", "/s", "-1/s", "80MB/s", "Max"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!(Rate::Bytes(1 << 20).records_per_second(1024), Some(1024.0));
        assert_eq!(Rate::Max.records_per_second(1024), None);
    }
}
