//! Servers as child processes: started, watched until they are ready, signalled, started anew, ended.
//!
//! A [`Server`] owns one process at a time, its process group and its log; what it is made from, a [`Program`], stays
//! the same over restarts, as clients must find it again. What always holds: it never outlives its owner. Dropping it
//! kills its group; should this process be killed, Linux kills the server (PR_SET_PDEATHSIG, through `setpriv`,
//! where that is installed). It knows nothing of what runs inside: kinds of servers are functions that give a [`Program`].
//!
//! A server dies with the *thread* that started it: start servers from threads that last, never from a blocking pool.

pub mod kinds;
mod ready;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use sluice_model::Entropy;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

pub use ready::Ready;

use crate::process;

/// Between two looks at a server that starts: some are ready within a few ms.
const POLL: Duration = Duration::from_millis(2);
/// Lines of its log that an error tells.
const TAIL_LINES: usize = 20;
const TAIL_BYTES: u64 = 16 << 10;

/// How a server is started, each time in the same way.
#[derive(Clone, Debug)]
pub struct Program {
    /// What messages call it.
    pub name: String,
    /// The executable: a path, or a name that is looked for in `PATH`.
    pub executable: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables of its environment, over those of this process.
    pub environment: Vec<(String, String)>,
    /// Variables whose names begin so are not handed on: they would be settings of the server by mistake.
    pub hidden: Vec<String>,
    /// Its working directory, made if it is not there.
    pub directory: PathBuf,
    /// Where its output goes, behind what is there already.
    pub log: PathBuf,
    /// When it counts as ready.
    pub ready: Ready,
    /// How long that may take.
    pub ready_limit: Duration,
}

/// Why a server is not there.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be made.
    #[error("cannot start {name} ({path}): {reason}", path = .executable.display())]
    Spawn {
        /// The server.
        name: String,
        /// What should have been run.
        executable: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// Somebody answers already where it should: another server, perhaps one that was left behind.
    #[error("cannot start {name}: another server answers at {address} already")]
    Taken {
        /// The server.
        name: String,
        /// Where.
        address: String,
    },
    /// It ended by itself.
    #[error("{name} has ended ({status}) before it was ready; its log ends with:\n{log}")]
    Ended {
        /// The server.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It took too long, and was killed.
    #[error("{name} was not ready within {} s ({reason}); its log ends with:\n{log}", .limit.as_secs())]
    TimedOut {
        /// The server.
        name: String,
        /// How long it was given.
        limit: Duration,
        /// What was wrong the last time that somebody looked.
        reason: String,
        /// The end of its log.
        log: String,
    },
}

/// How a server has ended when it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// From the signal to the end.
    pub after: Duration,
    /// It did not end by itself in time, and was killed.
    pub was_killed: bool,
}

/// A server that this process has started.
#[derive(Debug)]
pub struct Server {
    program: Program,
    /// None when it has ended and was waited for.
    child: Option<Child>,
    /// What is left to kill: its group, which may outlive the process that it is named after.
    group: Option<Pid>,
    started: Instant,
    ready_after: Duration,
    /// Where this start's part of the log begins.
    log_start: u64,
}

impl Server {
    /// Starts a server, and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time, with the end of its log. It runs no longer then.
    pub async fn start(program: Program) -> Result<Self, StartError> {
        let started = Instant::now();
        let ready_after = Duration::ZERO;
        let mut server =
            Self { program, child: None, group: None, started, ready_after, log_start: 0 };
        server.restart().await?;
        Ok(server)
    }

