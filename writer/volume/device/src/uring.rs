//! One io_uring over one open file: writes and reads that are started by whoever asks for them, and
//! answered by whoever serves the ring: a task that waits until it is readable ([`Uring::readable`]) and then
//! calls [`Uring::answer`], or a thread in [`Uring::serve`]. It has no thread of its own, so that an idle
//! ring costs nothing, and an answer need not pass from thread to thread before it reaches who waits for it.
//!
//! Who owns what: an operation's memory belongs to the ring from its start to its answer, whatever
//! becomes of the handle meanwhile. If the ring is dropped with operations in flight, their memory is leaked,
//! never freed under the kernel; to avoid that, serve a stopped ring until it is over.
//!
//! What always holds: each operation's `done` is called once, by whoever serves, or dropped if the
//! operation had not begun when the ring was stopped; operations in flight never outnumber the entries
//! of the queues, so that neither queue can overflow.
//!
//! What it does not do: it does not order, retry or sync. Open the file with O_DSYNC for writes that are
//! durable when they are answered, and with O_DIRECT so that the kernel starts them without a thread.
//!
//! Neither files nor buffers are registered with the kernel. Registered buffers would have to be copied into,
//! or would tie the memory of frames, which their owner keeps as its cache, to a fixed arena; and
//! fio shows no gain that stands out of the noise: at 4 KiB and depth 8, in three interleaved rounds, 7.4
//! to 9.0 us of CPU a write without, 6.4 to 8.2 with registered buffers, 6.6 to 9.4 with a
//! registered file. A registered file would also outlive the ring for a while, and with it its lock.
//! Frames are submitted one by one: a system call is a hundredth of what the kernel does for a write.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem::{ManuallyDrop, take};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use bytes::Bytes;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often an operation is begun again that the kernel gave up for no fault of the device.
const RESTARTS: u8 = 8;

/// How long to wait before what the kernel refused to take is offered again.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What is called with the answer to a write.
pub type WriteDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What is called with the answer to a read, and its memory.
pub type ReadDone = Box<dyn FnOnce(io::Result<Vec<u8>>) + Send>;

/// What a ring wants of whoever serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// To be asked again when its file descriptor is readable.
    Readable,
    /// To be asked again in a moment (some milliseconds): the kernel had no memory for all of it.
    Soon,
    /// Nothing. It was stopped, and nothing is in flight any more.
    Over,
}

/// A ring over one open file.
pub struct Uring {
    ring: IoUring,
    /// Counts up with each answer, and when there is another reason to look.
    wake: OwnedFd,
    file: Arc<File>,
    state: Mutex<State>,
}

struct State {
    /// The operations in flight, by what the kernel knows them as. Leaked if any is left at the end.
    slots: ManuallyDrop<Vec<Option<Operation>>>,
    free: Vec<u32>,
    /// Those that wait for a slot.
    waiting: VecDeque<Operation>,
    /// Something was put into the submission queue that the kernel may not have taken yet.
    owed: bool,
    stopping: bool,
}

struct Operation {
    offset: u64,
    /// How much of it is done.
    done_bytes: usize,
    restarts: u8,
    what: What,
}

enum What {
    Write {
        bytes: Bytes,
        done: WriteDone,
    },
    /// Reads to the end of `memory`, from `from` on.
    Read {
        memory: Vec<u8>,
        from: usize,
        done: ReadDone,
    },
}

impl Uring {
    /// A ring for up to `depth` operations at once; more wait.
    ///
    /// Fails where the kernel has no io_uring (ENOSYS), forbids it (EPERM), has not the operations
    /// that are needed (unsupported), or lacks memory for it.
    pub fn new(file: Arc<File>, depth: usize) -> io::Result<Self> {
        let entries = u32::try_from(depth.clamp(1, 4096)).unwrap_or(4096).next_power_of_two();
        let ring = IoUring::builder().dontfork().build(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Write::CODE) || !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        ring.submitter().register_eventfd(wake.as_raw_fd())?;
        let mut slots = Vec::new();
        slots.resize_with(entries as usize, || None);
        let state = State {
            slots: ManuallyDrop::new(slots),
            free: (0..entries).rev().collect(),
            waiting: VecDeque::new(),
            owed: false,
            stopping: false,
        };
        Ok(Self { ring, wake, file, state: Mutex::new(state) })
    }

