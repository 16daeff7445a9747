//! Reports as text: for the terminal, and beside each other.

use std::fmt::Write;

use crate::fault::Failover;
use crate::report::{
    AgentSummary, Cost, Loss, Phase, Report, Summary, TenantClass, Verification, Worst,
};

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// A report for the terminal: each phase that counts, and the proof.
pub fn text(report: &Report) -> String {
    let mut out = format!("{}: {}\n", report.name, report.workload.description);
    for phase in report.measured() {
        one_phase(&mut out, phase);
    }
    if let Some(found) = &report.search {
        let line = match (found.mib_per_second, found.records_per_second) {
            (Some(mib), Some(records)) => {
                format!("highest rate that held: {mib:.1} MiB/s, {records:.0} records/s")
            }
            _ => "no rate held, not even the least that was tried".to_owned(),
        };
        line_to(&mut out, &line);
    }
    failover(&mut out, report);
    for line in agents(report) {
        line_to(&mut out, &line);
    }
    for slow in &report.gave_up {
        line_to(&mut out, &format!("too slow: {slow}"));
    }
    if let Some(failed) = &report.failed {
        line_to(&mut out, &format!("ended early by a failure: {failed}"));
    }
    line_to(&mut out, &verdict(report));
    for finding in &report.verification.findings.told {
        line_to(&mut out, &format!("  {finding}"));
    }
    for failure in &report.failures {
        line_to(&mut out, &format!("repeated after: {failure}"));
    }
    if report.interrupted {
        line_to(&mut out, "ended early by the user");
    }
    out
}

