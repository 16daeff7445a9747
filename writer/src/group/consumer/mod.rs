//! Consumer groups of KIP-848 as a pure state machine, by the rules of Kafka 4.3: members say what they
//! subscribe to, the server computes who is to have what, and each member is led to its part of it
//! with its heartbeats.
//!
//! ```text
//!   group epoch         grows when subscriptions, topics or members change
//!     -> assignment epoch  the group epoch that the target assignment was computed for
//!       -> member epoch    the assignment epoch that the member has reached
//! ```
//!
//! A partition is taken from one member, who says that it has given it back, before another gets it
//! (`reconcile`). Members of the classic protocol take part through JoinGroup and its like (`classic`),
//! while groups change over from one protocol to the other (`convert`).
//!
//! Always holds: no partition is held by two members that the group itself gave it to; epochs never go
//! back while the group has members; `holders` counts what members hold, and `subscriptions` what they
//! subscribe to. What the machine changes it logs, one part of the group at a time (`record`).
//!
//! It does not check that topics are the tenant's: it sees none but the tenant's own ([`Topics`]).
//!
//! [`Topics`]: super::topics::Topics

mod assignor;
mod classic;
mod classic_requests;
mod convert;
mod describe;
mod embedded;
mod expiry;
mod heartbeat;
mod member;
mod reconcile;
mod record;
mod regex;
mod requests;
mod subscriptions;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use sluice_model::TopicId;
use sluice_wire::{ErrorCode, Str};

use self::member::{LEFT_FOR_NOW, Member};
use self::record::{Header, PartKey};
use self::subscriptions::Subscriptions;
use super::kind::{Commit, Modern};
use super::machine::Tick;
use super::modern::Turn;
use super::record::ModernKind;
use super::stored::Parts;

pub(crate) use self::record::check_part;

/// One group.
#[derive(Debug, Default)]
pub(crate) struct ConsumerGroup {
    /// The group epoch; 0 before the first member.
    epoch: i32,
    /// The group epoch that the members' targets were computed for.
    assignment_epoch: i32,
    /// Of the subscribed topics as of `epoch`, to tell if they have changed.
    topics_hash: u64,
    /// By member id. Boxed: a map's node has room for eleven, and most groups have few.
    members: BTreeMap<Str, Box<Member>>,
    /// Static members: instance id to member id.
    statics: BTreeMap<Str, Str>,
    /// How many members hold a partition. More than one only where a classic leader has given it to
    /// several before the group was converted.
    holders: HashMap<(TopicId, i32), u32>,
    subscriptions: Subscriptions,
    /// When the targets were last computed, in this process.
    assigned_at: Option<Tick>,
    wake: Option<Tick>,
}

impl ConsumerGroup {
    /// The group as it was stored. Parts that say nothing without others (a target without a profile)
    /// are left out.
    pub(crate) fn load(parts: &Parts) -> Self {
        let mut group = Self::default();
        // Keys are sorted by kind: profiles come before what refers to them.
        for (part, value) in parts.iter() {
            let Ok(key) = PartKey::decode(part) else { continue };
            group.load_part(key, value);
        }
        let members: Vec<Str> = group.members.keys().cloned().collect();
        for id in members {
            let member = &group.members[&id];
            if let Some(instance) = &member.profile.instance {
                group.statics.insert(instance.clone(), id.clone());
            }
            group.subscriptions.add(&member.profile.names, &member.profile.regex);
            for partition in member.current.held() {
                *group.holders.entry(partition).or_default() += 1;
            }
        }
        group
    }

    fn load_part(&mut self, key: PartKey<'_>, value: &[u8]) {
        match key {
            PartKey::Group => {
                if let Ok(header) = Header::decode(value) {
                    self.epoch = header.epoch;
                    self.assignment_epoch = header.assignment_epoch;
                    self.topics_hash = header.topics_hash;
                }
            }
            PartKey::Profile(id) => {
                if let Ok(profile) = record::decode_profile(value) {
                    let member = Member { profile, ..Member::default() };
                    self.members.insert(Str::from(id), Box::new(member));
                }
            }
            PartKey::Target(id) => {
                if let (Some(member), Ok(target)) =
                    (self.members.get_mut(id), record::decode_target(value))
                {
                    member.target = target;
                }
            }
            PartKey::Current(id) => {
                if let (Some(member), Ok(current)) =
                    (self.members.get_mut(id), record::decode_current(value))
                {
                    member.current = current;
                }
            }
        }
    }

    fn log_header(&self, turn: &mut Turn<'_>) {
        let header = Header {
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            topics_hash: self.topics_hash,
        };
        turn.log(ModernKind::Consumer, &PartKey::Group.encode(), Some(header.encode()));
    }

    fn log_profile(&self, turn: &mut Turn<'_>, id: &str) {
        if let Some(member) = self.members.get(id) {
            let value = record::encode_profile(&member.profile);
            turn.log(ModernKind::Consumer, &PartKey::Profile(id).encode(), Some(value));
        }
    }

