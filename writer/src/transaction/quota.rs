//! How many producer ids a tenant is given: so many an hour, taken in one go or spread out.

use dashmap::DashMap;
use sluice_model::TenantId;
use tokio::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

/// What each tenant may still take.
pub(crate) struct ProducerIdQuota {
    an_hour: f64,
    /// (left, as of)
    tenants: DashMap<TenantId, (f64, Instant)>,
}

impl ProducerIdQuota {
    pub(crate) fn new(an_hour: u32) -> Self {
        Self { an_hour: f64::from(an_hour), tenants: DashMap::new() }
    }

    /// Takes one if there is one.
    pub(crate) fn take(&self, tenant: TenantId) -> bool {
        let now = Instant::now();
        let mut entry = self.tenants.entry(tenant).or_insert((self.an_hour, now));
        let (left, as_of) = *entry;
        let refilled = (now - as_of).as_secs_f64() / HOUR.as_secs_f64() * self.an_hour;
        let left = (left + refilled).min(self.an_hour);
        let is_there = left >= 1.0;
        *entry = (if is_there { left - 1.0 } else { left }, now);
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ids_come_back_with_time_and_tenants_do_not_share() {
        let quota = ProducerIdQuota::new(2);
        let (one, other) = (TenantId(1), TenantId(2));
        assert!(quota.take(one) && quota.take(one));
        assert!(!quota.take(one));
        assert!(quota.take(other));
        tokio::time::advance(HOUR / 2 + Duration::from_millis(1)).await;
        assert!(quota.take(one));
        assert!(!quota.take(one));
        tokio::time::advance(HOUR * 100).await;
        assert!(quota.take(one) && quota.take(one));
        assert!(!quota.take(one));
    }
}
