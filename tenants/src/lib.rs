//! Who may do what, and how much: listener policy, identities, principals.
//!
//! A connection becomes an [`Identity`] in one place, [`ListenerPolicy::identify`], from what is known
//! of the connection; everything behind it is told the identity and asks nothing further. What tenants
//! there are and what they own is the catalog's.

mod listener;
mod principal;

pub use listener::{Connection, ListenerPolicy, Refused, RemoteAccess, UnauthenticatedRemote};
pub use principal::{Identity, Principal};
