//! Offsets that are committed by transactions.

use proptest::prelude::*;

use super::*;
use crate::group::{TransactionalCommit, TransactionalOffset};

fn in_transaction(
    group: &str,
    (producer_id, producer_epoch): (i64, i16),
    offsets: &[(i32, i64)],
) -> TransactionalCommit {
    let offsets = offsets.iter().map(|(partition, offset)| TransactionalOffset {
        topic: TOPIC,
        partition: *partition,
        offset: *offset,
        leader_epoch: 3,
        metadata: Some(Str::from_static("note")),
    });
    TransactionalCommit {
        group_id: Str::from(group),
        producer_id,
        producer_epoch,
        generation_id: -1,
        member_id: Str::default(),
        group_instance_id: None,
        offsets: offsets.collect(),
    }
}

impl Rig {
    async fn pend(&self, commit: &TransactionalCommit) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.groups.commit_transactional(&caller(), commit, || std::future::ready(Ok(()))).await
    }

    async fn end(&self, group: &str, (producer_id, epoch): (i64, i16), commit: bool) {
        let group = Str::from(group);
        self.groups.end_transaction(TENANT, &group, producer_id, epoch, commit).await.unwrap();
    }

    /// The offset of a partition and its code.
    async fn stable_offset(&self, group: &str, partition: i32) -> (i64, ErrorCode) {
        let found = self.fetch(&caller(), group, Some(&[partition]), true).await;
        let found = &found.topics[0].partitions[0];
        (found.committed_offset, ErrorCode::from_code(found.error_code))
    }
}

const P: (i64, i16) = (7, 0);

fn good(codes: usize) -> Result<Vec<ErrorCode>, ErrorCode> {
    Ok(vec![ErrorCode::None; codes])
}

#[tokio::test(start_paused = true)]
async fn an_offset_waits_for_its_transaction_and_is_committed_by_it() {
    let mut rig = Rig::new();
    rig.commit("g", 0, 5).await;
    for (outcome, expected) in [(false, 5), (true, 9)] {
        assert_eq!(rig.pend(&in_transaction("g", P, &[(0, 9), (1, 4)])).await, good(2));
        for _ in 0..2 {
            assert_eq!(rig.offset("g").await, 5, "not seen before it is decided");
            let unstable = (-1, ErrorCode::UnstableOffsetCommit);
            assert_eq!(rig.stable_offset("g", 0).await, unstable);
            assert_eq!(rig.stable_offset("g", 1).await, unstable);
            assert_eq!(rig.stable_offset("g", 2).await, (-1, ErrorCode::None));
            rig = rig.restarted();
        }
        rig.end("g", P, outcome).await;
        for _ in 0..2 {
            assert_eq!(rig.stable_offset("g", 0).await, (expected, ErrorCode::None));
            rig = rig.restarted();
        }
    }
    assert_eq!(rig.stable_offset("g", 1).await, (4, ErrorCode::None));
    let appends = rig.log.appends();
    rig.end("g", P, true).await;
    rig.end("another", P, true).await;
    assert_eq!(rig.log.appends(), appends, "nothing to end, nothing to log");
}

