//! Fetch sessions (KIP-227): a connection remembers what its consumer reads and what it was told, so that a fetch
//! names only what changed, and an answer only what is new. Pure.
//!
//! A session belongs to the connection on which it was made, at most one to each, and ends with it: a client
//! that comes back on another one is told that there is none, and makes a new one. So nobody can meet another's. All
//! sessions share a budget of partitions; where it is used up none is made, and clients go on naming all.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::Mutex;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest};
use sluice_wire::messages::fetch_response::{EpochEndOffset, PartitionData};
use sluice_wire::{ErrorCode, Str, Uuid};

use crate::budget::{Budget, Lease};

/// A request with this epoch begins a session.
const INITIAL: i32 = 0;
/// A request with this epoch wants none, and ends the one that it names.
const FINAL: i32 = -1;

/// A topic as requests name it: by name or by id, the other one is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TopicKey {
    pub(crate) name: Str,
    pub(crate) id: Uuid,
}

/// One partition that is to be read.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) topic: TopicKey,
    pub(crate) partition: FetchPartition,
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) struct Begun {
    kind: Kind,
    /// What is to be read, each partition once, in the order of the answer.
    pub(crate) wanted: Vec<Wanted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Without a session.
    Alone,
    /// The first of a session: all is told.
    First(i32),
    /// One that goes on with a session: what is new is told.
    Next(i32),
}

/// What all connections of a gateway share of their sessions.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    partitions: Budget,
    /// Of the session that was made last.
    id: AtomicI32,
}

impl FetchSessions {
    /// No sessions; together they may have as many partitions as the budget says.
    pub(crate) fn new(partitions: Budget) -> Self {
        Self { partitions, id: AtomicI32::new(0) }
    }

    /// Never 0, which says that there is no session.
    fn next_id(&self) -> i32 {
        self.id.fetch_add(1, Ordering::Relaxed).rem_euclid(i32::MAX) + 1
    }
}

/// A connection's session, if it has one.
#[derive(Debug, Default)]
pub(crate) struct FetchSession(Mutex<Option<Session>>);

#[derive(Debug)]
struct Session {
    id: i32,
    /// What the next request has to say.
    epoch: i32,
    by_ids: bool,
    /// In the order in which they are read: what has given records goes to the end, so that the others come first
    /// the next time.
    places: BTreeMap<u64, Place>,
    turns: HashMap<(TopicKey, i32), u64>,
    next_turn: u64,
    /// As many as there are places.
    lease: Lease,
}

#[derive(Debug)]
struct Place {
    wanted: Wanted,
    /// High watermark and log start as the client knows them; -1 before it was told.
    told: (i64, i64),
}

impl FetchSession {
    /// Takes up a request, whose topics are taken out of it.
    ///
    /// # Errors
    /// The session that it goes on with is not there, or not where the request believes it to be.
    pub(crate) fn begin(
        &self,
        all: &FetchSessions,
        request: &mut FetchRequest,
        by_ids: bool,
    ) -> Result<Begun, ErrorCode> {
        let topics = std::mem::take(&mut request.topics).into_iter().flat_map(|topic| {
            let key = TopicKey { name: topic.topic, id: topic.topic_id };
            let of = move |partition| Wanted { topic: key.clone(), partition };
            topic.partitions.into_iter().map(of)
        });
        let mut current = self.0.lock();
        if matches!(request.session_epoch, INITIAL | FINAL) {
            current.take_if(|session| session.id == request.session_id);
            let wanted = each_once(topics.collect());
            let lease = (request.session_epoch == INITIAL)
                .then(|| all.partitions.try_take(wanted.len()))
                .flatten();
            let Some(lease) = lease else { return Ok(Begun { kind: Kind::Alone, wanted }) };
            let mut session = Session::new(all.next_id(), by_ids, lease);
            for wanted in &wanted {
                session.put(wanted.clone());
            }
            let kind = Kind::First(session.id);
            *current = Some(session);
            return Ok(Begun { kind, wanted });
        }
        let session = current.as_mut().filter(|session| session.id == request.session_id);
        let session = session.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.by_ids != by_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        for wanted in topics {
            session.put(wanted);
        }
        for topic in std::mem::take(&mut request.forgotten_topics_data) {
            let key = TopicKey { name: topic.topic, id: topic.topic_id };
            for partition in topic.partitions {
                session.forget(&key, partition);
            }
        }
        if session.places.is_empty() {
            *current = None;
            return Ok(Begun { kind: Kind::Alone, wanted: Vec::new() });
        }
        let (held, needed) = (session.lease.bytes(), session.places.len());
        session.lease.shrink_to(needed);
        if needed > held {
            let Some(more) = all.partitions.try_take(needed - held) else {
                *current = None;
                return Err(ErrorCode::FetchSessionIdNotFound);
            };
            session.lease.join(more);
        }
        session.epoch = if session.epoch == i32::MAX { 1 } else { session.epoch + 1 };
        let wanted = session.places.values().map(|place| place.wanted.clone()).collect();
        Ok(Begun { kind: Kind::Next(session.id), wanted })
    }

