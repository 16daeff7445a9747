//! An agent: comes to the coordinator, gets its share, and does what it is told until the run is over.
//!
//! Two tasks: the desk (here) speaks with the coordinator and always answers soon; the worker owns the clients and
//! takes its time. Both know the load.

mod desk;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use super::clock::Estimate;
use super::frame;
use super::message::{Assignment, ToAgent, ToCoordinator, VERSION};
use super::{SILENCE_LIMIT, Token};
use crate::client::CallError;
use crate::load::Load;
use crate::process;
use crate::timeline::Timeline;

/// An agent may be started before its coordinator.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// So often is the time asked before it is believed.
const FIRST_SAMPLES: usize = 8;
/// An agent says something so often.
const SPEAK_EVERY: Duration = Duration::from_secs(1);
/// Messages of the coordinator that wait.
const QUEUE: usize = 64;

/// Where an agent goes.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Host and port of the coordinator.
    pub coordinator: String,
    /// What it must know.
    pub token: Token,
}

/// Why an agent has ended before the run was over.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody is there.
    #[error("cannot reach a coordinator at {0}: {1}")]
    Unreachable(String, std::io::Error),
    /// It does not want us.
    #[error("the coordinator has refused: {0}")]
    Refused(String),
    /// It is gone, or says what makes no sense.
    #[error("the coordinator is gone: {0}")]
    Lost(String),
    /// The server cannot be loaded from here.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A part of the harness has panicked: a fault of this program.
    #[error("a part of the load test has failed: {0}")]
    Bug(String),
}

