//! The coordinator: lets agents in that know the token, gives each its share, and leads them as `run.rs` wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::message::{Assignment, ToAgent, ToCoordinator, VERSION, WRITTEN_CHUNK};
use super::{Roster, SILENCE_LIMIT, Token, frame};
use crate::crew::{Failure, Produced};
use crate::load::{Load, Plan};
use crate::pace::Segment;
use crate::timeline::Timeline;
use crate::verify::{Findings, Written};

/// Who has connected must say who it is within this time.
const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Connections that have not said who they are.
const MAX_STRANGERS: usize = 64;
/// Messages that wait for one agent.
const QUEUE: usize = 256;
/// Agents meet the cluster, and producers get their ids, within this time.
const START_LIMIT: Duration = Duration::from_secs(180);
/// What an agent has as a limit of its own is waited for so much longer.
const GRACE: Duration = Duration::from_secs(10);
const VERIFY_LIMIT: Duration = Duration::from_secs(60);
/// What all shall do at one instant is said so long before it.
const AHEAD: Duration = Duration::from_millis(50);

/// Where agents come to.
#[derive(Debug)]
pub struct Coordinator {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
    expected: usize,
    limit: Duration,
}

/// Agents at work.
#[derive(Debug)]
pub(crate) struct Fleet {
    roster: Arc<Roster>,
    is_over: watch::Sender<bool>,
    connections: JoinSet<()>,
    /// Consumers are at work.
    has_consumers: bool,
}

impl Coordinator {
    /// Listens for so many agents, of which the last must have come after `limit`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        token: Token,
        expected: usize,
        limit: Duration,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { address: listener.local_addr()?, listener, token, expected, limit })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all agents are there; nobody is let in after that. None if `interrupt` turns true before.
    pub(crate) async fn muster(
        self,
        timeline: Timeline,
        interrupt: &mut watch::Receiver<bool>,
    ) -> Result<Option<Fleet>, Failure> {
        let roster = Arc::new(Roster::new(timeline));
        let until = Instant::now() + self.limit;
        let mut strangers = JoinSet::new();
        let mut fleet = Fleet {
            roster: Arc::clone(&roster),
            is_over: watch::Sender::new(false),
            connections: JoinSet::new(),
            has_consumers: false,
        };
        while roster.count() < self.expected {
            tokio::select! {
                accepted = self.listener.accept(), if strangers.len() < MAX_STRANGERS => {
                    // A connection that could not be taken is the agent's to make again.
                    let Ok((socket, from)) = accepted else { continue };
                    let token = self.token.clone();
                    strangers.spawn(async move { (from, greet(socket, &token).await) });
                }
                Some(greeted) = strangers.join_next() => {
                    // Whoever is refused has been told why.
                    if let Ok((from, Ok((socket, machine)))) = greeted {
                        fleet.welcome(socket, from, machine);
                    }
                }
                () = sleep_until(until) => return Err(Failure::Missing {
                    there: roster.count(),
                    expected: self.expected,
                    address: self.address,
                }),
                _ = interrupt.wait_for(|interrupted| *interrupted) => return Ok(None),
            }
        }
        Ok(Some(fleet))
    }
}

/// Hears who has connected: its socket and machine if it knows the token.
async fn greet(mut socket: TcpStream, token: &Token) -> std::io::Result<(TcpStream, String)> {
    socket.set_nodelay(true)?;
    let hello = timeout(HELLO_LIMIT, frame::read(&mut socket, frame::FIRST_BYTES)).await??;
    let refusal = match hello {
        // What another version says may mean anything: its token is not looked at.
        ToCoordinator::Hello { version, .. } if version != VERSION => {
            format!(
                "it speaks version {VERSION} of the protocol, the agent version {version}: use the same program"
            )
        }
        ToCoordinator::Hello { token: given, machine, .. } if token.is(&given) => {
            return Ok((socket, machine));
        }
        ToCoordinator::Hello { .. } => "the token is wrong".to_owned(),
        _ => "say hello first".to_owned(),
    };
    let refused = ToAgent::Refused { reason: refusal.clone() };
    timeout(HELLO_LIMIT, frame::write(&mut socket, &refused)).await??;
    Err(std::io::Error::other(refusal))
}

impl Fleet {
    fn welcome(&mut self, socket: TcpStream, from: SocketAddr, machine: String) {
        let (reader, writer) = socket.into_split();
        let (out, messages) = mpsc::channel(QUEUE);
        let _ = out.try_send(ToAgent::Welcome);
        let agent = self.roster.add(from.to_string(), machine, out.clone());
        let (roster, mut is_over) = (Arc::clone(&self.roster), self.is_over.subscribe());
        let connection = self.connections.spawn(async move {
            let reason = tokio::select! {
                reason = listen(reader, agent, &roster, &out) => reason,
                reason = speak(writer, messages) => reason,
                _ = is_over.wait_for(|is_over| *is_over) => return,
            };
            roster.lose(agent, &reason);
        });
        self.roster.connected(agent, connection);
    }

