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
    FileVolume::open(path, ID, VolumeEpoch(epoch), OpenOptions::default()).await
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
