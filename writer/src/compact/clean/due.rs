//! When a stream is to be cleaned, and how far. Pure; rules: Kafka's LogCleanerManager.

use sluice_format::StreamState;
use sluice_model::TopicConfig;

/// What a topic's configuration says about cleaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::compact) struct Rules {
    /// `min.compaction.lag.ms`: younger records are not touched.
    pub(in crate::compact) min_lag_ms: u64,
    /// `max.compaction.lag.ms`: older records do not wait for the dirty part to grow.
    pub(in crate::compact) max_lag_ms: u64,
    /// `min.cleanable.dirty.ratio`.
    pub(in crate::compact) dirty_ratio: f64,
}

impl Rules {
    /// Of a topic; none if it is not compacted.
    pub(in crate::compact) fn of(config: &TopicConfig) -> Option<Self> {
        config.cleanup.compact.then_some(Self {
            min_lag_ms: config.min_compaction_lag_ms,
            max_lag_ms: config.max_compaction_lag_ms,
            dirty_ratio: config.min_cleanable_dirty_ratio,
        })
    }
}

/// What is to be cleaned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::compact) struct Due {
    /// All before was seen by a cleaning.
    pub(in crate::compact) first_dirty: i64,
    /// Nothing from here on may be touched.
    pub(in crate::compact) limit: i64,
    /// Dirty bytes in all of what is in reach; the dirtiest goes first.
    pub(in crate::compact) ratio: f64,
}

/// Whether a stream is to be cleaned now. Ages are those of whole extents, by their newest record.
pub(in crate::compact) fn due(stream: &StreamState, rules: &Rules, now_ms: i64) -> Option<Due> {
    let first_dirty = stream.cleaned_to.max(stream.log_start);
    let young_from = match rules.min_lag_ms {
        0 => i64::MAX,
        lag => now_ms.saturating_sub_unsigned(lag),
    };
    let (mut clean, mut dirty) = (0, 0);
    let mut limit = first_dirty;
    let mut forced = false;
    for extent in &stream.extents {
        let bytes = u64::from(extent.data_len);
        if extent.end_offset <= first_dirty {
            clean += bytes;
            continue;
        }
        if extent.max_timestamp > young_from {
            break;
        }
        forced |= extent.max_timestamp < now_ms.saturating_sub_unsigned(rules.max_lag_ms);
        dirty += bytes;
        limit = extent.end_offset;
    }
    if dirty == 0 {
        return None;
    }
    let ratio = dirty as f64 / (clean + dirty) as f64;
    (forced || ratio > rules.dirty_ratio).then_some(Due { first_dirty, limit, ratio })
}

#[cfg(test)]
mod tests {
    use sluice_format::{Extent, SegmentId};

    use super::*;

    /// Extents of ten offsets and 100 bytes, one a second.
    fn stream(cleaned_to: i64) -> StreamState {
        let extents = (0..4).map(|n| Extent {
            segment: SegmentId { volume: 0, epoch: 1, sequence: n as u64 },
            base_offset: n * 10,
            end_offset: n * 10 + 10,
            max_timestamp: n * 1000,
            position: 0,
            data_len: 100,
            blocks: 1,
            leader_epoch: 1,
            section_len: 0,
        });
        let extents = extents.collect();
        StreamState { end_offset: 40, extents, cleaned_to, ..StreamState::default() }
    }

    const RULES: Rules = Rules { min_lag_ms: 0, max_lag_ms: u64::MAX, dirty_ratio: 0.5 };

    #[test]
    fn the_dirty_part_has_to_be_large_enough() {
        let all = due(&stream(0), &RULES, 10_000).unwrap();
        assert_eq!((all.first_dirty, all.limit, all.ratio), (0, 40, 1.0));
        assert_eq!(due(&stream(10), &RULES, 10_000).unwrap().ratio, 0.75);
        assert_eq!(due(&stream(20), &RULES, 10_000), None, "half is not more than half");
        assert_eq!(due(&stream(40), &Rules { dirty_ratio: 0.0, ..RULES }, 10_000), None);
    }

    #[test]
    fn young_records_are_not_touched_and_old_ones_do_not_wait() {
        let lag = |min_lag_ms| Rules { min_lag_ms, ..RULES };
        assert_eq!(due(&stream(0), &lag(1000), 2500).unwrap().limit, 20);
        assert_eq!(due(&stream(0), &lag(5000), 2500), None);
        let most = |max_lag_ms| Rules { max_lag_ms, ..RULES };
        assert_eq!(due(&stream(30), &most(1000), 4500).unwrap().limit, 40);
        assert_eq!(due(&stream(30), &most(2000), 4500), None);
    }

    #[test]
    fn deleted_records_count_as_clean() {
        let moved = StreamState { log_start: 25, ..stream(10) };
        assert_eq!(due(&moved, &RULES, 10_000), None);
        let due = due(&moved, &Rules { dirty_ratio: 0.4, ..RULES }, 10_000).unwrap();
        assert_eq!((due.first_dirty, due.limit), (25, 40));
    }
}
