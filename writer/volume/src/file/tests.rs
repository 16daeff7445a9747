//! What is particular to volumes in files.

use sluice_model::{VolumeEpoch, VolumeId};

use super::*;
use crate::{Durable, FrameBuf};

const ID: VolumeId = VolumeId(4);

fn frame(payload: &[u8]) -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(payload.len());
    frame.push(payload).unwrap();
    frame
}

async fn open(path: &Path, epoch: u32) -> Result<Box<dyn Recovery>, OpenError> {
    let options = OpenOptions { locked_within: Duration::ZERO, ..OpenOptions::default() };
    FileVolume::open(path, ID, VolumeEpoch(epoch), options).await
}

#[tokio::test]
async fn what_was_appended_is_found_after_a_close() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 8 << 20)).await.unwrap();
    let volume = open(&path, 1).await.unwrap().finish().await.unwrap();
    let ticket = volume.append(frame(b"one")).unwrap();
    let second = volume.append(frame(&[2; 9000])).unwrap();
    let Durable { lsn, end, payload } = ticket.await.unwrap();
    assert_eq!((lsn.0, end.0, &payload[..]), (0, 4096, &b"one"[..]));
    assert_eq!(second.await.unwrap().end.0, 4096 + 12_288);
    assert_eq!(volume.read(lsn).await.unwrap(), b"one"[..]);
    volume.close().await.unwrap();
    let mut recovery = open(&path, 2).await.unwrap();
    assert_eq!(recovery.next().await.unwrap().unwrap().payload, b"one"[..]);
    assert_eq!(recovery.next().await.unwrap().unwrap().payload, [2; 9000][..]);
    assert_eq!(recovery.next().await.unwrap(), None);
    recovery.finish().await.unwrap();
}

/// A volume in the place of a lost one: its lsns go on where no lsn of the lost one was.
#[tokio::test]
async fn a_log_may_begin_at_any_lsn() {
    let dir = tempfile::tempdir().unwrap();
    for (number, begin) in [4096, (9 << 30) + 12_288, (1 << 62) + 4096].into_iter().enumerate() {
        let path = dir.path().join(number.to_string());
        // What is no multiple of a block is rounded down.
        let options =
            CreateOptions { begin: Lsn(begin + 7), ..CreateOptions::new(ID, [1; 16], 1 << 20) };
        FileVolume::create(&path, options).await.unwrap();
        let mut recovery = open(&path, 7).await.unwrap();
        assert_eq!((recovery.trim(), recovery.next().await.unwrap()), (Lsn(begin), None));
        let volume = recovery.finish().await.unwrap();
        assert_eq!(volume.append(frame(b"one")).unwrap().await.unwrap().lsn, Lsn(begin));
        // More than a lap, so that the ring is used all around.
        for _ in 0..40 {
            let durable = volume.append(frame(&[3; 60_000])).unwrap().await.unwrap();
            volume.trim(durable.lsn, 1).await.unwrap();
        }
        volume.close().await.unwrap();
        let mut recovery = open(&path, 8).await.unwrap();
        assert_eq!(recovery.next().await.unwrap().unwrap().payload, [3; 60_000][..]);
        assert_eq!(recovery.next().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_new_file_is_private_whole_and_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    // What a creation that was cut short leaves behind.
    std::fs::write(dir.path().join("volume.new"), b"half").unwrap();
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 1 << 20)).await.unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), 1 << 20);
    assert!(std::os::unix::fs::MetadataExt::blocks(&metadata) >= (1 << 20) / 512);
    assert!(!dir.path().join("volume.new").exists());
    let again = FileVolume::create(&path, CreateOptions::new(ID, [2; 16], 1 << 20)).await;
    assert!(matches!(again, Err(CreateError::Exists(at)) if at == path));
    open(&path, 1).await.unwrap().finish().await.unwrap();
}

