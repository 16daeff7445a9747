//! A load from many processes: a coordinator leads the run, agents do the work, on this machine or others.
//!
//! ```text
//! run.rs ── Crew::Fleet ── coordinator.rs ═══ TCP, frames of JSON ═══ agent.rs ── Hands ── producers, consumers
//!            (commands)      (door, roster)                            (same as without a fleet)
//! ```
//! The coordinator owns the run: topic, phases, rates, the report. An agent owns clients: those of its [`Share`].
//! Time is the coordinator's everywhere; each agent measures how far its own is off (`clock.rs`).
//!
//! What always holds: nobody takes part who has not shown the token; an agent that says what makes no sense is
//! dropped, as one that is gone; whatever becomes of agents, the run goes on while there is one and tells what
//! was lost; an agent whose coordinator is gone ends by itself.
//!
//! What it does not do: it hides nothing from whoever reads the network between coordinator and agents.
//!
//! [`Share`]: crate::crew::Share

mod agent;
mod clock;
mod coordinator;
mod driver;
mod frame;
mod message;
mod roster;
mod token;

pub(crate) use coordinator::Fleet;
pub(crate) use roster::Roster;

pub use agent::{AgentError, AgentOptions, agent};
pub use coordinator::Coordinator;
pub use driver::{Driver, LocalProcesses};
pub use token::{Token, TokenError};

use std::time::Duration;

/// Whoever says nothing for so long is gone: all speak each second.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