    /// Starts to write all of `bytes` at `offset`, before it returns unless the ring is full.
    pub fn write(&self, offset: u64, bytes: Bytes, done: WriteDone) {
        self.start(offset, What::Write { bytes, done });
    }

    /// Starts to fill `memory`, from its byte `from` on, with what the file has at `offset`.
    pub fn read(&self, offset: u64, memory: Vec<u8>, from: usize, done: ReadDone) {
        assert!(from <= memory.len(), "reads end where their memory does");
        self.start(offset, What::Read { memory, from, done });
    }

    /// Begins nothing any more, and drops what has not begun. What has begun is answered.
    pub fn stop(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.stopping = true;
            take(&mut state.waiting)
        };
        self.kick();
        // Outside the lock: what an answer holds may lead back here.
        drop(waiting);
    }

    /// Passes on what the kernel has answered, and gives it what waits. Does not block.
    pub fn answer(&self) -> Next {
        // First, so that what comes from now on makes it readable again. It fails where nothing came.
        let _count = rustix::io::read(&self.wake, &mut [0; 8]);
        let mut answered = Vec::new();
        let over = self.collect(&mut answered);
        let taken = self.submit();
        for (operation, result) in answered {
            operation.answer(result);
        }
        match (over, taken) {
            (true, _) => Next::Over,
            (false, true) => Next::Readable,
            (false, false) => Next::Soon,
        }
    }

    /// The ring as something that a tokio task can wait for, within a runtime that has I/O: readable when
    /// [`Uring::answer`] is to be called.
    pub fn readable(self: Arc<Self>) -> io::Result<AsyncFd<Arc<Self>>> {
        // SAFETY: the descriptor is the ring's own eventfd, always the same; it stays open until the ring
        // is dropped, which the result keeps alive.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Serves the ring until it is over. Blocks.
    pub fn serve(&self) {
        loop {
            let pause = match self.answer() {
                Next::Over => return,
                Next::Soon => Some(&PAUSE),
                Next::Readable => None,
            };
            // Interrupted or not: it looks again.
            let _ready = poll(&mut [PollFd::new(&self.wake, PollFlags::IN)], pause);
        }
    }

    fn start(&self, offset: u64, what: What) {
        let operation = Operation { offset, done_bytes: 0, restarts: 0, what };
        let refused = {
            let mut state = self.state.lock();
            if state.stopping {
                Some(operation)
            } else {
                state.waiting.push_back(operation);
                self.fill(&mut state);
                None
            }
        };
        if refused.is_none() && !self.submit() {
            // Whoever serves tries again.
            self.kick();
        }
    }

    /// Puts into the submission queue what waits, as far as there are slots.
    fn fill(&self, state: &mut State) {
        while !state.waiting.is_empty() {
            let Some(index) = state.free.pop() else { return };
            let Some(operation) = state.waiting.pop_front() else { return };
            state.owed = true;
            let slot = &mut state.slots[index as usize];
            let operation = slot.insert(operation);
            let entry = operation.entry(self.file.as_raw_fd()).user_data(u64::from(index));
            // SAFETY: the lock on the state is held, and this is the only place that makes a submission
            // queue, so no other exists.
            let mut queue = unsafe { self.ring.submission_shared() };
            // SAFETY: the entry's memory is owned by the operation in its slot, neither moves nor is
            // freed (bytes are immutable and shared, a vector in a slot is not touched) until the
            // kernel's answer empties the slot; the file outlives the ring, being in this struct.
            let pushed = unsafe { queue.push(&entry) };
            // There are as many slots as entries, and an entry is taken only with a slot.
            assert!(pushed.is_ok(), "the submission queue has an entry for each slot");
        }
    }

    /// Hands the submission queue to the kernel, if there is anything in it. Whether it took all.
    fn submit(&self) -> bool {
        for _ in 0..RESTARTS {
            {
                let mut state = self.state.lock();
                // SAFETY: the lock on the state is held, so no other submission queue exists.
                let queue = unsafe { self.ring.submission_shared() };
                state.owed &= !queue.is_empty();
                if !state.owed {
                    return true;
                }
            }
            // It may take what another caller has just put there: that one then finds nothing to do.
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Out of memory for now.
                Err(_) => return false,
            }
        }
        false
    }

    /// Makes whoever serves look.
    fn kick(&self) {
        // It can fail only where the counter is about to overflow, at 2^64.
        let _counted = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes the answers in. Whether all is over.
    fn collect(&self, answered: &mut Vec<(Operation, io::Result<()>)>) -> bool {
        let mut state = self.state.lock();
        // SAFETY: the lock on the state is held, and this is the only place that makes a completion
        // queue, so no other exists.
        let queue = unsafe { self.ring.completion_shared() };
        for entry in queue {
            // We gave it a slot's number.
            let index = entry.user_data() as u32;
            let slot = state.slots.get_mut(index as usize).and_then(Option::take);
            let Some(mut operation) = slot else { continue };
            state.free.push(index);
            match operation.settle(entry.result()) {
                Some(result) => answered.push((operation, result)),
                // Before those that never began.
                None => state.waiting.push_front(operation),
            }
        }
        if state.stopping {
            // What came back for another try: it has begun, so it has to be answered.
            for operation in take(&mut state.waiting) {
                answered.push((operation, Err(io::ErrorKind::Interrupted.into())));
            }
        }
        self.fill(&mut state);
        state.stopping && state.free.len() == state.slots.len()
    }
}

