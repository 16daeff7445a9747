//! ShareFetch: the session, the acknowledgements that come along, the records.

use std::time::Duration;

use sluice_model::{StreamId, TopicId};
use sluice_wire::messages::share_fetch_request::ShareFetchRequest;
use sluice_wire::messages::share_fetch_response::{
    AcquiredRecords, PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};
use sluice_wire::{Chain, ErrorCode, Str, Uuid};
use tokio::time::Instant;

use super::acknowledge::{Acks, Allowed, Said};
use super::deliver::{Answered, Delivered, Wish};
use super::partition::AckRange;
use super::session::{self, Change, SessionKey, ShareClient};
use super::source::ShareSource;
use super::{Shares, check_ids};

/// `share.acquire.mode` record_limit, from version 2 on (KIP-1206).
const RECORD_LIMIT: i8 = 1;

/// Why a request as a whole is refused.
type Refused = (ErrorCode, Str);

impl Shares {
    /// ShareFetch, versions 1 and 2. Waits for records as a fetch does, and until what is acknowledged is
    /// durable. `max_bytes` bounds the answer's records, but for the first batch.
    pub async fn fetch(
        &self,
        client: ShareClient,
        source: &dyn ShareSource,
        version: i16,
        request: ShareFetchRequest,
        max_bytes: u32,
    ) -> ShareFetchResponse {
        let wait = wait_of(&request);
        match self.fetch_checked(client, source, version, request, max_bytes).await {
            Ok(answer) => answer,
            Err((code, message)) => {
                if code == ErrorCode::ShareSessionLimitReached {
                    // As Kafka does: the client would be back at once.
                    tokio::time::sleep(wait).await;
                }
                ShareFetchResponse {
                    error_code: code.code(),
                    error_message: Some(message),
                    ..Default::default()
                }
            }
        }
    }

    async fn fetch_checked(
        &self,
        client: ShareClient,
        source: &dyn ShareSource,
        version: i16,
        request: ShareFetchRequest,
        max_bytes: u32,
    ) -> Result<ShareFetchResponse, Refused> {
        let tenant = client.tenant;
        let plain = |code: ErrorCode| (code, Str::from_static(code.message()));
        check_ids(request.group_id.as_ref(), request.member_id.as_ref())
            .map_err(|(code, message)| (code, Str::from_static(message)))?;
        self.shared.check_active().map_err(plain)?;
        let allowed = Allowed::of(version, request.is_renew_ack);
        if allowed.renew {
            check_renewal(&request)?;
        }
        let key = SessionKey {
            group: request.group_id.clone().unwrap_or_default(),
            member: request.member_id.clone().unwrap_or_default(),
        };
        let max_bytes = max_bytes.min(u32::try_from(request.max_bytes).unwrap_or(0));
        let wish = Wish {
            group: key.group.clone(),
            member: key.member.clone(),
            min_bytes: u64::try_from(request.min_bytes).unwrap_or(0).min(max_bytes.into()),
            max_bytes,
            max_wait: wait_of(&request),
            max_records: u32::try_from(request.max_records).unwrap_or(0),
            batch_size: u32::try_from(request.batch_size).unwrap_or(0),
            strict: version >= 2 && request.share_acquire_mode == RECORD_LIMIT,
        };
        let epoch = request.share_session_epoch;
        let (change, acks) = parts_of(request);
        let mut streams = self.session(client, &key, epoch, change, &acks).map_err(plain)?;
        // Each in its turn is the first to be looked at.
        if let Some(turn) = usize::try_from(epoch).ok().filter(|_| !streams.is_empty()) {
            let turn = turn % streams.len();
            streams.rotate_left(turn);
        }
        // Staged now, in order with those of other requests; waited for below.
        let said: Vec<_> = acks
            .into_iter()
            .map(|acks| (acks.topic, acks.partition, self.stage(tenant, &key, allowed, &acks)))
            .collect();
        let (released, streams) = if epoch == session::FINAL {
            let ended = self.shared.tenant(tenant).sessions.lock().end(&key);
            (self.release(tenant, &key, &ended.unwrap_or_default()), Vec::new())
        } else if allowed.renew {
            (Vec::new(), Vec::new())
        } else {
            (Vec::new(), streams)
        };
        let settled = async {
            let mut settled = Vec::with_capacity(said.len());
            for (topic, partition, said) in said {
                settled.push((topic, partition, said.await));
            }
            for release in released {
                release.await;
            }
            settled
        };
        let delivered = async {
            if streams.is_empty() {
                return Vec::new();
            }
            self.deliver(tenant, source, &wish, &streams).await
        };
        let (said, delivered) = tokio::join!(settled, delivered);
        let lock_ms = self.shared.settings_of(tenant, &key.group).record_lock_duration_ms;
        let mut answer = Answer { response: ShareFetchResponse::default() };
        answer.response.acquisition_lock_timeout_ms = lock_ms;
        for (stream, given) in delivered {
            answer.give((stream, given), epoch == session::INITIAL);
        }
        for (topic, partition, said) in said {
            answer.say(topic, partition, said);
        }
        Ok(answer.response)
    }

