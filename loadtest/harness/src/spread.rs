//! Values of the same figure over several runs: their median, how far they lie apart, and whether that is too far to
//! be believed.

use serde::{Deserialize, Serialize};

/// Runs of one workload on one server that differ from their median by more than this share are too noisy.
pub const TOO_NOISY: f64 = 0.10;

/// What several runs gave for one figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Of each run, in order.
    pub values: Vec<f64>,
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Whether a run differs from the median by more than [`TOO_NOISY`]. None if there was but one run.
    pub too_noisy: Option<bool>,
}

impl Spread {
    /// Of these values; none if there are none, or if one is no number.
    pub fn new(values: Vec<f64>) -> Option<Self> {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        if !values.iter().all(|value| value.is_finite()) {
            return None;
        }
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        let far = (most - median).max(median - least);
        let too_noisy = (values.len() > 1).then_some(far > TOO_NOISY * median.abs());
        Some(Self { values, median, least, most, too_noisy })
    }

    /// Whether it is known to be too noisy.
    pub fn is_too_noisy(&self) -> bool {
        self.too_noisy == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_rest_around_it() {
        let spread = Spread::new(vec![3.0, 1.0, 2.0]).expect("values");
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(spread.values, [3.0, 1.0, 2.0], "in their order");
        assert_eq!(Spread::new(vec![4.0, 1.0, 2.0, 3.0]).expect("values").median, 2.5);
        assert_eq!(Spread::new(vec![]), None);
        assert_eq!(Spread::new(vec![1.0, f64::NAN]), None);
    }

    #[test]
    fn more_than_a_tenth_from_the_median_is_too_noisy() {
        let noisy = |values: &[f64]| Spread::new(values.to_vec()).expect("values").too_noisy;
        assert_eq!(noisy(&[100.0, 91.0, 109.0]), Some(false));
        assert_eq!(noisy(&[100.0, 100.0, 111.0]), Some(true));
        assert_eq!(noisy(&[100.0, 89.0, 100.0]), Some(true));
        assert_eq!(noisy(&[0.0, 0.0, 0.0]), Some(false));
        assert_eq!(noisy(&[5.0]), None, "one run tells nothing of the next");
    }
}
