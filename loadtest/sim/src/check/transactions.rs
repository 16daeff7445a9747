//! Invariant 1 over transactions: all of one is committed or all of it is aborted, in all its streams, as its
//! producer was told; what was not asked to be committed never is; a consumer of committed records is shown
//! nothing that is not; nothing hangs when all is done; and what readers are told to leave out is what was
//! aborted, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sluice_model::StreamId;
use sluice_wire::batch::{BatchView, Batches};

use crate::history::History;

/// The first byte pair of a marker's key behind its version says how it ended (Kafka's `ControlRecordType`).
const ABORT: [u8; 4] = [0, 0, 0, 0];
const COMMIT: [u8; 4] = [0, 0, 0, 1];
/// A batch is no larger.
const MOST_BYTES: usize = 1 << 24;

/// Who made a record, and its place among all that this producer made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Maker {
    pub(crate) producer: u32,
    pub(crate) number: i64,
}

impl Maker {
    /// As the record's value tells: `{producer}/{number}/...`.
    pub(crate) fn of(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value.get(..value.len().min(48))?).ok()?;
        let mut parts = text.split('/');
        Some(Self { producer: parts.next()?.parse().ok()?, number: parts.next()?.parse().ok()? })
    }
}

/// How far a transaction came, as its producer knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Came {
    /// Its producer has not asked for an end. It may never.
    #[default]
    Open,
    /// Asked for, and nobody knows whether it was heard.
    CommitAsked,
    /// Asked for, or told: it can only be aborted.
    AbortAsked,
    Committed,
}

#[derive(Clone, Debug, Default)]
struct Transaction {
    came: Came,
    /// Its records, by stream.
    records: BTreeMap<StreamId, BTreeSet<Maker>>,
}

/// What transactional producers did and consumers were shown.
#[derive(Debug)]
pub(crate) struct TransactionCheck {
    history: History,
    /// By producer and the number of its transaction.
    known: BTreeMap<(u32, u32), Transaction>,
    /// Records that were shown as committed.
    shown: BTreeSet<Maker>,
    /// Records that belong to transactions.
    transactional: BTreeSet<Maker>,
}

impl TransactionCheck {
    pub(crate) fn new(history: History) -> Self {
        Self {
            history,
            known: BTreeMap::new(),
            shown: BTreeSet::new(),
            transactional: BTreeSet::new(),
        }
    }

    /// A producer is about to write a record in its transaction of that number.
    pub(crate) fn writes(&mut self, number: u32, maker: Maker, stream: StreamId) {
        let transaction = self.known.entry((maker.producer, number)).or_default();
        transaction.records.entry(stream).or_default().insert(maker);
        self.transactional.insert(maker);
    }

    /// A producer is about to ask for the end of its transaction.
    pub(crate) fn asked(&mut self, producer: u32, number: u32, commit: bool) {
        let came = if commit { Came::CommitAsked } else { Came::AbortAsked };
        self.known.entry((producer, number)).or_default().came = came;
    }

    /// A producer was told that its transaction has ended as it asked.
    pub(crate) fn ended(&mut self, producer: u32, number: u32, commit: bool) {
        let came = if commit { Came::Committed } else { Came::AbortAsked };
        self.known.entry((producer, number)).or_default().came = came;
    }

    /// A consumer has read these batches, and was told up to where it may see them and which transactions,
    /// (producer id, first offset), it has to leave out.
    pub(crate) fn seen(
        &mut self,
        last_stable: i64,
        records: &Bytes,
        aborted: &BTreeSet<(i64, i64)>,
    ) {
        let mut coming: Vec<_> =
            aborted.iter().map(|(producer, first)| (*first, *producer)).collect();
        coming.sort_unstable_by(|a, b| b.cmp(a));
        let mut left_out = BTreeSet::new();
        for batch in Batches::new(records.clone()).map_while(Result::ok) {
            if batch.base_offset() >= last_stable {
                break;
            }
            while coming.last().is_some_and(|(first, _)| *first <= batch.last_offset()) {
                left_out.extend(coming.pop().map(|(_, producer)| producer));
            }
            let producer = batch.producer_id();
            if batch.attributes().is_control() {
                if ended(&batch) == Some(false) {
                    left_out.remove(&producer);
                }
            } else if batch.attributes().is_transactional() && !left_out.contains(&producer) {
                self.shown.extend(makers(&batch));
            }
        }
    }

