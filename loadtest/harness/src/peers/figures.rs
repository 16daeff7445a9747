//! The figures of a comparison: which there are, and how each is read from what a turn has given.

use serde::{Deserialize, Serialize};

use super::results::Outcome;
use crate::report::{Cost, Phase, Summary};

const MIB: f64 = (1u64 << 20) as f64;

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The lower the better.
    Lower,
    /// The higher the better.
    Higher,
    /// It says under which conditions the others were measured.
    Neither,
}

/// One figure.
pub(super) struct Figure {
    /// What programs call it.
    pub(super) key: &'static str,
    /// What people call it, with its unit.
    pub(super) title: &'static str,
    pub(super) better: Better,
    value: fn(&Outcome) -> Option<f64>,
}

impl Figure {
    /// Its value in a turn; none if the turn did not measure it.
    pub(super) fn of(&self, outcome: &Outcome) -> Option<f64> {
        (self.value)(outcome).filter(|value| value.is_finite())
    }
}

const fn figure(
    key: &'static str,
    title: &'static str,
    better: Better,
    value: fn(&Outcome) -> Option<f64>,
) -> Figure {
    Figure { key, title, better, value }
}

use Better::{Higher, Lower, Neither};

/// All of them, in the order of the report.
pub(super) const FIGURES: &[Figure] = &[
    figure("first-ack", "start to first acknowledged record, ms", Lower, |o| o.record.first_ack_ms),
    figure("produce-cpu", "produce: server CPU-s a GiB", Lower, produce_cpu),
    figure("fetch-cpu", "tail fetch: server CPU-s a GiB", Lower, |o| {
        Some(moved_cpu(o)? - produce_cpu(o)?)
    }),
    figure("tail-p50", "produce with tail fetch: p50, ms", Lower, |o| {
        Some(produced(o, "tail", STEADY)?.p50)
    }),
    figure("tail-p99", "produce with tail fetch: p99, ms", Lower, |o| {
        Some(produced(o, "tail", STEADY)?.p99)
    }),
    figure("tail-p99-9", "produce with tail fetch: p99.9, ms", Lower, |o| {
        Some(produced(o, "tail", STEADY)?.p99_9)
    }),
    figure("end-to-end-p99", "end to end at the tail: p99, ms", Lower, |o| {
        Some(phase(o, "tail", STEADY)?.end_to_end.as_ref()?.p99)
    }),
    figure("tail-rate", "acknowledged of what was due, MiB/s", Neither, |o| {
        Some(phase(o, "tail", STEADY)?.written.mib_per_second)
    }),
    figure("rss", "server RSS with tail fetch, MiB", Lower, |o| {
        Some(phase(o, "tail", STEADY)?.server.as_ref()?.rss_max_bytes as f64 / MIB)
    }),
    figure("max-rate", "most at p99 <= 50 ms, MiB/s", Higher, |o| {
        // No rate held: the least that was tried is too much.
        Some(o.reports.get("max")?.search.as_ref()?.mib_per_second.unwrap_or(0.0))
    }),
    figure("catch-up-rate", "catching up while producers go on, MiB/s", Higher, |o| {
        Some(phase(o, "catch-up", "catching up")?.read.mib_per_second)
    }),
    figure("catch-up-p99-before", "produce before somebody catches up: p99, ms", Lower, |o| {
        Some(produced(o, "catch-up", "producers alone")?.p99)
    }),
    figure("catch-up-p99", "produce while somebody catches up: p99, ms", Lower, |o| {
        Some(produced(o, "catch-up", "catching up")?.p99)
    }),
    figure("store-cpu", "S3 server with tail fetch: CPU-s a GiB written", Neither, |o| {
        written_cpu(phase(o, "tail", STEADY)?.store.as_ref())
    }),
    figure("harness-cpu", "harness with tail fetch: CPU-s a GiB written", Neither, |o| {
        written_cpu(Some(&phase(o, "tail", STEADY)?.client))
    }),
    figure("others", "processors that others used with tail fetch, %", Neither, |o| {
        Some(phase(o, "tail", STEADY)?.others_share? * 100.0)
    }),
];

/// The one phase that counts of a workload at one rate.
const STEADY: &str = "steady";

fn phase<'a>(outcome: &'a Outcome, workload: &str, name: &str) -> Option<&'a Phase> {
    let report = outcome.reports.get(workload)?;
    report.measured().find(|phase| phase.name == name)
}

fn produced<'a>(outcome: &'a Outcome, workload: &str, name: &str) -> Option<&'a Summary> {
    phase(outcome, workload, name)?.produce.as_ref()
}

fn written_cpu(cost: Option<&Cost>) -> Option<f64> {
    cost?.cpu_seconds_per_gib_written
}

/// Of a GiB that is written and that nobody reads.
fn produce_cpu(outcome: &Outcome) -> Option<f64> {
    written_cpu(phase(outcome, "produce", STEADY)?.server.as_ref())
}

/// Of a GiB that is written and read. What it costs more than one that is only written is the reading's; on a machine
/// that is too noisy for such a difference it may come out below 0, and has no ratio then.
fn moved_cpu(outcome: &Outcome) -> Option<f64> {
    let phase = phase(outcome, "tail", STEADY)?;
    let cost = phase.server.as_ref()?;
    let is_read = phase.read.bytes > phase.written.bytes / 2;
    cost.cpu_seconds_per_gib_written.filter(|_| is_read)
}
