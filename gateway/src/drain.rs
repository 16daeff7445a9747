//! How sessions learn that the gateway is going: one flag for all, and each session's waker, which
//! costs an idle connection one small slot and no timer or channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// Tells the sessions of one listener to finish. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    begun: AtomicBool,
    listeners: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// A session's slot; it is given back on drop.
#[derive(Debug)]
pub(crate) struct Watch {
    drain: Drain,
    slot: usize,
}

impl Drain {
    /// Sessions take no more requests from now on.
    pub(crate) fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        let wakers = self.0.listeners.lock().wakers.clone();
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Whether sessions are to finish.
    pub(crate) fn begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Has `waker` woken when draining begins. A caller asks [`Self::begun`] after this.
    pub(crate) fn watch(&self, waker: Waker) -> Watch {
        let mut slots = self.0.listeners.lock();
        let slot = match slots.free.pop() {
            Some(slot) => slot,
            None => {
                slots.wakers.push(None);
                slots.wakers.len() - 1
            }
        };
        slots.wakers[slot] = Some(waker);
        Watch { drain: self.clone(), slot }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut slots = self.drain.0.listeners.lock();
        slots.wakers[self.slot] = None;
        slots.free.push(self.slot);
    }
}
