//! What the shared on-disk format promises: which bytes are a log, and which never are.

use sluice_model::VolumeEpoch;

use super::{Bytes, ID, Rig, UUID, append, payload, recover};
use crate::buffer::{FrameBuf, frame_len};
use crate::frame::{FrameHeader, HEADER_BYTES, crc32c};
use crate::geometry::{BLOCK, RING_OFFSET};
use crate::superblock::{SLOT_OFFSETS, Superblock};
use crate::{Lsn, OpenError, OpenOptions, Recovery, RecoveryError};

/// The smallest volume: a ring of 64 KiB.
const SMALL: u64 = 128 * 1024;
const RING: u64 = 64 * 1024;

/// A frame as some owner may have written it.
fn craft(lsn: u64, prev_end: u64, durable: u64, epoch: u32, bytes: &[u8]) -> Vec<u8> {
    craft_for(UUID, lsn, prev_end, durable, epoch, bytes)
}

fn craft_for(
    uuid: [u8; 16],
    lsn: u64,
    prev_end: u64,
    durable: u64,
    epoch: u32,
    bytes: &[u8],
) -> Vec<u8> {
    let mut buf = FrameBuf::with_capacity(bytes.len());
    buf.push(bytes).unwrap();
    let header = FrameHeader {
        payload_len: bytes.len() as u32,
        payload_crc: crc32c(bytes),
        lsn,
        prev_end,
        durable,
        epoch,
        seed: uuid[..12].try_into().unwrap(),
    };
    buf.seal(&header.encode()).to_vec()
}

/// Without zeros written ahead: they would wipe out what the tests put there.
async fn open<R: Rig>(rig: &R, epoch: u32) -> Result<Box<dyn Recovery>, OpenError> {
    rig.open_with(ID, epoch, OpenOptions { prewrite_bytes: 0, ..OpenOptions::default() }).await
}

fn place(lsn: u64) -> u64 {
    RING_OFFSET + lsn % RING
}

/// What the next recovery finds, as payloads; nothing is written to the log.
async fn payloads<R: Rig>(rig: &R, epoch: u32) -> Result<Vec<Vec<u8>>, RecoveryError> {
    let mut recovery = open(rig, epoch).await.unwrap();
    let mut found = Vec::new();
    while let Some(frame) = recovery.next().await? {
        found.push(frame.payload.to_vec());
    }
    Ok(found)
}

/// A volume whose epoch-1 owner appended these, each durable before the next, and crashed.
async fn with_log<R: Rig>(frames: &[&[u8]]) -> R {
    let rig = R::new(SMALL, 1 << 20).await;
    let (_, volume) = recover(open(&rig, 1).await.unwrap()).await;
    for bytes in frames {
        append(&volume, bytes).await;
    }
    drop(volume);
    rig
}

pub(super) async fn torn_at_each_sector<R: Rig + Bytes>() {
    let (first, torn) = (payload(1, 100), payload(2, 9000));
    let rig = with_log::<R>(&[&first, &torn]).await;
    let whole = rig.peek(place(4096), frame_len(torn.len()));
    assert_eq!(whole.len(), 24 * 512);
    let mut epoch = 2;
    for sector in 0..whole.len() / 512 {
        // Never written, or with something else in it.
        for filling in [0, 0xee] {
            let at = sector * 512;
            let mut damaged = whole.clone();
            damaged[at..at + 512].fill(filling);
            rig.poke(place(4096), &damaged);
            let found = payloads(&rig, epoch).await.unwrap();
            epoch += 1;
            // Padding is not part of what was appended.
            let expected = if at < HEADER_BYTES + torn.len() { 1 } else { 2 };
            assert_eq!(found.len(), expected, "sector {sector}");
        }
    }
    rig.poke(place(4096), &whole);
    assert_eq!(payloads(&rig, epoch).await.unwrap(), [first, torn]);
}

