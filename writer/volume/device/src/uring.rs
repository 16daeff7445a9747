//! One io_uring over one open file: writes and reads that are started by whoever asks for them, and
//! answered by one thread that sleeps in the kernel when there is nothing to answer.
//!
//! Who owns what: an operation's memory belongs to the ring from its start to its answer, whatever
//! becomes of the handle meanwhile. The thread holds the ring until the last answer is in; should it die
//! before, the memory is leaked, never freed under the kernel.
//!
//! What always holds: each operation's `done` is called once, from that thread, or dropped if the
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

/// Enough for answers, which only hand things over.
const STACK_BYTES: usize = 128 * 1024;

/// How often an operation is begun again that the kernel gave up for no fault of the device.
const RESTARTS: u8 = 8;

/// How long to wait before what the kernel refused to take is offered again.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What is called with the answer to a write.
pub type WriteDone = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What is called with the answer to a read, and its memory.
pub type ReadDone = Box<dyn FnOnce(io::Result<Vec<u8>>) + Send>;

/// A handle. Dropping it stops the ring.
pub struct Uring {
    shared: Arc<Shared>,
}

struct Shared {
    ring: IoUring,
    /// Counts up with each answer, and when the thread is to look for another reason.
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
    /// A ring for up to `depth` operations at once; more wait. `ended` is called by its thread when, after
    /// a stop, the last operation is over.
    ///
    /// Fails where the kernel has no io_uring (ENOSYS), forbids it (EPERM), has not the operations
    /// that are needed (unsupported), or lacks memory for it.
    pub fn new(
        file: Arc<File>,
        depth: usize,
        ended: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let entries = u32::try_from(depth.clamp(1, 4096)).unwrap_or(4096).next_power_of_two();
        let ring = IoUring::builder().dontfork().build(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Write::CODE) || !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
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
        let shared = Arc::new(Shared { ring, wake, file, state: Mutex::new(state) });
        let reaper = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("volume-answers".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                reaper.reap();
                ended();
            })?;
        Ok(Self { shared })
    }

    /// Starts to write all of `bytes` at `offset`, before it returns unless the ring is full.
    pub fn write(&self, offset: u64, bytes: Bytes, done: WriteDone) {
        self.shared.start(offset, What::Write { bytes, done });
    }

    /// Starts to fill `memory`, from its byte `from` on, with what the file has at `offset`.
    pub fn read(&self, offset: u64, memory: Vec<u8>, from: usize, done: ReadDone) {
        assert!(from <= memory.len(), "reads end where their memory does");
        self.shared.start(offset, What::Read { memory, from, done });
    }

    /// Begins nothing any more, and drops what has not begun. What has begun is answered.
    pub fn stop(&self) {
        let waiting = {
            let mut state = self.shared.state.lock();
            state.stopping = true;
            take(&mut state.waiting)
        };
        self.shared.kick();
        // Outside the lock: what an answer holds may lead back here.
        drop(waiting);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
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
            // The thread tries again.
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

    /// Makes the thread look.
    fn kick(&self) {
        // It can fail only where the counter is about to overflow, at 2^64.
        let _counted = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// The thread's life: until the end has come and nothing is in flight.
    fn reap(&self) {
        let mut answered = Vec::new();
        let mut taken = true;
        loop {
            self.wait(taken);
            let over = self.collect(&mut answered);
            self.fill(&mut self.state.lock());
            taken = self.submit();
            for (operation, result) in answered.drain(..) {
                operation.answer(result);
            }
            if over {
                return;
            }
        }
    }

    /// Sleeps until there is an answer or a kick; for a moment only if the kernel still has to take
    /// something.
    fn wait(&self, taken: bool) {
        if !taken {
            let mut look = [PollFd::new(&self.wake, PollFlags::IN)];
            if !matches!(poll(&mut look, Some(&PAUSE)), Ok(ready) if ready > 0) {
                return;
            }
        }
        let mut count = [0; 8];
        while rustix::io::read(&self.wake, &mut count) == Err(Errno::INTR) {}
    }

    /// Takes the answers in. Whether all is over.
    fn collect(&self, answered: &mut Vec<(Operation, io::Result<()>)>) -> bool {
        let mut state = self.state.lock();
        // SAFETY: only this function makes a completion queue, and only the one thread calls it.
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
        state.stopping && state.free.len() == state.slots.len()
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
