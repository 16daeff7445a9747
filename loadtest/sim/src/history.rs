//! What happened in a run, in order: hashed, so that two runs can be compared, with the last events kept
//! for the report of a failure.
//!
//! Everyone writes to it; nobody in the simulation reads it. A violation of an invariant is an event,
//! too, and ends the run.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// How many events a report shows.
const TAIL: usize = 80;
/// FNV-1a, 64 bits: enough to tell two histories apart that nobody chose to be alike.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a of some bytes, going on from `hash`.
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// FNV-1a of some bytes.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    fnv(FNV_BASIS, bytes)
}

#[derive(Debug)]
struct State {
    hash: u64,
    events: u64,
    tail: VecDeque<String>,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<String>,
    /// The director's time; a host's own is finer.
    now: Duration,
    print: bool,
}

/// A handle to the history. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct History(Arc<Mutex<State>>);

/// What is left of a history when it has ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Of all events.
    pub hash: u64,
    /// How many there were.
    pub events: u64,
    /// How many of each kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// The last ones.
    pub tail: Vec<String>,
    /// The first invariant that was found broken, if any was.
    pub violation: Option<String>,
}

impl History {
    pub(crate) fn new(print: bool) -> Self {
        Self(Arc::new(Mutex::new(State {
            hash: FNV_BASIS,
            events: 0,
            tail: VecDeque::with_capacity(TAIL),
            counts: BTreeMap::new(),
            violation: None,
            now: Duration::ZERO,
            print,
        })))
    }

    /// The director's time moves on.
    pub(crate) fn at(&self, now: Duration) {
        self.0.lock().now = now;
    }

    /// Something happened; `kind` is what is counted.
    pub(crate) fn event(&self, kind: &'static str, what: fmt::Arguments<'_>) {
        let inside = turmoil::sim_elapsed();
        let mut state = self.0.lock();
        let now = inside.unwrap_or(state.now);
        let line = format!("{:>9.3} {kind}: {what}", now.as_secs_f64());
        state.hash = fnv(state.hash, line.as_bytes());
        state.events += 1;
        *state.counts.entry(kind).or_default() += 1;
        if state.print {
            print_line(&line);
        }
        if state.tail.len() == TAIL {
            state.tail.pop_front();
        }
        state.tail.push_back(line);
    }

    /// An invariant is broken. The first one counts.
    pub(crate) fn violation(&self, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        self.event("VIOLATION", what);
        self.0.lock().violation.get_or_insert(text);
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.0.lock().violation.is_some()
    }

    /// How often this kind of event happened.
    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.0.lock().counts.get(kind).copied().unwrap_or(0)
    }

    pub(crate) fn summary(&self) -> Summary {
        let state = self.0.lock();
        Summary {
            hash: state.hash,
            events: state.events,
            counts: state.counts.clone(),
            tail: state.tail.iter().cloned().collect(),
            violation: state.violation.clone(),
        }
    }
}

#[expect(clippy::print_stdout, reason = "--trace prints the history")]
fn print_line(line: &str) {
    println!("{line}");
}
