//! How many requests are under way at once, and whose turn it is.
//!
//! The number adapts (AIMD): a throttled or timed-out request halves it, answered ones raise it by about
//! one in the time of a request. Foreground requests go first; background ones get what they leave, at
//! most half, and at least one after [`PATIENCE`]. Lock order: only the one here, never over an await.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::failure::{Crowded, Failure};
use crate::metrics::BucketMetrics;
use crate::options::Class;
use crate::pace::Pace;

/// The limit is never lower.
const LEAST: f64 = 2.0;
/// Requests of one class that may wait.
const MAX_WAITING: usize = 8192;
/// A background request that has waited so long goes before foreground ones, if no other is under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon a background request looks again whether the pace has a free place.
const BEHIND_PAUSE: Duration = Duration::from_millis(50);

/// The limits of one bucket.
#[derive(Debug)]
pub(crate) struct Limiter {
    state: Mutex<State>,
    most: f64,
    metrics: BucketMetrics,
}

#[derive(Debug)]
struct State {
    limit: f64,
    lowered: Option<Instant>,
    under_way: u32,
    background: u32,
    foreground_waits: VecDeque<Waiter>,
    background_waits: VecDeque<Waiter>,
    pace: Pace,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    turn: oneshot::Sender<Permit>,
}

/// A request may be under way while this lives.
#[derive(Debug)]
pub(crate) struct Permit {
    /// None once it is given back.
    limiter: Option<Arc<Limiter>>,
    class: Class,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter.take() {
            limiter.give_back(self.class);
        }
    }
}

impl State {
    fn has_room(&self, class: Class) -> bool {
        let limit = self.limit as u32;
        match class {
            Class::Foreground => self.under_way < limit,
            Class::Background => {
                self.under_way < limit
                    && self.background < (limit / 2).max(1)
                    && self.foreground_waits.is_empty()
            }
        }
    }

    fn start(&mut self, class: Class) {
        self.under_way += 1;
        self.background += u32::from(class == Class::Background);
    }

    /// Whose turn it is, if it is anybody's.
    fn next(&mut self, now: Instant) -> Option<(Class, Waiter)> {
        let patient = |waiter: &Waiter| now < waiter.since + PATIENCE;
        let overdue = self.background_waits.front().is_some_and(|waiter| !patient(waiter));
        if overdue && self.background == 0 && self.has_room(Class::Foreground) {
            return self.background_waits.pop_front().map(|waiter| (Class::Background, waiter));
        }
        if !self.foreground_waits.is_empty() {
            return match self.has_room(Class::Foreground) {
                true => self.foreground_waits.pop_front().map(|w| (Class::Foreground, w)),
                false => None,
            };
        }
        match self.has_room(Class::Background) {
            true => self.background_waits.pop_front().map(|w| (Class::Background, w)),
            false => None,
        }
    }
}

impl Limiter {
    pub(crate) fn new(most: u32, max_rate: Option<u32>, metrics: BucketMetrics) -> Arc<Self> {
        let most = f64::from(most.max(1)).max(LEAST);
        let state = State {
            limit: most,
            lowered: None,
            under_way: 0,
            background: 0,
            foreground_waits: VecDeque::new(),
            background_waits: VecDeque::new(),
            pace: Pace::new(Instant::now(), max_rate),
        };
        let limiter = Self { state: Mutex::new(state), most, metrics };
        limiter.show(&limiter.state.lock());
        Arc::new(limiter)
    }

    /// Waits for a turn, and then for the time at which the request may be made.
    pub(crate) async fn acquire(self: &Arc<Self>, class: Class) -> Result<Permit, Crowded> {
        let begun = Instant::now();
        let permit = self.turn(class).await?;
        loop {
            let (at, behind) = {
                let now = Instant::now();
                let mut state = self.state.lock();
                // In what is paced, the background takes no place in the queue of the foreground.
                let behind = class == Class::Background
                    && now < begun + PATIENCE
                    && state.pace.is_behind(now)
                    && state.under_way > state.background;
                let at = if behind { now + BEHIND_PAUSE } else { state.pace.take(now) };
                self.show(&state);
                (at, behind)
            };
            tokio::time::sleep_until(at).await;
            if !behind {
                return Ok(permit);
            }
        }
    }

    async fn turn(self: &Arc<Self>, class: Class) -> Result<Permit, Crowded> {
        let turn = {
            let mut state = self.state.lock();
            let nobody_before = state.foreground_waits.is_empty()
                && (class == Class::Foreground || state.background_waits.is_empty());
            if nobody_before && state.has_room(class) {
                state.start(class);
                return Ok(self.permit(class));
            }
            let queue = match class {
                Class::Foreground => &mut state.foreground_waits,
                Class::Background => &mut state.background_waits,
            };
            if queue.len() >= MAX_WAITING {
                return Err(Crowded);
            }
            let (turn, given) = oneshot::channel();
            queue.push_back(Waiter { since: Instant::now(), turn });
            self.show(&state);
            given
        };
        turn.await.map_err(|_| Crowded)
    }

    /// A permit without waiting, if nobody waits.
    pub(crate) fn try_acquire(self: &Arc<Self>, class: Class) -> Option<Permit> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let free = state.foreground_waits.is_empty()
            && state.has_room(class)
            && !state.pace.is_behind(now);
        if !free {
            return None;
        }
        state.start(class);
        state.pace.take(now);
        Some(self.permit(class))
    }

    fn permit(self: &Arc<Self>, class: Class) -> Permit {
        Permit { limiter: Some(Arc::clone(self)), class }
    }

    fn give_back(self: &Arc<Self>, class: Class) {
        let mut state = self.state.lock();
        state.under_way -= 1;
        state.background -= u32::from(class == Class::Background);
        let now = Instant::now();
        while let Some((class, waiter)) = state.next(now) {
            match waiter.turn.send(self.permit(class)) {
                Ok(()) => state.start(class),
                // Nobody waits there any more. The permit may not give itself back: we hold the lock.
                Err(mut unused) => unused.limiter = None,
            }
        }
        self.show(&state);
    }

    /// Learns from the end of a request that was made at `made`.
    pub(crate) fn learn(&self, failure: Option<Failure>, made: Instant) {
        let now = Instant::now();
        let mut state = self.state.lock();
        match failure {
            Some(failure @ (Failure::Throttled | Failure::TimedOut)) => {
                if failure == Failure::Throttled {
                    self.metrics.throttled.inc();
                    state.pace.lower(made, now);
                }
                if state.lowered.is_none_or(|at| made >= at) {
                    state.limit = (state.limit / 2.0).max(LEAST);
                    state.lowered = Some(now);
                }
            }
            // Only what uses the limit is a reason to raise it.
            None if f64::from(state.under_way) * 2.0 >= state.limit => {
                state.limit = (state.limit + 1.0 / state.limit).min(self.most);
            }
            _ => {}
        }
        self.show(&state);
    }

    fn show(&self, state: &State) {
        let waiting = state.foreground_waits.len() + state.background_waits.len();
        self.metrics.under_way.set(i64::from(state.under_way));
        self.metrics.limit.set(state.limit as i64);
        self.metrics.rate.set(state.pace.rate().map_or(0, |rate| rate as i64));
        self.metrics.waiting.set(waiting as i64);
    }
}
