//! How old the oldest record that is only on the volume may become.
//!
//! Each segment costs two PUTs, so the less there is to upload, the longer it waits: a volume that gets
//! next to nothing makes a segment every `upload_max_age_idle` (at the default of one minute: 2880 PUTs a
//! day), one with a few MiB to upload makes one every `upload_max_age`.
//! Readers that follow the bucket ask for what they need, and so do topics whose records may not wait for
//! compaction; an ask holds until it expires.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::options::WriterOptions;

/// So little waits for `upload_max_age_idle`; twice as much for half of that.
const TINY_BYTES: u64 = 64 << 10;
/// An ask for less than this is taken as this.
const SHORTEST: Duration = Duration::from_millis(100);
/// Asks that are kept; each is fresher and expires earlier than the next.
const ASKS_KEPT: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Ask {
    max_age: Duration,
    until: Instant,
}

/// What readers have asked of one volume.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    asks: Mutex<Vec<Ask>>,
    changed: Notify,
}

impl Freshness {
    /// Asks that nothing waits for longer than `max_age` on the volume alone, until `until`.
    pub(crate) fn ask(&self, max_age: Duration, until: Instant) {
        let max_age = max_age.max(SHORTEST);
        let mut asks = self.asks.lock();
        if asks.iter().any(|known| known.max_age <= max_age && known.until >= until) {
            return;
        }
        asks.retain(|known| known.max_age < max_age || known.until > until);
        // Full: the least demanding one goes, or rather is not taken.
        if asks.len() < ASKS_KEPT {
            asks.push(Ask { max_age, until });
        }
        drop(asks);
        self.changed.notify_one();
    }

    /// The same for `valid_for` from now on, by one who says so again and again: little is done each time.
    pub(crate) fn keep(&self, max_age: Duration, valid_for: Duration) {
        let now = Instant::now();
        let max_age = max_age.max(SHORTEST);
        let asked = |ask: &Ask| ask.max_age <= max_age && ask.until >= now + valid_for / 2;
        if !self.asks.lock().iter().any(asked) {
            self.ask(max_age, now + valid_for);
        }
    }

    /// The age that counts now, for `waiting_bytes` that no upload has taken yet.
    pub(crate) fn max_age(&self, waiting_bytes: u64, options: &WriterOptions) -> Duration {
        let now = Instant::now();
        let asked = {
            let mut asks = self.asks.lock();
            asks.retain(|ask| ask.until > now);
            asks.iter().map(|ask| ask.max_age).min()
        };
        let unasked = unasked(waiting_bytes, options);
        asked.map_or(unasked, |asked| asked.min(unasked))
    }

    /// Returns after the next ask that changes something. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// How long so many bytes may wait when nobody asks for them.
fn unasked(bytes: u64, options: &WriterOptions) -> Duration {
    let part = TINY_BYTES as f64 / bytes.max(TINY_BYTES) as f64;
    options.upload_max_age_idle.mul_f64(part).max(options.upload_max_age)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn options() -> WriterOptions {
        WriterOptions {
            upload_max_age: 10 * SECOND,
            upload_max_age_idle: 600 * SECOND,
            ..WriterOptions::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_less_there_is_the_longer_it_waits() {
        let freshness = Freshness::default();
        let age = |bytes| freshness.max_age(bytes, &options());
        assert_eq!(age(0), 600 * SECOND);
        assert_eq!(age(64 << 10), 600 * SECOND);
        assert_eq!(age(640 << 10), 60 * SECOND);
        assert_eq!(age(32 << 20), 10 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_freshest_ask_counts_until_it_expires() {
        let freshness = Freshness::default();
        let now = Instant::now();
        freshness.ask(5 * SECOND, now + 30 * SECOND);
        freshness.ask(SECOND, now + 10 * SECOND);
        freshness.ask(7 * SECOND, now + 20 * SECOND);
        let age = || freshness.max_age(1, &options());
        assert_eq!(age(), SECOND);
        tokio::time::advance(11 * SECOND).await;
        assert_eq!(age(), 5 * SECOND);
        tokio::time::advance(20 * SECOND).await;
        assert_eq!(age(), 600 * SECOND);
        freshness.ask(Duration::ZERO, now + 99 * SECOND);
        assert_eq!(age(), SHORTEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_asked_again_when_half_its_time_is_over() {
        let freshness = Freshness::default();
        let keep = || freshness.keep(SECOND, 10 * SECOND);
        let untils = || freshness.asks.lock().iter().map(|ask| ask.until).collect::<Vec<_>>();
        keep();
        let first = untils();
        tokio::time::advance(4 * SECOND).await;
        keep();
        assert_eq!(untils(), first);
        tokio::time::advance(2 * SECOND).await;
        keep();
        assert_eq!(untils(), [first[0] + 6 * SECOND]);
    }

    #[tokio::test(start_paused = true)]
    async fn asks_are_bounded() {
        let freshness = Freshness::default();
        let now = Instant::now();
        for n in 1..1000 {
            freshness.ask(n * SECOND, now + n * SECOND);
        }
        assert!(freshness.asks.lock().len() <= ASKS_KEPT);
        assert_eq!(freshness.max_age(1, &options()), SECOND);
    }
}