    /// Leaves out of an answer what the client knows. Gives the id that the answer carries.
    pub(crate) fn finish(
        &self,
        begun: &Begun,
        answers: &mut Vec<(TopicKey, PartitionData)>,
    ) -> i32 {
        let (id, is_first) = match begun.kind {
            Kind::Alone => return 0,
            Kind::First(id) => (id, true),
            Kind::Next(id) => (id, false),
        };
        let mut current = self.0.lock();
        // A later request may have ended it, or begun another.
        if let Some(session) = current.as_mut().filter(|session| session.id == id) {
            answers.retain(|(topic, data)| session.tell(topic, data, is_first));
        }
        id
    }
}

impl Session {
    fn new(id: i32, by_ids: bool, lease: Lease) -> Self {
        Self {
            id,
            epoch: INITIAL + 1,
            by_ids,
            places: BTreeMap::new(),
            turns: HashMap::new(),
            next_turn: 0,
            lease,
        }
    }

    /// Adds a partition, or changes how it is read.
    fn put(&mut self, wanted: Wanted) {
        match self.turns.entry((wanted.topic.clone(), wanted.partition.partition)) {
            Entry::Occupied(turn) => {
                if let Some(place) = self.places.get_mut(turn.get()) {
                    place.wanted = wanted;
                }
            }
            Entry::Vacant(turn) => {
                turn.insert(self.next_turn);
                self.places.insert(self.next_turn, Place { wanted, told: (-1, -1) });
                self.next_turn += 1;
            }
        }
    }

    fn forget(&mut self, topic: &TopicKey, partition: i32) {
        if let Some(turn) = self.turns.remove(&(topic.clone(), partition)) {
            self.places.remove(&turn);
        }
    }

    /// Whether the client has to be told; then it knows.
    fn tell(&mut self, topic: &TopicKey, data: &PartitionData, is_first: bool) -> bool {
        let Some(turn) = self.turns.get_mut(&(topic.clone(), data.partition_index)) else {
            // Forgotten by a request that came after.
            return true;
        };
        let Some(place) = self.places.get_mut(turn) else { return true };
        let now = (data.high_watermark, data.log_start_offset);
        let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let is_new = is_first
            || has_records
            || place.told != now
            || data.error_code != 0
            || data.diverging_epoch != EpochEndOffset::default();
        // After an error the client is told how things are, whatever it was told before.
        place.told = if data.error_code == 0 { now } else { (-1, -1) };
        if has_records && !is_first {
            let moved = self.places.remove(turn);
            *turn = self.next_turn;
            self.places.extend(moved.map(|place| (self.next_turn, place)));
            self.next_turn += 1;
        }
        is_new
    }
}

/// A partition that is named again is fetched once: where it first stood, as it was last asked for.
fn each_once(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let is_before = |one: &Wanted, next: &Wanted| {
        one.topic == next.topic && one.partition.partition < next.partition.partition
    };
    if wanted.is_sorted_by(is_before) {
        return wanted;
    }
    let mut places = HashMap::with_capacity(wanted.len());
    let mut each: Vec<Wanted> = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        match places.entry((wanted.topic.clone(), wanted.partition.partition)) {
            Entry::Occupied(place) => {
                let place: &usize = place.get();
                each[*place] = wanted;
            }
            Entry::Vacant(place) => {
                place.insert(each.len());
                each.push(wanted);
            }
        }
    }
    each
}

#[cfg(test)]
mod tests {
    use sluice_wire::Chain;
    use sluice_wire::messages::fetch_request::{FetchTopic, ForgottenTopic};

    use super::*;

    fn all(partitions: usize) -> FetchSessions {
        FetchSessions::new(Budget::new(
            partitions,
            prometheus_client::metrics::gauge::Gauge::default(),
        ))
    }

