//! What the two traits promise.

use std::collections::VecDeque;

use sluice_model::{VolumeEpoch, VolumeId};

use super::{ID, Rig, append, frame, payload, recover};
use crate::{
    AppendError, Health, Lsn, MAX_PAYLOAD_BYTES, NotDurable, OpenError, ReadError, TrimError,
};

/// The smallest volume: a ring of 64 KiB.
const SMALL: u64 = 128 * 1024;
const WINDOW: u64 = 32 << 20;

pub(super) async fn round_trips<R: Rig>() {
    let rig = R::new(64 << 20, WINDOW).await;
    let (found, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    assert!(found.is_empty());
    let sizes = [0, 1, 4032, 4033, 8192, 100_000, 3 << 20, MAX_PAYLOAD_BYTES, 5];
    let mut places = Vec::new();
    for (number, len) in sizes.into_iter().enumerate() {
        places.push(append(&volume, &payload(number as u64, len)).await);
    }
    for (number, len) in sizes.into_iter().enumerate() {
        let read = volume.read(places[number].0).await.unwrap();
        assert_eq!(read, payload(number as u64, len));
    }
    volume.close().await.unwrap();
    // After a close, then after a crash.
    for epoch in 2..4 {
        let recovery = rig.open(ID, epoch).await.unwrap();
        assert_eq!((recovery.id(), recovery.epoch()), (ID, VolumeEpoch(epoch)));
        let (found, volume) = recover(recovery).await;
        assert_eq!(found.len(), sizes.len());
        for (number, frame) in found.iter().enumerate() {
            assert_eq!((frame.lsn, frame.end), places[number]);
            assert_eq!(frame.epoch, VolumeEpoch(1));
            assert_eq!(frame.payload, payload(number as u64, sizes[number]));
        }
        assert_eq!(volume.usage().head, places[sizes.len() - 1].1);
        drop(volume);
    }
}

pub(super) async fn an_empty_log<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    for epoch in 1..5 {
        let (found, volume) = recover(rig.open(ID, epoch).await.unwrap()).await;
        assert!(found.is_empty());
        let usage = volume.usage();
        assert_eq!((usage.head, usage.durable, usage.trim), (Lsn(0), Lsn(0), Lsn(0)));
        assert_eq!((usage.free_bytes, usage.capacity_bytes), (65_536, 65_536));
        if epoch % 2 == 0 {
            volume.close().await.unwrap();
        }
    }
}

pub(super) async fn laps<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let mut epoch = 1;
    let (_, mut volume) = recover(rig.open(ID, epoch).await.unwrap()).await;
    let mut kept: VecDeque<(Lsn, Lsn, Vec<u8>, u32)> = VecDeque::new();
    for number in 0..400_u64 {
        let bytes = payload(number, (number as usize * 2711) % 16_000);
        let durable = loop {
            match volume.append(frame(&bytes)) {
                Ok(ticket) => break ticket.await.unwrap(),
                Err(AppendError::Full(_)) => {
                    let (_, end, _, _) = kept.pop_front().unwrap();
                    volume.trim(end, number).await.unwrap();
                }
                Err(other) => panic!("{other}"),
            }
        };
        kept.push_back((durable.lsn, durable.end, bytes, epoch));
        if number % 23 == 22 {
            epoch += 1;
            if number % 2 == 0 {
                volume.close().await.unwrap();
            }
            drop(volume);
            let (found, reopened) = recover(rig.open(ID, epoch).await.unwrap()).await;
            let found = found.into_iter().map(|f| (f.lsn, f.end, f.payload.to_vec(), f.epoch.0));
            assert_eq!(found.collect::<Vec<_>>(), Vec::from(kept.clone()), "frame {number}");
            volume = reopened;
        }
    }
    assert!(volume.usage().head.0 > 20 * 65_536, "many laps");
}