#[tokio::test]
async fn sizes_that_cannot_be_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    let small = FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 100_000)).await;
    assert!(matches!(small, Err(CreateError::Size { size_bytes: 100_000, least_bytes: 131_072 })));
    // More than any disk of a test machine has, less than ext4 lets a file grow to.
    let huge = FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 15 << 40)).await;
    assert!(matches!(huge, Err(CreateError::NoRoom { .. })), "{huge:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_in_use_is_locked_until_it_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 1 << 20)).await.unwrap();
    let volume = open(&path, 1).await.unwrap().finish().await.unwrap();
    assert!(matches!(open(&path, 2).await, Err(OpenError::Locked)));
    volume.close().await.unwrap();
    // The handle is still there, the lock is not.
    open(&path, 3).await.unwrap();
    drop(volume);
}

#[tokio::test]
async fn what_is_no_volume_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    assert!(matches!(open(&path, 1).await, Err(OpenError::Missing)));
    std::fs::write(&path, b"").unwrap();
    assert!(open(&path, 1).await.is_err());
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    assert!(matches!(open(&path, 1).await, Err(OpenError::Damaged)));
    std::fs::remove_file(&path).unwrap();
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 1 << 20)).await.unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(500_000).unwrap();
    assert!(matches!(
        open(&path, 1).await,
        Err(OpenError::Truncated { actual_bytes: 500_000, .. })
    ));
}

/// The way of file systems without direct I/O, on whatever this machine has.
#[tokio::test]
async fn the_page_cache_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 1 << 20)).await.unwrap();
    let file = FileOptions::new().read(true).write(true).open(&path).unwrap();
    let kind = Kind::File { direct: false };
    let file = Arc::new(file);
    let opened = Opened { file, claim: None, size_bytes: 1 << 20, kind, still_ours: None };
    let disk = LocalDisk::new(opened, Engine::Auto, 4).unwrap();
    assert_eq!(disk.engine(), Engine::Threads);
    let settings = OpenOptions::default().settings();
    let recovery = scan::open(disk, ID, VolumeEpoch(1), settings).await.unwrap();
    let volume = recovery.finish().await.unwrap();
    assert_eq!(volume.kind(), Kind::File { direct: false });
    let tickets: Vec<_> = (0..4).map(|n| volume.append(frame(&[n; 5000])).unwrap()).collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    volume.close().await.unwrap();
    let mut recovery = open(&path, 2).await.unwrap();
    let mut found = 0;
    while let Some(frame) = recovery.next().await.unwrap() {
        assert_eq!(frame.payload, [found; 5000][..]);
        found += 1;
    }
    assert_eq!(found, 4);
}

#[tokio::test]
async fn writes_after_the_last_handle_is_gone_end_and_unlock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 64 << 20)).await.unwrap();
    let volume = open(&path, 1).await.unwrap().finish().await.unwrap();
    let tickets: Vec<_> =
        (0..4).map(|n| volume.append(frame(&vec![n; 4 << 20])).unwrap()).collect();
    drop(volume);
    for ticket in tickets {
        // Durable before the drop, or given up by it; never left hanging.
        drop(ticket.await);
    }
    loop {
        match open(&path, 2).await {
            Err(OpenError::Locked) => tokio::task::yield_now().await,
            opened => break drop(opened.unwrap()),
        }
    }
}

#[tokio::test]
async fn a_lock_that_outlives_its_owner_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume");
    FileVolume::create(&path, CreateOptions::new(ID, [1; 16], 8 << 20)).await.unwrap();
    let held = File::open(&path).unwrap();
    lock(&held).unwrap();
    let opening = FileVolume::open(&path, ID, VolumeEpoch(1), OpenOptions::default());
    let mut opening = std::pin::pin!(opening);
    let early = tokio::time::timeout(Duration::from_millis(100), &mut opening).await;
    assert!(early.is_err(), "nobody else has it");
    drop(held);
    opening.await.unwrap().finish().await.unwrap();
}
