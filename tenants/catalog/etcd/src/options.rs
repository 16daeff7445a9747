//! What a store is opened with, and what of it is refused before anything is sent.

use std::fmt;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How often a connection with something under way is asked for a sign of life. etcd closes connections
/// that ask more often than every 5 s (`--grpc-keepalive-min-time`).
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// How long the sign of life may take.
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Together with the longest key it stays far below etcd's limit for requests.
const MAX_PREFIX_BYTES: usize = 128;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// URLs of members, `http://HOST:PORT` or `https://HOST:PORT`; all of one etcd cluster, all with TLS or all
    /// without.
    pub endpoints: Vec<String>,
    /// What all keys begin with; begins and ends with a slash. At most 128 bytes.
    pub prefix: String,
    /// For `https`.
    pub tls: Option<Tls>,
    /// Whom etcd knows us as, where it authenticates.
    pub user: Option<User>,
    /// How long a connection to a member may take until it is used.
    pub connect_timeout: Duration,
    /// How long a call may take, with all that is tried in it.
    pub request_timeout: Duration,
}

/// Certificates in PEM.
#[derive(Clone)]
pub struct Tls {
    /// The authorities whose certificates members may have.
    pub authorities: Vec<u8>,
    /// Our certificate chain and its key, where etcd wants one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// A user of etcd.
#[derive(Clone)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password; never shown.
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Options that cannot be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOptions {
    /// There is none.
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    /// Not a URL of a member.
    #[error("{0} is no endpoint of etcd: it must be http://HOST:PORT or https://HOST:PORT")]
    Endpoint(String),
    /// Some with TLS and some without, or TLS without authorities.
    #[error("{0}")]
    Transport(&'static str),
    /// The prefix.
    #[error(
        "{0:?} is no prefix for etcd: it begins and ends with a slash, has names of letters, digits, \
         dots, hyphens and underscores between, and at most 128 bytes"
    )]
    Prefix(String),
    /// The certificates.
    #[error("the certificates for etcd are of no use: {0}")]
    Certificates(String),
}

impl EtcdOptions {
    /// Checks everything; makes what connections are made with, in the order given.
    pub(crate) fn prepare(&self) -> Result<Vec<Endpoint>, InvalidOptions> {
        if !is_prefix(&self.prefix) {
            return Err(InvalidOptions::Prefix(self.prefix.clone()));
        }
        if self.endpoints.is_empty() {
            return Err(InvalidOptions::NoEndpoint);
        }
        let secure = self.endpoints.iter().filter(|url| url.starts_with("https://")).count();
        match (&self.tls, secure) {
            (Some(_), secure) if secure == self.endpoints.len() => {}
            (None, 0) => {}
            (Some(_), _) => {
                return Err(InvalidOptions::Transport(
                    "certificates for etcd are given, so all endpoints must be https://",
                ));
            }
            (None, _) => {
                return Err(InvalidOptions::Transport(
                    "endpoints of etcd with https:// need the certificates of its authorities",
                ));
            }
        }
        self.endpoints.iter().map(|url| self.endpoint(url)).collect()
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, InvalidOptions> {
        let refused = || InvalidOptions::Endpoint(url.to_owned());
        if !is_endpoint(url) {
            return Err(refused());
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| refused())?;
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            // etcd allows pings only while something is under way.
            .keep_alive_while_idle(false);
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let mut config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authorities));
        if let Some((chain, key)) = &tls.identity {
            config = config.identity(Identity::from_pem(chain, key));
        }
        endpoint
            .tls_config(config)
            .map_err(|error| InvalidOptions::Certificates(crate::failure::chain(&error)))
    }
}

/// Whether keys may begin with it: names between slashes, at most 128 bytes.
pub fn is_prefix(prefix: &str) -> bool {
    let names = prefix.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    prefix.len() <= MAX_PREFIX_BYTES
        && names.is_some_and(|names| {
            names.split('/').all(|name| !name.is_empty() && name.bytes().all(plain))
        })
}

/// Whether it is the URL of a member: a scheme, a host and a port, and nothing else; what is behind them
/// would be ignored, and may be a secret that does not belong there.
pub fn is_endpoint(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.and_then(|rest| rest.rsplit_once(':')).is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte))
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EtcdOptions {
        EtcdOptions {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/sluice/main/".to_owned(),
            tls: None,
            user: None,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        assert_eq!(options().prepare().map(|endpoints| endpoints.len()).ok(), Some(1));
        for prefix in
            ["", "/", "//", "/a", "a/", "/a//b/", "/a b/", &format!("/{}/", "x".repeat(127))]
        {
            let options = EtcdOptions { prefix: prefix.to_owned(), ..options() };
            assert!(matches!(options.prepare(), Err(InvalidOptions::Prefix(_))), "{prefix:?}");
        }
        for url in [
            "",
            "etcd",
            "127.0.0.1:2379",
            "http://:1",
            "http://a",
            "http://a:0",
            "http://u:p@a:1",
            "http://a:1/x",
        ] {
            let options = EtcdOptions { endpoints: vec![url.to_owned()], ..options() };
            assert!(matches!(options.prepare(), Err(InvalidOptions::Endpoint(_))), "{url:?}");
        }
        let none = EtcdOptions { endpoints: Vec::new(), ..options() };
        assert_eq!(none.prepare().err(), Some(InvalidOptions::NoEndpoint));
        let without = EtcdOptions { endpoints: vec!["https://a:1".to_owned()], ..options() };
        assert!(matches!(without.prepare(), Err(InvalidOptions::Transport(_))));
        let tls = Some(Tls { authorities: b"no PEM".to_vec(), identity: None });
        let plain = EtcdOptions { tls, ..options() };
        assert!(matches!(plain.prepare(), Err(InvalidOptions::Transport(_))));
    }

    #[test]
    fn secrets_are_not_shown() {
        let user = Some(User { name: "sluice".to_owned(), password: "tiger".to_owned() });
        let identity = Some((b"chain".to_vec(), b"tiger".to_vec()));
        let tls = Some(Tls { authorities: Vec::new(), identity });
        let shown = format!("{:?}", EtcdOptions { user, tls, ..options() });
        assert!(shown.contains("sluice") && !shown.contains("tiger"), "{shown}");
    }
}
