//! Invariants 1 to 3, 6 and 7, over what clients are told: an offset that anyone has heard of has one
//! record for ever; nothing that was acknowledged or shown is missing later; an idempotent producer's
//! records are there once and in order; the high watermark and the log start never go back, and no older
//! epoch is ahead of a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use sluice_model::{StreamId, TopicId};
use sluice_wire::batch::BatchView;
use sluice_wire::scan;

use super::Maker;
use crate::history::{History, fingerprint};

/// A record as someone has heard of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    /// `{producer}/{sequence}/...`: who made it, and its place in that producer's order.
    pub(crate) value: Bytes,
    /// It is a transaction's marker, which nobody's producer made.
    pub(crate) is_marker: bool,
}

/// Something that grows: under each epoch its first and last known value.
#[derive(Clone, Debug, Default)]
struct Growing(BTreeMap<i32, (i64, i64)>);

impl Growing {
    /// Whether `value` under `epoch` agrees with what was heard before.
    fn note(&mut self, epoch: i32, value: i64, in_order: bool) -> bool {
        let older = self.0.range(..epoch).map(|(_, (_, last))| *last).max();
        let newer = self.0.range(epoch + 1..).map(|(_, (first, _))| *first).min();
        let own = self.0.entry(epoch).or_insert((value, value));
        let forward = !in_order || value >= own.1;
        *own = (own.0.min(value), own.1.max(value));
        forward
            && older.is_none_or(|older| value >= older)
            && newer.is_none_or(|newer| value <= newer)
    }
}

#[derive(Clone, Debug, Default)]
struct Log {
    /// By offset, the fingerprint of the record there.
    known: BTreeMap<i64, u64>,
    /// One past the largest offset that anyone has heard of.
    end: i64,
    /// By producer and sequence, the offset; for idempotent producers.
    made: BTreeMap<Maker, i64>,
    high_watermark: Growing,
    log_start: Growing,
    /// The largest offset up to which a deletion was asked for, and the largest that was confirmed.
    delete_asked: i64,
    delete_done: i64,
}

/// Follows what clients are told.
#[derive(Debug)]
pub(crate) struct LogCheck {
    history: History,
    logs: BTreeMap<StreamId, Log>,
    /// Topics whose records may be removed by retention.
    bounded: BTreeSet<TopicId>,
    /// Topics that someone began to delete.
    dropped: BTreeSet<TopicId>,
    /// Producers that are not idempotent.
    plain: Range<u32>,
}

impl LogCheck {
    pub(crate) fn new(history: History, plain: Range<u32>) -> Self {
        Self {
            history,
            logs: BTreeMap::new(),
            bounded: BTreeSet::new(),
            dropped: BTreeSet::new(),
            plain,
        }
    }

    pub(crate) fn bounded(&mut self, topic: TopicId) {
        self.bounded.insert(topic);
    }

    pub(crate) fn dropped(&mut self, topic: TopicId) {
        self.dropped.insert(topic);
    }

    pub(crate) fn is_dropped(&self, topic: TopicId) -> bool {
        self.dropped.contains(&topic)
    }

