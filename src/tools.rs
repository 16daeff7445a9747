//! What operators do to a cluster's data while it is not served: look at it, check it, bring it back.
//!
//! `inspect` and `verify` change nothing (but for `verify --repair`, which deletes orphans). They read what
//! the server wrote by the server's own format code, and own no state.

pub(crate) mod inspect_segment;
pub(crate) mod inspect_volume;
mod place;
mod progress;
pub(crate) mod restore;
mod segment;
pub(crate) mod table;
pub(crate) mod verify;

use std::future::Future;
use std::process::ExitCode;

use clap::ValueEnum;

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON value.
    Json,
}

/// How a tool has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is wrong.
    Clean,
    /// Something is, and was told.
    Findings,
    /// The work could not be done to its end; what was done was told.
    Incomplete,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Clean => Self::SUCCESS,
            Verdict::Findings => Self::from(1),
            Verdict::Incomplete => Self::from(3),
        }
    }
}

/// Runs a tool to its end. What kept it from its work is an error on stderr, and code 2.
pub(crate) fn run(tool: impl Future<Output = anyhow::Result<Verdict>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(tool);
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Writes an answer. A reader that has gone away is no failure of ours.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

/// Bytes for people: `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10).min(6);
    let whole = bytes as f64 / 2f64.powi(10 * power as i32);
    format!("{whole:.1} {}", UNITS[power as usize - 1])
}

/// A time in ms since the epoch for people, in UTC: `2026-11-22 20:21:38Z`.
pub(crate) fn time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The civil calendar from days since 1970: eras of 400 years that begin on 1 March, so that a leap
    // day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_for_people() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        // Checked with `date -u -d @SECONDS`.
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_399_999), "2000-02-28 23:59:59Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_795_378_898_000), "2026-11-22 20:21:38Z");
        assert_eq!(time(-1), "1969-12-31 23:59:59Z");
    }
}
