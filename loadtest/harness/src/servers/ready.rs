//! When a server counts as ready: what is asked of it while it starts.

use sluice_wire::Str;

use crate::client::{Connection, Endpoint};
use crate::http;

/// When a server counts as ready.
#[derive(Clone, Debug)]
pub enum Ready {
    /// It answers ApiVersions at this `host:port`.
    Kafka(String),
    /// It answers a GET of this URL with a status below 500.
    Http(String),
}

impl Ready {
    /// Where it is looked.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Kafka(address) => address.clone(),
            Self::Http(url) => url.clone(),
        }
    }

    /// Looks once. The error says what is missing.
    pub(super) async fn look(&self) -> Result<(), String> {
        match self {
            Self::Kafka(address) => {
                let client_id = Str::from_static("loadtest");
                let (address, credentials) = (address.clone(), None);
                let endpoint = Endpoint { address, client_id, credentials };
                Connection::open(endpoint).await.map(drop).map_err(|error| error.to_string())
            }
            Self::Http(url) => match http::get(url).await {
                Ok((status, _)) if status < 500 => Ok(()),
                Ok((status, _)) => Err(format!("{url} answers with status {status}")),
                Err(error) => Err(format!("{url}: {error}")),
            },
        }
    }
}
