//! Commits in transactions that wait for the word of the transaction's coordinator.
//!
//! Between its word and the commit the transaction may end. Its end makes the words void that were given
//! before, so that no offset is left waiting for a transaction that is over (KIP-890).

use std::collections::HashMap;

use parking_lot::Mutex;
use sluice_model::TenantId;
use sluice_wire::Str;

/// A tenant's group and a producer.
type Key = (TenantId, Str, i64);

#[derive(Debug, Default)]
struct Asked {
    commits: usize,
    ends: u64,
}

/// An entry is there only while a commit waits.
#[derive(Debug, Default)]
pub(crate) struct Vouchers {
    asked: Mutex<HashMap<Key, Asked>>,
}

/// A commit that has asked, or is about to.
#[derive(Debug)]
pub(crate) struct Voucher<'a> {
    of: &'a Vouchers,
    key: Key,
    ends: u64,
}

impl Vouchers {
    /// To be called before the coordinator is asked.
    pub(crate) fn ask(&self, tenant: TenantId, group: &Str, producer_id: i64) -> Voucher<'_> {
        let key = (tenant, group.clone(), producer_id);
        let mut asked = self.asked.lock();
        let entry = asked.entry(key.clone()).or_default();
        entry.commits += 1;
        Voucher { of: self, key, ends: entry.ends }
    }

    /// The producer's transaction ends: to be called before the end takes its place in the log.
    pub(crate) fn void(&self, tenant: TenantId, group: &Str, producer_id: i64) {
        if let Some(asked) = self.asked.lock().get_mut(&(tenant, group.clone(), producer_id)) {
            asked.ends += 1;
        }
    }
}

impl Voucher<'_> {
    /// Whether no transaction of the producer has ended since.
    pub(crate) fn holds(&self) -> bool {
        self.of.asked.lock().get(&self.key).is_some_and(|asked| asked.ends == self.ends)
    }
}

impl Drop for Voucher<'_> {
    fn drop(&mut self) {
        let mut asked = self.of.asked.lock();
        if let Some(entry) = asked.get_mut(&self.key) {
            entry.commits -= 1;
            if entry.commits == 0 {
                asked.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_voids_the_words_before_it_and_of_that_producer_alone() {
        let vouchers = Vouchers::default();
        let group = Str::from("g");
        let (before, other) =
            (vouchers.ask(TenantId(1), &group, 7), vouchers.ask(TenantId(2), &group, 7));
        vouchers.void(TenantId(1), &group, 7);
        let after = vouchers.ask(TenantId(1), &group, 7);
        assert!(!before.holds());
        assert!(other.holds());
        assert!(after.holds());
        drop((before, other, after));
        assert!(vouchers.asked.lock().is_empty());
        vouchers.void(TenantId(1), &group, 7);
        assert!(vouchers.asked.lock().is_empty());
    }
}