    /// Finds, begins or ends the session; gives the streams to fetch.
    fn session(
        &self,
        client: ShareClient,
        key: &SessionKey,
        epoch: i32,
        change: Change,
        acks: &[Acks],
    ) -> Result<Vec<StreamId>, ErrorCode> {
        let of = self.shared.tenant(client.tenant);
        let now = Instant::now();
        match epoch {
            session::FINAL if of.sessions.lock().contains(key) => Ok(Vec::new()),
            session::FINAL => Err(ErrorCode::ShareSessionNotFound),
            session::INITIAL if !acks.is_empty() => Err(ErrorCode::InvalidRequest),
            session::INITIAL => {
                let limits = &self.shared.limits;
                let idle = {
                    let sessions = of.sessions.lock();
                    let full = sessions.len() >= limits.max_sessions;
                    if full { sessions.idle(limits.idle_session, now) } else { Vec::new() }
                };
                for key in idle {
                    self.end_session(client.tenant, &key);
                }
                let mut sessions = of.sessions.lock();
                let key = key.clone();
                sessions.begin(key, client.connection, change.added, limits.max_sessions, now)
            }
            _ => of.sessions.lock().go_on(key, epoch, change, now),
        }
    }
}

fn wait_of(request: &ShareFetchRequest) -> Duration {
    Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0))
}

/// A request that renews fetches nothing, and has to say so (KIP-1222).
fn check_renewal(request: &ShareFetchRequest) -> Result<(), Refused> {
    let fields = [
        (request.max_bytes, "maxBytes"),
        (request.min_bytes, "minBytes"),
        (request.max_records, "maxRecords"),
        (request.max_wait_ms, "maxWaitMs"),
    ];
    let wrong: Vec<_> =
        fields.iter().filter(|(value, _)| *value != 0).map(|(_, name)| *name).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("{} must be 0 if isRenewAck is true", wrong.join(", "));
    Err((ErrorCode::InvalidRequest, Str::from(message)))
}

/// What a request changes in the session, and what it acknowledges.
fn parts_of(request: ShareFetchRequest) -> (Change, Vec<Acks>) {
    let stream = |topic: Uuid, partition: i32| {
        // A partition below 0 is nobody's; 2^31 and above are none's either.
        StreamId { topic: TopicId(topic.0), partition: partition.cast_unsigned() }
    };
    let mut change = Change::default();
    let mut acks = Vec::new();
    for topic in request.topics {
        for partition in topic.partitions {
            change.added.push(stream(topic.topic_id, partition.partition_index));
            if partition.acknowledgement_batches.is_empty() {
                continue;
            }
            let ranges = partition.acknowledgement_batches.into_iter().map(|batch| AckRange {
                first: batch.first_offset,
                last: batch.last_offset,
                types: batch.acknowledge_types,
            });
            acks.push(Acks {
                topic: topic.topic_id,
                partition: partition.partition_index,
                ranges: ranges.collect(),
            });
        }
    }
    for topic in request.forgotten_topics_data {
        let partitions = topic.partitions.into_iter();
        change.forgotten.extend(partitions.map(|partition| stream(topic.topic_id, partition)));
    }
    (change, acks)
}

/// An answer that is put together.
struct Answer {
    response: ShareFetchResponse,
}

impl Answer {
    /// What a stream gave. In a session that goes on, a stream that gave nothing is not told of.
    fn give(&mut self, (stream, given): Answered, tell_all: bool) {
        let (code, delivered) = match given {
            Ok(delivered) => (ErrorCode::None, delivered),
            Err(code) => (code, Delivered::default()),
        };
        if !tell_all && code.is_none() && delivered.acquired.is_empty() {
            return;
        }
        let place = self.place(Uuid(stream.topic.0), stream.partition.cast_signed());
        place.error_code = code.code();
        if !code.is_none() {
            place.error_message = Some(Str::from_static(code.message()));
        }
        place.records = Some(delivered.records);
        let acquired = delivered.acquired.iter().map(|range| AcquiredRecords {
            first_offset: range.first,
            last_offset: range.end - 1,
            delivery_count: i16::try_from(range.deliveries).unwrap_or(i16::MAX),
        });
        place.acquired_records = acquired.collect();
    }

    fn say(&mut self, topic: Uuid, partition: i32, said: Said) {
        let place = self.place(topic, partition);
        place.acknowledge_error_code = said.code.code();
        place.acknowledge_error_message = said.message;
    }

    fn place(&mut self, topic_id: Uuid, partition_index: i32) -> &mut PartitionData {
        let topics = &mut self.response.responses;
        let topic = match topics.iter().position(|topic| topic.topic_id == topic_id) {
            Some(at) => at,
            None => {
                topics.push(ShareFetchableTopicResponse { topic_id, partitions: Vec::new() });
                topics.len() - 1
            }
        };
        let partitions = &mut topics[topic].partitions;
        let partition = match partitions.iter().position(|p| p.partition_index == partition_index) {
            Some(at) => at,
            None => {
                // Empty, not null: some clients take null for a broken answer.
                let records = Some(Chain::new());
                partitions.push(PartitionData { partition_index, records, ..Default::default() });
                partitions.len() - 1
            }
        };
        &mut partitions[partition]
    }
}