    /// Starts it again as it was started before, killing what still runs, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Server::start`]; it can be tried again.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        self.kill().await;
        if self.program.ready.look().await.is_ok() {
            let (name, address) = (self.program.name.clone(), self.program.ready.address());
            return Err(StartError::Taken { name, address });
        }
        self.spawn().map_err(|error| StartError::Spawn {
            name: self.program.name.clone(),
            executable: self.program.executable.clone(),
            reason: error.to_string(),
        })?;
        self.wait_until_ready().await
    }

    /// What it is made from.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The process that was started; none if it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// It, what it has started, and what those have.
    pub fn pids(&self) -> Vec<u32> {
        self.pid().map(process::family).unwrap_or_default()
    }

    /// When the process was made, the last time.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// From then until it was ready.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        let is_running =
            self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
        if !is_running {
            self.kill_group();
        }
        is_running
    }

    /// Waits until it ends by itself; what it leaves behind is killed. At once if it does not run. Cancel safe.
    pub async fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.wait().await.ok();
        self.kill_group();
        status
    }

    /// SIGTERM to the process that was started, SIGKILL to all of them if it is still there after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> Stopped {
        let begun = Instant::now();
        if self.is_running()
            && let Some(pid) = self.group
        {
            // It fails only if it has ended meanwhile, and so below.
            let _ = kill_process(pid, Signal::TERM);
        }
        let was_killed = timeout(limit, self.ended()).await.is_err();
        self.kill().await;
        Stopped { after: begun.elapsed(), was_killed }
    }

    /// SIGKILL to all of its processes: a crash. Returns when it has ended.
    pub async fn kill(&mut self) {
        self.kill_group();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }

    /// SIGSTOP to all of its processes: it answers nothing, and connections stay.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The last lines that it has written since it was started.
    pub fn log_tail(&self) -> String {
        tail(&self.program.log, self.log_start).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // It fails only if all have ended meanwhile.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Once: when the group is empty, its number may become another's.
    fn kill_group(&mut self) {
        self.signal(Signal::KILL);
        self.group = None;
    }

    fn spawn(&mut self) -> std::io::Result<()> {
        let program = &self.program;
        std::fs::create_dir_all(&program.directory)?;
        if let Some(parent) = program.log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut log = OpenOptions::new().create(true).append(true).open(&program.log)?;
        writeln!(log, "---- start of {} {:?}", program.executable.display(), program.args)?;
        self.log_start = log.metadata()?.len();
        let mut command = command(&program.executable);
        command.args(&program.args).current_dir(&program.directory);
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            if program.hidden.iter().any(|prefix| shown.starts_with(prefix.as_str())) {
                command.env_remove(&name);
            }
        }
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C in the terminal is for the harness, which ends its servers in order.
        command.process_group(0).kill_on_drop(true);
        self.started = Instant::now();
        let child = command.spawn()?;
        self.group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        self.child = Some(child);
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<(), StartError> {
        let limit = self.program.ready_limit;
        let until = self.started + limit;
        let mut reason = "nobody has looked".to_owned();
        loop {
            let ready = tokio::time::timeout_at(until, self.program.ready.look()).await;
            let has_ended = !self.is_running();
            match ready {
                Ok(Ok(())) if !has_ended => {
                    self.ready_after = self.started.elapsed();
                    return Ok(());
                }
                Ok(Err(error)) => reason = error,
                Ok(Ok(())) | Err(_) => {}
            }
            let (name, log) = (self.program.name.clone(), self.log_tail());
            if has_ended && let Some(status) = self.ended().await {
                self.kill().await;
                return Err(StartError::Ended { name, status, log });
            }
            if Instant::now() >= until {
                self.kill().await;
                return Err(StartError::TimedOut { name, limit, reason, log });
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child itself is killed, and waited for, by tokio; the others are in its group.
        self.signal(Signal::KILL);
    }
}

/// The command of an executable that ends when this process does, where the system has the means.
fn command(executable: &Path) -> Command {
    match in_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(executable);
            command
        }
        None => Command::new(executable),
    }
}

/// Where an executable lies, by `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// A free port on loopback, below those that the system gives to clients: a client that calls a dead server must not
/// be given the server's port for its own end.
pub fn free_port(entropy: &dyn Entropy) -> std::io::Result<u16> {
    const FIRST: u16 = 10_000;
    const COUNT: u64 = 21_000;
    const TRIES: usize = 1000;
    let mut failure = None;
    for _ in 0..TRIES {
        let port = FIRST + (entropy.random_u64() % COUNT) as u16;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()))
}

fn tail(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let start = start.max(file.metadata()?.len().saturating_sub(TAIL_BYTES));
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}