#[tokio::test(start_paused = true)]
async fn the_coordinator_is_asked_once_a_transaction() {
    let rig = Rig::new();
    let asked = AtomicUsize::new(0);
    let answer = Mutex::new(Err(ErrorCode::InvalidTxnState));
    let vouch = || {
        asked.fetch_add(1, Ordering::Relaxed);
        std::future::ready(*answer.lock())
    };
    let commit = in_transaction("g", P, &[(0, 9)]);
    let refused = rig.groups.commit_transactional(&caller(), &commit, vouch).await;
    assert_eq!(refused, Err(ErrorCode::InvalidTxnState));
    assert_eq!(rig.log.appends(), 0);
    *answer.lock() = Ok(());
    for _ in 0..3 {
        assert_eq!(rig.groups.commit_transactional(&caller(), &commit, vouch).await, good(1));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let zombie = in_transaction("g", (7, -1), &[(0, 8)]);
    let refused = rig.groups.commit_transactional(&caller(), &zombie, vouch).await;
    assert_eq!(refused, Err(ErrorCode::InvalidProducerEpoch));
    rig.end("g", P, true).await;
    assert_eq!(rig.groups.commit_transactional(&caller(), &commit, vouch).await, good(1));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_transaction_ends_before_it_leaves_nothing_waiting() {
    let rig = Rig::new();
    let commit = in_transaction("g", P, &[(0, 9)]);
    let asked = AtomicUsize::new(0);
    // The coordinator vouches, and then the transaction ends before the commit is made.
    let caller = caller();
    let answer = rig.groups.commit_transactional(&caller, &commit, || async {
        if asked.fetch_add(1, Ordering::Relaxed) > 0 {
            return Err(ErrorCode::InvalidTxnState);
        }
        rig.end("g", P, false).await;
        Ok(())
    });
    assert_eq!(answer.await, Err(ErrorCode::InvalidTxnState));
    assert_eq!(rig.stable_offset("g", 0).await, (-1, ErrorCode::None));
    assert!(rig.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_a_plain_and_a_transactional_commit_the_later_one_counts() {
    let rig = Rig::new();
    rig.pend(&in_transaction("g", P, &[(0, 9)])).await.unwrap();
    rig.commit("g", 0, 5).await;
    rig.end("g", P, true).await;
    assert_eq!(rig.offset("g").await, 5);
    // Two transactions: the one that committed later counts, whichever ends first.
    for first_ends_first in [true, false] {
        let (one, two) = ((1, 0), (2, 0));
        rig.pend(&in_transaction("g", one, &[(0, 10)])).await.unwrap();
        rig.pend(&in_transaction("g", two, &[(0, 20)])).await.unwrap();
        let (a, b) = if first_ends_first { (one, two) } else { (two, one) };
        rig.end("g", a, true).await;
        rig.end("g", b, true).await;
        assert_eq!(rig.offset("g").await, 20);
    }
}

#[tokio::test(start_paused = true)]
async fn members_are_checked_unless_the_client_is_too_old_to_say_who_it_is() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    let commit = in_transaction("g", P, &[(0, 9)]);
    assert_eq!(rig.pend(&commit).await, good(1), "before KIP-447");
    let with = |member_id: &Str, generation_id: i32| TransactionalCommit {
        member_id: member_id.clone(),
        generation_id,
        ..commit.clone()
    };
    let generation = joined.generation_id;
    assert_eq!(rig.pend(&with(&joined.member_id, generation)).await, good(1));
    let old = rig.pend(&with(&joined.member_id, generation - 1)).await;
    assert_eq!(old, Err(ErrorCode::IllegalGeneration));
    let stranger = rig.pend(&with(&Str::from("x"), generation)).await;
    assert_eq!(stranger, Err(ErrorCode::UnknownMemberId));
    let absent = TransactionalCommit { group_id: Str::from("absent"), ..with(&Str::from("x"), 1) };
    assert_eq!(rig.pend(&absent).await, Err(ErrorCode::IllegalGeneration));
    let unnamed = TransactionalCommit { group_id: Str::default(), ..commit.clone() };
    assert_eq!(rig.pend(&unnamed).await, Err(ErrorCode::InvalidGroupId));
    // A rebalance under way does not matter (KIP-447: the generation does).
    let joining = rig.join("g", "").await;
    assert_eq!(joining.error_code, ErrorCode::MemberIdRequired.code());
    assert_eq!(rig.pend(&with(&joined.member_id, generation)).await, good(1));
}

#[tokio::test(start_paused = true)]
async fn deleting_takes_what_waits_along() {
    let rig = Rig::new();
    rig.pend(&in_transaction("g", P, &[(0, 9), (1, 9)])).await.unwrap();
    let deleted = rig.groups.offset_delete(&caller(), &Str::from("g"), &[(TOPIC, 0)]).await;
    assert_eq!(deleted, Ok(vec![ErrorCode::None]));
    rig.end("g", P, true).await;
    assert_eq!(rig.stable_offset("g", 0).await, (-1, ErrorCode::None));
    assert_eq!(rig.stable_offset("g", 1).await, (9, ErrorCode::None));
    rig.pend(&in_transaction("g", P, &[(1, 10)])).await.unwrap();
    rig.groups.forget_topic(TENANT, TOPIC).await.unwrap();
    assert!(rig.snapshot().is_empty());
    rig.end("g", P, true).await;
    assert!(rig.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn retention_leaves_what_waits_and_its_group() {
    let rig = Rig::with(GroupConfig {
        offsets_retention_ms: 1_000,
        retention_check_interval: Duration::from_secs(1),
        ..GroupConfig::default()
    });
    rig.commit("g", 0, 5).await;
    rig.pend(&in_transaction("g", P, &[(0, 9)])).await.unwrap();
    rig.seams.wall_ms.store(10_000, Ordering::Relaxed);
    pass(Duration::from_secs(3)).await;
    assert_eq!(rig.offset("g").await, 5);
    rig.end("g", P, false).await;
    pass(Duration::from_secs(3)).await;
    assert_eq!(rig.offset("g").await, -1);
    assert!(rig.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waits_counts_against_the_groups_bound() {
    let rig = Rig::with(GroupConfig { max_offsets_per_group: 2, ..GroupConfig::default() });
    let codes = rig.pend(&in_transaction("g", P, &[(0, 1), (1, 1), (2, 1)])).await.unwrap();
    let full = ErrorCode::InvalidCommitOffsetSize;
    assert_eq!(codes, [ErrorCode::None, ErrorCode::None, full]);
    assert_eq!(rig.pend(&in_transaction("g", (8, 0), &[(3, 1)])).await, Ok(vec![full]));
}

/// What is done to one group.
#[derive(Clone, Copy, Debug)]
enum Step {
    Plain {
        partition: i32,
    },
    Pend {
        producer: i64,
        partition: i32,
    },
    End {
        producer: i64,
        commit: bool,
    },
    Restart,
    /// A restart from a snapshot, with the log behind it.
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..2i32).prop_map(|partition| Step::Plain { partition }),
        (0..3i64, 0..2i32).prop_map(|(producer, partition)| Step::Pend { producer, partition }),
        (0..3i64, 0..2i32).prop_map(|(producer, partition)| Step::Pend { producer, partition }),
        (0..3i64, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        Just(Step::Restart),
        Just(Step::Snapshot),
    ]
}

/// Kafka's rule as its documents have it: of what is committed for a partition, the offset that was written
/// last.
#[derive(Default)]
struct Model {
    /// Partition to (place in the log, offset).
    committed: BTreeMap<i32, (usize, i64)>,
    pending: BTreeMap<(i64, i32), (usize, i64)>,
}

impl Model {
    fn commit(&mut self, partition: i32, at: (usize, i64)) {
        let held = self.committed.entry(partition).or_insert(at);
        *held = at.max(*held);
    }
}

proptest! {
    #[test]
    fn groups_do_as_a_simple_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut rig = Rig::new();
            let mut model = Model::default();
            let mut snapshot = (rig.snapshot(), 0);
            for (at, step) in steps.iter().enumerate() {
                let offset = at as i64;
                match *step {
                    Step::Plain { partition } => {
                        rig.commit("g", partition, offset).await;
                        model.commit(partition, (at, offset));
                    }
                    Step::Pend { producer, partition } => {
                        let commit = in_transaction("g", (producer, 0), &[(partition, offset)]);
                        assert_eq!(rig.pend(&commit).await, good(1));
                        model.pending.insert((producer, partition), (at, offset));
                    }
                    Step::End { producer, commit } => {
                        rig.end("g", (producer, 0), commit).await;
                        for partition in 0..2 {
                            let ended = model.pending.remove(&(producer, partition));
                            if let Some(ended) = ended.filter(|_| commit) {
                                model.commit(partition, ended);
                            }
                        }
                    }
                    Step::Restart => rig = rig.restarted(),
                    Step::Snapshot => {
                        // From the snapshot before, and all that was logged since.
                        let new = Rig::loading(rig.config.clone(), Arc::clone(&rig.seams));
                        for (key, value) in &snapshot.0 {
                            new.groups.apply(key, Some(value)).unwrap();
                        }
                        let records = rig.log.records.lock().clone();
                        for record in &records[snapshot.1..] {
                            new.groups.apply(&record.key, record.value.as_deref()).unwrap();
                        }
                        *new.log.records.lock() = records;
                        new.groups.start(Arc::clone(&new.log) as Arc<dyn CoordinatorLog>);
                        rig = new;
                        snapshot = (rig.snapshot(), rig.log.records.lock().len());
                    }
                }
                for partition in 0..2 {
                    let waits = model.pending.keys().any(|(_, of)| *of == partition);
                    let held = model.committed.get(&partition).map_or(-1, |(_, offset)| *offset);
                    let expected = match waits {
                        true => (-1, ErrorCode::UnstableOffsetCommit),
                        false => (held, ErrorCode::None),
                    };
                    assert_eq!(rig.stable_offset("g", partition).await, expected, "step {at}");
                    let found = rig.fetch(&caller(), "g", Some(&[partition]), false).await;
                    assert_eq!(found.topics[0].partitions[0].committed_offset, held, "step {at}");
                }
            }
        });
    }
}
