//! The clients that push metrics, by tenant: what each was told to push and when it last came. Pure; the
//! clock and the subscriptions are brought along.
//!
//! As in Kafka (`ClientMetricsManager`) this is a node's memory and nobody's truth: a client that another
//! node, or this one before a restart, has told what to push is known again by its next request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_model::TenantId;
use sluice_model::client_metrics::{
    ALL_METRICS, ClientFacts, DEFAULT_INTERVAL_MS, MetricsSubscription,
};
use sluice_wire::{ErrorCode, Uuid};
use tokio::time::Instant;

/// The largest push, compressed; Kafka's default of `telemetry.max.bytes`.
pub(super) const MAX_PUSH_BYTES: usize = 1 << 20;
/// A client is forgotten at the earliest after this time, and after three of its intervals.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// How many clients are remembered; the one that was silent for the longest gives way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) of_tenant: usize,
    pub(super) of_all: usize,
}

impl Default for Bounds {
    /// For a node, Kafka's number.
    fn default() -> Self {
        Self { of_tenant: 4_096, of_all: 16_384 }
    }
}

/// What one client is to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Changes with all below.
    pub(super) subscription_id: i32,
    /// Prefixes, sorted; [`ALL_METRICS`] alone for all.
    pub(super) metrics: Vec<String>,
    pub(super) interval: Duration,
}

impl Assignment {
    /// All subscriptions that mean this client, taken together: the shortest interval, every metric.
    fn of(id: Uuid, client: &ClientFacts, subscriptions: &[Arc<MetricsSubscription>]) -> Self {
        let mut interval_ms = DEFAULT_INTERVAL_MS;
        let mut metrics: Vec<&String> = Vec::new();
        for subscription in subscriptions.iter().filter(|s| s.matches(client)) {
            interval_ms = interval_ms.min(subscription.interval_ms);
            metrics.extend(&subscription.metrics);
        }
        metrics.sort_unstable();
        metrics.dedup();
        let metrics: Vec<String> = match metrics.iter().any(|metric| *metric == ALL_METRICS) {
            true => vec![ALL_METRICS.to_owned()],
            false => metrics.into_iter().cloned().collect(),
        };
        let mut hash = Fnv::default();
        for metric in &metrics {
            hash.write(metric.as_bytes());
            hash.write(&[0]);
        }
        hash.write(&interval_ms.to_be_bytes());
        hash.write(&id.0);
        let interval = Duration::from_millis(u64::from(interval_ms.unsigned_abs()));
        Self { subscription_id: hash.0.cast_signed(), metrics, interval }
    }

    /// Whether a metric was asked for.
    pub(super) fn wants(&self, metric: &str) -> bool {
        self.metrics
            .iter()
            .any(|prefix| prefix == ALL_METRICS || metric.starts_with(prefix.as_str()))
    }
}

/// FNV-1a: the same on every node and in every version.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// Who asks, and what its tenant wants.
pub(super) struct Caller<'a> {
    pub(super) tenant: TenantId,
    pub(super) instance: Uuid,
    pub(super) facts: &'a ClientFacts,
    pub(super) subscriptions: &'a [Arc<MetricsSubscription>],
}

/// The outside of a push.
#[derive(Clone, Copy, Debug)]
pub(super) struct Push {
    pub(super) subscription_id: i32,
    pub(super) terminating: bool,
    pub(super) compression_type: i8,
    pub(super) bytes: usize,
}

#[derive(Debug)]
struct Instance {
    /// As they were when the client was first seen.
    facts: ClientFacts,
    assignment: Arc<Assignment>,
    last_get: Option<Instant>,
    last_push: Option<Instant>,
    /// It has asked what to push since its last push.
    told: bool,
    terminating: bool,
    /// Its last push was refused in a way that makes it ask what to push.
    asks_again: bool,
    seen: Instant,
}

impl Instance {
    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.seen) > FORGET_AFTER.max(self.assignment.interval * 3)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Instances {
    bounds: Bounds,
    tenants: HashMap<TenantId, HashMap<Uuid, Instance>>,
    count: usize,
}