impl AsRawFd for Uring {
    /// For waiting only.
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

impl Operation {
    /// What to tell the kernel. It points into the operation's memory.
    fn entry(&mut self, file: RawFd) -> squeue::Entry {
        let offset = self.offset + self.done_bytes as u64;
        match &mut self.what {
            What::Write { bytes, .. } => {
                let rest = &bytes[self.done_bytes..];
                let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                opcode::Write::new(types::Fd(file), rest.as_ptr(), len).offset(offset).build()
            }
            What::Read { memory, from, .. } => {
                let rest = &mut memory[*from + self.done_bytes..];
                let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                opcode::Read::new(types::Fd(file), rest.as_mut_ptr(), len).offset(offset).build()
            }
        }
    }

    /// Takes in what the kernel says. `None` if it has to go on.
    fn settle(&mut self, result: i32) -> Option<io::Result<()>> {
        let Ok(moved) = usize::try_from(result) else {
            // A thread that ends takes its operations with it, before they reach the device.
            let again = matches!(
                Errno::from_raw_os_error(-result),
                Errno::CANCELED | Errno::INTR | Errno::AGAIN
            );
            if again && self.restarts < RESTARTS {
                self.restarts += 1;
                return None;
            }
            return Some(Err(io::Error::from_raw_os_error(-result)));
        };
        self.done_bytes += moved;
        let (wanted, nothing) = match &self.what {
            What::Write { bytes, .. } => (bytes.len(), io::ErrorKind::WriteZero),
            What::Read { memory, from, .. } => (memory.len() - from, io::ErrorKind::UnexpectedEof),
        };
        if self.done_bytes >= wanted {
            return Some(Ok(()));
        }
        (moved == 0).then(|| Err(nothing.into()))
    }

    fn answer(self, result: io::Result<()>) {
        match self.what {
            What::Write { bytes, done } => {
                drop(bytes);
                done(result);
            }
            What::Read { memory, done, .. } => done(result.map(|()| memory)),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.free.len() == self.slots.len() {
            // SAFETY: the vector is not used again, the state being dropped.
            unsafe { ManuallyDrop::drop(&mut self.slots) };
        }
    }
}

#[cfg(test)]
mod tests;
