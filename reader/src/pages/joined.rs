//! Blocks that lie on two pages are put together by a copy. As long as somebody has the copy, others get the same: a
//! thousand consumers at one place, or answers that nobody takes, cost the memory of one.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_format::segment::SegmentId;

/// Copies that are remembered; beyond that everybody has his own.
const MOST: usize = 1024;

/// A segment, and the first and last position.
type Place = (SegmentId, u64, u64);

/// Copies that somebody has.
#[derive(Debug, Default)]
pub(super) struct Joined(Mutex<HashMap<Place, Weak<Copied>>>);

#[derive(Debug)]
struct Copied(Bytes);

/// A share in a copy.
struct Share(Arc<Copied>);

impl AsRef<[u8]> for Share {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl Joined {
    /// The copy of `range` that somebody has, or the one that `copy` makes.
    pub(super) fn get<E>(
        &self,
        segment: SegmentId,
        range: &Range<u64>,
        copy: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let place = (segment, range.start, range.end);
        let known = self.0.lock().get(&place).and_then(Weak::upgrade);
        let copied = match known {
            Some(copied) => copied,
            None => {
                let copied = Arc::new(Copied(copy()?));
                let mut places = self.0.lock();
                if places.len() >= MOST {
                    places.retain(|_, copied| copied.strong_count() > 0);
                }
                if places.len() < MOST {
                    places.insert(place, Arc::downgrade(&copied));
                }
                copied
            }
        };
        Ok(Bytes::from_owner(Share(copied)))
    }

    /// What was copied of `range` is damaged.
    pub(super) fn forget(&self, segment: SegmentId, range: &Range<u64>) {
        self.0.lock().retain(|(of, start, end), _| {
            *of != segment || *end <= range.start || *start >= range.end
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId { volume: 0, epoch: 1, sequence: 0 };

    #[test]
    fn a_copy_is_shared_as_long_as_somebody_has_it() {
        let joined = Joined::default();
        let get = |range: Range<u64>, bytes: &'static [u8]| {
            joined.get(SEGMENT, &range, || Ok::<_, ()>(Bytes::from_static(bytes))).unwrap()
        };
        let first = get(0..3, b"one");
        let second = get(0..3, b"two");
        assert_eq!(first, second, "the first one's");
        assert_eq!(get(0..4, b"else"), b"else"[..]);
        drop(first);
        assert_eq!(get(0..3, b"two"), b"one"[..]);
        drop(second);
        assert_eq!(get(0..3, b"two"), b"two"[..], "nobody has it any more");
        let held = get(0..3, b"bad");
        joined.forget(SEGMENT, &(2..9));
        assert_eq!(get(0..3, b"new"), b"new"[..], "what is damaged is copied anew");
        drop(held);
        assert_eq!(joined.get(SEGMENT, &(7..9), || Err("damaged")), Err("damaged"));
    }

    #[test]
    fn copies_that_are_remembered_are_bounded() {
        let joined = Joined::default();
        let get = |n: u64| joined.get(SEGMENT, &(n..n + 1), || Ok::<_, ()>(Bytes::new())).unwrap();
        let held: Vec<_> = (0..2 * MOST as u64).map(get).collect();
        assert_eq!(joined.0.lock().len(), MOST);
        drop(held);
        get(5000);
        assert_eq!(joined.0.lock().len(), 1);
    }
}
