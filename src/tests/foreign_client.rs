//! Loads by librdkafka's producers and consumers, as a user runs them: `make test-foreign-client`.

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(workload: &str, dir: &Path) -> (Output, Option<serde_json::Value>) {
    let (file, report) = (dir.join("w.toml"), dir.join("report.json"));
    std::fs::write(&file, workload).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLUICE_") {
            command.env_remove(name);
        }
    }
    command.args(["loadtest", "run"]).arg(&file).args(["--client", "librdkafka"]);
    command.args(["--start", "sluice", "--json"]).arg(&report).stdin(Stdio::null());
    let output = command.output().expect("runs");
    let report = std::fs::read_to_string(report).ok();
    (output, report.map(|text| serde_json::from_str(&text).expect("JSON")))
}

#[test]
fn what_librdkafka_writes_it_reads_once_and_in_order() {
    for (what, more) in [
        ("no keys", "[produce]\nproducers = 2\nrate = '4000/s'\nlinger = '5ms'\n"),
        (
            "keys and a codec",
            "[records]\nkeys = 'zipf'\ncompression = 'lz4'\ncompressibility = 0.5\n\
             [produce]\nproducers = 2\nrate = '4000/s'\narrivals = 'poisson'\n",
        ),
        (
            "a backlog, and a full buffer",
            "[produce]\nproducers = 2\nrate = '4000/s'\nbuffer = '1MiB'\n\
             [backlog]\nsize = '64MiB'\n",
        ),
    ] {
        let text = format!(
            "description = '{what}'\nduration = '2s'\n[topic]\npartitions = 4\n{more}\
             [consume]\ngroups = 2\nconsumers = 2\n"
        );
        let dir = tempfile::tempdir().expect("a directory");
        let (output, report) = run(&text, dir.path());
        assert!(output.status.success(), "{what}: {output:?}");
        let report = report.expect("a report");
        assert_eq!(report["workload"]["client"], "librdkafka");
        assert_eq!(report["verification"]["findings"]["lost"], 0, "{what}");
        let acknowledged = &report["verification"]["acknowledged"];
        assert!(acknowledged.as_u64() > Some(7_000), "{what}: {acknowledged}");
        let phases = report["phases"].as_array().expect("phases");
        let last = phases.iter().rfind(|phase| phase["measured"] == true).expect("a phase");
        let rate = last["written"]["records_per_second"].as_f64().expect("a rate");
        assert!((3_600.0..4_400.0).contains(&rate), "{what}: it keeps to the schedule: {rate}");
    }
}

#[test]
fn what_librdkafka_does_not_do_here_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "description = 'too much'\nduration = '1s'\n[records]\ncompression = 'zstd'\n\
                [produce]\nproducers = 300\nrate = '10/s'\n[transactions]\ncommit_every = '1s'\n";
    let (output, report) = run(text, dir.path());
    assert_eq!(output.status.code(), Some(2));
    assert!(report.is_none());
    let told = String::from_utf8_lossy(&output.stderr);
    for word in ["snappy and lz4", "[transactions]", "up to 200"] {
        assert!(told.contains(word), "{word}: {told}");
    }
}
