//! Mutual TLS between nodes: who has a certificate of the cluster's authority is a node.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Socket;

/// What the files of the configuration hold that is wrong.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    /// Not PEM, or nothing of the kind in it.
    #[error("{what}: {why}")]
    Pem {
        /// Which of them.
        what: &'static str,
        /// What the parser says.
        why: String,
    },
    /// Certificates and key do not go together, or are not usable.
    #[error("the certificates between nodes cannot be used: {0}")]
    Unusable(String),
}

/// The certificates of this node, for both directions. Cheap to clone.
#[derive(Clone)]
pub struct PeerTls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerTls")
    }
}

impl PeerTls {
    /// From PEM: the authorities of the cluster's nodes, this node's certificate with what it was signed by, and its
    /// private key. The certificate is shown both to those that connect and to those that are connected to.
    ///
    /// # Errors
    /// When one of them does not parse, or they do not fit together.
    pub fn new(authorities: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, PeerTlsError> {
        let unusable = |error: &dyn std::fmt::Display| PeerTlsError::Unusable(error.to_string());
        let mut roots = RootCertStore::empty();
        for authority in certificates("the authorities", authorities)? {
            roots.add(authority).map_err(|error| unusable(&error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates("the certificate", chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| PeerTlsError::Pem { what: "the key", why: error.to_string() })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(&error))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|error| unusable(&error))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// The side that was connected to.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<Box<dyn Socket>> {
        Ok(Box::new(self.acceptor.accept(stream).await?))
    }

    /// The side that connects, to whom the certificate of the other names `host`.
    pub(super) async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> std::io::Result<Box<dyn Socket>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        Ok(Box::new(self.connector.connect(name, stream).await?))
    }
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PeerTlsError> {
    let bad = |why: String| PeerTlsError::Pem { what, why };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        return Err(bad("there is no certificate in it".to_owned()));
    }
    Ok(found)
}
