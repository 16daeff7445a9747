//! Recovered state is live state; and what an idle group costs.

use proptest::prelude::*;
use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};

use super::*;

const GROUPS: [&str; 3] = ["a", "b", ""];

/// What a client or time may do. Members are named by a small number; each remembers its last join.
#[derive(Clone, Debug)]
enum Op {
    Commit { group: usize, partition: i32, offset: i64, tenant: bool },
    DeleteOffset { group: usize, partition: i32 },
    DeleteGroup { group: usize },
    ForgetTopic,
    Join { group: usize, member: usize, is_static: bool },
    Sync { group: usize, member: usize },
    Leave { group: usize, member: usize },
    Pass { ms: u64 },
    Age,
    FailLog { fails: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let (group, member) = (0..GROUPS.len(), 0..3_usize);
    prop_oneof![
        4 => (group.clone(), 0..4, any::<i64>(), any::<bool>())
            .prop_map(|(group, partition, offset, tenant)| {
                Op::Commit { group, partition, offset, tenant }
            }),
        1 => (group.clone(), 0..4)
            .prop_map(|(group, partition)| Op::DeleteOffset { group, partition }),
        1 => group.clone().prop_map(|group| Op::DeleteGroup { group }),
        1 => Just(Op::ForgetTopic),
        6 => (group.clone(), member.clone(), any::<bool>())
            .prop_map(|(group, member, is_static)| Op::Join { group, member, is_static }),
        6 => (group.clone(), member.clone()).prop_map(|(group, member)| Op::Sync { group, member }),
        2 => (group, member).prop_map(|(group, member)| Op::Leave { group, member }),
        3 => (0..20_000_u64).prop_map(|ms| Op::Pass { ms }),
        1 => Just(Op::Age),
        1 => any::<bool>().prop_map(|fails| Op::FailLog { fails }),
    ]
}

/// Runs an operation; what is parked is waited for a moment, then its client is gone.
async fn run(rig: &Rig, joined: &mut HashMap<(usize, usize), JoinGroupResponse>, op: Op) {
    let wait = Duration::from_secs(1);
    match op {
        Op::Commit { group, partition, offset, tenant } => {
            let caller = if tenant { caller() } else { other() };
            rig.commit_as(&caller, commit_request(GROUPS[group], &[(partition, offset)])).await;
        }
        Op::DeleteOffset { group, partition } => {
            let group = Str::from(GROUPS[group]);
            let _ = rig.groups.offset_delete(&caller(), &group, &[(TOPIC, partition)]).await;
        }
        Op::DeleteGroup { group } => {
            let groups_names = vec![Str::from(GROUPS[group])];
            rig.groups.delete_groups(&caller(), DeleteGroupsRequest { groups_names }).await;
        }
        Op::ForgetTopic => {
            let _ = rig.groups.forget_topic(TENANT, TOPIC).await;
        }
        Op::Join { group, member, is_static } => {
            let known = joined.get(&(group, member)).map(|joined| joined.member_id.clone());
            let mut request = join_request(GROUPS[group], &known.unwrap_or_default());
            if is_static {
                request.group_instance_id = Some(Str::from(format!("static-{member}")));
            }
            let caller = caller();
            let joining = rig.groups.join_group(&caller, 9, request);
            if let Ok(answer) = tokio::time::timeout(wait, joining).await {
                joined.insert((group, member), answer);
            }
        }
        Op::Sync { group, member } => {
            if let Some(joined) = joined.get(&(group, member)) {
                let given = [(&*joined.member_id, "assigned")];
                let syncing = rig.sync(GROUPS[group], joined, &given);
                let _ = tokio::time::timeout(wait, syncing).await;
            }
        }
        Op::Leave { group, member } => {
            if let Some(joined) = joined.remove(&(group, member)) {
                let member = MemberIdentity { member_id: joined.member_id, ..Default::default() };
                let request = LeaveGroupRequest {
                    group_id: Str::from(GROUPS[group]),
                    members: vec![member],
                    ..Default::default()
                };
                rig.groups.leave_group(&caller(), 5, request).await;
            }
        }
        Op::Pass { ms } => {
            rig.seams.wall_ms.fetch_add(i64::try_from(ms).unwrap(), Ordering::Relaxed);
            pass(Duration::from_millis(ms)).await;
        }
        Op::Age => {
            rig.seams.wall_ms.fetch_add(8 * 24 * 3_600_000, Ordering::Relaxed);
            pass(Duration::from_secs(601)).await;
        }
        Op::FailLog { fails } => rig.log.fail(fails.then_some(LogError::Full)),
    }
}

/// A coordinator that was given `pairs` and then `records`.
fn replayed(pairs: &BTreeMap<Bytes, Bytes>, records: &[LogRecord]) -> BTreeMap<Bytes, Bytes> {
    let rig = Rig::loading(GroupConfig::default(), Arc::default());
    for (key, value) in pairs {
        rig.groups.apply(key, Some(value)).unwrap();
    }
    for record in records {
        rig.groups.apply(&record.key, record.value.as_deref()).unwrap();
    }
    rig.snapshot()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn replayed_state_is_live_state(
        ops in prop::collection::vec(op(), 1..60),
        at in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let mut joined = HashMap::new();
            let snapshot_after = at.index(ops.len());
            let mut taken = (BTreeMap::new(), 0);
            for (index, op) in ops.into_iter().enumerate() {
                run(&rig, &mut joined, op).await;
                if index == snapshot_after {
                    taken = (rig.snapshot(), rig.log.records.lock().len());
                }
            }
            pass(Duration::from_secs(1)).await;
            let live = rig.snapshot();
            let records = rig.log.records.lock().clone();
            assert_eq!(replayed(&BTreeMap::new(), &records), live, "the log alone");
            assert_eq!(replayed(&taken.0, &records[taken.1..]), live, "snapshot and tail");
            assert_eq!(replayed(&taken.0, &records), replayed(&live, &[]), "applied again");
            // Nothing is kept of groups that are gone, and no client is waited for in vain.
            for tenant in [TENANT, OTHER] {
                for cell in rig.groups.shared.cells_of(tenant) {
                    assert!(!cell.lock().is_blank(), "a blank group was kept");
                    assert_eq!(cell.lock().pending, 0);
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_groups_cost_no_timers_and_little_else() {
    let rig = Rig::new();
    for n in 0..1_000 {
        assert_eq!(rig.commit(&format!("group-{n}"), 0, 1).await, ErrorCode::None);
    }
    assert_eq!(rig.groups.shared.cells_of(TENANT).len(), 1_000);
    assert_eq!(rig.groups.shared.alarms.len(), 0);
    // The fixed part of a group; on top of it come its id, its record and its offsets.
    let fixed = size_of::<super::super::cell::Cell>();
    assert!(fixed <= 640, "{fixed} bytes");
}
