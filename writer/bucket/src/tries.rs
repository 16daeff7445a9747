//! One operation: as many tries as the policy allows.

use std::sync::Arc;
use std::time::Duration;

use object_store::{Error, ObjectStore, Result};
use sluice_model::Entropy;
use tokio::time::{Instant, timeout};

use crate::budget::Budget;
use crate::failure::{Failure, TimedOut, ours};
use crate::hedge::Latencies;
use crate::limit::{Limiter, Permit};
use crate::metrics::{BucketMetrics, Op};
use crate::options::{BucketOptions, Class};

/// Of so many per cent of operations a retry may be made.
const RETRY_PERCENT: u32 = 20;
/// Retries that a quiet time saves up.
const RETRY_BURST: u32 = 20;
/// Hedges that a quiet time saves up.
const HEDGE_BURST: u32 = 4;
/// The first pause before a retry is random up to this; each further one up to twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The same after the store has throttled.
const FIRST_THROTTLED_PAUSE: Duration = Duration::from_millis(200);
/// Pauses are never longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the handles of one bucket share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inner: Arc<dyn ObjectStore>,
    pub(crate) options: BucketOptions,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) metrics: BucketMetrics,
    pub(crate) latencies: Latencies,
    pub(crate) hedges: Budget,
    retries: Budget,
    entropy: Seam,
}

/// Randomness, which does not show itself.
struct Seam(Arc<dyn Entropy>);

impl std::fmt::Debug for Seam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

/// How an operation may be tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries {
    pub(crate) op: Op,
    pub(crate) class: Class,
    /// What one try may take.
    pub(crate) timeout: Duration,
    /// Whether it may be made again when it is not known what became of the first.
    pub(crate) repeatable: bool,
}

/// Where an operation is in its tries.
#[derive(Debug)]
pub(crate) struct Course {
    retries: u32,
    deadline: Instant,
}

impl Course {
    /// An operation that has been tried before, by somebody else's count.
    pub(crate) fn resumed(retries: u32, deadline: Instant) -> Self {
        Self { retries, deadline }
    }
}

impl Shared {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        options: BucketOptions,
        entropy: Arc<dyn Entropy>,
        metrics: BucketMetrics,
    ) -> Self {
        let limiter = Limiter::new(options.max_requests, options.max_rate, metrics.clone());
        Self {
            inner,
            options,
            limiter,
            metrics,
            latencies: Latencies::default(),
            hedges: Budget::new(options.hedge_percent, HEDGE_BURST),
            retries: Budget::new(RETRY_PERCENT, RETRY_BURST),
            entropy: Seam(entropy),
        }
    }

    /// Runs an operation. Dropping it gives back what it holds.
    pub(crate) async fn run<T, F>(&self, how: Tries, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut course = self.begin();
        loop {
            let permit = self.limiter.acquire(how.class).await.map_err(ours)?;
            match self.try_once(how, permit, attempt()).await {
                Ok(done) => return Ok(done),
                Err(error) => self.after(how.repeatable, error, &mut course).await?,
            }
        }
    }

    /// An operation begins.
    pub(crate) fn begin(&self) -> Course {
        self.retries.pay_in();
        Course { retries: 0, deadline: Instant::now() + self.options.deadline }
    }

    /// One request, counted and timed.
    pub(crate) async fn try_once<T>(
        &self,
        how: Tries,
        permit: Permit,
        attempt: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let made = Instant::now();
        self.metrics.request(how.op);
        let done = match timeout(how.timeout, attempt).await {
            Ok(done) => done,
            Err(_) => {
                let after_ms = u64::try_from(how.timeout.as_millis()).unwrap_or(u64::MAX);
                Err(ours(TimedOut { after_ms }))
            }
        };
        let failure = done.as_ref().err().map(Failure::of);
        self.limiter.learn(failure, made);
        drop(permit);
        match failure {
            Some(kind) => self.metrics.failure(kind),
            None => self.metrics.took(how.op, made.elapsed().as_secs_f64()),
        }
        done
    }

    /// After a failed try: waits and returns if there may be another; else gives the error.
    pub(crate) async fn after(
        &self,
        repeatable: bool,
        error: Error,
        course: &mut Course,
    ) -> Result<()> {
        let failure = Failure::of(&error);
        let may = failure.may_pass() && (repeatable || failure.without_effect());
        if !may || course.retries >= self.options.max_retries {
            return Err(error);
        }
        let pause = self.pause(failure, course.retries);
        if Instant::now() + pause >= course.deadline {
            return Err(error);
        }
        if !self.retries.take() {
            self.metrics.retries_refused.inc();
            return Err(error);
        }
        course.retries += 1;
        self.metrics.retries.inc();
        tracing::debug!(%error, retry = course.retries, "a request to the bucket is made again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Full jitter: anything up to a bound that doubles.
    fn pause(&self, failure: Failure, retries: u32) -> Duration {
        let first = match failure {
            Failure::Throttled => FIRST_THROTTLED_PAUSE,
            _ => FIRST_PAUSE,
        };
        let bound = first.saturating_mul(1 << retries.min(16)).min(LONGEST_PAUSE);
        let bound_us = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.entropy.0.random_u64() % bound_us.max(1))
    }
}
