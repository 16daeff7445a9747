//! Who gets a connection: a bound over all, and one for each peer address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Limits, counted_address};

/// The count of open connections, shared by all listeners of a gateway.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    max_per_ip: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Only addresses with at least one connection.
    by_ip: HashMap<IpAddr, usize>,
}

/// The right to one connection; dropping gives it back.
#[derive(Debug)]
pub(crate) struct Admitted {
    shared: Arc<Shared>,
    address: IpAddr,
}

/// Why a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The gateway is full.
    #[error("too many connections")]
    Full,
    /// The peer has too many.
    #[error("too many connections from this address")]
    FullForAddress,
    /// The listener's policy lets nobody in from there.
    #[error(transparent)]
    Policy(#[from] sluice_tenants::Refused),
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Shared {
            max: limits.max_connections,
            max_per_ip: limits.max_connections_per_ip,
            open: Mutex::default(),
        }))
    }

    /// Counts a connection in, or says why not.
    pub(crate) fn admit(&self, peer: IpAddr) -> Result<Admitted, Refusal> {
        let address = counted_address(peer);
        let mut open = self.0.open.lock();
        if open.all >= self.0.max {
            return Err(Refusal::Full);
        }
        if open.by_ip.get(&address).is_some_and(|count| *count >= self.0.max_per_ip) {
            return Err(Refusal::FullForAddress);
        }
        open.all += 1;
        *open.by_ip.entry(address).or_default() += 1;
        Ok(Admitted { shared: Arc::clone(&self.0), address })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        open.all -= 1;
        if let Some(count) = open.by_ip.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_ip.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_places_come_back() {
        let limits = Limits { max_connections: 3, max_connections_per_ip: 2, ..Limits::default() };
        let admission = Admission::new(&limits);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()];
        let c = "2001:db8::1".parse().unwrap();
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(b).unwrap();
        assert_eq!(admission.admit(a).unwrap_err(), Refusal::FullForAddress);
        let _third = admission.admit(c).unwrap();
        assert_eq!(admission.admit(c).unwrap_err(), Refusal::Full);
        drop(first);
        assert!(admission.admit("2001:db8::2".parse().unwrap()).is_ok());
        assert_eq!(admission.0.open.lock().by_ip.len(), 2);
    }
}