/// What the verifier says, in one line.
pub fn verdict(report: &Report) -> String {
    let verification = &report.verification;
    let Verification { acknowledged, groups, findings, .. } = verification;
    if verification.groups == 0 {
        return format!("not verified: nobody read; {acknowledged} records acknowledged");
    }
    if verification.is_passed() {
        let read = format!("verified: {acknowledged} records acknowledged, each read");
        return match findings.reread {
            0 => format!("{read} once and in order by each of {groups} group(s)"),
            again => format!(
                "{read} in order by each of {groups} group(s), {again} of them again after rebalances"
            ),
        };
    }
    let mut wrong: Vec<String> = [
        (findings.lost, "lost"),
        (findings.duplicated, "duplicated"),
        (findings.reordered, "out of order"),
        (findings.foreign, "foreign"),
        (findings.damaged, "damaged"),
        (findings.aborted_read, "read though aborted"),
        (findings.offsets_back, "offsets that do not grow"),
        (findings.unlisted, "acknowledged and beyond the ends that the server tells"),
        (verification.unsettled, "never answered"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    if !verification.complete {
        wrong.push("not read to the end in time".to_owned());
    }
    if verification.lost_agents > 0 {
        let lost = verification.lost_agents;
        wrong.push(format!("{lost} agent(s) lost, and with them a part of the proof"));
    }
    let is_cut_short =
        report.failed.is_some() || verification.lost_agents > 0 || !report.gave_up.is_empty();
    // What is left undone is no fault that was found.
    let is_incomplete = is_cut_short && findings.is_clean();
    let verdict = if is_incomplete { "INCOMPLETE" } else { "FAILED" };
    format!("{verdict}: of {acknowledged} records acknowledged: {}", wrong.join(", "))
}

fn failover(out: &mut String, report: &Report) {
    if report.failover.is_empty() {
        return;
    }
    line_to(out, "\nfaults: ms until the first answer, p50 / p90 / max");
    for Failover { kind, count, first_acknowledged, first_read, silence } in &report.failover {
        let three = |figures: &Option<[f64; 3]>| {
            figures.map_or_else(
                || "never".to_owned(),
                |[p50, p90, max]| format!("{} / {} / {}", ms(p50), ms(p90), ms(max)),
            )
        };
        line_to(
            out,
            &format!(
                "  {:<12}{count:>4} times; acknowledged {}; read {}; longest silence {}",
                kind.name(),
                three(first_acknowledged),
                three(first_read),
                three(silence)
            ),
        );
    }
}

/// Who the load came from, and what was lost with whom: a line each; none if this process has made it.
pub(crate) fn agents(report: &Report) -> Vec<String> {
    let all = &report.agents;
    if all.is_empty() {
        return Vec::new();
    }
    let worst = |of: fn(&AgentSummary) -> f64| ms(all.iter().map(of).fold(0.0, f64::max));
    let clock = worst(|agent| agent.clock_error_ms);
    let late = worst(|agent| agent.late_ms);
    let count = all.len();
    let mut lines = vec![format!(
        "{count} agents; clocks right within {clock} ms each, orders at most {late} ms late"
    )];
    for agent in all {
        let Some(Loss { at, reason, load_share, unread }) = &agent.lost else { continue };
        let AgentSummary { name, producers, acknowledged, .. } = agent;
        let share = load_share * 100.0;
        let partitions: usize = unread.iter().map(|unread| unread.partitions.len()).sum();
        lines.push(format!(
            "agent {name} was lost after {at:.1} s ({reason}): {producers} producers, {share:.0} % of the load; \
             {acknowledged} records acknowledged that it told of; {partitions} partitions not verified"
        ));
    }
    lines
}

fn line_to(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

fn one_phase(out: &mut String, phase: &Phase) {
    let offered = phase
        .offered
        .map_or_else(|| "as fast as it goes".to_owned(), |rate| format!("{rate:.0} records/s due"));
    line_to(out, &format!("\n{} ({:.1} s, {offered})", phase.name, phase.seconds));
    for (name, moved) in [("written", &phase.written), ("read", &phase.read)] {
        if moved.records > 0 {
            let gib = moved.bytes as f64 / GIB;
            let (mib, records) = (moved.mib_per_second, moved.records_per_second);
            line_to(
                out,
                &format!("  {name:<12}{mib:>9.1} MiB/s {records:>11.0} records/s {gib:>9.2} GiB"),
            );
        }
    }
    let kinds = [
        ("produce", &phase.produce),
        ("end to end", &phase.end_to_end),
        ("commit", &phase.commit),
        ("lateness", &phase.lateness),
    ];
    if kinds.iter().any(|(_, summary)| summary.is_some()) {
        line_to(
            out,
            &format!(
                "  {:<12}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
                "latency, ms", "p50", "p90", "p99", "p99.9", "p99.99", "max"
            ),
        );
    }
    for (name, summary) in kinds {
        let Some(Summary { p50, p90, p99, p99_9, p99_99, max, .. }) = summary else { continue };
        let _ = write!(out, "  {name:<12}");
        for value in [p50, p90, p99, p99_9, p99_99, max] {
            let _ = write!(out, "{:>9}", ms(*value));
        }
        out.push('\n');
    }
    if let Some(server) = &phase.server {
        cost(out, "server", server);
    }
    if let Some(store) = &phase.store {
        cost(out, "store", store);
    }
    cost(out, "client", &phase.client);
    if let Some(others) = phase.others_share {
        let note = if others > 0.1 { ": mistrust the figures" } else { "" };
        line_to(
            out,
            &format!("  {:<12}{:>9.1} % of the processors{note}", "others", others * 100.0),
        );
    }
    tenants(out, phase);
    if let Some(bucket) = &phase.bucket
        && let Some([puts, gets, lists]) = bucket.per_gib_written
    {
        let ratio = bucket.written_ratio.unwrap_or_default();
        line_to(
            out,
            &format!(
                "  {:<12}{puts:>9.1} PUT, {gets:.1} GET, {lists:.1} LIST a GiB; {ratio:.2} bytes written a byte",
                "bucket"
            ),
        );
    }
    if phase.retries > 0 {
        line_to(out, &format!("  {:<12}{:>9}", "retries", phase.retries));
    }
}

/// A line for each class of tenants.
fn tenants(out: &mut String, phase: &Phase) {
    if phase.tenants.is_empty() {
        return;
    }
    line_to(
        out,
        "  tenants          MiB/s   produce p50 / p99, end to end p50 / p99; the worst one's p99, ms",
    );
    for class in &phase.tenants {
        let TenantClass { name, tenants, written, produce, end_to_end, worst, .. } = class;
        let two = |summary: &Option<Summary>| {
            let two = summary.as_ref().map(|all| format!("{} / {}", ms(all.p50), ms(all.p99)));
            two.unwrap_or_else(|| "-".to_owned())
        };
        let mut line = format!(
            "    {:<16}{:>7.1}   {}, {}",
            format!("{name} ({tenants})"),
            written.mib_per_second,
            two(produce),
            two(end_to_end)
        );
        if let Some(Worst { tenant, produce_p99: Some(p99), end_to_end_p99 }) = worst {
            let _ = write!(line, "; {tenant}: {}", ms(*p99));
            if let Some(p99) = end_to_end_p99 {
                let _ = write!(line, ", {}", ms(*p99));
            }
        }
        line_to(out, &line);
    }
}

fn cost(out: &mut String, name: &str, cost: &Cost) {
    let _ = write!(out, "  {name:<12}{:>9.1} CPU-s", cost.cpu_seconds);
    if let Some(per_gib) = cost.cpu_seconds_per_gib_written {
        let _ = write!(out, ", {per_gib:.2} a GiB written");
    }
    if let Some(per_gib) = cost.cpu_seconds_per_gib_moved {
        let _ = write!(out, ", {per_gib:.2} a GiB written or read");
    }
    line_to(out, &format!("; RSS at most {:.0} MiB", cost.rss_max_bytes as f64 / MIB));
}

/// ms with three digits that matter.
pub(crate) fn ms(value: f64) -> String {
    match value {
        small if small < 10.0 => format!("{small:.2}"),
        middle if middle < 100.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

/// One figure of two reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// What it is, with its unit.
    pub figure: String,
    /// In each report; none where it was not measured.
    pub values: [Option<f64>; 2],
}

impl Compared {
    /// The second over the first.
    pub fn ratio(&self) -> Option<f64> {
        match self.values {
            [Some(first), Some(second)] if first != 0.0 => Some(second / first),
            _ => None,
        }
    }
}

/// The figures of the phases that both reports measured, by name.
pub fn compare(first: &Report, second: &Report) -> Vec<(String, Vec<Compared>)> {
    let phases = first.measured().filter_map(|phase| {
        let other = second.measured().find(|other| other.name == phase.name)?;
        let both = [figures(phase), figures(other)];
        let rows = both[0].iter().zip(&both[1]).map(|((figure, a), (_, b))| Compared {
            figure: (*figure).to_owned(),
            values: [*a, *b],
        });
        let rows = rows.filter(|row| row.values.iter().any(Option::is_some));
        Some((phase.name.clone(), rows.collect()))
    });
    let mut all: Vec<(String, Vec<Compared>)> = phases.collect();
    if let (Some(a), Some(b)) = (&first.search, &second.search) {
        let values = [a.mib_per_second, b.mib_per_second];
        let figure = "highest rate that held, MiB/s".to_owned();
        all.push(("search".to_owned(), vec![Compared { figure, values }]));
    }
    all
}

/// The comparison as a Markdown table.
pub fn comparison(first: &Report, second: &Report) -> String {
    let mut out = String::new();
    let (a, b) = (&first.label, &second.label);
    for (phase, rows) in compare(first, second) {
        let _ = write!(
            out,
            "{phase}\n\n| figure | {a} | {b} | {b} / {a} |\n| --- | ---: | ---: | ---: |\n"
        );
        for row in rows {
            let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), ms);
            let ratio = row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let [first, second] = row.values.map(show);
            line_to(&mut out, &format!("| {} | {first} | {second} | {ratio} |", row.figure));
        }
        out.push('\n');
    }
    for report in [first, second] {
        line_to(&mut out, &format!("{}: {}", report.label, verdict(report)));
    }
    out
}

/// What is told of a phase, each with its unit; none where it was not measured.
pub(crate) fn figures(phase: &Phase) -> Vec<(&'static str, Option<f64>)> {
    let of = |summary: &Option<Summary>, get: fn(&Summary) -> f64| summary.as_ref().map(get);
    let moved = |mib: f64| (mib > 0.0).then_some(mib);
    let server = phase.server.as_ref();
    let bucket = phase.bucket.as_ref().and_then(|bucket| bucket.per_gib_written);
    vec![
        ("written, MiB/s", moved(phase.written.mib_per_second)),
        ("read, MiB/s", moved(phase.read.mib_per_second)),
        ("produce p50, ms", of(&phase.produce, |summary| summary.p50)),
        ("produce p99, ms", of(&phase.produce, |summary| summary.p99)),
        ("produce p99.9, ms", of(&phase.produce, |summary| summary.p99_9)),
        ("produce p99.99, ms", of(&phase.produce, |summary| summary.p99_99)),
        ("produce max, ms", of(&phase.produce, |summary| summary.max)),
        ("end to end p50, ms", of(&phase.end_to_end, |summary| summary.p50)),
        ("end to end p99, ms", of(&phase.end_to_end, |summary| summary.p99)),
        ("end to end p99.9, ms", of(&phase.end_to_end, |summary| summary.p99_9)),
        ("commit p99, ms", of(&phase.commit, |summary| summary.p99)),
        ("server CPU-s a GiB written", server.and_then(|cost| cost.cpu_seconds_per_gib_written)),
        ("server CPU-s a GiB moved", server.and_then(|cost| cost.cpu_seconds_per_gib_moved)),
        ("server RSS, MiB", server.map(|cost| cost.rss_max_bytes as f64 / MIB)),
        (
            "store CPU-s a GiB written",
            phase.store.as_ref().and_then(|cost| cost.cpu_seconds_per_gib_written),
        ),
        ("client CPU-s a GiB moved", phase.client.cpu_seconds_per_gib_moved),
        ("bucket PUT a GiB", bucket.map(|[puts, ..]| puts)),
        ("bucket GET a GiB", bucket.map(|[_, gets, _]| gets)),
        ("bucket LIST a GiB", bucket.map(|[.., lists]| lists)),
    ]
}
