//! Where share groups of this process read: streams that are here as any fetch reads them, and those of other nodes
//! through their owners.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_gateway::backend::{Backend, Caller, OffsetQuery, Read, ReadAnswer, ReadRequest};
use sluice_gateway::peers::Peers;
use sluice_model::StreamId;
use sluice_model::group_config::OffsetReset;
use sluice_wire::ErrorCode;
use sluice_writer::Offsets;
use sluice_writer::share::{ShareSource, SourceRead, Watching};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::LocalBackend;

/// How long another node is asked to wait for something to come; then it is asked again.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);
/// How long to leave alone a node that did not answer.
const FOLLOW_PAUSE: Duration = Duration::from_millis(200);

/// Reads streams on behalf of one caller.
pub(super) struct Source<'a> {
    backend: &'a LocalBackend,
    caller: &'a Caller,
    /// Up to where streams of other nodes are known to reach.
    known: Arc<Mutex<HashMap<StreamId, i64>>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(backend: &'a LocalBackend, caller: &'a Caller) -> Self {
        Self { backend, caller, known: Arc::default() }
    }

    /// The other nodes, if the stream is one of theirs.
    fn elsewhere(&self, stream: StreamId) -> Option<&'a Arc<Peers>> {
        let is_here = || self.backend.writer.leader_epoch(stream).is_some();
        self.backend.peers.as_ref().filter(|_| !is_here())
    }

    async fn find(&self, stream: StreamId, query: OffsetQuery) -> Result<i64, ErrorCode> {
        let found = match self.elsewhere(stream) {
            Some(peers) => peers.find_offset_at_owner(self.caller, stream, query).await?,
            None => self.backend.find_offset(self.caller, stream, None, false, query).await?,
        };
        Ok(found.offset)
    }
}

fn one(stream: StreamId, offset: i64, max_bytes: u32, read_committed: bool) -> ReadRequest {
    let read =
        Read { stream, offset, max_bytes, current_leader_epoch: None, last_fetched_epoch: None };
    ReadRequest {
        min_bytes: 0,
        max_wait: Duration::ZERO,
        max_bytes,
        read_committed,
        reads: vec![read],
    }
}

fn first(answers: Vec<Result<ReadAnswer, ErrorCode>>) -> Result<ReadAnswer, ErrorCode> {
    answers.into_iter().next().unwrap_or(Err(ErrorCode::UnknownServerError))
}

#[async_trait]
impl ShareSource for Source<'_> {
    async fn offsets(&self, stream: StreamId) -> Result<Offsets, ErrorCode> {
        if self.elsewhere(stream).is_none() {
            return self.backend.writer.offsets(stream).map_err(|error| error.code());
        }
        let (earliest, latest) = tokio::join!(
            self.find(stream, OffsetQuery::Earliest),
            self.find(stream, OffsetQuery::Latest)
        );
        let (log_start, high_watermark) = (earliest?, latest?);
        self.known.lock().insert(stream, high_watermark);
        Ok(Offsets {
            log_start,
            tail_start: log_start,
            high_watermark,
            last_stable: high_watermark,
        })
    }

    fn leader_epoch(&self, stream: StreamId) -> i32 {
        match self.elsewhere(stream) {
            Some(peers) => peers.leader_epoch(stream),
            None => self.backend.writer.leader_epoch(stream).unwrap_or(-1),
        }
    }

    fn available(&self, stream: StreamId, offset: i64, enough: u64) -> u64 {
        if self.elsewhere(stream).is_some() {
            // How many bytes is not known, and not worth a question: one record may be enough.
            let known = self.known.lock().get(&stream).copied();
            return if known.is_none_or(|end| offset < end) { enough } else { 0 };
        }
        let tail = self.backend.writer.tail(stream);
        tail.map_or(enough, |tail| tail.available(offset, false, enough))
    }

    async fn read(
        &self,
        stream: StreamId,
        offset: i64,
        max_bytes: u32,
        read_committed: bool,
    ) -> Result<SourceRead, ErrorCode> {
        let request = one(stream, offset, max_bytes, read_committed);
        let answers = match self.elsewhere(stream) {
            Some(peers) => peers.read_at_owner(self.caller, stream, &request).await,
            None => self.backend.read(self.caller, request).await,
        };
        let answer = first(answers)?;
        Ok(SourceRead { records: answer.records, aborted: answer.aborted })
    }

    async fn reset(&self, stream: StreamId, reset: OffsetReset) -> Result<i64, ErrorCode> {
        let offsets = self.offsets(stream).await?;
        let age = match reset {
            OffsetReset::Earliest => return Ok(offsets.log_start),
            OffsetReset::Latest => return Ok(offsets.high_watermark),
            OffsetReset::ByDuration(age) => i64::try_from(age.as_millis()).unwrap_or(i64::MAX),
        };
        let from = self.backend.writer.wall_ms().saturating_sub(age);
        let found = self.find(stream, OffsetQuery::AtOrAfter(from)).await?;
        // Nothing is so young: the group begins with what comes.
        Ok(if found < 0 { offsets.high_watermark } else { found })
    }

    fn watch(&self, streams: &[StreamId], wake: Arc<Notify>) -> Watching {
        let (mut here, mut followed) = (Vec::new(), Vec::new());
        for stream in streams {
            match self.elsewhere(*stream) {
                Some(peers) => followed.push(Followed::start(self, peers, *stream, &wake)),
                None => here.push(*stream),
            }
        }
        Box::new((self.backend.writer.waiter_with(wake, here.into_iter()), followed))
    }
}

/// A stream of another node that is waited for.
struct Followed(JoinHandle<()>);

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Followed {
    fn start(
        source: &Source<'_>,
        peers: &Arc<Peers>,
        stream: StreamId,
        wake: &Arc<Notify>,
    ) -> Self {
        let (peers, caller, wake) = (Arc::clone(peers), source.caller.clone(), Arc::clone(wake));
        let known = Arc::clone(&source.known);
        Self(tokio::spawn(async move {
            loop {
                let end = known.lock().get(&stream).copied();
                let Some(end) = end else {
                    let latest = OffsetQuery::Latest;
                    match peers.find_offset_at_owner(&caller, stream, latest).await {
                        Ok(found) => {
                            known.lock().insert(stream, found.offset);
                            wake.notify_one();
                        }
                        Err(_) => tokio::time::sleep(FOLLOW_PAUSE).await,
                    }
                    continue;
                };
                // A byte is as good as all of it: only that there is something is asked.
                let request = ReadRequest {
                    min_bytes: 1,
                    max_wait: FOLLOW_WAIT,
                    ..one(stream, end, 1, false)
                };
                match first(peers.read_at_owner(&caller, stream, &request).await) {
                    Ok(answer) if answer.high_watermark > end => {
                        known.lock().insert(stream, answer.high_watermark);
                        wake.notify_one();
                    }
                    Ok(_) => {}
                    Err(_) => {
                        known.lock().remove(&stream);
                        tokio::time::sleep(FOLLOW_PAUSE).await;
                    }
                }
            }
        }))
    }
}
