//! Makes whole transactions of the answers to a watch. Pure.
//!
//! ```text
//! answers:       [4a 4b 5a]+  [5b]+  [5c 6a]   [7a]        + more of the same follows (fragment)
//! transactions:   4: a b       5: a b c         6: a  7: a
//! ```
//!
//! etcd promises that one answer holds whole revisions, in their order (docs: API guarantees, "atomic"); where we
//! let it, it splits a long answer and marks each part but the last. So a revision is whole when the
//! next one begins, or when a part ends that is not marked.

use std::collections::VecDeque;

use sluice_catalog::store::{Change, Event, Revision, WatchError};

use crate::failure::Failure;
use crate::proto::etcdserverpb::WatchResponse;
use crate::proto::mvccpb::{self, event::EventType};
use crate::range::{entry, key};
use crate::session::bad;

/// What has come of a watch and was not taken.
pub(crate) struct Assembler {
    /// The store's own prefix, which the caller does not know of.
    root: String,
    /// The last revision that is whole; there come only later ones.
    whole: u64,
    /// The revision that is not whole yet.
    open: Option<Change>,
    ready: VecDeque<Change>,
}

impl Assembler {
    /// For a watch that begins behind `after`.
    pub(crate) fn new(root: String, after: Revision) -> Self {
        Self { root, whole: after.0, open: None, ready: VecDeque::new() }
    }

    /// The next whole transaction.
    pub(crate) fn next(&mut self) -> Option<Change> {
        self.ready.pop_front()
    }

    /// Takes an answer. After an error nothing more may be taken; what is whole can be.
    pub(crate) fn take(&mut self, answer: WatchResponse) -> Result<(), WatchError> {
        if answer.compact_revision > 0 {
            return Err(WatchError::Compacted);
        }
        if answer.canceled {
            let reason = answer.cancel_reason;
            return Err(WatchError::Interrupted(format!("etcd ended it: {reason}")));
        }
        for event in answer.events {
            self.event(event)
                .map_err(|failure| WatchError::Interrupted(failure.text().to_owned()))?;
        }
        if !answer.fragment {
            self.close();
        }
        Ok(())
    }

    fn event(&mut self, event: mvccpb::Event) -> Result<(), Failure> {
        let found = event.kv.ok_or_else(|| bad("an event without a key"))?;
        let revision = u64::try_from(found.mod_revision).map_err(|_| bad("a negative revision"))?;
        if self.open.as_ref().is_some_and(|open| open.revision.0 != revision) {
            self.close();
        }
        if revision <= self.whole {
            return Err(bad("a revision that was there before"));
        }
        let event = match EventType::try_from(event.r#type) {
            Ok(EventType::Put) => entry(&self.root, found)?.map(Event::Put),
            Ok(EventType::Delete) => key(&self.root, &found.key)?.map(|key| Event::Delete { key }),
            Err(_) => return Err(bad("an event of an unknown kind")),
        };
        let revision = Revision(revision);
        let open = self.open.get_or_insert_with(|| Change { revision, events: Vec::new() });
        open.events.extend(event);
        Ok(())
    }

