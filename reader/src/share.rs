//! How much to read of each of many streams that one request wants. Pure.
//!
//! A segment that compaction has not seen holds a little of many streams. It is read by a few large requests only if
//! all who want something of it want it at the same time, and what they bring has to find room in the cache. So
//! a request for many streams gets a little of each, extent by extent; and streams that have come a few segments further than the
//! others wait for them.

use std::cmp::Reverse;

use sluice_format::SegmentId;

/// A request for many streams gets about this much of the cache's size in all...
const SHARE_OF_CACHE: u64 = 4;
/// ... and at most so much.
const MOST_OF_MANY: u64 = 16 << 20;
/// A stream that is further than this from those before it is not kept waiting for them.
const NEAR: u64 = 8;

/// How much a read is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Up to so many bytes, but at least one batch.
    pub max_bytes: u64,
    /// With so many bytes it ends where an extent ends.
    pub enough: u64,
}

impl Bounds {
    /// As much as there is, up to `max_bytes`.
    pub fn most(max_bytes: u64) -> Self {
        Self { max_bytes, enough: max_bytes }
    }
}

/// Where a stream is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The segment; none if it is not known.
    pub(crate) segment: Option<SegmentId>,
    /// What the segment holds of the stream from there on.
    pub(crate) bytes: u64,
    /// What may be given of the stream.
    pub(crate) max_bytes: u64,
}

/// The bounds for each of `places`; none for one that is to wait.
pub(crate) fn share_out(places: &[Place], cache_bytes: u64) -> Vec<Option<Bounds>> {
    if let [one] = places {
        return vec![Some(Bounds::most(one.max_bytes))];
    }
    let total = MOST_OF_MANY.min(cache_bytes / SHARE_OF_CACHE);
    let share = total / places.len().max(1) as u64;
    let mut order: Vec<usize> = (0..places.len()).collect();
    // Of those in one segment all are read.
    order.sort_by_key(|&index| (places[index].segment, Reverse(places[index].bytes)));
    let mut bounds = vec![None; places.len()];
    let mut before: Option<SegmentId> = None;
    let (mut taken, mut last_taken) = (0, None);
    for index in order {
        let Place { segment, bytes, max_bytes } = places[index];
        if !is_near(before, segment) {
            taken = 0;
        }
        before = segment;
        if taken >= total / 2 && segment != last_taken {
            continue;
        }
        let given =
            Bounds { max_bytes: max_bytes.min(2 * share), enough: max_bytes.min(share / 2) };
        taken += bytes.min(given.max_bytes);
        last_taken = segment;
        bounds[index] = Some(given);
    }
    bounds
}

/// Whether `segment` lies shortly behind `before`.
fn is_near(before: Option<SegmentId>, segment: Option<SegmentId>) -> bool {
    let (Some(before), Some(segment)) = (before, segment) else { return false };
    before.volume == segment.volume
        && before.epoch == segment.epoch
        && segment.sequence - before.sequence <= NEAR
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const CACHE: u64 = 64 << 20;

    fn place(sequence: u64) -> Place {
        let segment = Some(SegmentId { volume: 0, epoch: 1, sequence });
        Place { segment, bytes: 330 * KIB, max_bytes: 1 << 20 }
    }

    /// Which of streams in these segments are read.
    fn read(sequences: &[u64]) -> Vec<usize> {
        let places: Vec<_> = sequences.iter().map(|sequence| place(*sequence)).collect();
        let bounds = share_out(&places, CACHE);
        (0..places.len()).filter(|index| bounds[*index].is_some()).collect()
    }

    #[test]
    fn one_stream_gets_all_that_it_may() {
        assert_eq!(share_out(&[place(3)], CACHE), [Some(Bounds::most(1 << 20))]);
        assert!(share_out(&[], CACHE).is_empty());
    }

    #[test]
    fn many_get_a_little_each_and_few_as_much_as_they_may() {
        let of = |count: usize| share_out(&vec![place(3); count], CACHE)[0].unwrap();
        assert_eq!(of(2).max_bytes, 1 << 20);
        assert_eq!(of(64), Bounds { max_bytes: 512 * KIB, enough: 128 * KIB });
        assert_eq!(of(1024), Bounds { max_bytes: 32 * KIB, enough: 8 * KIB });
    }

    #[test]
    fn those_ahead_wait_until_the_others_are_there() {
        let mut sequences = vec![10; 50];
        sequences[7] = 11;
        sequences[30] = 12;
        let all_but = |left: &[usize]| (0..50).filter(|n| !left.contains(n)).collect::<Vec<_>>();
        assert_eq!(read(&sequences), all_but(&[7, 30]));
        // Few have not enough for an answer: the next ones come with them.
        assert_eq!(read(&[10, 11, 12, 13]), [0, 1, 2, 3]);
    }

    #[test]
    fn who_is_far_ahead_or_elsewhere_is_not_kept_waiting() {
        let mut sequences = vec![10; 50];
        sequences[7] = 10 + NEAR + 1;
        assert_eq!(read(&sequences).len(), 50);
        let mut places = vec![place(10); 50];
        places[3].segment = None;
        places[4].segment = Some(SegmentId { volume: 1, epoch: 1, sequence: 11 });
        places[5].segment = Some(SegmentId { volume: 0, epoch: 2, sequence: 11 });
        assert!(share_out(&places, CACHE).iter().all(Option::is_some));
    }

    #[test]
    fn all_come_to_the_end_however_they_begin() {
        let mut at: Vec<u64> = (0..60).map(|n| n * 7 % 50).collect();
        let mut rounds = 0;
        while at.iter().any(|sequence| *sequence < 60) {
            let open: Vec<usize> = (0..at.len()).filter(|n| at[*n] < 60).collect();
            let sequences: Vec<_> = open.iter().map(|n| at[*n]).collect();
            let read = read(&sequences);
            assert!(!read.is_empty());
            read.into_iter().for_each(|n| at[open[n]] += 1);
            rounds += 1;
        }
        assert!(rounds < 140, "{rounds} rounds for 60 segments");
    }
}
