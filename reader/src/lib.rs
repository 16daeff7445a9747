//! Reads over the bucket: plan, coalesce, cache.
