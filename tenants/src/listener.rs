//! How a listener tells who its connections are.

use std::net::{IpAddr, SocketAddr};

use crate::principal::Identity;

/// Whether connections may come from other machines without saying who they are: the config key
/// `kafka.allow_unauthenticated_remote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteAccess {
    /// They may not; the listener stays on loopback.
    Refuse,
    /// They may: something else guards the port.
    Allow,
}

/// A listener that would let other machines in unauthenticated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from other machines and nobody is authenticated there; listen on a \
     loopback address such as 127.0.0.1, or set kafka.allow_unauthenticated_remote to true if \
     something else guards the port"
)]
pub struct UnauthenticatedRemote {
    /// Where it would listen.
    pub address: SocketAddr,
}

/// What is known of a connection when it is asked who it is.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
}

/// Why a connection is closed before anything is read from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It comes from another machine, to a listener that is meant for this one: forwarded ports and
    /// routed loopback addresses reach those too.
    #[error("connections from other machines are not let in unauthenticated")]
    Remote,
}

/// How a listener tells who its connections are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerPolicy {
    /// Everybody who may connect is this identity; nothing is asked.
    Unauthenticated {
        /// Who everybody is.
        identity: Identity,
        /// From where one may connect.
        remote: RemoteAccess,
    },
}

impl ListenerPolicy {
    /// A listener on `address` on which everybody is `identity`, which is [`Identity::open`] unless a
    /// tenant has a port of its own. Refused on an address that other machines can reach, unless
    /// `remote` allows it.
    pub fn unauthenticated(
        identity: Identity,
        address: SocketAddr,
        remote: RemoteAccess,
    ) -> Result<Self, UnauthenticatedRemote> {
        if !on_loopback(address.ip()) && remote == RemoteAccess::Refuse {
            return Err(UnauthenticatedRemote { address });
        }
        Ok(Self::Unauthenticated { identity, remote })
    }

    /// Who a connection is when it begins.
    pub fn identify(&self, connection: &Connection) -> Result<Identity, Refused> {
        match self {
            Self::Unauthenticated { remote: RemoteAccess::Refuse, .. }
                if !on_loopback(connection.peer.ip()) =>
            {
                Err(Refused::Remote)
            }
            Self::Unauthenticated { identity, .. } => Ok(identity.clone()),
        }
    }
}

/// Also for IPv4 addresses in the form of IPv6. The unspecified address is every interface.
fn on_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::Principal;
    use sluice_model::TenantId;

    fn policy(
        address: &str,
        remote: RemoteAccess,
    ) -> Result<ListenerPolicy, UnauthenticatedRemote> {
        ListenerPolicy::unauthenticated(Identity::open(), address.parse().unwrap(), remote)
    }

    #[test]
    fn the_open_tenant_is_on_loopback_unless_told_otherwise() {
        for local in ["127.0.0.1:9092", "127.8.9.1:1", "[::1]:9092", "[::ffff:127.0.0.1]:9092"] {
            assert!(policy(local, RemoteAccess::Refuse).is_ok(), "{local}");
        }
        for remote in
            ["0.0.0.0:9092", "[::]:9092", "10.0.0.1:9092", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"]
        {
            let refused = policy(remote, RemoteAccess::Refuse).unwrap_err().to_string();
            assert!(refused.starts_with(remote), "{refused}");
            assert!(
                refused.contains("set kafka.allow_unauthenticated_remote to true"),
                "{refused}"
            );
            assert!(policy(remote, RemoteAccess::Allow).is_ok(), "{remote}");
        }
    }

    #[test]
    fn everybody_who_may_connect_is_the_listeners_identity() {
        let identity = Identity { tenant: TenantId(7), principal: Principal::user("edge") };
        let from = |peer: &str| Connection { peer: peer.parse().unwrap() };
        let policy = |remote| {
            let address = "127.0.0.1:0".parse().unwrap();
            ListenerPolicy::unauthenticated(identity.clone(), address, remote).unwrap()
        };
        let local = policy(RemoteAccess::Refuse);
        assert_eq!(local.identify(&from("127.0.0.1:5000")), Ok(identity.clone()));
        assert_eq!(local.identify(&from("[::ffff:127.0.0.1]:5000")), Ok(identity.clone()));
        assert_eq!(local.identify(&from("10.0.0.1:5000")), Err(Refused::Remote));
        let open = policy(RemoteAccess::Allow);
        assert_eq!(open.identify(&from("10.0.0.1:5000")), Ok(identity));
    }
}
