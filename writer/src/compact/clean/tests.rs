//! The filter over logs with transactions, tombstones and idempotent producers.

use std::collections::HashMap;

use bytes::Bytes;
use sluice_wire::batch::{BatchBuilder, BatchView, NewRecord};

use super::filter::{Filter, Kept};
use super::keys::KeyMap;
use super::outcomes::Outcomes;
use super::{MAX_INFLATED_BYTES, map_batch};

const NOW_MS: i64 = 1_000_000;
const RETENTION_MS: i64 = 500;

/// A log in memory that is cleaned as the compactor does it.
#[derive(Default)]
struct Log {
    batches: Vec<BatchView>,
    end: i64,
    cleaned_to: i64,
    last_of_producers: HashMap<i64, i64>,
}

impl Log {
    fn push(&mut self, builder: BatchBuilder) -> i64 {
        let base = self.end;
        let batch = BatchView::new(builder.base_offset(base).build()).unwrap();
        self.end = batch.last_offset() + 1;
        self.batches.push(batch);
        base
    }

    fn data(&mut self, producer: i64, keys: &[(&str, Option<&str>)]) -> i64 {
        let mut builder = BatchBuilder::new();
        if producer >= 0 {
            builder = builder.producer(producer, 0, 0).transactional();
        }
        for (key, value) in keys {
            builder.push(&record(key.as_bytes(), value.map(str::as_bytes)));
        }
        self.push(builder)
    }

    fn marker(&mut self, producer: i64, commits: bool) -> i64 {
        let mut builder = BatchBuilder::new().producer(producer, 0, -1).transactional().control();
        builder.push(&record(&[0, 0, 0, u8::from(commits)], Some(&[0; 6])));
        self.push(builder)
    }

    /// Cleans all that is decided; gives the offsets that remain.
    fn clean(&mut self, now_ms: i64) -> Vec<i64> {
        let mut outcomes = Outcomes::default();
        let dirty = self.batches.iter().filter(|batch| batch.last_offset() >= self.cleaned_to);
        for batch in dirty.clone() {
            assert!(outcomes.see(batch));
        }
        let end = outcomes.settled_to().max(self.cleaned_to);
        let mut keys = KeyMap::new(1 << 20, 3);
        for batch in dirty.filter(|batch| batch.last_offset() < end) {
            let aborted = outcomes.is_aborted(batch.producer_id(), batch.base_offset());
            if !batch.attributes().is_control() && !aborted {
                assert!(map_batch(batch, self.cleaned_to, &mut keys));
            }
        }
        let mut filter = Filter::new(
            &keys,
            &outcomes,
            &self.last_of_producers,
            end,
            now_ms,
            now_ms + RETENTION_MS,
        );
        let mut left = Vec::new();
        for batch in &self.batches {
            match filter.batch(batch) {
                Kept::Same => left.push(batch.clone()),
                Kept::Changed(bytes) => left.push(BatchView::new(bytes).unwrap()),
                Kept::Gone => {}
            }
        }
        self.batches = left;
        self.cleaned_to = end;
        self.offsets()
    }

    /// Offsets of all records, markers included.
    fn offsets(&self) -> Vec<i64> {
        let records =
            self.batches.iter().flat_map(|batch| batch.records(MAX_INFLATED_BYTES).unwrap());
        records.map(|record| record.unwrap().offset).collect()
    }
}

fn record<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> NewRecord<'a> {
    NewRecord { timestamp_ms: 5, key: Some(key), value, headers: &[] }
}

#[test]
fn aborted_data_goes_and_replaces_nothing() {
    let mut log = Log::default();
    let kept = log.data(-1, &[("a", Some("committed"))]);
    log.data(7, &[("a", Some("aborted")), ("b", Some("aborted"))]);
    let marker = log.marker(7, false);
    let last = log.data(-1, &[("c", Some("x"))]);
    assert_eq!(log.clean(NOW_MS), [kept, marker, last]);
}

#[test]
fn an_open_transaction_ends_the_part_that_is_cleaned() {
    let mut log = Log::default();
    log.data(-1, &[("a", Some("1"))]);
    let newer = log.data(-1, &[("a", Some("2"))]);
    let open = log.data(7, &[("a", Some("3"))]);
    let after = log.data(-1, &[("a", Some("4"))]);
    assert_eq!(log.clean(NOW_MS), [newer, open, after], "nothing from the open data on counts");
    assert_eq!(log.cleaned_to, open);
    let marker = log.marker(7, true);
    assert_eq!(log.clean(NOW_MS), [after, marker]);
}

