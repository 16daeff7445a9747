//! Drivers start agents somewhere. They know nothing of the run: agents come to the coordinator by themselves.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Token;

/// Agents whose run is over have so long to end by themselves.
const END_LIMIT: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);

/// Where agents come from.
///
/// Agents that [`Self::start`] gave run until their run is over or [`Self::stop`] is called; dropping the driver
/// must not leave any behind.
pub trait Driver {
    /// Starts so many agents, which go to `coordinator` and show `token` there. Comes back when they are on their
    /// way. Where it fails, or is dropped midway, [`Self::stop`] ends those that were started.
    fn start(
        &mut self,
        count: usize,
        coordinator: SocketAddr,
        token: &Token,
    ) -> impl Future<Output = io::Result<()>>;

    /// Waits a little for agents to end by themselves, and ends the others. Comes back when none is left.
    fn stop(&mut self) -> impl Future<Output = ()>;
}

/// Agents as processes of this machine.
#[derive(Debug)]
pub struct LocalProcesses {
    program: PathBuf,
    children: Vec<Child>,
}

impl LocalProcesses {
    /// `program` is `sluice`.
    pub fn new(program: PathBuf) -> Self {
        Self { program, children: Vec::new() }
    }
}

impl Driver for LocalProcesses {
    async fn start(
        &mut self,
        count: usize,
        coordinator: SocketAddr,
        token: &Token,
    ) -> io::Result<()> {
        for _ in 0..count {
            let child = Command::new(&self.program)
                .args(["loadtest", "agent", "--coordinator", &coordinator.to_string()])
                // Everybody can read a command line.
                .env(Token::VARIABLE, token.secret())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                // Ctrl-C is for the coordinator, which ends the run in order.
                .process_group(0)
                .spawn()?;
            self.children.push(child);
        }
        Ok(())
    }

    async fn stop(&mut self) {
        let until = Instant::now() + END_LIMIT;
        while self.children.iter_mut().any(|child| matches!(child.try_wait(), Ok(None)))
            && Instant::now() < until
        {
            sleep(POLL).await;
        }
        self.kill();
    }
}

impl LocalProcesses {
    fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            // One that has ended already is only waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for LocalProcesses {
    fn drop(&mut self) {
        self.kill();
    }
}
