//! Comparisons made of reports that are made up, so that each figure is known.

use std::collections::BTreeMap;

use super::super::results::Record;
use super::super::{Kind, Peer, Workloads, markdown, page};
use super::*;
use crate::report::{Cost, Found, Moved, Phase, Report as RunReport, Summary, Verification};

const GIB: u64 = 1 << 30;

fn machine() -> Machine {
    let (model, kernel) = ("a <processor>".to_owned(), "6.1".to_owned());
    Machine { cpus: 2, memory_bytes: 8 * GIB, model, kernel }
}

fn latency(p99: f64) -> Option<Summary> {
    let curve = Vec::new();
    let (p50, p99_9) = (p99 / 2.0, p99 * 2.0);
    Some(Summary {
        count: 1,
        mean: p50,
        p50,
        p90: p99,
        p99,
        p99_9,
        p99_99: p99_9,
        max: p99_9,
        curve,
    })
}

/// A phase in which a GiB is written in ten seconds, and read or not.
fn phase(name: &str, is_read: bool, server_cpu: f64, p99: f64) -> Phase {
    let written = Moved::new(1 << 20, GIB, 10.0);
    let read = if is_read { written } else { Moved::default() };
    let cost = Cost { rss_max_bytes: 100 << 20, ..Cost::new(server_cpu, &written, &read) };
    Phase {
        name: name.to_owned(),
        measured: true,
        seconds: 10.0,
        offered: None,
        written,
        read,
        produce: latency(p99),
        end_to_end: None,
        lateness: None,
        commit: None,
        transactions: (0, 0),
        retries: 0,
        server: Some(cost),
        store: None,
        client: cost,
        others_share: Some(0.01),
        bucket: None,
        tenants: Vec::new(),
    }
}

fn run(phase: Phase, best: Option<f64>) -> RunReport {
    RunReport {
        schema: crate::report::SCHEMA.to_owned(),
        program: String::new(),
        name: String::new(),
        label: String::new(),
        workload: crate::Workload::parse(crate::Workload::built_in("steady").expect("one"))
            .expect("a workload"),
        started_ms: 0,
        seed: 0,
        machine: machine(),
        phases: vec![phase],
        search: best.map(|mib| Found {
            records_per_second: Some(mib * 1024.0),
            mib_per_second: Some(mib),
            trials: Vec::new(),
        }),
        series: Vec::new(),
        verification: Verification::default(),
        failures: Vec::new(),
        gave_up: Vec::new(),
        failed: None,
        faults: Vec::new(),
        agents: Vec::new(),
        failover: Vec::new(),
        interrupted: false,
    }
}

/// A turn of a server that is `better` times as good as Kafka here, give or take.
fn outcome(peer: &str, round: u32, better: f64) -> Outcome {
    let record = Record {
        round,
        peer: peer.to_owned(),
        partitions: 3,
        first_ack_ms: Some(2000.0 / better),
        command: Some(format!("run {peer}")),
        ..Record::default()
    };
    let reports = [
        ("produce", run(phase("steady", false, 6.0 / better, 20.0 / better), None)),
        ("tail", run(phase("steady", true, 9.0 / better, 30.0 / better), None)),
        ("catch-up", run(phase("catching up", true, 6.0, 50.0), None)),
        ("max", run(phase("1 MiB/s", false, 6.0, 50.0), Some(100.0 * better))),
    ];
    let reports = reports.map(|(name, report)| (name.to_owned(), report));
    Outcome { record, reports: BTreeMap::from(reports) }
}

fn comparison(outcomes: &[Outcome]) -> Report {
    let peers = [Kind::Kafka, Kind::SluiceFile].map(Peer::started).to_vec();
    let plan = Plan::new(peers, 3, vec![3], &Workloads::default(), true).expect("a plan");
    Report::new(0, "0".to_owned(), machine(), &plan, outcomes)
}

fn rounds(peer: &str, better: [f64; 3]) -> Vec<Outcome> {
    (0..).zip(better).map(|(round, better)| outcome(peer, round, better)).collect()
}

#[test]
fn medians_ratios_goals_and_noise_are_told() {
    let mut outcomes = rounds("kafka", [1.0, 1.0, 1.0]);
    outcomes.extend(rounds("sluice-file", [4.0, 4.2, 2.0]));
    let report = comparison(&outcomes);
    assert!(report.is_whole(), "{:?}", report.failures);
    let figure = |key: &str, peer: &str| {
        let compared = report.figures.iter().find(|one| one.figure == key).expect("a figure");
        compared.peers.iter().find(|one| one.peer == peer).expect("measured").clone()
    };
    let produce = figure("produce-cpu", "kafka");
    assert_eq!((produce.spread.median, produce.ratio), (6.0, Some(1.0)));
    assert_eq!(produce.spread.too_noisy, Some(false));
    // What the reading costs is the difference.
    assert_eq!(figure("fetch-cpu", "kafka").spread.median, 3.0);
    let ours = figure("produce-cpu", "sluice-file");
    assert_eq!((ours.spread.median, ours.ratio), (1.5, Some(0.25)));
    assert!(ours.spread.is_too_noisy(), "one round is half as good: {ours:?}");
    let goal = |key: &str| report.goals.iter().find(|one| one.figure == key).expect("a goal");
    assert!(goal("produce-cpu").is_met && goal("produce-cpu").too_noisy);
    assert!(goal("max-rate").is_met && goal("tail-p99").is_met);
    assert!(!goal("catch-up-rate").is_met && !goal("rss").is_met && !goal("first-ack").is_met);
    let text = markdown::text(&report);
    assert!(text.contains("| 1.50 (1.43 to 3.00), x 0.25, noisy |"), "{text}");
    assert!(
        text.contains("| catching up at least 5 x | 1.00, missed |")
            && text.contains("| goal | sluice-file, 3 |"),
        "{text}"
    );
    let behind = "- sluice-file, 3 partitions: catching up at least 5 x: x 1.00 (catching up while";
    assert!(text.contains(behind), "{text}");
    assert!(!text.contains("- sluice-file, 3 partitions: most at p99"), "it is met: {text}");
    let page = page::report(&report).expect("a page");
    assert!(
        page.contains("<svg") && page.contains("a &lt;processor&gt;") && page.contains("noisy")
    );
    assert!(!page.contains("<script") && !page.contains("a <processor>"));
    let json = serde_json::to_string(&report).expect("JSON");
    let back = Report::parse(&json).expect("the same");
    assert_eq!((&back.figures, &back.goals), (&report.figures, &report.goals));
    assert!(Report::parse(&json.replace(SCHEMA, "sluice-loadtest-peers/1")).is_err());
}

