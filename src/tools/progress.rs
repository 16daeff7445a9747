//! A line on stderr that says how far a tool is; on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

const AT_MOST_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), last: None }
    }

    /// Shows the line that `line` makes, if the last one has stood for a while.
    pub(super) fn show(&mut self, line: impl FnOnce() -> String) {
        if self.shown && self.last.is_none_or(|last| last.elapsed() >= AT_MOST_EVERY) {
            self.last = Some(Instant::now());
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K{}", line()).and_then(|()| stderr.flush());
        }
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
