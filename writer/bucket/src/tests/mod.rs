//! The client over a scripted store, under paused time.

mod classes;
mod policy;
mod scripted;
