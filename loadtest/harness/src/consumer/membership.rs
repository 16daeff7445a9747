//! A consumer's part in a group whose partitions the server deals out: between its [`Member`], which speaks to the
//! coordinator, and what it fetches. Whatever it is given it begins where the group has committed; what it gives up it
//! commits first. It may be told to leave now and then, so that others have to take over.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::Str;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::member::{Change, Member};
use super::{BACKOFF, Consumer, Goal, Group};
use crate::client::CallError;
use crate::load::Load;
use crate::workload::Protocol;

/// A consumer's part in a group that shares its partitions by itself.
pub(super) struct Membership {
    pub(super) group: Arc<Group>,
    pub(super) member: Member,
    /// Given by the coordinator; where to begin is not known yet.
    wanted: BTreeSet<u32>,
    churn: Option<Churn>,
}

/// When a consumer leaves its group, to join again.
struct Churn {
    next: Instant,
    every: Duration,
    /// Whether it commits what it has read before.
    commits: bool,
}

impl Consumer {
    /// A consumer whose partitions the server gives it, as the member of a group with this name.
    pub(crate) fn in_group(
        load: Arc<Load>,
        index: usize,
        group: Arc<Group>,
        name: Str,
        goal: watch::Receiver<Goal>,
    ) -> Self {
        let id = Str::from(format!("{:016x}{index:08x}", load.run));
        let churn = load.workload.consume.as_ref().and_then(|consume| {
            let every = consume.rejoin_every?.0;
            let place = index as u32 % consume.consumers + 1;
            let next = Instant::now() + every * place;
            Some(Churn { next, every: every * consume.consumers, commits: false })
        });
        let consume = load.workload.consume.as_ref();
        let is_classic = consume.is_some_and(|consume| consume.protocol == Protocol::Classic);
        let member = Member::new(name, id, is_classic);
        let membership = Membership { group, member, wanted: BTreeSet::new(), churn };
        let mut consumer = Self::new(load, index, std::iter::empty(), goal);
        consumer.verifier = None;
        consumer.membership = Some(membership);
        consumer
    }

    /// Does its part in its group: says that it is alive, commits, gives partitions up and takes others.
    pub(super) async fn attend(&mut self) -> Result<(), CallError> {
        let Some(mut membership) = self.membership.take() else { return Ok(()) };
        let outcome = self.attend_with(&mut membership).await;
        self.membership = Some(membership);
        outcome
    }

    async fn attend_with(&mut self, membership: &mut Membership) -> Result<(), CallError> {
        let Membership { group, member, wanted, churn } = membership;
        let (load, client_id) = (Arc::clone(&self.load), self.client_id.clone());
        // At the end nobody leaves: what is left is read by those who have it.
        let stays = self.goal.borrow().is_last;
        if stays {
            member.hurry();
        }
        let leaves = churn.as_ref().is_some_and(|churn| !stays && Instant::now() >= churn.next);
        let commits = churn.as_ref().is_some_and(|churn| leaves && churn.commits);
        if commits || (member.is_commit_due() && !leaves) {
            let offsets = self.next.iter().map(|(partition, next)| (*partition, *next));
            member.commit(&load, &client_id, offsets).await?;
        }
        let mut changed = false;
        if leaves && let Some(churn) = churn {
            churn.next += churn.every;
            churn.commits = !churn.commits;
            member.leave(&load, &client_id).await?;
            self.next.clear();
            wanted.clear();
            changed = true;
        }
        let Change { revoked, lost, added } = member.beat(&load, &client_id).await?;
        if lost {
            self.next.clear();
            wanted.clear();
            changed = true;
        }
        if !revoked.is_empty() {
            let offsets = self.next.iter().filter(|(partition, _)| revoked.contains(partition));
            let offsets = offsets.map(|(partition, next)| (*partition, *next));
            member.commit(&load, &client_id, offsets).await?;
            self.next.retain(|partition, _| !revoked.contains(partition));
            member.give_up(&revoked);
            changed = true;
        }
        if let Some(added) = added {
            *wanted = added;
        }
        if !wanted.is_empty()
            && let Some(offsets) = member.committed(&load, &client_id, wanted).await?
        {
            let mut verifier = group.verifier.lock();
            for (partition, offset) in offsets {
                verifier.owns(self.index, partition, offset);
                self.next.insert(partition, offset);
            }
            member.take(&std::mem::take(wanted));
            changed = true;
        }
        if changed {
            // What is under way for other partitions is asked for again.
            self.answers.clear();
            self.arrange();
        }
        Ok(())
    }
}

/// When a consumer has something to say to its group. At the end it looks often whether others have read the rest.
pub(super) async fn wake(membership: Option<&Membership>, is_last: bool) {
    let Some(Membership { member, churn, .. }) = membership else { return pending().await };
    let next = member.next_at();
    sleep_until(match churn {
        _ if is_last => next.min(Instant::now() + BACKOFF),
        Some(churn) => next.min(churn.next),
        None => next,
    })
    .await;
}
