//! Requests a second: unbounded until the store throttles, then halved, and raised step by step back to
//! where it throttled, and beyond. Pure: time is given.

use std::time::Duration;

use tokio::time::Instant;

/// Fewer a second are never aimed at: with retries' growing pauses, that is slow enough.
const LEAST: f64 = 5.0;
/// How often the rate is raised, and how soon after one decrease the next one may come.
const STEP: Duration = Duration::from_secs(1);
/// So many steps lead back to where the store has throttled last.
const STEPS_BACK: f64 = 20.0;
/// Beyond it the rate grows by one part in so many each step: what the store takes may have changed.
const STEPS_BEYOND: f64 = 10.0;
/// A rate that is so many times what is asked for binds nobody and is forgotten.
const SLACK: f64 = 4.0;

/// When the next request may be made.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Requests a second; none: as they come.
    rate: Option<f64>,
    /// What it may not pass.
    most: Option<f64>,
    /// Where the store has throttled last.
    ceiling: f64,
    /// The next request's time, when there is a rate.
    next: Instant,
    /// When the rate was changed last.
    changed: Instant,
    /// When it was lowered last.
    lowered: Option<Instant>,
    /// Requests in the second that began at `second`, and in the one before.
    second: Instant,
    count: f64,
    before: f64,
}

impl Pace {
    pub(crate) fn new(now: Instant, max_rate: Option<u32>) -> Self {
        let most = max_rate.map(f64::from);
        Self {
            rate: most,
            most,
            ceiling: 0.0,
            next: now,
            changed: now,
            lowered: None,
            second: now,
            count: 0.0,
            before: 0.0,
        }
    }

    /// The rate now.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Whether a request would have to wait.
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        self.rate.is_some() && self.next > now
    }

    /// Takes a place: the request may be made at the time that this gives.
    pub(crate) fn take(&mut self, now: Instant) -> Instant {
        self.raise(now);
        self.roll(now);
        self.count += 1.0;
        let Some(rate) = self.rate else {
            return now;
        };
        let at = self.next.max(now);
        self.next = at + Duration::from_secs_f64(1.0 / rate);
        at
    }

    /// The store has refused a request that was made at `made`. Gives whether the rate was lowered:
    /// refusals of what was under way at the last time say nothing new.
    pub(crate) fn lower(&mut self, made: Instant, now: Instant) -> bool {
        if self.lowered.is_some_and(|at| made < at || now < at + STEP) {
            return false;
        }
        self.roll(now);
        let asked = self.count.max(self.before);
        let was = self.rate.map_or(asked, |rate| rate.min(asked.max(LEAST)));
        self.ceiling = was;
        self.rate = Some((was / 2.0).max(LEAST));
        self.lowered = Some(now);
        self.changed = now;
        true
    }

    fn raise(&mut self, now: Instant) {
        let Some(lowered) = self.lowered else {
            return;
        };
        let asked = self.count.max(self.before);
        while let Some(rate) = self.rate
            && now >= self.changed + STEP
        {
            self.changed += STEP;
            let beyond = if rate < self.ceiling { 0.0 } else { rate / STEPS_BEYOND };
            let raised = rate + (self.ceiling / STEPS_BACK).max(beyond).max(1.0);
            let idle = raised > SLACK * asked.max(self.ceiling).max(LEAST);
            self.rate = match self.most {
                Some(most) => Some(raised.min(most)),
                None if idle && now > lowered + STEP => None,
                None => Some(raised),
            };
            if self.most == self.rate {
                self.changed = now;
            }
        }
    }

    fn roll(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.second);
        if since >= STEP {
            self.before = if since < 2 * STEP { self.count } else { 0.0 };
            self.count = 0.0;
            self.second = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes `quota` requests a second, asked as often as the pace allows. Gives the
    /// share of requests refused, and those served a second, once it has settled.
    fn against(quota: f64, seconds: u64) -> (f64, f64) {
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds);
        let mut pace = Pace::new(begun, None);
        let (mut now, mut second, mut served_now) = (begun, begun, 0.0);
        let (mut served, mut refused) = (0.0, 0.0);
        while now < end {
            // Demand: 1000 a second.
            now = (now + Duration::from_millis(1)).max(pace.take(now));
            if now >= second + STEP {
                second = now;
                served_now = 0.0;
            }
            let settled = now > begun + Duration::from_secs(seconds / 2);
            if served_now < quota {
                served_now += 1.0;
                served += f64::from(u8::from(settled));
            } else {
                refused += f64::from(u8::from(settled));
                pace.lower(now, now);
            }
        }
        let half = seconds as f64 / 2.0;
        (refused / (refused + served), served / half)
    }

    #[test]
    fn finds_the_quota() {
        for quota in [20.0, 100.0, 400.0] {
            let (refused, served) = against(quota, 400);
            assert!(refused < 0.05, "quota {quota}: {refused} refused");
            assert!(served > 0.6 * quota, "quota {quota}: {served} a second");
        }
    }

    #[test]
    fn a_burst_of_refusals_counts_once() {
        let now = Instant::now();
        let mut pace = Pace::new(now, None);
        (0..100).for_each(|_| assert_eq!(pace.take(now), now));
        assert!(pace.lower(now, now));
        assert_eq!(pace.rate(), Some(50.0));
        (0..99).for_each(|_| assert!(!pace.lower(now, now)));
        assert_eq!(pace.rate(), Some(50.0));
    }

    #[test]
    fn a_rate_that_binds_nobody_is_forgotten() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now, None);
        (0..100).for_each(|_| assert_eq!(pace.take(now), now));
        pace.lower(now, now);
        for _ in 0..120 {
            now += STEP;
            pace.take(now);
        }
        assert_eq!(pace.rate(), None);
    }

    #[test]
    fn a_configured_rate_holds() {
        let now = Instant::now();
        let mut pace = Pace::new(now, Some(10));
        let last = (0..11).map(|_| pace.take(now)).last();
        assert_eq!(last.map(|at| at - now), Some(STEP));
    }
}
