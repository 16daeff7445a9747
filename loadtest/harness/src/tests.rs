//! The whole harness against the null server: what a truthful one and a lying one look like.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use sluice_model::{Clock, Entropy};
use tokio::sync::watch;

use crate::null_server::{Lie, NullServer};
use crate::report::SCHEMA;
use crate::{Options, Report, Workload, page, repeat, run, summary};

/// Enough for all that these loads write.
pub(crate) const KEEP_BYTES: usize = 256 << 20;

pub(crate) struct Fixed;

impl Clock for Fixed {
    fn wall_ms(&self) -> i64 {
        1_795_378_898_000
    }
}

#[derive(Default)]
pub(crate) struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        for (place, byte) in out.iter_mut().enumerate() {
            *byte = next[place % 8];
        }
    }
}

/// A run of a workload against a server of the test.
pub(crate) fn options(workload: &str, server: &NullServer) -> Options {
    Options {
        name: "test".to_owned(),
        workload: Workload::parse(workload).expect("a workload"),
        bootstrap: server.address().to_string(),
        label: "null".to_owned(),
        server_pids: Vec::new(),
        store_pids: Vec::new(),
        server_metrics: None,
        seed: Some(1),
        keep_topic: false,
        accounts: Vec::new(),
    }
}

/// Records written and read, over all phases.
pub(crate) fn moved(report: &Report) -> (u64, u64) {
    let phases = report.phases.iter();
    phases.fold((0, 0), |(written, read), phase| {
        (written + phase.written.records, read + phase.read.records)
    })
}

async fn load(workload: &str, lie: Lie) -> Report {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = NullServer::lying(address, KEEP_BYTES, lie).await.expect("listens");
    let options = Options {
        server_pids: vec![std::process::id()],
        store_pids: vec![std::process::id()],
        ..options(workload, &server)
    };
    let serving = tokio::spawn(server.serve());
    let (_go_on, interrupt) = watch::channel(false);
    let report = run(options, &Fixed, &Counted::default(), interrupt, |_| {}).await;
    serving.abort();
    report.expect("a report")
}

