//! Who may commit, read and delete a group's offsets.

use sluice_model::TopicId;
use sluice_wire::ErrorCode;

use super::tasks::TaskId;
use super::{Current, StreamsGroup};
use crate::group::kind::Commit;

impl StreamsGroup {
    /// Whether these offsets may be committed. A member that has not yet heard of a newer epoch may go
    /// on to commit for tasks that it has had since its own (KIP-1251).
    pub(super) fn may_commit(&self, commit: &mut Commit<'_>) -> Result<(), ErrorCode> {
        let epoch = commit.epoch;
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let is_nobody = epoch == -1 && commit.member_id.is_empty() && commit.instance.is_none();
        if commit.version.is_none() && is_nobody {
            return Ok(());
        }
        let member = self.members.get(commit.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if commit.version.is_some_and(|version| version < 9) {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let current = &member.current;
        if epoch == current.epoch {
            return Ok(());
        }
        let has = |(topic, partition)| self.has_since(current, epoch, topic, partition);
        if epoch < current.epoch && Iterator::all(&mut commit.partitions, has) {
            Ok(())
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    /// Whether the task that reads the partition is with the member, given under `epoch` or before.
    fn has_since(&self, current: &Current, epoch: i32, topic: TopicId, partition: i32) -> bool {
        let Some(subtopology) = self.readers.get(&topic) else { return false };
        let task = TaskId::new(subtopology, partition);
        let held = [&current.assigned, &current.revoking];
        held.iter().find_map(|held| held.active.get(&task)).is_some_and(|since| *since <= epoch)
    }

    /// Whether a member may read offsets; without a member anybody may.
    pub(super) fn may_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(member_id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
        };
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.current.epoch == epoch { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    /// Whether the application reads the topic, so that its offsets stay.
    pub(super) fn reads(&self, topic: &str) -> bool {
        let topology = self.topology.as_ref().filter(|_| !self.members.is_empty());
        topology.is_some_and(|topology| topology.is_read(topic))
    }
}
