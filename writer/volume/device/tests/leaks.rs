//! Rings come and go without leaving threads, files or memory behind. The only test of its process, for it
//! counts what the process has.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use sluice_device::Uring;

fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("a process knows itself").count()
}

/// Until only the threads of before are left: one that said goodbye may not be gone yet.
fn settled(threads: usize) -> bool {
    for _ in 0..100_000 {
        if count("task") <= threads {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn a_thousand_rings_leave_nothing() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let before = (count("task"), count("fd"));
    for round in 0..1000 {
        let ring = Arc::new(Uring::new(Arc::clone(&file), 16).unwrap());
        let server = Arc::clone(&ring);
        let server = std::thread::spawn(move || server.serve());
        for block in 0..16 {
            ring.write(block * 4096, Bytes::from(vec![round as u8; 4096]), Box::new(|_| {}));
        }
        ring.stop();
        server.join().unwrap();
    }
    assert!(settled(before.0), "threads: {} before, {} after", before.0, count("task"));
    assert_eq!(count("fd"), before.1);
    assert_eq!(Arc::strong_count(&file), 1);
    assert!(File::metadata(&file).unwrap().len() > 0);
}
