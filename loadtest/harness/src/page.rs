//! Reports as one page that needs nothing else: plots are inline, there is no script, and it fits a phone.

mod bars;
mod plot;

use std::fmt::Write;

use plotters::style::RGBColor;

pub(crate) use bars::{Bar, bars};
pub use plot::PlotError;

use crate::fault::Failover;
use crate::report::{Report, Row, Summary};
use crate::summary::{self, Compared, ms};
use plot::{Axes, Line, Marks, lines, mark_colour, tail};

const MIB: f64 = (1u64 << 20) as f64;
/// Points of a line: more than a screen has are put together.
const MAX_POINTS: usize = 400;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;padding:12px;max-width:1040px;color:#222}
h1{font-size:1.3em;margin:.3em 0}h2{font-size:1.1em;margin:1.2em 0 .3em}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:8px}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}
.scroll{overflow-x:auto}table{border-collapse:collapse}td,th{padding:3px 9px;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}.good{color:#00734f}.bad{color:#b30000;font-weight:600}
.bar{background:#0072b2;height:9px;border-radius:2px;min-width:1px}.bar.b{background:#d55e00}
td.bars{min-width:120px;width:35%}small{color:#555}pre{white-space:pre-wrap}";

/// A report as a page.
///
/// # Errors
/// When a plot cannot be drawn: a fault of this program.
pub fn report(report: &Report) -> Result<String, PlotError> {
    let mut body = String::new();
    head(&mut body, report);
    latencies(&mut body, report);
    costs(&mut body, report);
    search(&mut body, report);
    faults(&mut body, report);
    tenants(&mut body, report);
    body.push_str("<h2>Over time</h2><div class=plots>");
    let at = |row: &Row| row.at;
    let marks = marks(report);
    let rate = |bytes: u64, row: &Row| bytes as f64 / MIB / row.seconds.max(0.001);
    let written = line("written", report, at, |row| Some(rate(row.written.1, row)));
    let read = line("read", report, at, |row| Some(rate(row.read.1, row)));
    let time = Axes { x: "seconds", y: "MiB/s", is_log: false, is_percentile: false };
    marked(&mut body, "Throughput", &[written, read], &marks, time)?;
    for (title, get) in KINDS {
        let percentiles = ["p50", "p99", "max"].iter().enumerate().map(|(index, name)| {
            line(name, report, at, move |row| get(row).map(|values| values[index]))
        });
        let percentiles: Vec<Line> = percentiles.collect();
        let axes = Axes { y: "ms", is_log: true, ..time };
        let title = format!("{title}, of each second");
        marked(&mut body, &title, &percentiles, &marks, axes)?;
    }
    let cpus = |seconds: f64, row: &Row| seconds / row.seconds.max(0.001);
    let server = line("server", report, at, |row| row.server_cpu.map(|cpu| cpus(cpu, row)));
    let client = line("client", report, at, |row| Some(cpus(row.client_cpu, row)));
    let machine = line("machine", report, at, |row| row.machine_cpu.map(|cpu| cpus(cpu, row)));
    let axes = Axes { y: "in use", ..time };
    marked(&mut body, "Processors", &[server, client, machine], &marks, axes)?;
    let server = line("server", report, at, |row| row.server_rss.map(|(rss, _)| rss as f64 / MIB));
    let client = line("client", report, at, |row| Some(row.client_rss.0 as f64 / MIB));
    let axes = Axes { y: "MiB", ..time };
    marked(&mut body, "Resident memory", &[server, client], &marks, axes)?;
    body.push_str("</div><h2>Percentiles</h2><div class=plots>");
    let curves = |get: fn(&crate::report::Phase) -> &Option<Summary>| -> Vec<Line> {
        report.measured().map(|phase| curve(&phase.name, get(phase).as_ref())).collect()
    };
    figure(&mut body, "Produce", &curves(|phase| &phase.produce), PERCENTILES)?;
    figure(&mut body, "End to end", &curves(|phase| &phase.end_to_end), PERCENTILES)?;
    body.push_str("</div><h2>Workload</h2><pre>");
    let workload = toml::to_string(&report.workload).unwrap_or_default();
    let _ = write!(body, "{}seed = {}</pre>", escape(&workload), report.seed);
    Ok(document(&format!("Load test: {}", report.name), &body))
}

const PERCENTILES: Axes = Axes { x: "percentile", y: "ms", is_log: true, is_percentile: true };

type Latency = fn(&Row) -> Option<[f64; 3]>;
const KINDS: [(&str, Latency); 2] =
    [("Produce latency", |row| row.produce), ("End-to-end latency", |row| row.end_to_end)];

/// Two reports beside each other as a page.
///
/// # Errors
/// When a plot cannot be drawn: a fault of this program.
pub fn comparison(first: &Report, second: &Report) -> Result<String, PlotError> {
    let mut body = String::new();
    let title = format!("{} and {}", first.label, second.label);
    let _ =
        write!(body, "<h1>{}</h1><p>{}</p>", escape(&title), escape(&first.workload.description));
    for report in [first, second] {
        proof(&mut body, report, &report.label);
    }
    for (phase, rows) in summary::compare(first, second) {
        let _ = write!(
            body,
            "<h2>{}</h2><div class=scroll><table><tr><th>figure<th>{}<th>{}<th>ratio<th>",
            escape(&phase),
            escape(&first.label),
            escape(&second.label)
        );
        for row in rows {
            compared(&mut body, &row);
        }
        body.push_str("</table></div>");
    }
    body.push_str("<h2>Percentiles</h2><div class=plots>");
    for phase in first.measured() {
        let Some(other) = second.measured().find(|other| other.name == phase.name) else {
            continue;
        };
        let both = [
            curve(&first.label, phase.produce.as_ref()),
            curve(&second.label, other.produce.as_ref()),
        ];
        figure(&mut body, &format!("Produce, {}", phase.name), &both, PERCENTILES)?;
        let both = [
            curve(&first.label, phase.end_to_end.as_ref()),
            curve(&second.label, other.end_to_end.as_ref()),
        ];
        figure(&mut body, &format!("End to end, {}", phase.name), &both, PERCENTILES)?;
    }
    body.push_str("</div>");
    Ok(document(&format!("Load tests: {title}"), &body))
}

/// A document of this body, HTML already.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style><body>{body}</body></html>\n",
        escape(title)
    )
}

fn head(body: &mut String, report: &Report) {
    let machine = &report.machine;
    let _ = write!(
        body,
        "<h1>{}: {}</h1><p>{}</p><p><small>harness {} on {} x {}, {:.0} GiB, Linux {}</small></p>",
        escape(&report.label),
        escape(&report.name),
        escape(&report.workload.description),
        escape(&report.program),
        machine.cpus,
        escape(&machine.model),
        machine.memory_bytes as f64 / MIB / 1024.0,
        escape(&machine.kernel)
    );
    for line in summary::agents(report) {
        let _ = write!(body, "<div><small>{}</small></div>", escape(&line));
    }
    proof(body, report, "");
}

fn proof(body: &mut String, report: &Report, label: &str) {
    let class = if report.verification.is_passed() { "good" } else { "bad" };
    let label = if label.is_empty() { String::new() } else { format!("{label}: ") };
    let verdict = summary::verdict(report);
    let _ = write!(body, "<p class={class}>{}{}</p>", escape(&label), escape(&verdict));
    if let Some(failed) = &report.failed {
        let _ = write!(body, "<div class=bad>ended early by a failure: {}</div>", escape(failed));
    }
    for finding in &report.verification.findings.told {
        let _ = write!(body, "<div class=bad>{}</div>", escape(finding));
    }
}

/// What each class of tenants had, phase by phase.
fn tenants(body: &mut String, report: &Report) {
    if report.measured().all(|phase| phase.tenants.is_empty()) {
        return;
    }
    body.push_str(
        "<h2>Tenants</h2><div class=scroll><table><tr><th>phase<th>class<th>tenants<th>MiB/s<th>produce p50, ms<th>p99<th>end to end p50, ms<th>p99<th>worst<th>its p99, ms",
    );
    for phase in report.measured() {
        for class in &phase.tenants {
            let two = |summary: &Option<Summary>| {
                let two = summary.as_ref().map(|all| [ms(all.p50), ms(all.p99)]);
                two.unwrap_or_default()
            };
            let ([p50, p99], [e50, e99]) = (two(&class.produce), two(&class.end_to_end));
            let worst = class.worst.as_ref();
            let _ = write!(
                body,
                "<tr><td>{}<td>{}<td>{}<td>{:.1}<td>{p50}<td>{p99}<td>{e50}<td>{e99}<td>{}<td>{}",
                escape(&phase.name),
                escape(&class.name),
                class.tenants,
                class.written.mib_per_second,
                escape(worst.map_or("", |worst| &worst.tenant)),
                worst.and_then(|worst| worst.produce_p99).map(ms).unwrap_or_default()
            );
        }
    }
    body.push_str("</table></div>");
}

fn latencies(body: &mut String, report: &Report) {
    body.push_str(
        "<h2>Latency, ms</h2><div class=scroll><table><tr><th>phase<th>of<th>p50<th>p90<th>p99<th>p99.9<th>p99.99<th>max",
    );
    for phase in report.measured() {
        let kinds = [
            ("produce", &phase.produce),
            ("end to end", &phase.end_to_end),
            ("commit", &phase.commit),
            ("lateness of the harness", &phase.lateness),
        ];
        for (kind, summary) in kinds {
            let Some(summary) = summary else { continue };
            let _ = write!(body, "<tr><td>{}<td>{kind}", escape(&phase.name));
            let Summary { p50, p90, p99, p99_9, p99_99, max, .. } = summary;
            for value in [p50, p90, p99, p99_9, p99_99, max] {
                let _ = write!(body, "<td>{}", ms(*value));
            }
        }
    }
    body.push_str("</table></div>");
}

fn costs(body: &mut String, report: &Report) {
    body.push_str(
        "<h2>Throughput and cost</h2><div class=scroll><table><tr><th>phase<th>s<th>written MiB/s<th>read MiB/s\
         <th>server CPU-s a GiB written<th>a GiB moved<th>server RSS MiB<th>client CPU-s a GiB moved\
         <th>PUT a GiB<th>GET a GiB<th>LIST a GiB<th>others' processors %",
    );
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), ms);
    for phase in report.measured() {
        let server = phase.server.as_ref();
        let bucket = phase.bucket.as_ref().and_then(|bucket| bucket.per_gib_written);
        let _ = write!(body, "<tr><td>{}", escape(&phase.name));
        for value in [
            Some(phase.seconds),
            Some(phase.written.mib_per_second),
            Some(phase.read.mib_per_second),
            server.and_then(|cost| cost.cpu_seconds_per_gib_written),
            server.and_then(|cost| cost.cpu_seconds_per_gib_moved),
            server.map(|cost| cost.rss_max_bytes as f64 / MIB),
            phase.client.cpu_seconds_per_gib_moved,
            bucket.map(|[puts, ..]| puts),
            bucket.map(|[_, gets, _]| gets),
            bucket.map(|[.., lists]| lists),
            phase.others_share.map(|share| share * 100.0),
        ] {
            let _ = write!(body, "<td>{}", show(value));
        }
    }
    body.push_str("</table></div>");
}

