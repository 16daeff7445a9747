//! Partition owners: sequencing, coordinators, upload, tail cache.
