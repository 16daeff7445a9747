//! Balance, stickiness, and where standbys may lie.

use proptest::prelude::*;

use super::super::assignor::{Candidate, Shape, assign};
use super::super::tasks::TaskId;
use super::*;

fn shapes(tasks: &[(i32, bool)]) -> Vec<Shape> {
    let made = tasks.iter().enumerate();
    made.map(|(i, (tasks, stateful))| Shape {
        id: Str::from(i.to_string()),
        tasks: *tasks,
        stateful: *stateful,
    })
    .collect()
}

fn run(members: &[(Str, Tasks)], shapes: &[Shape], standbys: usize) -> Vec<(Str, Tasks)> {
    let candidates: Vec<Candidate<'_>> =
        members.iter().map(|(process, previous)| Candidate { process, previous }).collect();
    let given = assign(&candidates, shapes, standbys);
    members.iter().map(|(process, _)| process.clone()).zip(given).collect()
}

fn fresh(processes: &[usize]) -> Vec<(Str, Tasks)> {
    processes.iter().map(|p| (Str::from(format!("p{p}")), Tasks::default())).collect()
}

/// Each task is active once, and a standby on as many other processes as there can be.
fn check_complete(given: &[(Str, Tasks)], shapes: &[Shape], standbys: usize) {
    let processes: BTreeSet<&Str> = given.iter().map(|(process, _)| process).collect();
    for shape in shapes {
        for partition in 0..shape.tasks {
            let task = TaskId::new(&shape.id, partition);
            let has = |pick: fn(&Tasks) -> &BTreeSet<TaskId>| -> Vec<&Str> {
                let who = given.iter().filter(|(_, tasks)| pick(tasks).contains(&task));
                who.map(|(process, _)| process).collect()
            };
            let (active, standby) = (has(|tasks| &tasks.active), has(|tasks| &tasks.standby));
            assert_eq!(active.len(), 1, "{task:?}");
            let wanted = if shape.stateful { standbys.min(processes.len() - 1) } else { 0 };
            assert_eq!(standby.len(), wanted, "{task:?}");
            let distinct: BTreeSet<&&Str> = active.iter().chain(&standby).collect();
            assert_eq!(distinct.len(), 1 + wanted, "{task:?}");
        }
    }
}

fn active_counts(given: &[(Str, Tasks)]) -> (usize, usize) {
    let counts = given.iter().map(|(_, tasks)| tasks.active.len());
    (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0))
}

fn kept(before: &[(Str, Tasks)], after: &[(Str, Tasks)]) -> usize {
    let both = before.iter().zip(after);
    both.map(|((_, a), (_, b))| a.active.intersection(&b.active).count()).sum()
}

#[test]
fn nobody_gets_nothing() {
    assert_eq!(run(&[], &shapes(&[(3, true)]), 1), []);
    let alone = run(&fresh(&[0]), &shapes(&[(3, true)]), 1);
    assert_eq!((alone[0].1.active.len(), alone[0].1.standby.len()), (3, 0));
}

#[test]
fn a_new_member_takes_its_share_and_no_more() {
    let shapes = shapes(&[(6, true), (6, false)]);
    let two = run(&fresh(&[0, 1]), &shapes, 0);
    let mut three = two;
    three.push((Str::from_static("p2"), Tasks::default()));
    let after = run(&three, &shapes, 0);
    assert_eq!(active_counts(&after), (4, 4));
    assert_eq!(kept(&three, &after), 8);
    // And back: the others keep what they have.
    let back = run(&after[..2], &shapes, 0);
    assert_eq!(kept(&after[..2], &back), 8);
    check_complete(&back, &shapes, 0);
}

#[test]
fn a_standby_takes_over() {
    let shapes = shapes(&[(4, true)]);
    let three = run(&fresh(&[0, 1, 2]), &shapes, 1);
    let two = run(&three[1..], &shapes, 1);
    for task in &three[0].1.active {
        let had = three[1..].iter().position(|(_, tasks)| tasks.standby.contains(task));
        let has = two.iter().position(|(_, tasks)| tasks.active.contains(task));
        // Unless that one is full.
        assert!(had == has || two[had.expect("had one")].1.active.len() >= 2, "{task:?}");
    }
}

proptest! {
    #[test]
    fn assignments_are_whole_balanced_and_stay(
        processes in prop::collection::vec(0..5_usize, 1..9),
        tasks in prop::collection::vec((1..7_i32, any::<bool>()), 1..5),
        standbys in 0..3_usize,
    ) {
        let shapes = shapes(&tasks);
        let first = run(&fresh(&processes), &shapes, standbys);
        check_complete(&first, &shapes, standbys);
        if standbys == 0 {
            // Load is balanced over processes by their members.
            let total: usize = tasks.iter().map(|(n, _)| usize::try_from(*n).expect("small")).sum();
            let (_, most) = active_counts(&first);
            prop_assert!(most <= total.div_ceil(processes.len()) + 1);
        }
        // The same members keep everything.
        let again = run(&first, &shapes, standbys);
        check_complete(&again, &shapes, standbys);
        if standbys == 0 {
            let total: usize = first.iter().map(|(_, t)| t.active.len()).sum();
            let (least, most) = active_counts(&first);
            if most - least <= 1 {
                prop_assert_eq!(kept(&first, &again), total);
            }
        }
        // One goes: what is left is whole.
        let left = run(&first[1..], &shapes, standbys);
        if !left.is_empty() {
            check_complete(&left, &shapes, standbys);
        }
    }
}
