//! The log on a disk that misbehaves, by seed.

use std::collections::VecDeque;

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;
use crate::conformance::{ID, UUID, append, frame, payload, recover};
use crate::{AppendError, Durable, Health, Lsn, NotDurable, ReadError, Ticket, TrimError, Volume};

/// The smallest ring, of 64 KiB, so that everything wraps soon.
const SMALL: u64 = 128 * 1024;

fn device(seed: u64) -> SimDevice {
    SimDevice::create(CreateOptions::new(ID, UUID, SMALL), seed).unwrap()
}

async fn open(device: &SimDevice, epoch: u32) -> Arc<dyn Volume> {
    let recovery = device.open(ID, VolumeEpoch(epoch), OpenOptions::default()).await.unwrap();
    recovery.finish().await.unwrap()
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn slow(least_ms: u64, most_ms: u64) -> Faults {
    Faults { least_latency: ms(least_ms), most_latency: ms(most_ms), ..Faults::default() }
}

#[tokio::test(start_paused = true)]
async fn depth_is_bounded_and_one_completion_makes_room() {
    let device = device(1);
    let volume = open(&device, 1).await;
    device.set_faults(slow(10, 10));
    let mut pending = Vec::new();
    for number in 0..volume.queue_depth() as u64 {
        pending.push(volume.append(frame(&payload(number, 10))).unwrap());
    }
    let Err(AppendError::Busy(back)) = volume.append(frame(b"more")) else { panic!("not busy") };
    assert_eq!(back.payload(), b"more");
    pending.remove(0).await.unwrap();
    volume.append(back).unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded_by_the_window() {
    let options = CreateOptions { window_bytes: 16 * 1024, ..CreateOptions::new(ID, UUID, SMALL) };
    let device = SimDevice::create(options, 1).unwrap();
    let volume = open(&device, 1).await;
    device.set_faults(slow(10, 10));
    let first = volume.append(frame(&payload(1, 12_000))).unwrap();
    let second = volume.append(frame(&payload(2, 4000))).unwrap();
    assert!(matches!(volume.append(frame(b"more")), Err(AppendError::Busy(_))));
    first.await.unwrap();
    second.await.unwrap();
    volume.append(frame(b"more")).unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_write_holds_up_what_follows_and_is_tried_until_it_succeeds() {
    let device = device(2);
    let volume = open(&device, 1).await;
    let mut health = volume.health();
    append(&volume, b"before").await;
    device.set_faults(Faults { write_errors_per_mille: 1000, ..Faults::default() });
    let mut failing = volume.append(frame(b"fails")).unwrap();
    tokio::select! {
        biased;
        settled = &mut failing => panic!("{settled:?}"),
        shown = health.wait_for(|health| *health == Health::Failing(io::ErrorKind::Other)) => {
            drop(shown.unwrap());
        }
    }
    // The next one is on the device at once, but is not acknowledged.
    device.set_faults(Faults::default());
    let behind = volume.append(frame(b"behind")).unwrap();
    let Durable { lsn, .. } = failing.await.unwrap();
    assert_eq!(lsn, Lsn(4096));
    assert_eq!(behind.await.unwrap().lsn, Lsn(8192));
    assert_eq!(*health.borrow_and_update(), Health::Good);
    assert_eq!(volume.usage().durable, volume.usage().head);
}

#[tokio::test(start_paused = true)]
async fn a_full_file_system_is_waited_for() {
    let device = device(3);
    let volume = open(&device, 1).await;
    device.set_faults(Faults { no_room: true, ..Faults::default() });
    let pending = volume.append(frame(b"one")).unwrap();
    let mut health = volume.health();
    let full = Health::Failing(io::ErrorKind::StorageFull);
    drop(health.wait_for(|health| *health == full).await.unwrap());
    // A close gives up after its time, and says so.
    assert!(volume.close().await.is_err());
    assert_eq!(pending.await, Err(NotDurable::Closed));
    device.set_faults(Faults::default());
    append(&open(&device, 2).await, b"two").await;
}

#[tokio::test(start_paused = true)]
async fn a_takeover_fences_the_owner_in_the_middle_of_its_writes() {
    for seed in 0..200 {
        let device = device(seed);
        let old = open(&device, 1).await;
        append(&old, b"acknowledged").await;
        device.set_faults(slow(1, 20));
        let pending: Vec<Ticket> =
            (0..8).map(|number| old.append(frame(&payload(number, 3000))).unwrap()).collect();
        sleep(ms(seed % 21)).await;
        let (found, new) =
            recover(device.open(ID, VolumeEpoch(2), OpenOptions::default()).await.unwrap()).await;
        let mut acknowledged = 1;
        for ticket in pending {
            match ticket.await {
                Ok(_) => acknowledged += 1,
                Err(why) => assert_eq!(why, NotDurable::Fenced),
            }
        }
        assert!(found.len() >= acknowledged, "seed {seed}");
        // An owner whose writes had all ended learns it from the next.
        match old.append(frame(b"late")) {
            Ok(ticket) => assert_eq!(ticket.await, Err(NotDurable::Fenced)),
            Err(refused) => assert!(matches!(refused, AppendError::Fenced)),
        }
        // Nothing of the old owner's lands from now on.
        let (_, end) = append(&new, b"mine").await;
        sleep(ms(50)).await;
        assert_eq!(new.read(Lsn(end.0 - 4096)).await.unwrap(), b"mine"[..]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_trim_that_fails_changes_nothing_and_can_be_tried_again() {
    let device = device(4);
    let volume = open(&device, 1).await;
    let (_, end) = append(&volume, b"one").await;
    append(&volume, b"two").await;
    device.set_faults(Faults { write_errors_per_mille: 1000, ..Faults::default() });
    assert!(matches!(volume.trim(end, 7).await, Err(TrimError::Io(_))));
    assert_eq!(volume.usage().trim, Lsn(0));
    device.set_faults(Faults::default());
    volume.trim(end, 8).await.unwrap();
    device.crash();
    let recovery = device.open(ID, VolumeEpoch(2), OpenOptions::default()).await.unwrap();
    assert_eq!((recovery.trim(), recovery.hint()), (end, 8));
}

#[tokio::test(start_paused = true)]
async fn a_read_error_is_no_end_of_the_log() {
    let device = device(5);
    let volume = open(&device, 1).await;
    append(&volume, b"one").await;
    drop(volume);
    let mut recovery = device.open(ID, VolumeEpoch(2), OpenOptions::default()).await.unwrap();
    device.set_faults(Faults { read_errors_per_mille: 1000, ..Faults::default() });
    assert!(matches!(recovery.next().await, Err(crate::RecoveryError::Io(_))));
    device.set_faults(Faults::default());
    let (found, _) =
        recover(device.open(ID, VolumeEpoch(3), OpenOptions::default()).await.unwrap()).await;
    assert_eq!(found.len(), 1);
}

/// What a run may do next.
#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// Waits for the oldest frames.
    Await(usize),
    /// Trims up to this many frames, of those acknowledged.
    Trim(usize),
    /// A trim under way when the next step comes.
    StartTrim(usize),
    Sleep(u64),
    Faults(u32),
    Crash,
    /// A crash in the middle of the next recovery.
    CrashTwice(usize),
    Close,
    /// The next owner takes over while this one lives.
    TakeOver,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..16_000_usize).prop_map(Step::Append),
        4 => (1..6_usize).prop_map(Step::Await),
        3 => (0..6_usize).prop_map(Step::Trim),
        1 => (0..6_usize).prop_map(Step::StartTrim),
        2 => (0..10_u64).prop_map(Step::Sleep),
        1 => prop_oneof![Just(0_u32), Just(300)].prop_map(Step::Faults),
        2 => Just(Step::Crash),
        1 => (0..4_usize).prop_map(Step::CrashTwice),
        1 => Just(Step::Close),
        1 => Just(Step::TakeOver),
    ];
    prop::collection::vec(step, 1..120)
}

/// A frame that was accepted, as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Accepted {
    lsn: Lsn,
    end: Lsn,
    payload: Vec<u8>,
    epoch: u32,
}

/// The log as it should be, beside the one that is.
struct Run {
    device: SimDevice,
    volume: Arc<dyn Volume>,
    epoch: u32,
    frames: VecDeque<Accepted>,
    /// How many of `frames`, from the front, were acknowledged or recovered.
    acknowledged: usize,
    tickets: VecDeque<Ticket>,
    /// Trim points that may be the device's: the last known, and those of trims with no answer.
    trims: Vec<Lsn>,
    number: u64,
    history: Vec<String>,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let device = device(seed);
        device.set_faults(slow(0, 8));
        let volume = open(&device, 1).await;
        Self {
            device,
            volume,
            epoch: 1,
            frames: VecDeque::new(),
            acknowledged: 0,
            tickets: VecDeque::new(),
            trims: vec![Lsn(0)],
            number: 0,
            history: Vec::new(),
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(len) => self.append(len),
            Step::Await(count) => self.settle(count).await,
            Step::Trim(count) => {
                let upto = self.trim_point(count);
                if self.volume.trim(upto, upto.0).await.is_ok() {
                    self.trimmed(upto);
                } else {
                    self.trims.push(upto);
                }
            }
            Step::StartTrim(count) => {
                let upto = self.trim_point(count);
                let volume = Arc::clone(&self.volume);
                tokio::spawn(async move { drop(volume.trim(upto, upto.0).await) });
                self.trims.push(upto);
            }
            Step::Sleep(time) => sleep(ms(time)).await,
            Step::Faults(write_errors_per_mille) => {
                self.device.set_faults(Faults { write_errors_per_mille, ..slow(0, 8) });
            }
            Step::Crash => self.reopen(true, None).await,
            Step::CrashTwice(frames) => self.reopen(true, Some(frames)).await,
            Step::Close => {
                self.device.set_faults(slow(0, 8));
                self.volume.close().await.unwrap();
                self.settle(usize::MAX).await;
                self.reopen(false, None).await;
            }
            Step::TakeOver => self.reopen(false, None).await,
        }
    }

    fn append(&mut self, len: usize) {
        self.number += 1;
        let bytes = payload(self.number, len);
        let before = self.volume.usage();
        match self.volume.append(frame(&bytes)) {
            Ok(ticket) => {
                let end = self.volume.usage().head;
                let (lsn, epoch) = (ticket.lsn(), self.epoch);
                self.frames.push_back(Accepted { lsn, end, payload: bytes, epoch });
                self.tickets.push_back(ticket);
            }
            Err(AppendError::Full(_)) => assert!(before.free_bytes < 2 * (len as u64 + 8192)),
            Err(AppendError::Busy(_)) => assert!(!self.tickets.is_empty()),
            Err(other) => panic!("{other}"),
        }
    }

    async fn settle(&mut self, count: usize) {
        for _ in 0..count {
            let Some(ticket) = self.tickets.pop_front() else { return };
            let durable = ticket.await.unwrap();
            let expected = &self.frames[self.acknowledged];
            assert_eq!((durable.lsn, durable.end), (expected.lsn, expected.end));
            assert_eq!(durable.payload, expected.payload);
            match self.volume.read(durable.lsn).await {
                Ok(read) => assert_eq!(read, expected.payload),
                Err(refused) => assert!(matches!(refused, ReadError::Closed), "{refused}"),
            }
            self.acknowledged += 1;
        }
    }

    /// The end of one of the acknowledged frames, not before a trim that is under way.
    fn trim_point(&self, count: usize) -> Lsn {
        let least = *self.trims.iter().max().unwrap();
        let ends = self.frames.iter().take(self.acknowledged.min(count)).map(|frame| frame.end);
        ends.max().unwrap_or(least).max(least)
    }

    fn trimmed(&mut self, upto: Lsn) {
        self.trims = vec![upto];
        while self.frames.front().is_some_and(|frame| frame.lsn < upto) {
            self.frames.pop_front();
            self.acknowledged -= 1;
        }
    }

    async fn reopen(&mut self, crash: bool, crash_again_after: Option<usize>) {
        if crash {
            self.device.crash();
        }
        // Acknowledged without having been waited for counts too.
        let durable = self.volume.usage().durable;
        self.device.set_faults(slow(0, 8));
        self.epoch += 1;
        let epoch = VolumeEpoch(self.epoch);
        let options = OpenOptions::default();
        let mut recovery = self.device.open(ID, epoch, options).await.unwrap();
        if let Some(frames) = crash_again_after {
            for _ in 0..frames {
                recovery.next().await.unwrap();
            }
            self.device.crash();
            self.epoch += 1;
            let epoch = VolumeEpoch(self.epoch);
            recovery = self.device.open(ID, epoch, options).await.unwrap();
        }
        let (trim, hint) = (recovery.trim(), recovery.hint());
        assert!(self.trims.contains(&trim) && hint == trim.0, "{trim} of {:?}", self.trims);
        let (found, volume) = recover(recovery).await;
        self.volume = volume;
        self.tickets.clear();
        self.trimmed(trim);
        let kept = self.frames.iter().filter(|frame| frame.end <= durable).count();
        let kept = kept.max(self.acknowledged);
        let found: VecDeque<Accepted> = found
            .into_iter()
            .map(|frame| Accepted {
                lsn: frame.lsn,
                end: frame.end,
                payload: frame.payload.to_vec(),
                epoch: frame.epoch.0,
            })
            .collect();
        assert!(found.len() >= kept, "{} frames of {kept} that were durable", found.len());
        assert!(found.iter().eq(self.frames.iter().take(found.len())), "other than was appended");
        self.history.push(format!("{trim} {} {}", found.len(), self.volume.usage().head));
        self.acknowledged = found.len();
        self.frames = found;
    }
}

/// One run; what it saw.
fn run(seed: u64, steps: &[Step]) -> Vec<String> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut run = Run::new(seed).await;
        for step in steps {
            run.step(step).await;
        }
        run.reopen(true, None).await;
        let image = run.device.peek(0, SMALL as usize);
        run.history.push(format!("{:08x}", crate::frame::crc32c(&image)));
        run.history
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_durable_prefix_is_recovered_and_nothing_else(seed in any::<u64>(), steps in steps()) {
        run(seed, &steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn a_seed_repeats_a_run(seed in any::<u64>(), steps in steps()) {
        prop_assert_eq!(run(seed, &steps), run(seed, &steps));
    }
}
