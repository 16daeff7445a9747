//! Several runs of one workload on one server: how far they lie apart, and whether they are to be believed.

use std::fmt::Write;

use crate::report::Report;
use crate::spread::Spread;
use crate::summary::{figures, ms};

/// One figure over all runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Repeated {
    /// The phase, and what it is with its unit.
    pub figure: String,
    /// What the runs gave.
    pub spread: Spread,
}

/// The figures that every run has, by phase.
pub fn repeated(reports: &[Report]) -> Vec<Repeated> {
    let Some((first, others)) = reports.split_first() else { return Vec::new() };
    let mut all = Vec::new();
    if first.search.is_some() {
        // A search's phases are rates that were tried: they differ from run to run.
        let best = |report: &Report| report.search.as_ref()?.mib_per_second;
        let best = reports.iter().map(best).collect::<Option<_>>();
        let figure = "highest rate that held, MiB/s".to_owned();
        all.extend(best.and_then(Spread::new).map(|spread| Repeated { figure, spread }));
        return all;
    }
    for phase in first.measured() {
        let same =
            |report: &Report| report.measured().find(|other| other.name == phase.name).map(figures);
        let Some(others) = others.iter().map(same).collect::<Option<Vec<_>>>() else { continue };
        for (place, (figure, value)) in figures(phase).into_iter().enumerate() {
            let values = std::iter::once(value).chain(others.iter().map(|other| other[place].1));
            let values = values.collect::<Option<Vec<f64>>>();
            if let Some(spread) = values.and_then(Spread::new) {
                all.push(Repeated { figure: format!("{}: {figure}", phase.name), spread });
            }
        }
    }
    all
}

/// The same as a Markdown table, with a verdict beneath.
pub fn text(reports: &[Report]) -> String {
    let rows = repeated(reports);
    let mut out =
        "| figure | median | least | most | |\n| --- | ---: | ---: | ---: | --- |\n".to_owned();
    for Repeated { figure, spread } in &rows {
        let Spread { median, least, most, .. } = spread;
        let noise = if spread.is_too_noisy() { "too noisy" } else { "" };
        let (median, least, most) = (ms(*median), ms(*least), ms(*most));
        let _ = writeln!(out, "| {figure} | {median} | {least} | {most} | {noise} |");
    }
    let noisy = rows.iter().filter(|row| row.spread.is_too_noisy()).count();
    let _ = match noisy {
        0 => writeln!(out, "\nall {} runs are within 10 % of the medians", reports.len()),
        noisy => writeln!(
            out,
            "\n{noisy} of {} figures are too noisy: a run differs from the median by more than 10 %; do not believe them",
            rows.len()
        ),
    };
    out
}
