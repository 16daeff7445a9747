//! The seams for time and randomness. Production code gets them from the process wiring, tests and
//! simulation from a seed. Monotonic time is `tokio::time::Instant`, which has its own seam.

/// Wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump either way: nothing may depend on it for safety.
    fn wall_ms(&self) -> i64;
}

/// Random bytes for identifiers and jitter.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `out`.
    fn fill(&self, out: &mut [u8]);

    /// 16 random bytes.
    fn random_16(&self) -> [u8; 16] {
        let mut out = [0; 16];
        self.fill(&mut out);
        out
    }

    /// A random number, uniform over all of `u64`.
    fn random_u64(&self) -> u64 {
        let mut out = [0; 8];
        self.fill(&mut out);
        u64::from_le_bytes(out)
    }
}
