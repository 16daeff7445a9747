//! The state under one coordinator log, which several coordinators share.
//!
//! Keys are told apart by their fifth byte, after the tenant: each coordinator owns a range of kinds
//! and sees only the records of that range, in the order of the log. This module owns no state and
//! does not read values.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::group::log::CoordinatorState;
use crate::group::record::RecordError;

/// Where a key's kind is; the bytes before it are the tenant.
const KIND_AT: usize = 4;

/// The kinds of the group coordinator.
pub(crate) const GROUP_KINDS: RangeInclusive<u8> = 0x10..=0x1f;

/// Coordinators, each with the kinds of records that are its own.
pub(crate) struct SharedLogState {
    parts: Vec<(RangeInclusive<u8>, Arc<dyn CoordinatorState>)>,
}

impl SharedLogState {
    /// Panics if two ranges overlap: which coordinator a record is for must not depend on order.
    pub(crate) fn new(parts: Vec<(RangeInclusive<u8>, Arc<dyn CoordinatorState>)>) -> Self {
        for (index, (kinds, _)) in parts.iter().enumerate() {
            for (other, _) in &parts[..index] {
                assert!(
                    kinds.end() < other.start() || other.end() < kinds.start(),
                    "two coordinators claim the same kinds of records"
                );
            }
        }
        Self { parts }
    }
}

impl CoordinatorState for SharedLogState {
    fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let kind = key.get(KIND_AT).ok_or(RecordError::Short)?;
        let part = self.parts.iter().find(|(kinds, _)| kinds.contains(kind));
        part.ok_or(RecordError::Unknown(*kind))?.1.apply(key, value)
    }

    fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        for (_, part) in &self.parts {
            part.snapshot(emit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Map(Mutex<BTreeMap<Bytes, Bytes>>);

    impl CoordinatorState for Map {
        fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
            let key = Bytes::copy_from_slice(key);
            let mut map = self.0.lock();
            match value {
                Some(value) => map.insert(key, Bytes::copy_from_slice(value)),
                None => map.remove(&key),
            };
            Ok(())
        }

        fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
            for (key, value) in &*self.0.lock() {
                emit(key.clone(), value.clone());
            }
        }
    }

    #[test]
    fn each_coordinator_sees_its_own_records_and_a_snapshot_has_all() {
        let (low, high) = (Arc::new(Map::default()), Arc::new(Map::default()));
        let state = SharedLogState::new(vec![
            (0x10..=0x1f, Arc::clone(&low) as _),
            (0x20..=0x2f, Arc::clone(&high) as _),
        ]);
        state.apply(&[0, 0, 0, 1, 0x1f, 7], Some(b"low")).unwrap();
        state.apply(&[0, 0, 0, 1, 0x20, 7], Some(b"high")).unwrap();
        assert_eq!(low.0.lock().len(), 1);
        assert_eq!(high.0.lock().len(), 1);
        let mut pairs = Vec::new();
        state.snapshot(&mut |key, value| pairs.push((key, value)));
        assert_eq!(pairs.len(), 2);
        state.apply(&[0, 0, 0, 1, 0x20, 7], None).unwrap();
        assert!(high.0.lock().is_empty());
    }

    #[test]
    fn a_record_of_nobody_is_an_error() {
        let state = SharedLogState::new(vec![(0x10..=0x1f, Arc::new(Map::default()) as _)]);
        assert_eq!(state.apply(&[0, 0, 0, 1, 0x20], None), Err(RecordError::Unknown(0x20)));
        assert_eq!(state.apply(&[0, 0, 0, 1], None), Err(RecordError::Short));
    }

    #[test]
    #[should_panic(expected = "two coordinators claim")]
    fn two_claims_to_one_kind_are_a_bug() {
        let part = || Arc::new(Map::default()) as Arc<dyn CoordinatorState>;
        SharedLogState::new(vec![(0x10..=0x1f, part()), (0x1f..=0x2f, part())]);
    }
}
