//! etcd's messages, made by `proto/generate`; not to be edited.

#![expect(
    unreachable_pub,
    clippy::enum_variant_names,
    reason = "the generator makes everything public, with etcd's names"
)]

/// What is stored and watched.
pub(crate) mod mvccpb {
    include!("proto/mvccpb.rs");
}

/// Requests and answers.
pub(crate) mod etcdserverpb {
    include!("proto/etcdserverpb.rs");
}
