//! Several nodes in one process, over one store and one bucket.

mod failover;
mod moves;
mod rig;
mod shared_files;
