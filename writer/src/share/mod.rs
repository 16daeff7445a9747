//! Share groups' records (KIP-932).

pub(crate) mod partition;
