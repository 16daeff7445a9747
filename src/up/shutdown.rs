//! How a process learns that it shall end, and how its parts learn that it has.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::time::Instant;

/// A process that ends spends at most this on uploading its tail.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);

/// SIGTERM and Ctrl-C, and the end of everything.
pub(super) struct Shutdown {
    drain: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    /// When the process was told to end.
    told: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    pub(super) fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let drain = watch::Sender::new(false);
        let sender = drain.clone();
        let told = Arc::new(OnceLock::new());
        let tell = Arc::clone(&told);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to end: draining");
            tell.get_or_init(Instant::now);
            sender.send_replace(true);
        });
        Ok(Self { drain, ended: watch::Sender::new(false), told })
    }

    /// What is left of the time for draining, but not all of it is for uploads: the next owner can read
    /// back what stays, and whoever told us to end is waiting.
    pub(super) fn left(&self, drain: Duration) -> Duration {
        let since = self.told.get().map_or(Duration::ZERO, Instant::elapsed);
        drain.saturating_sub(since).min(LONGEST_FLUSH)
    }

    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// Resolves when everything but the operations listener has ended.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            // A sender that is gone means the end, too.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// The same, as a flag.
    pub(super) fn ended_flag(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    pub(super) fn finish(&self) {
        self.ended.send_replace(true);
    }
}
