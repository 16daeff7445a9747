//! Transactions as a stream sees them: batches that begin one, the markers that end it, and what readers
//! of committed records have to know. Who may write is the transaction coordinator's to say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_model::StreamId;
use sluice_model::topic_config::TimestampType;
use sluice_wire::batch::BatchView;

use super::Writer;
use crate::error::{AppendError, TailError};
use crate::sequence::{ActiveProducer, BatchHeader, Marker, Part, Voucher};
use crate::stream::Stream;
use crate::task::Appended;

/// A batch that would begin a transaction in its stream: the coordinator has to be asked, and then
/// [`Writer::append_verified`] takes it. Useless once a marker of the producer was written.
#[derive(Debug)]
pub struct Unverified {
    /// Whose transaction.
    pub producer_id: i64,
    /// Its producer epoch.
    pub producer_epoch: i16,
    voucher: Voucher,
    /// Vouchers live as long as the stream is in memory, and here.
    stream: Arc<Stream>,
}

impl Writer {
    /// Whether the coordinator has to be asked before `records`, one batch, may be appended: not if it is
    /// no part of a transaction, or the producer's transaction is open in the stream. Ask after this
    /// call, then append. `bumps_epochs` says that the client gets a new epoch for each transaction
    /// (Produce from version 12 on, KIP-890).
    ///
    /// # Errors
    /// The stream is not here: nothing is known of its transactions, and the batch must not be appended without a
    /// word, as the stream may be here by then.
    pub fn unverified(
        &self,
        stream: StreamId,
        records: &Bytes,
        bumps_epochs: bool,
    ) -> Result<Option<Unverified>, TailError> {
        // What is not a batch is refused by the append.
        let Ok(batch) = BatchView::new(&records[..]) else { return Ok(None) };
        let attributes = batch.attributes();
        if !attributes.is_transactional() || attributes.is_control() || batch.producer_id() < 0 {
            return Ok(None);
        }
        let (_, stream) = self.stream(stream)?;
        let voucher = stream.sequencer.lock().verify(&BatchHeader::of(&batch), bumps_epochs);
        Ok(voucher.map(|voucher| Unverified {
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            voucher,
            stream,
        }))
    }

    /// As [`Writer::append`], for a batch for which the coordinator vouches.
    pub async fn append_verified(
        &self,
        stream: StreamId,
        records: &Bytes,
        timeout: Duration,
        verified: Unverified,
    ) -> Result<Appended, AppendError> {
        let vouched = Some((verified.voucher, verified.stream));
        self.append_with(stream, records, timeout, vouched).await
    }

    /// The first offset of the producer's transaction, if one is open in the stream. It may not be durable
    /// yet.
    pub fn open_transaction(&self, stream: StreamId, producer_id: i64) -> Option<i64> {
        let (_, stream) = self.stream(stream).ok()?;
        stream.sequencer.lock().open_since(producer_id)
    }

    /// Appends the marker that ends the producer's transaction in the stream; durable when it returns.
    /// From then on batches of older epochs are refused. May be repeated with the same arguments: a
    /// marker without an open transaction ends nothing. Not cancelled by being dropped.
    ///
    /// # Errors
    /// [`AppendError::Sequence`] if a newer producer epoch or a newer coordinator has written;
    /// [`AppendError::NotOwner`] if the stream is not here (any more); [`AppendError::TimedOut`] if nothing is
    /// known: repeat it.
    pub async fn end_transaction(
        &self,
        stream: StreamId,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        commit: bool,
    ) -> Result<(), AppendError> {
        let (volume, topic) = self.locate(stream).ok_or(AppendError::NotOwner)?;
        let timestamp_ms = self.inner.around.clock.wall_ms();
        let marker = Marker { commit, coordinator_epoch };
        let batch = marker.batch(producer_id, producer_epoch, timestamp_ms);
        let header = BatchHeader {
            producer_id,
            producer_epoch,
            base_sequence: -1,
            offsets: 1,
            max_timestamp: timestamp_ms,
            part: Part::End(marker),
        };
        let log_append_time = topic.config.timestamp_type == TimestampType::LogAppendTime;
        let stream = volume.stream(stream);
        let durable = async {
            let answer = volume.append(stream, batch, header, None, log_append_time).await?;
            answer.await.unwrap_or(Err(AppendError::NotOwner))
        };
        let ended = tokio::time::timeout(self.inner.around.options.append_timeout, durable).await;
        ended.unwrap_or(Err(AppendError::TimedOut)).map(|_| ())
    }

    /// The producers that have written to a stream of late, by id.
    pub fn active_producers(&self, stream: StreamId) -> Result<Vec<ActiveProducer>, TailError> {
        Ok(self.stream(stream)?.1.sequencer.lock().active_producers())
    }
}
