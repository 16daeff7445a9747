//! Which key a record has, and which partition a key belongs to.

use std::sync::Arc;

use crate::random::Random;
use crate::workload::{Keys, Records};

/// Bytes of a key: eight hexadecimal digits.
pub(crate) const BYTES: usize = 8;

/// Chooses keys; shared by all producers.
#[derive(Clone, Debug)]
pub(crate) enum Chooser {
    /// No keys.
    None,
    /// Each of so many.
    Uniform(u32),
    /// The k-th with the k-th sum's share of the last sum.
    Weighted(Arc<[f64]>),
}

impl Chooser {
    pub(crate) fn new(records: &Records) -> Self {
        match records.keys {
            Keys::None => Self::None,
            Keys::Uniform => Self::Uniform(records.key_count),
            Keys::Zipf => {
                let mut sum = 0.0;
                let weights = (1..=records.key_count).map(|rank| {
                    sum += f64::from(rank).powf(-records.zipf_exponent);
                    sum
                });
                Self::Weighted(weights.collect())
            }
        }
    }

    /// The next record's key.
    pub(crate) fn choose(&self, random: &mut Random) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Uniform(count) => Some(random.below(*count)),
            Self::Weighted(sums) => {
                let all = sums.last().copied().unwrap_or_default();
                let chosen = random.unit() * all;
                let rank = sums.partition_point(|sum| *sum <= chosen);
                // The number says nothing about the rank: frequent keys lie anywhere among partitions.
                Some(rank.min(sums.len() - 1) as u32)
            }
        }
    }
}

/// The key as it is written.
pub(crate) fn text(key: u32) -> [u8; BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[(key >> (28 - 4 * place) & 0xf) as usize])
}

/// Where a key's records go: the same partition each time.
pub(crate) fn partition(key: u32, partitions: u32) -> u32 {
    Random::new(u64::from(key), 0).below(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: Keys) -> Vec<u32> {
        let records = Records { keys, key_count: 100, zipf_exponent: 1.0, ..Records::default() };
        let (chooser, mut random) = (Chooser::new(&records), Random::new(1, 0));
        let mut counts = vec![0; 100];
        for _ in 0..100_000 {
            counts[chooser.choose(&mut random).expect("a key") as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipf_keys_come_as_often_as_their_rank_says() {
        let counts = counts(Keys::Zipf);
        // The sum of 1/k up to 100 is 5.187: the first key has 19.3 %, the second 9.6 %, the tenth 1.9 %.
        for (rank, share) in [(1, 0.193), (2, 0.0964), (10, 0.0193)] {
            let got = f64::from(counts[rank - 1]) / 100_000.0;
            assert!((got / share - 1.0).abs() < 0.1, "rank {rank}: {got}");
        }
    }

    #[test]
    fn uniform_keys_come_equally_often() {
        assert!(counts(Keys::Uniform).iter().all(|count| (800..1200).contains(count)));
    }

    #[test]
    fn keys_are_text_and_spread_over_partitions() {
        assert_eq!(&text(0x00ab_cdef), b"00abcdef");
        let mut used = [0; 8];
        for key in 0..8000 {
            used[partition(key, 8) as usize] += 1;
            assert_eq!(partition(key, 8), partition(key, 8));
        }
        assert!(used.iter().all(|count| (800..1200).contains(count)), "{used:?}");
    }
}