    /// Gives agents that are there their shares, and waits until they are ready.
    pub(crate) async fn employ(&self, load: &Arc<Load>, plan: Plan) {
        let Plan { bootstrap, topic, run, seed } = plan;
        for (agent, share) in self.roster.employ(load) {
            let assignment = Assignment {
                workload: load.workload.clone(),
                bootstrap: bootstrap.clone(),
                topic: topic.clone(),
                run,
                seed,
                share,
            };
            self.roster.say(agent, ToAgent::Assign(Box::new(assignment)));
        }
        self.roster.until(START_LIMIT, |agent| agent.is_ready).await;
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// How long before its instant something must be said.
    pub(crate) fn ahead(&self) -> Duration {
        AHEAD
    }

    pub(crate) async fn start_producers(&self) {
        self.roster.say_all(&ToAgent::StartProducers);
        self.roster.until(START_LIMIT, |agent| agent.has_started).await;
    }

    pub(crate) fn start_consumers(&mut self) {
        self.has_consumers = true;
        self.roster.say_all(&ToAgent::StartConsumers);
    }

    pub(crate) fn begin_phase(&self, at_us: u64) {
        self.roster.begin_phase(at_us);
        self.roster.say_all(&ToAgent::BeginPhase { at_us });
    }

    pub(crate) fn set(&self, segment: Segment) {
        self.roster.say_all(&ToAgent::Set(segment));
    }

    /// Those that are there and at work.
    pub(crate) fn consumers(&self) -> usize {
        if self.has_consumers { self.roster.consumers() } else { 0 }
    }

    pub(crate) fn aim(&self, ends: &[i64]) {
        self.roster.say_all(&ToAgent::Aim { ends: ends.to_vec() });
    }

    /// Comes back when the run cannot go on, with the reason. May be dropped at any time.
    pub(crate) async fn failed(&self) -> String {
        self.roster.failed().await
    }

    pub(crate) async fn end_producers(&self, limit: Duration) -> Produced {
        self.roster.say_all(&ToAgent::EndProducers { limit_ms: limit.as_millis() as u64 });
        self.roster.until(limit + GRACE, |agent| agent.producers_ended).await;
        self.roster.produced()
    }

    /// Gives the first failure.
    pub(crate) async fn end_consumers(
        &self,
        ends: Option<Vec<i64>>,
        limit: Duration,
    ) -> Option<String> {
        let limit_ms = limit.as_millis() as u64;
        self.roster.say_all(&ToAgent::EndConsumers { ends, limit_ms });
        self.roster.until(limit + GRACE, |agent| agent.consumers_ended).await;
        self.roster.client_failure()
    }

    /// Has each agent hold what it has read against what all have written.
    pub(crate) async fn verify(&self, written: &[Written]) -> (bool, Findings) {
        for chunk in written.chunks(WRITTEN_CHUNK) {
            self.roster.tell_all(&ToAgent::Written(chunk.to_vec())).await;
        }
        self.roster.say_all(&ToAgent::Verify);
        self.roster.until(VERIFY_LIMIT, |agent| agent.verified.is_some()).await;
        self.roster.verified()
    }

    /// The run is over: lets agents go.
    pub(crate) async fn dismiss(&mut self) {
        self.roster.dismiss();
        self.roster.say_all(&ToAgent::End);
        // They hang up.
        let all_gone = async { while self.connections.join_next().await.is_some() {} };
        if timeout(SILENCE_LIMIT, all_gone).await.is_err() {
            self.is_over.send_replace(true);
        }
    }
}

/// Hears an agent until it is gone; why.
async fn listen(
    mut socket: OwnedReadHalf,
    agent: usize,
    roster: &Roster,
    out: &mpsc::Sender<ToAgent>,
) -> String {
    loop {
        let message = match timeout(SILENCE_LIMIT, frame::read(&mut socket, frame::MAX_BYTES)).await
        {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return format!("its connection broke: {error}"),
            Err(_) => return "it says nothing".to_owned(),
        };
        if let ToCoordinator::Time { asked_us } = message {
            let us = roster.timeline().now_us();
            if out.try_send(ToAgent::Time { asked_us, us }).is_err() {
                return "it does not listen".to_owned();
            }
        } else if let Err(reason) = roster.take(agent, message) {
            return reason;
        }
    }
}

/// Says what there is to say until the agent is gone; why.
async fn speak(mut socket: OwnedWriteHalf, mut messages: mpsc::Receiver<ToAgent>) -> String {
    while let Some(message) = messages.recv().await {
        match timeout(SILENCE_LIMIT, frame::write(&mut socket, &message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return format!("its connection broke: {error}"),
            Err(_) => return "it does not listen".to_owned(),
        }
    }
    "it was let go".to_owned()
}
