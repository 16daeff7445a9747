//! What can be asked of a cluster. The nodes do it; here it is noted in the catalog, and waited for.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sluice_catalog::{Catalog, Volume};
use sluice_model::{NodeId, VolumeId};
use tokio::time::Instant;

use crate::tools::{Output, Verdict, print};

/// The longest time between two looks.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

fn node_id(node: u32) -> anyhow::Result<NodeId> {
    Ok(NodeId(i32::try_from(node).context("there are no nodes with such numbers")?))
}

pub(super) fn answer(output: Output, text: &str, json: &Value) {
    match output {
        Output::Text => print(text),
        Output::Json => print(&json.to_string()),
    }
}

/// For who waits; a reader that has gone away is no failure of ours.
pub(super) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub(super) async fn move_volume(
    catalog: &Catalog,
    volume: u32,
    to: u32,
    within: Duration,
    output: Output,
) -> anyhow::Result<Verdict> {
    let (id, to) = (VolumeId(volume), node_id(to)?);
    let before = catalog.volume(id).with_context(|| format!("there is no volume {volume}"))?;
    check(catalog, &before, to)?;
    let begun = Instant::now();
    let done = |epoch: u32| {
        let took_ms = begun.elapsed().as_millis() as u64;
        let text = format!("volume {volume} is with node {}, after {took_ms} ms", to.0);
        let json = json!({"volume": volume, "owner": to.0, "epoch": epoch, "took_ms": took_ms});
        answer(output, &text, &json);
    };
    if before.owner == Some(to) && before.wanted.is_none() {
        done(before.epoch.0);
        return Ok(Verdict::Clean);
    }
    let mut changes = catalog.subscribe();
    catalog.want_volume(id, Some(to)).await?;
    let from =
        before.owner.map_or_else(|| "nobody".to_owned(), |owner| format!("node {}", owner.0));
    progress(&format!("volume {volume} is with {from}; waiting for node {}", to.0));
    let mut owner = before.owner;
    while begun.elapsed() < within {
        let now = catalog.volume(id).with_context(|| format!("volume {volume} is gone"))?;
        if now.owner != owner {
            owner = now.owner;
            match owner {
                None => progress(&format!("volume {volume} was given up")),
                Some(owner) => {
                    progress(&format!("volume {volume} was claimed by node {}", owner.0));
                }
            }
        }
        // Its new owner says that it serves it by taking the wish back.
        match (now.wanted, now.owner == Some(to)) {
            (None, true) => {
                done(now.epoch.0);
                return Ok(Verdict::Clean);
            }
            (Some(other), _) if other != to => {
                bail!("node {} shall have the volume now: somebody else moved it", other.0)
            }
            (None, false) => bail!(
                "the move came to nothing: node {} went, was drained, or could not take the volume; its log says why",
                to.0
            ),
            (Some(_), _) => {}
        }
        let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
    }
    progress(&format!("not done within {within:?}; it goes on: see `sluice cluster volumes`"));
    Ok(Verdict::Incomplete)
}

/// Whether that node can have the volume.
fn check(catalog: &Catalog, volume: &Volume, to: NodeId) -> anyhow::Result<()> {
    let node = catalog
        .node(to)
        .with_context(|| format!("node {} is not alive: see `sluice cluster nodes`", to.0))?;
    ensure!(node.spec.roles.writer, "node {} is no writer, so it owns no volumes", to.0);
    ensure!(
        volume.spec.is_reached_by(&node.spec),
        "node {} does not reach volume {}: it is in another node's data directory, or in another zone",
        to.0,
        volume.spec.id
    );
    ensure!(
        !catalog.drains().contains_key(&to),
        "node {} is drained: `sluice cluster undrain {}` first",
        to.0,
        to.0
    );
    Ok(())
}

pub(super) async fn drain(
    catalog: &Catalog,
    node: u32,
    within: Duration,
    output: Output,
) -> anyhow::Result<Verdict> {
    let id = node_id(node)?;
    let begun = Instant::now();
    let mut changes = catalog.subscribe();
    catalog.drain_node(id).await?;
    let mut told = usize::MAX;
    loop {
        let volumes = catalog.volumes();
        let own = || volumes.iter().filter(|volume| volume.owner == Some(id));
        let left = own().filter(|volume| has_another(catalog, volume, id)).count();
        let stay = own().count() - left;
        if left == 0 || begun.elapsed() >= within {
            let took_ms = begun.elapsed().as_millis() as u64;
            let text = format!(
                "node {node} gets no more volumes; {left} are still to be handed over, {stay} stay: no other live \
                 node reaches them ({took_ms} ms)"
            );
            let json = json!({"node": node, "left": left, "stay": stay, "took_ms": took_ms});
            answer(output, &text, &json);
            return Ok(if left == 0 { Verdict::Clean } else { Verdict::Incomplete });
        }
        if left != told {
            progress(&format!("node {node} has {left} volumes to hand over"));
            told = left;
        }
        let _ = tokio::time::timeout(LOOK_EVERY, changes.recv()).await;
    }
}

/// Whether a live node beside this one may get the volume.
fn has_another(catalog: &Catalog, volume: &Volume, node: NodeId) -> bool {
    let drains = catalog.drains();
    catalog.nodes().iter().any(|other| {
        other.spec.id != node
            && !drains.contains_key(&other.spec.id)
            && volume.spec.is_reached_by(&other.spec)
    })
}

pub(super) async fn undrain(
    catalog: &Catalog,
    node: u32,
    output: Output,
) -> anyhow::Result<Verdict> {
    catalog.undrain_node(node_id(node)?).await?;
    let text = format!("node {node} may have volumes again");
    answer(output, &text, &json!({"node": node, "drained": false}));
    Ok(Verdict::Clean)
}

pub(super) async fn balance(
    catalog: &Catalog,
    on: bool,
    output: Output,
) -> anyhow::Result<Verdict> {
    catalog.set_balancing(on).await?;
    let text = match on {
        true => "volumes are moved to even out what nodes carry",
        false => "no volume is moved but by drains and `sluice cluster move`",
    };
    answer(output, text, &json!({"balancing": on}));
    Ok(Verdict::Clean)
}
