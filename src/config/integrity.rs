//! How the S3 service learns that what it got is what was put, as the configuration says it.

use super::setting::{Bounds, Refusal, Setting};

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

impl Setting for Checksum {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        *self = match text {
            "crc64nvme" => Self::Crc64Nvme,
            "sha256" => Self::Sha256,
            "none" => Self::None,
            _ => return Err(Refusal::NOT_ALLOWED),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Crc64Nvme => "crc64nvme",
            Self::Sha256 => "sha256",
            Self::None => "none",
        }
        .to_owned()
    }

    fn allowed(&self, _: Bounds) -> String {
        "crc64nvme, sha256 or none".to_owned()
    }
}

/// Whether signatures cover the bodies of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignBodies {
    /// Where there is no TLS.
    Auto,
    Always,
    Never,
}

impl Setting for SignBodies {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        *self = match text {
            "auto" => Self::Auto,
            "always" => Self::Always,
            "never" => Self::Never,
            _ => return Err(Refusal::NOT_ALLOWED),
        };
        Ok(())
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
        .to_owned()
    }

    fn allowed(&self, _: Bounds) -> String {
        "auto, always or never".to_owned()
    }
}