impl Instances {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    #[cfg(test)]
    fn bounded(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// GetTelemetrySubscriptions.
    pub(super) fn get(
        &mut self,
        now: Instant,
        caller: &Caller<'_>,
    ) -> Result<Arc<Assignment>, ErrorCode> {
        let instance = self.instance(now, caller);
        let last = instance.last_get.max(instance.last_push);
        let due = last.is_none_or(|last| now.duration_since(last) >= instance.assignment.interval);
        // Who was sent here by an error is answered (KIP-714; Kafka means to, and throttles it as well).
        if !due && !instance.asks_again {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        instance.asks_again = false;
        instance.told = true;
        instance.last_get = Some(now);
        Ok(Arc::clone(&instance.assignment))
    }

    /// PushTelemetry, as far as its content is not looked at.
    pub(super) fn push(
        &mut self,
        now: Instant,
        caller: &Caller<'_>,
        push: Push,
    ) -> Result<Arc<Assignment>, ErrorCode> {
        let instance = self.instance(now, caller);
        let result = instance.push(now, push);
        instance.asks_again = matches!(
            result,
            Err(ErrorCode::UnknownSubscriptionId | ErrorCode::UnsupportedCompressionType)
        );
        instance.terminating = push.terminating;
        result
    }

    /// The client, made anew if it is not known or is to push something else from now on.
    fn instance(&mut self, now: Instant, caller: &Caller<'_>) -> &mut Instance {
        let Caller { tenant, instance: id, .. } = *caller;
        let known = self.tenants.get(&tenant).and_then(|clients| clients.get(&id));
        let facts = known.map_or(caller.facts, |known| &known.facts);
        let assignment = Assignment::of(id, facts, caller.subscriptions);
        let changed = known.is_none_or(|known| *known.assignment != assignment);
        let facts = changed.then(|| facts.clone());
        if known.is_none() {
            self.make_room(now, tenant);
            self.count += 1;
        }
        let clients = self.tenants.entry(tenant).or_default();
        if let Some(facts) = facts {
            let fresh = Instance {
                facts,
                assignment: Arc::new(assignment),
                last_get: None,
                last_push: None,
                told: false,
                terminating: false,
                asks_again: false,
                seen: now,
            };
            clients.insert(id, fresh);
        }
        let instance = clients.get_mut(&id).expect("it was known or has just been put there");
        instance.seen = now;
        instance
    }

    fn make_room(&mut self, now: Instant, tenant: TenantId) {
        if self.tenants.get(&tenant).is_some_and(|own| own.len() >= self.bounds.of_tenant) {
            self.evict(now, tenant);
        }
        if self.count >= self.bounds.of_all {
            let largest = self.tenants.iter().max_by_key(|(_, clients)| clients.len());
            if let Some(largest) = largest.map(|(tenant, _)| *tenant) {
                self.evict(now, largest);
            }
        }
    }

    /// Forgets a tenant's clients that are over, or else the one that was silent for the longest.
    fn evict(&mut self, now: Instant, tenant: TenantId) {
        let Some(clients) = self.tenants.get_mut(&tenant) else { return };
        let before = clients.len();
        clients.retain(|_, client| !client.is_over(now));
        if clients.len() == before {
            let oldest = clients.iter().min_by_key(|(_, client)| client.seen);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                clients.remove(&oldest);
            }
        }
        self.count -= before - clients.len();
        if clients.is_empty() {
            self.tenants.remove(&tenant);
        }
    }
}

impl Instance {
    /// Kafka's checks in Kafka's order; a push that is in time counts even if it is refused.
    fn push(&mut self, now: Instant, push: Push) -> Result<Arc<Assignment>, ErrorCode> {
        if self.terminating {
            return Err(ErrorCode::InvalidRequest);
        }
        // The first push after a Get may come at any time: clients spread it.
        let told = std::mem::take(&mut self.told);
        let interval = self.assignment.interval;
        let due = self.last_push.is_none_or(|last| now.duration_since(last) >= interval);
        if told || due {
            self.last_push = Some(now);
        } else if !push.terminating {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        if push.subscription_id != self.assignment.subscription_id {
            return Err(ErrorCode::UnknownSubscriptionId);
        }
        if !(0..=4).contains(&push.compression_type) {
            return Err(ErrorCode::UnsupportedCompressionType);
        }
        if push.bytes > MAX_PUSH_BYTES {
            return Err(ErrorCode::TelemetryTooLarge);
        }
        Ok(Arc::clone(&self.assignment))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    fn subscription(pairs: &[(&str, &str)]) -> Arc<MetricsSubscription> {
        let pairs: BTreeMap<String, String> =
            pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        Arc::new(MetricsSubscription::new(&pairs).unwrap())
    }

    fn facts(client_id: &str) -> ClientFacts {
        ClientFacts { client_id: client_id.to_owned(), ..ClientFacts::default() }
    }

    fn id(number: u8) -> Uuid {
        Uuid([number; 16])
    }

    fn push(subscription_id: i32) -> Push {
        Push { subscription_id, terminating: false, compression_type: 0, bytes: 1 }
    }

    /// A second's interval.
    fn all() -> [Arc<MetricsSubscription>; 1] {
        [subscription(&[("metrics", "*"), ("interval.ms", "1000")])]
    }

    #[test]
    fn subscriptions_are_taken_together() {
        let one = subscription(&[("metrics", "b.,a."), ("interval.ms", "2000")]);
        let two = subscription(&[("metrics", "a."), ("interval.ms", "1000")]);
        let other = subscription(&[("metrics", "x."), ("match", "client_id=somebody-else")]);
        let both = Assignment::of(id(1), &facts("c"), &[one.clone(), two.clone(), other.clone()]);
        assert_eq!(
            (&both.metrics[..], both.interval.as_millis()),
            (&["a.".to_owned(), "b.".into()][..], 1_000)
        );
        assert!(both.wants("a.b") && !both.wants("c") && !both.wants("x.y"));
        let swapped = Assignment::of(id(1), &facts("c"), &[two, other, one]);
        assert_eq!(both, swapped);
        let everything = Assignment::of(id(1), &facts("c"), &all());
        assert_eq!(everything.metrics, ["*"]);
        assert!(everything.wants("anything"));
        assert_ne!(both.subscription_id, everything.subscription_id);
        let nothing = Assignment::of(id(1), &facts("c"), &[]);
        assert!(nothing.metrics.is_empty() && !nothing.wants("a"));
        assert_eq!(nothing.interval.as_millis(), 300_000);
    }

    #[test]
    fn clients_come_once_an_interval() {
        let mut instances = Instances::default();
        let (facts, all) = (facts("c"), all());
        let caller = Caller { tenant: A, instance: id(1), facts: &facts, subscriptions: &all };
        let now = Instant::now();
        let ms = Duration::from_millis;
        let told = instances.get(now, &caller).unwrap();
        assert_eq!(instances.get(now + ms(999), &caller), Err(ErrorCode::ThrottlingQuotaExceeded));
        // Once at any time after it was told, and then at intervals.
        let good = push(told.subscription_id);
        assert_eq!(instances.push(now + ms(10), &caller, good), Ok(Arc::clone(&told)));
        let early = instances.push(now + ms(1_009), &caller, good);
        assert_eq!(early, Err(ErrorCode::ThrottlingQuotaExceeded));
        assert!(instances.push(now + ms(1_010), &caller, good).is_ok());
        // The last words are heard at any time, and are the last.
        let last = Push { terminating: true, ..good };
        assert!(instances.push(now + ms(1_020), &caller, last).is_ok());
        let after = instances.push(now + ms(9_000), &caller, good);
        assert_eq!(after, Err(ErrorCode::InvalidRequest));
    }

    #[test]
    fn a_push_is_checked_from_the_outside() {
        let mut instances = Instances::default();
        let (facts, all) = (facts("c"), all());
        let caller = Caller { tenant: A, instance: id(1), facts: &facts, subscriptions: &all };
        let mut now = Instant::now();
        let told = instances.get(now, &caller).unwrap();
        let good = push(told.subscription_id);
        for (bad, code) in [
            (push(told.subscription_id ^ 1), ErrorCode::UnknownSubscriptionId),
            (Push { compression_type: 5, ..good }, ErrorCode::UnsupportedCompressionType),
            (Push { compression_type: -1, ..good }, ErrorCode::UnsupportedCompressionType),
            (Push { bytes: MAX_PUSH_BYTES + 1, ..good }, ErrorCode::TelemetryTooLarge),
        ] {
            now += Duration::from_secs(1);
            assert_eq!(instances.push(now, &caller, bad), Err(code));
        }
        now += Duration::from_secs(1);
        assert!(instances.push(now, &caller, Push { bytes: MAX_PUSH_BYTES, ..good }).is_ok());
    }

    #[test]
    fn a_change_of_subscriptions_reaches_clients_at_once() {
        let mut instances = Instances::default();
        let (facts, all) = (facts("c"), all());
        let caller = Caller { tenant: A, instance: id(1), facts: &facts, subscriptions: &all };
        let now = Instant::now();
        let told = instances.get(now, &caller).unwrap();
        let other = [subscription(&[("metrics", "a."), ("interval.ms", "1000")])];
        let changed = Caller { subscriptions: &other, ..caller };
        let stale = instances.push(now, &changed, push(told.subscription_id));
        assert_eq!(stale, Err(ErrorCode::UnknownSubscriptionId));
        let told = instances.get(now, &changed).unwrap();
        assert_eq!(told.metrics, ["a."]);
        assert!(instances.push(now, &changed, push(told.subscription_id)).is_ok());
    }

    #[test]
    fn the_same_id_in_another_tenant_is_another_client() {
        let mut instances = Instances::default();
        let (facts, all) = (facts("c"), all());
        let a = Caller { tenant: A, instance: id(1), facts: &facts, subscriptions: &all };
        let b = Caller { tenant: B, subscriptions: &[], ..a };
        let now = Instant::now();
        assert!(instances.get(now, &a).is_ok());
        assert!(instances.get(now, &b).unwrap().metrics.is_empty());
        assert_eq!(instances.len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_the_silent_give_way() {
        let mut instances = Instances::bounded(Bounds { of_tenant: 3, of_all: 5 });
        let (facts, all) = (facts("c"), all());
        let caller = |tenant, number| Caller {
            tenant,
            instance: id(number),
            facts: &facts,
            subscriptions: &all,
        };
        let now = Instant::now();
        for number in 0..100 {
            let now = now + Duration::from_millis(number.into());
            instances.get(now, &caller(A, number)).unwrap();
        }
        assert_eq!(instances.len(), 3);
        let now = now + Duration::from_millis(100);
        // The youngest are still known.
        assert!(instances.get(now, &caller(A, 99)).is_err());
        for tenant in 2..9 {
            instances.get(now, &caller(TenantId(tenant), 1)).unwrap();
        }
        assert_eq!(instances.len(), 5);
        let later = now + Duration::from_secs(3_600);
        instances.get(later, &caller(A, 7)).unwrap();
        assert!(instances.len() <= 5);
        let counted: usize = instances.tenants.values().map(HashMap::len).sum();
        assert_eq!(instances.len(), counted);
    }
}
