//! The coordinator as its callers see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{Clock, StreamId, TenantId, TopicId};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{
    Claim, Listing, Marker, Markers, Participants, ProducerIds, Told, TransactionConfig,
    TransactionCoordinator, TransactionMetrics,
};
use crate::group::log::{CoordinatorLog, CoordinatorState, LogError, LogRecord};

const TENANT: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);
const TIMEOUT_MS: i32 = 60_000;
const EPOCH: i32 = 9;

/// Wall time that follows the runtime's.
struct TestClock(Instant);

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        1_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

struct Ids(AtomicI64);

#[async_trait]
impl ProducerIds for Ids {
    async fn next(&self) -> Result<i64, ErrorCode> {
        Ok(self.0.fetch_add(1, Ordering::SeqCst))
    }
}

/// A log in memory, which applies as the real one does.
struct MemoryLog {
    state: Arc<TransactionCoordinator>,
    records: Arc<Mutex<Vec<LogRecord>>>,
    /// While closed, nothing becomes durable.
    is_open: watch::Receiver<bool>,
    /// The next append becomes durable, and says that it is not known.
    is_unsure: AtomicBool,
}

#[async_trait]
impl CoordinatorLog for MemoryLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<(), LogError> {
        let mut is_open = self.is_open.clone();
        is_open.wait_for(|is_open| *is_open).await.map_err(|_| LogError::NotOwner)?;
        for record in &records {
            self.state.apply(&record.key, record.value.as_deref()).unwrap();
        }
        self.records.lock().extend(records);
        match self.is_unsure.swap(false, Ordering::SeqCst) {
            true => Err(LogError::Unavailable),
            false => Ok(()),
        }
    }
}

/// Who was told what; they listen only while open.
struct Ears {
    is_open: watch::Receiver<bool>,
    told: Mutex<Vec<(Marker, String)>>,
    refusals: Mutex<BTreeMap<String, u32>>,
}

impl Ears {
    async fn hear(&self, marker: Marker, who: String) -> Told {
        let mut is_open = self.is_open.clone();
        if is_open.wait_for(|is_open| *is_open).await.is_err() {
            return Told::NotYet;
        }
        if let Some(left) = self.refusals.lock().get_mut(&who)
            && *left > 0
        {
            *left -= 1;
            return Told::NotYet;
        }
        self.told.lock().push((marker, who));
        Told::Yes
    }
}

#[async_trait]
impl Markers for Ears {
    async fn tell_stream(&self, marker: Marker, stream: StreamId) -> Told {
        self.hear(marker, stream.partition.to_string()).await
    }

    async fn tell_group(&self, marker: Marker, group: &Str) -> Told {
        self.hear(marker, group.to_string()).await
    }
}

struct Rig {
    coordinator: Arc<TransactionCoordinator>,
    records: Arc<Mutex<Vec<LogRecord>>>,
    log: Arc<MemoryLog>,
    log_open: watch::Sender<bool>,
    ears: Arc<Ears>,
    ears_open: watch::Sender<bool>,
    metrics: TransactionMetrics,
    clock: Arc<TestClock>,
}

impl Rig {
    fn new() -> Self {
        Self::with(TransactionConfig::default())
    }

    fn with(config: TransactionConfig) -> Self {
        Self::recover(config, &[], 0, Arc::new(TestClock(Instant::now())))
    }

    /// A coordinator that has read these records.
    fn recover(
        config: TransactionConfig,
        records: &[LogRecord],
        first_id: i64,
        clock: Arc<TestClock>,
    ) -> Self {
        let ids = Arc::new(Ids(AtomicI64::new(first_id)));
        let metrics = TransactionMetrics::default();
        let coordinator =
            TransactionCoordinator::new(config, Arc::clone(&clock) as _, ids, metrics.clone());
        let coordinator = Arc::new(coordinator);
        for record in records {
            coordinator.apply(&record.key, record.value.as_deref()).unwrap();
        }
        let (log_open, is_open) = watch::channel(true);
        let records = Arc::new(Mutex::new(records.to_vec()));
        let log = Arc::new(MemoryLog {
            state: Arc::clone(&coordinator),
            records: Arc::clone(&records),
            is_open,
            is_unsure: AtomicBool::new(false),
        });
        let (ears_open, is_open) = watch::channel(true);
        let ears = Arc::new(Ears { is_open, told: Mutex::default(), refusals: Mutex::default() });
        coordinator.start(Arc::clone(&log) as _, Arc::clone(&ears) as _, EPOCH);
        Self { coordinator, records, log, log_open, ears, ears_open, metrics, clock }
    }