impl AgentError {
    #[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
    fn lost(error: std::io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

/// A message, and when it came.
type Arrival = (Instant, ToAgent);

/// The connection to the coordinator.
struct Line {
    /// What the coordinator says; none when it is gone.
    messages: mpsc::Receiver<Result<Arrival, AgentError>>,
    socket: OwnedWriteHalf,
    /// Of our own clock, which the coordinator's is measured by.
    start: Instant,
    clock: Estimate,
}

impl Line {
    async fn say(&mut self, message: &ToCoordinator) -> Result<(), AgentError> {
        // A coordinator that does not listen is gone.
        let written = timeout(SILENCE_LIMIT, frame::write(&mut self.socket, message)).await;
        written
            .map_err(|_| AgentError::Lost("it does not listen".to_owned()))?
            .map_err(AgentError::lost)
    }

    /// The next message. Time that it tells is noted before. May be dropped at any time.
    async fn hear(&mut self) -> Result<ToAgent, AgentError> {
        let heard = self.messages.recv().await;
        let (at, message) = heard.ok_or_else(|| AgentError::Lost("it hung up".to_owned()))??;
        if let ToAgent::Time { asked_us, us } = message {
            let answered_us = at.duration_since(self.start).as_micros() as u64;
            if !self.clock.take(asked_us, answered_us, us) {
                return Err(AgentError::Lost("its time makes no sense".to_owned()));
            }
        }
        Ok(message)
    }

    async fn ask_time(&mut self) -> Result<(), AgentError> {
        let asked_us = self.start.elapsed().as_micros() as u64;
        self.say(&ToCoordinator::Time { asked_us }).await
    }
}

/// Is an agent until the run is over.
///
/// # Errors
/// When the run was not over: see [`AgentError`].
pub async fn agent(options: AgentOptions) -> Result<(), AgentError> {
    let socket = connect(&options.coordinator).await?;
    let (from, socket) = socket.into_split();
    let (to, messages) = mpsc::channel(QUEUE);
    // Ends when the coordinator is gone or nobody listens any more.
    let listener = tokio::spawn(listen(from, to));
    let mut line = Line { messages, socket, start: Instant::now(), clock: Estimate::default() };
    let outcome = attend(&mut line, &options.token).await;
    listener.abort();
    if matches!(outcome, Ok(()) | Err(AgentError::Call(_) | AgentError::Bug(_))) {
        let _ = timeout(SILENCE_LIMIT, line.socket.shutdown()).await;
    }
    outcome
}

async fn attend(line: &mut Line, token: &Token) -> Result<(), AgentError> {
    line.say(&ToCoordinator::Hello {
        version: VERSION,
        token: token.secret().to_owned(),
        machine: process::machine_id(),
    })
    .await?;
    match line.hear().await? {
        ToAgent::Welcome => {}
        ToAgent::Refused { reason } => return Err(AgentError::Refused(reason)),
        _ => return Err(AgentError::Lost("it has not said welcome".to_owned())),
    }
    let Some(assignment) = assignment(line).await? else { return Ok(()) };
    let timeline = Timeline::from(line.start, 0);
    let offset_us = line.clock.best().map_or(0, |best| best.offset_us);
    timeline.shift(offset_us);
    let Some(load) = join(line, &assignment, timeline).await? else { return Ok(()) };
    line.say(&ToCoordinator::Ready).await?;
    desk::Desk::new(line, load, assignment.share, offset_us).work().await
}

/// Learns the time and what to do; none if the run is over before it began.
async fn assignment(line: &mut Line) -> Result<Option<Box<Assignment>>, AgentError> {
    let mut given: Option<Box<Assignment>> = None;
    line.ask_time().await?;
    loop {
        // Others may still be on their way; the coordinator must see that we are there.
        let Ok(message) = timeout(SPEAK_EVERY, line.hear()).await else {
            line.ask_time().await?;
            continue;
        };
        let is_timed = line.clock.len() >= FIRST_SAMPLES;
        match message? {
            ToAgent::Time { .. } if is_timed => {}
            ToAgent::Time { .. } => line.ask_time().await?,
            ToAgent::Assign(assignment) if given.is_none() => {
                assignment.check().map_err(AgentError::Lost)?;
                given = Some(assignment);
            }
            ToAgent::End => return Ok(None),
            _ => return Err(AgentError::Lost("it gives orders before work".to_owned())),
        }
        if is_timed && given.is_some() {
            return Ok(given);
        }
    }
}

/// Meets the cluster; none if the run is over before that.
async fn join(
    line: &mut Line,
    assignment: &Assignment,
    timeline: Timeline,
) -> Result<Option<Arc<Load>>, AgentError> {
    let plan = assignment.plan();
    let joining = Load::join(assignment.workload.clone(), &plan, timeline);
    tokio::pin!(joining);
    let mut ticks = interval(SPEAK_EVERY);
    loop {
        tokio::select! {
            joined = &mut joining => match joined {
                Ok(load) => return Ok(Some(Arc::new(load))),
                Err(error) => {
                    line.say(&ToCoordinator::Failed { reason: error.to_string() }).await?;
                    return Err(error.into());
                }
            },
            message = line.hear() => match message? {
                ToAgent::Time { .. } => {}
                ToAgent::End => return Ok(None),
                _ => return Err(AgentError::Lost("it gives orders before work".to_owned())),
            },
            _ = ticks.tick() => line.ask_time().await?,
        }
    }
}

async fn connect(address: &str) -> Result<TcpStream, AgentError> {
    let until = Instant::now() + CONNECT_LIMIT;
    loop {
        let connected = timeout(SILENCE_LIMIT, TcpStream::connect(address)).await;
        let failure = match connected {
            Ok(Ok(socket)) => match socket.set_nodelay(true) {
                Ok(()) => return Ok(socket),
                Err(error) => error,
            },
            Ok(Err(error)) => error,
            Err(_) => std::io::ErrorKind::TimedOut.into(),
        };
        if Instant::now() > until {
            return Err(AgentError::Unreachable(address.to_owned(), failure));
        }
        sleep(RETRY_AFTER).await;
    }
}

async fn listen(mut from: OwnedReadHalf, to: mpsc::Sender<Result<Arrival, AgentError>>) {
    loop {
        let message = match timeout(SILENCE_LIMIT, frame::read(&mut from, frame::MAX_BYTES)).await {
            Ok(Ok(message)) => Ok((Instant::now(), message)),
            Ok(Err(error)) => Err(AgentError::lost(error)),
            Err(_) => Err(AgentError::Lost("it says nothing".to_owned())),
        };
        let is_last = message.is_err();
        if to.send(message).await.is_err() || is_last {
            return;
        }
    }
}
