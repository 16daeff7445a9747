//! Batches as a producer sends them, with the checksum made true so that the fuzzer gets past it.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use sluice_wire::batch::{HEADER_BYTES, ProduceRules, validate_produce};
use sluice_wire::crc32c;

fuzz_target!(|data: &[u8]| {
    let mut batch = BytesMut::from(data);
    if batch.len() >= HEADER_BYTES {
        let length = (batch.len() - 12) as i32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[16] = 2;
        let crc = crc32c(&batch[21..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let rules = ProduceRules {
        max_batch_bytes: 1 << 20,
        max_inflated_bytes: 8 << 20,
        walk_records: true,
        require_keys: false,
        timestamps_ms: i64::MIN..=i64::MAX,
    };
    let batches: Bytes = batch.freeze();
    for produced in validate_produce(&batches, &rules).into_iter().flatten() {
        for record in produced.batch.records(rules.max_inflated_bytes).into_iter().flatten() {
            let record = record.expect("the walk was clean a moment ago");
            assert_eq!(record.headers.iter().count(), record.headers.len());
        }
    }
});
