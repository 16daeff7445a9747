//! How a volume changes hands, as a model that is explored exhaustively: every order in which the steps of three
//! processes, the catalog, the device and the bucket can follow each other, with crashes, leases that run out,
//! processes that stand still for as long as they like, and requests that arrive long after their sender is gone.
//!
//! It is a model and not the code. So that a reader can check one against the other, each step in [`Step`] names the
//! function that it stands for, and does no more than that function does between two points at which something
//! else can happen. What is checked after each step is in [`rules`]; [`Mutation`]s break one step each, and a
//! test shows that each is found.
//!
//! What it knows not: how a device fences (`writer/volume/src/reserve/model.rs` and `docs/formats.md` argue that), more
//! than one frame in flight, several streams on a volume, retries of producers, compaction. The simulation
//! (`loadtest/sim`) runs all of that, but not in every order.
//!
//! There is no sense of time in it: who is slow and who is dead are the same until the slow one moves. A zombie is
//! a process that takes its next step late.

pub mod explore;
pub mod rules;
pub mod runs;
pub mod steps;
pub mod world;

pub use explore::{Broke, Explored, explore};
pub use rules::Rule;
pub use steps::{Mutation, Step};
pub use world::{Kind, Model, World};
