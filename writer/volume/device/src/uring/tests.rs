//! What the ring owes to those who use it, above all that memory outlives the kernel's use of it.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Stopped when it is dropped, as owners do.
struct Owned(Arc<Uring>);

impl std::ops::Deref for Owned {
    type Target = Uring;

    fn deref(&self) -> &Uring {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A ring that a thread serves, with what is told when it is over and gone.
fn served(file: Arc<File>, depth: usize) -> (Owned, Receiver<()>) {
    let ring = Arc::new(Uring::new(file, depth).unwrap());
    let (say, ended) = channel();
    let server = Arc::clone(&ring);
    std::thread::spawn(move || {
        server.serve();
        drop(server);
        say.send(()).unwrap_or_default();
    });
    (Owned(ring), ended)
}

/// A file of `blocks` blocks of 4 KiB, and a ring over it.
fn ring(blocks: u64, depth: usize) -> (Arc<File>, Owned, Receiver<()>) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(blocks * 4096).unwrap();
    let file = Arc::new(file);
    let (ring, ended) = served(Arc::clone(&file), depth);
    (file, ring, ended)
}

/// Starts a write; the receiver gets its answer, or learns that there is none.
fn write(ring: &Uring, offset: u64, bytes: Bytes) -> Receiver<io::Result<()>> {
    let (say, answer) = channel();
    ring.write(offset, bytes, Box::new(move |result| drop(say.send(result))));
    answer
}

fn read(ring: &Uring, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let (say, answer) = channel();
    ring.read(offset, vec![9; len + 3], 3, Box::new(move |result| drop(say.send(result))));
    answer.recv().unwrap()
}

#[test]
fn far_more_than_the_depth_is_written_and_read_back() {
    let (_, ring, _) = ring(300, 4);
    let answers: Vec<_> = (0..300_u64)
        .map(|block| write(&ring, block * 4096, Bytes::from(vec![block as u8; 4096])))
        .collect();
    for answer in answers {
        answer.recv().unwrap().unwrap();
    }
    for block in 0..300_u64 {
        let memory = read(&ring, block * 4096, 4096).unwrap();
        assert_eq!(memory[..3], [9; 3], "what lies before is left alone");
        assert_eq!(memory[3..], [block as u8; 4096]);
    }
}

#[test]
fn errors_are_the_operations_own() {
    let (_, ring, _) = ring(1, 4);
    let beyond = read(&ring, 0, 8192).unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::UnexpectedEof);
    // A device without room, and one that is not open for writing.
    for (path, writable, code) in
        [("/dev/full", true, Errno::NOSPC), ("/dev/zero", false, Errno::BADF)]
    {
        let file = File::options().read(true).write(writable).open(path).unwrap();
        let (ring, _) = served(Arc::new(file), 1);
        let error = write(&ring, 0, Bytes::from_static(&[1; 512])).recv().unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(code.raw_os_error()));
        // And the ring goes on.
        assert_eq!(read(&ring, 0, 16).unwrap()[3..], [0; 16]);
    }
}

#[test]
fn a_stop_answers_what_has_begun_and_drops_the_rest() {
    let (file, ring, ended) = ring(64, 2);
    let answers: Vec<_> =
        (0..64).map(|block| write(&ring, block * 4096, Bytes::from(vec![7; 4096]))).collect();
    ring.stop();
    ended.recv().unwrap();
    for (block, answer) in answers.into_iter().enumerate() {
        let mut found = [0; 4096];
        file.read_exact_at(&mut found, block as u64 * 4096).unwrap();
        // Without an answer it was never begun.
        let expected = if answer.recv().is_ok() { 7 } else { 0 };
        assert!(found.iter().all(|byte| *byte == expected), "block {block}");
    }
    let late = write(&ring, 0, Bytes::from_static(&[8; 4096]));
    assert!(late.recv().is_err(), "nothing begins after the end");
}

/// Memory that is spoilt when it is given back, so that a write which comes too late shows.
struct Spoilt {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Spoilt {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Spoilt {
    fn drop(&mut self) {
        self.bytes.fill(0xee);
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn memory_lives_until_the_kernel_is_done_with_it_whoever_lets_go() {
    for round in 0..150_u32 {
        let (file, ring, ended) = ring(32 * 16, 32);
        let alive = Arc::new(AtomicUsize::new(32));
        for number in 0..32 {
            let bytes = vec![number as u8 + 1; 65_536];
            let owner = Spoilt { bytes, alive: Arc::clone(&alive) };
            ring.write(number * 65_536, Bytes::from_owner(owner), Box::new(|_| {}));
        }
        if round % 2 == 0 {
            // Reads that no one waits for.
            ring.read(0, vec![0; 1 << 20], 0, Box::new(drop));
        }
        drop(ring);
        ended.recv().unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), 0, "all of it was given back");
        let mut found = vec![0; 65_536];
        for number in 0..32_u64 {
            file.read_exact_at(&mut found, number * 65_536).unwrap();
            let fitting = |byte: &u8| *byte == 0 || *byte == number as u8 + 1;
            assert!(found.iter().all(fitting), "round {round}, write {number}");
        }
    }
}

#[test]
fn a_thread_that_ends_takes_no_operation_with_it() {
    let (file, ring, ended) = ring(64 * 16, 64);
    let (say, answers) = channel();
    for thread in 0..8_u64 {
        let (ring, say) = (Arc::clone(&ring.0), say.clone());
        let starter = std::thread::spawn(move || {
            for number in thread * 8..thread * 8 + 8 {
                let say = say.clone();
                let bytes = Bytes::from(vec![number as u8 + 1; 65_536]);
                let done = move |result: io::Result<()>| say.send(result.is_ok()).unwrap();
                ring.write(number * 65_536, bytes, Box::new(done));
            }
        });
        starter.join().unwrap();
    }
    drop(say);
    assert_eq!(answers.iter().filter(|written| *written).count(), 64);
    let mut found = vec![0; 65_536];
    for number in 0..64_u64 {
        file.read_exact_at(&mut found, number * 65_536).unwrap();
        assert_eq!(found, vec![number as u8 + 1; 65_536]);
    }
    drop(ring);
    ended.recv().unwrap();
}

#[test]
fn dropped_with_writes_in_flight_its_memory_is_leaked_not_freed() {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let ring = Uring::new(file, 4).unwrap();
    let alive = Arc::new(AtomicUsize::new(1));
    let owner = Spoilt { bytes: vec![1; 65_536], alive: Arc::clone(&alive) };
    ring.write(0, Bytes::from_owner(owner), Box::new(|_| {}));
    // Nobody has taken the answer.
    drop(ring);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
}
