//! The kinds of groups that share one space of ids, and what every kind can be asked.
//!
//! A classic group answers when its members have come together; its machine is in [`machine`]. In
//! the newer kinds (KIP-848 and those after it) members carry epochs, each request is decided at
//! once, and what it changed is logged before it is answered: they are [`Modern`].
//!
//! [`machine`]: super::machine

use sluice_model::TopicId;
use sluice_wire::{ErrorCode, Str};

use super::consumer::ConsumerGroup;
use super::machine::{ExpiryBase, Group, Tick};
use super::modern::Turn;
use super::record::ModernKind;
use super::record::metadata::GroupMetadata;
use super::share::ShareGroup;
use super::stored::Stored;
use super::streams::StreamsGroup;

/// Who wants to commit what.
pub(crate) struct Commit<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
    /// Generation or member epoch.
    pub(crate) epoch: i32,
    /// Of OffsetCommit; `None` for a commit in a transaction.
    pub(crate) version: Option<i16>,
    /// Looked at where the epoch alone does not decide.
    pub(crate) partitions: &'a mut dyn Iterator<Item = (TopicId, i32)>,
}

/// A group whose members carry epochs, as a pure state machine.
///
/// Every event that may change it is given a [`Turn`], and logs through it whatever it changed: a
/// machine that is made of the logged parts goes on where this one was, but for sessions, which
/// begin anew ([`Self::restart`]). An event that is refused has changed nothing.
pub(crate) trait Modern: Send {
    /// The group was made of its parts: sessions and whatever else waits for time begin now.
    fn restart(&mut self, turn: &mut Turn<'_>);

    /// Does all that is due.
    fn on_time(&mut self, turn: &mut Turn<'_>);

    /// Not later than the next time that something is due; `None` when nothing is.
    fn wake(&self) -> Option<Tick>;

    /// Nobody is in the group, so that it may be deleted or become one of another kind.
    fn is_vacant(&self) -> bool;

    /// How many are in the group.
    fn member_count(&self) -> usize;

    /// As ListGroups shows the group's type.
    fn type_name(&self) -> &'static str;

    /// As ListGroups shows the protocol type.
    fn protocol_type(&self) -> &'static str;

    /// As ListGroups shows the state.
    fn state_name(&self) -> &'static str;

    /// Whether a member subscribes to the topic of this name.
    fn is_subscribed(&self, topic: &str) -> bool;

    /// Whether these offsets may be committed.
    fn check_commit(&self, commit: &mut Commit<'_>) -> Result<(), ErrorCode>;

    /// Whether this member may read offsets; without a member id anybody may.
    fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode>;

    /// Whether single offsets may be deleted.
    fn check_offset_delete(&self) -> Result<(), ErrorCode>;
}

/// A group's machine.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all groups are classic, and their cells are boxed"
)]
pub(crate) enum Kind {
    Classic(Group),
    Consumer(Box<ConsumerGroup>),
    Share(Box<ShareGroup>),
    Streams(Box<StreamsGroup>),
}

impl Kind {
    /// The machine that the log says; [restarted](Modern::restart) it goes on.
    pub(crate) fn load(stored: &Stored, wall_ms: i64) -> Self {
        match stored {
            Stored::Nothing => Self::Classic(Group::new(wall_ms)),
            Stored::Classic(metadata) => Self::Classic(match GroupMetadata::decode(metadata) {
                Ok(metadata) => Group::load(metadata),
                // It was decoded when it was applied.
                Err(_) => Group::new(wall_ms),
            }),
            Stored::Modern(parts) => match parts.kind() {
                ModernKind::Consumer => Self::Consumer(Box::new(ConsumerGroup::load(parts))),
                ModernKind::Share => Self::Share(Box::new(ShareGroup::load(parts))),
                ModernKind::Streams => Self::Streams(Box::new(StreamsGroup::of(parts))),
            },
        }
    }

    pub(crate) fn classic(&self) -> Option<&Group> {
        match self {
            Self::Classic(group) => Some(group),
            Self::Consumer(_) | Self::Share(_) | Self::Streams(_) => None,
        }
    }