pub(super) async fn full_then_trim<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    let mut places = Vec::new();
    for number in 0..16 {
        places.push(append(&volume, &payload(number, 4000)).await);
    }
    assert_eq!(volume.usage().free_bytes, 0);
    let Err(AppendError::Full(refused)) = volume.append(frame(b"more")) else { panic!("not full") };
    assert_eq!(refused.payload(), b"more");
    volume.trim(places[0].1, 0).await.unwrap();
    assert_eq!(volume.usage().free_bytes, 4096);
    let ticket = volume.append(refused).unwrap();
    assert_eq!(ticket.lsn(), Lsn(65_536));
    ticket.await.unwrap();
    assert!(matches!(volume.append(frame(b"more")), Err(AppendError::Full(_))));
    assert!(matches!(volume.read(places[0].0).await, Err(ReadError::Trimmed(Lsn(0)))));
    drop(volume);
    let (found, _) = recover(rig.open(ID, 2).await.unwrap()).await;
    assert_eq!(found.len(), 16);
    assert_eq!(found[0].lsn, places[1].0);
    assert_eq!(found[15].payload, b"more"[..]);
}

pub(super) async fn epochs<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let zero = rig.open(ID, 0).await;
    assert!(matches!(zero, Err(OpenError::Fenced { stored: VolumeEpoch(0) })));
    let (_, volume) = recover(rig.open(ID, 5).await.unwrap()).await;
    append(&volume, b"five").await;
    drop(volume);
    for epoch in [0, 4, 5] {
        let refused = rig.open(ID, epoch).await;
        assert!(matches!(refused, Err(OpenError::Fenced { stored: VolumeEpoch(5) })), "{epoch}");
    }
    let other = rig.open(VolumeId(8), 6).await;
    assert!(matches!(other, Err(OpenError::WrongVolume { found: ID, wanted: VolumeId(8) })));
    // An opening that is given up, before its recovery, fences all the same.
    drop(rig.open(ID, 9).await.unwrap());
    assert!(matches!(rig.open(ID, 9).await, Err(OpenError::Fenced { stored: VolumeEpoch(9) })));
    let (found, volume) = recover(rig.open(ID, 10).await.unwrap()).await;
    append(&volume, b"ten").await;
    assert_eq!(found.len(), 1);
    drop(volume);
    let (found, _) = recover(rig.open(ID, 11).await.unwrap()).await;
    let epochs = found.iter().map(|frame| frame.epoch.0).collect::<Vec<_>>();
    assert_eq!(epochs, [5, 10]);
}

pub(super) async fn trim_points_are_frame_edges<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    let first = append(&volume, &payload(1, 10_000)).await;
    let second = append(&volume, &payload(2, 10_000)).await;
    let inside = Lsn(second.0.0 + 4096);
    assert!(matches!(volume.trim(inside, 0).await, Err(TrimError::NotAFrame(at)) if at == inside));
    assert!(matches!(volume.trim(Lsn(17), 0).await, Err(TrimError::NotAFrame(_))));
    let beyond = Lsn(second.1.0 + 4096);
    assert!(matches!(volume.trim(beyond, 0).await, Err(TrimError::OutOfRange { .. })));
    volume.trim(first.1, 0).await.unwrap();
    assert!(matches!(volume.trim(first.0, 0).await, Err(TrimError::OutOfRange { .. })));
    // Up to the last 8 KiB of the lap, which the next frame leaves out.
    let third = append(&volume, &payload(3, 16_000)).await;
    let fourth = append(&volume, &payload(4, 16_000)).await;
    assert_eq!(fourth.1, Lsn(57_344));
    let next_lap = append(&volume, &payload(5, 10_000)).await;
    assert_eq!(next_lap.0, Lsn(65_536));
    volume.trim(third.1, 0).await.unwrap();
    volume.trim(fourth.1, 0).await.unwrap();
    drop(volume);
    let (found, volume) = recover(rig.open(ID, 2).await.unwrap()).await;
    assert_eq!(found.iter().map(|frame| frame.lsn).collect::<Vec<_>>(), [next_lap.0]);
    volume.trim(next_lap.0, 0).await.unwrap();
    drop(volume);
    let (found, volume) = recover(rig.open(ID, 3).await.unwrap()).await;
    assert_eq!(found[0].lsn, next_lap.0);
    // All of it: then the log is empty, and goes on from there.
    volume.trim(volume.usage().durable, 0).await.unwrap();
    assert_eq!(volume.usage().free_bytes, volume.usage().capacity_bytes);
    drop(volume);
    let (found, volume) = recover(rig.open(ID, 4).await.unwrap()).await;
    assert!(found.is_empty());
    assert_eq!(append(&volume, b"on").await.0, next_lap.1);
}

