//! What is particular to volumes on block devices.

use std::time::Duration;

use super::*;
use crate::conformance::loop_device::LoopDevice;
use crate::conformance::{ID, UUID, append, recover};
use crate::{Inspection, Medium, inspect};

async fn create(device: &LoopDevice) -> Result<(), CreateError> {
    BlockVolume::create(device.path(), BlockOptions::new(ID, UUID)).await
}

async fn open(path: &Path, epoch: u32) -> Result<Box<dyn Recovery>, OpenError> {
    let options = OpenOptions { locked_within: Duration::ZERO, ..OpenOptions::default() };
    BlockVolume::open(path, ID, VolumeEpoch(epoch), options).await
}

#[tokio::test]
async fn a_device_that_carries_something_is_refused() {
    if !LoopDevice::are_possible() {
        return;
    }
    let device = LoopDevice::new(4 << 20);
    assert!(!BlockVolume::exists(device.path()).await.unwrap());
    // Where ext4 and btrfs have their superblocks, and the last byte that is looked at.
    for at in [1080, 65_600, LOOKED_AT_BYTES - 1] {
        device.poke(at, &[0x53]);
        let refused = create(&device).await;
        assert!(matches!(refused, Err(CreateError::Foreign { at: told, .. }) if told == at));
        assert_eq!(device.peek(at, 1), [0x53], "and nothing is changed");
        device.poke(at, &[0]);
    }
    create(&device).await.unwrap();
    assert!(BlockVolume::exists(device.path()).await.unwrap());
    let again = create(&device).await;
    assert!(matches!(again, Err(CreateError::Carries { carried: Some(ID), .. })));
    // One of its superblocks is enough to tell.
    device.poke(0, &[9; 4096]);
    assert!(matches!(create(&device).await, Err(CreateError::Carries { .. })));
    let other = BlockOptions { overwrite: true, ..BlockOptions::new(VolumeId(9), [3; 16]) };
    BlockVolume::create(device.path(), other).await.unwrap();
    let refused = open(device.path(), 1).await;
    assert!(matches!(refused, Err(OpenError::WrongVolume { found: VolumeId(9), .. })));
}

#[tokio::test]
async fn a_volume_takes_all_of_its_device_and_is_looked_at_by_its_medium() {
    if !LoopDevice::are_possible() {
        return;
    }
    let device = LoopDevice::new(4 << 20);
    let medium = Medium::Block { path: device.path().to_owned() };
    assert!(!medium.exists().await);
    medium.create(ID, UUID).await.unwrap();
    assert!(medium.exists().await);
    let opened = medium.open(ID, VolumeEpoch(1), OpenOptions::default()).await.unwrap();
    let (_, volume) = recover(opened).await;
    assert_eq!(volume.kind(), Kind::Block);
    assert_eq!(volume.usage().capacity_bytes, (4 << 20) - RING_OFFSET);
    append(&volume, b"one").await;
    let Inspection { device_bytes, current, .. } = inspect(&medium).await.unwrap();
    assert_eq!((device_bytes, current.unwrap().epoch), (4 << 20, VolumeEpoch(1)));
    volume.close().await.unwrap();
}

#[tokio::test]
async fn a_device_in_use_is_kept_from_all_others_until_it_is_let_go() {
    if !LoopDevice::are_possible() {
        return;
    }
    let device = LoopDevice::new(1 << 20);
    create(&device).await.unwrap();
    let volume = open(device.path(), 1).await.unwrap().finish().await.unwrap();
    assert!(matches!(open(device.path(), 2).await, Err(OpenError::Locked)));
    assert!(matches!(create(&device).await, Err(CreateError::InUse(_))));
    // By another name, which the lock of the node does not see.
    let dir = tempfile::tempdir().unwrap();
    let alias = dir.path().join("alias");
    let numbers = std::fs::metadata(device.path()).unwrap();
    let device_number = std::os::unix::fs::MetadataExt::rdev(&numbers);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &alias,
        rustix::fs::FileType::BlockDevice,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        device_number,
    )
    .unwrap();
    assert!(matches!(open(&alias, 2).await, Err(OpenError::Locked)));
    volume.close().await.unwrap();
    // The handle is still there, the claim is not.
    open(&alias, 3).await.unwrap();
    drop(volume);
}

#[tokio::test]
async fn what_is_no_block_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    assert!(matches!(open(&path, 1).await, Err(OpenError::Missing)));
    std::fs::write(&path, vec![0; 1 << 20]).unwrap();
    let refused = open(&path, 1).await;
    assert!(matches!(refused, Err(OpenError::Io(why)) if why.to_string().contains("kind file")));
    let refused = BlockVolume::create(&path, BlockOptions::new(ID, UUID)).await;
    assert!(matches!(refused, Err(CreateError::Io { .. })));
}
