//! Numbers that follow from a seed, for what must be the same in each run: simulations, loads, faults. Nothing
//! here is for secrets; see [`crate::Entropy`] for those.

/// SplitMix64 (Steele, Lea and Flood, 2014): eight bytes of state, a nanosecond a number.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator that begins at this state.
    pub fn new(state: u64) -> Self {
        Self(state)
    }

    /// Uniform over all of `u64`.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
