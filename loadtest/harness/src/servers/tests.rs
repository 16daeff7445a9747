//! Servers are shells here; the harness's own null server answers for them, or nobody does.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::NullServer;

/// Tests run beside each other, and in several processes: each draws other ports.
#[derive(Default)]
struct Counted(AtomicU64);

static DRAWN: AtomicU64 = AtomicU64::new(0);

impl Counted {
    fn new() -> Self {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        Self(AtomicU64::new(u64::from(std::process::id()) * 97 + drawn * 13))
    }
}

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        let next = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        for (place, byte) in out.iter_mut().enumerate() {
            *byte = next[place % 8];
        }
    }
}

/// A shell that runs a script, in a directory of its own.
fn shell(directory: &Path, script: &str, ready: Ready) -> Program {
    Program {
        name: "shell".to_owned(),
        executable: PathBuf::from("sh"),
        args: vec!["-c".into(), script.into()],
        environment: vec![("TOLD".to_owned(), "words".to_owned())],
        hidden: vec!["CARGO_PKG_".to_owned()],
        directory: directory.join("work"),
        log: directory.join("logs/shell.log"),
        ready,
        ready_limit: Duration::from_secs(20),
    }
}

/// Somebody who answers ApiVersions for a shell, as long as the file `up` is in its directory.
fn answering(directory: &Path) -> Ready {
    let port = free_port(&Counted::new()).expect("one");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let up = directory.join("work/up");
    tokio::spawn(async move {
        loop {
            until(|| up.exists()).await;
            let server = NullServer::bind(address, 0).await.expect("listens");
            tokio::select! {
                () = server.serve() => {}
                () = until(|| !up.exists()) => {}
            }
        }
    });
    Ready::Kafka(address.to_string())
}

fn is_there(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended.
    stat.rsplit_once(')').is_some_and(|(_, after)| !after.trim_start().starts_with('Z'))
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(20), async {
        while !holds() {
            sleep(POLL).await;
        }
    });
    waited.await.expect("it comes to hold");
}

async fn until_refused(ready: &Ready) {
    let refused = timeout(Duration::from_secs(20), async {
        while ready.look().await.is_ok() {
            sleep(POLL).await;
        }
    });
    refused.await.expect("it ends");
}

#[tokio::test]
async fn it_is_told_ended_and_started_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "touch up; echo \"$TOLD${CARGO_PKG_NAME-}\" $PWD >&2; exec sleep 1000";
    let program = shell(directory.path(), script, answering(directory.path()));
    let mut server = Server::start(program).await.expect("starts");
    let first = server.pid().expect("it runs");
    assert!(server.is_running() && is_there(first));
    until(|| !server.log_tail().is_empty()).await;
    let said = format!("words {}", directory.path().join("work").display());
    assert_eq!(server.log_tail(), said);
    let stopped = server.terminate(Duration::from_secs(20)).await;
    assert!(!stopped.was_killed && !is_there(first), "{stopped:?}");
    assert_eq!((server.pid(), server.pids()), (None, vec![]));
    let error = server.restart().await.expect_err("the other one still answers").to_string();
    assert!(error.contains("another server answers at 127.0.0.1:"), "{error}");
    std::fs::remove_file(directory.path().join("work/up")).expect("it was there");
    until_refused(&server.program().ready).await;
    server.restart().await.expect("starts again");
    assert_ne!(server.pid(), Some(first));
    until(|| !server.log_tail().is_empty()).await;
    assert_eq!(server.log_tail(), said, "of this start alone");
}

#[tokio::test]
async fn what_does_not_heed_the_first_signal_is_killed_with_its_children() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "touch up; trap '' TERM; sleep 1000 & while :; do wait; done";
    let program = shell(directory.path(), script, answering(directory.path()));
    let mut server = Server::start(program).await.expect("starts");
    until(|| server.pids().len() == 2).await;
    let pids = server.pids();
    let stopped = server.terminate(Duration::from_millis(50)).await;
    assert!(stopped.was_killed && stopped.after >= Duration::from_millis(50));
    until(|| !pids.iter().any(|pid| is_there(*pid))).await;
}

#[tokio::test]
async fn a_dropped_server_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "touch up; sleep 1000 & wait";
    let program = shell(directory.path(), script, answering(directory.path()));
    let server = Server::start(program).await.expect("starts");
    until(|| server.pids().len() == 2).await;
    let pids = server.pids();
    drop(server);
    until(|| !pids.iter().any(|pid| is_there(*pid))).await;
}

#[tokio::test]
async fn a_paused_server_stands_still_until_it_goes_on() {
    let state = |pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        stat.rsplit_once(") ").and_then(|(_, after)| after.chars().next())
    };
    let directory = tempfile::tempdir().expect("a directory");
    let program = shell(directory.path(), "touch up; exec sleep 1000", answering(directory.path()));
    let mut server = Server::start(program).await.expect("starts");
    let pid = server.pid().expect("it runs");
    server.pause();
    until(|| state(pid) == Some('T')).await;
    server.resume();
    until(|| state(pid) == Some('S')).await;
    server.pause();
    // A crash of a server that hangs.
    server.kill().await;
    assert!(!is_there(pid) && !server.is_running());
}

#[tokio::test]
async fn why_it_is_not_ready_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let nobody = Ready::Kafka(format!("127.0.0.1:{}", free_port(&Counted::new()).expect("one")));
    let program = shell(directory.path(), "echo no; exit 3", nobody.clone());
    let error = Server::start(program).await.expect_err("it ends").to_string();
    assert!(error.contains("exit status: 3) before it was ready"), "{error}");
    assert!(error.ends_with("\nno"), "{error}");
    let mut silent = shell(directory.path(), "echo $$; exec sleep 1000", nobody);
    silent.ready_limit = Duration::from_millis(500);
    let error = Server::start(silent.clone()).await.expect_err("nobody answers");
    let StartError::TimedOut { log, reason, .. } = &error else { panic!("{error}") };
    assert!(!is_there(log.parse().expect("a pid")) && reason.contains("refused"), "{error}");
    silent.executable = directory.path().join("nothing");
    let error = Server::start(silent).await.expect_err("there is none").to_string();
    assert!(error.contains("nothing"), "{error}");
}

#[test]
fn ports_are_free_and_below_those_of_clients() {
    // The first that these numbers give is taken.
    let (entropy, same) = (Counted::new(), Counted::default());
    same.0.store(entropy.0.load(Ordering::Relaxed), Ordering::Relaxed);
    let first = free_port(&entropy).expect("one");
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).expect("it is free");
    let second = free_port(&same).expect("another");
    assert!(second != first && (10_000..31_000).contains(&second), "{second}");
}
