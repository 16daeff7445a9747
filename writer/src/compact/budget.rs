//! How much compaction may rewrite: a share of what was uploaded, so that the bytes written to the bucket
//! stay within a fixed multiple of the data whatever the load is. Pure.

/// Rewritten bytes for each uploaded byte, in percent. With the upload itself and what indexes and
/// manifests add, the bucket takes at most 1.6 bytes for each byte of data.
const SHARE_PERCENT: u64 = 50;
/// What a volume may rewrite when it is taken over, before it has uploaded anything.
const FIRST_BYTES: u64 = 64 << 20;
/// What may be saved up.
const MOST_BYTES: u64 = 4 << 30;

/// Bytes that may be rewritten now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    bytes: u64,
}

impl Budget {
    /// Of a volume that was just taken over.
    pub(super) fn new() -> Self {
        Self { bytes: FIRST_BYTES }
    }

    /// What may be rewritten.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// So much was uploaded.
    pub(super) fn earn(&mut self, uploaded_bytes: u64) {
        self.bytes = (self.bytes + uploaded_bytes / 100 * SHARE_PERCENT).min(MOST_BYTES);
    }

    /// So much was rewritten.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_within_the_share() {
        let mut budget = Budget::new();
        let (mut uploaded, mut spent) = (0, 0);
        for n in 0..1000u64 {
            budget.earn(n * 1_000_000);
            uploaded += n * 1_000_000;
            let part = budget.bytes() / 2;
            budget.spend(part);
            spent += part;
        }
        assert!(spent <= uploaded / 2 + FIRST_BYTES, "{spent} of {uploaded}");
        budget.earn(u64::MAX / 2);
        assert_eq!(budget.bytes(), MOST_BYTES);
        budget.spend(u64::MAX);
        assert_eq!(budget.bytes(), 0);
    }
}