#[test]
fn what_failed_is_told_and_costs_its_own_figures_only() {
    let mut outcomes = rounds("kafka", [1.0, 1.0, 1.0]);
    outcomes[0].record.failure = Some("it has ended by itself".to_owned());
    outcomes[1].record.failed_runs.insert("tail".to_owned(), "no answer".to_owned());
    outcomes[1].reports.remove("tail");
    let run = outcomes[2].reports.get_mut("tail").expect("a run");
    run.verification = Verification { groups: 1, unsettled: 7, ..Verification::default() };
    let report = comparison(&outcomes);
    assert!(!report.is_whole(), "three turns are missing, and two things failed");
    let told = report.failures.join("\n");
    assert!(told.contains("kafka, 3 partitions, round 1: it has ended by itself"), "{told}");
    assert!(told.contains("round 2, tail: no answer"), "{told}");
    let told = report.notes.join("\n");
    assert!(told.contains("7 never answered"), "it is no fault of the comparison: {told}");
    let of = |key: &str| {
        let compared = report.figures.iter().find(|one| one.figure == key).expect("a figure");
        compared.peers[0].spread.values.len()
    };
    assert_eq!((of("produce-cpu"), of("tail-p99"), of("fetch-cpu")), (3, 2, 2));
    assert!(report.goals.is_empty(), "nothing of ours was measured");
    assert!(markdown::text(&report).contains("What went wrong"));
}

#[test]
fn who_is_too_slow_or_tells_too_low_ends_fails_nothing_and_is_told() {
    let mut outcomes = rounds("kafka", [1.0, 1.0, 1.0]);
    outcomes.extend(rounds("sluice-file", [4.0, 4.0, 4.0]));
    let understated = Verification {
        groups: 1,
        complete: true,
        findings: Findings { unlisted: 7, lost: 5, ..Findings::default() },
        ..Verification::default()
    };
    let run = |outcomes: &mut [Outcome], index: usize, change: &dyn Fn(&mut RunReport)| {
        change(outcomes[index].reports.get_mut("tail").expect("a run"));
    };
    run(&mut outcomes, 0, &|run| run.verification = understated.clone());
    run(&mut outcomes, 3, &|run| {
        // As a server that does not come to the phase that counts.
        run.phases.clear();
        run.gave_up = vec!["warm-up: fell behind: acknowledged 16.8 of 80.0 MiB/s due".to_owned()];
        run.verification = Verification { groups: 1, unsettled: 9, ..Verification::default() };
    });
    let words = "left out".to_owned();
    outcomes[4].record.left_out.insert("max".to_owned(), words);
    let report = comparison(&outcomes);
    assert!(report.is_whole(), "{:?}", report.failures);
    let told = report.notes.join("\n");
    for words in [
        "kafka, 3 partitions, round 1, tail: the server says fewer records than it acknowledged: the ends that it tells \
         (ListOffsets) are 7 below",
        "sluice-file, 3 partitions, round 1, tail, warm-up: fell behind: acknowledged 16.8 of 80.0",
        "sluice-file, 3 partitions, round 2, max: left out",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(markdown::text(&report).contains(&format!("- {}", report.notes[0])));
    assert!(page::report(&report).expect("a page").contains("fell behind"));
    // So is what others do worse.
    let doubled = Verification {
        findings: Findings { duplicated: 3, ..understated.findings.clone() },
        ..understated
    };
    run(&mut outcomes, 1, &|run| run.verification = doubled.clone());
    let report = comparison(&outcomes);
    let told = report.notes.join("\n");
    assert!(
        report.is_whole() && told.contains("says FAILED: of 0 records acknowledged: 5 lost, 3 dup")
    );
    // Never where it is ours.
    run(&mut outcomes, 5, &|run| run.verification = understated.clone());
    let report = comparison(&outcomes);
    assert!(report.failures[0].contains("5 lost"), "{:?}", report.failures);
    // A cost that cannot be seen is none.
    for index in 3..6 {
        run(&mut outcomes, index, &|run| run.phases = vec![phase("steady", true, 1.0, 7.0)]);
    }
    let report = comparison(&outcomes);
    let goal = report.goals.iter().find(|one| one.figure == "fetch-cpu").expect("a goal");
    assert!(goal.is_met && goal.ratio.is_none(), "{goal:?}");
    // A figure that no round has is missed.
    for index in 3..6 {
        run(&mut outcomes, index, &|run| run.phases.clear());
    }
    let report = comparison(&outcomes);
    let goal = report.goals.iter().find(|one| one.figure == "tail-p99").expect("a goal");
    assert!(!goal.is_met && goal.ratio.is_none(), "{goal:?}");
    let behind = report.behind().join("\n");
    assert!(behind.contains("p99 at most the same: not measured"), "{behind}");
}
