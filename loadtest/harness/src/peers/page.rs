//! A comparison as one page that needs nothing else: bars of the medians with their ranges, and tables.

use std::fmt::Write;

use super::markdown::cell;
use super::report::{Compared, Report};
use crate::page::{Bar, PlotError, bars, document, escape};
use crate::summary::ms;

/// A comparison as a page.
///
/// # Errors
/// When a plot cannot be drawn: a fault of this program.
pub fn report(report: &Report) -> Result<String, PlotError> {
    let mut body = String::new();
    head(&mut body, report);
    goals(&mut body, report);
    for partitions in &report.plan.partitions {
        let _ = write!(body, "<h2>{partitions} partitions</h2><div class=plots>");
        for compared in report.figures.iter().filter(|one| one.partitions == *partitions) {
            figure(&mut body, report, compared)?;
        }
        body.push_str("</div>");
        table(&mut body, report, *partitions);
    }
    workloads(&mut body, report);
    Ok(document("Load test: servers compared", &body))
}

fn head(body: &mut String, report: &Report) {
    let machine = &report.machine;
    let (played, planned) = report.turns;
    let _ = write!(
        body,
        "<h1>Servers compared</h1><p><small>harness {} and all servers on {} x {}, {:.0} GiB, Linux {}; {played} of \
         {planned} turns, {} round(s), who begins changes. Each server runs alone, on empty data; nothing is dropped \
         from the page cache; nothing but Kafka's own heap limits memory. Medians, least to most; \
         x: ratio to Apache Kafka at its defaults.</small></p><ul>",
        escape(&report.program),
        machine.cpus,
        escape(&machine.model),
        machine.memory_bytes as f64 / f64::from(1 << 30),
        escape(&machine.kernel),
        report.plan.rounds,
    );
    for peer in &report.peers {
        let _ = write!(body, "<li><b>{}</b>: {}", escape(&peer.name), escape(&peer.what));
        if let Some(command) = &peer.command {
            let _ = write!(
                body,
                "<details><summary><small>command</small></summary><pre>{}</pre></details>",
                escape(command)
            );
        }
    }
    body.push_str("</ul>");
    list(
        body,
        "What servers could not keep up with, and what the verifier says of others than Sluice",
        &report.notes,
    );
    for failure in &report.failures {
        let _ = write!(body, "<pre class=bad>{}</pre>", escape(failure));
    }
}

fn goals(body: &mut String, report: &Report) {
    let columns = report.goal_columns();
    if columns.is_empty() {
        return;
    }
    body.push_str(
        "<h2>Where Sluice stands beside Kafka at its defaults</h2><div class=scroll><table><tr><th>goal",
    );
    for (peer, partitions) in &columns {
        let _ = write!(body, "<th>{}, {partitions}", escape(peer));
    }
    for goal in report.goal_rows() {
        let _ = write!(body, "<tr><td>{}", escape(goal));
        for column in &columns {
            match report.judged(goal, *column) {
                None => body.push_str("<td>-"),
                Some(judged) => {
                    let class = if judged.is_met { "good" } else { "bad" };
                    let _ = write!(body, "<td class={class}>{}", judged.verdict());
                }
            }
        }
    }
    body.push_str("</table></div>");
    list(body, "Where Sluice is behind", &report.behind());
}

fn list(body: &mut String, title: &str, all: &[String]) {
    if all.is_empty() {
        return;
    }
    let _ = write!(body, "<h3>{title}</h3><ul>");
    for words in all {
        let _ = write!(body, "<li>{}", escape(words));
    }
    body.push_str("</ul>");
}

fn figure(body: &mut String, report: &Report, compared: &Compared) -> Result<(), PlotError> {
    let all = compared.peers.iter().map(|measured| {
        let spread = &measured.spread;
        let mut label = format!("{}: {}", measured.peer, ms(spread.median));
        if let Some(ratio) = measured.shown_ratio() {
            let _ = write!(label, ", x {ratio:.2}");
        }
        if spread.is_too_noisy() {
            label.push_str(", too noisy");
        }
        // One server has one colour in all plots.
        let series = report.peers.iter().position(|peer| peer.name == measured.peer);
        let range = (spread.least, spread.most);
        Bar { label, value: spread.median, range, series: series.unwrap_or(0) }
    });
    if let Some(svg) = bars(&all.collect::<Vec<_>>())? {
        let title = escape(&compared.title);
        let _ = write!(body, "<figure><figcaption>{title}</figcaption>{svg}</figure>");
    }
    Ok(())
}

fn table(body: &mut String, report: &Report, partitions: u32) {
    body.push_str("<div class=scroll><table><tr><th>figure");
    for peer in &report.peers {
        let _ = write!(body, "<th>{}", escape(&peer.name));
    }
    for compared in report.figures.iter().filter(|one| one.partitions == partitions) {
        let _ = write!(body, "<tr><td>{}", escape(&compared.title));
        for peer in &report.peers {
            let measured = compared.peers.iter().find(|measured| measured.peer == peer.name);
            let _ = write!(body, "<td>{}", measured.map_or_else(|| "-".to_owned(), cell));
        }
    }
    body.push_str("</table></div>");
}

fn workloads(body: &mut String, report: &Report) {
    body.push_str("<h2>Workloads</h2>");
    for (name, workload) in &report.plan.workloads {
        let text = toml::to_string(workload).unwrap_or_default();
        let _ = write!(
            body,
            "<details><summary>{}: {}</summary><pre>{}</pre></details>",
            escape(name),
            escape(&workload.description),
            escape(&text)
        );
    }
}
