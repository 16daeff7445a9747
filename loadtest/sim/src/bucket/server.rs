//! The store's side: objects that outlive every host, and the faults of their service.
//!
//! Always: a request takes effect at one moment, whole or not at all, and whoever asks later sees it, as
//! S3 promises. What a fault changes is whether and when it takes effect, whether the caller hears of
//! it, and, for a read, which bytes arrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Answer, Ask, BucketService, Listed};
use crate::check::BucketCheck;
use crate::history::{History, fingerprint};
use crate::net::Caller;
use crate::random::Random;

/// How the bucket misbehaves from now on. Chances are per mille of requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BucketFaults {
    /// Nothing is done, and nobody answers.
    pub(crate) silent: bool,
    /// 503, nothing is done.
    pub(crate) busy: u32,
    /// It is done, and 500 is answered.
    pub(crate) broken: u32,
    /// It is done, and no answer is sent.
    pub(crate) lost: u32,
    /// It is done, but only after up to 6 s: the caller has given up by then.
    pub(crate) late: u32,
    /// It is done, and answered late, but in time.
    pub(crate) slow: u32,
    /// A read gets bytes with a bit flipped.
    pub(crate) wrong: u32,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Bytes>,
    random: Random,
    faults: BucketFaults,
}

/// The store.
#[derive(Clone, Debug)]
pub(crate) struct BucketServer {
    state: Arc<Mutex<State>>,
    check: Arc<Mutex<BucketCheck>>,
    history: History,
}

impl BucketServer {
    pub(crate) fn new(random: Random, check: Arc<Mutex<BucketCheck>>, history: History) -> Self {
        let state = State { objects: BTreeMap::new(), random, faults: BucketFaults::default() };
        Self { state: Arc::new(Mutex::new(state)), check, history }
    }

    pub(crate) fn set_faults(&self, faults: BucketFaults) {
        self.state.lock().faults = faults;
    }

    /// Serves on this host for ever.
    pub(crate) async fn run(self, service: BucketService) -> std::io::Result<()> {
        let handler = |ask, caller| self.clone().handle(ask, caller);
        service.serve(handler).await
    }

    async fn handle(self, ask: Ask, caller: Caller<Answer>) {
        let (faults, late, slow, chances) = {
            let mut state = self.state.lock();
            let faults = state.faults;
            let late = state.random.ms(500, 6000);
            let slow = state.random.ms(20, 800);
            let chances: [bool; 6] =
                [faults.busy, faults.broken, faults.lost, faults.late, faults.slow, faults.wrong]
                    .map(|chance| state.random.per_mille(chance));
            (faults, late, slow, chances)
        };
        let [busy, broken, lost, is_late, is_slow, wrong] = chances;
        if faults.silent {
            self.history.event("bucket-silent", format_args!("{}", name(&ask)));
            return;
        }
        if busy {
            self.history.event("bucket-503", format_args!("{}", name(&ask)));
            return caller.answer(Answer::Busy).await;
        }
        if is_late {
            self.history.event("bucket-late", format_args!("{} by {late:?}", name(&ask)));
            tokio::time::sleep(late).await;
        }
        let what = name(&ask);
        let answer = self.perform(ask, wrong);
        if broken {
            self.history.event("bucket-500", format_args!("{what}"));
            return caller.answer(Answer::Broken).await;
        }
        if lost {
            self.history.event("bucket-lost-answer", format_args!("{what}"));
            return;
        }
        if is_slow {
            self.history.event("bucket-slow", format_args!("{what} by {slow:?}"));
            tokio::time::sleep(slow.max(Duration::from_millis(1))).await;
        }
        caller.answer(answer).await;
    }

    /// What the request does, at this moment.
    fn perform(&self, ask: Ask, wrong: bool) -> Answer {
        let mut state = self.state.lock();
        match ask {
            Ask::Put { key, bytes, create } => {
                let old = state.objects.get(&key);
                if create && old.is_some() {
                    self.history.event("put-exists", format_args!("{key}"));
                    return Answer::Exists;
                }
                let etag = fingerprint(&bytes);
                self.history.event("put", format_args!("{key} {} {etag:016x}", bytes.len()));
                self.check.lock().put(&key, &bytes, old, &state.objects);
                state.objects.insert(key, bytes);
                Answer::Done { etag }
            }
            Ask::Get { key, range, head } => {
                let Some(object) = state.objects.get(&key).cloned() else {
                    return Answer::Missing;
                };
                let (size, etag) = (object.len() as u64, fingerprint(&object));
                let range = range.map_or(Ok(0..size), |range| range.as_range(size));
                let Ok(range) = range else { return Answer::BadRange };
                let mut bytes = object.slice(range.start as usize..range.end as usize);
                if head {
                    bytes = Bytes::new();
                } else if wrong && !bytes.is_empty() {
                    let bit = state.random.below(bytes.len() as u64 * 8);
                    self.history.event("bucket-wrong-bytes", format_args!("{key} bit {bit}"));
                    let mut damaged = bytes.to_vec();
                    damaged[(bit / 8) as usize] ^= 1 << (bit % 8);
                    bytes = damaged.into();
                }
                self.history.event("get", format_args!("{key} {range:?}"));
                Answer::Object { listed: Listed { key, size, etag }, start: range.start, bytes }
            }
            Ask::Delete { key } => {
                self.history.event("delete", format_args!("{key}"));
                self.check.lock().delete(&key);
                state.objects.remove(&key);
                Answer::Done { etag: 0 }
            }
            Ask::List { prefix } => {
                self.history.event("list", format_args!("{prefix}"));
                let under = state.objects.range(prefix.clone()..);
                let under = under.take_while(|(key, _)| key.starts_with(&prefix));
                let listing = under.map(|(key, bytes)| Listed {
                    key: key.clone(),
                    size: bytes.len() as u64,
                    etag: fingerprint(bytes),
                });
                Answer::Listing(listing.collect())
            }
        }
    }
}

fn name(ask: &Ask) -> String {
    match ask {
        Ask::Put { key, bytes, create: true } => format!("create {key} {}", bytes.len()),
        Ask::Put { key, bytes, create: false } => format!("put {key} {}", bytes.len()),
        Ask::Get { key, .. } => format!("get {key}"),
        Ask::Delete { key } => format!("delete {key}"),
        Ask::List { prefix } => format!("list {prefix}"),
    }
}
