//! On which volumes the partitions of a topic go: pure.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use sluice_model::{TopicId, VolumeId};

use crate::cluster::mix;

/// A volume that partitions may be put on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) volume: VolumeId,
    /// Partitions of this topic that it has already.
    pub(crate) own: usize,
    /// Partitions of all topics that it has already.
    pub(crate) load: usize,
}

/// Places `count` more partitions of a topic. A topic is dealt out evenly, so that it has the
/// throughput of all volumes; which volumes get one more is decided by their load, and among equals by
/// a hash, so that topics of one partition do not gather. Empty if there are no candidates.
pub(crate) fn place(topic: TopicId, candidates: &[Candidate], count: usize) -> Vec<VolumeId> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let (high, low) = topic.0.split_at(8);
    let seed = high.iter().zip(low).fold(0, |seed, (a, b)| seed << 8 | u64::from(a ^ b));
    let mut heap: BinaryHeap<_> = candidates
        .iter()
        .map(|c| Reverse((c.own, c.load, mix(seed ^ u64::from(c.volume.0)), c.volume)))
        .collect();
    let mut placed = Vec::with_capacity(count);
    while placed.len() < count {
        let Some(mut least) = heap.peek_mut() else { break };
        let Reverse((own, load, _, volume)) = &mut *least;
        placed.push(*volume);
        *own += 1;
        *load += 1;
    }
    placed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(placed: &[VolumeId], volumes: usize) -> Vec<usize> {
        (0..volumes).map(|v| placed.iter().filter(|p| p.0 == v as u32).count()).collect()
    }

    fn candidates(loads: &[usize]) -> Vec<Candidate> {
        let volume = |at: usize| VolumeId(at as u32);
        loads
            .iter()
            .enumerate()
            .map(|(at, &load)| Candidate { volume: volume(at), own: 0, load })
            .collect()
    }

    #[test]
    fn topics_of_one_partition_spread() {
        let volumes = candidates(&[5; 8]);
        let placed: Vec<_> = (0..8000u128)
            .flat_map(|id| place(TopicId(((id << 64) | (id * 31)).to_be_bytes()), &volumes, 1))
            .collect();
        for count in counts(&placed, 8) {
            assert!((800..1200).contains(&count), "{count}");
        }
    }

    proptest! {
        #[test]
        fn even_over_volumes_and_the_rest_to_the_least_loaded(
            id: [u8; 16], loads in prop::collection::vec(0..50usize, 1..12), count in 0..100usize,
        ) {
            let placed = place(TopicId(id), &candidates(&loads), count);
            prop_assert_eq!(placed.len(), count);
            let counts = counts(&placed, loads.len());
            let base = count / loads.len();
            for (a, b) in (0..loads.len()).zip(1..loads.len()) {
                prop_assert!(counts[a] == base || counts[a] == base + 1);
                prop_assert!(loads[a] >= loads[b] || counts[a] >= counts[b]);
            }
        }

        #[test]
        fn growing_goes_on_where_it_was(id: [u8; 16], volumes in 1..9usize, old in 0..40usize, more in 0..40usize) {
            let fresh = candidates(&vec![0; volumes]);
            let mut all = place(TopicId(id), &fresh, old);
            let had = counts(&all, volumes);
            let grown: Vec<_> =
                fresh.iter().zip(&had).map(|(c, &own)| Candidate { own, load: own, ..*c }).collect();
            all.extend(place(TopicId(id), &grown, more));
            let counts = counts(&all, volumes);
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }
}
