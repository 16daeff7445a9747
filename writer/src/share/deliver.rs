//! Giving a member records: from the streams of its session, as many as there are, waiting for them as
//! a fetch waits.

use std::sync::Arc;
use std::time::Duration;

use sluice_model::group_config::ShareSettings;
use sluice_model::{StreamId, TenantId};
use sluice_wire::{Chain, ErrorCode, Str};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cell::{Cell, Watch};
use super::key::ShareKey;
use super::partition::{Acquired, SharePartition, Take};
use super::settings;
use super::source::ShareSource;
use super::{Shares, spans};

/// A read whose records the group may not see is followed by another, this often in a row; then the client
/// asks again.
const MAX_FRUITLESS_READS: usize = 16;
/// How long a fetch that does not wait lets another that reads the same stream end.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// What a member asks for.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) group: Str,
    pub(super) member: Str,
    pub(super) min_bytes: u64,
    /// Of all streams together, but for the first batch; with 0 there is not even that, as in Kafka.
    pub(super) max_bytes: u32,
    pub(super) max_wait: Duration,
    pub(super) max_records: u32,
    pub(super) batch_size: u32,
    pub(super) strict: bool,
}

/// What one stream gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivered {
    pub(super) records: Chain,
    pub(super) acquired: Vec<Acquired>,
}

/// A stream with what it gave.
pub(super) type Answered = (StreamId, Result<Delivered, ErrorCode>);

impl Shares {
    /// Acquires records of `streams`, looking at them in this order; each is answered once. What has to be
    /// loaded does not hold up what is there already: the rest has its turn at the next fetch.
    pub(super) async fn deliver(
        &self,
        tenant: TenantId,
        source: &dyn ShareSource,
        wish: &Wish,
        streams: &[StreamId],
    ) -> Vec<Answered> {
        let deadline = Instant::now() + wish.max_wait;
        let settings = self.shared.settings_of(tenant, &wish.group);
        let mut cells = Vec::with_capacity(streams.len());
        let mut answers: Vec<Answered> = Vec::with_capacity(streams.len());
        let mut has_enough = false;
        for stream in streams {
            let key = ShareKey { group: wish.group.clone(), stream: *stream };
            if has_enough {
                answers.push((*stream, Ok(Delivered::default())));
                continue;
            }
            match self.open(tenant, &key, source, &settings).await {
                Ok((cell, loaded)) => {
                    cells.push(cell);
                    has_enough = loaded && self.is_ready(source, wish, &settings, &cells);
                }
                Err(code) => answers.push((*stream, Err(code))),
            }
        }
        if cells.is_empty() {
            return answers;
        }
        // In place before the first look, so that nothing is missed between.
        let wake = Arc::new(Notify::new());
        let open: Vec<_> = cells.iter().map(|cell| cell.key.stream).collect();
        let _streams = source.watch(&open, Arc::clone(&wake));
        let _cells = Watch::new(&cells, Arc::clone(&wake));
        let mut fruitless = 0;
        loop {
            let is_last = Instant::now() >= deadline;
            if is_last || self.is_ready(source, wish, &settings, &cells) {
                let given = self.take_turns(source, wish, &settings, &cells, deadline).await;
                let any = given.iter().any(|(_, given, _)| match given {
                    Ok(delivered) => !delivered.acquired.is_empty(),
                    Err(_) => true,
                });
                let moved = given.iter().any(|(_, _, moved)| *moved);
                fruitless += 1;
                if any || is_last && !moved || fruitless >= MAX_FRUITLESS_READS {
                    answers.extend(given.into_iter().map(|(stream, given, _)| (stream, given)));
                    return answers;
                }
                if moved {
                    continue;
                }
                fruitless = 0;
            }
            // Running out of time is no end: what is there is given however little it is.
            let _ = tokio::time::timeout_at(deadline, wake.notified()).await;
        }
    }

    /// The cell of a share partition, with its machine loaded; and whether that had to be waited for.
    async fn open(
        &self,
        tenant: TenantId,
        key: &ShareKey,
        source: &dyn ShareSource,
        settings: &ShareSettings,
    ) -> Result<(Arc<Cell>, bool), ErrorCode> {
        self.shared.check_active()?;
        let topic = sluice_wire::Uuid(key.stream.topic.0);
        let partition = i32::try_from(key.stream.partition).unwrap_or(-1);
        self.stream(tenant, topic, partition)?;
        loop {
            let limit = self.shared.limits.max_partitions;
            let cell = self.shared.cell_or_new(tenant, key, limit);
            let cell = cell.ok_or(ErrorCode::PolicyViolation)?;
            if cell.lock().live.is_some() {
                return Ok((cell, false));
            }
            let fetching = cell.fetching.lock().await;
            {
                let state = cell.lock();
                if state.removed {
                    continue;
                }
                if state.live.is_some() {
                    drop(state);
                    drop(fetching);
                    return Ok((cell, true));
                }
            }
            let loaded = self.load(&cell, source, settings).await;
            drop(fetching);
            match loaded {
                Ok(true) => return Ok((cell, true)),
                Ok(false) => {}
                Err(code) => {
                    self.shared.leave(&cell, cell.lock());
                    return Err(code);
                }
            }
        }
    }

