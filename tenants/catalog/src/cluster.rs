//! The identity of a cluster, and of the virtual clusters that tenants see.

use std::fmt;

use sluice_model::{Entropy, TenantId};

/// A cluster id as Kafka has them: 128 random bits, written as 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId([u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl ClusterId {
    /// Draws an id. Like Kafka's, it does not begin with a dash, which command lines take for a flag.
    pub fn random(entropy: &dyn Entropy) -> Self {
        loop {
            let id = Self(entropy.random_16());
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (at, digit) in text.bytes().enumerate() {
            let value = ALPHABET.iter().position(|&letter| letter == digit)? as u128;
            // The last digit carries two bits, and four that are zero.
            bits = match at {
                21 if value & 0xf != 0 => return None,
                21 => bits << 2 | value >> 4,
                _ => bits << 6 | value,
            };
        }
        Some(Self(bits.to_be_bytes()))
    }

    /// The id of the virtual cluster that a tenant sees: the cluster's own for the open tenant, and
    /// for others one that is derived from it, so that it is the same on every node for ever. An id is
    /// a name, not a secret.
    #[must_use]
    pub fn of_tenant(self, tenant: TenantId) -> Self {
        if tenant == TenantId::OPEN {
            return self;
        }
        let bits = u128::from_be_bytes(self.0);
        let [high, low] = [(bits >> 64) as u64, bits as u64];
        let first = mix(high ^ mix(u64::from(tenant.0)));
        let second = mix(low ^ first);
        let mut id = Self((u128::from(first) << 64 | u128::from(second)).to_be_bytes());
        if id.to_string().starts_with('-') {
            id.0[0] ^= 0x80;
        }
        id
    }
}

/// The finalizer of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        for at in 0..22u32 {
            let digit = if at == 21 { bits << 4 } else { bits >> (122 - 6 * at) };
            write!(f, "{}", char::from(ALPHABET[(digit & 0x3f) as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_base64url() {
        // Of RFC 4648: 0x00..0x0f and all ones.
        let id = ClusterId(std::array::from_fn(|at| at as u8));
        assert_eq!(id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(ClusterId([0xff; 16]).to_string(), "_____________________w");
        for id in [id, ClusterId([0xff; 16]), ClusterId([0x5a; 16])] {
            assert_eq!(ClusterId::parse(&id.to_string()), Some(id));
        }
        for bad in
            ["", "AAECAwQFBgcICQoLDA0ODx", "AAECAwQFBgcICQoLDA0O+w", "AAECAwQFBgcICQoLDA0ODwA"]
        {
            assert_eq!(ClusterId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn tenants_have_ids_of_their_own() {
        let id = ClusterId([7; 16]);
        assert_eq!(id.of_tenant(TenantId::OPEN), id);
        let ids: std::collections::HashSet<_> =
            (0..10_000).map(|t| id.of_tenant(TenantId(t))).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| !id.to_string().starts_with('-')));
    }
}