    fn log_target(&self, turn: &mut Turn<'_>, id: &str) {
        if let Some(member) = self.members.get(id) {
            let value = record::encode_target(&member.target);
            turn.log(ModernKind::Consumer, &PartKey::Target(id).encode(), Some(value));
        }
    }

    fn log_current(&self, turn: &mut Turn<'_>, id: &str) {
        if let Some(member) = self.members.get(id) {
            let value = record::encode_current(&member.current);
            turn.log(ModernKind::Consumer, &PartKey::Current(id).encode(), Some(value));
        }
    }

    fn wake_by(&mut self, at: Tick) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// What a member holds changes from `before` to what it is now.
    fn rehold(&mut self, before: &[(TopicId, i32)], id: &str) {
        for partition in before {
            self.release(*partition);
        }
        if let Some(member) = self.members.get(id) {
            for partition in member.current.held() {
                *self.holders.entry(partition).or_default() += 1;
            }
        }
    }

    fn release(&mut self, partition: (TopicId, i32)) {
        if let Some(count) = self.holders.get_mut(&partition) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&partition);
            }
        }
    }

    /// Takes a member out, with all that is counted and stored of it. The group epoch is the caller's
    /// to raise.
    fn remove(&mut self, turn: &mut Turn<'_>, id: &str) -> Option<Box<Member>> {
        let member = self.members.remove(id)?;
        self.subscriptions.remove(&member.profile.names, &member.profile.regex);
        if let Some(instance) = &member.profile.instance
            && self.statics.get(instance).is_some_and(|holder| **holder == *id)
        {
            self.statics.remove(instance);
        }
        for partition in member.current.held() {
            self.release(partition);
        }
        for key in [PartKey::Current(id), PartKey::Target(id), PartKey::Profile(id)] {
            turn.log(ModernKind::Consumer, &key.encode(), None);
        }
        Some(member)
    }

    /// Raises the group epoch, and logs it.
    fn bump(&mut self, turn: &mut Turn<'_>) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.log_header(turn);
    }

    /// Starts a member's session anew.
    fn touch(&mut self, turn: &Turn<'_>, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        let classic = member.profile.classic.as_deref();
        let ms =
            classic.map_or(turn.settings.consumer.session_timeout_ms, |c| c.session_timeout_ms);
        let at = turn.now.after(ms);
        member.deadlines.session = Some(at);
        self.wake_by(at);
    }
}

impl Modern for ConsumerGroup {
    fn restart(&mut self, turn: &mut Turn<'_>) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in ids {
            self.touch(turn, &id);
            self.await_revocation(turn, &id);
        }
        self.subscriptions.refresh(turn);
        self.subscriptions.look_again();
    }

    fn on_time(&mut self, turn: &mut Turn<'_>) {
        self.expire(turn);
    }

    fn wake(&self) -> Option<Tick> {
        self.wake
    }

    fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }

    fn member_count(&self) -> usize {
        self.members.len()
    }

    fn type_name(&self) -> &'static str {
        "consumer"
    }

    fn protocol_type(&self) -> &'static str {
        super::machine::CONSUMER
    }

    fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().all(|m| m.current.is_reconciled_to(self.assignment_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.subscriptions.contains(topic)
    }

    /// As in Kafka 4.3 (KIP-1251) a member may lag behind its epoch, as long as it has held what it
    /// commits since the epoch that it says.
    fn check_commit(&self, commit: &mut Commit<'_>) -> Result<(), ErrorCode> {
        let epoch = commit.epoch;
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let is_transaction = commit.version.is_none();
        let anonymous = commit.member_id.is_empty() && commit.instance.is_none();
        if is_transaction && epoch == -1 && anonymous {
            return Ok(());
        }
        let member = self.members.get(commit.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let current = &member.current;
        if member.is_classic() {
            return if epoch == current.epoch { Ok(()) } else { Err(ErrorCode::IllegalGeneration) };
        }
        if commit.version.is_some_and(|version| version < 9) {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == current.epoch {
            return Ok(());
        }
        let held_then = |(topic, partition)| {
            let since = current.assigned.since(topic, partition);
            let since = since.or_else(|| current.revoking.since(topic, partition));
            since.is_some_and(|since| since <= epoch)
        };
        if epoch < current.epoch && Iterator::all(&mut commit.partitions, held_then) {
            Ok(())
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(member_id) = member_id else {
            let is_anonymous = epoch < 0;
            return if is_anonymous { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
        };
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        match (epoch == member.current.epoch, member.is_classic()) {
            (true, _) => Ok(()),
            (false, true) => Err(ErrorCode::IllegalGeneration),
            (false, false) => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        Ok(())
    }
}

/// Whether a static member has left and may come back.
fn has_left_for_now(member: &Member) -> bool {
    member.current.epoch == LEFT_FOR_NOW
}
