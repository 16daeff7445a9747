//! The storage engine in a simulation: two processes with the product's own writer and reader, volumes on
//! simulated disks, a bucket, a metadata store and clients, on turmoil's network and clock. All that
//! happens follows from a seed, so that whatever is found can be seen again.
//!
//! [`run`] runs one seed. What is broken on purpose is in `director`, what must hold all the same in
//! `check`; `docs/simulation.md` says what is simulated and what is not.
//!
//! It knows the gateway not: requests reach the writer as the gateway's backend makes them.

mod bucket;
mod check;
mod director;
mod history;
mod host;
mod metadata;
mod net;
mod random;
mod run;
mod stage;

pub use history::Summary;
pub use run::run;
