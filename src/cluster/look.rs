//! What can be seen of a cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_catalog::{Catalog, Drain, Node, Volume, VolumeKind};
use sluice_model::NodeId;

use crate::tools::table::Table;
use crate::tools::{Output, Verdict, bytes, print, time};

/// How many of the balancer's decisions people are shown.
const SHOWN: usize = 10;

/// How a volume stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A live node owns it.
    Owned,
    /// It is on its way to another node.
    Moving,
    /// No live node owns it, and one could.
    Orphan,
    /// No live node reaches it.
    Unreachable,
}

impl State {
    fn of(catalog: &Catalog, volume: &Volume) -> Self {
        let owner = volume.owner.and_then(|owner| catalog.node(owner));
        if owner.is_some_and(|owner| owner.spec.roles.writer) {
            let elsewhere = volume.wanted.is_some_and(|wanted| volume.owner != Some(wanted));
            return if elsewhere { Self::Moving } else { Self::Owned };
        }
        let is_reached = catalog.nodes().iter().any(|node| volume.spec.is_reached_by(&node.spec));
        match (is_reached, volume.wanted) {
            (false, _) => Self::Unreachable,
            (true, Some(_)) => Self::Moving,
            (true, None) => Self::Orphan,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::Moving => "moving",
            Self::Orphan => "orphan",
            Self::Unreachable => "unreachable",
        }
    }

    fn is_served(self) -> bool {
        matches!(self, Self::Owned | Self::Moving)
    }
}

fn verdict(catalog: &Catalog) -> Verdict {
    let served = |volume| State::of(catalog, volume).is_served();
    match catalog.volumes().iter().all(|volume| served(volume)) {
        true => Verdict::Clean,
        false => Verdict::Findings,
    }
}

pub(super) async fn status(catalog: &Catalog, output: Output) -> anyhow::Result<Verdict> {
    let (nodes, volumes, drains) = (catalog.nodes(), catalog.volumes(), catalog.drains());
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for volume in &volumes {
        *states.entry(State::of(catalog, volume).name()).or_default() += 1;
    }
    let decisions = catalog.decisions().await?;
    if output == Output::Json {
        print(
            &json!({
                "cluster": catalog.cluster_id(),
                "nodes": nodes.iter().map(|node| node.spec.id.0).collect::<Vec<_>>(),
                "drained": drains.keys().map(|node| node.0).collect::<Vec<_>>(),
                "volumes": volumes.len(),
                "states": states,
                "balancing": catalog.is_balancing(),
                "balancer": catalog.balancer().map(|node| node.0),
                "decisions": decisions,
            })
            .to_string(),
        );
        return Ok(verdict(catalog));
    }
    let writers = nodes.iter().filter(|node| node.spec.roles.writer).count();
    let listed: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let balancer = match (catalog.is_balancing(), catalog.balancer()) {
        (false, _) => "off: `sluice cluster balance on` lets it work".to_owned(),
        (true, Some(node)) => format!("on, by node {}", node.0),
        (true, None) => "on, but no node is elected".to_owned(),
    };
    let mut text = format!(
        "cluster   {}\nnodes     {} live, {writers} of them writers\nvolumes   {} ({})\nbalance   {balancer}\n",
        catalog.cluster_id(),
        nodes.len(),
        volumes.len(),
        if listed.is_empty() { "none".to_owned() } else { listed.join(", ") },
    );
    for (node, drain) in &drains {
        text += &format!("drained   node {} ({})\n", node.0, drain_name(*drain));
    }
    for decision in decisions.iter().rev().take(SHOWN) {
        let (from, to) = (decision.from.0, decision.to.0);
        let at = time(decision.at_ms);
        text += &format!(
            "moved     {at}  volume {} from {from} to {to}: {}\n",
            decision.volume, decision.why
        );
    }
    print(&text);
    Ok(verdict(catalog))
}

