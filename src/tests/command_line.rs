//! The binary as a user runs it: what it prints where, and how it ends.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Far more than any of these commands takes; a process that hangs fails the test.
const LIMIT: Duration = Duration::from_secs(60);

fn sluice(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLUICE_") {
            command.env_remove(name);
        }
    }
    command.args(args).envs(environment.iter().copied()).stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    ended.recv_timeout(LIMIT).expect("ends in time").expect("output")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

#[test]
fn version_tells_what_this_is() {
    let output = sluice(&["version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    let line = text(&output.stdout);
    assert!(line.starts_with(concat!("sluice ", env!("CARGO_PKG_VERSION"), " (commit ")), "{line}");
}

#[test]
fn help_is_an_answer_and_a_wrong_command_line_an_error() {
    let output = sluice(&["up", "--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("Examples:\n  sluice up\n"));
    for args in [&[][..], &["down"], &["up", "--kafak", "x"], &["up", "-v", "--log-level", "info"]]
    {
        let output = sluice(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_wrong_configuration_is_told_whole_on_stderr() {
    for args in [&["up"][..], &["config", "check"], &["config", "show"]] {
        let environment = [("SLUICE_NODE_ID", "one"), ("SLUICE_HTTP_LISTEN", "here")];
        let output = sluice(args, &environment);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        let stderr = text(&output.stderr);
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        assert!(stderr.lines().all(|line| line.starts_with("error: ")), "{stderr}");
        assert!(stderr.contains("node_id (environment SLUICE_NODE_ID) is \"one\""), "{stderr}");
    }
}

#[test]
fn what_is_shown_is_a_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let shown = sluice(&["config", "show", "--data", "/srv/sluice"], &[]);
    assert_eq!(shown.status.code(), Some(0));
    let path = dir.path().join("shown.toml");
    std::fs::write(&path, &shown.stdout).expect("a file");
    let again = sluice(&["config", "show"], &[("SLUICE_CONFIG", path.to_str().expect("UTF-8"))]);
    assert_eq!(again.status.code(), Some(0));
    let values = |output: &Output| -> Vec<String> {
        let lines = text(&output.stdout).lines();
        lines.map(|line| line.split('#').next().unwrap_or("").trim_end().to_owned()).collect()
    };
    assert_eq!(values(&again), values(&shown));
    assert!(values(&again).contains(&"data_dir = \"/srv/sluice\"".to_owned()));
}

#[test]
fn the_example_configuration_is_right() {
    let path = deploy("sluice.toml");
    let output = sluice(&["config", "check", "--config", path.to_str().expect("UTF-8")], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_unit_starts_sluice_with_flags_that_exist() {
    let unit = std::fs::read_to_string(deploy("sluice.service")).expect("the unit");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart");
    let mut words = line.split_whitespace().skip(1);
    assert_eq!(words.next(), Some("up"));
    let example = deploy("sluice.toml");
    let example = example.to_str().expect("UTF-8");
    let installed = "/etc/sluice/sluice.toml";
    let flags = words.map(|word| if word == installed { example } else { word });
    let args: Vec<&str> = ["config", "check"].into_iter().chain(flags).collect();
    assert!(args.contains(&example), "{line}");
    let output = sluice(&args, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn the_cluster_is_seen_while_no_process_has_its_catalog() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let cluster =
        |args: &[&str]| sluice(&[&["cluster"], args, &["--data-dir", data]].concat(), &[]);
    let nothing = cluster(&["status"]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
    assert!(text(&nothing.stderr).contains("there is no catalog in"), "{nothing:?}");

    let up = ["up", "--data", data, "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let mut server = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let mut server =
        server.args(up).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts");
    let mut ready = String::new();
    let stdout = server.stdout.take().expect("stdout");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready).expect("a line");
    assert!(ready.starts_with("sluice is ready"), "{ready}");
    let locked = cluster(&["nodes"]);
    assert_eq!(locked.status.code(), Some(2), "{locked:?}");
    assert!(text(&locked.stderr).contains("another process has the catalog"), "{locked:?}");
    server.kill().expect("killed");
    server.wait().expect("ended");

    let volumes = cluster(&["volumes", "--output", "json"]);
    // The node that was killed is taken for alive until its lease has run out.
    assert!(matches!(volumes.status.code(), Some(0 | 1)), "{volumes:?}");
    let volumes: serde_json::Value = serde_json::from_slice(&volumes.stdout).expect("JSON");
    assert_eq!((&volumes[0]["owner"], &volumes[0]["kind"]), (&1.into(), &"file".into()));
    let refused = cluster(&["move", "0", "--to", "7"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("node 7 is not alive"), "{refused:?}");
    let refused = cluster(&["move-stream", "t/0", "--to", "1"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("there is no topic t"), "{refused:?}");
    assert_eq!(cluster(&["balance", "off"]).status.code(), Some(0));
    let status = cluster(&["status"]);
    assert!(text(&status.stdout).contains("balance   off"), "{status:?}");
    assert_eq!(cluster(&["drain", "3"]).status.code(), Some(0), "it has nothing");
    assert!(text(&cluster(&["status"]).stdout).contains("drained   node 3"));
    assert_eq!(cluster(&["undrain", "3"]).status.code(), Some(0));
    assert!(!text(&cluster(&["status"]).stdout).contains("drained"));
}

#[test]
fn a_failure_while_running_is_one_log_line_and_code_1() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let http = taken.local_addr().expect("its address").to_string();
    let data = dir.path().join("data");
    let args =
        ["up", "--data", data.to_str().expect("UTF-8"), "--kafka", "127.0.0.1:0", "--http", &http];
    let output = sluice(&args, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "no ready line");
    let last = text(&output.stderr).lines().last().expect("a line");
    let entry: serde_json::Value = serde_json::from_str(last).expect("JSON on a pipe");
    assert_eq!(entry["level"], "ERROR");
    assert!(entry["error"].as_str().expect("text").contains(&http), "{last}");
}

#[test]
fn tools_say_what_to_do_when_there_is_nothing_to_work_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (nothing, bucket) = (at("nothing"), format!("file:{}", at("bucket")));
    std::fs::create_dir(at("bucket")).expect("a directory");
    std::fs::write(at("file"), b"not a segment, and not a volume").expect("a file");
    let refused: &[(&[&str], &str)] = &[
        (&["verify", "--data-dir", &nothing], "say where it is with --bucket"),
        (&["verify", "--data-dir", &nothing, "--bucket", &bucket], "the bucket has: none"),
        (&["verify", "--bucket", &bucket, "--cluster", "x"], "has no cluster x"),
        (&["verify", "--bucket", "ftp://x"], "--bucket"),
        (&["restore", "--from", &bucket, "--data-dir", &nothing], "the bucket has: none"),
        (&["restore", "--from", &bucket, "--data-dir", &at("")], "is not empty"),
        (&["restore", "--from", "file:/no/such", "--data-dir", &nothing], "no bucket at /no/such"),
        (&["volume", "inspect", &nothing], "no such volume"),
        (&["segment", "inspect", &nothing, "--bucket", &bucket], "is missing"),
        (&["restore", "--data-dir", &nothing], "--from"),
    ];
    for (args, hint) in refused {
        let output = sluice(args, &[]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty() && stderr.contains(hint), "{args:?}: {stderr}");
    }
    assert!(!Path::new(&nothing).exists(), "nothing was made");
    for tool in ["segment", "volume"] {
        let output = sluice(&[tool, "inspect", &at("file"), "--output", "json"], &[]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let _: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    }
}

#[test]
fn each_tool_explains_itself_with_examples_and_exit_codes() {
    let tools: [&[&str]; 4] =
        [&["verify"], &["restore"], &["segment", "inspect"], &["volume", "inspect"]];
    for tool in tools {
        let output = sluice(&[tool, &["--help"]].concat(), &[]);
        let help = text(&output.stdout);
        assert!(help.contains(&format!("Examples:\n  sluice {}", tool.join(" "))), "{help}");
        assert!(help.contains("Exit codes: 0 "), "{help}");
    }
}

#[test]
fn load_tests_tell_their_workloads_and_what_is_wrong_with_one() {
    let list = sluice(&["loadtest", "list"], &[]);
    assert!(text(&list.stdout).contains("steady "), "{list:?}");
    let steady = sluice(&["loadtest", "show", "steady"], &[]);
    assert!(text(&steady.stdout).contains("rate = \"80MiB/s\""), "{steady:?}");
    let unknown = sluice(&["loadtest", "run", "no-such"], &[]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown.stderr).contains("there is no workload no-such"), "{unknown:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("mine.toml");
    let wrong = text(&steady.stdout).replace("partitions = 8", "partitions = 0\nreplicas = 1");
    std::fs::write(&file, wrong).expect("a file");
    let output = sluice(&["loadtest", "run", file.to_str().expect("UTF-8")], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("unknown field `replicas`"), "{output:?}");
    if !cfg!(feature = "librdkafka") {
        let foreign = sluice(&["loadtest", "run", "steady", "--client", "librdkafka"], &[]);
        assert_eq!(foreign.status.code(), Some(2));
        assert!(text(&foreign.stderr).contains("--features librdkafka"), "{foreign:?}");
    }
}

#[test]
fn a_load_test_against_the_null_server_gives_a_report() {
    let dir = tempfile::tempdir().expect("a directory");
    let [json, html] = ["report.json", "report.html"].map(|name| dir.path().join(name));
    let mut server = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let server = server.args(["loadtest", "null-server"]).stdin(Stdio::null());
    let mut server = server.stdout(Stdio::piped()).spawn().expect("starts");
    let mut address = String::new();
    let stdout = server.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut address)
        .expect("a line");
    let [json_path, html_path] = [&json, &html].map(|path| path.to_str().expect("UTF-8"));
    let args =
        ["loadtest", "run", "steady", "--rate", "1MiB/s", "--duration", "1s", "--warm-up", "0s"];
    let files = ["--json", json_path, "--html", html_path, "--bootstrap", address.trim()];
    let output = sluice(&[&args[..], &files[..]].concat(), &[]);
    server.kill().expect("ends");
    server.wait().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("\nverified: "), "{output:?}");
    let report = std::fs::read_to_string(&json).expect("a report");
    assert!(report.contains("\"schema\": \"sluice-loadtest/1\""));
    assert!(std::fs::read_to_string(&html).expect("a page").contains("</svg>"));
    let same = sluice(&["loadtest", "compare", json_path, json_path], &[]);
    assert_eq!(same.status.code(), Some(0), "{same:?}");
    assert!(text(&same.stdout).contains("| produce p99, ms |"), "{same:?}");
}

/// A load of six seconds with these faults.
fn with_faults(dir: &Path, faults: &str) -> String {
    let file = dir.join("faults.toml");
    let load = "description = 'x'\nduration = '6s'\n[topic]\npartitions = 3\n[records]\nsize = '200B'\n\
        [produce]\nproducers = 2\nrate = '1000/s'\nlinger = '5ms'\ndelivery_timeout = '10s'\n[consume]\nconsumers = 2\n";
    std::fs::write(&file, format!("{load}{faults}")).expect("a file");
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_load_test_kills_stops_and_restarts_the_server_that_it_started() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = "[[fault]]\nkind = 'kill'\nat = '500ms'\nevery = '2s'\n\
        [[fault]]\nkind = 'stop'\nat = '1s'\nfor = '300ms'\n\
        [[fault]]\nkind = 'restart'\nat = '1500ms'\ndown = '100ms'\n";
    let workload = with_faults(dir.path(), faults);
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let config = at("sluice.toml");
    std::fs::write(&config, "[volumes]\nsize = \"128MiB\"\n").expect("a file");
    let (json, html) = (at("report.json"), at("report.html"));
    let start = format!("sluice:{config}");
    let args = ["loadtest", "run", &workload, "--start", &start, "--data", &at("data")];
    let output = sluice(&[&args[..], &["--json", &json, "--html", &html]].concat(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = std::fs::read_to_string(&json).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let faults = report["faults"].as_array().expect("faults");
    let kinds: Vec<_> = faults.iter().filter_map(|fault| fault["kind"].as_str()).collect();
    assert_eq!(kinds[..3], ["kill", "stop", "restart"], "{kinds:?}");
    for fault in faults {
        assert!(fault["first_acknowledged"].as_f64() > Some(0.0), "{fault}");
        assert!(fault["first_read"].as_f64() > Some(0.0), "{fault}");
        assert!(fault["silence"].as_f64() > Some(0.0), "{fault}");
    }
    assert!(std::fs::read_to_string(&html).expect("a page").contains("</span>restart<"));
    assert!(text(&output.stdout).contains("  stop           1 times; acknowledged "), "{output:?}");
}

/// A short load with these faults on a server that holds everything in memory alone. `through` runs it.
fn load_on_memory(faults: &str, through: &str) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let workload = with_faults(dir.path(), faults);
    let text_of = std::fs::read_to_string(&workload).expect("the workload");
    std::fs::write(&workload, text_of.replace("'10s'", "'1s'")).expect("a file");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr());
    let address = port.expect("a port").to_string();
    let program = env!("CARGO_BIN_EXE_sluice");
    let start = format!("command:{through}{program} loadtest null-server --listen {address}");
    let data = dir.path().join("data");
    let data = data.to_str().expect("UTF-8");
    let args = ["loadtest", "run", &workload, "--start", &start, "--bootstrap", &address];
    sluice(&[&args[..], &["--data", data]].concat(), &[])
}

#[test]
fn a_fault_that_loses_what_was_acknowledged_is_found() {
    let output = load_on_memory("[[fault]]\nkind = 'kill'\nat = '1s'\n", "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("\nFAILED: of ") && said.contains("and now ends at 0"), "{said}");
    assert!(said.contains("ended early by a failure: "), "{said}");
}

#[test]
fn a_server_that_ends_by_itself_is_told() {
    let output = load_on_memory("", "timeout 2 ");
    let said = text(&output.stdout);
    assert!(said.contains("ended early by a failure: the server has ended by itself"), "{said}");
    // Started again it holds nothing, which is found, unless it has ended once more before it could be asked.
    assert!(matches!(output.status.code(), Some(1 | 3)), "{output:?}");
}

#[test]
fn faults_are_refused_where_they_cannot_be_injected() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = [
        ("kind = 'kill'", &[][..], "write --start in place of --bootstrap"),
        ("kind = 'cut-bucket'\nfor = '1s'", &["--start", "sluice"], "over plain HTTP"),
        ("kind = 'fill-disk'\nfor = '1s'", &["--start", "sluice"], "a file system of its own"),
        (
            "kind = 'kill'",
            &["--faults", "kill,burn"],
            "there is no fault burn: write none, or of kill,",
        ),
        ("kind = 'kill'", &["--start", "kafak"], "write sluice, sluice:CONFIG, kafka or command:"),
    ];
    let data = dir.path().join("data");
    let data = data.to_str().expect("UTF-8");
    for (fault, args, told) in refused {
        let workload = with_faults(dir.path(), &format!("[[fault]]\nat = '1s'\n{fault}\n"));
        let own = if args.contains(&"--start") { &["--data", data] } else { &[][..] };
        let args = [&["loadtest", "run", &workload], args, own].concat();
        let output = sluice(&args, &[("SLUICE_VOLUMES_SIZE", "128MiB")]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(told), "{output:?}");
    }
}

#[test]
fn groups_whose_members_come_and_go_read_all_through_a_crash() {
    members_come_and_go("consumer");
}

#[test]
fn classic_groups_whose_members_come_and_go_read_all_through_a_crash() {
    members_come_and_go("classic");
}

fn members_come_and_go(protocol: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let workload = with_faults(dir.path(), "[[fault]]\nkind = 'kill'\nat = '3s'\n");
    let text_of = std::fs::read_to_string(&workload).expect("the workload");
    let groups =
        format!("groups = 2\nconsumers = 3\nprotocol = '{protocol}'\nrejoin_every = '1500ms'\n");
    std::fs::write(&workload, text_of.replace("consumers = 2\n", &groups)).expect("a file");
    let at = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let (json, data) = (at("report.json"), at("data"));
    let args = ["loadtest", "run", &workload, "--start", "sluice", "--data", &data];
    let environment = [("SLUICE_VOLUMES_SIZE", "128MiB")];
    let output = sluice(&[&args[..], &["--json", &json]].concat(), &environment);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = std::fs::read_to_string(&json).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    // Each has left once before it has committed anything, whoever had the partitions.
    let reread = report["verification"]["findings"]["reread"].as_u64();
    assert!(reread > Some(0), "{report}");
    assert!(text(&output.stdout).contains(" of them again after rebalances\n"), "{output:?}");
}
