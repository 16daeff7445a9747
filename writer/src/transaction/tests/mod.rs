//! The coordinator over a log and marker writers in memory, with time that tests move.

mod coordinator;
mod machine;
