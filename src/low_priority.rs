//! Threads for work that must never slow producers down: reading from the bucket for consumers that
//! catch up, checking what came, and reading ahead. They run at a lower priority than the threads of
//! the foreground, so that the kernel gives them what those leave; where the foreground leaves nothing,
//! they still get about a tenth.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle, Runtime};

/// Kernel's nice value of the threads.
const NICENESS: i32 = 10;
/// Threads that wait for reads of a bucket that is a directory.
const MAX_BLOCKING: usize = 32;

/// A runtime of its own. Its tasks end with it.
pub(crate) struct LowPriority(Option<Runtime>);

impl LowPriority {
    /// Starts as many threads as there are processors. A thread whose priority cannot be lowered (it
    /// always can, on Linux) works all the same.
    pub(crate) fn start() -> std::io::Result<Self> {
        let count = AtomicUsize::new(0);
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .max_blocking_threads(MAX_BLOCKING)
            .thread_name_fn(move || format!("low-{}", count.fetch_add(1, Ordering::Relaxed)))
            .on_thread_start(|| {
                // No process named: the calling thread alone, on Linux.
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::warn!(%error, "a thread's priority cannot be lowered");
                }
            })
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Where to spawn.
    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for LowPriority {
    fn drop(&mut self) {
        // Dropped within a runtime, which must not wait for another one to end.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_threads_have_a_lower_priority_and_ours_do_not() {
        let low = LowPriority::start().unwrap();
        let of_this_thread = || rustix::process::getpriority_process(None).unwrap();
        let before = of_this_thread();
        let task = low.handle().spawn(async move {
            let blocking = tokio::task::spawn_blocking(of_this_thread).await.unwrap();
            (of_this_thread(), blocking)
        });
        assert_eq!(task.await.unwrap(), (NICENESS, NICENESS));
        assert_eq!(of_this_thread(), before);
    }
}
