//! How the parts of a streams group are stored: one record a part, so that a heartbeat writes what it
//! changed and not the group.
//!
//! ```text
//! part key: 1 | 2 | 3 member id | 4 member id | 5 member id
//! 1 group     version u8 = 1 | group epoch i32 | topics hash 16 bytes | validated topology epoch i32
//!             | assignment epoch i32 | standbys i32
//! 2 topology  version u8 = 1 | StreamsGroupHeartbeat request v0 with nothing but the topology
//! 3 profile   version u8 = 1 | rack opt | client id text | client host text
//!             | rebalance timeout i32 (ms) | topology epoch i32 | process id text
//!             | 0, or 1 and host text, port u16 | tags u32, then key text, value text each
//! 4 target    version u8 = 1 | active tasks | standby tasks
//! 5 current   version u8 = 1 | progress u8 (1 stable, 2 unrevoked, 3 unreleased) | epoch i32
//!             | previous epoch i32 | assigned held | to be given up held
//! tasks: count u32, then subtopology text, partition i32 each
//! held:  count u32, then subtopology text, partition i32, since epoch i32 each (active)
//!        | tasks (standby)
//! ```
//!
//! text: length u32, then that many bytes of UTF-8; opt: 0, or 1 and a text. Kafka keeps the same
//! facts in its StreamsGroup records. A version that is not known is an error: bump it with any
//! change.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::Str;

use super::member::{Current, Profile, Progress};
use super::tasks::{Held, TaskId, Tasks};
use super::{Epochs, Part, Stored, Topology, Value};
use crate::group::record::RecordError;
use crate::group::record::read::{Reader, put_bytes, put_optional_text};

const VERSION: u8 = 1;

const GROUP: u8 = 1;
const TOPOLOGY: u8 = 2;
const PROFILE: u8 = 3;
const TARGET: u8 = 4;
const CURRENT: u8 = 5;

/// The least bytes of a task, and of a client tag, to bound what a claimed count may reserve.
const MIN_TASK_BYTES: usize = 8;

impl Part {
    /// The part's key among those of its group.
    pub(crate) fn key(&self) -> Bytes {
        let (kind, member) = match self {
            Self::Group => (GROUP, ""),
            Self::Topology => (TOPOLOGY, ""),
            Self::Profile(id) => (PROFILE, &**id),
            Self::Target(id) => (TARGET, &**id),
            Self::Current(id) => (CURRENT, &**id),
        };
        let mut key = BytesMut::with_capacity(1 + member.len());
        key.put_u8(kind);
        key.put_slice(member.as_bytes());
        key.freeze()
    }

    pub(crate) fn decode(key: &[u8]) -> Result<Self, RecordError> {
        let (kind, rest) = key.split_first().ok_or(RecordError::Short)?;
        let member = std::str::from_utf8(rest).map_err(|_| RecordError::Text).map(Str::from)?;
        match kind {
            &GROUP if member.is_empty() => Ok(Self::Group),
            &TOPOLOGY if member.is_empty() => Ok(Self::Topology),
            &GROUP | &TOPOLOGY => Err(RecordError::Trailing),
            &PROFILE => Ok(Self::Profile(member)),
            &TARGET => Ok(Self::Target(member)),
            &CURRENT => Ok(Self::Current(member)),
            other => Err(RecordError::Unknown(*other)),
        }
    }
}

impl Value<'_> {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        match self {
            Self::Epochs(epochs) => put_epochs(&mut out, epochs),
            Self::Topology(topology) => out.put_slice(topology.encoded()),
            Self::Profile(profile) => put_profile(&mut out, profile),
            Self::Target(tasks) => {
                put_tasks(&mut out, &tasks.active);
                put_tasks(&mut out, &tasks.standby);
            }
            Self::Current(current) => put_current(&mut out, current),
        }
        out.freeze()
    }
}

/// Whether a part is one that a streams group can be made of.
pub(crate) fn check_part(part: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
    match value {
        Some(value) => Stored::default().take(part, value),
        None => Part::decode(part).map(drop),
    }
}

impl Stored {
    /// Takes one stored part. What cannot be read is an error and changes nothing.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), RecordError> {
        let part = Part::decode(key)?;
        let mut reader = Reader::new(value);
        match reader.u8()? {
            VERSION => {}
            other => return Err(RecordError::Unknown(other)),
        }
        match part {
            Part::Group => self.epochs = Some(whole(reader, epochs)?),
            Part::Topology => self.topology = Some(Topology::decode(reader.rest())?),
            Part::Profile(id) => drop(self.profiles.insert(id, whole(reader, profile)?)),
            Part::Target(id) => drop(self.targets.insert(
                id,
                whole(reader, |reader| {
                    Ok(Tasks { active: tasks(reader)?, standby: tasks(reader)? })
                })?,
            )),
            Part::Current(id) => drop(self.currents.insert(id, whole(reader, current)?)),
        }
        Ok(())
    }
}

