//! A comparison as Markdown: for the terminal, and for docs/performance.md.

use std::fmt::Write;

use super::report::{Compared, Measured, Report};
use crate::summary::ms;

/// The whole comparison.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let machine = &report.machine;
    let (played, planned) = report.turns;
    let _ = writeln!(
        out,
        "{} x {}, {:.0} GiB of memory, Linux {}; harness {}; {played} of {planned} turns, {} round(s). Medians (least \
         to most), x: ratio to Apache Kafka at its defaults, `noisy`: a run differs from the median by more than 10 %.\n",
        machine.cpus,
        machine.model,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        report.program,
        report.plan.rounds,
    );
    for peer in &report.peers {
        let _ = writeln!(out, "- `{}`: {}", peer.name, peer.what);
    }
    for partitions in &report.plan.partitions {
        table(&mut out, report, *partitions);
    }
    goals(&mut out, report);
    if !report.failures.is_empty() {
        out.push_str("\nWhat went wrong:\n\n");
        for failure in &report.failures {
            // A log may be in it.
            let _ = writeln!(out, "- {}", failure.lines().collect::<Vec<_>>().join("\n  "));
        }
    }
    out
}

fn table(out: &mut String, report: &Report, partitions: u32) {
    let own = |compared: &&Compared| compared.partitions == partitions;
    let _ = write!(out, "\n{partitions} partitions:\n\n| figure |");
    for peer in &report.peers {
        let _ = write!(out, " {} |", peer.name);
    }
    let _ = write!(out, "\n| --- |{}\n", " --- |".repeat(report.peers.len()));
    for compared in report.figures.iter().filter(own) {
        let _ = write!(out, "| {} |", compared.title);
        for peer in &report.peers {
            let measured = compared.peers.iter().find(|measured| measured.peer == peer.name);
            let _ = write!(out, " {} |", measured.map_or_else(|| "-".to_owned(), cell));
        }
        out.push('\n');
    }
}

/// `1.40 (1.35 to 1.44), x 0.26, noisy`
pub(super) fn cell(measured: &Measured) -> String {
    let spread = &measured.spread;
    let mut text = ms(spread.median);
    if spread.values.len() > 1 {
        let _ = write!(text, " ({} to {})", ms(spread.least), ms(spread.most));
    }
    if let Some(ratio) = measured.shown_ratio() {
        let _ = write!(text, ", x {ratio:.2}");
    }
    if spread.is_too_noisy() {
        text.push_str(", noisy");
    }
    text
}

fn goals(out: &mut String, report: &Report) {
    if report.goals.is_empty() {
        return;
    }
    out.push_str("\n| goal, beside Kafka at its defaults | partitions | server | ratio | |\n");
    out.push_str("| --- | --- | --- | --- | --- |\n");
    for judged in &report.goals {
        let verdict = if judged.is_met { "met" } else { "missed" };
        let noise = if judged.too_noisy { ", too noisy" } else { "" };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.2} | {verdict}{noise} |",
            judged.goal, judged.partitions, judged.peer, judged.ratio
        );
    }
}
