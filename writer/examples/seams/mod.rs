//! Time that stands and randomness that is counted, for the examples and for `tests/leaks.rs`.

use std::sync::atomic::{AtomicU64, Ordering};

use sluice_model::{Clock, Entropy};

/// Always the same time.
#[derive(Debug)]
pub(crate) struct Standing;

impl Clock for Standing {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

/// Numbers that are counted up, mixed.
#[derive(Debug, Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            part.copy_from_slice(&(next ^ (next >> 29)).to_le_bytes()[..part.len()]);
        }
    }
}
