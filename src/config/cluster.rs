//! What a process is in a cluster, as the configuration says it.

use sluice_catalog::Roles;

use super::setting::{Blank, Bounds, Choice, Refusal, Setting, toml_string};

/// Whose metadata service says that a machine will be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeFrom {
    /// Nobody's.
    Nobody,
    /// Amazon Web Services.
    Aws,
    /// Alibaba Cloud.
    Alibaba,
}

impl Choice for NoticeFrom {
    const ALL: &[(&str, Self)] =
        &[("none", Self::Nobody), ("aws", Self::Aws), ("alibaba", Self::Alibaba)];
}

/// What a process does; at least one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleSet(pub(crate) Roles);

impl Setting for RoleSet {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let mut roles = Roles { gateway: false, writer: false };
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "gateway" => roles.gateway = true,
                "writer" => roles.writer = true,
                _ => return Err(Refusal::NOT_ALLOWED),
            }
        }
        if !(roles.gateway || roles.writer) {
            return Err(Refusal::NOT_ALLOWED);
        }
        self.0 = roles;
        Ok(())
    }

    fn show(&self) -> String {
        let Roles { gateway, writer } = self.0;
        let named = [("gateway", gateway), ("writer", writer)];
        let names: Vec<_> = named.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        names.join(",")
    }

    fn allowed(&self, _: Bounds) -> String {
        "one or both of gateway and writer, with a comma between".to_owned()
    }

    fn toml(&self) -> Option<String> {
        Some(toml_string(&self.show()))
    }
}

/// The name of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone(pub(crate) String);

impl Blank for Zone {
    fn blank() -> Self {
        Self(String::new())
    }
}

impl Setting for Zone {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 100 || !text.chars().all(is_name) {
            return Err(Refusal::NOT_ALLOWED);
        }
        self.0 = text.to_owned();
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn allowed(&self, _: Bounds) -> String {
        "letters, digits, dots, dashes and underscores, such as eu-west-1a".to_owned()
    }
}