fn search(body: &mut String, report: &Report) {
    let Some(found) = &report.search else { return };
    let best =
        found.mib_per_second.map_or_else(|| "none".to_owned(), |best| format!("{best:.1} MiB/s"));
    let _ = write!(
        body,
        "<h2>Search</h2><p>The highest rate that held: {best}</p><div class=scroll><table>\
         <tr><th>records/s<th>p99, ms<th>held"
    );
    for trial in &found.trials {
        let held = if trial.held { "yes" } else { "no" };
        let p99 = ms(trial.p99);
        let _ = write!(body, "<tr><td>{:.0}<td>{p99}<td>{held}", trial.records_per_second);
    }
    body.push_str("</table></div>");
}

/// When faults were injected, by kind.
fn marks(report: &Report) -> Vec<Marks> {
    let kinds = report.failover.iter().map(|failover| failover.kind);
    let marks = kinds.map(|kind| Marks {
        at: report.faults.iter().filter(|fault| fault.kind == kind).map(|fault| fault.at).collect(),
    });
    marks.collect()
}

fn faults(body: &mut String, report: &Report) {
    if report.faults.is_empty() {
        return;
    }
    body.push_str(
        "<h2>Faults</h2><p>From a fault to the first acknowledgement of something that was sent after it, to the first \
         records of a fetch that was sent after it, and the longest time without an acknowledgement around it; ms. Plots over time have a line for each.</p>\
         <div class=scroll><table><tr><th>fault<th>times<th>acknowledged p50<th>p90<th>max<th>read p50<th>p90<th>max\
         <th>silence p50<th>p90<th>max",
    );
    for (index, failover) in report.failover.iter().enumerate() {
        let Failover { kind, count, first_acknowledged, first_read, silence } = failover;
        let RGBColor(red, green, blue) = mark_colour(index);
        let _ = write!(
            body,
            "<tr><td><span style=\"color:rgb({red},{green},{blue})\">&#9612;</span>{}<td>{count}",
            kind.name()
        );
        for figures in [first_acknowledged, first_read, silence] {
            for place in 0..3 {
                let value = figures.map(|figures| figures[place]);
                let _ = write!(body, "<td>{}", value.map_or_else(|| "-".to_owned(), ms));
            }
        }
    }
    body.push_str("</table></div>");
}

