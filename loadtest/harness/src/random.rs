//! Randomness of the load itself, by seed: which key, which bytes, when. Nothing here is for secrets.

use sluice_model::SplitMix64;

/// What the load chooses by.
#[derive(Clone, Debug)]
pub(crate) struct Random(SplitMix64);

impl Random {
    /// The generator of this seed. `stream` tells users of one seed apart.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut own = Self(SplitMix64::new(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        own.next();
        own
    }

    /// Uniform over all of `u64`.
    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `bound`, which is not 0. The error of a product without rejection is below 2^-32 for the small
    /// bounds used here.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1: the gap between independent arrivals.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}
