//! Sizes and times as people write them: `64MiB`, `500ms`. Each is a whole number and one unit;
//! what is shown reads back as the same value.

use std::time::Duration;

/// Bytes in a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;
/// Bytes in a TiB.
pub const TIB: u64 = 1 << 40;

/// Milliseconds in a second.
pub const SECOND: u64 = 1_000;
/// Milliseconds in a minute.
pub const MINUTE: u64 = 60 * SECOND;
/// Milliseconds in an hour.
pub const HOUR: u64 = 60 * MINUTE;
/// Milliseconds in a day.
pub const DAY: u64 = 24 * HOUR;

/// Largest first, so that showing finds the largest that divides.
const SIZES: [(&str, u64); 5] = [("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB), ("B", 1)];
const TIMES: [(&str, u64); 5] = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", 1)];

/// Bytes. A bare number is bytes; units are read in either case.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// The shortest exact form.
pub fn show_size(bytes: u64) -> String {
    show(bytes, &SIZES, "B")
}

/// A time. The unit must be there: a bare number could be seconds or milliseconds.
pub fn parse_time(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor).map(Duration::from_millis)
}

/// The shortest exact form, to the millisecond.
pub fn show_time(time: Duration) -> String {
    show(millis(time), &TIMES, "s")
}

/// Whole milliseconds.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn show(value: u64, units: &[(&str, u64)], zero: &str) -> String {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", value / factor),
        None => format!("0{zero}"),
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_show() {
        for (text, bytes, shown) in [
            ("0", 0, "0B"),
            ("17", 17, "17B"),
            ("64MiB", 64 * MIB, "64MiB"),
            ("64 mib", 64 * MIB, "64MiB"),
            ("1024KiB", MIB, "1MiB"),
            ("1536KiB", 1536 * KIB, "1536KiB"),
            ("2TiB", 2 * TIB, "2TiB"),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
            assert_eq!(parse_size(shown), Some(bytes));
        }
        for text in ["", "MiB", "-1", "1.5GiB", "64MB", "64 M", "1MiB ", "99999999TiB", "+1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn times_read_and_show() {
        for (text, ms, shown) in [
            ("0s", 0, "0s"),
            ("500ms", 500, "500ms"),
            ("10s", 10_000, "10s"),
            ("600s", 600_000, "10m"),
            ("90m", 90 * MINUTE, "90m"),
            ("7d", 7 * DAY, "7d"),
        ] {
            assert_eq!(parse_time(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_time(Duration::from_millis(ms)), shown);
            assert_eq!(parse_time(shown), Some(Duration::from_millis(ms)));
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1h30m", "10S", "999999999999999999d"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
