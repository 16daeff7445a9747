//! Load tests from many processes, as a user runs them: agents that are started, that come by themselves, and that are
//! killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

const TOKEN: &str = "the token of this test";

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sluice() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SLUICE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server that does next to nothing, and its address.
fn null_server() -> (Process, String) {
    let mut child = sluice().args(["loadtest", "null-server"]).spawn().expect("starts");
    let stdout: ChildStdout = child.stdout.take().expect("its output");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("its address");
    (Process(child), line.trim().to_owned())
}

fn workload(dir: &Path) -> String {
    let path = dir.join("four.toml");
    let text = "description = 'four producers, four consumers'\nduration = '2s'\n\
                [topic]\npartitions = 4\n[produce]\nproducers = 4\nrate = '2000/s'\n\
                [consume]\nconsumers = 4\n";
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

fn report(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[test]
fn a_load_comes_from_processes_that_it_starts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, address) = null_server();
    let json = dir.path().join("report.json");
    let output = sluice()
        .args(["loadtest", "run", &workload(dir.path()), "--bootstrap", &address])
        .args(["--agents", "2", "--duration", "1s", "--json"])
        .arg(&json)
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("2 agents; clocks right within"), "{}", text(&output));
    let report = report(&json);
    let agents = report["agents"].as_array().expect("agents");
    assert_eq!(agents.len(), 2);
    let cpu = |agent: &serde_json::Value| agent["cpu_seconds"].as_f64();
    assert!(agents.iter().all(|agent| cpu(agent) > Some(0.0)), "{agents:?}");
    assert_eq!(report["verification"]["complete"], true);
}

#[test]
fn a_run_goes_on_without_an_agent_that_is_killed_and_says_what_it_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_server, address) = null_server();
    let token = dir.path().join("token");
    std::fs::write(&token, TOKEN).expect("a file");
    let json = dir.path().join("report.json");
    let mut run = sluice()
        .args(["loadtest", "run", &workload(dir.path()), "--bootstrap", &address])
        .args(["--listen", "127.0.0.1:0", "--expect", "2", "--duration", "4s", "--token-file"])
        .arg(&token)
        .arg("--json")
        .arg(&json)
        .spawn()
        .expect("starts");
    let mut stderr = BufReader::new(run.stderr.take().expect("its errors"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("where it waits");
    let coordinator = line.trim().rsplit(' ').next().expect("an address").to_owned();
    let agent = || {
        let mut command = sluice();
        command.args(["loadtest", "agent", "--coordinator", &coordinator]);
        command
    };
    let refused = agent().env("SLUICE_LOADTEST_TOKEN", "not the token of this test").output();
    let refused = refused.expect("runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("the token is wrong"), "{}", text(&refused));
    let start = || Process(agent().env("SLUICE_LOADTEST_TOKEN", TOKEN).spawn().expect("starts"));
    let (mut stays, mut killed) = (start(), start());
    wait_for_load(killed.0.id());
    killed.0.kill().expect("killed");
    let output = run.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("INCOMPLETE: ") && said.contains("50 % of the load"), "{said}");
    assert_eq!(stays.0.wait().expect("ends").code(), Some(0));
    let report = report(&json);
    let lost: Vec<_> = report["agents"]
        .as_array()
        .expect("agents")
        .iter()
        .map(|agent| &agent["lost"])
        .filter(|lost| !lost.is_null())
        .collect();
    let [lost] = lost[..] else { panic!("one is lost: {said}") };
    assert!(lost["at"].as_f64() > Some(0.0) && lost["load_share"] == 0.5, "{lost}");
    assert_eq!(lost["unread"].as_array().map(Vec::len), Some(2), "{lost}");
    let proof = &report["verification"];
    assert_eq!((&proof["lost_agents"], &proof["findings"]["foreign"]), (&1.into(), &0.into()));
    assert_eq!(proof["findings"]["lost"], 0);
    // What the other one wrote: half of the load, all the time.
    assert!(proof["acknowledged"].as_u64() >= Some(3900), "{proof}");
}

/// Waits until an agent's two producers and two consumers have connections: before that it has one to the
/// coordinator, one more while it meets the cluster, and the runtime's own.
fn wait_for_load(pid: u32) {
    let sockets = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
        let links = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
    };
    let (done, waited) = std::sync::mpsc::channel::<()>();
    for _ in 0..3000 {
        if sockets() >= 8 {
            return;
        }
        // Nobody ever sends: it is a wait that needs no clock.
        let _ = waited.recv_timeout(std::time::Duration::from_millis(10));
    }
    drop(done);
    panic!("no load after 30 s");
}
