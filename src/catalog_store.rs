//! Opens the store of the catalog that the configuration names.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use sluice_catalog::Catalog;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::store::MetadataStore;
use sluice_catalog_etcd::{EtcdOptions, EtcdStore, Tls, User};
use sluice_model::{Entropy, NodeId};

use crate::config::{CatalogStore, Config};

/// The longest file of certificates, keys or passwords that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// An open store.
pub(crate) enum OpenStore {
    Embedded(EmbeddedStore),
    Etcd(EtcdStore),
}

impl OpenStore {
    pub(crate) async fn open(config: &Config, entropy: &Arc<dyn Entropy>) -> anyhow::Result<Self> {
        let dir = config.data_dir.join("catalog");
        match config.catalog.store {
            CatalogStore::Embedded => {
                Ok(Self::Embedded(EmbeddedStore::open(dir, Arc::clone(entropy)).await?))
            }
            CatalogStore::Etcd => {
                // Its volumes are of another cluster than the one in etcd.
                anyhow::ensure!(
                    !dir.exists(),
                    "{} is an embedded catalog, and catalog.store is etcd: use another data_dir, or \
                     catalog.store = embedded",
                    dir.display()
                );
                let store = EtcdStore::new(&etcd_options(config)?)?;
                // What is wrong with etcd is told before anything else is begun.
                store.get("/sluice/cluster").await.context("catalog.store is etcd")?;
                Ok(Self::Etcd(store))
            }
        }
    }

    /// The store, for who reads and writes it.
    pub(crate) fn handle(&self) -> Arc<dyn MetadataStore> {
        match self {
            Self::Embedded(store) => Arc::new(store.clone()),
            Self::Etcd(store) => Arc::new(store.clone()),
        }
    }

    /// One process serves from an etcd prefix, until volumes move between nodes.
    pub(crate) fn check_alone(&self, catalog: &Catalog, node: NodeId) -> anyhow::Result<()> {
        let Self::Etcd(_) = self else { return Ok(()) };
        match catalog.nodes().into_iter().find(|other| other.spec.id != node) {
            Some(other) => anyhow::bail!(
                "node {} is live under this catalog.etcd.prefix, and one process at a time may use it: end \
                 that one and wait until its lease has run out, or set another prefix",
                other.spec.id.0
            ),
            None => Ok(()),
        }
    }

    /// Closes it; no handle may be in use any more.
    pub(crate) async fn close(self) {
        match self {
            Self::Embedded(store) => store.close().await,
            // What etcd has is durable.
            Self::Etcd(store) => drop(store),
        }
    }
}

fn etcd_options(config: &Config) -> anyhow::Result<EtcdOptions> {
    let etcd = &config.catalog.etcd;
    let tls = match &etcd.ca_file {
        Some(path) => Some(Tls {
            authorities: read("catalog.etcd.ca_file", path)?,
            identity: match (&etcd.cert_file, &etcd.key_file) {
                (Some(chain), Some(key)) => Some((
                    read("catalog.etcd.cert_file", chain)?,
                    read("catalog.etcd.key_file", key)?,
                )),
                _ => None,
            },
        }),
        None => None,
    };
    let user = match (&etcd.user, &etcd.password_file) {
        (Some(user), Some(path)) => {
            let password = String::from_utf8(read("catalog.etcd.password_file", path)?);
            // The error would show the password.
            let Ok(password) = password else {
                anyhow::bail!("catalog.etcd.password_file: {} is not UTF-8", path.display());
            };
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            Some(User { name: user.0.clone(), password })
        }
        _ => None,
    };
    Ok(EtcdOptions {
        endpoints: etcd.endpoints.0.clone(),
        prefix: etcd.prefix.0.clone(),
        tls,
        user,
        connect_timeout: etcd.connect_timeout,
        request_timeout: etcd.request_timeout,
    })
}

/// A small file that a key of the configuration names.
pub(crate) fn read(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {} ({key})", path.display());
    let length = std::fs::metadata(path).with_context(cannot)?.len();
    anyhow::ensure!(length <= MAX_FILE_BYTES, "{} is too long ({key})", path.display());
    std::fs::read(path).with_context(cannot)
}
