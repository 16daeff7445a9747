//! What the process's configuration tells the gateway. Plain values, checked by whoever read them.

use std::net::IpAddr;
use std::time::Duration;

use sluice_model::NodeId;

/// Everything the gateway is told at start. It does not change while the gateway lives.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The broker id under which clients know this node.
    pub node_id: NodeId,
    /// The host that clients are told to connect to.
    pub advertised_host: String,
    /// The port that clients are told to connect to.
    pub advertised_port: u16,
    /// The rack that clients are told, if any.
    pub rack: Option<String>,
    /// Whether Metadata creates a missing topic when the client allows it.
    pub auto_create_topics: bool,
    /// Partitions of a topic whose creator did not say.
    pub default_partitions: u32,
    /// Bounds on what connections may take.
    pub limits: Limits,
}

/// Bounds on what connections may take. Each is enforced before the memory is taken.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections over all peers.
    pub max_connections: usize,
    /// Open connections of one peer address.
    pub max_connections_per_ip: usize,
    /// The largest frame; Kafka's `socket.request.max.bytes`.
    pub max_frame_bytes: u32,
    /// Requests of one connection that are read but not yet answered.
    pub max_in_flight: usize,
    /// Answer bytes of one connection that are asked for or wait to be written.
    pub max_answer_bytes: usize,
    /// Request bytes held over all connections; when it is used up, reading pauses. At least twice
    /// `max_frame_bytes`, or the largest frames cannot be taken in.
    pub request_budget_bytes: usize,
    /// Record bytes promised to fetches over all connections; when it is used up, a fetch gets one
    /// batch at a time.
    pub answer_budget_bytes: usize,
    /// The most one fetch gives; Kafka's `fetch.max.bytes`.
    pub fetch_max_bytes: u32,
    /// Partitions that fetch sessions remember, over all connections; when they are used up, no more sessions are
    /// made, and clients name all partitions in each fetch.
    pub max_fetch_session_partitions: usize,
    /// A connection without traffic is closed after this; Kafka's `connections.max.idle.ms`.
    pub idle_timeout: Duration,
    /// A connection that neither takes its answers nor finishes its frame is closed after this.
    pub stall_timeout: Duration,
    /// How long requests in flight may take after shutdown began.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_ip: 20_000,
            max_frame_bytes: 100 << 20,
            max_in_flight: 64,
            max_answer_bytes: 64 << 20,
            request_budget_bytes: 256 << 20,
            answer_budget_bytes: 512 << 20,
            fetch_max_bytes: 55 << 20,
            max_fetch_session_partitions: 100_000,
            idle_timeout: Duration::from_secs(600),
            stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(4),
        }
    }
}

impl GatewayConfig {
    /// The defaults, for a node that clients reach at `host` and `port`.
    pub fn new(node_id: NodeId, host: impl Into<String>, port: u16) -> Self {
        Self {
            node_id,
            advertised_host: host.into(),
            advertised_port: port,
            rack: None,
            auto_create_topics: true,
            default_partitions: 1,
            limits: Limits::default(),
        }
    }
}

/// The address that a connection is counted under: an IPv4 peer counts the same through a
/// dual-stack listener, and an IPv6 peer counts by its /64, which one host can walk through.
pub(crate) fn counted_address(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
        other => other,
    }
}