pub(super) async fn damage_of_acknowledged_frames_is_told<R: Rig + Bytes>() {
    let frames = [payload(1, 100), payload(2, 5000), payload(3, 100), payload(4, 100)];
    let rig = with_log::<R>(&frames.each_ref().map(Vec::as_slice)).await;
    // Bit rot in the second frame: the third proves that it was durable.
    let mut block = rig.peek(place(4096) + 1000, 1);
    block[0] ^= 1;
    rig.poke(place(4096) + 1000, &block);
    let error = payloads(&rig, 2).await.unwrap_err();
    assert!(
        matches!(error, RecoveryError::Corrupt { at: Lsn(4096), durable } if durable > Lsn(4096))
    );
    // And again, at the next try: nothing has been given up.
    assert!(payloads(&rig, 3).await.is_err());
    block[0] ^= 1;
    rig.poke(place(4096) + 1000, &block);
    let (found, volume) = recover(open(&rig, 4).await.unwrap()).await;
    assert_eq!(found.len(), 4);
    // The last frame's loss is told by the superblock: the opening noted how far the log reached.
    drop(volume);
    rig.poke(place(4096 + 8192 + 4096), &[0; 512]);
    let error = payloads(&rig, 5).await.unwrap_err();
    assert!(matches!(error, RecoveryError::Corrupt { at: Lsn(16_384), durable: Lsn(20_480) }));
}

pub(super) async fn frames_beyond_a_hole_stay_dead<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[&payload(1, 10)]).await;
    // Two more were in flight at the crash; the first was lost, the second landed.
    let dead = craft(8192, 8192, 4096, 1, &payload(3, 10));
    rig.poke(place(8192), &dead);
    let (found, volume) = recover(open(&rig, 2).await.unwrap()).await;
    assert_eq!(found.len(), 1);
    // The next owner fills the hole exactly, and crashes.
    append(&volume, &payload(20, 10)).await;
    drop(volume);
    assert_eq!(rig.peek(place(8192), BLOCK), dead, "it still lies there");
    assert_eq!(payloads(&rig, 3).await.unwrap(), [payload(1, 10), payload(20, 10)]);
    // An owner that wrote nothing does not change that, nor does one that comes later.
    let (_, volume) = recover(open(&rig, 4).await.unwrap()).await;
    drop(volume);
    assert_eq!(payloads(&rig, 5).await.unwrap().len(), 2);
    let (_, volume) = recover(open(&rig, 6).await.unwrap()).await;
    append(&volume, &payload(30, 10)).await;
    drop(volume);
    assert_eq!(payloads(&rig, 7).await.unwrap().len(), 3);
}

pub(super) async fn frames_that_are_not_the_logs<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[&payload(1, 10)]).await;
    let other = *b"another's uuid..";
    let wrong = [
        ("another volume's", craft_for(other, 4096, 4096, 4096, 1, b"x")),
        ("a lap before's", craft(4096 + RING, 4096, 4096, 1, b"x")),
        ("another place's", craft(8192, 4096, 4096, 1, b"x")),
        ("an epoch that never began's", craft(4096, 4096, 4096, 2, b"x")),
        ("an older epoch's", craft(4096, 4096, 4096, 0, b"x")),
        ("one that follows another", craft(4096, 0, 0, 1, b"x")),
    ];
    for (number, (whose, bytes)) in wrong.into_iter().enumerate() {
        rig.poke(place(4096), &bytes);
        let found = payloads(&rig, 2 + number as u32).await.unwrap();
        assert_eq!(found.len(), 1, "{whose} frame was taken");
    }
    rig.poke(place(4096), &craft(4096, 4096, 4096, 1, b"right"));
    assert_eq!(payloads(&rig, 10).await.unwrap()[1], b"right");
    // One that lies in its own place too, which is not the next.
    for lsn in [4096, 8192] {
        rig.poke(place(lsn), &craft(8192, 4096, 4096, 1, b"x"));
    }
    assert_eq!(payloads(&rig, 12).await.unwrap().len(), 1);
    // One that would reach over the end of the ring.
    let mut long = craft(4096, 4096, 4096, 1, &vec![1; RING as usize]);
    long.truncate(RING as usize - 4096);
    rig.poke(place(4096), &long);
    assert_eq!(payloads(&rig, 13).await.unwrap().len(), 1);
}