#[test]
fn transactions_of_two_producers_are_told_apart() {
    let mut log = Log::default();
    let a = log.data(7, &[("a", Some("7"))]);
    log.data(8, &[("b", Some("8"))]);
    let commit = log.marker(7, true);
    let abort = log.marker(8, false);
    let again = log.data(8, &[("b", Some("8 again"))]);
    let second = log.marker(8, true);
    assert_eq!(log.clean(NOW_MS), [a, commit, abort, again, second]);
}

#[test]
fn a_marker_goes_when_its_data_is_gone_and_its_time_has_come() {
    let mut log = Log::default();
    log.data(7, &[("a", Some("1"))]);
    let marker = log.marker(7, true);
    let newer = log.data(-1, &[("a", Some("2"))]);
    assert_eq!(log.clean(NOW_MS), [marker, newer], "its data was there until now");
    let next = log.data(-1, &[("b", Some("1"))]);
    assert_eq!(log.clean(NOW_MS), [marker, newer, next], "from now on its time runs");
    let more = log.data(-1, &[("c", Some("1"))]);
    assert_eq!(log.clean(NOW_MS + RETENTION_MS - 1), [marker, newer, next, more]);
    let last = log.data(-1, &[("d", Some("1"))]);
    assert_eq!(log.clean(NOW_MS + RETENTION_MS), [newer, next, more, last]);
}

#[test]
fn a_marker_stays_while_data_of_its_transaction_remains() {
    let mut log = Log::default();
    let data = log.data(7, &[("a", Some("1")), ("b", Some("1"))]);
    let marker = log.marker(7, true);
    for n in 0..4 {
        log.data(-1, &[("a", Some("2"))]);
        let offsets = log.clean(NOW_MS + n * RETENTION_MS * 2);
        assert!(offsets.contains(&(data + 1)) && offsets.contains(&marker), "{offsets:?}");
    }
}

#[test]
fn a_producers_last_batch_stays_empty_and_so_does_the_last_of_all() {
    let mut log = Log::default();
    let mut idempotent = BatchBuilder::new().producer(9, 2, 40);
    idempotent.push(&record(b"a", Some(b"1")));
    idempotent.push(&record(b"a", Some(b"2")));
    log.push(idempotent);
    log.last_of_producers.insert(9, 1);
    let newer = log.data(-1, &[("a", Some("3"))]);
    assert_eq!(log.clean(NOW_MS), [newer]);
    let empty = &log.batches[0];
    assert_eq!((empty.producer_id(), empty.base_sequence(), empty.last_sequence()), (9, 40, 41));
    assert_eq!(empty.record_count(), 0);
    // The tombstone is the last of the log, and its time has come: clients still learn where it ends.
    log.data(-1, &[("a", None)]);
    log.clean(NOW_MS);
    log.cleaned_to = log.end - 1;
    log.last_of_producers.clear();
    assert_eq!(log.clean(NOW_MS + RETENTION_MS), [0i64; 0]);
    let last = log.batches.last().unwrap();
    assert_eq!((last.record_count(), last.last_offset() + 1), (0, log.end));
    assert_eq!(log.batches.len(), 1, "the producer is not active any more");
}

#[test]
fn what_cannot_be_read_is_kept() {
    let mut log = Log::default();
    log.data(-1, &[("a", Some("1"))]);
    let mut bytes = log.batches[0].bytes().to_vec();
    let at = bytes.len() - 3;
    bytes[at] = 0xff;
    log.batches[0] = BatchView::new(Bytes::from(bytes)).unwrap();
    log.data(-1, &[("a", Some("2"))]);
    let damaged = log.batches[0].clone();
    log.cleaned_to = 0;
    let mut outcomes = Outcomes::default();
    outcomes.end(2);
    let mut keys = KeyMap::new(1 << 20, 3);
    for batch in &log.batches {
        assert!(map_batch(batch, 0, &mut keys));
    }
    let mut filter = Filter::new(&keys, &outcomes, &log.last_of_producers, 2, NOW_MS, NOW_MS);
    assert_eq!(filter.batch(&damaged), Kept::Same);
}
