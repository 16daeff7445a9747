//! What an inspection tells of sound, damaged and live volumes, and that it changes nothing.

use super::*;
use crate::conformance::{FileRig, ID, Rig, UUID, append, frame, payload, recover};
use crate::geometry::RING_OFFSET;
use crate::{CreateOptions, OpenOptions};

/// The smallest volume: a ring of 64 KiB.
const SMALL: u64 = 128 * 1024;

fn device() -> (SimDevice, Medium) {
    let device = SimDevice::create(CreateOptions::new(ID, UUID, SMALL), 1).unwrap();
    (device.clone(), Medium::Simulated(device))
}

async fn open(device: &SimDevice, epoch: u32) -> Arc<dyn crate::Volume> {
    let options = OpenOptions { prewrite_bytes: 0, ..OpenOptions::default() };
    recover(device.open(ID, VolumeEpoch(epoch), options).await.unwrap()).await.1
}

/// The lsns and epochs of all frames, and the end.
async fn walk(medium: &Medium) -> (Vec<(u64, u32)>, EndOfLog) {
    let inspection = inspect(medium).await.unwrap();
    let mut frames = inspection.frames().unwrap();
    let mut found = Vec::new();
    while let Some(frame) = frames.next().await.unwrap() {
        assert_eq!(frame.device_offset, RING_OFFSET + frame.lsn.0 % (SMALL - RING_OFFSET));
        found.push((frame.lsn.0, frame.epoch.0));
    }
    (found, frames.end().await.unwrap())
}

fn end(head: u64, why: LogEnd) -> EndOfLog {
    EndOfLog { head: Lsn(head), why, durable_beyond: None }
}

#[tokio::test]
async fn a_log_is_walked_from_trim_to_head_and_nothing_changes() {
    let (device, medium) = device();
    assert_eq!(walk(&medium).await, (vec![], end(0, LogEnd::Clean)));
    let volume = open(&device, 1).await;
    append(&volume, b"one").await;
    append(&volume, &payload(2, 5000)).await;
    volume.close().await.unwrap();
    let volume = open(&device, 2).await;
    volume.trim(Lsn(4096), 77).await.unwrap();
    append(&volume, b"three").await;
    // In use, and looked at all the same.
    let before = device.peek(0, SMALL as usize);
    assert_eq!(walk(&medium).await, (vec![(4096, 1), (12_288, 2)], end(16_384, LogEnd::Blank)));
    assert_eq!(device.peek(0, SMALL as usize), before);
    let inspection = inspect(&medium).await.unwrap();
    let current = inspection.current.unwrap();
    assert_eq!((current.id, current.uuid, current.hint), (ID, UUID, 77));
    assert_eq!((current.epoch, current.log_epoch), (VolumeEpoch(2), VolumeEpoch(2)));
    assert_eq!((current.trim, current.log_start, current.clean), (Lsn(4096), Lsn(12_288), false));
    assert_eq!(inspection.device_bytes, SMALL);
    let newest = inspection.slots.iter().filter_map(|slot| match slot {
        Slot::Valid(fields) => Some(fields.counter),
        _ => None,
    });
    assert_eq!(newest.max(), Some(current.counter));
    volume.close().await.unwrap();
    assert_eq!(walk(&medium).await.1, end(16_384, LogEnd::Clean));
}

#[tokio::test]
async fn each_way_to_end_is_told() {
    let (device, medium) = device();
    let volume = open(&device, 1).await;
    for number in 0..3 {
        append(&volume, &payload(number, 4000)).await;
    }
    drop(volume);
    let third = RING_OFFSET + 8192;
    let sound = device.peek(third, 4096);
    let whys = [
        (vec![0; 4096], LogEnd::Blank),
        (vec![9; 4096], LogEnd::NotAFrame),
        (device.peek(RING_OFFSET, 4096), LogEnd::EarlierLap { lsn: Lsn(0) }),
        (
            [&sound[..4000], &[1; 96]].concat(),
            LogEnd::Torn { epoch: VolumeEpoch(1), payload_bytes: 4000 },
        ),
    ];
    for (bytes, why) in whys {
        device.poke(third, &bytes);
        assert_eq!(walk(&medium).await, (vec![(0, 1), (4096, 1)], end(8192, why)));
    }
    // A dead frame of epoch 1, behind what the owner of epoch 2 found to be the end.
    device.poke(third, &[0; 4096]);
    let volume = open(&device, 2).await;
    device.poke(third, &sound);
    let dead = LogEnd::EarlierEpoch { epoch: VolumeEpoch(1) };
    assert_eq!(walk(&medium).await.1, end(8192, dead));
    // Damage in the middle: later frames prove that it was durable.
    append(&volume, &payload(5, 10)).await;
    append(&volume, &payload(6, 10)).await;
    device.flip(RING_OFFSET + 4096 + 100, 1);
    let (found, told) = walk(&medium).await;
    assert_eq!((found, told.head), (vec![(0, 1)], Lsn(4096)));
    assert!(matches!(told.why, LogEnd::Torn { .. }) && told.durable_beyond > Some(Lsn(4096)));
    device.flip(RING_OFFSET + 4096 + 100, 1);
    while volume.append(frame(&payload(7, 4000))).is_ok() {
        let usage = volume.usage();
        while volume.usage().durable < usage.head {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(walk(&medium).await.1, end(65_536, LogEnd::Full));
}

#[tokio::test]
async fn slots_are_told_apart() {
    let (device, medium) = device();
    let spare = device.peek(SLOT_OFFSETS[1], 4096);
    device.poke(SLOT_OFFSETS[1], &[0; 4096]);
    let inspection = inspect(&medium).await.unwrap();
    assert!(matches!(inspection.slots, [Slot::Valid(_), Slot::Blank]));
    assert_eq!(inspection.current.unwrap().counter, 0);
    device.poke(SLOT_OFFSETS[1], &spare);
    device.flip(SLOT_OFFSETS[0] + 99, 4);
    let inspection = inspect(&medium).await.unwrap();
    assert!(matches!(inspection.slots, [Slot::Invalid, Slot::Valid(_)]));
    assert_eq!(inspection.current.unwrap().counter, 1);
    device.flip(SLOT_OFFSETS[1] + 99, 4);
    let inspection = inspect(&medium).await.unwrap();
    assert!(inspection.current.is_none() && inspection.frames().is_none());
}

#[tokio::test]
async fn a_file_in_use_is_looked_at() {
    let rig = FileRig::new(SMALL, 1 << 20).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    append(&volume, b"one").await;
    let medium = Medium::File { path: rig.path().to_owned(), size_bytes: SMALL };
    let (found, told) = walk(&medium).await;
    assert_eq!((found, told.head), (vec![(0, 1)], Lsn(4096)));
    let none = Medium::File { path: rig.path().with_extension("none"), size_bytes: SMALL };
    assert!(matches!(inspect(&none).await, Err(InspectError::Missing)));
}
