//! Transactional producers, as Kafka's clients of both generations of the protocol: each writes a few batches
//! to a few streams and commits or aborts, sends each step again until it is answered, and begins anew with
//! InitProducerId when it is fenced. Now and then one forgets everything in the middle, as after a crash, or
//! sleeps for longer than its transaction may last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sluice_model::StreamId;
use sluice_wire::ErrorCode;
use sluice_wire::batch::{BatchBuilder, NewRecord};

use super::{Answer, Ask, Done, Identity, Step};
use crate::check::Maker;
use crate::random::Random;
use crate::stage::{KEPT, Stage, WRITERS, producer_time_ms};

/// How long a client waits for an answer.
const WAIT: Duration = Duration::from_millis(2500);

/// The producer is no more what it was, or does not want to be: it begins anew.
struct Over;

struct Transactor {
    stage: Arc<Stage>,
    id: u32,
    random: Random,
    identity: Option<Identity>,
    timeout_ms: i32,
    /// The sequence of the next record in each stream, under this epoch.
    sequences: BTreeMap<StreamId, i32>,
    /// Records and transactions begun so far.
    made: i64,
    begun: u32,
    host: usize,
}

/// Runs a transactional producer until the host crashes.
pub(crate) async fn transact(stage: Arc<Stage>, id: u32) {
    let mut random = Random::new(stage.seed, 3000 + u64::from(id));
    let timeout_ms = *random.pick(&[1_500, 5_000, 60_000]);
    let mut transactor = Transactor {
        stage,
        id,
        random,
        identity: None,
        timeout_ms,
        sequences: BTreeMap::new(),
        made: 0,
        begun: 0,
        host: 0,
    };
    loop {
        let rest = transactor.random.ms(1, 4 * transactor.stage.profile.rest_ms);
        tokio::time::sleep(rest).await;
        if transactor.stage.wind_down.load(Ordering::Relaxed) {
            // Answered only when nothing of an earlier transaction is left to be ended.
            while transactor.init().await.is_err() {}
            return transactor.stage.settled.lock().push(id);
        }
        if transactor.turn().await.is_err() {
            transactor.stage.history.event("anew", format_args!("t{id}"));
            transactor.identity = None;
        }
    }
}

impl Transactor {
    /// One transaction, from its begin to the answer to its end.
    async fn turn(&mut self) -> Result<(), Over> {
        let by = match self.identity {
            Some(by) => by,
            None => self.init().await?,
        };
        self.begun += 1;
        let number = self.begun;
        let streams = self.any_streams();
        if !by.is_new {
            self.until_done(|| Step::Add { by, streams: streams.clone() }).await?;
        }
        let lasts = Duration::from_millis(self.timeout_ms as u64 + 500);
        for stream in streams {
            for _ in 0..self.random.between(1, 2) {
                if self.random.per_mille(30) {
                    return Err(Over);
                }
                if self.timeout_ms < 10_000 && self.random.per_mille(15) {
                    tokio::time::sleep(lasts).await;
                }
                self.write(by, number, stream).await?;
            }
        }
        let commit = self.random.per_mille(700);
        self.stage.transactions.lock().asked(self.id, number, commit);
        if self.random.per_mille(30) {
            // The request is on its way, or it is not: nobody waits for the answer.
            let ask = Ask::Transact(Step::End { by, commit });
            let _ = self.stage.writer_service.ask(WRITERS[self.host], ask).await;
            return Err(Over);
        }
        let done = self.until_done(|| Step::End { by, commit }).await?;
        self.stage.transactions.lock().ended(self.id, number, commit);
        if let Done::Is(producer_id, epoch) = done
            && (producer_id, epoch) != (by.producer_id, by.epoch)
        {
            self.identity = Some(Identity { producer_id, epoch, ..by });
            self.sequences.clear();
        }
        Ok(())
    }

    async fn init(&mut self) -> Result<Identity, Over> {
        let (id, timeout_ms) = (self.id, self.timeout_ms);
        let Done::Is(producer_id, epoch) =
            self.until_done(|| Step::Init { id, timeout_ms }).await?
        else {
            return Err(Over);
        };
        self.stage.history.event("init", format_args!("t{id} is {producer_id} epoch {epoch}"));
        let by = Identity { id, producer_id, epoch, is_new: id % 2 == 0 };
        self.identity = Some(by);
        self.sequences.clear();
        Ok(by)
    }

    /// Some streams of the topic of which nothing is ever deleted.
    fn any_streams(&mut self) -> BTreeSet<StreamId> {
        let Some(topic) = self.stage.topic(KEPT) else { return BTreeSet::new() };
        let count = topic.partitions.len() as u64;
        (0..self.random.between(1, 3))
            .map(|_| StreamId { topic: topic.id, partition: self.random.below(count) as u32 })
            .collect()
    }

    async fn write(&mut self, by: Identity, number: u32, stream: StreamId) -> Result<(), Over> {
        let sequence = *self.sequences.entry(stream).or_default();
        let mut builder =
            BatchBuilder::new().producer(by.producer_id, by.epoch, sequence).transactional();
        let mut values = Vec::new();
        for _ in 0..self.random.between(1, 3) {
            let maker = Maker { producer: self.id, number: self.made };
            let filler = self.random.below(self.stage.profile.most_value_bytes / 4) as usize;
            let mut value = format!("{}/{}/", maker.producer, maker.number);
            value.extend(std::iter::repeat_n('t', filler));
            let value = Bytes::from(value);
            builder.push(&NewRecord {
                timestamp_ms: producer_time_ms(),
                key: Some(b"key"),
                value: Some(&value),
                headers: &[],
            });
            self.stage.transactions.lock().writes(number, maker, stream);
            values.push(value);
            self.made += 1;
        }
        let batch = builder.build();
        let done = self.until_done(|| Step::Write { by, stream, batch: batch.clone() }).await?;
        if let Done::At(base_offset) = done {
            self.stage.logs.lock().acknowledged(stream, base_offset, &values);
        }
        self.sequences.insert(stream, sequence + values.len() as i32);
        Ok(())
    }

    /// Asks until it is done, of whoever serves.
    async fn until_done(&mut self, step: impl Fn() -> Step) -> Result<Done, Over> {
        loop {
            let ask = Ask::Transact(step());
            let answer = self.stage.writer_service.call(WRITERS[self.host], ask, WAIT).await;
            let history = &self.stage.history;
            match answer {
                Some(Answer::Transacted(Ok(done))) => {
                    history.event("step", format_args!("t{}: {done:?}", self.id));
                    return Ok(done);
                }
                Some(Answer::Transacted(Err(code))) => {
                    history.event("step-refused", format_args!("t{}: {code:?}", self.id));
                    if is_over(code) {
                        return Err(Over);
                    }
                    if code != ErrorCode::ConcurrentTransactions {
                        self.host = 1 - self.host;
                    }
                }
                _ => self.host = 1 - self.host,
            }
            let rest = self.random.ms(20, 250);
            tokio::time::sleep(rest).await;
        }
    }
}

/// Whether a client begins anew on this; everything else is asked again.
fn is_over(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidTxnState
            | ErrorCode::InvalidProducerIdMapping
    )
}
