//! What volumes are made of, as the configuration says it.

use std::path::PathBuf;

use sluice_volume::Reservations;

use super::setting::{Bounds, Choice, Refusal, Setting};

/// What new volumes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VolumeMedium {
    /// Files in the data directory.
    File,
    /// Raw devices.
    Block,
    /// Objects in the bucket.
    Object,
}

impl Choice for VolumeMedium {
    const ALL: &[(&str, Self)] =
        &[("file", Self::File), ("block", Self::Block), ("object", Self::Object)];
}

impl Choice for Reservations {
    const ALL: &[(&str, Self)] =
        &[("auto", Self::Auto), ("require", Self::Require), ("off", Self::Off)];
}

/// Paths of device nodes; absolute, none twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices(pub(crate) Vec<PathBuf>);

impl Setting for Devices {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let devices: Vec<_> = names.map(PathBuf::from).collect();
        for (at, device) in devices.iter().enumerate() {
            if !device.is_absolute() || device.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(Refusal::NOT_ALLOWED);
            }
            if devices[..at].contains(device) {
                return Err(Refusal::because(format!("{} is there twice", device.display())));
            }
        }
        self.0 = devices;
        Ok(())
    }

    fn show(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|device| device.display().to_string()).collect();
        names.join(",")
    }

    fn allowed(&self, _: Bounds) -> String {
        "absolute paths with commas between".to_owned()
    }

    fn toml(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| super::setting::toml_string(&self.show()))
    }
}