    pub(crate) fn modern(&self) -> Option<&dyn Modern> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(group) => Some(&**group),
            Self::Share(group) => Some(&**group),
            Self::Streams(group) => Some(&**group),
        }
    }

    pub(crate) fn modern_mut(&mut self) -> Option<&mut dyn Modern> {
        match self {
            Self::Classic(_) => None,
            Self::Consumer(group) => Some(&mut **group),
            Self::Share(group) => Some(&mut **group),
            Self::Streams(group) => Some(&mut **group),
        }
    }

    fn either<R>(
        &self,
        classic: impl FnOnce(&Group) -> R,
        modern: impl FnOnce(&dyn Modern) -> R,
    ) -> R {
        match self {
            Self::Classic(group) => classic(group),
            Self::Consumer(group) => modern(&**group),
            Self::Share(group) => modern(&**group),
            Self::Streams(group) => modern(&**group),
        }
    }

    /// See [`Modern::wake`].
    pub(crate) fn wake(&self) -> Option<Tick> {
        self.either(Group::wake, |group| group.wake())
    }

    /// See [`Modern::is_vacant`].
    pub(crate) fn is_vacant(&self) -> bool {
        self.either(Group::is_vacant, |group| group.is_vacant())
    }

    /// See [`Modern::member_count`].
    pub(crate) fn member_count(&self) -> usize {
        self.either(Group::member_count, |group| group.member_count())
    }

    /// See [`Modern::type_name`].
    pub(crate) fn type_name(&self) -> &'static str {
        self.either(|_| "classic", |group| group.type_name())
    }

    /// See [`Modern::protocol_type`]; empty for groups that only keep offsets.
    pub(crate) fn protocol_type(&self) -> Str {
        self.either(Group::protocol_type, |group| Str::from_static(group.protocol_type()))
    }

    /// See [`Modern::state_name`].
    pub(crate) fn state_name(&self) -> &'static str {
        self.either(|group| group.state().name(), |group| group.state_name())
    }

    /// See [`Modern::is_subscribed`]; for a classic group whose subscriptions cannot be read, every
    /// topic counts.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        self.either(|group| group.is_subscribed(topic), |group| group.is_subscribed(topic))
    }

    /// See [`Modern::check_commit`].
    pub(crate) fn check_commit(&self, commit: &mut Commit<'_>) -> Result<(), ErrorCode> {
        match self {
            Self::Classic(group) => {
                group.check_commit(commit.member_id, commit.instance, commit.epoch)
            }
            Self::Consumer(group) => group.check_commit(commit),
            Self::Share(group) => group.check_commit(commit),
            Self::Streams(group) => group.check_commit(commit),
        }
    }

    /// See [`Modern::check_commit`], for a commit in a transaction.
    pub(crate) fn check_transactional_commit(
        &self,
        member_id: &str,
        instance: Option<&str>,
        epoch: i32,
        partitions: &mut dyn Iterator<Item = (TopicId, i32)>,
    ) -> Result<(), ErrorCode> {
        let version = None;
        let mut commit = Commit { member_id, instance, epoch, version, partitions };
        match self {
            Self::Classic(group) => group.check_transactional_commit(member_id, instance, epoch),
            Self::Consumer(group) => group.check_commit(&mut commit),
            Self::Streams(group) => group.check_commit(&mut commit),
            Self::Share(group) => group.check_commit(&mut commit),
        }
    }

    /// See [`Modern::check_fetch`]; classic groups let anybody read.
    pub(crate) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        self.either(|_| Ok(()), |group| group.check_fetch(member_id, epoch))
    }

    /// See [`Modern::check_offset_delete`].
    pub(crate) fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        self.either(Group::check_offset_delete, |group| group.check_offset_delete())
    }

    /// From when on offsets grow old: in groups with member epochs each by its commit.
    pub(crate) fn expiry_base(&self) -> ExpiryBase {
        self.either(Group::expiry_base, |_| ExpiryBase::LastCommit)
    }
}
