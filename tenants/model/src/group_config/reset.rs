//! `share.auto.offset.reset`.

use std::time::Duration;

/// Where a share group begins in a partition that it has not read (KIP-932).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetReset {
    /// At the first offset that exists.
    Earliest,
    /// At the high watermark.
    Latest,
    /// At the first record that is not older than this.
    ByDuration(Duration),
}

impl OffsetReset {
    /// `earliest`, `latest`, or `by_duration:` and a duration; letters in any case, as in Kafka.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        match text.as_str() {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            other => duration(other.strip_prefix("by_duration:")?).map(Self::ByDuration),
        }
    }
}

/// ISO 8601 as Java's `Duration.parse` takes it, in lower case: days, hours, minutes, seconds, each
/// with a sign of its own. A negative whole is refused.
fn duration(text: &str) -> Option<Duration> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let text = text.strip_prefix('p')?;
    let (date, time) = match text.split_once('t') {
        // A `t` promises a time.
        Some((_, "")) => return None,
        Some((date, time)) => (date, time),
        None if text.is_empty() => return None,
        None => (text, ""),
    };
    let mut total_ns = units(date, &[('d', 86_400)])?;
    total_ns = total_ns.checked_add(units(time, &[('h', 3_600), ('m', 60), ('s', 1)])?)?;
    if negative {
        total_ns = -total_ns;
    }
    let seconds = u64::try_from(total_ns.div_euclid(NS)).ok()?;
    let nanos = u32::try_from(total_ns.rem_euclid(NS)).ok()?;
    // What does not fit into Kafka's milliseconds is no duration that anything can be older than.
    (seconds <= i64::MAX as u64 / 1000).then(|| Duration::new(seconds, nanos))
}

const NS: i128 = 1_000_000_000;

/// Numbers with their units, each unit at most once and in this order, in nanoseconds.
fn units(mut text: &str, mut units: &[(char, i128)]) -> Option<i128> {
    let mut total = 0i128;
    while !text.is_empty() {
        let end = text.find(|c: char| c.is_ascii_lowercase())?;
        let letter = text[end..].chars().next()?;
        let at = units.iter().position(|(unit, _)| *unit == letter)?;
        let ns = number(&text[..end], letter == 's')?.checked_mul(units[at].1)?;
        total = total.checked_add(ns)?;
        units = &units[at + 1..];
        text = &text[end + 1..];
    }
    Some(total)
}

/// A signed number times 10^9; with up to nine decimals where they are allowed.
fn number(text: &str, decimals: bool) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = match digits.split_once(['.', ',']) {
        Some((whole, fraction)) if decimals && fraction.len() <= 9 => (whole, fraction),
        Some(_) => return None,
        None => (digits, ""),
    };
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole = i128::from(whole.parse::<i64>().ok()?) * NS;
    let fraction: i128 = format!("{fraction:0<9}").parse().ok()?;
    Some(sign * (whole + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_java() {
        let day = 86_400_000;
        for (text, ms) in [
            ("PT20.345S", 20_345),
            ("PT15M", 900_000),
            ("PT10H", 36_000_000),
            ("P2D", 2 * day),
            ("P2DT3H4M", 2 * day + 11_040_000),
            ("pt-6h3m", -1),
            ("PT6H-3M", 21_420_000),
            ("-PT-6H+3M", 21_420_000),
            ("PT0S", 0),
            ("P1DT1,5S", day + 1_500),
        ] {
            let expected = u64::try_from(ms).ok().map(Duration::from_millis);
            let found = OffsetReset::parse(&format!("by_duration:{text}"));
            assert_eq!(found, expected.map(OffsetReset::ByDuration), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1DT",
            "1D",
            "PD",
            "PT1.5H",
            "PT1S1H",
            "P1Y",
            "-PT1S",
            "PT1.0123456789S",
            "P1D1D",
            "PT1",
            "P99999999999999999999D",
            "P106751991167301D",
            "PT\u{e9}S",
        ] {
            assert_eq!(OffsetReset::parse(&format!("by_duration:{text}")), None, "{text}");
        }
    }

    #[test]
    fn the_words_are_taken_in_any_case() {
        assert_eq!(OffsetReset::parse("Earliest"), Some(OffsetReset::Earliest));
        assert_eq!(OffsetReset::parse("latest"), Some(OffsetReset::Latest));
        assert_eq!(OffsetReset::parse("none"), None);
    }
}
