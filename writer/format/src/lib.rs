//! What lies in the bucket: segments, indexes, manifests: pure.
