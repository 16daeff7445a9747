//! Who does the work of a run: producers and consumers, led through its phases by `run.rs`, which does not know
//! where they are.
//!
//! Everything that the crew has done is in its [`Load`]: counts, latencies, what is outstanding. Instants are
//! those of the load's timeline.

mod hands;

pub(crate) use hands::Hands;

use serde::{Deserialize, Serialize};

use crate::client::CallError;

/// Why a crew cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A client could not begin.
    #[error("{0}")]
    Call(#[from] CallError),
    /// A part of the harness has panicked, or ended before its time.
    #[error("{0}")]
    Bug(String),
}

/// Which producers and consumers one process has: of each kind those whose index leaves this remainder. What a
/// client writes depends on its index alone, never on how many processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) part: u32,
    /// More than `part`.
    pub(crate) parts: u32,
}

impl Share {
    /// All of them.
    pub(crate) const ALL: Self = Self { part: 0, parts: 1 };

    pub(crate) fn has(self, index: u32) -> bool {
        index % self.parts == self.part
    }

    /// Those of `count` that are in it.
    pub(crate) fn of(self, count: u32) -> impl Iterator<Item = u32> + Clone {
        (0..count).filter(move |index| self.has(*index))
    }
}

/// What producers have done, at their end.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) written: Vec<crate::verify::Written>,
    /// Records that were due and abandoned.
    pub(crate) abandoned: u64,
    /// Records that were made and not acknowledged.
    pub(crate) unsettled: u64,
    /// Why the first that has ended before its time did.
    pub(crate) failure: Option<String>,
}
