//! Share sessions (KIP-932): which streams a member fetches, so that it need not name them each time, and
//! an epoch that tells a repeated request from a new one.
//!
//! A session is made by a ShareFetch with epoch 0 and ended by a request with epoch -1, by its member's
//! leaving the group, with the connection that it was made on, or to make room when it is idle. Sessions are in memory: after a restart clients are told
//! that theirs is not found, and make a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sluice_model::{StreamId, TenantId};
use sluice_wire::{ErrorCode, Str};
use tokio::time::Instant;

/// Streams of one session; more are refused with INVALID_REQUEST.
const MAX_STREAMS: usize = 10_000;
/// The epoch of a request that begins a session.
pub(crate) const INITIAL: i32 = 0;
/// The epoch of a request that ends it.
pub(crate) const FINAL: i32 = -1;

/// Whose request it is, and on which connection it came: a number that no other has in this process's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareClient {
    /// The tenant of the connection.
    pub tenant: TenantId,
    /// The connection.
    pub connection: u64,
}

/// The member of a group that a session is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) group: Str,
    pub(crate) member: Str,
}

#[derive(Debug)]
struct Session {
    /// That it was made on.
    connection: u64,
    /// Of the next request.
    epoch: i32,
    /// In the order in which they were added.
    streams: Vec<StreamId>,
    /// The same.
    known: BTreeSet<StreamId>,
    used: Instant,
}

/// What a ShareFetch changes in its session.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub(crate) added: Vec<StreamId>,
    pub(crate) forgotten: Vec<StreamId>,
}

/// The sessions of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<SessionKey, Session>,
}