    /// The next owner, after this one is gone.
    fn crash(self, config: TransactionConfig) -> Self {
        self.coordinator.close();
        let records = self.records.lock().clone();
        Self::recover(config, &records, 1_000, Arc::clone(&self.clock))
    }

    async fn init(&self, id: &str) -> Result<(i64, i16), ErrorCode> {
        self.coordinator.init_producer(TENANT, id, TIMEOUT_MS, None).await
    }

    async fn add(&self, claim: Claim<'_>, partition: u32) -> Result<(), ErrorCode> {
        self.coordinator.add(claim, streams(&[partition]), true).await
    }

    fn state(&self, id: &str) -> &'static str {
        self.coordinator.describe(TENANT, id).map_or("", |described| described.state)
    }

    async fn becomes(&self, id: &str, state: &str) {
        let reached = async {
            while self.state(id) != state {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), reached).await;
        assert!(waited.is_ok(), "{id} is {} and not {state}", self.state(id));
    }

    /// Who was told, and of what: sorted.
    fn told(&self) -> Vec<(String, i16, bool)> {
        let told = self.ears.told.lock();
        let one = |(marker, who): &(Marker, String)| {
            assert_eq!((marker.tenant, marker.coordinator_epoch), (TENANT, EPOCH));
            (who.clone(), marker.producer_epoch, marker.commit)
        };
        let mut told: Vec<_> = told.iter().map(one).collect();
        told.sort();
        told
    }
}

fn streams(partitions: &[u32]) -> Participants {
    let stream = |partition: &u32| StreamId { topic: TopicId([7; 16]), partition: *partition };
    Participants { streams: partitions.iter().map(stream).collect(), groups: BTreeSet::new() }
}

fn claim(id: &str, (producer_id, producer_epoch): (i64, i16)) -> Claim<'_> {
    Claim { tenant: TENANT, transactional_id: id, producer_id, producer_epoch }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_committed_and_everyone_is_told() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    assert_eq!(producer.1, 0);
    rig.add(claim("tx", producer), 0).await.unwrap();
    let more = Participants { groups: [Str::from("g")].into(), ..streams(&[0, 1]) };
    let missing = rig.coordinator.missing(claim("tx", producer), &more).await.unwrap();
    assert_eq!(missing, Participants { groups: more.groups.clone(), ..streams(&[1]) });
    rig.coordinator.add(claim("tx", producer), more.clone(), true).await.unwrap();
    let missing = rig.coordinator.missing(claim("tx", producer), &more).await.unwrap();
    assert!(missing.is_empty());
    assert_eq!(rig.metrics.open.get(), 1);
    let next = rig.coordinator.end(claim("tx", producer), true, true).await.unwrap();
    assert_eq!(next, Some((producer.0, 1)));
    rig.becomes("tx", "CompleteCommit").await;
    let told = ["0", "1", "g"].map(|who| (who.to_owned(), 1, true));
    assert_eq!(rig.told(), told);
    assert_eq!((rig.metrics.open.get(), rig.metrics.committed.get()), (0, 1));
    // The next begins at once, and is aborted.
    let producer = (producer.0, 1);
    rig.add(claim("tx", producer), 2).await.unwrap();
    rig.coordinator.end(claim("tx", producer), false, true).await.unwrap();
    rig.becomes("tx", "CompleteAbort").await;
    assert!(rig.told().contains(&("2".to_owned(), 2, false)));
    assert_eq!(rig.metrics.aborted.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_markers_are_written_waits_for_them_a_while() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.add(claim("tx", producer), 0).await.unwrap();
    rig.ears_open.send_replace(false);
    let (_, epoch) = rig.coordinator.end(claim("tx", producer), true, true).await.unwrap().unwrap();
    let next = (producer.0, epoch);
    let busy = rig.add(claim("tx", next), 1).await;
    assert_eq!(busy, Err(ErrorCode::ConcurrentTransactions), "not for ever");
    assert_eq!(rig.init("tx").await, Err(ErrorCode::ConcurrentTransactions));
    let (added, ()) = tokio::join!(rig.add(claim("tx", next), 1), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.ears_open.send_replace(true);
    });
    assert_eq!(added, Ok(()));
    assert_eq!(rig.state("tx"), "Ongoing");
}

