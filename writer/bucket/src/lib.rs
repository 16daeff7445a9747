//! The client of the bucket that everybody in a process shares.
