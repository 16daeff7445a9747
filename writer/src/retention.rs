//! How far retention moves a log start. Pure.

use sluice_format::StreamState;

/// What a topic's configuration allows to remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Records older than this go; none for no limit.
    pub(crate) max_age_ms: Option<u64>,
    /// Of one partition; none for no limit.
    pub(crate) max_bytes: Option<u64>,
}

/// The new log start, if it moves. Whole extents go, oldest first: those whose newest record is too
/// old, and those without which the partition is still at least as large as it may be. What is not in
/// the bucket yet stays.
pub(crate) fn log_start(
    stream: &StreamState,
    tail_bytes: u64,
    limits: &Limits,
    now_ms: i64,
) -> Option<i64> {
    let oldest_kept = limits.max_age_ms.map(|age| now_ms.saturating_sub_unsigned(age));
    let mut bytes = stream.data_bytes() + tail_bytes;
    let mut start = None;
    for extent in &stream.extents {
        let len = u64::from(extent.data_len);
        let too_old = oldest_kept.is_some_and(|oldest| extent.max_timestamp < oldest);
        let too_much = limits.max_bytes.is_some_and(|max| bytes - len >= max);
        if !too_old && !too_much {
            break;
        }
        bytes -= len;
        start = Some(extent.end_offset);
    }
    start.filter(|start| *start > stream.log_start)
}

#[cfg(test)]
mod tests {
    use sluice_format::{Extent, SegmentId};

    use super::*;

    fn stream() -> StreamState {
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
        StreamState { end_offset: 40, extents: extents.collect(), ..StreamState::default() }
    }

    #[test]
    fn by_age() {
        let limits = |age| Limits { max_age_ms: Some(age), max_bytes: None };
        assert_eq!(log_start(&stream(), 0, &limits(5000), 5000), None);
        assert_eq!(log_start(&stream(), 0, &limits(3000), 5000), Some(20));
        assert_eq!(log_start(&stream(), 0, &limits(0), 5000), Some(40));
        assert_eq!(log_start(&stream(), 0, &limits(u64::MAX), i64::MAX), None);
    }

    #[test]
    fn by_size_at_least_the_limit_remains() {
        let limits = |bytes| Limits { max_age_ms: None, max_bytes: Some(bytes) };
        assert_eq!(log_start(&stream(), 0, &limits(400), 0), None);
        assert_eq!(log_start(&stream(), 0, &limits(300), 0), Some(10));
        assert_eq!(log_start(&stream(), 0, &limits(299), 0), Some(10));
        assert_eq!(log_start(&stream(), 100, &limits(299), 0), Some(20), "the tail counts");
        assert_eq!(log_start(&stream(), 0, &limits(0), 0), Some(40));
    }

    #[test]
    fn nothing_to_do_is_nothing() {
        let none = Limits { max_age_ms: None, max_bytes: None };
        assert_eq!(log_start(&stream(), 0, &none, i64::MAX), None);
        let moved = StreamState { log_start: 20, ..stream() };
        let by_age = Limits { max_age_ms: Some(3000), max_bytes: None };
        assert_eq!(log_start(&moved, 0, &by_age, 5000), None, "it is there already");
    }
}
