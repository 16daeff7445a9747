//! How much memory a hostile frame can make the codec take, measured at the allocator.
//!
//! One test in a binary of its own: the count is the whole process's.

use bytes::{BufMut, Bytes, BytesMut};
use peak_alloc::PeakAlloc;
use sluice_wire::batch::{BatchBuilder, Batches, Compression, NewRecord};
use sluice_wire::{AnyRequest, AnyResponse, ApiKey, Decoder, crc32c};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What decoding may take for each byte of the frame, and for any frame: Decoder's budget, and a
/// margin for the boxes of `AnyRequest`.
const PER_BYTE: usize = 16;
const BASE_BYTES: usize = 64 * 1024 + 4 * 1024;

/// The most memory that `work` holds at any time over what was held before.
fn peak_bytes(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    work();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

/// Frames that claim far more than they hold.
fn hostile_frames() -> Vec<Bytes> {
    let mut frames: Vec<Bytes> = Vec::new();
    for len in [0, 1, 4, 5, 8, 16, 64, 1 << 10, 1 << 16, 1 << 20] {
        for fill in [0x00, 0x01, 0x02, 0x7f, 0x80, 0xff] {
            frames.push(vec![fill; len].into());
        }
        // Ascending counts at every place, in both encodings.
        frames.push((0..len).map(|at| at as u8).collect());
        let counts = [0x7fff_ffffu32, 0x0010_0000, 0x0000_0400];
        for count in counts {
            let mut frame = BytesMut::new();
            while frame.len() < len {
                frame.put_u32(count);
            }
            frames.push(frame.freeze());
        }
        let mut frame = BytesMut::new();
        while frame.len() < len {
            frame.put_slice(&[0xff, 0xff, 0xff, 0xff, 0x07]);
        }
        frames.push(frame.freeze());
    }
    // Pseudo-random ones (SplitMix64).
    let mut state = 1u64;
    for len in [32, 256, 2048] {
        for _ in 0..40 {
            let mut frame = BytesMut::new();
            while frame.len() < len {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                // Mostly small bytes: they make counts and lengths that are believed.
                frame.put_u64(mixed & 0x0703_0107_030f_0103);
            }
            frames.push(frame.freeze());
        }
    }
    frames
}

/// Gives the worst case among large frames, to be shown.
fn decoding_stays_within_its_budget() -> String {
    let mut worst = (0.0, String::new());
    for frame in hostile_frames() {
        for &key in ApiKey::ALL {
            for version in key.versions() {
                for response in [false, true] {
                    let frame = frame.clone();
                    let len = frame.len();
                    let peak = peak_bytes(|| {
                        let mut decoder = Decoder::new(frame);
                        if response {
                            drop(AnyResponse::decode(key, &mut decoder, version));
                        } else {
                            drop(AnyRequest::decode(key, &mut decoder, version));
                        }
                    });
                    let context = format!("{key} v{version} response {response}, {len} bytes");
                    assert!(peak <= PER_BYTE * len + BASE_BYTES, "{peak} bytes for {context}");
                    let ratio = peak as f64 / len.max(1) as f64;
                    if len >= 1 << 16 && ratio > worst.0 {
                        worst = (ratio, context);
                    }
                }
            }
        }
    }
    format!("at most {:.1} bytes a byte in large frames, by {}", worst.0, worst.1)
}

/// Overwrites bytes of a batch and makes its checksum true.
fn forged(batch: &[u8], at: usize, with: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(batch);
    bytes[at..at + with.len()].copy_from_slice(with);
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

fn walking_takes_memory_only_for_what_is_inflated() {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { value: Some(&[1; 200]), ..NewRecord::default() });
    for compression in Compression::ALL {
        let batch = builder.clone().compression(compression).build();
        // Two billion records; then every place in the data set to a byte that may be a length, a
        // count or a block size.
        let mut forgeries = vec![forged(&batch, 57, &i32::MAX.to_be_bytes())];
        for at in 61..batch.len() {
            for with in [0x00, 0x40, 0x70, 0x7f, 0xff] {
                forgeries.push(forged(&batch, at, &[with]));
            }
            if at + 5 <= batch.len() {
                forgeries.push(forged(&batch, at, &[0xff, 0xff, 0xff, 0xff, 0x0f]));
            }
        }
        for forgery in forgeries {
            let peak = peak_bytes(|| {
                for batch in Batches::new(forgery).flatten() {
                    if let Ok(records) = batch.records(64 << 20) {
                        assert!(records.count() < 1000);
                    }
                }
            });
            // Gzip's own state and one step of inflated data are the largest parts. What the C
            // library takes for zstd is not seen here.
            assert!(peak <= 160 * 1024, "{peak} bytes for {compression:?}");
        }
    }
}

#[test]
fn memory_is_bounded_by_the_bytes_that_came() {
    println!("{}", decoding_stays_within_its_budget());
    walking_takes_memory_only_for_what_is_inflated();
}