/// Reads one thing that nothing may follow.
fn whole<'a, T>(
    mut reader: Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, RecordError>,
) -> Result<T, RecordError> {
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("bounded by the group's tasks and the request's size"));
}

fn put_epochs(out: &mut BytesMut, epochs: Epochs) {
    let Epochs { group, topics_hash, validated, assignment, standbys } = epochs;
    out.put_i32(group);
    out.put_u128(topics_hash);
    out.put_i32(validated);
    out.put_i32(assignment);
    out.put_i32(standbys);
}

fn epochs(reader: &mut Reader<'_>) -> Result<Epochs, RecordError> {
    Ok(Epochs {
        group: reader.i32()?,
        topics_hash: reader.array().map(u128::from_be_bytes)?,
        validated: reader.i32()?,
        assignment: reader.i32()?,
        standbys: reader.i32()?,
    })
}

fn put_profile(out: &mut BytesMut, profile: &Profile) {
    put_optional_text(out, profile.rack.as_ref());
    put_bytes(out, profile.client_id.as_bytes());
    put_bytes(out, profile.client_host.as_bytes());
    out.put_i32(profile.rebalance_timeout_ms);
    out.put_i32(profile.topology_epoch);
    put_bytes(out, profile.process.as_bytes());
    match &profile.endpoint {
        None => out.put_u8(0),
        Some((host, port)) => {
            out.put_u8(1);
            put_bytes(out, host.as_bytes());
            out.put_u16(*port);
        }
    }
    put_count(out, profile.tags.len());
    for (key, value) in &profile.tags {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn profile(reader: &mut Reader<'_>) -> Result<Profile, RecordError> {
    let mut profile = Profile {
        rack: reader.optional_text()?,
        client_id: reader.text()?,
        client_host: reader.text()?,
        rebalance_timeout_ms: reader.i32()?,
        topology_epoch: reader.i32()?,
        process: reader.text()?,
        endpoint: match reader.u8()? {
            0 => None,
            1 => Some((reader.text()?, u16::from_be_bytes(reader.array()?))),
            other => return Err(RecordError::Unknown(other)),
        },
        tags: BTreeMap::new(),
    };
    for _ in 0..count(reader)? {
        let key = reader.text()?;
        profile.tags.insert(key, reader.text()?);
    }
    Ok(profile)
}

fn put_tasks(out: &mut BytesMut, tasks: &BTreeSet<TaskId>) {
    put_count(out, tasks.len());
    for task in tasks {
        put_bytes(out, task.subtopology.as_bytes());
        out.put_i32(task.partition);
    }
}

fn tasks(reader: &mut Reader<'_>) -> Result<BTreeSet<TaskId>, RecordError> {
    (0..count(reader)?).map(|_| task(reader)).collect()
}

fn task(reader: &mut Reader<'_>) -> Result<TaskId, RecordError> {
    Ok(TaskId { subtopology: reader.text()?, partition: reader.i32()? })
}

/// A count of things that are each at least as large as a task.
fn count(reader: &mut Reader<'_>) -> Result<usize, RecordError> {
    let count = reader.u32()? as usize;
    if count > reader.left() / MIN_TASK_BYTES { Err(RecordError::Short) } else { Ok(count) }
}

fn put_held(out: &mut BytesMut, held: &Held) {
    put_count(out, held.active.len());
    for (task, since) in &held.active {
        put_bytes(out, task.subtopology.as_bytes());
        out.put_i32(task.partition);
        out.put_i32(*since);
    }
    put_tasks(out, &held.standby);
}

fn held(reader: &mut Reader<'_>) -> Result<Held, RecordError> {
    let active = (0..count(reader)?).map(|_| Ok((task(reader)?, reader.i32()?)));
    Ok(Held { active: active.collect::<Result<_, RecordError>>()?, standby: tasks(reader)? })
}

fn put_current(out: &mut BytesMut, current: &Current) {
    out.put_u8(match current.progress {
        Progress::Stable => 1,
        Progress::Unrevoked => 2,
        Progress::Unreleased => 3,
    });
    out.put_i32(current.epoch);
    out.put_i32(current.previous_epoch);
    put_held(out, &current.assigned);
    put_held(out, &current.revoking);
}

fn current(reader: &mut Reader<'_>) -> Result<Current, RecordError> {
    Ok(Current {
        progress: match reader.u8()? {
            1 => Progress::Stable,
            2 => Progress::Unrevoked,
            3 => Progress::Unreleased,
            other => return Err(RecordError::Unknown(other)),
        },
        epoch: reader.i32()?,
        previous_epoch: reader.i32()?,
        assigned: held(reader)?,
        revoking: held(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Str> {
        ".{0,8}".prop_map(|text: String| Str::from(text))
    }

    fn task_id() -> impl Strategy<Value = TaskId> {
        (text(), any::<i32>())
            .prop_map(|(subtopology, partition)| TaskId { subtopology, partition })
    }

    fn some_held() -> impl Strategy<Value = Held> {
        let active = prop::collection::btree_map(task_id(), any::<i32>(), 0..5);
        (active, prop::collection::btree_set(task_id(), 0..5))
            .prop_map(|(active, standby)| Held { active, standby })
    }

    fn some_current() -> impl Strategy<Value = Current> {
        let progress =
            prop::sample::select(vec![Progress::Stable, Progress::Unrevoked, Progress::Unreleased]);
        (progress, any::<(i32, i32)>(), some_held(), some_held()).prop_map(
            |(progress, (epoch, previous_epoch), assigned, revoking)| Current {
                progress,
                epoch,
                previous_epoch,
                assigned,
                revoking,
            },
        )
    }

    fn some_profile() -> impl Strategy<Value = Profile> {
        let tags = prop::collection::btree_map(text(), text(), 0..3);
        let endpoint = prop::option::of((text(), any::<u16>()));
        (prop::option::of(text()), [text(), text(), text()], any::<(i32, i32)>(), endpoint, tags)
            .prop_map(|(rack, [client_id, client_host, process], numbers, endpoint, tags)| {
                let (rebalance_timeout_ms, topology_epoch) = numbers;
                Profile {
                    rack,
                    client_id,
                    client_host,
                    rebalance_timeout_ms,
                    topology_epoch,
                    process,
                    endpoint,
                    tags,
                }
            })
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(
            current in some_current(),
            profile in some_profile(),
            target in (some_held(), some_held()),
            id in text(),
            numbers in any::<(i32, u128, i32, i32, i32)>(),
        ) {
            let (group, topics_hash, validated, assignment, standbys) = numbers;
            let epochs = Epochs { group, topics_hash, validated, assignment, standbys };
            let target = Tasks {
                active: target.0.active.into_keys().collect(),
                standby: target.1.standby,
            };
            let mut stored = Stored::default();
            for (part, value) in [
                (Part::Group, Value::Epochs(epochs)),
                (Part::Profile(id.clone()), Value::Profile(&profile)),
                (Part::Target(id.clone()), Value::Target(&target)),
                (Part::Current(id.clone()), Value::Current(&current)),
            ] {
                prop_assert_eq!(Part::decode(&part.key()), Ok(part.clone()));
                let value = value.encode();
                prop_assert_eq!(stored.take(&part.key(), &value), Ok(()));
                for end in 0..value.len() {
                    prop_assert!(Stored::default().take(&part.key(), &value[..end]).is_err());
                }
            }
            prop_assert_eq!(stored.epochs, Some(epochs));
            prop_assert_eq!(stored.profiles.get(&id), Some(&profile));
            prop_assert_eq!(stored.targets.get(&id), Some(&target));
            prop_assert_eq!(stored.currents.get(&id), Some(&current));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            key in prop::collection::vec(any::<u8>(), 0..4),
            kind in GROUP..=CURRENT,
            value in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Stored::default().take(&key, &value);
            let versioned = [&[VERSION], &value[..]].concat();
            let _ = Stored::default().take(&[kind], &versioned);
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let tasks = Tasks {
            active: BTreeSet::from([TaskId::new(&Str::from_static("ab"), 7)]),
            standby: BTreeSet::new(),
        };
        let expected =
            [&[1][..], &[0, 0, 0, 1, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 7], &[0, 0, 0, 0]].concat();
        assert_eq!(Value::Target(&tasks).encode(), expected);
        assert_eq!(Part::Target(Str::from_static("m")).key(), &[4, b'm'][..]);
        let epochs = Value::Epochs(Epochs::default()).encode();
        let expected =
            [&[1, 0, 0, 0, 1][..], &[0; 16], &[0, 0, 0, 0, 0, 0, 0, 1], &[0xff, 0xff, 0xff, 0xff]]
                .concat();
        assert_eq!(epochs, expected);
    }

    #[test]
    fn claimed_counts_and_unknown_versions_are_errors() {
        let mut stored = Stored::default();
        let target = Part::Target(Str::default()).key();
        let value = [1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(stored.take(&target, &value), Err(RecordError::Short));
        assert_eq!(stored.take(&target, &[2]), Err(RecordError::Unknown(2)));
        assert_eq!(stored.take(&[9], &[1]), Err(RecordError::Unknown(9)));
        assert_eq!(stored.take(&[GROUP, b'x'], &[1]), Err(RecordError::Trailing));
        assert_eq!(stored.take(&[], &[1]), Err(RecordError::Short));
    }
}