    fn request(id: i32, epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
        let partitions = partitions.iter().map(|(partition, fetch_offset)| FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            ..Default::default()
        });
        let topic = FetchTopic {
            topic: Str::from_static("t"),
            partitions: partitions.collect(),
            ..Default::default()
        };
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            topics: vec![topic],
            ..Default::default()
        }
    }

    fn forgetting(id: i32, epoch: i32, partitions: &[i32]) -> FetchRequest {
        FetchRequest {
            session_id: id,
            session_epoch: epoch,
            forgotten_topics_data: vec![ForgottenTopic {
                topic: Str::from_static("t"),
                partitions: partitions.to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    /// The session's id, what was read (partition, offset), and the partitions that were told.
    type Fetched = (i32, Vec<(i32, i64)>, Vec<i32>);

    /// Asks, and answers with these (partition, high watermark, whether there are records, error).
    fn fetch(
        session: &FetchSession,
        all: &FetchSessions,
        mut request: FetchRequest,
        found: &[(i32, i64, bool, i16)],
    ) -> Result<Fetched, ErrorCode> {
        let begun = session.begin(all, &mut request, false)?;
        let wanted: Vec<_> = begun
            .wanted
            .iter()
            .map(|w| (w.partition.partition, w.partition.fetch_offset))
            .collect();
        let mut answers: Vec<_> = begun
            .wanted
            .iter()
            .map(|wanted| {
                let index = wanted.partition.partition;
                let found = found.iter().find(|found| found.0 == index);
                let (_, high_watermark, has_records, error_code) = *found.expect("asked for");
                let records = if has_records {
                    Chain::from(bytes::Bytes::from_static(b"r"))
                } else {
                    Chain::new()
                };
                let data = PartitionData {
                    partition_index: index,
                    high_watermark,
                    error_code,
                    records: Some(records),
                    ..Default::default()
                };
                (wanted.topic.clone(), data)
            })
            .collect();
        let id = session.finish(&begun, &mut answers);
        Ok((id, wanted, answers.iter().map(|(_, data)| data.partition_index).collect()))
    }

    #[test]
    fn a_session_asks_for_all_and_tells_what_is_new() {
        let (session, all) = (FetchSession::default(), all(10));
        let quiet = [(0, 5, false, 0), (1, 5, false, 0), (2, 5, false, 0)];
        let first = request(0, 0, &[(0, 5), (1, 5), (2, 5)]);
        let (id, wanted, told) = fetch(&session, &all, first, &quiet).expect("a session");
        assert!(id != 0);
        assert_eq!((wanted.len(), told), (3, vec![0, 1, 2]));
        // Nothing is named and nothing has changed.
        let (same, wanted, told) =
            fetch(&session, &all, request(id, 1, &[]), &quiet).expect("it goes on");
        assert_eq!((same, wanted, told), (id, vec![(0, 5), (1, 5), (2, 5)], vec![]));
        // Records are told, and their partition comes last the next time; so is a new high watermark alone.
        let news = [(0, 6, true, 0), (1, 7, false, 0), (2, 5, false, 0)];
        assert_eq!(
            fetch(&session, &all, request(id, 2, &[]), &news).expect("it goes on").2,
            [0, 1]
        );
        let (_, wanted, told) =
            fetch(&session, &all, request(id, 3, &[(0, 6)]), &news).expect("it goes on");
        assert_eq!((wanted, told), (vec![(1, 5), (2, 5), (0, 6)], vec![0]));
        // An error each time, and what is right again once.
        let bad = [(0, -1, false, 3), (1, 7, false, 0), (2, 5, false, 0)];
        for epoch in 4..6 {
            assert_eq!(
                fetch(&session, &all, request(id, epoch, &[]), &bad).expect("it goes on").2,
                [0]
            );
        }
        let good = [(0, 6, false, 0), (1, 7, false, 0), (2, 5, false, 0)];
        assert_eq!(fetch(&session, &all, request(id, 6, &[]), &good).expect("it goes on").2, [0]);
        assert_eq!(
            fetch(&session, &all, request(id, 7, &[]), &good).expect("it goes on").2,
            [0; 0]
        );
    }

    #[test]
    fn partitions_are_added_and_forgotten_and_an_empty_session_ends() {
        let (session, all) = (FetchSession::default(), all(10));
        let found = [(0, 1, false, 0), (1, 1, false, 0)];
        let (id, ..) = fetch(&session, &all, request(0, 0, &[(0, 1)]), &found).expect("a session");
        let (_, wanted, told) =
            fetch(&session, &all, request(id, 1, &[(1, 1)]), &found).expect("it goes on");
        assert_eq!((wanted.len(), told), (2, vec![1]));
        let (_, wanted, _) =
            fetch(&session, &all, forgetting(id, 2, &[0]), &found).expect("it goes on");
        assert_eq!(wanted, [(1, 1)]);
        assert_eq!(
            fetch(&session, &all, forgetting(id, 3, &[1]), &found).expect("ended"),
            (0, vec![], vec![])
        );
        assert_eq!(
            fetch(&session, &all, request(id, 4, &[]), &found),
            Err(ErrorCode::FetchSessionIdNotFound)
        );
        assert!(all.partitions.try_take(10).is_some(), "all were given back");
    }

    #[test]
    fn a_consumer_that_pauses_and_resumes_takes_no_more_than_it_reads() {
        let (session, all) = (FetchSession::default(), all(4));
        let found = [(0, 1, false, 0), (1, 1, false, 0)];
        let both = request(0, 0, &[(0, 1), (1, 1)]);
        let (id, ..) = fetch(&session, &all, both, &found).expect("a session");
        for epoch in (1..20).step_by(2) {
            fetch(&session, &all, forgetting(id, epoch, &[1]), &found).expect("it goes on");
            assert!(all.partitions.try_take(3).is_some(), "what is forgotten is given back");
            let again = request(id, epoch + 1, &[(1, 1)]);
            fetch(&session, &all, again, &found).expect("it goes on");
        }
        assert!(all.partitions.try_take(2).is_some());
    }

    #[test]
    fn what_does_not_fit_the_session_is_refused_and_changes_nothing() {
        let (session, all) = (FetchSession::default(), all(10));
        let found = [(0, 1, false, 0)];
        let none = Err(ErrorCode::FetchSessionIdNotFound);
        assert_eq!(fetch(&session, &all, request(7, 1, &[]), &found), none);
        let (id, ..) = fetch(&session, &all, request(0, 0, &[(0, 1)]), &found).expect("a session");
        assert_eq!(fetch(&session, &all, request(id + 1, 1, &[]), &found), none);
        let wrong = Err(ErrorCode::InvalidFetchSessionEpoch);
        assert_eq!(fetch(&session, &all, request(id, 2, &[]), &found), wrong);
        let by_ids = session.begin(&all, &mut request(id, 1, &[]), true);
        assert_eq!(by_ids.map(drop), Err(ErrorCode::FetchSessionTopicIdError));
        assert!(fetch(&session, &all, request(id, 1, &[]), &found).is_ok());
        // Ended by its client.
        assert_eq!(fetch(&session, &all, request(id, -1, &[(0, 1)]), &found).expect("alone").0, 0);
        assert_eq!(fetch(&session, &all, request(id, 2, &[]), &found), none);
    }

    #[test]
    fn without_room_there_is_no_session_and_fetches_go_on() {
        let (one, two, all) = (FetchSession::default(), FetchSession::default(), all(3));
        let found = [(0, 1, false, 0), (1, 1, false, 0), (2, 1, false, 0)];
        let (id, ..) =
            fetch(&one, &all, request(0, 0, &[(0, 1), (1, 1)]), &found).expect("a session");
        let without =
            fetch(&two, &all, request(0, 0, &[(0, 1), (1, 1)]), &found).expect("an answer");
        assert_eq!((without.0, without.2), (0, vec![0, 1]));
        assert!(fetch(&one, &all, request(id, 1, &[(2, 1)]), &found).is_ok());
        let (full, other) = (all.partitions.try_take(1), request(0, 0, &[(0, 1)]));
        assert!(full.is_none() && fetch(&two, &all, other, &found).expect("an answer").0 == 0);
        drop(one);
        assert!(fetch(&two, &all, request(0, 0, &[(0, 1)]), &found).expect("a session").0 != 0);
    }

    #[test]
    fn a_partition_named_twice_is_read_once() {
        let (session, all) = (FetchSession::default(), all(10));
        for epoch in [-1, 0] {
            let twice = request(0, epoch, &[(1, 4), (0, 3), (1, 9)]);
            let found = [(0, 1, false, 0), (1, 1, false, 0)];
            assert_eq!(
                fetch(&session, &all, twice, &found).expect("an answer").1,
                [(1, 9), (0, 3)]
            );
        }
    }
}