const KEYED: &str = "
description = 'two producers, two groups of two, keys and a codec'
duration = '500ms'
[records]
size = '200B'
keys = 'zipf'
compression = 'lz4'
[topic]
partitions = 5
[produce]
producers = 2
rate = '4000/s'
arrivals = 'poisson'
linger = '5ms'
batch = '4KiB'
[consume]
groups = 2
consumers = 2
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truthful_server_passes_and_is_measured() {
    let report = load(KEYED, Lie::None).await;
    let proof = &report.verification;
    assert!(proof.is_passed(), "{proof:?} {:?}", report.failures);
    // About 2000 by chance; exactly what was acknowledged, twice.
    assert!((1500..2500).contains(&proof.acknowledged), "{proof:?}");
    assert_eq!(moved(&report), (proof.acknowledged, 2 * proof.acknowledged));
    let [steady] = &report.measured().collect::<Vec<_>>()[..] else { panic!("one phase") };
    let produce = steady.produce.as_ref().expect("latencies");
    assert!(produce.p50 > 0.0 && produce.p50 <= produce.p99 && produce.p99 <= produce.max);
    assert_eq!(steady.end_to_end.as_ref().expect("latencies").count, 2 * produce.count);
    assert!(steady.server.is_some_and(|cost| cost.rss_max_bytes > 0));
    let store = steady.store.expect("it was named");
    assert!(store.rss_peak_bytes > 0, "{store:?}");
    let text = serde_json::to_string(&report).expect("JSON");
    let back = Report::parse(&text).expect("the same");
    assert_eq!((&back.workload, back.seed), (&report.workload, 1));
    assert_eq!(summary::text(&back), summary::text(&report));
    assert!(Report::parse(&text.replace(SCHEMA, "sluice-loadtest/0")).is_err());
    let page = page::report(&report).expect("a page");
    assert!(page.contains("<svg") && page.contains("verified: ") && !page.contains("<script"));
    let page = page::comparison(&report, &back).expect("a page");
    assert!(page.contains("produce p99, ms"));
    let mut slower = back.clone();
    for phase in &mut slower.phases {
        phase.client.cpu_seconds_per_gib_moved =
            phase.client.cpu_seconds_per_gib_moved.map(|cpu| cpu * 1.5);
    }
    let same = repeat::text(&[report.clone(), back.clone(), report.clone()]);
    assert!(same.contains("all 3 runs are within 10 % of the medians"), "{same}");
    let noisy = repeat::text(&[report.clone(), slower, report.clone()]);
    assert!(noisy.contains("\n1 of ") && noisy.contains("too noisy |\n"), "{noisy}");
    let rows = summary::compare(&report, &back);
    let same = rows.iter().flat_map(|(_, rows)| rows).filter_map(|row| row.ratio());
    assert!(same.clone().count() > 5 && same.fold(0.0, f64::max) < 1.001);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_loses_or_doubles_is_found() {
    let lost = load(KEYED, Lie::Lose).await.verification;
    assert!(lost.findings.lost > 0 && lost.findings.duplicated == 0, "{lost:?}");
    assert!(!lost.is_passed());
    let doubled = load(KEYED, Lie::Double).await.verification;
    assert!(doubled.findings.duplicated > 0 && doubled.findings.lost == 0, "{doubled:?}");
    assert!(!doubled.is_passed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_gets_shorter_is_found_though_all_was_read() {
    let report = load(KEYED, Lie::Shorten).await;
    let found = &report.verification.findings;
    assert!(found.offsets_back > 0 && found.foreign == 0 && found.damaged == 0, "{found:?}");
    assert!(!report.verification.is_passed() && report.failed.is_none(), "{:?}", report.failed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_fails_for_good_ends_the_run_with_a_report() {
    let report = load(&KEYED.replace("500ms", "20s"), Lie::Fence).await;
    let failed = report.failed.as_ref().expect("a failure");
    assert!(failed.contains("producing to partition"), "{failed}");
    let proof = &report.verification;
    assert!(proof.complete && proof.findings.is_clean(), "{proof:?}");
    assert!(proof.acknowledged > 0 && proof.unsettled > 0, "{proof:?}");
    assert!(report.measured().all(|phase| phase.seconds < 20.0));
    assert!(summary::verdict(&report).starts_with("INCOMPLETE: "), "{}", summary::verdict(&report));
    let page = page::report(&report).expect("a page");
    assert!(page.contains("ended early by a failure: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_be_repeated_is_repeated_in_order() {
    for lie in [Lie::Forget, Lie::Refuse] {
        let report = load(KEYED, lie).await;
        assert!(report.verification.is_passed(), "{lie:?}: {:?}", report.verification);
        assert!(report.phases.iter().any(|phase| phase.retries > 0), "{lie:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_read_while_producers_go_on() {
    let report = load(
        "description = 'x'\nduration = '200ms'\n[produce]\nrate = '1000/s'\n\
         [backlog]\nsize = '2MiB'\n[consume]\nconsumers = 2\n",
        Lie::None,
    )
    .await;
    assert!(report.verification.is_passed(), "{:?}", report.verification);
    let names: Vec<&str> = report.measured().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["producers alone", "catching up", "at the tail"]);
    let read = report.phases.iter().map(|phase| phase.read.bytes).sum::<u64>();
    assert!(read >= 2 << 20, "{read}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_a_rate_that_holds() {
    let report = load(
        "description = 'x'\nduration = '100ms'\n[records]\nsize = '100B'\n[produce]\n\
         [search]\np99 = '10s'\nfrom = '1000/s'\nprecision_percent = 50\n",
        Lie::None,
    )
    .await;
    let found = report.search.expect("a search");
    // Which rates hold is the machine's affair; which one was found is not.
    let held = found.trials.iter().filter(|trial| trial.held).map(|trial| trial.records_per_second);
    assert!(!found.trials.is_empty(), "{found:?}");
    assert_eq!(found.records_per_second, held.reduce(f64::max), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_tells_too_low_ends_is_told_from_one_that_loses() {
    let proof = load(KEYED, Lie::Understate).await.verification;
    let found = &proof.findings;
    assert!(found.unlisted > 0 && found.is_understated() && !proof.is_passed(), "{found:?}");
    let told = found.told.join("\n");
    assert!(told.contains("the server says fewer records than it acknowledged"), "{told}");
    let lost = load(KEYED, Lie::Lose).await.verification;
    assert!(!lost.findings.is_understated(), "{lost:?}");
}

/// 100 requests a second of at most ten records: a hundredth of what is due.
const TOO_MUCH: &str = "
description = 'more than the server takes'
duration = '20s'
warm_up = '100ms'
give_up = '700ms'
[records]
size = '100B'
[topic]
partitions = 1
[produce]
rate = '100000/s'
batch = '1KiB'
request = '1KiB'
buffer = '4KiB'
[consume]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_falls_behind_is_given_up_and_its_latencies_are_not_flattered() {
    let begun = tokio::time::Instant::now();
    let report = load(TOO_MUCH, Lie::Slow).await;
    // 20 s of load, and a minute to drain, are what it did not take.
    assert!(begun.elapsed().as_secs() < 15, "{:?}", begun.elapsed());
    let [slow] = &report.gave_up[..] else { panic!("{:?}", report.gave_up) };
    assert!(slow.starts_with("steady: fell behind: acknowledged"), "{slow}");
    let [steady] = &report.measured().collect::<Vec<_>>()[..] else { panic!("one phase") };
    assert!(steady.seconds < 10.0, "{}", steady.seconds);
    let proof = &report.verification;
    assert!(proof.is_passed(), "{proof:?}");
    // What was due and never made has waited, too.
    assert!(proof.abandoned > 10_000, "{proof:?}");
    let produce = steady.produce.as_ref().expect("latencies");
    assert!(produce.count > 10_000 && produce.p99 > 100.0, "{} {}", produce.count, produce.p99);
    assert!(summary::text(&report).contains("too slow: steady: fell behind"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trial_that_cannot_hold_is_ended_before_its_time() {
    let search = TOO_MUCH
        .replace("rate = '100000/s'\n", "")
        .replace("[consume]\n", "[search]\np99 = '50ms'\nfrom = '100000/s'\nlimit = '1ms'\n");
    let report = load(&search, Lie::Slow).await;
    let found = report.search.expect("a search");
    let [trial] = &found.trials[..] else { panic!("{found:?}") };
    assert!(!trial.held && found.records_per_second.is_none(), "{found:?}");
    assert!(report.phases[trial.phase].seconds < 10.0, "{:?}", report.phases[trial.phase]);
}