    /// The open revision is whole.
    fn close(&mut self) {
        let Some(mut change) = self.open.take() else { return };
        self.whole = change.revision.0;
        if !change.events.is_empty() {
            change.events.sort_unstable_by(|a, b| a.key().cmp(b.key()));
            self.ready.push_back(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::mvccpb::KeyValue;

    fn event(kind: i32, key: &str, revision: i64) -> mvccpb::Event {
        let kv =
            KeyValue { key: key.to_owned().into(), mod_revision: revision, ..KeyValue::default() };
        mvccpb::Event { r#type: kind, kv: Some(kv) }
    }

    fn answer(fragment: bool, events: &[(&str, i64)]) -> WatchResponse {
        let events = events.iter().map(|(key, revision)| event(0, key, *revision)).collect();
        WatchResponse { fragment, events, ..WatchResponse::default() }
    }

    fn assembler() -> Assembler {
        Assembler::new("/p".to_owned(), Revision(3))
    }

    /// What is whole by now: revisions, each with its keys.
    fn whole(assembler: &mut Assembler) -> Vec<(u64, String)> {
        std::iter::from_fn(|| assembler.next())
            .map(|change| {
                let keys: Vec<_> = change.events.iter().map(Event::key).collect();
                (change.revision.0, keys.concat())
            })
            .collect()
    }

    #[test]
    fn transactions_are_put_together() {
        let mut it = assembler();
        it.take(WatchResponse { created: true, ..WatchResponse::default() }).unwrap();
        assert_eq!(whole(&mut it), []);
        it.take(answer(true, &[("/pb", 4), ("/pa", 4), ("/pa", 5)])).unwrap();
        assert_eq!(whole(&mut it), [(4, "ab".to_owned())], "in the order of keys");
        it.take(answer(true, &[("/pb", 5)])).unwrap();
        assert_eq!(whole(&mut it), [], "more of it may follow");
        it.take(answer(false, &[("/pc", 5), ("/pa", 6)])).unwrap();
        assert_eq!(whole(&mut it), [(5, "abc".to_owned()), (6, "a".to_owned())]);
        it.take(answer(true, &[("/pa", 7)])).unwrap();
        it.take(answer(false, &[])).unwrap();
        assert_eq!(whole(&mut it), [(7, "a".to_owned())]);
        it.take(answer(false, &[("/pa", 20)])).unwrap();
        assert_eq!(whole(&mut it), [(20, "a".to_owned())], "others take revisions, too");
    }

    #[test]
    fn every_cut_into_parts_gives_the_same() {
        let events = [("/pa", 4), ("/pb", 4), ("/pa", 5), ("/pc", 6), ("/pd", 6), ("/pe", 6)];
        let expected = [(4, "ab".to_owned()), (5, "a".to_owned()), (6, "cde".to_owned())];
        for cuts in 0..1_u32 << (events.len() - 1) {
            let mut it = assembler();
            let mut part = Vec::new();
            for (at, event) in events.iter().enumerate() {
                part.push(*event);
                if at + 1 == events.len() || cuts >> at & 1 == 1 {
                    it.take(answer(at + 1 < events.len(), &std::mem::take(&mut part))).unwrap();
                }
            }
            assert_eq!(whole(&mut it), expected, "{cuts:b}");
        }
    }

    #[test]
    fn ends_are_told_apart_and_what_is_whole_stays() {
        let mut it = assembler();
        it.take(answer(true, &[("/pa", 4), ("/pa", 5)])).unwrap();
        let compacted =
            WatchResponse { canceled: true, compact_revision: 9, ..WatchResponse::default() };
        assert_eq!(it.take(compacted), Err(WatchError::Compacted));
        assert_eq!(whole(&mut it), [(4, "a".to_owned())]);
        let reason = "etcdserver: no leader".to_owned();
        let ended =
            WatchResponse { canceled: true, cancel_reason: reason, ..WatchResponse::default() };
        let Err(WatchError::Interrupted(why)) = assembler().take(ended) else { panic!("it ends") };
        assert!(why.contains("no leader"), "{why}");
    }

    #[test]
    fn bad_answers_end_the_watch() {
        let with = |events| WatchResponse { events, ..WatchResponse::default() };
        let without_key = mvccpb::Event { r#type: 0, kv: None };
        for events in [
            vec![event(2, "/pa", 4)],
            vec![event(0, "/qa", 4)],
            vec![event(0, "/pa", -4)],
            vec![event(0, "/pa", 3)],
            vec![event(0, "/pa", 5), event(0, "/pa", 4)],
            vec![without_key],
        ] {
            let ended = assembler().take(with(events.clone()));
            assert!(matches!(ended, Err(WatchError::Interrupted(_))), "{events:?}");
        }
        let mut it = assembler();
        it.take(answer(false, &[("/pa", 4)])).unwrap();
        assert!(it.take(answer(false, &[("/pb", 4)])).is_err(), "4 was told as whole");
    }
}
