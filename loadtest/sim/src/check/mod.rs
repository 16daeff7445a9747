//! The checker: what must hold of everything that was stored, answered and read.
//!
//! Three parts that know nothing of each other. [`BucketCheck`] sees each object that is put or deleted and
//! follows the manifests; [`LogCheck`] sees each answer to a client; [`TransactionCheck`] sees what transactional
//! producers ask for and what consumers of committed records are shown. A breach is told to the history at
//! the moment it is seen, which ends the run.

mod bucket;
mod log;
mod transactions;

pub(crate) use bucket::BucketCheck;
pub(crate) use log::LogCheck;
pub(crate) use transactions::{Maker, Replay, TransactionCheck};
