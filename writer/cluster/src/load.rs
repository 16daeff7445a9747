//! What this node carries, said to the others now and then under its lease.
//!
//! Rates are smoothed: each report is half of what was measured since the last one, half of what was said before. A node
//! that cannot reach the store says nothing, and is not balanced meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_catalog::NodeLoad;
use sluice_model::VolumeId;
use sluice_writer::Traffic;
use tokio::time::Instant;

use crate::members::MembersParts;

/// Processor time that this process has used since its start.
pub type CpuTime = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Says it for ever.
pub(crate) async fn report(parts: Arc<MembersParts>) {
    let every = parts.options.report_every;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut meter = Meter::default();
    meter.measure(&parts.writer.traffic(), used(&parts), processors, Instant::now());
    loop {
        tokio::time::sleep(every).await;
        let now = Instant::now();
        let load = meter.measure(&parts.writer.traffic(), used(&parts), processors, now);
        if let Err(error) = parts.node.publish_load(&load).await {
            tracing::debug!(%error, "what this node carries was not said");
        }
    }
}

fn used(parts: &MembersParts) -> Duration {
    parts.cpu.as_ref().map_or(Duration::ZERO, |cpu| cpu())
}

/// Makes rates of counts.
#[derive(Default)]
struct Meter {
    last: Option<Instant>,
    traffic: BTreeMap<VolumeId, Traffic>,
    cpu: Duration,
    load: NodeLoad,
}

impl Meter {
    fn measure(
        &mut self,
        traffic: &[(VolumeId, Traffic)],
        cpu: Duration,
        processors: usize,
        now: Instant,
    ) -> NodeLoad {
        let spent = self.last.map_or(Duration::ZERO, |last| now - last).as_secs_f64();
        let (mut sum, mut volumes) = (Traffic::default(), BTreeMap::new());
        for (id, total) in traffic {
            // A volume that was taken anew counts from zero.
            let before = self.traffic.get(id).copied().unwrap_or_default();
            let since = Traffic {
                in_bytes: total.in_bytes.saturating_sub(before.in_bytes),
                out_bytes: total.out_bytes.saturating_sub(before.out_bytes),
                requests: total.requests.saturating_sub(before.requests),
            };
            sum.in_bytes += since.in_bytes;
            sum.out_bytes += since.out_bytes;
            sum.requests += since.requests;
            let said = self.load.volumes.get(id).copied().unwrap_or(0);
            volumes.insert(*id, smooth(said, since.in_bytes + since.out_bytes, spent));
        }
        let cpu_since = cpu.saturating_sub(self.cpu).as_micros() as u64;
        let cpu_permille = smooth(
            self.load.cpu_permille.into(),
            cpu_since / 1000 / processors.max(1) as u64,
            spent,
        );
        self.load = NodeLoad {
            in_bytes: smooth(self.load.in_bytes, sum.in_bytes, spent),
            out_bytes: smooth(self.load.out_bytes, sum.out_bytes, spent),
            requests: smooth(self.load.requests, sum.requests, spent),
            cpu_permille: u32::try_from(cpu_permille).unwrap_or(u32::MAX),
            volumes,
            sequence: self.load.sequence + 1,
        };
        self.last = Some(now);
        self.cpu = cpu;
        self.traffic = traffic.iter().copied().collect();
        self.load.clone()
    }
}

/// The mean of what was said and of `count` in `seconds`.
fn smooth(said: u64, count: u64, seconds: f64) -> u64 {
    if seconds <= 0.0 {
        return said;
    }
    ((said as f64 + count as f64 / seconds) / 2.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rates_follow_counts() {
        let mut meter = Meter::default();
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        let at = |n: u64| {
            let traffic = Traffic { in_bytes: 1000 * n, out_bytes: 500 * n, requests: 10 * n };
            vec![(VolumeId(1), traffic)]
        };
        let first = meter.measure(&at(0), Duration::ZERO, 2, begun);
        assert_eq!((first.in_bytes, first.sequence), (0, 1));
        let mut load = first;
        for n in 1..=20u32 {
            let cpu = second * n;
            load = meter.measure(&at(n.into()), cpu, 2, begun + second * n);
        }
        assert!((990..=1000).contains(&load.in_bytes), "{load:?}");
        assert!((490..=500).contains(&load.out_bytes) && (8..=10).contains(&load.requests));
        assert!((1480..=1500).contains(&load.volumes[&VolumeId(1)]));
        assert!((490..=500).contains(&load.cpu_permille), "one of two processors: {load:?}");
        // Taken anew: it counts from zero, and nothing is below it.
        let anew = meter.measure(&at(1), second * 21, 2, begun + second * 21);
        assert!(anew.in_bytes < load.in_bytes && anew.sequence == 22);
        let gone = meter.measure(&[], second * 21, 2, begun + second * 22);
        assert!(gone.volumes.is_empty());
    }
}
