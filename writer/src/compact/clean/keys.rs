//! The last offset of each key, in bounded memory.

use std::collections::HashMap;

use twox_hash::XxHash3_128;

/// What an entry takes: key, offset, the table's own, and the room that it keeps free or takes to grow.
const ENTRY_BYTES: u64 = 96;

/// Keys by a hash of 16 bytes, as Kafka's cleaner has them by an MD5: that two keys of one partition have the
/// same is as unlikely. The seed is chosen anew for each cleaning, so that nobody can prepare keys
/// that collide.
pub(in crate::compact) struct KeyMap {
    seed: u64,
    most: usize,
    offsets: HashMap<u128, i64>,
}

impl KeyMap {
    /// A map that takes about `bytes` at most.
    pub(in crate::compact) fn new(bytes: u64, seed: u64) -> Self {
        let most = usize::try_from(bytes / ENTRY_BYTES).unwrap_or(usize::MAX).max(1);
        Self { seed, most, offsets: HashMap::new() }
    }

    /// Notes that `key` has a record at `offset`, which is larger than all before. False, and nothing is
    /// noted, if there is no room for another key.
    pub(super) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        if let Some(known) = self.offsets.get_mut(&hash) {
            *known = offset;
            return true;
        }
        if self.offsets.len() >= self.most {
            return false;
        }
        self.offsets.insert(hash, offset);
        true
    }

    /// The last offset of `key`, if it was noted.
    pub(super) fn last(&self, key: &[u8]) -> Option<i64> {
        self.offsets.get(&self.hash(key)).copied()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.offsets.clear();
    }

    fn hash(&self, key: &[u8]) -> u128 {
        XxHash3_128::oneshot_with_seed(self.seed, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_offset_of_each_key_and_no_more_keys_than_fit() {
        let mut keys = KeyMap::new(2 * ENTRY_BYTES, 7);
        assert!(keys.put(b"a", 1) && keys.put(b"b", 2) && keys.put(b"a", 3));
        assert!(!keys.put(b"c", 4), "there is no room for a third");
        assert!(keys.put(b"b", 5));
        assert_eq!([keys.last(b"a"), keys.last(b"b"), keys.last(b"c")], [Some(3), Some(5), None]);
        keys.clear();
        assert_eq!(keys.last(b"a"), None);
    }
}