fn compared(body: &mut String, row: &Compared) {
    let show = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), ms);
    let ratio = row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let [first, second] = row.values;
    let most = first.unwrap_or(0.0).max(second.unwrap_or(0.0));
    let percent = |value: Option<f64>| match value {
        Some(value) if most > 0.0 => value / most * 100.0,
        _ => 0.0,
    };
    let _ = write!(
        body,
        "<tr><td>{}<td>{}<td>{}<td>{ratio}<td class=bars><div class=bar style=width:{:.0}%></div>\
         <div class=\"bar b\" style=width:{:.0}%></div>",
        escape(&row.figure),
        show(first),
        show(second),
        percent(first),
        percent(second)
    );
}

fn curve(name: &str, summary: Option<&Summary>) -> Line {
    let points = summary.map_or(&[][..], |summary| &summary.curve).iter();
    let points = points.map(|(percent, latency_ms)| (tail(*percent), *latency_ms));
    Line { name: name.to_owned(), points: points.collect() }
}

/// A line over the rows; of rows that are put together the largest value counts.
fn line(
    name: &str,
    report: &Report,
    at: impl Fn(&Row) -> f64,
    value: impl Fn(&Row) -> Option<f64>,
) -> Line {
    // Rows that end a phase early are too short to tell a rate.
    let rows: Vec<&Row> = report.series.iter().filter(|row| row.seconds >= 0.5).collect();
    let together = rows.len().div_ceil(MAX_POINTS).max(1);
    let points = rows.chunks(together).filter_map(|chunk| {
        let most = chunk.iter().filter_map(|row| value(row)).reduce(f64::max)?;
        Some((at(chunk[0]), most))
    });
    Line { name: name.to_owned(), points: points.collect() }
}

fn figure(body: &mut String, title: &str, all: &[Line], axes: Axes) -> Result<(), PlotError> {
    marked(body, title, all, &[], axes)
}

fn marked(
    body: &mut String,
    title: &str,
    all: &[Line],
    marks: &[Marks],
    axes: Axes,
) -> Result<(), PlotError> {
    if let Some(svg) = lines(all, marks, axes)? {
        let _ = write!(body, "<figure><figcaption>{}</figcaption>{svg}</figure>", escape(title));
    }
    Ok(())
}

/// Text as HTML: labels and findings come from outside.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