fn after(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl Sessions {
    /// A new session, in place of the member's old one. `SHARE_SESSION_LIMIT_REACHED` when there are
    /// `limit` others.
    pub(crate) fn begin(
        &mut self,
        key: SessionKey,
        connection: u64,
        streams: Vec<StreamId>,
        limit: usize,
        now: Instant,
    ) -> Result<Vec<StreamId>, ErrorCode> {
        self.sessions.remove(&key);
        if self.sessions.len() >= limit {
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let mut session = Session {
            connection,
            epoch: after(INITIAL),
            streams: Vec::new(),
            known: BTreeSet::new(),
            used: now,
        };
        session.check_room(&streams)?;
        session.add(streams);
        let streams = session.streams.clone();
        self.sessions.insert(key, session);
        Ok(streams)
    }

    /// A fetch that goes on with a session; gives all of its streams.
    pub(crate) fn go_on(
        &mut self,
        key: &SessionKey,
        epoch: i32,
        change: Change,
        now: Instant,
    ) -> Result<Vec<StreamId>, ErrorCode> {
        let known = self.sessions.get(key).ok_or(ErrorCode::ShareSessionNotFound)?;
        known.check_room(&change.added)?;
        let session = self.next(key, epoch, now)?;
        session.add(change.added);
        if !change.forgotten.is_empty() {
            for stream in change.forgotten {
                session.known.remove(&stream);
            }
            let Session { streams, known, .. } = session;
            streams.retain(|stream| known.contains(stream));
        }
        Ok(session.streams.clone())
    }

    /// An acknowledgement apart from a fetch: it counts in the session's epoch and never begins one.
    pub(crate) fn acknowledge(
        &mut self,
        key: &SessionKey,
        epoch: i32,
        now: Instant,
    ) -> Result<(), ErrorCode> {
        match epoch {
            INITIAL => Err(ErrorCode::InvalidShareSessionEpoch),
            FINAL if self.sessions.contains_key(key) => Ok(()),
            FINAL => Err(ErrorCode::ShareSessionNotFound),
            _ => self.next(key, epoch, now).map(drop),
        }
    }

    pub(crate) fn contains(&self, key: &SessionKey) -> bool {
        self.sessions.contains_key(key)
    }

    /// Ends a session; gives its streams.
    pub(crate) fn end(&mut self, key: &SessionKey) -> Option<Vec<StreamId>> {
        self.sessions.remove(key).map(|session| session.streams)
    }

    /// Sessions that were made on a connection.
    pub(crate) fn of_connection(&self, connection: u64) -> Vec<SessionKey> {
        let made_on = self.sessions.iter().filter(|(_, session)| session.connection == connection);
        made_on.map(|(key, _)| key.clone()).collect()
    }

    /// Sessions that were not used for `idle`.
    pub(crate) fn idle(&self, idle: Duration, now: Instant) -> Vec<SessionKey> {
        let unused = |session: &Session| now.saturating_duration_since(session.used) >= idle;
        let idle = self.sessions.iter().filter(|(_, session)| unused(session));
        idle.map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn next(
        &mut self,
        key: &SessionKey,
        epoch: i32,
        now: Instant,
    ) -> Result<&mut Session, ErrorCode> {
        let session = self.sessions.get_mut(key).ok_or(ErrorCode::ShareSessionNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.epoch = after(epoch);
        session.used = now;
        Ok(session)
    }
}

impl Session {
    fn add(&mut self, streams: Vec<StreamId>) {
        for stream in streams {
            if self.known.insert(stream) {
                self.streams.push(stream);
            }
        }
    }

    fn check_room(&self, added: &[StreamId]) -> Result<(), ErrorCode> {
        let new = added.iter().filter(|stream| !self.known.contains(stream)).count();
        if self.known.len() + new > MAX_STREAMS {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::TopicId;

    use super::*;

    fn key(member: &'static str) -> SessionKey {
        SessionKey { group: Str::from_static("g"), member: Str::from_static(member) }
    }

    fn stream(partition: u32) -> StreamId {
        StreamId { topic: TopicId([1; 16]), partition }
    }

    #[test]
    fn epochs_tell_a_repeated_request() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let none = Change::default;
        let not_found = Err(ErrorCode::ShareSessionNotFound);
        assert_eq!(sessions.go_on(&key("a"), 1, none(), now), not_found);
        assert_eq!(sessions.begin(key("a"), 1, vec![stream(0)], 1, now), Ok(vec![stream(0)]));
        assert_eq!(sessions.go_on(&key("a"), 1, none(), now), Ok(vec![stream(0)]));
        let stale = Err(ErrorCode::InvalidShareSessionEpoch);
        assert_eq!(sessions.go_on(&key("a"), 1, none(), now), stale);
        assert_eq!(sessions.acknowledge(&key("a"), 2, now), Ok(()));
        assert_eq!(
            sessions.acknowledge(&key("a"), 0, now),
            Err(ErrorCode::InvalidShareSessionEpoch)
        );
        let change = Change { added: vec![stream(1), stream(0)], forgotten: vec![stream(0)] };
        assert_eq!(sessions.go_on(&key("a"), 3, change, now), Ok(vec![stream(1)]));
        assert_eq!(sessions.acknowledge(&key("a"), FINAL, now), Ok(()));
        assert_eq!(sessions.end(&key("a")), Some(vec![stream(1)]));
        assert_eq!(
            sessions.acknowledge(&key("a"), FINAL, now),
            Err(ErrorCode::ShareSessionNotFound)
        );
        assert_eq!(after(i32::MAX), 1);
    }

    #[test]
    fn sessions_are_bounded_and_a_member_has_one() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        assert!(sessions.begin(key("a"), 1, Vec::new(), 1, now).is_ok());
        assert!(sessions.begin(key("a"), 1, Vec::new(), 1, now).is_ok());
        let full = Err(ErrorCode::ShareSessionLimitReached);
        assert_eq!(sessions.begin(key("b"), 2, Vec::new(), 1, now), full);
        let many = (0..=u32::try_from(MAX_STREAMS).unwrap()).map(stream).collect();
        let change = Change { added: many, forgotten: Vec::new() };
        assert_eq!(sessions.go_on(&key("a"), 1, change, now), Err(ErrorCode::InvalidRequest));
        let idle = Duration::from_secs(1);
        assert_eq!(sessions.idle(idle, now), []);
        assert_eq!(sessions.idle(idle, now + idle), [key("a")]);
    }
}
