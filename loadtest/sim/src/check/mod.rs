//! The checker: what must hold of everything that was stored, answered and read.
//!
//! Two parts that know nothing of each other. [`BucketCheck`] sees each object that is put or deleted and
//! follows the manifests; [`LogCheck`] sees each answer to a client. A breach is told to the history at
//! the moment it is seen, which ends the run.

mod bucket;
mod log;

pub(crate) use bucket::BucketCheck;
pub(crate) use log::LogCheck;
