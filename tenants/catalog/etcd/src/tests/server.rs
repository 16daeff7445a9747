//! An etcd of a test's own: one member or more, on loopback, with a directory that goes with it.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::Endpoint;

use crate::session::Session;

/// How long etcd may take to be there.
const START: Duration = Duration::from_secs(60);

/// An address where nobody listens.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An etcd. Its members end with it.
pub(super) struct Etcd {
    members: Vec<Member>,
    _dir: TempDir,
}

struct Member {
    arguments: Vec<String>,
    client: String,
    log: PathBuf,
    process: Option<Child>,
}

impl Etcd {
    /// Starts as many members and waits until they serve.
    pub(super) async fn start(members: usize) -> Self {
        let mut etcd = Self::prepare(members, "http", &[]);
        etcd.start_all();
        for member in 0..members {
            etcd.serving(member).await;
        }
        etcd
    }

    /// Members that do not run yet; clients come by `scheme`.
    pub(super) fn prepare(members: usize, scheme: &str, more: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // All are held until all are known, so that they differ.
        let held: Vec<_> =
            (0..2 * members).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let urls: Vec<_> = held.iter().map(|held| held.local_addr().unwrap()).collect();
        let (clients, peers) = urls.split_at(members);
        let cluster: Vec<_> =
            peers.iter().enumerate().map(|(at, peer)| format!("m{at}=http://{peer}")).collect();
        let members = clients.iter().zip(peers).enumerate().map(|(at, (client, peer))| {
            let client = format!("{scheme}://{client}");
            let mut arguments = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", dir.path().join(format!("m{at}")).display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", cluster.join(",")),
                "--initial-cluster-token=sluice-test".to_owned(),
                "--logger=zap".to_owned(),
            ];
            arguments.extend_from_slice(more);
            let log = dir.path().join(format!("m{at}.log"));
            Member { arguments, client, log, process: None }
        });
        let members = members.collect();
        Self { members, _dir: dir }
    }

    pub(super) fn start_all(&mut self) {
        self.members.iter_mut().for_each(Member::start);
    }

    /// The URLs of all members.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Where clients reach the first member.
    pub(super) fn address(&self) -> SocketAddr {
        let (_, address) = self.members[0].client.split_once("//").unwrap();
        address.parse().unwrap()
    }

    /// Waits until a member without TLS serves. Nothing tells of it, so it is asked.
    pub(super) async fn serving(&mut self, member: usize) {
        let deadline = Instant::now() + START;
        while self.leader_seen_by(member).await.is_none() {
            let member = &mut self.members[member];
            let ended = member.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "etcd does not serve: {ended:?}\n{}",
                std::fs::read_to_string(&member.log).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the member leads, if it knows who does.
    async fn leader_seen_by(&self, member: usize) -> Option<bool> {
        let endpoint = Endpoint::from_shared(self.members[member].client.clone()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(2);
        let (_, status) = Session::connect(&endpoint, None, deadline).await.ok()?;
        (status.leader != 0).then(|| status.header.unwrap().member_id == status.leader)
    }

    /// The member that leads now.
    pub(super) async fn leader(&self) -> usize {
        let deadline = Instant::now() + START;
        loop {
            for member in 0..self.members.len() {
                if self.leader_seen_by(member).await == Some(true) {
                    return member;
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills a member, without a warning.
    pub(super) fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member again where it was killed.
    pub(super) fn restart(&mut self, member: usize) {
        self.members[member].start();
    }

    /// Halts a member where it stands; its connections stay open.
    pub(super) fn halt(&self, member: usize) {
        self.members[member].signal(Signal::STOP);
    }

    pub(super) fn go_on(&self, member: usize) {
        self.members[member].signal(Signal::CONT);
    }

    /// Runs etcdctl against the first member.
    pub(super) fn ctl(&self, arguments: &[&str]) {
        let bytes: Vec<_> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.ctl_bytes(&bytes);
    }

    /// The same, with arguments that are no text.
    pub(super) fn ctl_bytes(&self, arguments: &[&[u8]]) {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.members[0].client))
            .args(arguments.iter().map(|argument| OsStr::from_bytes(argument)))
            .output()
            .expect("etcdctl runs: apt-get install --no-install-recommends etcd-client");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

impl Member {
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let process = Command::new("etcd")
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd runs: apt-get install --no-install-recommends etcd-server etcd-client");
        self.process = Some(process);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
