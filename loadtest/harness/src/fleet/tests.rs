//! Runs with agents against the null server, and agents and coordinators that do what they must not.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::message::{Assignment, ToAgent, ToCoordinator, VERSION};
use super::{AgentError, AgentOptions, Coordinator, Driver, Token, agent, frame};
use crate::crew::Share;
use crate::null_server::{Lie, NullServer};
use crate::tests::{Counted, Fixed, KEEP_BYTES, moved, options};
use crate::{Error, Report, Workload, run_on};

const TOKEN: &str = "a token of the tests";

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn token() -> Token {
    Token::new(TOKEN).expect("a token")
}

/// Agents as tasks of this process.
#[derive(Default)]
struct Tasks(JoinSet<Result<(), AgentError>>);

impl Driver for Tasks {
    async fn start(
        &mut self,
        count: usize,
        coordinator: SocketAddr,
        token: &Token,
    ) -> std::io::Result<()> {
        for _ in 0..count {
            let options =
                AgentOptions { coordinator: coordinator.to_string(), token: token.clone() };
            self.0.spawn(agent(options));
        }
        Ok(())
    }

    async fn stop(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            ended.expect("no panic").expect("the run was over");
        }
    }
}

async fn coordinator(expected: usize, limit: Duration) -> Coordinator {
    Coordinator::bind(loopback(), token(), expected, limit).await.expect("listens")
}

/// Runs a workload with a coordinator against a server of its own.
async fn lead(workload: &str, lie: Lie, coordinator: Coordinator) -> Result<Report, Error> {
    let server = NullServer::lying(loopback(), KEEP_BYTES, lie).await.expect("listens");
    let options = options(workload, &server);
    let serving = tokio::spawn(server.serve());
    let (_go_on, interrupt) = watch::channel(false);
    let outcome =
        run_on(None, Some(coordinator), options, &Fixed, &Counted::default(), interrupt, |_| {})
            .await;
    serving.abort();
    outcome
}

/// The same with so many agents.
async fn load(workload: &str, lie: Lie, agents: usize) -> Report {
    let coordinator = coordinator(agents, Duration::from_secs(10)).await;
    let mut driver = Tasks::default();
    driver.start(agents, coordinator.address(), &token()).await.expect("started");
    let report = lead(workload, lie, coordinator).await.expect("a report");
    driver.stop().await;
    report
}