    /// Makes the machine of what is stored, or where a new group begins; that is made durable first, so
    /// that a crash does not move a group that began at the end. False if the cell is to be looked up again.
    async fn load(
        &self,
        cell: &Arc<Cell>,
        source: &dyn ShareSource,
        settings: &ShareSettings,
    ) -> Result<bool, ErrorCode> {
        let stream = cell.key.stream;
        let stored = cell.lock().stored.clone();
        let (mut stored, is_new) = match stored {
            Some(stored) => (stored, false),
            None => (super::partition::Stored::empty(source.leader_epoch(stream)), true),
        };
        if stored.start < 0 {
            stored.start = source.reset(stream, settings.auto_offset_reset).await?;
        }
        let start_is_new = is_new || cell.lock().stored.as_ref().is_none_or(|s| s.start < 0);
        if start_is_new {
            let written = self.shared.replace(cell, Some(stored.clone())).await;
            written.map_err(crate::group::log::LogError::code)?;
        }
        let mut partition = SharePartition::load(&stored);
        partition.cut(source.offsets(stream).await?.log_start);
        let mut state = cell.lock();
        if state.removed {
            return Ok(false);
        }
        state.live = Some(partition);
        Ok(true)
    }

    /// Whether as much as the client waits for could be acquired now.
    fn is_ready(
        &self,
        source: &dyn ShareSource,
        wish: &Wish,
        settings: &ShareSettings,
        cells: &[Arc<Cell>],
    ) -> bool {
        if wish.max_bytes == 0 {
            return false;
        }
        let enough = wish.min_bytes.max(1);
        let mut bytes = 0;
        for cell in cells {
            let rules = settings::rules(settings);
            let next = match &cell.lock().live {
                Some(live) if live.has_room(&rules) => live.next_offset(),
                // Something must be told: it is gone.
                None => return true,
                Some(_) => continue,
            };
            bytes += source.available(cell.key.stream, next, enough);
            if bytes >= enough {
                return true;
            }
        }
        false
    }

    /// Takes what there is from one stream after the other. For each also whether its machine got ahead.
    async fn take_turns(
        &self,
        source: &dyn ShareSource,
        wish: &Wish,
        settings: &ShareSettings,
        cells: &[Arc<Cell>],
        deadline: Instant,
    ) -> Vec<(StreamId, Result<Delivered, ErrorCode>, bool)> {
        let mut given = Vec::with_capacity(cells.len());
        let mut bytes_left = wish.max_bytes;
        let mut records_left = wish.max_records;
        for (index, cell) in cells.iter().enumerate() {
            let others = u32::try_from(cells.len() - index).unwrap_or(u32::MAX);
            let mut moved = false;
            let mut delivered = Ok(Delivered::default());
            let first = given.is_empty() && wish.max_bytes > 0;
            if records_left > 0 && (bytes_left > 0 || first) {
                let bytes = (bytes_left / others).max(1);
                let patience = deadline.max(Instant::now() + LEAST_WAIT);
                let fetching = tokio::time::timeout_at(patience, cell.fetching.lock()).await;
                if let Ok(_fetching) = fetching {
                    let taken =
                        self.take_from(source, wish, settings, cell, bytes, records_left).await;
                    delivered = taken.map(|(delivered, has_moved)| {
                        moved = has_moved;
                        delivered
                    });
                }
            }
            if let Ok(delivered) = &delivered {
                let records = delivered.acquired.iter().map(Acquired::len).sum();
                records_left = records_left.saturating_sub(records);
                let bytes = u32::try_from(delivered.records.len()).unwrap_or(u32::MAX);
                bytes_left = bytes_left.saturating_sub(bytes);
            }
            given.push((cell.key.stream, delivered, moved));
        }
        given
    }

    /// Reads one stream and acquires of it. The caller has the cell's `fetching`.
    async fn take_from(
        &self,
        source: &dyn ShareSource,
        wish: &Wish,
        settings: &ShareSettings,
        cell: &Arc<Cell>,
        max_bytes: u32,
        max_records: u32,
    ) -> Result<(Delivered, bool), ErrorCode> {
        let stream = cell.key.stream;
        let rules = settings::rules(settings);
        let offsets = source.offsets(stream).await?;
        let from = {
            let mut state = cell.lock();
            self.shared.expire(cell, &mut state);
            let live = state.live.as_mut().ok_or(ErrorCode::UnknownTopicOrPartition)?;
            live.cut(offsets.log_start);
            if !live.has_room(&rules) {
                return Ok((Delivered::default(), false));
            }
            live.next_offset()
        };
        if from >= offsets.high_watermark {
            return Ok((Delivered::default(), false));
        }
        let read = match source.read(stream, from, max_bytes, settings.read_committed).await {
            Ok(read) => read,
            // The log's start has moved since: the next look takes it up.
            Err(ErrorCode::OffsetOutOfRange) => return Ok((Delivered::default(), true)),
            Err(code) => return Err(code),
        };
        let spans = spans::of(&read.records, &read.aborted, from);
        let mut state = cell.lock();
        let live = state.live.as_mut().ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let take = Take {
            member: &wish.member,
            max_records,
            strict: wish.strict,
            batch_size: wish.batch_size,
            from,
        };
        let acquired = live.acquire(Instant::now(), &rules, &take, &spans);
        let moved = live.next_offset() > from;
        self.shared.arm(cell, &mut state);
        if !acquired.is_empty() {
            let count = acquired.iter().map(|range| u64::from(range.len())).sum();
            self.shared.metrics.delivered.inc_by(count);
            // There may be more for those who wait.
            state.wake_watchers();
        }
        drop(state);
        let records = spans::trimmed(&read.records, &acquired);
        Ok((Delivered { records, acquired }, moved))
    }
}