    /// Streams that anyone has heard of and nobody deletes.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.logs.keys().filter(|id| !self.is_dropped(id.topic)).copied().collect()
    }

    /// One past the largest offset that anyone has heard of.
    pub(crate) fn end(&self, stream: StreamId) -> i64 {
        self.logs.get(&stream).map_or(0, |log| log.end)
    }

    /// A batch was acknowledged.
    pub(crate) fn acknowledged(&mut self, stream: StreamId, base_offset: i64, values: &[Bytes]) {
        for (value, offset) in values.iter().zip(base_offset..) {
            self.pin(stream, &Seen { offset, value: value.clone(), is_marker: false });
        }
    }

    /// Someone has heard that this record is at this offset.
    fn pin(&mut self, stream: StreamId, seen: &Seen) {
        if self.is_dropped(stream.topic) {
            return;
        }
        let log = self.logs.entry(stream).or_default();
        let found = fingerprint(&seen.value);
        let offset = seen.offset;
        if *log.known.entry(offset).or_insert(found) != found {
            self.history
                .violation(format_args!("{stream} offset {offset}: another record than before"));
        }
        log.end = log.end.max(offset + 1);
        if seen.is_marker {
            return;
        }
        let Some(maker) = Maker::of(&seen.value) else {
            return self
                .history
                .violation(format_args!("{stream} offset {offset}: nobody made this"));
        };
        if self.plain.contains(&maker.producer) {
            return;
        }
        let before = *log.made.entry(maker).or_insert(offset);
        if before != offset {
            self.history.violation(format_args!(
                "{stream}: record {maker:?} is at offset {before} and at {offset}"
            ));
        }
        let of = |number| Maker { number, ..maker };
        let earlier = log.made.range(of(i64::MIN)..maker).next_back();
        let later = log.made.range(of(maker.number + 1)..=of(i64::MAX)).next();
        if earlier.is_some_and(|(_, at)| *at > offset) || later.is_some_and(|(_, at)| *at < offset)
        {
            self.history.violation(format_args!("{stream}: record {maker:?} is out of order"));
        }
    }

    /// Someone was told these offsets; `in_order` if nothing can have overtaken the answer.
    pub(crate) fn offsets(
        &mut self,
        stream: StreamId,
        epoch: i32,
        log_start: i64,
        high_watermark: i64,
        in_order: bool,
    ) {
        if self.is_dropped(stream.topic) {
            return;
        }
        let log = self.logs.entry(stream).or_default();
        if !log.high_watermark.note(epoch, high_watermark, in_order) {
            self.history.violation(format_args!(
                "{stream}: high watermark {high_watermark} under epoch {epoch} goes back: {:?}",
                log.high_watermark
            ));
        }
        if !log.log_start.note(epoch, log_start, in_order) {
            self.history.violation(format_args!(
                "{stream}: log start {log_start} under epoch {epoch} goes back: {:?}",
                log.log_start
            ));
        }
        if log_start > log.delete_asked && !self.bounded.contains(&stream.topic) {
            self.history.violation(format_args!(
                "{stream}: the log starts at {log_start}, and nobody asked for more than {}",
                log.delete_asked
            ));
        }
    }

    pub(crate) fn delete_asked(&mut self, stream: StreamId, offset: i64) {
        let log = self.logs.entry(stream).or_default();
        log.delete_asked = log.delete_asked.max(offset);
    }

    pub(crate) fn delete_done(&mut self, stream: StreamId, offset: i64) {
        let log = self.logs.entry(stream).or_default();
        log.delete_done = log.delete_done.max(offset);
    }

    /// Batches that were read from `offset` on: whole, intact, dense. Gives the offset after them.
    pub(crate) fn read(&mut self, stream: StreamId, offset: i64, records: &Bytes) -> i64 {
        let mut next = offset;
        let mut walked = 0;
        for span in scan::spans(records) {
            walked = span.end;
            let begins_well = if next == offset {
                span.base_offset <= offset && span.end_offset > offset
            } else {
                span.base_offset == next
            };
            if !begins_well {
                self.history.violation(format_args!(
                    "{stream}: offsets {}..{} where {next} is due",
                    span.base_offset, span.end_offset
                ));
                return next;
            }
            self.batch(stream, span.base_offset, records.slice(span.start..span.end));
            next = span.end_offset;
        }
        if walked != records.len() {
            self.history.violation(format_args!("{stream}: a batch at {next} is not whole"));
        }
        next
    }

    fn batch(&mut self, stream: StreamId, base_offset: i64, bytes: Bytes) {
        let broken = |error: &dyn std::fmt::Display| {
            self.history.violation(format_args!("{stream}: the batch at {base_offset}: {error}"));
        };
        let view = match BatchView::new(bytes) {
            Ok(view) => view,
            Err(error) => return broken(&error),
        };
        if let Err(error) = view.check_crc() {
            return broken(&error);
        }
        let records = match view.records(1 << 24) {
            Ok(records) => records,
            Err(error) => return broken(&error),
        };
        let is_marker = view.attributes().is_control();
        let mut seen = Vec::new();
        for record in records {
            match record {
                Ok(record) => seen.push(Seen {
                    offset: record.offset,
                    value: record.value.unwrap_or_default(),
                    is_marker,
                }),
                Err(error) => return broken(&error),
            }
        }
        for record in seen {
            self.pin(stream, &record);
        }
    }

    /// Everything was read, from the log start to the end: nothing that anyone has heard of is missing.
    pub(crate) fn complete(&self, from: &str, stream: StreamId, log_start: i64, end: i64) {
        let Some(log) = self.logs.get(&stream).filter(|_| !self.is_dropped(stream.topic)) else {
            return;
        };
        if end < log.end {
            self.history.violation(format_args!(
                "{stream}: {from} ends at {end}, and offset {} was acknowledged or shown",
                log.end - 1
            ));
        }
        if log_start < log.delete_done {
            self.history.violation(format_args!(
                "{stream}: {from} starts at {log_start}, and all before {} was deleted",
                log.delete_done
            ));
        }
        // What is above the end that was known is new to nobody: it was pinned when it was read.
        let missing = (log_start..end).find(|offset| !log.known.contains_key(offset));
        if let Some(offset) = missing {
            self.history.violation(format_args!("{stream}: {from} has no offset {offset}"));
        }
    }
}
