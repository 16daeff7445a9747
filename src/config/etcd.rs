//! Where the catalog is, as the configuration says it.

use super::setting::{Blank, Bounds, Choice, Refusal, Setting, toml_string};

/// What keeps the cluster's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CatalogStore {
    /// A log in the data directory.
    Embedded,
    /// An etcd.
    Etcd,
}

impl Choice for CatalogStore {
    const ALL: &[(&str, Self)] = &[("embedded", Self::Embedded), ("etcd", Self::Etcd)];
}

/// URLs of etcd's members; none twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints(pub(crate) Vec<String>);

impl Endpoints {
    /// Whether all lead to this machine itself.
    pub(crate) fn are_local(&self) -> bool {
        self.0.iter().all(|url| {
            let host = url.split_once("//").and_then(|(_, rest)| rest.rsplit_once(':'));
            host.is_some_and(|(host, _)| {
                host == "localhost" || host == "[::1]" || host.starts_with("127.")
            })
        })
    }

    /// Whether any is spoken to with TLS.
    pub(crate) fn any_secure(&self) -> bool {
        self.0.iter().any(|url| url.starts_with("https://"))
    }

    /// Whether any is spoken to without TLS.
    pub(crate) fn any_plain(&self) -> bool {
        self.0.iter().any(|url| url.starts_with("http://"))
    }
}

impl Setting for Endpoints {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        if text.contains('@') {
            return Err(Refusal::secret(
                "holds an @, as URLs with credentials do: set catalog.etcd.user and \
                 catalog.etcd.password_file instead",
            ));
        }
        let urls = text.split(',').map(str::trim).filter(|url| !url.is_empty());
        let urls: Vec<_> = urls.map(|url| url.trim_end_matches('/').to_owned()).collect();
        for (at, url) in urls.iter().enumerate() {
            if !sluice_catalog_etcd::is_endpoint(url) {
                return Err(Refusal::NOT_ALLOWED);
            }
            if urls[..at].contains(url) {
                return Err(Refusal::because(format!("{url} is there twice")));
            }
        }
        self.0 = urls;
        Ok(())
    }

    fn show(&self) -> String {
        self.0.join(",")
    }

    fn allowed(&self, _: Bounds) -> String {
        "URLs with commas between, such as http://10.0.0.1:2379,http://10.0.0.2:2379".to_owned()
    }

    fn toml(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| toml_string(&self.show()))
    }
}

/// What all of a cluster's keys in etcd begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EtcdPrefix(pub(crate) String);

impl Setting for EtcdPrefix {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        if !sluice_catalog_etcd::is_prefix(text) {
            return Err(Refusal::NOT_ALLOWED);
        }
        self.0 = text.to_owned();
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn allowed(&self, _: Bounds) -> String {
        "names between slashes, such as /sluice/production/".to_owned()
    }
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserName(pub(crate) String);

impl Blank for UserName {
    fn blank() -> Self {
        Self(String::new())
    }
}

impl Setting for UserName {
    fn set(&mut self, text: &str, _: Bounds) -> Result<(), Refusal> {
        if text.contains(':') {
            return Err(Refusal::secret(
                "holds a colon, as a user with a password does: set catalog.etcd.password_file",
            ));
        }
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(Refusal::NOT_ALLOWED);
        }
        self.0 = text.to_owned();
        Ok(())
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn allowed(&self, _: Bounds) -> String {
        "a user's name".to_owned()
    }
}
