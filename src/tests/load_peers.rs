//! `sluice loadtest peers` as a user runs it: servers compared, results kept, a comparison continued, and nothing left behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Servers that do next to nothing, ended with this value.
struct Null(Child, String);

impl Null {
    fn start() -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_sluice"));
        let server = server.args(["loadtest", "null-server"]).stdin(Stdio::null());
        let mut server = server.stdout(Stdio::piped()).spawn().expect("starts");
        let mut address = String::new();
        let stdout = server.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut address).expect("a line");
        Self(server, address.trim().to_owned())
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn peers(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["loadtest", "peers", "--quick", "--rate", "1MiB/s", "--out", "out"]);
    // What is installed on this machine is not for this test.
    command.args(["--data", "data", "--home", "home"]).args(args);
    command.current_dir(directory).stdin(Stdio::null()).output().expect("ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn servers_are_compared_over_rounds_and_the_comparison_is_continued() {
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (Null::start(), Null::start());
    let also = [format!("a={}", first.1), format!("b={}", second.1)];
    let args = ["--also", &also[0], "--also", &also[1], "--only", "a,b", "--workloads", "tail"];
    let output = peers(directory.path(), &[&args[..], &["--rounds", "2"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let order = text(&output.stderr).lines().filter_map(|line| line.split_once("; now "));
    let order: Vec<&str> = order.filter_map(|(_, now)| now.split(',').next()).collect();
    assert_eq!(order, ["a", "b", "b", "a"], "who begins changes");
    assert!(text(&output.stdout).contains("\n| figure | a | b |\n"), "{output:?}");
    let out = directory.path().join("out");
    let json = std::fs::read_to_string(out.join("report.json")).expect("a report");
    assert!(json.contains("\"schema\": \"sluice-loadtest-peers/2\""), "{json}");
    assert!(json.contains("\"too_noisy\""), "two rounds are judged: {json}");
    let page = std::fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(page.contains("</svg>") && page.contains("produce with tail fetch: p99, ms"), "{page}");
    let run = out.join("runs/2-b-3-tail.json");
    assert!(std::fs::read_to_string(&run).expect("a run").contains("\"sluice-loadtest/1\""));
    // What is there is not played again, and nothing is overwritten by accident.
    let again = peers(directory.path(), &[&args[..], &["--rounds", "2"]].concat());
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(text(&again.stderr).contains("continue it with --continue"), "{again:?}");
    let other = peers(directory.path(), &[&args[..], &["--rounds", "3", "--continue"]].concat());
    assert!(text(&other.stderr).contains("another plan"), "{other:?}");
    std::fs::remove_file(&run).expect("it is there");
    let rest = peers(directory.path(), &[&args[..], &["--rounds", "2", "--continue"]].concat());
    assert_eq!(rest.status.code(), Some(0), "{rest:?}");
    assert_eq!(
        text(&rest.stderr).matches("turns are done; now b, 3 partitions, round 2;").count(),
        1,
        "{rest:?}"
    );
    assert!(run.exists());
}

#[test]
fn a_server_is_started_measured_ended_and_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let args = ["--only", "sluice-file", "--no-store", "--workloads", "produce"];
    let output = peers(directory.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    for figure in ["start to first acknowledged record, ms", "produce: server CPU-s a GiB"] {
        let row = said.lines().find(|line| line.starts_with(&format!("| {figure} |")));
        let value = row.and_then(|row| row.split('|').nth(2)).map(str::trim);
        assert!(value.is_some_and(|value| value.parse::<f64>().is_ok_and(|v| v > 0.0)), "{said}");
    }
    let left = std::fs::read_dir(directory.path().join("data")).expect("it was made");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["lock"], "data are removed");
    let log = directory.path().join("out/logs/sluice-file.log");
    assert!(std::fs::read_to_string(log).expect("a log").contains("---- start of"));
}

/// The processes of this parent.
fn children(parent: u32) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("Linux").filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, after_name) = stat.rsplit_once(')')?;
        let of: u32 = after_name.split_ascii_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(pid)
    });
    pids.collect()
}

#[expect(clippy::disallowed_methods, reason = "the test waits for processes of the real system")]
fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("it has not come to hold");
}

#[test]
fn a_server_does_not_outlive_a_harness_that_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["loadtest", "peers", "--only", "sluice-file", "--no-store", "--rate", "1MiB/s"]);
    command.args(["--workloads", "produce"]).current_dir(directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut harness = command.spawn().expect("starts");
    let mut servers = Vec::new();
    until(|| {
        servers = children(harness.id());
        // Not the shim any more that asks Linux for the signal.
        let exe = |pid: &u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        servers.first().map(exe) == Path::new(env!("CARGO_BIN_EXE_sluice")).canonicalize().ok()
    });
    harness.kill().expect("it runs");
    harness.wait().expect("it has ended");
    until(|| !servers.iter().any(|pid| Path::new(&format!("/proc/{pid}/fd/0")).exists()));
}

#[test]
fn what_is_missing_or_wrong_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = peers(directory.path(), &["--only", "tansu"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("run loadtest/peers/install"), "{missing:?}");
    let unknown = peers(directory.path(), &["--only", "kafak"]);
    assert!(text(&unknown.stderr).contains("there is no server kafak: write some of kafka,"));
    // A server that is not there costs its own figures only.
    let gone = peers(
        directory.path(),
        &["--also", "gone=127.0.0.1:1", "--only", "gone", "--workloads", "produce"],
    );
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(text(&gone.stdout).contains("gone, 3 partitions, round 1, produce: connection to"));
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["loadtest", "run", "steady", "--start", "command:/no/such/server"]);
    let output = command.env("TMPDIR", directory.path()).stdin(Stdio::null()).output();
    let output = output.expect("ends");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("/no/such/server"), "{output:?}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 0);
}

#[test]
fn a_search_begins_where_the_last_round_has_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = Null::start();
    let also = format!("a={}", server.1);
    let args = ["--also", &also, "--only", "a", "--workloads", "max", "--rounds", "2"];
    let output = peers(directory.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = |round: u32| -> serde_json::Value {
        let run = directory.path().join(format!("out/runs/{round}-a-3-max.json"));
        let run = std::fs::read_to_string(run).expect("a run");
        serde_json::from_str(&run).expect("JSON")
    };
    let (first, second) = (report(1), report(2));
    assert_eq!(first["workload"]["search"]["from"], "1MiB/s");
    let found = first["search"]["records_per_second"].as_f64().expect("a rate that held");
    let begun = second["search"]["trials"][0]["records_per_second"].as_f64().expect("a trial");
    assert!((begun - found).abs() <= 1.0, "{found} {begun}");
    assert_eq!(second["workload"]["search"]["step_percent"], 50, "that of --quick");
}