    /// All streams were read from their beginnings to their ends, when no producer had anything left to do.
    pub(crate) fn judge(&self, from: &str, replay: &Replay) {
        let wrong = |what: std::fmt::Arguments<'_>| {
            self.history.violation(format_args!("{from}: {what}"));
        };
        for ((stream, producer_id), open) in &replay.open {
            wrong(format_args!(
                "{stream}: the transaction of {producer_id} from offset {} on hangs",
                open.first_offset
            ));
        }
        for (stream, aborted) in &replay.aborted {
            let told = replay.told.get(stream).cloned().unwrap_or_default();
            if told != *aborted {
                wrong(format_args!("{stream}: aborted are {aborted:?}, readers are told {told:?}"));
            }
        }
        for maker in self.shown.iter().filter(|maker| replay.decided.get(maker) != Some(&true)) {
            wrong(format_args!("{maker:?} was shown as committed, and it is not"));
        }
        for (name, transaction) in &self.known {
            let fates: BTreeSet<_> = transaction
                .records
                .values()
                .flatten()
                .map(|maker| replay.decided.get(maker).copied().unwrap_or(false))
                .collect();
            let fine = match transaction.came {
                Came::Committed => fates == BTreeSet::from([true]),
                Came::CommitAsked => fates.len() <= 1,
                Came::Open | Came::AbortAsked => !fates.contains(&true),
            };
            if !fine {
                wrong(format_args!(
                    "transaction {name:?} is {:?}, and of its records committed are {fates:?}: {transaction:?}",
                    transaction.came
                ));
            }
        }
        let stray = replay.decided.keys().find(|maker| !self.transactional.contains(maker));
        if let Some(maker) = stray {
            wrong(format_args!("{maker:?} was written to no transaction, and is in one"));
        }
    }
}

/// A transaction that is open in a stream.
#[derive(Debug)]
struct Opened {
    first_offset: i64,
    records: Vec<Maker>,
}

/// What lies in the streams, read from their beginnings in order.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    open: BTreeMap<(StreamId, i64), Opened>,
    /// Whether the transaction of a record was committed.
    decided: BTreeMap<Maker, bool>,
    /// Aborted transactions, (producer id, first offset), by what lies in the stream.
    aborted: BTreeMap<StreamId, BTreeSet<(i64, i64)>>,
    /// And by what readers are told.
    told: BTreeMap<StreamId, BTreeSet<(i64, i64)>>,
}

impl Replay {
    /// The next batches of a stream, and what a reader is told to leave out.
    pub(crate) fn read(
        &mut self,
        stream: StreamId,
        records: &Bytes,
        told: impl IntoIterator<Item = (i64, i64)>,
    ) {
        self.told.entry(stream).or_default().extend(told);
        let aborted = self.aborted.entry(stream).or_default();
        for batch in Batches::new(records.clone()).map_while(Result::ok) {
            let producer_id = batch.producer_id();
            if let Some(commit) = ended(&batch) {
                let Some(opened) = self.open.remove(&(stream, producer_id)) else { continue };
                self.decided.extend(opened.records.iter().map(|maker| (*maker, commit)));
                if !commit {
                    aborted.insert((producer_id, opened.first_offset));
                }
            } else if batch.attributes().is_transactional() {
                let begins = || Opened { first_offset: batch.base_offset(), records: Vec::new() };
                let opened = self.open.entry((stream, producer_id)).or_insert_with(begins);
                opened.records.extend(makers(&batch));
            }
        }
    }
}

/// How the transaction ended whose marker this is; None for records.
fn ended(batch: &BatchView) -> Option<bool> {
    if !batch.attributes().is_control() {
        return None;
    }
    let record = batch.records(MOST_BYTES).ok()?.next()?.ok()?;
    match record.key?.get(..4)? {
        key if key == COMMIT => Some(true),
        key if key == ABORT => Some(false),
        _ => None,
    }
}

fn makers(batch: &BatchView) -> Vec<Maker> {
    let records = batch.records(MOST_BYTES).into_iter().flatten().map_while(Result::ok);
    records.filter_map(|record| Maker::of(&record.value?)).collect()
}
