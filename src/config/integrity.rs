//! How the S3 service learns that what it got is what was put, as the configuration says it.

use super::setting::Choice;

/// What goes with each object that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    Crc64Nvme,
    Sha256,
    None,
}

impl Checksum {
    /// As the S3 client calls it.
    pub(crate) fn algorithm(self) -> Option<object_store::aws::Checksum> {
        match self {
            Self::Crc64Nvme => Some(object_store::aws::Checksum::CRC64NVME),
            Self::Sha256 => Some(object_store::aws::Checksum::SHA256),
            Self::None => None,
        }
    }
}

impl Choice for Checksum {
    const ALL: &[(&str, Self)] =
        &[("crc64nvme", Self::Crc64Nvme), ("sha256", Self::Sha256), ("none", Self::None)];
}

/// Whether signatures cover the bodies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignBodies {
    /// Where there is no TLS.
    Auto,
    Always,
    Never,
}

impl Choice for SignBodies {
    const ALL: &[(&str, Self)] =
        &[("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}
