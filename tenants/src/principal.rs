//! Who a connection is.

use std::fmt;
use std::sync::Arc;

use sluice_model::TenantId;

/// A Kafka principal such as `User:alice`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The user of that name.
    pub fn user(name: &str) -> Self {
        Self(format!("User:{name}").into())
    }

    /// Who has not said who they are: Kafka's `User:ANONYMOUS`.
    pub fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// The text form, type and name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the type.
    pub fn name(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, name)| name)
    }
}

impl From<Principal> for Arc<str> {
    fn from(principal: Principal) -> Self {
        principal.0
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.0)
    }
}

/// Whose cluster a connection sees, and who it is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The tenant.
    pub tenant: TenantId,
    /// The principal, within the tenant.
    pub principal: Principal,
}

impl Identity {
    /// Anybody, in the open tenant.
    pub fn open() -> Self {
        Self { tenant: TenantId::OPEN, principal: Principal::anonymous() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_have_kafkas_form() {
        assert_eq!(Principal::anonymous().to_string(), "User:ANONYMOUS");
        let odd = Principal::user("CN=a:b,O=c");
        assert_eq!((odd.as_str(), odd.name()), ("User:CN=a:b,O=c", "CN=a:b,O=c"));
        assert_eq!(&*Arc::<str>::from(Principal::user("")), "User:");
    }
}
