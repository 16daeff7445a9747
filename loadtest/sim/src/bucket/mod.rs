//! The bucket: a strongly consistent object store on a host of its own, and the client that the
//! product's code has of it.

mod client;
mod server;

pub(crate) use client::BucketClient;
pub(crate) use server::{BucketFaults, BucketServer};

use bytes::Bytes;
use object_store::GetRange;

use crate::net::Service;

/// The host's name.
pub(crate) const HOST: &str = "bucket";

/// What travels to the bucket and back.
pub(crate) type BucketService = Service<Ask, Answer>;

#[derive(Debug)]
pub(crate) enum Ask {
    Put { key: String, bytes: Bytes, create: bool },
    Get { key: String, range: Option<GetRange>, head: bool },
    Delete { key: String },
    List { prefix: String },
}

/// An object without its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) etag: u64,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Done {
        etag: u64,
    },
    Exists,
    Missing,
    BadRange,
    Object {
        listed: Listed,
        start: u64,
        bytes: Bytes,
    },
    Listing(Vec<Listed>),
    /// 503: nothing was done.
    Busy,
    /// 500 after it was done: the caller cannot know.
    Broken,
}