const STEADY: &str = "
description = 'three producers, two groups of two'
duration = '700ms'
warm_up = '300ms'
[records]
size = '200B'
keys = 'uniform'
[topic]
partitions = 5
[produce]
producers = 3
rate = '3000/s'
linger = '5ms'
[consume]
groups = 2
consumers = 2
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_agents_makes_the_load_and_the_proof() {
    for agents in [1, 2] {
        let report = load(STEADY, Lie::None, agents).await;
        let proof = &report.verification;
        assert!(proof.is_passed() && proof.groups == 2, "{proof:?} {:?}", report.failures);
        // At least the second that was asked for: phases take longer on a busy machine.
        assert!(proof.acknowledged > 2900, "{proof:?}");
        assert_eq!(moved(&report), (proof.acknowledged, 2 * proof.acknowledged));
        let [steady] = &report.measured().collect::<Vec<_>>()[..] else { panic!("one phase") };
        let produce = steady.produce.as_ref().expect("latencies");
        // Phases begin and end everywhere at one instant.
        let due = 3000.0 * steady.seconds;
        assert!((due - produce.count as f64).abs() < due / 10.0, "{due} {}", produce.count);
        let end_to_end = steady.end_to_end.as_ref().expect("latencies").count;
        assert!(
            end_to_end.abs_diff(2 * produce.count) < produce.count / 10,
            "{end_to_end} {}",
            produce.count
        );
        assert_eq!(report.agents.len(), agents);
        let sum = |of: fn(&crate::report::AgentSummary) -> u64| report.agents.iter().map(of).sum();
        let all: [u64; 3] = [
            sum(|agent| agent.producers.into()),
            sum(|agent| agent.consumers.into()),
            sum(|agent| agent.acknowledged),
        ];
        assert_eq!(all, [3, 4, proof.acknowledged]);
        assert!(report.agents.iter().all(|agent| agent.lost.is_none() && agent.is_here));
        assert!(report.failed.is_none() && report.failures.is_empty(), "{:?}", report.failures);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_on_the_way_between_agents_is_found() {
    let proof = load(STEADY, Lie::Lose, 2).await.verification;
    assert!(proof.findings.lost > 0 && proof.findings.foreign == 0, "{proof:?}");
    assert!(!proof.is_passed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_goes_over_agents() {
    let report = load(
        "description = 'x'\nduration = '400ms'\nwarm_up = '200ms'\n[records]\nsize = '100B'\n\
         [produce]\nproducers = 2\n\
         [search]\np99 = '10s'\nfrom = '10000/s'\nprecision_percent = 50\n",
        Lie::None,
        2,
    )
    .await;
    let found = report.search.expect("a search");
    // Which rates hold is the machine's affair; which one was found is not.
    let held = found.trials.iter().filter(|trial| trial.held).map(|trial| trial.records_per_second);
    assert_eq!(found.records_per_second, held.reduce(f64::max), "{found:?}");
    assert!(found.trials.first().is_some_and(|trial| trial.p99 > 0.0), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_is_read_by_agents() {
    let report = load(
        "description = 'x'\nduration = '200ms'\n[produce]\nproducers = 2\nrate = '1000/s'\n\
         [backlog]\nsize = '2MiB'\n[consume]\nconsumers = 2\n",
        Lie::None,
        2,
    )
    .await;
    assert!(report.verification.is_passed(), "{:?}", report.verification);
    let names: Vec<&str> = report.measured().map(|phase| phase.name.as_str()).collect();
    assert_eq!(names, ["producers alone", "catching up", "at the tail"]);
}

/// Connects, says this, and hears the answer.
async fn say(address: SocketAddr, hello: &ToCoordinator) -> std::io::Result<ToAgent> {
    let mut socket = TcpStream::connect(address).await?;
    frame::write(&mut socket, hello).await?;
    frame::read(&mut socket, frame::MAX_BYTES).await
}

#[tokio::test]
async fn strangers_are_refused_and_keep_nobody_waiting() {
    let coordinator = coordinator(1, Duration::from_millis(1500)).await;
    let address = coordinator.address();
    let leading = tokio::spawn(lead(STEADY, Lie::None, coordinator));
    let hello = |version, token: &str| ToCoordinator::Hello {
        version,
        token: token.to_owned(),
        machine: String::new(),
    };
    for (hello, told) in [
        (hello(VERSION, "another token of tests"), "the token is wrong"),
        (hello(VERSION + 1, TOKEN), "version"),
        (ToCoordinator::Ready, "say hello first"),
    ] {
        let answer = say(address, &hello).await.expect("an answer");
        let ToAgent::Refused { reason } = answer else { panic!("{answer:?}") };
        assert!(reason.contains(told), "{reason}");
    }
    let outcome = agent(AgentOptions {
        coordinator: address.to_string(),
        token: Token::new("another token of tests").expect("a token"),
    });
    assert!(matches!(outcome.await, Err(AgentError::Refused(_))));
    // No frame at all, a length that is refused, and one that is not kept.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4], &[0, 0, 0x0f, 0]] {
        let mut socket = TcpStream::connect(address).await.expect("connected");
        socket.write_all(bytes).await.expect("written");
    }
    let refused = leading.await.expect("no panic").expect_err("nobody has come");
    assert!(refused.to_string().starts_with("0 of 1 agents have come"), "{refused}");
}

/// An agent that shows the token, and then does as `act` wants.
async fn impostor(address: SocketAddr, say: &[ToCoordinator]) {
    let mut socket = TcpStream::connect(address).await.expect("connected");
    let (token, machine) = (TOKEN.to_owned(), String::new());
    let hello = ToCoordinator::Hello { version: VERSION, token, machine };
    frame::write(&mut socket, &hello).await.expect("written");
    loop {
        match frame::read(&mut socket, frame::MAX_BYTES).await {
            Ok(ToAgent::Assign(_)) => break,
            Ok(_) => {}
            Err(error) => panic!("no assignment: {error}"),
        }
    }
    for message in say {
        // It may have been thrown out before the last.
        let _ = frame::write(&mut socket, message).await;
    }
    while frame::read::<ToAgent>(&mut socket, frame::MAX_BYTES).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_makes_no_sense_is_dropped_and_the_run_goes_on() {
    use crate::stats::Counts;
    use crate::verify::Written;
    let mut wild = super::message::Report { id: 1, ..Default::default() };
    wild.second.counts = Counts { written: u64::MAX, ..Counts::default() };
    let written = Written { producer: 0, partition: 99, acknowledged: 1, sent: 1 };
    for (message, told) in [
        (ToCoordinator::Report(Box::new(wild)), "it reports what cannot be"),
        (ToCoordinator::Written(vec![written]), "it has written what it could not"),
        (ToCoordinator::Failed { reason: "no server".to_owned() }, "no server"),
        (ToCoordinator::Time { asked_us: 1 }, "it says nothing"),
    ] {
        let coordinator = coordinator(2, Duration::from_secs(10)).await;
        let address = coordinator.address();
        let other = tokio::spawn(async move { impostor(address, &[message]).await });
        let mut driver = Tasks::default();
        driver.start(1, address, &token()).await.expect("started");
        let report = lead(STEADY, Lie::None, coordinator).await.expect("a report");
        driver.stop().await;
        other.await.expect("it was dropped");
        let lost: Vec<_> = report.agents.iter().filter_map(|agent| agent.lost.as_ref()).collect();
        let [lost] = lost[..] else { panic!("one is lost: {:?}", report.agents) };
        assert_eq!(lost.reason, told);
        let proof = &report.verification;
        assert!(proof.lost_agents == 1 && !proof.is_passed() && proof.findings.is_clean());
        assert!(proof.acknowledged > 0, "{proof:?}");
    }
}

#[tokio::test]
async fn an_agent_takes_no_senseless_orders_and_ends_without_its_coordinator() {
    let workload = Workload::parse(STEADY).expect("a workload");
    let assignment = |share, partitions| {
        let mut workload = workload.clone();
        workload.topic.partitions = partitions;
        let (bootstrap, topic) = ("127.0.0.1:1".to_owned(), "t".to_owned());
        ToAgent::Assign(Box::new(Assignment { workload, bootstrap, topic, run: 1, seed: 1, share }))
    };
    for orders in [
        vec![ToAgent::End],
        vec![ToAgent::Welcome, ToAgent::StartProducers],
        vec![ToAgent::Welcome, assignment(Share { part: 1, parts: 1 }, 5)],
        vec![ToAgent::Welcome, assignment(Share::ALL, 0)],
        vec![ToAgent::Welcome, assignment(Share::ALL, 5), ToAgent::Verify],
        vec![ToAgent::Welcome],
    ] {
        let listener = TcpListener::bind(loopback()).await.expect("listens");
        let address = listener.local_addr().expect("an address");
        let options = AgentOptions { coordinator: address.to_string(), token: token() };
        let agent = tokio::spawn(agent(options));
        let (mut socket, _) = listener.accept().await.expect("it comes");
        // It hangs up at the first that makes no sense.
        for order in &orders {
            let _ = frame::write(&mut socket, order).await;
        }
        for us in 0..8 {
            let heard = loop {
                match frame::read(&mut socket, frame::MAX_BYTES).await {
                    Ok(ToCoordinator::Hello { .. }) => {}
                    heard => break heard,
                }
            };
            let Ok(ToCoordinator::Time { asked_us }) = heard else { break };
            let _ = frame::write(&mut socket, &ToAgent::Time { asked_us, us }).await;
        }
        drop(socket);
        let outcome = tokio::time::timeout(Duration::from_secs(5), agent).await;
        let outcome = outcome.expect("it ends").expect("no panic");
        assert!(matches!(outcome, Err(AgentError::Lost(_))), "{orders:?}: {outcome:?}");
    }
}
