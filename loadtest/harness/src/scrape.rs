//! What the server counts, read from its `/metrics`: requests to the bucket and bytes.

use std::ops::Sub;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::http;

const LIMIT: Duration = Duration::from_secs(10);

/// What was asked of the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Objects and parts written, conditional or not.
    pub puts: u64,
    /// Reads.
    pub gets: u64,
    /// Pages of listings.
    pub lists: u64,
    /// Everything else.
    pub others: u64,
    /// Bytes of objects written.
    pub written_bytes: u64,
    /// Bytes of objects read.
    pub read_bytes: u64,
}

impl Sub for Bucket {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            puts: self.puts.saturating_sub(earlier.puts),
            gets: self.gets.saturating_sub(earlier.gets),
            lists: self.lists.saturating_sub(earlier.lists),
            others: self.others.saturating_sub(earlier.others),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
        }
    }
}

/// Asks a server for its counts.
///
/// # Errors
/// Words for the user: the address is none, nobody answers, or it is no server of ours.
pub(crate) async fn bucket(url: &str) -> Result<Bucket, String> {
    let text = timeout(LIMIT, get(url)).await.map_err(|_| format!("{url}: no answer in time"))?;
    parse(&text.map_err(|error| format!("{url}: {error}"))?)
        .ok_or_else(|| format!("{url}: these are no metrics of Sluice"))
}

async fn get(url: &str) -> std::io::Result<String> {
    match http::get(url).await? {
        (200, body) => Ok(body),
        (status, _) => Err(std::io::Error::other(format!("the answer has status {status}"))),
    }
}

fn parse(text: &str) -> Option<Bucket> {
    let mut bucket = Bucket::default();
    let mut any = false;
    for line in text.lines().filter(|line| line.starts_with("sluice_bucket_")) {
        let (name, value) = line.rsplit_once(' ')?;
        let Ok(value) = value.parse::<f64>() else { continue };
        let value = value as u64;
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let count = match (name, labels.trim_end_matches('}')) {
            ("sluice_bucket_requests_total", labels) => match labels {
                r#"op="put""# | r#"op="conditional_put""# | r#"op="part""# => &mut bucket.puts,
                r#"op="get""# => &mut bucket.gets,
                r#"op="list""# => &mut bucket.lists,
                _ => &mut bucket.others,
            },
            ("sluice_bucket_sent_bytes_total", _) => &mut bucket.written_bytes,
            ("sluice_bucket_received_bytes_total", _) => &mut bucket.read_bytes,
            _ => continue,
        };
        *count += value;
        any = true;
    }
    any.then_some(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_summed_by_what_they_cost() {
        let text = "# HELP sluice_bucket_requests x\n\
            sluice_bucket_requests_total{op=\"put\"} 3\n\
            sluice_bucket_requests_total{op=\"conditional_put\"} 4\n\
            sluice_bucket_requests_total{op=\"head\"} 1\n\
            sluice_bucket_requests_total{op=\"get\"} 10\n\
            sluice_bucket_requests_total{op=\"list\"} 2\n\
            sluice_bucket_request_seconds_sum{op=\"put\"} 0.5\n\
            sluice_bucket_sent_bytes_total 1000\n\
            sluice_bucket_received_bytes_total 77\n# EOF\n";
        let bucket = parse(text).expect("metrics");
        let expected =
            Bucket { puts: 7, gets: 10, lists: 2, others: 1, written_bytes: 1000, read_bytes: 77 };
        assert_eq!(bucket, expected);
        assert_eq!(bucket - expected, Bucket::default());
        assert_eq!(parse("something_else 1\n"), None);
    }
}