/// franz-go aborts at once what it began after a commit and never wrote to.
#[tokio::test(start_paused = true)]
async fn an_end_under_the_new_epoch_waits_for_the_markers_of_the_end_before() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.add(claim("tx", producer), 0).await.unwrap();
    rig.ears_open.send_replace(false);
    let (_, epoch) = rig.coordinator.end(claim("tx", producer), true, true).await.unwrap().unwrap();
    let next = (producer.0, epoch);
    let (aborted, ()) = tokio::join!(rig.coordinator.end(claim("tx", next), false, true), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        rig.ears_open.send_replace(true);
    });
    assert_eq!(aborted, Ok(Some((producer.0, epoch + 1))));
    rig.becomes("tx", "CompleteAbort").await;
    assert_eq!(rig.told(), [("0".to_owned(), epoch, true)], "the abort had nothing to mark");
}

#[tokio::test(start_paused = true)]
async fn a_second_instance_takes_over_after_the_abort_of_what_was_open() {
    let rig = Rig::new();
    let first = rig.init("tx").await.unwrap();
    rig.add(claim("tx", first), 0).await.unwrap();
    assert_eq!(rig.init("tx").await, Err(ErrorCode::ConcurrentTransactions));
    rig.becomes("tx", "CompleteAbort").await;
    assert_eq!(rig.told(), [("0".to_owned(), 1, false)]);
    let second = rig.init("tx").await.unwrap();
    assert_eq!(second, (first.0, 2));
    assert_eq!(rig.metrics.fenced.get(), 1);
    let fenced = rig.coordinator.end(claim("tx", first), true, true).await;
    assert_eq!(fenced, Err(ErrorCode::ProducerFenced));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_past_its_timeout_is_aborted_under_a_new_epoch() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.add(claim("tx", producer), 0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(TIMEOUT_MS as u64 - 1_000)).await;
    // More of the same transaction gives it no more time.
    rig.add(claim("tx", producer), 1).await.unwrap();
    assert_eq!(rig.state("tx"), "Ongoing");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    rig.becomes("tx", "CompleteAbort").await;
    let told = ["0", "1"].map(|who| (who.to_owned(), 1, false));
    assert_eq!(rig.told(), told);
    assert_eq!((rig.metrics.timed_out.get(), rig.metrics.open.get()), (1, 0));
    // The next one has its own time.
    rig.add(claim("tx", (producer.0, 1)), 0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(TIMEOUT_MS as u64 / 2)).await;
    assert_eq!(rig.state("tx"), "Ongoing");
}

#[tokio::test(start_paused = true)]
async fn the_next_owner_finishes_what_was_decided_and_times_out_what_was_open() {
    let rig = Rig::new();
    let decided = rig.init("decided").await.unwrap();
    let open = rig.init("open").await.unwrap();
    rig.add(claim("decided", decided), 0).await.unwrap();
    rig.add(claim("open", open), 1).await.unwrap();
    rig.ears_open.send_replace(false);
    rig.coordinator.end(claim("decided", decided), true, false).await.unwrap();
    assert_eq!(rig.state("decided"), "PrepareCommit");
    tokio::time::sleep(Duration::from_millis(TIMEOUT_MS as u64 / 2)).await;
    let next = rig.crash(TransactionConfig::default());
    next.becomes("decided", "CompleteCommit").await;
    assert_eq!(next.told(), [("0".to_owned(), 0, true)]);
    assert_eq!(next.state("open"), "Ongoing");
    assert_eq!(next.metrics.open.get(), 1);
    // It had half of its time left.
    tokio::time::sleep(Duration::from_millis(TIMEOUT_MS as u64 / 2 + 1_000)).await;
    next.becomes("open", "CompleteAbort").await;
    // And every later owner sees the same.
    let last = next.crash(TransactionConfig::default());
    assert_eq!((last.state("decided"), last.state("open")), ("CompleteCommit", "CompleteAbort"));
    assert!(last.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn markers_are_written_until_each_is_and_a_deleted_client_changes_nothing() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.coordinator.add(claim("tx", producer), streams(&[0, 1]), false).await.unwrap();
    rig.ears.refusals.lock().insert("1".to_owned(), 5);
    {
        let end = rig.coordinator.end(claim("tx", producer), true, false);
        tokio::pin!(end);
        // Polled once: the decision is queued. Then the client is gone.
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(end.as_mut().poll(cx).is_pending()));
        assert!(polled.await);
    }
    rig.becomes("tx", "CompleteCommit").await;
    let told = ["0", "1"].map(|who| (who.to_owned(), 0, true));
    assert_eq!(rig.told(), told, "each once");
}