pub(super) async fn hints<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let recovery = rig.open(ID, 1).await.unwrap();
    assert_eq!((recovery.trim(), recovery.hint()), (Lsn(0), 0));
    let volume = recovery.finish().await.unwrap();
    let (_, end) = append(&volume, b"x").await;
    volume.trim(end, 41).await.unwrap();
    volume.trim(end, 42).await.unwrap();
    volume.close().await.unwrap();
    let recovery = rig.open(ID, 2).await.unwrap();
    assert_eq!((recovery.trim(), recovery.hint()), (end, 42));
}

pub(super) async fn closed<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    let pending = volume.append(frame(b"in flight")).unwrap();
    volume.close().await.unwrap();
    let durable = pending.await.unwrap();
    volume.close().await.unwrap();
    assert!(matches!(volume.append(frame(b"late")), Err(AppendError::Closed)));
    assert!(matches!(volume.trim(durable.end, 0).await, Err(TrimError::Closed)));
    assert!(matches!(volume.read(durable.lsn).await, Err(ReadError::Closed)));
    assert_eq!(*volume.health().borrow(), Health::Closed);
    // The closed handle is still there, and in no one's way.
    let (found, next) = recover(rig.open(ID, 2).await.unwrap()).await;
    assert_eq!(found.len(), 1);
    append(&next, b"next").await;
}

pub(super) async fn fenced<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    let (lsn, end) = append(&volume, b"before").await;
    let health = volume.health();
    assert_eq!(*health.borrow(), Health::Good);
    volume.fence();
    assert!(matches!(volume.append(frame(b"late")), Err(AppendError::Fenced)));
    assert!(matches!(volume.trim(end, 0).await, Err(TrimError::Fenced)));
    assert!(matches!(volume.read(lsn).await, Err(ReadError::Fenced)));
    assert_eq!(*health.borrow(), Health::Fenced);
    assert!(volume.close().await.is_err());
    let (found, _) = recover(rig.open(ID, 2).await.unwrap()).await;
    assert_eq!(found.len(), 1);
}

pub(super) async fn in_order_and_pipelined<R: Rig>() {
    let rig = R::new(8 << 20, WINDOW).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    let mut pending = VecDeque::new();
    let mut next = Lsn(0);
    for number in 0..200_u64 {
        let mut buf = frame(&payload(number, 8 + (number as usize * 977) % 20_000));
        let ticket = loop {
            buf = match volume.append(buf) {
                Ok(ticket) => break ticket,
                Err(AppendError::Busy(back)) => back,
                Err(other) => panic!("{other}"),
            };
            let (number, oldest): (u64, crate::Ticket) = pending.pop_front().unwrap();
            let durable = oldest.await.unwrap();
            assert_eq!(durable.lsn, next);
            assert_eq!(durable.payload[..8], payload(number, 8));
            assert!(volume.usage().durable >= durable.end);
            next = durable.end;
        };
        pending.push_back((number, ticket));
        assert!(pending.len() <= 200);
    }
    // The youngest is durable only after all the others: none of them has to wait any more.
    let (_, youngest) = pending.pop_back().unwrap();
    youngest.await.unwrap();
    for (_, ticket) in pending {
        let now = std::future::ready(Err(NotDurable::Closed));
        tokio::select! { biased; settled = ticket => settled, late = now => late }.unwrap();
    }
}

pub(super) async fn sizes_are_bounded<R: Rig>() {
    let rig = R::new(SMALL, WINDOW).await;
    let (_, volume) = recover(rig.open(ID, 1).await.unwrap()).await;
    let most = volume.max_payload_bytes();
    assert_eq!(most, 16_384 - 64);
    append(&volume, &payload(1, most)).await;
    let refused = volume.append(frame(&payload(1, most + 1)));
    assert!(matches!(refused, Err(AppendError::TooLarge(back)) if back.len() == most + 1));
    assert_eq!(volume.usage().head, Lsn(16_384));
}
