//! A comparison as Markdown: for the terminal, and for docs/performance.md.

use std::fmt::Write;

use super::goals::Judged;
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
    list(
        &mut out,
        "What servers could not keep up with, and what the verifier says of others than Sluice",
        &report.notes,
    );
    list(&mut out, "What went wrong", &report.failures);
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

fn list(out: &mut String, title: &str, all: &[String]) {
    if !all.is_empty() {
        let _ = write!(out, "\n{title}:\n\n");
    }
    for words in all {
        // A log may be in it.
        let _ = writeln!(out, "- {}", words.lines().collect::<Vec<_>>().join("\n  "));
    }
}

/// A row for each goal, a column for each server and number of partitions; then what is missed, in words.
fn goals(out: &mut String, report: &Report) {
    let columns = report.goal_columns();
    if columns.is_empty() {
        return;
    }
    out.push_str("\nWhere Sluice stands beside Kafka at its defaults:\n\n| goal |");
    for (peer, partitions) in &columns {
        let _ = write!(out, " {peer}, {partitions} |");
    }
    let _ = write!(out, "\n| --- |{}\n", " --- |".repeat(columns.len()));
    for goal in report.goal_rows() {
        let _ = write!(out, "| {goal} |");
        for column in &columns {
            let cell = report.judged(goal, *column).map_or_else(|| "-".to_owned(), Judged::verdict);
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    list(out, "Where Sluice is behind", &report.behind());
}