pub(super) async fn nodes(catalog: &Catalog, output: Output) -> anyhow::Result<Verdict> {
    let (nodes, drains, loads) = (catalog.nodes(), catalog.drains(), catalog.loads());
    let volumes = catalog.volumes();
    let owned = |node: NodeId| volumes.iter().filter(|v| v.owner == Some(node)).count();
    if output == Output::Json {
        let all: Vec<Value> = nodes.iter().map(|node| {
            let (id, spec) = (node.spec.id, &node.spec);
            json!({
                "node": id.0,
                "roles": roles(node),
                "zone": spec.rack,
                "kafka": spec.roles.gateway.then(|| format!("{}:{}", spec.kafka_host, spec.kafka_port)),
                "peer": spec.peer.as_ref().map(|peer| format!("{}:{}", peer.host, peer.port)),
                "volumes": owned(id),
                "drained": drains.get(&id).map(|drain| drain_name(*drain)),
                "load": loads.get(&id).map(|load| &**load),
            })
        }).collect();
        print(&Value::from(all).to_string());
        return Ok(Verdict::Clean);
    }
    let mut table = Table::new(&[
        "node",
        "roles",
        "zone",
        "kafka",
        "peer",
        "volumes",
        "in/s",
        "out/s",
        "requests/s",
        "cpu",
        "",
    ]);
    for node in &nodes {
        let (id, spec) = (node.spec.id, &node.spec);
        let peer = spec.peer.as_ref().map(|peer| format!("{}:{}", peer.host, peer.port));
        let kafka = spec.roles.gateway.then(|| format!("{}:{}", spec.kafka_host, spec.kafka_port));
        let load = loads.get(&id);
        let of = |shown: Option<String>| shown.unwrap_or_else(|| "-".to_owned());
        table.row([
            id.0.to_string(),
            roles(node),
            of(spec.rack.clone()),
            of(kafka),
            of(peer),
            owned(id).to_string(),
            of(load.map(|load| bytes(load.in_bytes))),
            of(load.map(|load| bytes(load.out_bytes))),
            of(load.map(|load| load.requests.to_string())),
            of(load.map(|load| format!("{:.1} %", f64::from(load.cpu_permille) / 10.0))),
            drains.get(&id).map_or_else(String::new, |drain| drain_name(*drain).to_owned()),
        ]);
    }
    print(&table.to_string());
    Ok(Verdict::Clean)
}

pub(super) async fn volumes(catalog: &Catalog, output: Output) -> anyhow::Result<Verdict> {
    let volumes = catalog.volumes();
    if output == Output::Json {
        let all: Vec<Value> = volumes
            .iter()
            .map(|volume| {
                json!({
                    "volume": volume.spec.id.0,
                    "kind": kind(volume.spec.kind),
                    "location": volume.spec.location,
                    "size_bytes": volume.spec.size_bytes,
                    "home": volume.spec.home.map(|home| home.0),
                    "zone": volume.spec.zone,
                    "state": State::of(catalog, volume).name(),
                    "owner": volume.owner.map(|owner| owner.0),
                    "epoch": volume.epoch.0,
                    "wanted": volume.wanted.map(|wanted| wanted.0),
                })
            })
            .collect();
        print(&Value::from(all).to_string());
        return Ok(verdict(catalog));
    }
    let mut table =
        Table::new(&["volume", "kind", "size", "reached by", "state", "owner", "epoch", "wanted"]);
    for volume in &volumes {
        let spec = &volume.spec;
        let node =
            |node: Option<NodeId>| node.map_or_else(|| "-".to_owned(), |node| node.0.to_string());
        let reach = match (spec.home, &spec.zone) {
            (Some(home), _) => format!("node {}", home.0),
            (None, Some(zone)) => format!("zone {zone}"),
            (None, None) => "all".to_owned(),
        };
        let size = match spec.size_bytes {
            0 => "whole".to_owned(),
            size => bytes(size),
        };
        table.row([
            spec.id.to_string(),
            kind(spec.kind).to_owned(),
            size,
            reach,
            State::of(catalog, volume).name().to_owned(),
            node(volume.owner),
            volume.epoch.0.to_string(),
            node(volume.wanted),
        ]);
    }
    print(&table.to_string());
    Ok(verdict(catalog))
}

fn kind(kind: VolumeKind) -> &'static str {
    match kind {
        VolumeKind::File => "file",
        VolumeKind::Block => "block",
        VolumeKind::Object => "object",
    }
}

fn drain_name(drain: Drain) -> &'static str {
    match drain {
        Drain::Told => "drained",
        Drain::Leaving => "leaving",
    }
}

fn roles(node: &Node) -> String {
    let roles = node.spec.roles;
    let named = [("gateway", roles.gateway), ("writer", roles.writer)];
    let names: Vec<_> = named.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
    names.join(",")
}
