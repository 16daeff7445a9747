//! The cluster's metadata: topics, placement, nodes, volumes; MetadataStore and its backends.
