//! What only the embedded store promises: what survives which crash, and what a failing disk does.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::disk::ReplaceError;
use super::*;
use crate::store::conformance;

/// Counts: every draw is another one.
#[derive(Default)]
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            chunk.copy_from_slice(&number.to_le_bytes()[..chunk.len()]);
        }
    }
}

fn entropy() -> Arc<dyn Entropy> {
    Arc::new(Counter::default())
}

type Map = BTreeMap<String, Entry>;

fn map_of(range: Range) -> (Revision, Map) {
    let entries = range.entries.into_iter().map(|entry| (entry.key.clone(), entry));
    (range.revision, entries.collect())
}

async fn map(store: &EmbeddedStore) -> (Revision, Map) {
    map_of(store.range("").await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn conformance_in_a_directory() {
    let dir = TempDir::new().unwrap();
    let count = AtomicU64::new(0);
    conformance::all(async || {
        let dir = dir.path().join(count.fetch_add(1, Ordering::Relaxed).to_string());
        let store: Arc<dyn MetadataStore> =
            Arc::new(EmbeddedStore::open(dir, entropy()).await.unwrap());
        store
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conformance_on_many_threads() {
    conformance::all(async || {
        let store: Arc<dyn MetadataStore> = Arc::new(EmbeddedStore::in_memory(entropy()).unwrap());
        store
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn everything_is_there_again_and_leases_have_their_whole_time() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
    let ttl = Duration::from_secs(10);
    let lease = store.grant_lease(ttl).await.unwrap();
    let ended = store.grant_lease(ttl).await.unwrap();
    store.commit(Txn::new().put("/a", "1").put_leased("/l", "1", lease)).await.unwrap();
    store.commit(Txn::new().put("/a", "2").put_leased("/m", "1", ended)).await.unwrap();
    store.revoke_lease(ended).await.unwrap();
    tokio::time::sleep(ttl - Duration::from_secs(1)).await;
    let before = map(&store).await;
    store.close().await;
    assert!(matches!(
        store.commit(Txn::new().put("/b", "")).await,
        Err(StoreError::Unavailable(_))
    ));

    let store = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
    assert_eq!(map(&store).await, before);
    tokio::time::sleep(ttl - Duration::from_secs(1)).await;
    assert!(store.get("/l").await.unwrap().is_some());
    let mut watch = store.watch("/", before.0).await.unwrap();
    let change = watch.next().await.unwrap();
    assert_eq!(change.events, [Event::Delete { key: "/l".to_owned() }]);
    let next = store.grant_lease(ttl).await.unwrap();
    assert!(next > ended, "lease ids are not used again");
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
    let refused = EmbeddedStore::open(dir.path(), entropy()).await.err().unwrap();
    assert!(refused.to_string().starts_with("another process has the catalog in"));
    store.close().await;
    EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
}

#[tokio::test]
async fn a_watch_that_is_too_far_behind_is_told() {
    let store = EmbeddedStore::in_memory(entropy()).unwrap();
    let mut watch = store.watch("/", Revision(0)).await.unwrap();
    for _ in 0..4097 {
        store.commit(Txn::new().put("/a", "")).await.unwrap();
    }
    assert_eq!(watch.next().await, Err(WatchError::Compacted));
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().revision, Revision(2));
}

#[tokio::test]
async fn a_watch_ends_with_its_store() {
    let store = EmbeddedStore::in_memory(entropy()).unwrap();
    let mut watch = store.watch("/", Revision(0)).await.unwrap();
    store.close().await;
    assert!(matches!(watch.next().await, Err(WatchError::Interrupted(_))));
}

#[tokio::test]
async fn the_log_is_started_over_when_it_outgrows_the_state() {
    let dir = TempDir::new().unwrap();
    let store = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(9)).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    for round in 0..200u8 {
        let txn = Txn::new().put("/a", vec![round; 100 << 10]).put(format!("/k/{round}"), "x");
        store.commit(txn).await.unwrap();
    }
    let before = map(&store).await;
    store.close().await;
    let size = fs::metadata(dir.path().join("catalog.log")).unwrap().len();
    assert!(size < 2 << 20, "20 MB were written and {size} bytes are left");
    let store = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
    assert_eq!(map(&store).await, before);
    let next = store.grant_lease(Duration::from_secs(9)).await.unwrap();
    assert!(next > lease, "a lease id is not used again, even if nothing else is left of it");
}

/// A log of small transactions, with what the state was at each length at which a frame ended.
async fn history(dir: &Path) -> (Vec<u8>, Vec<(usize, (Revision, Map))>) {
    let store = EmbeddedStore::open(dir, entropy()).await.unwrap();
    let file = dir.join("catalog.log");
    let length = || fs::metadata(&file).unwrap().len() as usize;
    let mut states = vec![(length(), map(&store).await)];
    let lease = store.grant_lease(Duration::from_secs(3600)).await.unwrap();
    states.push((length(), map(&store).await));
    for round in 0..12 {
        let key = format!("/k/{}", round % 5);
        let txn = match round % 4 {
            0 => Txn::new().put_leased(&key, "leased", lease),
            3 => Txn::new().delete("/k/1").put("/k/9", "x"),
            _ => Txn::new().put(&key, "value").put(format!("/n/{round}"), "y"),
        };
        store.commit(txn).await.unwrap();
        states.push((length(), map(&store).await));
    }
    store.revoke_lease(lease).await.unwrap();
    states.push((length(), map(&store).await));
    store.close().await;
    (fs::read(file).unwrap(), states)
}

async fn open_bytes(bytes: &[u8]) -> Result<(TempDir, EmbeddedStore), OpenError> {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("catalog.log"), bytes).unwrap();
    let store = EmbeddedStore::open(dir.path(), entropy()).await?;
    Ok((dir, store))
}

#[tokio::test]
async fn a_log_that_is_cut_anywhere_has_all_whole_frames() {
    let dir = TempDir::new().unwrap();
    let (bytes, states) = history(dir.path()).await;
    let base = states[0].0;
    for cut in 0..=bytes.len() {
        let opened = open_bytes(&bytes[..cut]).await;
        if cut < base {
            assert!(matches!(opened, Err(OpenError::Corrupt { .. })), "cut at {cut}");
            continue;
        }
        let (dir, store) = opened.unwrap();
        let whole = states.iter().rev().find(|(length, _)| *length <= cut).unwrap();
        assert_eq!(map(&store).await, whole.1, "cut at {cut}");
        // It goes on from there, and what is added is found again.
        store.commit(Txn::new().put("/more", "1")).await.unwrap();
        let after = map(&store).await;
        store.close().await;
        let again = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
        assert_eq!(map(&again).await, after, "cut at {cut}");
    }
}

#[tokio::test]
async fn damage_is_refused_except_to_the_last_write() {
    let dir = TempDir::new().unwrap();
    let (bytes, states) = history(dir.path()).await;
    let last_frame = states[states.len() - 2].0;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            match open_bytes(&damaged).await {
                Ok((_dir, store)) => {
                    assert!(at >= last_frame, "byte {at} is damaged and nobody noticed");
                    assert_eq!(map(&store).await, states[states.len() - 2].1);
                }
                Err(OpenError::Corrupt { .. }) => assert!(at < last_frame, "byte {at}"),
                Err(OpenError::NewerVersion { .. }) => panic!("byte {at} is taken for a version"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_log_is_refused() {
    for bytes in [&b""[..], b"hello", &[0; 100], &[0xff; 5000]] {
        assert!(matches!(open_bytes(bytes).await, Err(OpenError::Corrupt { .. })));
    }
    // Zeros after the end, as some file systems leave them, are a torn write.
    let dir = TempDir::new().unwrap();
    let (mut bytes, states) = history(dir.path()).await;
    bytes.extend([0; 5000]);
    let (_dir, store) = open_bytes(&bytes).await.unwrap();
    assert_eq!(map(&store).await, states.last().unwrap().1);
}

#[tokio::test]
async fn a_file_half_written_anew_is_ignored() {
    let dir = TempDir::new().unwrap();
    let (_, states) = history(dir.path()).await;
    fs::write(dir.path().join("catalog.log.new"), b"half").unwrap();
    let store = EmbeddedStore::open(dir.path(), entropy()).await.unwrap();
    assert_eq!(map(&store).await, states.last().unwrap().1);
    assert!(!dir.path().join("catalog.log.new").exists());
}

/// What goes wrong with one call of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Nothing is written.
    Refused,
    /// This share of the bytes, in 256ths, is written: ENOSPC, or a crash.
    Torn(u8),
    /// Everything is written, but not known to be durable: EIO of fsync.
    Unsynced,
}

/// A disk that fails by plan. `durable` is what a power loss leaves at least, `file` what was written.
#[derive(Default)]
struct Plan {
    durable: Option<Vec<u8>>,
    file: Option<Vec<u8>>,
    faults: std::collections::VecDeque<Fault>,
    appends: usize,
}

#[derive(Clone, Default)]
struct FaultyDisk(Arc<Mutex<Plan>>);

fn failure() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

impl Disk for FaultyDisk {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().file.clone())
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut plan = self.0.lock();
        plan.appends += 1;
        let fault = plan.faults.pop_front().unwrap_or(Fault::None);
        let written = match fault {
            Fault::None | Fault::Unsynced => bytes.len(),
            Fault::Refused => return Err(failure()),
            Fault::Torn(share) => bytes.len() * usize::from(share) / 256,
        };
        let file = plan.file.as_mut().unwrap();
        assert_eq!(file.len() as u64, at, "frames follow each other");
        file.extend_from_slice(&bytes[..written]);
        if fault != Fault::None {
            return Err(failure());
        }
        plan.durable = plan.file.clone();
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let mut plan = self.0.lock();
        if plan.faults.pop_front().unwrap_or(Fault::None) != Fault::None {
            return Err(failure());
        }
        plan.file.as_mut().unwrap().truncate(len as usize);
        plan.durable = plan.file.clone();
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), ReplaceError> {
        let mut plan = self.0.lock();
        plan.file = Some(bytes.to_vec());
        plan.durable = plan.file.clone();
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = FaultyDisk::default();
    let store = EmbeddedStore::on(Box::new(disk.clone()), entropy()).unwrap();
    store.commit(Txn::new().put("/a", "1")).await.unwrap();
    let before = map(&store).await;
    let full = [Fault::Torn(100), Fault::None, Fault::Torn(255), Fault::Refused, Fault::Refused];
    disk.0.lock().faults.extend(full);
    for _ in 0..3 {
        // The third does not even try to write: the second could not be cut off.
        let answer = store.commit(Txn::new().put("/a", "2").put("/b", "2")).await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert_eq!(map(&store).await, before);
    }
    assert!(disk.0.lock().faults.is_empty());
    store.commit(Txn::new().if_absent("/b").put("/b", "3")).await.unwrap();
    let after = map(&store).await;
    let again = EmbeddedStore::on(Box::new(disk.clone()), entropy()).unwrap();
    assert_eq!(map(&again).await, after);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_late_when_the_disk_is_full_but_is_not_kept_alive() {
    let disk = FaultyDisk::default();
    let store = EmbeddedStore::on(Box::new(disk.clone()), entropy()).unwrap();
    let lease = store.grant_lease(Duration::from_secs(5)).await.unwrap();
    store.commit(Txn::new().put_leased("/a", "1", lease)).await.unwrap();
    disk.0.lock().faults.extend([Fault::Refused, Fault::None, Fault::Refused, Fault::None]);
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseEnded));
    assert!(store.get("/a").await.unwrap().is_some());
    let mut watch = store.watch("/", Revision(1)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().events, [Event::Delete { key: "/a".to_owned() }]);
}

#[tokio::test]
async fn transactions_that_wait_share_a_write() {
    let disk = FaultyDisk::default();
    let store = EmbeddedStore::on(Box::new(disk.clone()), entropy()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..200 {
        let store = store.clone();
        tasks.spawn(
            async move { store.commit(Txn::new().put(format!("/{at}"), "")).await.unwrap() },
        );
    }
    tasks.join_all().await;
    assert_eq!(map(&store).await.1.len(), 200);
    let appends = disk.0.lock().appends;
    assert!(appends <= 10, "{appends} writes for 200 transactions");
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Refused),
        1 => any::<u8>().prop_map(Fault::Torn),
        1 => Just(Fault::Unsynced),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// After any faults and a power loss at the end, what was acknowledged is there, and at most the
    /// last transaction that failed besides.
    #[test]
    fn acknowledged_transactions_survive_a_failing_disk(
        faults in prop::collection::vec(fault(), 0..40),
        keys in prop::collection::vec((0..4u8, any::<bool>()), 1..30),
        left in any::<u8>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let disk = FaultyDisk::default();
            let store = EmbeddedStore::on(Box::new(disk.clone()), entropy()).unwrap();
            disk.0.lock().faults.extend(faults);
            for (at, (key, put)) in keys.iter().enumerate() {
                let key = format!("/{key}");
                let txn = if *put { Txn::new().put(key, at.to_string()) } else { Txn::new().delete(key) };
                let before = map(&store).await;
                if store.commit(txn).await.is_err() {
                    prop_assert_eq!(map(&store).await, before);
                }
            }
            let acknowledged = map(&store).await;
            {
                let mut plan = disk.0.lock();
                let (durable, file) = (plan.durable.clone().unwrap(), plan.file.clone().unwrap());
                prop_assert!(file.starts_with(&durable));
                let kept = (file.len() - durable.len()) * usize::from(left) / 255;
                plan.file = Some(file[..durable.len() + kept].to_vec());
                plan.faults.clear();
            }
            let again = EmbeddedStore::on(Box::new(disk.clone()), entropy()).unwrap();
            let found = map(&again).await;
            if found != acknowledged {
                // Only a frame that was written whole and could not be cut off comes back.
                prop_assert_eq!(found.0.0, acknowledged.0.0 + 1);
            }
            Ok(())
        })?;
    }
}