pub(super) async fn a_dead_frame_in_a_skipped_rest<R: Rig + Bytes>() {
    let big = |number| payload(number, 12_000);
    let rig = with_log::<R>(&[&big(1), &big(2), &big(3), &big(4)]).await;
    // 4 x 12 KiB are used. The next owner leaves the last 4 KiB of the lap out.
    let (_, volume) = recover(open(&rig, 2).await.unwrap()).await;
    append(&volume, &payload(5, 8000)).await;
    volume.trim(Lsn(2 * 12_288), 0).await.unwrap();
    append(&volume, &big(6)).await;
    drop(volume);
    let rest = 4 * 12_288 + 8192;
    assert_eq!(rest, RING - 8192);
    assert_eq!(payloads(&rig, 3).await.unwrap().len(), 4);
    // As if epoch 1 had had a frame in flight there, beyond a hole.
    rig.poke(place(rest), &craft(rest, rest, 4 * 12_288, 1, b"dead"));
    let (found, volume) = recover(open(&rig, 4).await.unwrap()).await;
    assert_eq!(found.len(), 4);
    // Nor when the log begins there: the frame of the later epoch is the log's.
    append(&volume, b"more").await;
    volume.trim(Lsn(rest), 0).await.unwrap();
    drop(volume);
    assert_eq!(payloads(&rig, 5).await.unwrap(), [big(6), b"more".to_vec()]);
}

pub(super) async fn a_clean_end_is_the_end<R: Rig + Bytes>() {
    let rig = R::new(SMALL, 1 << 20).await;
    let (_, volume) = recover(open(&rig, 1).await.unwrap()).await;
    append(&volume, b"all").await;
    volume.close().await.unwrap();
    rig.poke(place(4096), &craft(4096, 4096, 4096, 1, b"x"));
    assert_eq!(payloads(&rig, 2).await.unwrap().len(), 1);
    rig.poke(place(0), &[0; 512]);
    let error = payloads(&rig, 3).await.unwrap_err();
    assert!(matches!(error, RecoveryError::Corrupt { at: Lsn(0), durable: Lsn(4096) }));
}

pub(super) async fn superblocks_damaged_in_turn<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[b"one"]).await;
    let mut epoch = 2;
    for slot in [0, 1, 1, 0] {
        // Anywhere in it, one bit will do.
        for at in [0, 17, 66, 3000, 4095] {
            let mut byte = rig.peek(SLOT_OFFSETS[slot] + at, 1);
            byte[0] ^= 0x10;
            rig.poke(SLOT_OFFSETS[slot] + at, &byte);
            let stored = VolumeEpoch(epoch - 1);
            let fenced = open(&rig, epoch - 1).await;
            assert!(matches!(fenced, Err(OpenError::Fenced { stored: found }) if found == stored));
            let (found, volume) = recover(open(&rig, epoch).await.unwrap()).await;
            assert_eq!(found.len(), 1);
            drop(volume);
            // The opening has mended it.
            assert!(Superblock::decode(&rig.peek(SLOT_OFFSETS[slot], BLOCK)).is_ok());
            epoch += 1;
        }
    }
    for slot in SLOT_OFFSETS {
        rig.poke(slot, &[0; BLOCK]);
    }
    assert!(matches!(open(&rig, epoch).await, Err(OpenError::Damaged)));
}

pub(super) async fn a_later_format_is_refused<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[b"one"]).await;
    // A whole frame of version 2.
    let mut frame = craft(4096, 4096, 4096, 1, b"new");
    frame[4] = 2;
    let crc = crc32c(&frame[..60]);
    frame[60..64].copy_from_slice(&crc.to_le_bytes());
    rig.poke(place(4096), &frame);
    let error = payloads(&rig, 2).await.unwrap_err();
    assert!(matches!(error, RecoveryError::Unsupported { at: Lsn(4096), version: 2 }));
    // A superblock of version 2, in one slot.
    let mut slot = rig.peek(SLOT_OFFSETS[1], BLOCK);
    slot[8] = 2;
    let crc = crc32c(&slot[..BLOCK - 4]);
    slot[BLOCK - 4..].copy_from_slice(&crc.to_le_bytes());
    rig.poke(SLOT_OFFSETS[1], &slot);
    assert!(matches!(open(&rig, 3).await, Err(OpenError::Unsupported(2))));
}