#[tokio::test(start_paused = true)]
async fn a_decision_in_doubt_is_logged_again_and_nothing_else_is_decided_meanwhile() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.add(claim("tx", producer), 0).await.unwrap();
    rig.log.is_unsure.store(true, Ordering::SeqCst);
    rig.coordinator.end(claim("tx", producer), true, false).await.unwrap();
    rig.becomes("tx", "CompleteCommit").await;
    let records = rig.records.lock().clone();
    let prepared: Vec<_> = records.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert_eq!(prepared.len(), 1, "once more, with the same bytes");
    // A log that does not answer: the client is told to ask again, and the decision stands.
    rig.add(claim("tx", producer), 0).await.unwrap();
    rig.log_open.send_replace(false);
    let unknown = rig.coordinator.end(claim("tx", producer), true, false).await;
    assert_eq!(unknown, Err(ErrorCode::CoordinatorNotAvailable));
    let other = rig.coordinator.end(claim("tx", producer), false, false).await;
    assert_eq!(other, Err(ErrorCode::ConcurrentTransactions));
    rig.log_open.send_replace(true);
    rig.becomes("tx", "CompleteCommit").await;
    assert_eq!(rig.coordinator.end(claim("tx", producer), true, false).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn concurrent_adds_of_one_producer_all_succeed() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    let adds = (0..20).map(|partition| rig.add(claim("tx", producer), partition));
    let added = futures_util::future::join_all(adds).await;
    assert!(added.iter().all(Result::is_ok), "{added:?}");
    let described = rig.coordinator.describe(TENANT, "tx").unwrap();
    assert_eq!(described.streams.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn tenants_do_not_see_each_other() {
    let rig = Rig::new();
    let own = rig.init("tx").await.unwrap();
    rig.add(claim("tx", own), 0).await.unwrap();
    let stolen = Claim { tenant: OTHER, ..claim("tx", own) };
    let mapping = Err(ErrorCode::InvalidProducerIdMapping);
    assert_eq!(rig.coordinator.add(stolen, streams(&[0]), true).await, mapping);
    let ended = rig.coordinator.end(stolen, false, true).await;
    assert_eq!(ended, Err(ErrorCode::InvalidProducerIdMapping));
    let absent = rig.coordinator.describe(OTHER, "tx").map(|found| found.state);
    assert_eq!(absent, Err(ErrorCode::TransactionalIdNotFound));
    assert!(rig.coordinator.list(OTHER, &Listing::default()).unwrap().0.is_empty());
    // The same id of another tenant is another id, with a producer id of its own, and fences nobody.
    let other = rig.coordinator.init_producer(OTHER, "tx", TIMEOUT_MS, None).await.unwrap();
    assert_ne!(other.0, own.0);
    let recovers = rig.coordinator.init_producer(OTHER, "tx", TIMEOUT_MS, Some(own)).await;
    assert_eq!(recovers, Err(ErrorCode::ProducerFenced));
    assert_eq!(rig.state("tx"), "Ongoing");
}

#[tokio::test(start_paused = true)]
async fn ids_that_nobody_uses_are_forgotten_and_their_number_is_bounded() {
    let config = TransactionConfig {
        max_ids_per_tenant: 2,
        id_expiration_ms: 10_000,
        ..TransactionConfig::default()
    };
    let rig = Rig::with(config.clone());
    rig.init("a").await.unwrap();
    let open = rig.init("b").await.unwrap();
    rig.add(claim("b", open), 0).await.unwrap();
    assert_eq!(rig.init("c").await, Err(ErrorCode::PolicyViolation));
    assert!(rig.coordinator.init_producer(OTHER, "c", TIMEOUT_MS, None).await.is_ok());
    tokio::time::sleep(Duration::from_secs(11)).await;
    let gone = rig.coordinator.describe(TENANT, "a").map(|found| found.state);
    assert_eq!(gone, Err(ErrorCode::TransactionalIdNotFound));
    assert_eq!(rig.state("b"), "Ongoing", "it is used");
    assert!(rig.init("c").await.is_ok());
    let next = rig.crash(config);
    let (listed, _) = next.coordinator.list(TENANT, &Listing::default()).unwrap();
    let ids: Vec<&str> = listed.iter().map(|listed| &*listed.transactional_id).collect();
    assert_eq!(ids, ["b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_right_are_refused_before_anything_is_kept() {
    let config = TransactionConfig { max_streams: 2, ..TransactionConfig::default() };
    let rig = Rig::with(config);
    let init =
        |id: &'static str, timeout_ms| rig.coordinator.init_producer(TENANT, id, timeout_ms, None);
    assert_eq!(init("", 1).await, Err(ErrorCode::InvalidRequest));
    assert_eq!(init("tx", 0).await, Err(ErrorCode::InvalidTransactionTimeout));
    assert_eq!(init("tx", 900_001).await, Err(ErrorCode::InvalidTransactionTimeout));
    assert!(rig.coordinator.list(TENANT, &Listing::default()).unwrap().0.is_empty());
    let producer = rig.init("tx").await.unwrap();
    rig.coordinator.add(claim("tx", producer), streams(&[0, 1]), true).await.unwrap();
    assert_eq!(rig.add(claim("tx", producer), 1).await, Ok(()));
    assert_eq!(rig.add(claim("tx", producer), 2).await, Err(ErrorCode::PolicyViolation));
}

#[tokio::test(start_paused = true)]
async fn lists_are_filtered_by_state_producer_age_and_pattern() {
    let rig = Rig::new();
    let old = rig.init("app-1").await.unwrap();
    rig.add(claim("app-1", old), 0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let young = rig.init("app-2").await.unwrap();
    rig.add(claim("app-2", young), 0).await.unwrap();
    let idle = rig.init("idle").await.unwrap();
    let list = |wanted: Listing| {
        let (found, unknown) = rig.coordinator.list(TENANT, &wanted)?;
        let ids: Vec<String> = found.iter().map(|f| f.transactional_id.to_string()).collect();
        Ok::<_, ErrorCode>((ids.join(" "), unknown))
    };
    let all = Listing { longer_than_ms: -1, ..Listing::default() };
    let with = |change: &dyn Fn(&mut Listing)| {
        let mut wanted = all.clone();
        change(&mut wanted);
        list(wanted)
    };
    let found = |text: &str| Ok((text.to_owned(), Vec::new()));
    assert_eq!(with(&|_| {}), found("app-1 app-2 idle"));
    assert_eq!(with(&|l| l.states = vec!["Ongoing".into(), "Dead".into()]), found("app-1 app-2"));
    let unknown = with(&|l| l.states = vec!["Nowhere".into()]);
    assert_eq!(unknown, Ok((String::new(), vec!["Nowhere".into()])));
    assert_eq!(with(&|l| l.producer_ids = vec![idle.0]), found("idle"));
    assert_eq!(with(&|l| l.longer_than_ms = 4_000), found("app-1 idle"));
    assert_eq!(with(&|l| l.pattern = Some("app-.*".into())), found("app-1 app-2"));
    assert_eq!(with(&|l| l.pattern = Some("pp-1".into())), found(""), "the whole id");
    assert_eq!(with(&|l| l.pattern = Some(Str::default())), found("app-1 app-2 idle"));
    for bad in ["(", "a)|(b"] {
        let refused = with(&|l| l.pattern = Some(bad.into()));
        assert_eq!(refused, Err(ErrorCode::InvalidRegularExpression), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_the_state() {
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.add(claim("tx", producer), 3).await.unwrap();
    rig.init("idle").await.unwrap();
    let mut pairs: Vec<LogRecord> = Vec::new();
    let mut emit = |key: Bytes, value: Bytes| pairs.push(LogRecord { key, value: Some(value) });
    rig.coordinator.snapshot(&mut emit);
    let clock = Arc::clone(&rig.clock);
    let copy = Rig::recover(TransactionConfig::default(), &pairs, 1_000, clock);
    for id in ["tx", "idle"] {
        assert_eq!(copy.coordinator.describe(TENANT, id), rig.coordinator.describe(TENANT, id));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_served_before_recovery_and_after_the_end() {
    let clock = Arc::new(TestClock(Instant::now()));
    let ids = Arc::new(Ids(AtomicI64::new(0)));
    let metrics = TransactionMetrics::default();
    let loading = TransactionCoordinator::new(TransactionConfig::default(), clock, ids, metrics);
    let asked = loading.init_producer(TENANT, "tx", 1, None).await;
    assert_eq!(asked, Err(ErrorCode::CoordinatorLoadInProgress));
    let rig = Rig::new();
    let producer = rig.init("tx").await.unwrap();
    rig.coordinator.close();
    assert_eq!(rig.add(claim("tx", producer), 0).await, Err(ErrorCode::NotCoordinator));
}
