//! What volumes need of the kernel that no safe crate offers. The only crate of the workspace with unsafe
//! code: small, and each unsafe block says why it is sound.

pub mod reservation;
mod uring;

pub use uring::{Next, ReadDone, Uring, WriteDone};