pub(super) async fn a_stale_superblock_is_noticed<R: Rig + Bytes>() {
    let rig = R::new(SMALL, 1 << 20).await;
    let (_, volume) = recover(open(&rig, 1).await.unwrap()).await;
    let old = SLOT_OFFSETS.map(|slot| rig.peek(slot, BLOCK));
    for number in 0..30 {
        let (_, end) = append(&volume, &payload(number, 9000)).await;
        volume.trim(end, number).await.unwrap();
    }
    drop(volume);
    // Both superblocks as they were before the trims: the device has lost writes that it confirmed.
    for (slot, bytes) in SLOT_OFFSETS.into_iter().zip(old) {
        rig.poke(slot, &bytes);
    }
    assert!(matches!(payloads(&rig, 2).await, Err(RecoveryError::Corrupt { at: Lsn(0), .. })));
}

pub(super) async fn interrupted_recovery<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[b"one", b"two"]).await;
    // Opened, read, and gone before it could be written: any number of times.
    for epoch in 2..6 {
        assert_eq!(payloads(&rig, epoch).await.unwrap(), [b"one", b"two"]);
    }
    let (_, volume) = recover(open(&rig, 6).await.unwrap()).await;
    append(&volume, b"three").await;
    drop(volume);
    drop(open(&rig, 7).await.unwrap());
    assert_eq!(payloads(&rig, 8).await.unwrap().len(), 3);
}

pub(super) async fn an_end_once_found_is_final<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[b"one"]).await;
    // The second owner finds one frame, and writes none.
    let (found, volume) = recover(open(&rig, 2).await.unwrap()).await;
    assert_eq!(found.len(), 1);
    drop(volume);
    // A frame of the first's that could not be read then can be read now.
    rig.poke(place(4096), &craft(4096, 4096, 4096, 1, b"two"));
    assert_eq!(payloads(&rig, 3).await.unwrap(), [b"one"]);
}

pub(super) async fn epochs_within_the_log_never_fall<R: Rig + Bytes>() {
    let rig = with_log::<R>(&[b"one"]).await;
    for epoch in 2..4 {
        let (_, volume) = recover(open(&rig, epoch).await.unwrap()).await;
        append(&volume, b"of that epoch").await;
    }
    // The second frame, of epoch 2, is replaced by one of an older epoch, or of one that began later.
    for (epoch, wrong) in [(4, 0), (5, 3), (6, 4)] {
        rig.poke(place(4096), &craft(4096, 4096, 4096, wrong, b"wrong"));
        let error = payloads(&rig, epoch).await.unwrap_err();
        assert!(matches!(error, RecoveryError::Corrupt { at: Lsn(4096), .. }), "epoch {wrong}");
    }
    rig.poke(place(4096), &craft(4096, 4096, 4096, 2, b"right"));
    assert_eq!(payloads(&rig, 7).await.unwrap().len(), 3);
}

pub(super) async fn a_trim_survives_the_loss_of_either_superblock<R: Rig + Bytes>() {
    for slot in SLOT_OFFSETS {
        let rig = R::new(SMALL, 1 << 20).await;
        let (_, volume) = recover(open(&rig, 1).await.unwrap()).await;
        let (_, end) = append(&volume, b"one").await;
        append(&volume, b"two").await;
        volume.trim(end, 9).await.unwrap();
        drop(volume);
        rig.poke(slot, &[0; 512]);
        let recovery = open(&rig, 2).await.unwrap();
        assert_eq!((recovery.trim(), recovery.hint()), (end, 9));
        assert_eq!(recover(recovery).await.0.len(), 1);
    }
}
