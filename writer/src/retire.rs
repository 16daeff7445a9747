//! What a volume does from time to time: applies retention (moves log starts up to what topics allow to
//! remain), and lets go of streams that nobody uses.

use std::sync::Arc;

use sluice_format::StreamKey;
use sluice_model::{Clock, TopicId};
use tokio::time::MissedTickBehavior;

use crate::commit::{Change, Committer, Ended};
use crate::options::WriterOptions;
use crate::recovery::stream_of;
use crate::retention;
use crate::upload::StreamSource;

pub(crate) struct Retirement {
    pub(crate) committer: Committer,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) options: WriterOptions,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Retirement {
    /// Runs until the volume's service ends.
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.options.retention_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            ticks.tick().await;
            self.source.forget_idle();
            if self.round().await.is_err() {
                return;
            }
        }
    }

    async fn round(&self) -> Result<(), Ended> {
        let moves = self.moves();
        if moves.is_empty() {
            return Ok(());
        }
        self.committer.commit(Change::LogStarts(moves.clone())).await?;
        for (key, start) in moves {
            let id = stream_of(key);
            tracing::info!(stream = %id, log_start = start, "retention moved the log start");
            // A stream that is not in use reads its log start from the state when it is.
            if let Some(stream) = self.source.stream(id) {
                stream.move_log_start(start);
            }
        }
        Ok(())
    }

    fn moves(&self) -> Vec<(StreamKey, i64)> {
        let now_ms = self.clock.wall_ms();
        let candidates: Vec<_> = {
            let state = self.committer.state().read();
            let streams = state.streams.iter().filter(|(key, stream)| {
                !stream.extents.is_empty() && !stream.sealed && !TopicId(key.topic).is_internal()
            });
            streams.map(|(key, stream)| (*key, stream.end_offset)).collect()
        };
        let candidates = candidates.into_iter().filter_map(|(key, end_offset)| {
            let limits = self.source.retention(stream_of(key))?;
            let stream = self.source.stream(stream_of(key));
            Some((key, limits, stream.map_or(0, |stream| stream.bytes_from(end_offset))))
        });
        let candidates: Vec<_> = candidates.collect();
        let state = self.committer.state().read();
        let moves = candidates.into_iter().filter_map(|(key, limits, tail_bytes)| {
            let start =
                retention::log_start(state.streams.get(&key)?, tail_bytes, &limits, now_ms)?;
            Some((key, start))
        });
        moves.collect()
    }
}
